"""Side-by-side timings of training steps: ``make benchmarks`` or ``python benchmarks/run.py``.

Everything in a table is timed in one run, the alternatives taking turns, and medians are printed, because a shared
machine is noisy. Ratios are what carries over to another machine.
"""

import argparse
import itertools
from collections.abc import Callable

import torch
from torch import nn
from turns import Task, take_turns

from calib import device_model
from calib.crossbar.devices import Devices
from calib.crossbar.layers import MemristiveLinear
from calib.crossbar.multiply import direct


def training_steps(sizes: tuple[int, ...], batch: int, repeats: int) -> None:
    """Forward, loss and backward with fresh devices: the ideal layer, calib, and the direct evaluation of the law."""
    tree = device_model.open_device("siox-high-resistance")
    devices = Devices.from_model(tree)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, sizes[0], generator=generator)
    y = torch.randint(sizes[-1], (batch,), generator=generator)

    def network(layer: Callable[[int, int], nn.Module]) -> nn.Sequential:
        parts: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            parts += [layer(n_in, n_out), nn.Sigmoid()]
        return nn.Sequential(*parts[:-1])

    def step(model: nn.Module) -> Task:
        return lambda: nn.functional.cross_entropy(model(x), y).backward()

    def direct_step() -> None:
        value = x
        for n_in, n_out in itertools.pairwise(sizes):
            g = (2.62e-6 * torch.rand(2, n_in + 1, n_out, generator=generator)).clamp(min=5.25e-7).requires_grad_()
            deviates = devices.conduction.deviates(tuple(g.shape), generator, g.dtype)
            voltage = 0.5 * nn.functional.pad(value, (0, 1), value=1.0)
            current = direct(devices.conduction, voltage, g, deviates)
            value = torch.sigmoid((current[:, 0] - current[:, 1]) / 1e-6)
        nn.functional.cross_entropy(value, y).backward()

    tasks: dict[str, Task] = {
        "torch.nn.Linear": step(network(nn.Linear)),
        "calib, ideal devices": step(network(lambda a, b: MemristiveLinear(a, b, devices.ideal()))),
        "calib, siox-high-resistance": step(network(lambda a, b: MemristiveLinear(a, b, devices))),
    }
    if sizes[0] * sizes[1] <= 50_000:
        tasks["the law evaluated directly"] = direct_step
    found = take_turns(tasks, repeats)
    print(f"\nTraining step {'-'.join(map(str, sizes))}, batch {batch}, {torch.get_num_threads()} threads, new devices")
    for name, value in found.items():
        print(f"  {name:32s} {1e3 * value:9.2f} ms           {value / found['torch.nn.Linear']:7.1f} x")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description="Side-by-side timings.")
    parser.add_argument("--repeats", type=int, default=21, help="rounds (default 21)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    training_steps((784, 25, 10), 64, arguments.repeats)
    training_steps((1024, 1024), 64, max(3, arguments.repeats // 4))


if __name__ == "__main__":
    main()
