"""Reads nodes made from arrays, for the tests of what reads over time tell."""

import numpy as np
import xarray as xr

from calib.measurement_contract import attributes_of, labels_for


def reads_of(g: np.ndarray, time: np.ndarray | None = None, **labels) -> xr.Dataset:
    """Return a reads node; labels are coordinates by name, device numbers by default."""
    g = np.atleast_2d(np.asarray(g, dtype=float))
    labels.setdefault("device", [f"d{k}" for k in range(len(g))])
    variables = {"conductance": (("trace", "sample"), g, attributes_of("conductance"))}
    if time is not None:
        time = np.broadcast_to(np.asarray(time, dtype=float), g.shape)
        variables["time"] = (("trace", "sample"), time, attributes_of("time"))
    return xr.Dataset(variables, coords=labels_for("reads", len(g), labels))


def coloured(n: int, alpha: float, generator: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise whose spectral density falls as 1 / f^alpha, with standard deviation 1."""
    f = np.fft.rfftfreq(n)
    f[0] = f[1]
    parts = generator.standard_normal((2, len(f))) * f ** (-alpha / 2)
    x = np.fft.irfft(parts[0] + 1j * parts[1], n)
    return (x - x.mean()) / x.std()


def switching(n: int, dwell_low: float, dwell_high: float, generator: np.random.Generator) -> np.ndarray:
    """Return a two-level signal 0 or 1 with geometric dwell times of the given means in reads."""
    state, k = np.zeros(n), 0
    high = bool(generator.integers(2))
    while k < n:
        dwell = int(generator.geometric(1 / (dwell_high if high else dwell_low)))
        state[k : k + dwell] = high
        k, high = k + dwell, not high
    return state
