"""A spiking network on a fitted device: leaky integrate-and-fire neurons of snnTorch around memristive layers.

Images are shown for a number of time steps, as constant inputs or as spikes whose probability is the pixel's value. Two
fully connected layers are crossbars; the neurons between and after them are digital and integrate their outputs,

    u[t] = beta u[t-1] + y[t] - theta s[t-1],    s[t] = (u[t] > theta),

and the class is the output neuron with the largest mean potential, whose threshold is out of reach. Gradients pass the
spikes by a surrogate. A chip is the same in all time steps.

Each network is trained on ideal devices and on those of the model, and evaluated on both. Spikes drive devices at one
voltage only, constant inputs at all voltages up to it.
"""

import argparse
from typing import Any

import numpy as np
import snntorch
import torch
from example_output import images_of, parser, percent, write
from snntorch import surrogate
from torch import nn
from torch.nn import functional

import calib
from calib import nn as memristive
from calib.crossbar.devices import generator
from calib.energy import READ_TIME
from calib.figure_style import CYCLE, figure
from calib.nn import Devices
from calib.vision import ImageData

CODINGS = ("constant", "rate")
_NO_SPIKES = 1e9  # threshold of the output neurons


class SpikingNetwork(nn.Module):
    """Two layers with leaky integrate-and-fire neurons; inputs (batch, step, feature) give logits (batch, class)."""

    def __init__(self, features: int, hidden: int, classes: int, beta: float) -> None:
        super().__init__()
        slope = surrogate.fast_sigmoid(slope=25)
        self.first, self.second = nn.Linear(features, hidden), nn.Linear(hidden, classes)
        self.neurons = snntorch.Leaky(beta=beta, spike_grad=slope)
        self.outputs = snntorch.Leaky(beta=beta, threshold=_NO_SPIKES, spike_grad=slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return mean potentials of the output neurons."""
        hidden = x.new_zeros(len(x), self.first.out_features)
        output = x.new_zeros(len(x), self.second.out_features)
        total = torch.zeros_like(output)
        for step in range(x.shape[1]):
            spikes, hidden = self.neurons(self.first(x[:, step]), hidden)
            _, output = self.outputs(self.second(spikes), output)
            total = total + output
        return total / x.shape[1]


def main(arguments: list[str] | None = None) -> int:
    """Train, evaluate, write."""
    args = _arguments(arguments)
    data = images_of(args)
    devices = Devices.from_model(calib.open_device(args.device))
    rows = []
    for coding in CODINGS:
        for trained_on in ("ideal", "devices"):
            on = devices.ideal() if trained_on == "ideal" else devices
            networks = [_trained(data, on, coding, index, args) for index in range(args.networks)]
            for tested_on, made in (("ideal", devices.ideal()), ("devices", devices)):
                found = [_evaluated(network, made, data, coding, args) for network in networks]
                errors, energy = (np.array(part) for part in zip(*found, strict=True))
                rows.append({"coding": coding, "trained on": trained_on, "evaluated on": tested_on,
                             **percent(errors), "energy (nJ)": round(1e9 * float(energy.mean()), 4)})  # fmt: skip
    return write(args, data, rows, _figure(rows), _sentence(rows, args))


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    made = parser(__doc__, dataset="digits")
    made.add_argument("--device", default="siox-high-resistance", help="device model (default siox-high-resistance)")
    made.add_argument("--steps", type=int, help="time steps of an image (default 10)")
    made.add_argument("--beta", type=float, default=0.9, help="share of the potential that is left after a step (0.9)")
    made.add_argument("--hidden", type=int, default=32, help="hidden neurons (default 32)")
    made.add_argument("--networks", type=int, help="networks (default 2)")
    made.add_argument("--chips", type=int, help="chips of each network (default 20)")
    made.add_argument("--epochs", type=int, help="of training (default 20)")
    made.add_argument("--learning-rate", type=float, help="the largest (default 0.01, quick 0.03)")
    args = made.parse_args(arguments)
    usual = (5, 1, 2, 3, 0.03) if args.quick else (10, 2, 20, 20, 0.01)
    for name, value in zip(("steps", "networks", "chips", "epochs", "learning_rate"), usual, strict=True):
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    return args


def spikes_of(images: torch.Tensor, steps: int, coding: str, random: torch.Generator) -> torch.Tensor:
    """Return inputs (batch, step, feature) of images (batch, feature)."""
    shown = images.unsqueeze(1).expand(-1, steps, -1)
    return shown if coding == "constant" else torch.bernoulli(shown, generator=random)


def _trained(data: ImageData, devices: Devices, coding: str, index: int, args: argparse.Namespace) -> nn.Module:
    key = (args.seed, index)
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(*key, "first").get_state())
        plain = SpikingNetwork(data.n_features, args.hidden, data.n_classes, args.beta)
        network = memristive.convert(plain, devices, mapping="double")
    layers = memristive.memristive_layers(network)
    for position, layer in enumerate(layers):
        layer.generator = generator(*key, "devices", position)
    images, labels = torch.tensor(data.train_images), torch.tensor(data.train_labels)
    order, random = generator(*key, "order"), generator(*key, "spikes")
    optimizer = torch.optim.Adam(network.parameters(), lr=args.learning_rate)
    steps = args.epochs * -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(args.epochs):
        for rows in torch.randperm(len(images), generator=order).split(64):
            optimizer.zero_grad()
            with memristive.same_devices(network):  # the same chip in all time steps
                logits = network(spikes_of(images[rows], args.steps, coding, random))
            functional.cross_entropy(logits, labels[rows]).backward()
            optimizer.step()
            schedule.step()
            for layer in layers:
                layer.project()
    for part in network.modules():
        if isinstance(part, snntorch.Leaky):
            part.mem = torch.zeros(0)  # of the last batch, with its graph
    return network.eval()


@torch.no_grad()
def _evaluated(
    network: nn.Module, devices: Devices, data: ImageData, coding: str, args: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray]:
    """Return error and energy of an inference [J] of chips."""
    placed = memristive.convert(network, devices)
    images, labels = torch.tensor(data.test_images), torch.tensor(data.test_labels)
    shown = spikes_of(images, args.steps, coding, generator(args.seed, "test spikes"))
    with memristive.held_chips(placed, args.seed, range(args.chips)) as chips:
        chips.measures = True
        right = (chips(shown).argmax(-1) == labels).double().mean(-1)
        power = chips.mean_power().sum(-1)
    return 1 - right.numpy(), power.numpy() * READ_TIME


def _sentence(rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    found = {(row["coding"], row["trained on"], row["evaluated on"]): row["error (%)"] for row in rows}
    parts = [
        f"with {coding} inputs {found[coding, 'ideal', 'devices']:.2f} % after training on ideal devices and "
        f"{found[coding, 'devices', 'devices']:.2f} % after training on them ({found[coding, 'ideal', 'ideal']:.2f} % "
        "on ideal ones)"
        for coding in CODINGS
    ]
    return f"Median error of the spiking network on {args.device}: {'; '.join(parts)}."


def _figure(rows: list[dict[str, Any]]) -> Any:
    with figure(110.0) as drawing:
        axes = drawing.subplots()
        for index, row in enumerate(rows):
            middle = row["error (%)"]
            ends = np.array([[middle - row["5 % of chips"]], [row["95 % of chips"] - middle]])
            colour = CYCLE[CODINGS.index(row["coding"])]
            axes.errorbar([middle], [index], xerr=np.maximum(ends, 0), fmt="o", color=colour, capsize=3)
        labels = [f"{row['coding']}, trained on {row['trained on']}, run on {row['evaluated on']}" for row in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.invert_yaxis()
        axes.set_xlabel("error (%)")
    return drawing


if __name__ == "__main__":
    raise SystemExit(main())
