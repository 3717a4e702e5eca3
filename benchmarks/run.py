"""Side-by-side timings of fits and of training steps: ``make benchmarks`` or ``python benchmarks/run.py``.

Everything in a table is timed in one run, the alternatives taking turns, and medians are printed, because a shared
machine is noisy. Ratios are what carries over to another machine.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import curve_fit
from torch import nn

from calib import device_model
from calib.crossbar.devices import Devices
from calib.crossbar.layers import MemristiveLinear
from calib.crossbar.multiply import direct
from calib.fitting.least_squares import fit_batch, fit_single
from calib.iv_models import iv_model

Task = Callable[[], object]


def take_turns(tasks: dict[str, Task], repeats: int) -> dict[str, float]:
    """Return the median time [s] of each task; the tasks run in turn, once each a round, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for round_number in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if round_number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def fits(curves: int, repeats: int) -> None:
    """Poole-Frenkel curves of 100 points: the batch, and loops of scipy and lmfit over a part of them."""
    law = iv_model("poole-frenkel")
    rng = np.random.default_rng(0)
    voltage = np.broadcast_to(np.linspace(0.005, 0.5, 100), (curves, 100))
    c, gamma = np.exp(rng.normal(-14, 1, (curves, 1))), rng.normal(2, 0.5, (curves, 1))
    current = law.current(voltage, xp=np, c=c, gamma=gamma)
    sigma = 0.02 * current
    current = current + sigma * rng.standard_normal(current.shape)
    some = range(50)

    def scipy_loop() -> None:
        for k in some:
            scale = current[k].max()
            curve_fit(
                lambda v, a, g: law.current(v, xp=np, c=a, gamma=g),
                voltage[k], current[k] / scale, p0=[float(c[k, 0]) / scale, 2.0], sigma=sigma[k] / scale, method="lm",
                jac=lambda v, a, g: np.stack(list(law.jacobian(v, xp=np, c=a, gamma=g).values()), axis=1),
            )  # fmt: skip

    def lmfit_loop() -> None:
        for k in some:
            fit_single(law, voltage[k], current[k], sigma[k])

    found = take_turns(
        {
            "calib, batched": lambda: fit_batch(law, voltage, current, sigma),
            "scipy.optimize.curve_fit, loop": scipy_loop,
            "lmfit, loop": lmfit_loop,
        },
        repeats,
    )
    per_curve = {name: value / (curves if name.startswith("calib") else len(some)) for name, value in found.items()}
    print(f"\nPoole-Frenkel fits with standard errors, {curves} curves of 100 points")
    for name, value in per_curve.items():
        print(f"  {name:32s} {1e6 * value:9.1f} us a curve   {value / per_curve['calib, batched']:7.1f} x")


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
    fits(20_000, max(3, arguments.repeats // 4))
    training_steps((784, 25, 10), 64, arguments.repeats)
    training_steps((1024, 1024), 64, max(3, arguments.repeats // 4))


if __name__ == "__main__":
    main()
