"""Made-up trains of pulses and write-verify logs, with the truth that they were made from."""

import numpy as np
import xarray as xr

from calib import measurement
from calib.pulse_laws import LAWS


def curve(law: str, u: float, steps: int) -> np.ndarray:
    """Return f of a law at steps + 1 readings."""
    return LAWS[law].f(np.arange(steps + 1) / steps, np.full(steps + 1, u))


def train(
    generator: np.random.Generator,
    law: str = "soft-bounds",
    u: float = 1.8,
    steps: int = 60,
    start: float = 1e-6,
    change: float = 2e-6,
    write: float = 0.0,
    other: float = 0.0,
    memory: float = np.inf,
    reads: int = 1,
) -> np.ndarray:
    """Return readings (pulse, read): the law, write noise that stays (or fades), and noise of every reading."""
    f = curve(law, u, steps)
    step = np.diff(f, prepend=0.0)
    step[0] = step[1]
    phi = np.minimum(1.0, np.r_[1.0, step[1:] / step[:-1]]) * np.exp(-1 / memory)
    deviation, state = np.zeros(steps + 1), 0.0
    for n in range(steps + 1):
        state = phi[n] * state + generator.normal(0.0, write) if n else 0.0
        deviation[n] = state
    return (start + change * f + deviation)[:, None] + generator.normal(0.0, 1.0, (steps + 1, reads)) * other


def pulses(trains: list[np.ndarray], polarity: list[str], device: list[str], unit: str = "S", **more) -> xr.Dataset:
    """Return a node pulses of trains (pulse, read) of any length; `more` are variables (sequence, pulse) or labels."""
    longest, reads = max(len(part) for part in trains), max(part.shape[1] for part in trains)
    values = np.full((len(trains), longest, reads), np.nan)
    for row, part in enumerate(trains):
        values[row, : len(part), : part.shape[1]] = part
    variables = {"conductance": values}
    variables |= {key: more.pop(key) for key in ("amplitude", "width", "count") if key in more}
    labels = {"device": device, "polarity": polarity, "cycle": [0] * len(trains), **more}
    return measurement.pulses_node(variables, labels, unit)


def population(generator: np.random.Generator, devices: int = 24, spread: float = 0.25, **more) -> xr.Dataset:
    """Return potentiation (k = 3) and depression (k = 5, both soft bounds) of devices whose asinh k differ."""
    trains, polarity, device = [], [], []
    for k in range(devices):
        for direction, start, change, shape in (("potentiation", 1e-6, 4e-6, 3.0), ("depression", 5e-6, -4e-6, 5.0)):
            u = np.arcsinh(shape + spread * shape * generator.normal())
            trains.append(train(generator, u=u, start=start, change=change, **more))
            polarity.append(direction)
            device.append(f"d{k:02d}")
    return pulses(trains, polarity, device)


TARGETS = ((0.0, 1e-5), (4e-5, 5e-5), (8e-5, 9e-5), (1.2e-4, np.inf))


def writes(
    generator: np.random.Generator,
    devices: int = 200,
    never: int = 5,
    weak: int = 20,
    failure: float = 0.03,
    state_success: bool = True,
) -> xr.Dataset:
    """Return writes of every device to four ranges: `never` devices stay at 60 uS, `weak` never get below 30 uS.

    All others fail each write with the probability `failure`, and then end 20 uS above the range's middle.
    """
    rows = []
    for device in range(devices):
        for low, high in TARGETS:
            middle = {0.0: 5e-6, 1.2e-4: 1.3e-4}.get(low, 0.5 * (low + high))
            achieved = generator.uniform(middle - 4e-6, middle + 4e-6)
            if device < never:
                achieved = generator.normal(6e-5, 1e-7)
            elif device < never + weak and low == 0.0:
                achieved = generator.uniform(3e-5, 3.5e-5)
            elif generator.random() < failure:
                achieved = middle + (2e-5 if low < 1e-4 else -2e-5)
            success = int(low <= achieved <= high) if state_success else -1
            rows.append((f"c{device:03d}", low, high, achieved, success, 1 + generator.poisson(4)))
    names, low, high, achieved, success, attempts = zip(*rows, strict=True)
    variables = {"target_low": low, "target_high": high, "achieved": achieved, "success": success, "attempts": attempts}
    arrays = {key: np.array(value) for key, value in variables.items()}
    return measurement.writes_node(arrays, {"device": list(names), "cycle": [k % 4 for k in range(len(rows))]})
