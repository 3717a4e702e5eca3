"""Small device models for tests: fitted to made-up sweeps, so that they hold what `calib.fit` really writes."""

import functools

import numpy as np
import xarray as xr

from calib import calibrate, measurement

SOURCE = {"name": "sweeps.csv", "sha256": "0" * 64, "reader": "test", "why": "made here"}


def sweeps(n_devices: int = 12, cycles: int = 3, n_stuck: int = 1, seed: int = 3) -> xr.DataTree:
    """Return Poole-Frenkel sweeps of both states; the last `n_stuck` devices stay in the low-resistance state."""
    generator = np.random.default_rng(seed)
    voltage = np.linspace(0.02, 0.5, 25)
    rows = [(d, c, state) for d in range(n_devices) for c in range(cycles) for state in ("lrs", "hrs")]
    ln_r_device = generator.normal(0.0, 0.2, n_devices)
    currents = []
    for device, _, state in rows:
        high = state == "hrs" and device < n_devices - n_stuck
        ln_r = (12.8 if high else 8.0) + ln_r_device[device] + generator.normal(0.0, 0.15)
        gamma = (2.0 if high else 0.6) + 0.1 * (ln_r - (12.8 if high else 8.0)) + generator.normal(0.0, 0.08)
        current = np.exp(-ln_r - gamma * np.sqrt(0.1)) * voltage * np.exp(gamma * np.sqrt(voltage))
        currents.append(current * (1 + generator.normal(0.0, 0.005, len(voltage))))
    labels = {
        "device": [f"d{device:02d}" for device, _, _ in rows],
        "cycle": [cycle for _, cycle, _ in rows],
        "state": [state for _, _, state in rows],
        "direction": ["up" if state == "hrs" else "down" for _, _, state in rows],
        "polarity": ["positive"] * len(rows),
        "operation": ["set"] * len(rows),
        "temperature": [293.15] * len(rows),
        "order": list(range(len(rows))),
    }
    variables = {"voltage": np.tile(voltage, (len(rows), 1)), "current": np.array(currents)}
    return measurement.build({"iv": measurement.iv_dataset(variables, labels)}, [SOURCE], sample="test oxide")


@functools.cache
def _fitted() -> xr.DataTree:
    return calibrate.fit(
        sweeps(),
        name="Test oxide 12",
        technology="Pt / oxide / Ti, 1 um x 1 um",
        citation="A. Author, A journal 1, 2 (2026), doi 10.1000/test.12",
    )


def full_device(**attrs: str) -> xr.DataTree:
    """Return a device model with every characteristic; root attributes are replaced by those given."""
    tree = _fitted().copy(deep=True)
    tree.attrs |= attrs
    return tree


def part_of_device(*nodes: str, **attrs: str) -> xr.DataTree:
    """Return a device model with some characteristics only."""
    full = full_device(**attrs)
    tree = xr.DataTree.from_dict({f"/{name}": full[name].to_dataset() for name in nodes})
    tree.attrs = dict(full.attrs)
    return tree
