"""Devices that do not switch: their probability, and the conductances at which they are stuck."""

import numpy as np
import xarray as xr

from calib.errors import FitError
from calib.fitting.intervals import binomial_interval

RULES = {
    "range": "a device is stuck when its conductance range is under half of (median of the maxima - median of the "
    "minima) (Joksas et al. 2022)",
    "ratio": "a device is stuck when the logarithm of its on/off ratio is under half of that of the median maximum "
    "to the median minimum",
}
THRESHOLD = 0.5
NO_SWITCHING_RATIO = 1.05
"""A population whose median maximum is under this many times its median minimum does not switch at all."""


def all_stuck(minimum: np.ndarray, maximum: np.ndarray, ratio: float = NO_SWITCHING_RATIO) -> bool:
    """Say whether the median device does not switch: its largest conductance is under `ratio` times its smallest."""
    return not float(np.median(maximum)) > ratio * float(np.median(minimum))


def is_stuck(minimum: np.ndarray, maximum: np.ndarray, rule: str) -> np.ndarray:
    """Say of each device whether it is stuck.

    Parameters
    ----------
    minimum, maximum : (device,) [S] smallest and largest conductance seen.
    rule : one of `RULES`. 'range' compares ranges in siemens, which suits arrays whose devices share one range;
        'ratio' compares on/off ratios, which suits populations whose conductances spread over decades.

    Raises
    ------
    FitError
        When the median device does not switch either.
    """
    typical_low, typical_high = float(np.median(minimum)), float(np.median(maximum))
    if all_stuck(minimum, maximum):
        raise FitError(
            f"all {len(minimum)} devices are stuck: the median of their largest conductances is {typical_high:.3g} S "
            f"and of their smallest {typical_low:.3g} S; expected set and reset cycles of devices that switch; check "
            "the columns, or that the file holds switching cycles"
        )
    if rule == "range":
        return maximum - minimum < THRESHOLD * (typical_high - typical_low)
    positive = np.maximum(minimum, 1e-300)
    return np.log(np.maximum(maximum, 1e-300) / positive) < THRESHOLD * np.log(typical_high / typical_low)


def scott_bandwidth(values: np.ndarray) -> float:
    """Return Scott's bandwidth sigma n^(-1/5), 0 for one value (D. W. Scott, Multivariate Density Estimation, 1992)."""
    return float(values.std(ddof=1) * len(values) ** -0.2) if len(values) > 1 else 0.0


def stuck_node(
    devices: np.ndarray, minimum: np.ndarray, maximum: np.ndarray, mean: np.ndarray, rule: str
) -> xr.Dataset:
    """Return the stuck node.

    The density of a stuck device's conductance is a kernel density at the mean conductances of the stuck devices,
    with Scott's bandwidth, truncated to G > 0 by reflection (B. W. Silverman, Density Estimation, 1986, section 2.10).

    Parameters
    ----------
    devices : (device,) names.
    minimum, maximum, mean : (device,) [S] of the conductances seen over all states and cycles.
    rule : see `is_stuck`.
    """
    stuck = is_stuck(minimum, maximum, rule)
    other_rule = "ratio" if rule == "range" else "range"
    values = mean[stuck]
    n, k = len(devices), int(stuck.sum())
    low, high = float(np.median(minimum)), float(np.median(maximum))
    near_on = np.log(np.maximum(values, 1e-300) / low) > 2 / 3 * np.log(high / low)
    near_off = np.log(np.maximum(values, 1e-300) / low) < 1 / 3 * np.log(high / low)
    return xr.Dataset(
        {
            "probability": ((), k / n, {"units": "1", "long_name": "probability that a device is stuck"}),
            "probability_bound": (
                "bound", list(binomial_interval(k, n)), {"units": "1", "long_name": "exact binomial 95 % interval"}
            ),
            "n_devices": ((), n),
            "n_stuck": ((), k),
            "n_stuck_on": ((), int(near_on.sum())),
            "n_stuck_off": ((), int(near_off.sum())),
            "n_stuck_other": ((), int((~near_on & ~near_off).sum())),
            "n_stuck_by_other_rule": ((), int(is_stuck(minimum, maximum, other_rule).sum())),
            "conductance": (
                "stuck_device", values, {"units": "S", "long_name": "mean conductance of the stuck devices"}
            ),
            "bandwidth": ((), scott_bandwidth(values) if k else 0.0, {"units": "S", "long_name": "kernel bandwidth"}),
        },
        coords={"bound": ("bound", ["low", "high"]), "stuck_device": ("stuck_device", devices[stuck].astype(str))},
        attrs={"rule": RULES[rule], "rule_name": rule, "other_rule": RULES[other_rule], "assumed": 0},
    )  # fmt: skip
