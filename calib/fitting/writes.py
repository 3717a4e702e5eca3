"""Write-verify logs: how often a write hits its target range, how exactly, and at what effort.

A device that never switched and one that fails a write are kept apart: the first stays where it is whatever the
target, the second moves and still misses.
"""

import numpy as np
import xarray as xr
from scipy import stats

from calib.errors import FitError
from calib.fitting import stuck
from calib.fitting.intervals import binomial_interval
from calib.fitting.programming import variance_components
from calib.fitting.write_log import WriteLog, extremes, moved_devices, write_log

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
EFFORT_QUANTILES = (0.5, 0.9, 0.99, 1.0)
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
_FEWEST = 3
_EFFORTS = (("attempts", "attempts"), ("n_set", "set pulses"), ("n_reset", "reset pulses"), ("n_read", "reads"))
STATEMENT = (
    "error: achieved conductance less the centre of the target range, over successful writes of devices that switch; "
    "the centre of a range with an open end is the median achieved there; sigma is its standard deviation; a device "
    "never switched when its conductances stay together by the rule of stuck devices and it hit no two ranges that are "
    "apart; all others switch, and their misses are failed writes"
)


def writes_node(writes: xr.Dataset, warnings: list[str]) -> xr.Dataset | None:
    """Return the outcome of writes per target range, and of the devices.

    Parameters
    ----------
    writes : the node writes of a Measurement.
    warnings : sentences are added about what the data do not support.

    Returns
    -------
    xarray.Dataset or None
        Dimensions: target (groups of target ranges in the order of their centres); effort; threshold. None where no
        write has an outcome.
    """
    data = write_log(writes, warnings)
    if data is None:
        return None
    variables: dict[str, tuple] = {}
    never = _devices(variables, data, warnings)
    switching = np.ones(len(data.rows), dtype=bool) if never is None else ~never[data.device]
    _targets(variables, data, switching)
    _errors(variables, data, switching)
    _effort(variables, data, writes)
    _failures(variables, data, switching, warnings)
    _examples(variables, data)
    return xr.Dataset(
        variables,
        coords={"bound": ["low", "high"], "quantile": list(QUANTILES), "effort_quantile": list(EFFORT_QUANTILES)},
        attrs={"statement": STATEMENT, "rule": stuck.RULES["range"], "method": "counts and moments per target range"},
    )


def switching_extremes(writes: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the devices that were written to several target ranges, and their conductances, for the node stuck.

    Returns
    -------
    devices, minimum, maximum, mean : (device,) names, and [S] over all writes of a device.
    """
    data = write_log(writes, [])
    if data is None:
        empty = np.empty(0)
        return np.empty(0, dtype=str), empty, empty, empty
    low, high, mean, several = extremes(data)
    return data.devices[several], low[several], high[several], mean[several]


def stuck_of_writes(writes: xr.Dataset, rule: str, warnings: list[str]) -> xr.Dataset | None:
    """Return the node stuck of the devices that never switched, by `calib.fitting.stuck.stuck_node`.

    A device that hit two target ranges that are apart has switched, however near to each other: it is given the
    population's median extremes, so that the rule, whose medians this leaves as they are, does not count it.
    """
    data = write_log(writes, [])
    if data is None:
        return None
    low, high, mean, several = extremes(data)
    if several.sum() < _FEWEST:
        warnings.append("stuck devices: not found, because hardly any device was written to two target ranges")
        return None
    moved = moved_devices(data)[several]
    low, high, mean = low[several], high[several], mean[several]
    minimum = np.where(moved, np.median(low), low)
    maximum = np.where(moved, np.median(high), high)
    if stuck.all_stuck(minimum, maximum):
        warnings.append("stuck devices: not found, because the median device does not switch between the targets")
        return None
    node = stuck.stuck_node(data.devices[several], minimum, maximum, mean, rule)
    node.attrs["rule"] = f"{node.attrs['rule']}; a device that hit two target ranges that are apart is not stuck"
    return node


def _one(long_name: str, units: str = "1") -> dict[str, str]:
    return {"units": units, "long_name": long_name}


def _share(variables: dict[str, tuple], name: str, k: int, n: int, long_name: str) -> None:
    """Add a probability with its exact binomial 95 % interval."""
    variables[name] = ((), k / n if n else np.nan, _one(long_name))
    interval = binomial_interval(k, n) if n else (np.nan, np.nan)
    variables[f"{name}_bound"] = ("bound", list(interval), _one("exact binomial 95 % interval"))


def _devices(variables: dict[str, tuple], data: WriteLog, warnings: list[str]) -> np.ndarray | None:
    """Add how many devices never switched, by several thresholds, and return which; None where that is not known."""
    low, high, mean, several = extremes(data)
    variables["n_devices"] = ((), len(data.devices), _one("devices"))
    if several.sum() < _FEWEST:
        warnings.append(
            "devices that never switched: not found, because hardly any device was written to two target ranges"
        )
        return None
    moved = moved_devices(data)
    try:
        by_rule = np.zeros(len(data.devices), dtype=bool)
        by_rule[several] = stuck.is_stuck(low[several], high[several], "range")
    except FitError as error:
        warnings.append(f"devices that never switched: not found, because {error}")
        return None
    never = by_rule & ~moved
    typical = float(np.median(high[several]) - np.median(low[several]))
    spans = (high - low)[several]
    counts = [int((spans < threshold * typical).sum()) for threshold in THRESHOLDS]
    silent = [int(((spans < threshold * typical) & ~moved[several]).sum()) for threshold in THRESHOLDS]
    n, k = int(several.sum()), int(never.sum())
    _share(variables, "never_switched_probability", k, n, "probability that a device never switches")
    for name, value, words in (
        ("n_devices_judged", n, "devices written to several target ranges"),
        ("n_never_switched", k, "devices that never switched"),
        ("n_narrow", int(by_rule.sum()), "devices whose conductance range is narrow by the rule of stuck devices"),
        ("n_narrow_moved", int((by_rule & moved).sum()), "of those, devices that hit two ranges that are apart"),
    ):
        variables[name] = ((), value, _one(words))
    variables["threshold"] = ("threshold", list(THRESHOLDS), _one("range of a device, share of the typical range"))
    variables["n_under_threshold"] = ("threshold", counts, _one("devices whose range is narrower"))
    variables["n_never_by_threshold"] = ("threshold", silent, _one("of those, devices that hit no two ranges apart"))
    variables["never_device"] = ("never_device", data.devices[never].astype(str), {"long_name": "device"})
    variables["never_conductance"] = (
        "never_device",
        mean[never],
        _one("mean conductance of devices that never switched", "S"),
    )
    if variables["n_narrow_moved"][1]:
        warnings.append(
            f"writes: {int(by_rule.sum())} devices have a conductance range under half of the typical one, but "
            f"{int((by_rule & moved).sum())} of them hit two target ranges that are apart, so they switch and miss "
            f"some targets; {k} never switched"
        )
    return never


def _targets(variables: dict[str, tuple], data: WriteLog, switching: np.ndarray) -> None:
    """Add the target ranges, and the probabilities of success of all devices and of those that switch."""
    groups = data.group.max() + 1
    places = [data.group == k for k in range(groups)]
    variables["target"] = (
        "target",
        [float(np.median(data.target[here])) for here in places],
        _one("target, centre", "S"),
    )
    variables["target_low"] = ("target", [float(data.low[here].min()) for here in places], _one("lower end", "S"))
    variables["target_high"] = ("target", [float(data.high[here].max()) for here in places], _one("upper end", "S"))
    for prefix, mask, words in (
        ("", np.ones(len(data.group), dtype=bool), "all devices"),
        ("switching_", switching, "devices that switch"),
    ):
        n = np.array([int((here & mask).sum()) for here in places])
        k = np.array([int((here & mask & data.success).sum()) for here in places])
        with np.errstate(invalid="ignore", divide="ignore"):
            variables[f"{prefix}success_probability"] = ("target", k / n, _one(f"probability of success, {words}"))
        bounds = [binomial_interval(int(a), int(b)) if b else (np.nan, np.nan) for a, b in zip(k, n, strict=True)]
        dims = ("target", "bound")
        variables[f"{prefix}success_probability_bound"] = (dims, bounds, _one("exact binomial 95 % interval"))
        variables[f"n_{prefix}writes"] = ("target", n, _one(f"writes, {words}"))
        variables[f"n_{prefix}success"] = ("target", k, _one(f"successful writes, {words}"))


def _errors(variables: dict[str, tuple], data: WriteLog, switching: np.ndarray) -> None:
    """Add bias and spread of what successful writes achieve, and where failed ones end."""
    groups = data.group.max() + 1
    names = ("bias", "bias_stderr", "sigma", "sigma_stderr", "sigma_relative", "sigma_relative_stderr", "sigma_ln",
             "sigma_all", "sigma_d2d", "sigma_c2c", "miss")  # fmt: skip
    table = {name: np.full(groups, np.nan) for name in names}
    quantiles = {key: np.full((groups, len(QUANTILES)), np.nan) for key in ("achieved", "failed")}
    n = np.zeros(groups, dtype=np.int64)
    known = np.isfinite(data.achieved)
    error = data.achieved - data.target
    for k in range(groups):
        here = (data.group == k) & known
        hit, lost = here & switching & data.success, here & ~data.success
        n[k] = hit.sum()
        for key, mask in (("achieved", hit), ("failed", lost)):
            if mask.any():
                quantiles[key][k] = np.quantile(data.achieved[mask], QUANTILES)
        if lost.any():
            table["miss"][k] = np.median(
                np.maximum(data.low[lost] - data.achieved[lost], data.achieved[lost] - data.high[lost])
            )
        if n[k] < _FEWEST:
            continue
        target = float(np.median(data.target[hit]))
        table["bias"][k], table["sigma"][k], table["sigma_stderr"][k] = _moments(error[hit])
        table["bias_stderr"][k] = table["sigma"][k] / np.sqrt(n[k])
        table["sigma_relative"][k] = table["sigma"][k] / target
        table["sigma_relative_stderr"][k] = table["sigma_stderr"][k] / target
        table["sigma_all"][k] = error[here & switching].std(ddof=1)
        if (data.achieved[hit] > 0).all():
            table["sigma_ln"][k] = np.log(data.achieved[hit]).std(ddof=1)
        scale = table["sigma"][k] or 1.0
        parts = variance_components(error[hit] / scale, data.device[hit])
        table["sigma_d2d"][k], table["sigma_c2c"][k] = scale * parts.d2d, scale * parts.c2c
    words = {
        "bias": "mean error", "bias_stderr": "its standard error", "sigma": "programming error, standard deviation",
        "sigma_stderr": "its standard error", "sigma_all": "standard deviation of the error, failed writes included",
        "sigma_d2d": "programming error between devices", "sigma_c2c": "programming error between writes of a device",
        "miss": "distance of failed writes from their range, median",
    }  # fmt: skip
    for name, words_of in words.items():
        variables[name] = ("target", table[name], _one(words_of, "S"))
    variables["sigma_relative"] = (
        "target",
        table["sigma_relative"],
        _one("programming error over the target (fraction)"),
    )
    variables["sigma_relative_stderr"] = ("target", table["sigma_relative_stderr"], _one("its standard error"))
    variables["sigma_ln"] = ("target", table["sigma_ln"], _one("standard deviation of ln G achieved (dimensionless)"))
    variables["n_errors"] = ("target", n, _one("successful writes with an achieved conductance"))
    for key, meaning in (("achieved", "successful"), ("failed", "failed")):
        of = _one(f"quantile of the conductance after {meaning} writes", "S")
        variables[f"{key}_quantile"] = (("target", "quantile"), quantiles[key], of)


def _moments(values: np.ndarray) -> tuple[float, float, float]:
    """Return mean, standard deviation and the latter's standard error, from the fourth moment (no normality)."""
    n, mean, sigma = len(values), float(values.mean()), float(values.std(ddof=1))
    if sigma == 0:
        return mean, sigma, 0.0
    fourth = float(np.mean((values - mean) ** 4))
    return mean, sigma, float(np.sqrt(max(fourth - sigma**4, 0.0) / n)) / (2 * sigma)


def _effort(variables: dict[str, tuple], data: WriteLog, writes: xr.Dataset) -> None:
    """Add attempts, pulses and reads per write; pulses are set and reset pulses together."""
    counts: dict[str, np.ndarray] = {}
    for name, words in _EFFORTS:
        if name in writes:
            values = writes[name].values[data.rows].astype(float)
            if (values > 0).any():
                counts[words] = np.where(values >= 0, values, np.nan)
    if {"set pulses", "reset pulses"} <= set(counts):
        counts["set and reset pulses"] = counts["set pulses"] + counts["reset pulses"]
    if not counts:
        return
    groups = data.group.max() + 1
    mean = np.full((len(counts), groups), np.nan)
    stderr, n = mean.copy(), np.zeros(mean.shape, dtype=np.int64)
    quantiles = np.full((*mean.shape, len(EFFORT_QUANTILES)), np.nan)
    for row, values in enumerate(counts.values()):
        for k in range(groups):
            here = values[(data.group == k) & np.isfinite(values)]
            n[row, k] = len(here)
            if len(here):
                mean[row, k] = here.mean()
                quantiles[row, k] = np.quantile(here, EFFORT_QUANTILES)
            if len(here) > 1:
                stderr[row, k] = here.std(ddof=1) / np.sqrt(len(here))
    dims = ("effort", "target")
    variables["effort"] = ("effort", list(counts), {"long_name": "what is counted"})
    variables["effort_mean"] = (dims, mean, _one("mean number per write"))
    variables["effort_stderr"] = (dims, stderr, _one("its standard error"))
    variables["effort_of"] = ((*dims, "effort_quantile"), quantiles, _one("quantile of the number per write"))
    variables["n_effort"] = (dims, n, _one("writes counted"))


def _failures(variables: dict[str, tuple], data: WriteLog, switching: np.ndarray, warnings: list[str]) -> None:
    """Add how many devices that switch failed a write, and whether failures gather in a few of them.

    If every device failed with its targets' probabilities p_t, the failures k_d of device d would have the mean
    m_d = sum p_t and the variance w_d = sum p_t (1 - p_t). X^2 = sum (k_d - m_d)^2 / w_d over n devices then has the
    mean n, and its variance follows from the fourth moments; it is compared with a scaled chi-square of that mean and
    variance (F. E. Satterthwaite, Biometrics Bulletin 2, 110 (1946), doi 10.2307/3002019), which holds for rare
    failures too. X^2 / n is the dispersion: 1 by chance, more when a few devices fail often.
    """
    failed = ~data.success
    n = len(data.devices)
    of_device = np.bincount(data.device[switching], failed[switching], n)
    written = np.bincount(data.device[switching], minlength=n) > 0
    k = int((of_device[written] > 0).sum())
    _share(variables, "failing_device_probability", k, int(written.sum()),
           "probability that a device that switches fails at least one of its writes")  # fmt: skip
    variables["n_switching"] = ((), int(written.sum()), _one("devices that switch"))
    variables["n_failing"] = ((), k, _one("of those, devices that failed a write"))
    total = int(failed[switching].sum())
    _share(
        variables,
        "failure_probability",
        total,
        int(switching.sum()),
        "probability that a write of a device that switches fails",
    )
    histogram = np.bincount(of_device[written].astype(np.int64))
    variables["failures"] = ("failures", np.arange(len(histogram)), _one("failed writes of a device"))
    variables["n_devices_failing"] = ("failures", histogram, _one("devices with so many failures"))
    dispersion, p_value = _dispersion(data, switching, of_device, written)
    variables["dispersion"] = ((), dispersion, _one("dispersion of failures over devices, 1 by chance"))
    variables["dispersion_p"] = ((), p_value, _one("probability of as much dispersion by chance"))
    ordered = np.sort(of_device[written])[::-1]
    half = int(np.searchsorted(np.cumsum(ordered), 0.5 * total)) + 1 if total else 0
    variables["n_half_of_failures"] = ((), half, _one("devices that hold half of the failures"))
    if np.isfinite(p_value) and p_value < 0.01:
        warnings.append(
            f"writes: failures gather in some devices (dispersion {dispersion:.2f}, p = {p_value:.1g}), so binomial "
            "intervals of success probabilities, which take writes as independent, are too narrow"
            if dispersion > 1
            else f"writes: failures are spread over devices more evenly than by chance (dispersion {dispersion:.2f})"
        )


def _dispersion(
    data: WriteLog, switching: np.ndarray, of_device: np.ndarray, written: np.ndarray
) -> tuple[float, float]:
    failed = (~data.success).astype(float)
    total = np.bincount(data.group[switching], minlength=data.group.max() + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.bincount(data.group[switching], failed[switching], len(total)) / total
    p = p[data.group[switching]]
    n = len(data.devices)
    device = data.device[switching]
    variance = np.bincount(device, p * (1 - p), n)
    use = written & (variance > 0)
    repeated = np.bincount(device, minlength=n)[use]
    if use.sum() < _FEWEST or not (repeated > 1).any():
        return np.nan, np.nan
    mean, variance = np.bincount(device, p, n)[use], variance[use]
    # the fourth central moment of a sum of independent variables: 3 w^2 + the sum of their fourth cumulants
    cumulant = np.bincount(device, p * (1 - p) * (1 - 6 * p * (1 - p)), n)[use]
    chi_square = float(np.sum((of_device[use] - mean) ** 2 / variance))
    count = float(use.sum())
    spread = float(np.sum(2 + cumulant / variance**2))
    scale = spread / (2 * count)
    tail = stats.chi2.sf(chi_square / scale, count / scale)
    p_value = float(tail if chi_square >= count else stats.chi2.cdf(chi_square / scale, count / scale))
    return chi_square / count, p_value


def _examples(variables: dict[str, tuple], data: WriteLog) -> None:
    """Add up to 150 writes per target, evenly over the log, for figures."""
    rows = []
    for k in range(data.group.max() + 1):
        here = np.flatnonzero((data.group == k) & np.isfinite(data.achieved))
        for mask, most in ((data.success[here], 100), (~data.success[here], 50)):
            part = here[mask]
            rows.append(
                part[np.unique(np.linspace(0, len(part) - 1, min(most, len(part))).round().astype(int))]
                if len(part)
                else part
            )
    chosen = np.concatenate(rows)
    variables["example_target"] = ("example", data.target[chosen], _one("target of some writes", "S"))
    variables["example_achieved"] = ("example", data.achieved[chosen], _one("achieved conductance", "S"))
    variables["example_success"] = ("example", data.success[chosen].astype(np.int64), _one("success"))
