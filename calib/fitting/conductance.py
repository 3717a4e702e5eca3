"""Conductances as measured: per state and read voltage, and the range between which an array is programmed."""

import numpy as np
import xarray as xr

from calib.fitting.curves import flag_mask
from calib.fitting.intervals import clustered_quantile_interval, quantile_interval

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
STANDARD_READ_VOLTAGES = (0.1, 0.2, 0.3, 0.5)
_READ_EXCLUDED = ("spike", "duplicate", "switching", "compliance", "saturated")


def read_voltages(node: xr.Dataset, reference_voltage: float) -> np.ndarray:
    """Return the voltages at which conductances are tabulated: the standard ones and the reference, as measured.

    Each wanted voltage, of either sign, becomes the measured one nearest to it that most sweeps hold; one farther
    away than a quarter of it is left out.
    """
    found = []
    for sign, polarity in ((1.0, "positive"), (-1.0, "negative")):
        part = node["voltage"].values[node["polarity"].values == polarity]
        levels, counts = np.unique(np.round(part[np.isfinite(part)], 4), return_counts=True)
        common = levels[counts >= 0.25 * counts.max()] if len(levels) else levels
        for wanted in sorted({*STANDARD_READ_VOLTAGES, abs(reference_voltage)}):
            if not len(common):
                continue
            nearest = float(common[np.argmin(np.abs(common - sign * wanted))])
            if nearest != 0 and abs(nearest - sign * wanted) <= 0.25 * wanted:
                found.append(nearest)
    return np.unique(found)


def read_at(node: xr.Dataset, voltage: float) -> tuple[np.ndarray, np.ndarray]:
    """Return every sweep's conductance [S] at the measured point nearest to `voltage`, and whether it is censored.

    The sweep's current offset is removed first. NaN where no point lies within 5 % (or a flag excludes it); where the
    current is under the instrument's noise floor, so that even its sign is noise, the value is censored: |I| / |V| only
    says that the conductance is small.
    """
    measured = np.where(flag_mask(node, _READ_EXCLUDED), np.nan, node["voltage"].values)
    distance = np.where(np.isfinite(measured), np.abs(measured - voltage), np.inf)
    index = np.argmin(distance, axis=1)
    rows = np.arange(len(index))
    inside = distance[rows, index] <= 0.05 * abs(voltage) + 1e-12
    offset = np.nan_to_num(node["offset"].values) if "offset" in node.coords else 0.0
    current = node["current"].values[rows, index] - offset
    with np.errstate(invalid="ignore", divide="ignore"):
        conductance = np.where(inside, current / measured[rows, index], np.nan)
    censored = inside & flag_mask(node, ("below_floor",))[rows, index]
    return np.where(censored, np.abs(conductance), conductance), censored


def at_floor(ln_r: np.ndarray, censored: np.ndarray, floor: np.ndarray, reference_voltage: float) -> np.ndarray:
    """Return ln(R / Ohm) with the censored ones at what is known of them: at least V_ref / I_floor.

    Where no noise floor is stated the measured value stays.
    """
    known = censored & np.isfinite(floor) & (floor > 0)
    with np.errstate(divide="ignore"):
        limit = np.log(reference_voltage / np.where(known, floor, 1.0))
    return np.where(known, limit, ln_r)


def state_tables(node: xr.Dataset, states: list[str], voltages: np.ndarray) -> dict[str, tuple]:
    """Return the tables (state, read_voltage[, quantile[, bound]]) of the conductance node."""
    shape = (len(states), len(voltages))
    quantiles = np.full((*shape, len(QUANTILES)), np.nan)
    bound = np.full((*quantiles.shape, 2), np.nan)
    count, censored, devices = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    _, owner = np.unique(node["device"].values.astype(str), return_inverse=True)
    for column, voltage in enumerate(voltages):
        values, under_floor = read_at(node, float(voltage))
        for row, state in enumerate(states):
            here = (node["state"].values == state) & np.isfinite(values)
            count[row, column], censored[row, column] = here.sum(), (here & under_floor).sum()
            devices[row, column] = len(np.unique(owner[here]))
            if here.any():
                quantiles[row, column] = np.quantile(values[here], QUANTILES)
                inner = [clustered_quantile_interval(values[here], owner[here], q) for q in QUANTILES[1:-1]]
                bound[row, column, 1:-1] = inner
    dims = ("state", "read_voltage")
    siemens = {"units": "S"}
    return {
        "median": (dims, quantiles[..., 3], {**siemens, "long_name": "median conductance"}),
        "median_bound": (
            (*dims, "bound"), bound[:, :, 3], {**siemens, "long_name": "95 % interval of the median conductance"}
        ),
        "minimum": (dims, quantiles[..., 0], {**siemens, "long_name": "smallest conductance"}),
        "maximum": (dims, quantiles[..., -1], {**siemens, "long_name": "largest conductance"}),
        "g_quantile": ((*dims, "quantile"), quantiles, {**siemens, "long_name": "quantile of the conductance"}),
        "g_quantile_bound": (
            (*dims, "quantile", "bound"), bound,
            {**siemens, "long_name": "95 % interval of the quantile, devices as a whole; an end that is missing is "
             "beyond the sample"},
        ),
        "n": (dims, count, {"long_name": "number of reads", "units": "1"}),
        "n_devices": (dims, devices, {"long_name": "number of devices", "units": "1"}),
        "n_censored": (dims, censored, {"long_name": "reads under the instrument's noise floor", "units": "1"}),
    }  # fmt: skip


def range_of(low: np.ndarray, high: np.ndarray, quantiles: tuple[float, float] = (0.5, 0.5)) -> dict[str, tuple]:
    """Return G_off and G_on with order-statistic 95 % intervals.

    Parameters
    ----------
    low, high : conductances [S] of the off and the on state, one a device (one a cycle, where one device was measured).
    quantiles : which quantiles of them are taken: medians by default.
    """
    result: dict[str, tuple] = {}
    for name, values, q, long_name in (
        ("g_off", low, quantiles[0], "conductance of the off state"),
        ("g_on", high, quantiles[1], "conductance of the on state"),
    ):
        result[name] = ((), float(np.quantile(values, q)), {"units": "S", "long_name": long_name})
        interval = list(quantile_interval(values, q))
        result[f"{name}_bound"] = ("bound", interval, {"units": "S", "long_name": f"95 % interval of {name}"})
        result[f"n_{name}"] = ((), len(values), {"units": "1", "long_name": f"values that {name} is found from"})
    return result
