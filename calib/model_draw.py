"""Draws of what a device model says beside its law: conductance range, programming spread, stuck devices."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from calib.characteristics.base import Z_95

_MEDIAN_MEAN = np.sqrt(2 / np.pi)
"""Correlation of the median with the mean of a normal sample."""
NAN = float("nan")
MINIMUM_FREEDOM = 3.0
"""Fewer degrees of freedom than this would give draws without a mean."""


def _number(node: xr.Dataset, name: str, row: int) -> float:
    return float(node[name].values[row]) if name in node else float("nan")


def chi_draw(sigma: float, stderr: float, generator: np.random.Generator) -> float:
    """Draw a standard deviation: sigma sqrt(nu / chi^2_nu), its freedom nu = sigma^2 / (2 stderr^2).

    At sigma = 0 (nothing was found) it is the size of a normal deviate of the standard error.
    """
    if not np.isfinite(stderr) or stderr <= 0 or not np.isfinite(sigma):
        return sigma
    if sigma <= stderr:
        return abs(sigma + stderr * float(generator.standard_normal()))
    freedom = max(0.5 * (sigma / stderr) ** 2, MINIMUM_FREEDOM)
    return sigma * float(np.sqrt(freedom / generator.chisquare(freedom)))


def draw_conductance(
    node: xr.Dataset, shifts: dict[str, float], generator: np.random.Generator
) -> tuple[xr.Dataset, list[str]]:
    """Draw G_off and G_on in ln G from their intervals.

    Parameters
    ----------
    shifts : by state, by how many standard errors the mean of ln R was drawn above its estimate; the medians of the
        conductance follow with the correlation sqrt(2 / pi) of a median with a mean.
    """
    bounds = {key: node[f"{key}_bound"].values.astype(float) for key in ("g_off", "g_on") if f"{key}_bound" in node}
    held = [f"conductance/{key}" for key in ("g_off", "g_on") if not np.isfinite(bounds.get(key, [np.nan])).any()]
    for _ in range(100):
        drawn = {}
        for key, state in (("g_off", "hrs"), ("g_on", "lrs")):
            own = float(generator.standard_normal())
            z = np.sqrt(1 - _MEDIAN_MEAN**2) * own - _MEDIAN_MEAN * shifts[state] if state in shifts else own
            drawn[key] = _from_interval(float(node[key]), bounds.get(key), z)
        if 0 < drawn["g_off"] < drawn["g_on"]:
            return node.assign({key: node[key].copy(data=value) for key, value in drawn.items()}), held
    return node, [f"conductance/{key}" for key in ("g_off", "g_on")]


def _from_interval(value: float, bound: np.ndarray | None, z: float) -> float:
    """Return exp(ln value + z error), the error on each side that of the 95 % interval's end."""
    if bound is None:
        return value
    with np.errstate(invalid="ignore", divide="ignore"):
        sides = np.abs(np.log(bound / value)) / Z_95
    side = sides[1] if z > 0 else sides[0]
    side = side if np.isfinite(side) else np.nanmax(sides) if np.isfinite(sides).any() else 0.0
    return float(value * np.exp(z * side))


def _sigma_draw(sigma: float, stderr: float, bound: tuple[float, float], generator: np.random.Generator) -> float:
    """Draw a standard deviation in its logarithm by the 95 % interval, evenly down to 0 where that is its lower end."""
    low, high = bound
    if not (np.isfinite(low) and np.isfinite(high) and 0 <= low < sigma < high):
        return chi_draw(sigma, stderr, generator)
    z = float(generator.standard_normal())
    if z < 0 and low == 0:
        return sigma * max(1 + z / Z_95, 0.0)
    return _from_interval(sigma, np.array(bound), z)


@dataclass(frozen=True)
class Spread:
    """The lognormal spread of one state after programming.

    Attributes
    ----------
    ln_r : ln of the median resistance [Ohm].
    total, d2d, c2c : standard deviations of ln R; NaN where not separated.
    total_stderr, d2d_stderr, c2c_stderr : their standard errors.
    total_bound, d2d_bound, c2c_bound : their 95 % intervals, NaN where the model states none.
    n_devices, n_values : sample size.
    """

    ln_r: float
    total: float
    d2d: float
    c2c: float
    total_stderr: float
    d2d_stderr: float
    c2c_stderr: float
    n_devices: float
    n_values: float
    total_bound: tuple[float, float] = (NAN, NAN)
    d2d_bound: tuple[float, float] = (NAN, NAN)
    c2c_bound: tuple[float, float] = (NAN, NAN)

    @classmethod
    def of(cls, node: xr.Dataset, row: int) -> "Spread":
        """Take the spread of one state from the programming node."""
        devices = max(_number(node, "n_devices", row), 1.0)
        values = _number(node, "n_values", row)
        values = max(values, devices) if np.isfinite(values) else devices
        median = float(np.log(_number(node, "r_median", row)))
        found = cls(median, *(NAN for _ in range(6)), n_devices=devices, n_values=values)
        for key, name in (("total", "sigma"), ("d2d", "sigma_d2d"), ("c2c", "sigma_c2c")):
            numbers: dict[str, Any] = {
                key: _number(node, name, row),
                f"{key}_stderr": _number(node, f"{name}_stderr", row),
            }
            if f"{name}_bound" in node:
                numbers[f"{key}_bound"] = tuple(node[f"{name}_bound"].values[row].tolist())
            found = replace(found, **numbers)
        return found

    def parts(self) -> tuple[float, float]:
        """Return the standard deviations between devices and between cycles; where not separated, all is in one."""
        if np.isfinite(self.d2d) and np.isfinite(self.c2c):
            return self.d2d, self.c2c
        return (0.0, self.total) if np.isfinite(self.c2c) else (self.total, 0.0)

    def draw(self, generator: np.random.Generator) -> "Spread":
        """Draw the sigmas by their intervals, else by `chi_draw`, and the median by its own error (of a median)."""
        d2d = _sigma_draw(self.d2d, self.d2d_stderr, self.d2d_bound, generator)
        c2c = _sigma_draw(self.c2c, self.c2c_stderr, self.c2c_bound, generator)
        if np.isfinite(d2d) and np.isfinite(c2c):
            total = float(np.hypot(d2d, c2c))
        else:
            total = _sigma_draw(self.total, self.total_stderr, self.total_bound, generator)
            d2d, c2c = (total if np.isfinite(d2d) else d2d), (total if np.isfinite(c2c) else c2c)
        found = replace(self, total=total, d2d=d2d, c2c=c2c)
        between, within = found.parts()
        error = np.sqrt(between**2 / self.n_devices + within**2 / self.n_values) / _MEDIAN_MEAN
        return replace(found, ln_r=self.ln_r + error * float(generator.standard_normal()))

    def devices(self, n: int, cycles: int, generator: np.random.Generator) -> np.ndarray:
        """Draw ln(R / Ohm) of devices that switch, (device, cycle)."""
        between, within = self.parts()
        ln_r = self.ln_r + between * generator.standard_normal((n, 1))
        return ln_r + within * generator.standard_normal((n, cycles))


def draw_programming(node: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    """Return the programming node with each state's spread drawn."""
    drawn = [Spread.of(node, row).draw(generator) for row in range(node.sizes["state"])]
    values = {
        "r_median": [np.exp(spread.ln_r) for spread in drawn],
        "sigma": [spread.total for spread in drawn],
        "sigma_d2d": [spread.d2d for spread in drawn],
        "sigma_c2c": [spread.c2c for spread in drawn],
    }
    if "r_mean" in node:
        values["r_mean"] = list(node["r_mean"].values * np.array(values["r_median"]) / node["r_median"].values)
    return node.assign({name: node[name].copy(data=np.array(value)) for name, value in values.items()})


@dataclass(frozen=True)
class Stuck:
    """Devices that do not switch.

    Attributes
    ----------
    probability : that a device is stuck.
    conductance : (device,) [S] of the stuck devices seen.
    bandwidth : [S] of the kernel density of their conductance.
    n_devices, n_stuck : sample size; 0 devices where the probability is an assumption.
    """

    probability: float
    conductance: np.ndarray
    bandwidth: float
    n_devices: int
    n_stuck: int

    @classmethod
    def of(cls, node: xr.Dataset) -> "Stuck":
        """Take the numbers of the stuck node."""
        return cls(
            float(node["probability"]), node["conductance"].values, float(node["bandwidth"]), int(node["n_devices"]),
            int(node["n_stuck"]),
        )  # fmt: skip

    def draw(self, generator: np.random.Generator) -> "Stuck":
        """Draw the probability from Jeffreys' beta(k + 1/2, n - k + 1/2), and the conductances with replacement."""
        values, n, k = self.conductance, self.n_devices, self.n_stuck
        drawn = generator.choice(values, len(values)) if len(values) > 1 else values
        return replace(
            self, conductance=drawn, probability=float(generator.beta(k + 0.5, n - k + 0.5)) if n else self.probability
        )

    def devices(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """Draw for each of `n` devices the conductance [S] at which it is stuck, NaN where it switches."""
        g = np.full(n, np.nan)
        if not len(self.conductance):
            return g
        rows = np.flatnonzero(generator.random(n) < self.probability)
        centres = generator.choice(self.conductance, len(rows))
        g[rows] = np.maximum(np.abs(centres + self.bandwidth * generator.standard_normal(len(rows))), 1e-300)
        return g
