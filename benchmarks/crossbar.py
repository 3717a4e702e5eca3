"""Crossbar layers side by side: ``python benchmarks/crossbar.py`` (``make benchmarks`` runs it with the others).

Training steps (forward, loss, backward, batch 64, all devices drawn anew at each step) of torch.nn.Linear, of calib at
its default tolerance of 1e-4 and at 1e-5, and of the law evaluated one device at a time, which is what published codes
do; a large layer with its memory; and 25 chips on 10,000 images. The alternatives take turns in one run, and medians
are printed, because a shared machine is noisy. Ratios are what carries over to another machine. Line resistance is in
``benchmarks/lines.py``.

Beside them stand a linear layer with fresh normal noise of its weights, and the peers that are installed, each with
what it computes: aihwkit and CrossSim. A peer that needs other versions of torch takes part from an interpreter of its
own (``--peer-python /path/of/env/bin/python``), one that is no package from a folder (``--peers /path/of/cross-sim``);
one that is missing is reported as missing.
"""

import argparse
import itertools
import resource
import statistics
import time
from collections.abc import Callable

import torch
from interpreters import Peer, peers
from torch import nn
from turns import Task, several, take_turns

from calib import device_model
from calib.crossbar.devices import Devices
from calib.crossbar.layers import Encoded, MemristiveLinear, memristive_layers
from calib.crossbar.multiply import direct
from calib.evaluation import chip_performance
from calib.training import encoded, step

DEVICE = "siox-high-resistance"
BATCH = 64
INNER = 20  # steps of a turn
SLOW = 0.02  # s, a step of a peer that takes longer takes fewer turns
SCRIPTS = ("aihwkit_steps.py", "crosssim_steps.py")
NOISE = 0.1  # standard deviation of weights, relative to the largest
COMPUTES = {
    "torch.nn.Linear": "an ideal product",
    "Linear, noise of weights": "W + 0.1 max|W| N(0, 1), new at each step; no devices, no I-V law",
    "calib, ideal devices": "pairs of conductances without spread, linear",
    "calib, default": "Poole-Frenkel law, correlated draw of every device; sum |I| of bit lines to 1e-4",
    "calib, finer": "the same to 1e-5",
    "directly": "the same law and draw, evaluated for each input and device",
}


def network(sizes: tuple[int, ...], layer: Callable[[int, int], nn.Module]) -> nn.Sequential:
    """Return layers with sigmoids between them."""
    parts: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        parts += [layer(n_in, n_out), nn.Sigmoid()]
    return nn.Sequential(*parts[:-1])


class NoOptimizer:
    """Clears gradients and changes nothing, so that steps are those of the layers alone."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(model.parameters())

    def zero_grad(self, set_to_none: bool) -> None:
        """Clear gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Do nothing."""


def plain_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Task:
    """Return forward, loss and backward of a torch network."""

    def run() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        nn.functional.cross_entropy(model(x), y).backward()

    return run


class NoisyLinear(nn.Linear):
    """A linear layer whose weights are W + 0.1 max|W| N(0, 1), new at each pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs (batch, out)."""
        largest = self.weight.detach().abs().amax()
        return nn.functional.linear(x, self.weight + NOISE * largest * torch.randn_like(self.weight), self.bias)


def calib_step(sizes: tuple[int, ...], devices: Devices, x: torch.Tensor, y: torch.Tensor) -> Task:
    """Return the step that `calib train` makes; the inputs are encoded once, as for a data set."""
    model = network(sizes, lambda a, b: MemristiveLinear(a, b, devices))
    layers, optimizer = memristive_layers(model), NoOptimizer(model)
    inputs: torch.Tensor | Encoded = encoded(model, x)
    rows = torch.arange(len(x))
    for layer in layers:
        layer.project = lambda: None  # type: ignore[method-assign]
    return lambda: step(model, layers, optimizer, inputs[rows], y)  # type: ignore[arg-type]


def direct_step(sizes: tuple[int, ...], devices: Devices, x: torch.Tensor, y: torch.Tensor) -> Task:
    """Return the step with the law evaluated for each input and device."""
    stream = torch.Generator().manual_seed(0)

    def run() -> None:
        value = x
        for n_in, n_out in itertools.pairwise(sizes):
            uniform = torch.rand(2, n_in + 1, n_out, generator=stream)
            g = (devices.g_off + (devices.g_on - devices.g_off) * uniform).requires_grad_()
            deviates = devices.conduction.deviates(tuple(g.shape), stream, g.dtype)
            voltage = devices.input_voltage * nn.functional.pad(value, (0, 1), value=1.0)
            current = direct(devices.conduction, voltage, g, deviates)
            value = torch.sigmoid((current[:, 0] - current[:, 1]) / devices.g_on)
        nn.functional.cross_entropy(value, y).backward()

    return run


def training_steps(sizes: tuple[int, ...], repeats: int, given: argparse.Namespace, inner: int = INNER) -> None:
    """Print the training step of a fully connected network, beside that of the peers."""
    tree = device_model.open_device(DEVICE)
    stream = torch.Generator().manual_seed(0)
    x, y = torch.rand(BATCH, sizes[0], generator=stream), torch.randint(sizes[-1], (BATCH,), generator=stream)
    default, finer = Devices.from_model(tree), Devices.from_model(tree, tolerance=1e-5)
    tasks: dict[str, Task] = {
        "torch.nn.Linear": several(plain_step(network(sizes, nn.Linear), x, y), inner),
        "Linear, noise of weights": several(plain_step(network(sizes, NoisyLinear), x, y), inner),
        "calib, ideal devices": several(calib_step(sizes, default.ideal(), x, y), inner),
        "calib, default": several(calib_step(sizes, default, x, y), inner),
        "calib, finer": several(calib_step(sizes, finer, x, y), inner),
    }
    slow = {"directly": direct_step(sizes, default, x, y)}
    computes, steps = dict(COMPUTES), dict.fromkeys(tasks, inner)
    threads = torch.get_num_threads()
    options = ["--sizes", *sizes, "--batch", BATCH, "--threads", threads]
    with peers(SCRIPTS, given.peer_python, given.peers, options) as (present, missing):
        for peer in present:
            _enter(peer, inner, tasks, slow, computes, steps)
        found = {name: value / steps[name] for name, value in take_turns(tasks, repeats).items()}
        found |= take_turns(slow, max(2, repeats // 4))
    nodes = [devices.plan(sizes[0] + 1).count for devices in (default, finer)]
    print(
        f"\nTraining step {'-'.join(map(str, sizes))}, batch {BATCH}, {threads} threads; calib: {DEVICE}, nodes {nodes}"
    )
    for name, value in found.items():
        ratio = value / found["torch.nn.Linear"]
        print(f"  {name:34s} {1e3 * value:9.3f} ms {ratio:8.1f} x   {computes[name]}")
    for line in missing:
        print(f"  {line}")


def _enter(
    peer: Peer,
    inner: int,
    tasks: dict[str, Task],
    slow: dict[str, Task],
    computes: dict[str, str],
    steps: dict[str, int],
) -> None:
    """Add the tasks of a peer to those that take turns, quick or slow."""
    for task, what in peer.computes.items():
        name = f"{peer.name} {peer.version}, {task}"
        computes[name] = what
        first = peer.task(task)()  # with what is made once
        if min(first, peer.task(task)() if first < 1 else first) > SLOW:
            slow[name] = peer.task(task)
        else:
            tasks[name], steps[name] = peer.task(task, inner), inner


def large_layer(size: int, repeats: int) -> None:
    """Print forward and backward of one layer, by its inputs as well, and the memory."""
    devices = Devices.from_model(device_model.open_device(DEVICE))
    x = torch.rand(BATCH, size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def task(layer: nn.Module) -> Task:
        def run() -> None:
            for parameter in layer.parameters():
                parameter.grad = None
            layer(x).sum().backward()

        return run

    tasks = {"torch.nn.Linear": task(nn.Linear(size, size)), "calib": task(MemristiveLinear(size, size, devices))}
    found = take_turns(tasks, repeats)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"\n{size} x {size}, batch {BATCH}, forward and backward: peak memory of the process {after / 1024:.0f} MB,")
    print(f"  {before / 1024:.0f} MB before")
    for name, value in found.items():
        print(f"  {name:36s} {1e3 * value:9.2f} ms           {value / found['torch.nn.Linear']:7.1f} x")


def monte_carlo(chips: int, images: int, repeats: int) -> None:
    """Print the time of an evaluation with power."""
    devices = Devices.from_model(device_model.open_device(DEVICE))
    model = network((784, 25, 10), lambda a, b: MemristiveLinear(a, b, devices))
    stream = torch.Generator().manual_seed(0)
    x, y = torch.rand(images, 784, generator=stream), torch.randint(10, (images,), generator=stream)
    times = []
    for seed in range(repeats):
        start = time.perf_counter()
        chip_performance(model, x, y, seed=seed, chips=range(chips))
        times.append(time.perf_counter() - start)
    print(f"\n{chips} chips x {images} images of 784-25-10 with power: {statistics.median(times):.2f} s")


def accelerator(size: int, batch: int, repeats: int) -> None:
    """Print a large layer on a GPU, if there is one."""
    if not torch.cuda.is_available():
        print("\nNo GPU here: its benchmark is left out")
        return
    devices = Devices.from_model(device_model.open_device(DEVICE))
    x = torch.rand(batch, size, device="cuda", requires_grad=True)

    def task(layer: nn.Module) -> Task:
        def run() -> None:
            layer(x).sum().backward()
            torch.cuda.synchronize()

        return run

    tasks = {
        "torch.nn.Linear": task(nn.Linear(size, size).cuda()),
        "calib": task(MemristiveLinear(size, size, devices).cuda()),
    }
    found = take_turns(tasks, repeats)
    print(f"\n{size} x {size}, batch {batch}, forward and backward on {torch.cuda.get_device_name()}")
    for name, value in found.items():
        print(f"  {name:36s} {1e3 * value:9.2f} ms           {value / found['torch.nn.Linear']:7.1f} x")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description="Side-by-side timings of crossbar layers.")
    parser.add_argument("--repeats", type=int, default=21, help="rounds (default 21)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--only", choices=("large", "steps", "chips", "square", "accelerator"), help="one table")
    parser.add_argument("--peer-python", action="append", default=[], metavar="PATH", help="interpreter with peers")
    parser.add_argument("--peers", action="append", default=[], metavar="FOLDER", help="folder to import peers from")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tables = {
        "large": lambda: large_layer(1024, max(3, arguments.repeats // 2)),  # first: its peak memory is its own
        "steps": lambda: training_steps((784, 25, 10), arguments.repeats, arguments),
        "chips": lambda: monte_carlo(25, 10_000, 3),
        "square": lambda: training_steps((1024, 1024), 3, arguments, inner=1),
        "accelerator": lambda: accelerator(4096, 256, arguments.repeats),
    }
    for name, table in tables.items():
        if arguments.only in (None, name):
            table()


if __name__ == "__main__":
    main()
