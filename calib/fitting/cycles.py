"""Generative model of switching from cycle to cycle: marginals, correlation, memory, devices and classes of devices."""

from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from calib.cycle_sampling import sample_cycles, score_grid
from calib.fitting import vector_autoregression as autoregression
from calib.fitting.complete_cycles import CompleteCycles, complete_cycles, without_first_cycle
from calib.fitting.cycle_checks import check
from calib.fitting.cycle_table import FEATURES, CycleTable, table_of_loops, table_of_reads
from calib.fitting.device_classes import Classes, find_classes
from calib.fitting.loops import find_loops
from calib.fitting.quantile_transform import normal_scores, normal_table, quantile_table, spread_in_steps
from calib.fitting.switching_distribution import bootstrap_by_device
from calib.fitting.vector_autoregression import Autoregression, Runs
from calib.formatting import plural

__all__ = ["cycles_node", "sample_cycles"]

MINIMUM_CYCLES = 30
"""Cycles of all devices together under which the simple lognormal is taken."""
MINIMUM_GROUPS = 2
"""Devices with two cycles or more from which on their differences are separated from those of the cycles."""
LARGEST_ORDER = 5
NORMAL_P = 0.01
ALLOWED_OUTSIDE = 0.15
"""Autocorrelations outside of their 95 % ranges, as a part of all, from which on it is said."""
SEED = 2
_ONE = {"units": "1"}


def cycles_node(
    iv: xr.Dataset | None,
    warnings: list[str],
    *,
    reads: xr.Dataset | None = None,
    reference_voltage: float = 0.1,
    generator: np.random.Generator | None = None,
) -> xr.Dataset | None:
    """Return the cycles node: a model that draws ln R of both states and switching voltages, cycle after cycle.

    A feature is x_k = Q_k(u_k) with a quantile function Q_k of its own and scores u = m + w, where m ~ N(0, B) belongs
    to the device and w_t = sum_i A_i w_(t-i) + e_t, e ~ N(0, S), is a stationary vector autoregression over cycles;
    diag(B + cov w) = 1. Devices that are clearly apart are classes with quantile functions of their own. The idea is
    that of Synaptogen (T. Hennen et al., Front. Neurosci. 16, 941753 (2022), doi 10.3389/fnins.2022.941753; IEEE TED
    2024, doi 10.1109/TED.2024.3427616); here device effects and memory are estimated together, by exact likelihood.

    Parameters
    ----------
    iv, reads : nodes of a Measurement; reads are used where there are no loops.
    warnings : sentences are appended.
    reference_voltage : [V] at which resistances are read.
    generator : for bootstrap and checks; a fixed one by default.

    Returns
    -------
    xarray.Dataset
        None where no cycle was measured completely. Draw from it with `sample_cycles`.
    """
    generator = np.random.default_rng(SEED) if generator is None else generator
    data = complete_cycles(_table(iv, reads, reference_voltage), warnings)
    if data is None:
        return None
    data, shift = without_first_cycle(data, warnings)
    few = len(data.values) < MINIMUM_CYCLES
    classes = _classes(data)
    normality = np.array([_normality(data.values[~data.censored[:, k], k]) for k in range(len(data.names))])
    marginal = ["normal" if few or (p >= NORMAL_P and not data.censored[:, k].any()) else "quantile"
                for k, p in enumerate(normality)]  # fmt: skip
    if classes.which.any():
        marginal = ["quantile"] * len(marginal)
    tables = np.stack([_tables(data, classes, k, marginal[k]) for k in range(len(data.names))], axis=1)
    scores = _class_scores(data, classes)
    found, criteria, separable = _process(scores, data, few)
    if found is None:
        warnings.append("cycles: not found, because the memory and spread of the scores could not be fitted")
        return None
    node = _node(data, classes, tables, marginal, normality, found, criteria, separable)
    node["first_shift"] = (
        "feature",
        shift,
        {"units": "1 or V, see feature_unit", "long_name": "first cycle less later"},
    )
    node = _with_intervals(node, data, scores, separable, generator)
    node.attrs["selection"], node.attrs["model"] = _selection(node, data, classes, criteria, separable, few)
    if len(data.values) >= 10:
        node = _with_checks(node, data, generator, warnings)
    return node


def _table(iv: xr.Dataset | None, reads: xr.Dataset | None, reference_voltage: float) -> CycleTable | None:
    loops = find_loops(iv) if iv is not None else None
    if iv is not None and loops is not None and len(loops):
        return table_of_loops(iv, loops, reference_voltage)
    return table_of_reads(reads) if reads is not None else None


def _normality(values: np.ndarray) -> float:
    """Return the p-value of Shapiro and Wilk's test, the rows taken for independent; at most 2000 of them."""
    if len(values) < 8 or np.ptp(values) == 0:
        return float("nan")
    chosen = values[np.linspace(0, len(values) - 1, min(len(values), 2000)).astype(int)]
    return float(stats.shapiro(chosen).pvalue)


def _classes(data: CompleteCycles) -> Classes:
    """Return the classes of devices, found in their means of ln R and V."""
    number = data.number
    count = np.bincount(number)
    means = np.stack([np.bincount(number, column) / count for column in data.values.T], axis=1)
    centred = data.values - means[number]
    freedom = len(number) - len(count)
    within = centred.T @ centred / freedom if freedom > 0 else np.zeros((len(data.names),) * 2)
    return find_classes(means, within, MINIMUM_CYCLES // 3, count)


def _tables(data: CompleteCycles, classes: Classes, feature: int, marginal: str) -> np.ndarray:
    """Return the quantile tables of a feature, (class, grid)."""
    which = classes.which[data.number]
    positive = data.names[feature].startswith("v_")
    found = []
    for k in range(int(classes.which.max()) + 1):
        rows = which == k
        values, censored = data.values[rows, feature], data.censored[rows, feature]
        if marginal == "normal":
            found.append(normal_table(values, positive=positive))
        elif censored.any():
            found.append(quantile_table(values, censored, positive=positive))
        else:
            found.append(quantile_table(spread_in_steps(values, data.step[feature]), positive=positive))
    return np.stack(found)


def _class_scores(data: CompleteCycles, classes: Classes) -> np.ndarray:
    """Return normal scores of every feature within the classes, (row, feature)."""
    which = classes.which[data.number]
    scores = np.zeros_like(data.values)
    for k in range(int(classes.which.max()) + 1):
        rows = np.flatnonzero(which == k)
        for feature in range(len(data.names)):
            scores[rows, feature] = normal_scores(data.values[rows, feature], data.censored[rows, feature])
    return scores


def _process(scores: np.ndarray, data: CompleteCycles, few: bool) -> tuple[Autoregression | None, list[float], bool]:
    """Return the process of the smallest AICc, the criteria by order, and whether devices can be told from cycles."""
    runs = autoregression.runs_of(scores, data.device, data.cycle)
    separable = int((np.bincount(data.number) >= 2).sum()) >= MINIMUM_GROUPS
    size = scores.shape[1]
    orders = [0]
    for order in range(1, LARGEST_ORDER + 1):
        position = np.arange(len(scores)) - np.repeat(runs.first, runs.length)
        if not few and (position >= order).sum() >= 10 * (size + order):
            orders.append(order)
    if few and not separable:
        independent = np.diag(np.maximum(scores.var(axis=0), 1e-12))
        found = Autoregression(np.zeros((0, size, size)), independent, np.zeros((size, size)), np.nan, size, np.nan)
        return autoregression.normalised(found), [], False
    fits: list[Autoregression | None] = []
    criteria: list[float] = []
    for order in orders:
        fits.append(autoregression.fit(runs, order, random_effects=separable))
        criteria.append(getattr(fits[-1], "aicc", float("nan")))
    if not np.isfinite(criteria).any():
        return None, criteria, separable
    best = fits[int(np.nanargmin(criteria))]
    if best is not None and few:
        best = _without_correlation(best)
    return (autoregression.normalised(best) if best is not None else None), criteria, separable


def _without_correlation(found: Autoregression) -> Autoregression:
    return Autoregression(
        found.memory, np.diag(np.diag(found.innovation)), np.diag(np.diag(found.between)), found.log_likelihood,
        found.n_parameters, found.aicc,
    )  # fmt: skip


def _node(
    data: CompleteCycles, classes: Classes, tables: np.ndarray, marginal: list[str], normality: np.ndarray,
    found: Autoregression, criteria: list[float], separable: bool,
) -> xr.Dataset:  # fmt: skip
    size, order = len(data.names), len(found.memory)
    memory = found.memory if order else np.zeros((1, size, size))
    n_classes = tables.shape[0]
    in_class = np.bincount(classes.which, minlength=n_classes)
    ff = ("feature", "feature_other")
    units = {name: FEATURES[name][1] for name in data.names}
    variables: dict[str, Any] = {
        "table": (("class", "feature", "grid"), tables,
                  {"units": "1 or V, see feature_unit", "long_name": "value at the normal score"}),
        "score": ("grid", score_grid(), {**_ONE, "long_name": "normal score"}),
        "memory": (("lag", *ff), memory, {**_ONE, "long_name": "A of w_t = sum A_i w_(t-i) + e_t"}),
        "innovation": (ff, found.innovation, {**_ONE, "long_name": "covariance of e"}),
        "within": (ff, found.within, {**_ONE, "long_name": "covariance of the cycles of a device"}),
        "between": (ff, found.between, {**_ONE, "long_name": "covariance of the devices"}),
        "class_weight": ("class", in_class / in_class.sum(), {**_ONE, "long_name": "part of the devices"}),
        "n_class": ("class", in_class, _ONE),
        "aicc": ("order", criteria or [np.nan], {**_ONE, "long_name": "AICc of the memory of order 0, 1, ..."}),
        "normality_p": ("feature", normality, {**_ONE, "long_name": "p-value of normality (Shapiro and Wilk)"}),
        "marginal": ("feature", np.array(marginal, dtype=str)),
        "feature_unit": ("feature", np.array([units[name] for name in data.names], dtype=str)),
        "resolution": ("feature", data.step, {"units": "V", "long_name": "step of the sweep"}),
        "n_censored": ("feature", data.censored.sum(axis=0), _ONE),
        "n_devices": ((), int(classes.which.size), _ONE),
        "n_cycles": ((), len(data.values), _ONE),
        "n_left_out": ((), data.n_left_out, _ONE),
    }  # fmt: skip
    attrs = {
        "order": order,
        "separable": int(separable),
        "read_voltage": data.read_voltage,
        "classes": classes.reason,
        "n_components": classes.n_components,
        "method": "quantile transform to normal scores; vector autoregression with random device effects by exact "
        "maximum likelihood, order by AICc; classes of devices by a Gaussian mixture, number by BIC",
        "statement": "a row is one cycle of one device; resistances as ln(R / Ohm), voltages as magnitudes [V]; the "
        "high resistance is that before the set event, the low one that after it; values beyond the data lie on a "
        "straight line in normal scores; a voltage seen in a step of the sweep is spread evenly over the step",
    }
    names = list(data.names)
    return xr.Dataset(variables, coords={"feature": names, "feature_other": names}, attrs=attrs)


def _with_intervals(
    node: xr.Dataset, data: CompleteCycles, scores: np.ndarray, separable: bool, generator: np.random.Generator
) -> xr.Dataset:
    """Add correlations and the devices' share of the variance with intervals, and the memory's standard errors."""
    size = len(data.names)
    nothing = np.full((size, size, 2), np.nan)
    correlation = np.atleast_2d(np.corrcoef(scores.T)) if len(scores) > 2 else np.full((size, size), np.nan)
    bound = nothing
    if len(scores) >= 10 and size > 1:
        with np.errstate(invalid="ignore", divide="ignore"):
            bound = np.moveaxis(
                bootstrap_by_device(data.device, lambda rows: np.corrcoef(scores[rows].T), generator), 0, -1
            )
    inertia = np.clip(np.diag(node["memory"].values[0]), 0.0, 0.9)
    share = np.array([
        _share(scores[:, k], data.number, float(inertia[k])) if separable else (np.nan,) * 3 for k in range(size)
    ])  # fmt: skip
    error = np.full(node["memory"].shape, np.nan)
    if int(node.attrs["order"]):
        runs = autoregression.runs_of(scores, data.device, data.cycle)
        error = _memory_error(node, runs)
    model = node["between"].values + node["within"].values
    ff = ("feature", "feature_other")
    return node.assign({
        "correlation": (ff, correlation, {**_ONE, "long_name": "correlation of the normal scores"}),
        "correlation_bound": ((*ff, "bound"), bound, {**_ONE, "long_name": "95 % interval (bootstrap over devices)"}),
        "correlation_model": (ff, model, {**_ONE, "long_name": "correlation in the model"}),
        "share_between": ("feature", share[:, 0], {**_ONE, "long_name": "devices' share of the variance"}),
        "share_between_bound": (("feature", "bound"), share[:, 1:], {**_ONE, "long_name": "95 % interval"}),
        "memory_stderr": (("lag", *ff), error, {**_ONE, "long_name": "standard error of A"}),
    }).assign_coords(bound=["low", "high"])  # fmt: skip


def _share(score: np.ndarray, number: np.ndarray, inertia: float) -> tuple[float, float, float]:
    """Return the devices' share of the variance and its 95 % interval, from the F ratio of a one-way analysis.

    Unequal numbers of cycles stand for their mean n0 (S. R. Searle, Linear Models, 1971, chapter 9). The memory a of
    the cycle before enlarges the variance of a device's mean by g = (1 + a) / (1 - a) and leaves 1 / g of the degrees
    of freedom.
    """
    count = np.bincount(number)
    groups, n = len(count), len(score)
    means = np.bincount(number, score) / count
    within = float(np.square(score - means[number]).sum()) / max(n - groups, 1)
    between = float((count * np.square(means - score.mean())).sum()) / (groups - 1)
    typical = (n - float(np.square(count).sum()) / n) / (groups - 1)
    gain = min((1 + inertia) / (1 - inertia), max(typical, 1.0))
    within *= (typical - 1) / max(typical - gain, 0.5 * (typical - 1)) if gain > 1 and typical > 1 else 1.0
    ratio = between / max(within * gain, 1e-300)
    freedom = max((n - groups) / gain, 1.0)
    ends = [ratio / stats.f.ppf(q, groups - 1, freedom) for q in (0.975, 0.025)]
    values = [gain * (f - 1) / (gain * (f - 1) + typical) for f in (ratio, *ends)]
    share, low, high = (float(np.clip(value, 0.0, 1.0)) for value in values)
    return share, low, high


def _memory_error(node: xr.Dataset, runs: Runs) -> np.ndarray:
    """Return large-sample standard errors of A, sqrt(diag(X^-1) S_kk), X the sum of squares of the past scores."""
    order, size = int(node.attrs["order"]), runs.scores.shape[1]
    position = np.arange(len(runs.scores)) - np.repeat(runs.first, runs.length)
    rows = np.flatnonzero(position >= order)
    past = np.concatenate([runs.scores[rows - lag] for lag in range(1, order + 1)], axis=1)
    means = np.stack([np.bincount(runs.device[rows], column) for column in past.T], axis=1)
    count = np.maximum(np.bincount(runs.device[rows]), 1)
    if node.attrs["separable"]:
        past = past - (means / count[:, None])[runs.device[rows]]
    inverse = np.linalg.pinv(past.T @ past)
    variance = np.outer(np.diag(node["innovation"].values), np.diag(inverse))  # (feature, lag feature)
    return np.sqrt(variance).reshape(size, order, size).transpose(1, 0, 2)


def _selection(
    node: xr.Dataset, data: CompleteCycles, classes: Classes, criteria: list[float], separable: bool, few: bool
) -> tuple[str, str]:
    """Return in words which model was taken and why, and its name."""
    said = [f"{len(data.values)} cycles of {plural(int(node['n_devices']), 'device')}"]
    if few:
        said.append(f"under {MINIMUM_CYCLES} cycles the simple lognormal is taken, features independent")
        return "lognormal: " + "; ".join(said), "lognormal"
    odd = [
        str(n) for n, kind in zip(node["feature"].values, node["marginal"].values, strict=True) if kind == "quantile"
    ]
    p = ", ".join(f"{n} p = {v:.2g}" for n, v in zip(data.names, node["normality_p"].values, strict=True))
    said.append(f"normality (Shapiro and Wilk) {p}: {'quantile tables for ' + ', '.join(odd) if odd else 'kept'}")
    order = int(node.attrs["order"])
    if len(criteria) > 1:
        gain = criteria[0] - criteria[order] if order else np.nanmin(criteria[1:]) - criteria[0]
        said.append(
            f"memory of {order} cycle{'s' if order > 1 else ''} (AICc better by {gain:.1f} than none)" if order
            else f"no memory from cycle to cycle (AICc {gain:.1f} better without)"
        )  # fmt: skip
    else:
        said.append("memory cannot be seen, because successive cycles of a device were not measured")
    low, high = node["correlation_bound"].values[..., 0], node["correlation_bound"].values[..., 1]
    pairs = [f"{data.names[i]} and {data.names[j]} {node['correlation'].values[i, j]:.2f}"
             for i in range(len(data.names)) for j in range(i) if low[i, j] > 0 or high[i, j] < 0]  # fmt: skip
    said.append(f"correlated: {', '.join(pairs)}" if pairs else "no correlation beyond its interval")
    said.append(
        f"devices differ from one another by random effects{'' if int(node['n_devices']) >= 10 else ', of few devices'}"
        if separable
        else "differences between devices cannot be told from those between cycles"
    )  # fmt: skip
    said.append(classes.reason)
    simple = not odd and not order and not pairs and not classes.which.any()
    name = "lognormal" if simple else "generative"
    reason = "nothing in the data departs from it" if simple else "the data depart from independent lognormals"
    return f"{name}, because {reason}: {'; '.join(said)}", name


def _with_checks(
    node: xr.Dataset, data: CompleteCycles, generator: np.random.Generator, warnings: list[str]
) -> xr.Dataset:
    """Add how the data compare with data sets of the same shape drawn from the model."""
    limit = np.where(data.censored.any(axis=0), np.where(data.censored, data.values, np.inf).min(axis=0), np.inf)
    found = check(node, data.values, limit, data.step, data.device, data.cycle, generator)
    bad = [f"{n} (p = {p:.2g})" for n, p in zip(data.names, found.p_value, strict=True) if p < NORMAL_P]
    if bad:
        warnings.append(f"cycles: the model's marginal does not reproduce {', '.join(bad)}; use the measured quantiles")
    fl, ff = ("feature", "check_lag"), ("feature", "feature_other")
    data_vars: dict[str, Any] = {
        "check_distance": ("feature", found.distance, {**_ONE, "long_name": "Kolmogorov-Smirnov distance"}),
        "check_p": ("feature", found.p_value, {**_ONE, "long_name": "its p-value among drawn data sets"}),
        "check_correlation": (ff, found.correlation, {**_ONE, "long_name": "correlation of the data's scores"}),
        "check_correlation_bound": ((*ff, "bound"), found.correlation_bound,
                                    {**_ONE, "long_name": "range of 95 % of drawn data sets"}),
        "n_check": ((), found.n_simulated, _ONE),
    }  # fmt: skip
    if len(found.lag):
        low, high = np.moveaxis(found.memory_bound, -1, 0)
        outside = (found.memory < low) | (found.memory > high)
        margin = 0.25 * (high - low)[:, 0]
        far = (found.memory[:, 0] < low[:, 0] - margin) | (found.memory[:, 0] > high[:, 0] + margin)
        if found.lag[0] == 1 and far.any():
            listed = ", ".join(name for name, is_far in zip(data.names, far, strict=True) if is_far)
            warnings.append(
                f"cycles: the correlation of {listed} with the cycle before lies outside of what drawn data sets show; "
                "its memory is not that of the model"
            )
        if outside.mean() > ALLOWED_OUTSIDE:
            warnings.append(
                f"cycles: {int(outside.sum())} of {outside.size} autocorrelations of the data lie outside of what 95 % "
                "of the drawn data sets show; the data hold a slower drift than the model's memory"
            )
        data_vars |= {
            "check_lag": ("check_lag", found.lag, {**_ONE, "long_name": "cycles between"}),
            "check_memory": (fl, found.memory, {**_ONE, "long_name": "autocorrelation of the data's scores"}),
            "check_memory_bound": ((*fl, "bound"), found.memory_bound,
                                   {**_ONE, "long_name": "range of 95 % of drawn data sets"}),
        }  # fmt: skip
    return node.assign(data_vars)
