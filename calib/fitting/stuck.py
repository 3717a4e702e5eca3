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
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
"""Thresholds at which the number of stuck devices is stored, for how much the rule decides."""
NO_SWITCHING_RATIO = 1.05
"""A population whose median maximum is under this many times its median minimum does not switch at all."""


def all_stuck(minimum: np.ndarray, maximum: np.ndarray, ratio: float = NO_SWITCHING_RATIO) -> bool:
    """Say whether the median device does not switch: its largest conductance is under `ratio` times its smallest."""
    return not float(np.median(maximum)) > ratio * float(np.median(minimum))


def device_extremes(
    devices: np.ndarray, conductance: np.ndarray, limit: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return of every device its name, smallest, largest and mean conductance, and whether the smallest is a limit.

    Parameters
    ----------
    devices : (n,) the device of each conductance.
    conductance : (n,) [S].
    limit : (n,) [S] conductance of the instrument's noise floor where a value lies under it, else NaN: all that is then
        known is that the device conducts less, so that noise cannot pass for switching.
    """
    labels, index = np.unique(devices, return_inverse=True)
    limit = np.full(len(conductance), np.nan) if limit is None else limit
    under = np.isfinite(limit)
    g = np.where(under, limit, conductance)
    low, high = np.full(len(labels), np.inf), np.zeros(len(labels))
    np.minimum.at(low, index, g)
    np.maximum.at(high, index, g)
    mean = np.bincount(index, g) / np.bincount(index)
    censored = np.bincount(index, under) > 0
    return labels, low, high, mean, censored


def is_stuck(minimum: np.ndarray, maximum: np.ndarray, rule: str, threshold: float = THRESHOLD) -> np.ndarray:
    """Say of each device whether it is stuck.

    Parameters
    ----------
    minimum, maximum : (device,) [S] smallest and largest conductance seen.
    rule : one of `RULES`. 'range' compares ranges in siemens, which suits arrays whose devices share one range;
        'ratio' compares on/off ratios, which suits populations whose conductances spread over decades.
    threshold : part of the typical range (of its logarithm) under which a device is stuck.

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
        return maximum - minimum < threshold * (typical_high - typical_low)
    positive = np.maximum(minimum, 1e-300)
    return np.log(np.maximum(maximum, 1e-300) / positive) < threshold * np.log(typical_high / typical_low)


def scott_bandwidth(values: np.ndarray) -> float:
    """Return Scott's bandwidth sigma n^(-1/5), 0 for one value (D. W. Scott, Multivariate Density Estimation, 1992)."""
    return float(values.std(ddof=1) * len(values) ** -0.2) if len(values) > 1 else 0.0


def undecided(
    minimum: np.ndarray, maximum: np.ndarray, censored: np.ndarray, rule: str, threshold: float = THRESHOLD
) -> np.ndarray:
    """Say of each device whether the noise floor hides if it is stuck.

    A device whose range ends under the floor has at least the range that is seen: where that is wide enough it is not
    stuck. Where it is not, the device is stuck only if it was never seen above the floor (it conducts less than can be
    measured in every state); else its true range may be as wide as any.
    """
    seen = maximum > minimum * NO_SWITCHING_RATIO
    return is_stuck(minimum, maximum, rule, threshold) & censored & seen


def stuck_node(
    devices: np.ndarray, minimum: np.ndarray, maximum: np.ndarray, mean: np.ndarray, rule: str,
    censored: np.ndarray | None = None,
) -> xr.Dataset:  # fmt: skip
    """Return the stuck node.

    The density of a stuck device's conductance is a kernel density at the mean conductances of the stuck devices,
    with Scott's bandwidth, truncated to G > 0 by reflection (B. W. Silverman, Density Estimation, 1986, section 2.10).

    Parameters
    ----------
    devices : (device,) names.
    minimum, maximum, mean : (device,) [S] of the conductances seen over all states and cycles.
    rule : see `is_stuck`.
    censored : (device,) whether the smallest conductance is only a limit, that of the instrument's noise floor.
    """
    censored = np.zeros(len(devices), dtype=bool) if censored is None else censored
    open_ones = undecided(minimum, maximum, censored, rule)
    stuck = is_stuck(minimum, maximum, rule) & ~open_ones
    values = mean[stuck]
    n, k = len(devices) - int(open_ones.sum()), int(stuck.sum())
    low, high = float(np.median(minimum)), float(np.median(maximum))
    place = np.log(np.maximum(values, 1e-300) / low) / np.log(high / low)
    where = {"on": place > 2 / 3, "off": place < 1 / 3}
    where["other"] = ~where["on"] & ~where["off"]
    one = {"units": "1"}
    by_place = {}
    for name, mask in where.items():
        count, words = int(mask.sum()), _PLACES[name]
        by_place[f"n_stuck_{name}"] = ((), count)
        by_place[f"probability_{name}"] = ((), count / n, {**one, "long_name": f"probability of being stuck {words}"})
        interval = list(binomial_interval(count, n))
        by_place[f"probability_{name}_bound"] = (
            "bound",
            interval,
            {**one, "long_name": "exact binomial 95 % interval"},
        )
    other_rule = "ratio" if rule == "range" else "range"
    return xr.Dataset(
        {
            "probability": ((), k / n, {**one, "long_name": "probability that a device is stuck"}),
            "probability_bound": (
                "bound", list(binomial_interval(k, n)), {**one, "long_name": "exact binomial 95 % interval"}
            ),
            "n_devices": ((), n),
            "n_stuck": ((), k),
            "n_undecided": ((), int(open_ones.sum())),
            **by_place,
            "n_stuck_by_other_rule": ((), _count(minimum, maximum, censored, other_rule, THRESHOLD)),
            **_by_threshold(minimum, maximum, censored, rule),
            "conductance": (
                "stuck_device", values, {"units": "S", "long_name": "mean conductance of the stuck devices"}
            ),
            "bandwidth": ((), scott_bandwidth(values) if k else 0.0, {"units": "S", "long_name": "kernel bandwidth"}),
        },
        coords={"bound": ("bound", ["low", "high"]), "stuck_device": ("stuck_device", devices[stuck].astype(str)),
                "threshold": ("threshold", list(THRESHOLDS), one)},
        attrs={"rule": RULES[rule], "rule_name": rule, "other_rule": RULES[other_rule], "assumed": 0,
               "threshold": THRESHOLD, "statement": STATEMENT},
    )  # fmt: skip


STATEMENT = (
    "a stuck device did not switch in any cycle; stuck on, off or elsewhere: its mean conductance lies in the upper, "
    "lower or middle third, in logarithms, between the typical smallest and largest conductance"
)
_PLACES = {"on": "on", "off": "off", "other": "between on and off"}


def _count(minimum: np.ndarray, maximum: np.ndarray, censored: np.ndarray, rule: str, threshold: float) -> int:
    stuck = is_stuck(minimum, maximum, rule, threshold)
    return int((stuck & ~undecided(minimum, maximum, censored, rule, threshold)).sum())


def _by_threshold(minimum: np.ndarray, maximum: np.ndarray, censored: np.ndarray, rule: str) -> dict[str, tuple]:
    """Return how many devices are stuck by the rule at other thresholds."""
    counts = [_count(minimum, maximum, censored, rule, threshold) for threshold in THRESHOLDS]
    n = [len(minimum) - int(undecided(minimum, maximum, censored, rule, threshold).sum()) for threshold in THRESHOLDS]
    bounds = [binomial_interval(k, total) for k, total in zip(counts, n, strict=True)]
    return {
        "n_stuck_at_threshold": ("threshold", counts),
        "n_devices_at_threshold": ("threshold", n),
        "probability_at_threshold": (
            "threshold", [k / total for k, total in zip(counts, n, strict=True)],
            {"units": "1", "long_name": "probability that a device is stuck, by threshold"},
        ),
        "probability_at_threshold_bound": (
            ("threshold", "bound"), bounds, {"units": "1", "long_name": "exact binomial 95 % interval"}
        ),
    }  # fmt: skip
