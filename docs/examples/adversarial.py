"""Adversarial attacks on networks that were trained with and without stuck devices.

The set-up of 'Nonideality-aware training makes memristive networks more robust to adversarial attacks' (D. Joksas,
L. Munoz-Gonzalez, E. Lupu, A. Mehonic, arXiv:2409.19671, 2024): 32 hidden ReLU neurons, pairs of devices of 0.1 to 1 mS
at 0.5 V, of which 10 or 20 % are stuck at G_off; 10 epochs of training on ideal devices, or on such ones. Three
attackers know more and more: the weights of the network that was trained on ideal devices (a transferred attack, as in
the study), those of the very network, and its very devices.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from example_output import images_of, parser, percent, trained, write
from stated_device import stated_device
from torch import nn

from calib import attacks
from calib.crossbar.chips import ChipStack
from calib.figure_style import CYCLE, figure
from calib.runs import Run

G_OFF, G_ON = 1e-4, 1e-3
HIDDEN = 32
SHARES = (0.1, 0.2)
ATTACKERS = ("transferred", "weights", "devices")
_SOURCE = "set-up of arXiv:2409.19671 (2024)"
_PIXELS = 2**18  # of images that are attacked at once


def network(n_features: int, n_classes: int) -> nn.Sequential:
    """Return the study's network, with ReLU."""
    return nn.Sequential(nn.Linear(n_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_classes))


def main(arguments: list[str] | None = None) -> int:
    """Train, attack, write."""
    args = _arguments(arguments)
    data = images_of(args)
    strengths = np.linspace(0.0, args.largest, args.steps).tolist()
    models = {share: stated_device(f"{share:.0%} stuck", G_OFF, G_ON, stuck=share, source=_SOURCE) for share in SHARES}
    options = {
        "network": "adversarial:network", "mapping": "lowest", "epochs": args.epochs, "networks": args.networks,
        "schedule": "constant", "learning_rate": 5e-3, "validation_every": 5, "validation_repeats": 5,
        "seed": args.seed,
    }  # fmt: skip
    runs = {0.0: trained(models[SHARES[0]], args.output / "ideal", data, ideal=True, **options)}
    for share, model in models.items():
        runs[share] = trained(model, args.output / f"aware-{round(100 * share)}", data, **options)
    images = torch.tensor(data.test_images[: args.images]), torch.tensor(data.test_labels[: args.images])
    rows = []
    for tested, model in models.items():
        for trained_on, run in runs.items():
            for attacker in ATTACKERS:
                accuracy = np.stack([
                    _accuracies(runs[0.0], run, model, index, attacker, images, strengths, args)
                    for index in range(args.networks)
                ])  # fmt: skip
                for column, strength in enumerate(strengths):
                    rows.append({
                        "devices": f"{tested:.0%} stuck",
                        "trained on": "ideal" if not trained_on else f"{trained_on:.0%} stuck",
                        "attacker": attacker, "strength": round(strength, 6), **percent(1 - accuracy[..., column]),
                    })  # fmt: skip
    return write(args, data, rows, _figure(rows, args), _sentence(rows))


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--attack", choices=["fgsm", "pgd"], default="fgsm", help="fgsm (default), or pgd in L2")
    made.add_argument("--largest", type=float, help="largest strength (default 0.2 of fgsm, 2 of pgd)")
    made.add_argument("--steps", type=int, help="strengths from 0 on, at least 2 (default 6)")
    made.add_argument("--networks", type=int, help="networks trained on each kind of device (default 3)")
    made.add_argument("--chips", type=int, help="chips of each network (default 5)")
    made.add_argument("--epochs", type=int, default=10, help="of training (default 10, the study's)")
    made.add_argument("--images", type=int, help="first test images (default 2000)")
    args = made.parse_args(arguments)
    usual = (3, 1, 2, 100) if args.quick else (6, 3, 5, 2000)
    for name, value in zip(("steps", "networks", "chips", "images"), usual, strict=True):
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    args.steps = max(args.steps, 2)
    args.largest = {"fgsm": 0.2, "pgd": 2.0}[args.attack] if args.largest is None else args.largest
    return args


def _accuracies(
    ideal: Run, run: Run, model: Any, index: int, attacker: str, images: Any, strengths: list[float], args: Any
) -> np.ndarray:
    """Return the accuracy (chip, strength) of chips under an attack."""
    devices = run.devices(model)
    chips = [ChipStack(run.network(index, devices), args.seed, [chip]) for chip in range(args.chips)]
    if attacker == "devices":
        own = [ChipStack(run.network(index, devices), args.seed, [chip]) for chip in range(args.chips)]
    else:
        known = ideal if attacker == "transferred" else run
        one = ChipStack(known.network(index, devices.ideal()), 0, [0])
        own = [one]
    accuracy = np.zeros((args.chips, len(strengths)))
    for column, strength in enumerate(strengths):
        for given, labels in _batches(*images):
            changed = [_changed(stack, given, labels, strength, args.attack) for stack in own]
            for row, chip in enumerate(chips):
                with torch.no_grad():
                    right = chip(changed[row % len(changed)])[0].argmax(-1) == labels
                accuracy[row, column] += int(right.sum())
    return accuracy / len(images[0])


def _batches(images: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    size = max(1, _PIXELS // images.shape[1])
    return zip(images.split(size), labels.split(size), strict=True)


def _changed(
    model: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    strength: float,
    attack: str,
) -> torch.Tensor:
    if strength == 0:
        return images
    return (attacks.fgsm if attack == "fgsm" else attacks.pgd_l2)(model, images, labels, strength)


def _sentence(rows: list[dict[str, Any]]) -> str:
    """Return what the least attack does to devices of which 20 % are stuck."""
    least = min(row["strength"] for row in rows if row["strength"] > 0)
    found = {
        (row["trained on"], row["attacker"]): row["error (%)"]
        for row in rows
        if row["devices"] == "20% stuck" and row["strength"] == least
    }
    parts = [f"{found['ideal', who]:.1f} to {found['20% stuck', who]:.1f} % ({who})" for who in ATTACKERS]
    return (
        f"At strength {least:g}, training on the devices instead of ideal ones takes the error on devices of which "
        f"20 % are stuck from {', '.join(parts)}."
    )


def _figure(rows: list[dict[str, Any]], args: Any) -> Any:
    with figure(175.0, 70.0) as drawing:
        for axes, attacker in zip(drawing.subplots(1, 3, sharey=True), ATTACKERS, strict=True):
            for colour, trained_on in zip(CYCLE, ("ideal", "10% stuck", "20% stuck"), strict=False):
                chosen = [row for row in rows if (row["devices"], row["trained on"], row["attacker"])
                          == ("20% stuck", trained_on, attacker)]  # fmt: skip
                x = [row["strength"] for row in chosen]
                median = [row["error (%)"] for row in chosen]
                axes.plot(x, median, "o-", color=colour, label=f"trained on {trained_on}")
                axes.fill_between(x, [row["5 % of chips"] for row in chosen], [row["95 % of chips"] for row in chosen],
                                  color=colour, alpha=0.2, lw=0)  # fmt: skip
            axes.set_xlabel(f"{args.attack.upper()}, eps; attacker: {attacker}")
        drawing.axes[0].set_ylabel("error on 20 % stuck devices (%)")
        drawing.legend(*drawing.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return drawing


if __name__ == "__main__":
    raise SystemExit(main())
