"""Line resistance: ``python benchmarks/lines.py`` (``make benchmarks`` runs it with the others).

Times are those of the clock, whatever else runs. Five tables, each of which can be asked for alone
(``--only arrays``):

- arrays: output currents of square arrays with 16 inputs and with 10,000, side by side with badcrossbar (D. Joksas,
  A. Mehonic, SoftwareX 12, 100617 (2020)), which computes them by one sparse direct solution; segments of 0.5 Ohm,
  devices of 10 to 50 kOhm. badcrossbar takes some of the 10,000 inputs, and its time for all is that of one solution
  with few inputs plus the rest in proportion; the currents of what both computed are compared.
- strengths: the transfer matrix of 256 x 256 against scipy's sparse direct solution, r G n from 0.01 to 1000.
- large: 1024 x 1024 with 16 inputs and with all.
- training: a step of a stack of 7 tiles of 128 x 50 with 64 inputs, forward and backward, and an epoch of 750 steps.
- layers: the same through the layers, as `calib train --array rows=128,columns=64,word_segment=0.35,bit_segment=0.32`
  does it, new devices at each step: 784-25-10 on a linear device model and on two with a law.

A peer that is not installed is reported as missing; ``--peers FOLDER`` names a folder to import it from
(``pip install --no-deps --target FOLDER badcrossbar pathvalidate``: its plots need cairo, its currents do not).
"""

import argparse
import importlib
import logging
import resource
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from turns import Task, several, take_turns

from calib import device_model
from calib.crossbar import tile_outputs
from calib.crossbar.array import Array
from calib.crossbar.devices import Devices
from calib.crossbar.layers import MemristiveLinear, memristive_layers
from calib.crossbar.line_currents import tile_currents, tile_currents_nonlinear
from calib.crossbar.line_resistance import Lines, transfer_matrix
from calib.crossbar.sparse_lines import array_currents
from calib.iv_models import iv_model
from calib.training_step import step

SEGMENT = 0.5  # Ohm
INNER = 3  # solutions with 16 inputs of a turn
SOME = 128  # of the 10,000 inputs, that badcrossbar takes
MANY = 10_000
TILES = Lines(word_segment=0.35, bit_segment=0.32)
ARRAY = "rows=128,columns=64,word_segment=0.35,bit_segment=0.32"
MODELS = ("ta-hfo2", "siox-low-resistance", "siox-high-resistance")
STEPS = 750  # of an MNIST epoch: 48,000 images in batches of 64


def draw(*shape: int, low: float, high: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Draw evenly between two limits."""
    return low + (high - low) * torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def peer(folder: str | None) -> Callable[..., np.ndarray] | None:
    """Return badcrossbar's output currents (input, bit_line) of voltages (word_line, input), or None if missing."""
    if folder:
        sys.path.append(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its plots lack their library
        try:
            badcrossbar = importlib.import_module("badcrossbar")
        except ImportError:
            return None
    if not hasattr(badcrossbar, "compute"):
        return None
    logging.getLogger("badcrossbar").setLevel(logging.ERROR)

    def outputs(voltage: np.ndarray, resistance: np.ndarray) -> np.ndarray:
        found = badcrossbar.compute(voltage, resistance, SEGMENT, node_voltages=False, all_currents=False)
        return found.currents.output

    return outputs


def arrays(repeats: int, other: Callable[..., np.ndarray] | None) -> None:
    """Print times for 16 and 10,000 inputs beside the peer's."""
    print("\noutput currents, 0.5 Ohm a segment, 10 to 50 kOhm a device (median times)")
    head = f"{'array':>12s} {'inputs':>7s} {'calib, s':>10s} {'badcrossbar, s':>15s} {'ratio':>7s}"
    print(f"{head} {'largest difference':>19s}")
    lines = Lines(SEGMENT, SEGMENT)
    for size in (64, 128, 256):
        r = draw(size, size, low=10e3, high=50e3)
        v = draw(MANY, size, low=0.0, high=0.5)
        g, resistance, voltage = 1 / r, r.numpy(), v.T.numpy()
        tasks: dict[str, Task] = {
            "few": several(lambda g=g, v=v: array_currents(v[:16], g, lines), INNER),
            "many": lambda g=g, v=v: array_currents(v, g, lines),
        }
        if other is not None:
            tasks["other"] = several(lambda r=resistance, v=voltage: other(v[:, :16], r), INNER)
            tasks["some"] = lambda r=resistance, v=voltage: other(v[:, :SOME], r)
        found = take_turns(tasks, repeats)
        found |= {name: found[name] / INNER for name in ("few", "other") if name in found}
        ours = array_currents(v[:SOME], g, lines).currents.numpy()
        difference = np.nan if other is None else np.abs(other(voltage[:, :SOME], resistance) / ours - 1).max()
        each = (found.get("some", np.nan) - found.get("other", np.nan)) / (SOME - 16)
        theirs = {"few": found.get("other", np.nan), "many": found.get("other", np.nan) + each * (MANY - 16)}
        for name, count in (("few", 16), ("many", MANY)):
            shown = f"{theirs[name]:15.3f} {theirs[name] / found[name]:7.1f}" if other else f"{'missing':>15s} {'':7s}"
            print(f"{size:6d} x {size:3d} {count:7d} {found[name]:10.4f} {shown} {difference:19.1e}")
    if other is not None:
        print(f"badcrossbar's time for {MANY} inputs is extrapolated from 16 and {SOME} inputs")


def strengths(repeats: int) -> None:
    """Print the transfer matrix's time and its error against a sparse direct solution."""
    print("\ntransfer matrix of 256 x 256 devices of 20 to 100 uS, all inputs")
    print(f"{'r G n':>8s} {'time, s':>9s} {'error against scipy, relative to the largest output':>52s}")
    g, v = draw(256, 256, low=2e-5, high=1e-4), draw(4, 256, low=0.0, high=0.5)
    for strength in (1e-2, 1.0, 1e2, 1e3):
        r = strength / (256 * float(g.mean()))
        for both_ends in (False, True):
            lines = Lines(r, r, both_ends=both_ends)
            taken = take_turns({"calib": lambda lines=lines: transfer_matrix(g, lines)}, repeats)["calib"]
            expected = array_currents(v, g, lines, method="sparse").currents
            error = float((v @ transfer_matrix(g, lines) - expected).abs().max() / expected.max())
            print(f"{strength:8g} {taken:9.3f} {error:52.1e}{'   driven at both ends' if both_ends else ''}")


def large() -> None:
    """Print times and memory of 1024 x 1024."""
    print("\n1024 x 1024 devices of 10 to 50 kOhm, 0.5 Ohm a segment")
    g, v = 1 / draw(1024, 1024, low=10e3, high=50e3), draw(16, 1024, low=0.0, high=0.5)
    lines = Lines(SEGMENT, SEGMENT)
    start, used = time.perf_counter(), time.process_time()
    few = array_currents(v, g, lines)
    taken, used = time.perf_counter() - start, time.process_time() - used
    cost = f"{taken:.1f} s ({used:.1f} s of processors)"
    residual = "" if few.residual is None else f", {few.steps} steps, residual {float(few.residual.max()):.1e}"
    print(f"  16 inputs, {few.method}: {cost}{residual}; largest memory so far {memory():.2f} GB")
    start, used = time.perf_counter(), time.process_time()
    all_inputs = v @ transfer_matrix(g, lines)
    taken, used = time.perf_counter() - start, time.process_time() - used
    cost = f"{taken:.1f} s ({used:.1f} s of processors)"
    difference = float((few.currents - all_inputs).abs().max() / all_inputs.max())
    print(f"  all inputs, elimination: {cost}; largest memory so far {memory():.2f} GB")
    print(f"  largest difference of the two: {difference:.1e} of the largest output")


def training(repeats: int) -> None:
    """Print the time of a training step of 785 x 50 devices in tiles of 128 rows."""
    print("\na training step, 7 tiles of 128 x 50 (784-25 in pairs) and one of 26 x 20, batch 64, 0.35 and 0.32 Ohm")
    print(f"{'devices':44s} {'float32, s':>10s} {'epoch, min':>11s} {'float64, s':>10s} {'residual':>9s}")
    laws = {"linear, 0.7 to 3.5 mS": None, "Poole-Frenkel, gamma 1": 1.0, "Poole-Frenkel, gamma 4": 4.0}
    for name, gamma in laws.items():
        taken, residual = {}, 0.0
        for dtype in (torch.float32, torch.float64):
            step, residuals = _step(gamma, dtype)
            taken[dtype] = take_turns({"step": step}, repeats)["step"]
            residual = max(residual, max(residuals, default=0.0))
        single, double = taken[torch.float32], taken[torch.float64]
        print(f"{name:44s} {single:10.3f} {single * STEPS / 60:11.1f} {double:10.3f} {residual:9.1e}")


def _step(gamma: float | None, dtype: torch.dtype) -> tuple[Task, list[float]]:
    layers = [
        (
            draw(tiles, 64, word_lines, low=0.0, high=0.5, dtype=dtype),
            draw(tiles, word_lines, bit_lines, low=7e-4, high=3.5e-3, dtype=dtype),
        )
        for tiles, word_lines, bit_lines in ((7, 128, 50), (1, 26, 20))
    ]
    layers[0][0].mul_(draw(7, 64, 128, low=0.0, high=1.0, dtype=dtype) > 0.7)  # most pixels of a digit are dark
    law, residuals = iv_model("poole-frenkel"), []

    def step() -> None:
        for voltage, conductance in layers:
            v, g = voltage.clone().requires_grad_(), conductance.clone().requires_grad_()
            if gamma is None:
                out = tile_currents(v, g, TILES)
            else:
                c = g * float(np.exp(-gamma * 0.1**0.5))  # the conductance at 0.1 V
                parameters = {"c": c, "gamma": torch.full_like(g, gamma)}
                out, convergence = tile_currents_nonlinear(v, parameters, law, TILES, 1e-5)
                residuals.append(float(convergence.residual.max()))
            out.sum().backward()

    return step, residuals


def layers(repeats: int) -> None:
    """Print the time of a training step of 784-25-10 through the layers, and the residual that they note."""
    print(f"\na step of calib train, 784-25-10, batch 64, {ARRAY}, {torch.get_num_threads()} threads")
    print(
        f"{'device model':22s} {'law':16s} {'step, s':>8s} {'epoch, min':>11s} {'asked residual':>15s} {'largest':>9s}"
    )
    image = draw(64, 784, low=0.0, high=1.0, dtype=torch.float32)
    x = image * (image.flip(0, 1) > 0.8)  # most pixels of a digit are dark
    y = torch.randint(10, (64,), generator=torch.Generator().manual_seed(1))
    for name in MODELS:
        devices, array = Devices.from_model(device_model.open_device(name)), Array.from_options(ARRAY)
        first = torch.Generator().manual_seed(0)
        made = [MemristiveLinear(a, b, devices, array=array, first=first) for a, b in ((784, 25), (25, 10))]
        model = nn.Sequential(made[0], nn.Sigmoid(), made[1])
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)

        def task(model=model, optimizer=optimizer) -> None:
            step(model, memristive_layers(model), optimizer, x, y)

        taken = take_turns({"step": task}, 4 * repeats)["step"]
        law, residual = devices.conduction.law, tile_outputs.take_residual(made)
        reached = f"{tile_outputs.tolerance(made[0]):15.0e} {residual:9.1e}" if law.shape else f"{'exact':>15s}"
        print(f"{name:22s} {law.name:16s} {taken:8.3f} {taken * STEPS / 60:11.1f} {reached}")


def memory() -> float:
    """Return the largest memory [GB] that the process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Line resistance side by side.")
    parser.add_argument("--only", choices=("arrays", "strengths", "large", "training", "layers"), help="one table")
    parser.add_argument("--threads", type=int, default=2, help="(default 2)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--peers", help="folder from which badcrossbar is imported if it is not installed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    other = peer(arguments.peers)
    tables = {
        "large": large,
        "arrays": lambda: arrays(arguments.repeats, other),
        "strengths": lambda: strengths(arguments.repeats),
        "training": lambda: training(arguments.repeats),
        "layers": lambda: layers(arguments.repeats),
    }
    for name, table in tables.items():
        if arguments.only in (None, name):
            table()


if __name__ == "__main__":
    main()
