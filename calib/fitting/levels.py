"""Discrete conductance levels: their means and spreads, and how many of them reads can tell apart."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from calib.fitting.traces import Traces, at_times, correlation_reads, time_groups, traces_of
from calib.level_count import distinguishable, fitting_in, pair_error, select

ERRORS = (0.001, 0.01, 0.05)
"""Chances of misreading at which levels are counted."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
N_BOOTSTRAP = 400
FEW_TRACES = 8
"""Levels of fewer traces get their errors from the effective number of reads, the others from resampled traces."""
READ_SAMPLES = 10
"""Reads of a trace from which its read-to-read noise is told from its slow change."""
READS_PER_ERROR = 5.0
"""The share of misread reads is counted where a level has at least this number divided by the error."""
MINIMUM_READS = 5
LEVELS_OF_LAW = 4
"""Levels from which the spread is taken as a function of the conductance."""
STATEMENT = (
    "a level's std is that of one read of one trace at any time of the trace: read noise, change over the trace and "
    "difference between traces (devices, or cycles of a device) together; two levels are told apart at error e when a "
    "threshold between them is crossed by at most a fraction e of the reads of either (normal distributions), so that "
    "an inner level is misread at most 2 e of the time; n_distinguishable is the size of a largest set of the measured "
    "levels of which each pair is told apart, n_empirical the same with the measured e and 1 - e quantiles in place of "
    "normal ones; n_fit is how many would fit between the lowest and the highest mean, 1 + integral of dG / "
    "(2 z sigma(G)), Phi(-z) = e, sigma(G) being the fitted law"
)
S = {"units": "S"}
ONE = {"units": "1"}


@dataclass(frozen=True)
class _Levels:
    """Statistics of levels in ascending order of their means, and what they were made from."""

    name: np.ndarray  # (level,)
    owner: np.ndarray  # (trace,) index of the level of each trace, -1 for none
    mean: np.ndarray
    read: np.ndarray  # read-to-read standard deviation, NaN where traces are too short
    within: np.ndarray  # standard deviation over a trace, root mean square over traces
    between: np.ndarray  # standard deviation between the traces' means, NaN for one trace
    std: np.ndarray
    n_traces: np.ndarray
    n_devices: np.ndarray
    n_reads: np.ndarray
    n_effective: np.ndarray  # independent values that the spread rests on


def level_names(reads: xr.Dataset) -> tuple[np.ndarray, str]:
    """Return (trace,) the name of each trace's level, '' for none, and what in the measurement tells the levels.

    The programmed target where several were given, else the level's label, else the resistance state; the traces of a
    single device that has none of these are levels.
    """
    target = reads["target"].values if "target" in reads.coords else np.full(reads.sizes["trace"], np.nan)
    known = np.isfinite(target)
    if len(np.unique(np.round(np.log(target[known & (target > 0)]), 6))) > 1:
        return np.array([f"{value:.4g} S" if ok else "" for value, ok in zip(target, known, strict=True)]), "target"
    for key in ("level", "state"):
        names = reads[key].values.astype(str) if key in reads.coords else np.array([""])
        if len(set(names) - {""}) > 1:
            return names, key
    enough = np.isfinite(reads["conductance"].values).sum(axis=1) >= READ_SAMPLES
    if len(np.unique(reads["device"].values)) == 1 and enough.sum() > 2 and len(np.unique(reads["cycle"].values)) == 1:
        return np.where(enough, (np.arange(len(enough)) + 1).astype(str), ""), "trace"
    return np.full(reads.sizes["trace"], ""), ""


def levels_node(
    reads: xr.Dataset, warnings: list[str], generator: np.random.Generator | None = None
) -> xr.Dataset | None:
    """Return the node levels from conductance reads at programmed levels, or None with a sentence in `warnings`.

    The variance of a level is the mean variance over its traces plus the variance between its traces' means. Intervals
    come from `N_BOOTSTRAP` draws: traces drawn with replacement where a level has at least `FEW_TRACES`, otherwise a
    normal mean and a chi^2 variance with as many degrees of freedom as the traces hold independent reads (reads that
    follow a slow change are few, whatever their number).

    Parameters
    ----------
    reads : node of a Measurement, conductance (trace, sample) [S].
    generator : for the bootstrap; the same numbers each time by default.
    """
    rng = np.random.default_rng(20240501) if generator is None else generator
    traces = traces_of(reads)
    names, told_by = level_names(reads)
    if not told_by:
        warnings.append(
            "levels: not found, because nothing tells which reads belong to which programmed level; give a column of "
            "targets or levels (--columns level=... or target=...)"
        )
        return None
    levels = _statistics(traces, names)
    fewest = FEW_TRACES if len(levels.mean) and np.median(levels.n_traces) >= FEW_TRACES else 1
    usable = (levels.n_reads >= MINIMUM_READS) & (levels.std > 0) & (levels.n_traces >= fewest)
    if usable.sum() < 2:
        warnings.append(
            f"levels: not found, because {int(usable.sum())} of {len(usable)} levels have the {MINIMUM_READS} reads "
            "that a spread takes; read each level more often, or on more devices"
        )
        return None
    if not usable.all():
        left = np.flatnonzero(~usable)
        reason = f"fewer than {fewest} traces, unlike the others" if fewest > 1 else "reads that do not differ"
        warnings.append(
            f"levels: {len(left)} of {len(usable)} levels were left out, because they have fewer than {MINIMUM_READS} "
            f"reads or {reason} ({int(levels.n_reads[left].sum())} reads in all)"
        )
        levels = _only(levels, usable)
    node = _node(traces, levels, rng)
    node.attrs.update(told_by=told_by, statement=STATEMENT, method=_method(levels))
    _say_limits(node, levels, warnings)
    return node


def _statistics(traces: Traces, names: np.ndarray) -> _Levels:
    count = traces.count
    here = (names != "") & (count > 0)
    labels, index = np.unique(names[here], return_inverse=True)
    owner = np.full(len(names), -1)
    owner[here] = index
    n = np.maximum(count, 1)
    total = np.nansum(traces.g, axis=1)
    mean = total / n
    variance = np.nansum(np.square(traces.g - mean[:, None]), axis=1) / n
    steps = np.square(np.diff(traces.g, axis=1))
    pairs = np.isfinite(steps).sum(axis=1)
    read = np.where(count >= READ_SAMPLES, np.nansum(steps, axis=1) / np.maximum(2 * pairs, 1), np.nan)
    independent = np.array([_independent(row) if n >= READ_SAMPLES else float(n) for row, n in zip(
        traces.g, count, strict=True)])  # fmt: skip
    size = len(labels)
    rows = np.flatnonzero(here)
    n_traces = np.bincount(index, minlength=size)
    level_mean = np.bincount(index, mean[rows], size) / n_traces
    within = np.bincount(index, variance[rows], size) / n_traces
    squares = np.bincount(index, np.square(mean[rows] - level_mean[index]), size)
    between = np.divide(squares, n_traces - 1, out=np.full(size, np.nan), where=n_traces > 1)
    noise = np.array([_mean_of(read[rows[index == k]]) for k in range(size)])
    effective = np.bincount(index, independent[rows], size)
    vb = np.nan_to_num(between)
    spread_within = np.maximum(effective - n_traces, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        denominator = vb**2 / np.maximum(n_traces - 1, 1) + within**2 / spread_within
        freedom = np.where(denominator > 0, (vb + within) ** 2 / denominator, spread_within)
    freedom = np.where(n_traces >= FEW_TRACES, n_traces - 1, freedom)
    order = np.argsort(level_mean, kind="stable")
    place = np.empty(size, dtype=int)
    place[order] = np.arange(size)
    owner[here] = place[index]
    devices = np.array([len(np.unique(traces.device[rows[index == k]])) for k in range(size)])
    n_reads = np.bincount(index, count[rows], size).astype(int)
    return _Levels(
        labels[order], owner, level_mean[order], np.sqrt(noise)[order], np.sqrt(within)[order],
        np.sqrt(between)[order], np.sqrt(vb + within)[order], n_traces[order], devices[order], n_reads[order],
        freedom[order] + 1,
    )  # fmt: skip


def _mean_of(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _independent(row: np.ndarray) -> float:
    """Return how many independent reads a trace is worth, its drift included."""
    values = row[np.isfinite(row)]
    return max(len(values) / correlation_reads(values), 2.0)


def _only(levels: _Levels, keep: np.ndarray) -> _Levels:
    place = np.where(keep, np.cumsum(keep) - 1, -1)
    owner = np.where(levels.owner >= 0, place[levels.owner], -1)
    fields = (
        levels.mean, levels.read, levels.within, levels.between, levels.std, levels.n_traces, levels.n_devices,
        levels.n_reads, levels.n_effective,
    )  # fmt: skip
    return _Levels(levels.name[keep], owner, *(values[keep] for values in fields))


def _node(traces: Traces, levels: _Levels, rng: np.random.Generator) -> xr.Dataset:
    errors = np.array(ERRORS)
    mean, std = _draws(traces, levels, rng)
    sets = [distinguishable(levels.mean, levels.std, e) for e in ERRORS]
    drawn = np.array([[len(distinguishable(m, s, e)) for e in ERRORS] for m, s in zip(mean, std, strict=True)])
    counts = np.array([len(chosen) for chosen in sets])
    selected = np.zeros((len(levels.mean), len(ERRORS)), dtype=np.int64)
    for column, chosen in enumerate(sets):
        selected[chosen, column] = 1
    empirical, misread, n_misread = _measured(traces, levels, sets)
    law, law_stderr, reference, fit, fit_bound = _range(levels, mean, std, errors, rng)
    variables = {
        "mean": ("level", levels.mean, {**S, "long_name": "mean conductance of the level"}),
        "mean_stderr": ("level", mean.std(axis=0), {**S, "long_name": "its standard error"}),
        "std": ("level", levels.std, {**S, "long_name": "standard deviation of one read of one trace"}),
        "std_stderr": ("level", std.std(axis=0), {**S, "long_name": "its standard error"}),
        "std_read": ("level", levels.read, {**S, "long_name": "standard deviation from one read to the next"}),
        "std_within": ("level", levels.within, {**S, "long_name": "standard deviation over a trace"}),
        "std_between": ("level", levels.between, {**S, "long_name": "standard deviation between traces"}),
        "g_quantile": (("level", "quantile"), _quantiles(traces, levels), {
            **S, "long_name": "quantile of the reads of the level"}),
        "pair_error": ("level", pair_error(levels.mean, levels.std), {
            **ONE, "long_name": "chance of misreading this level and the next higher one"}),
        "selected": (("level", "error"), selected, {**ONE, "long_name": "whether the level is in the largest set"}),
        "n_traces": ("level", levels.n_traces),
        "n_devices": ("level", levels.n_devices),
        "n_reads": ("level", levels.n_reads),
        "n_effective": ("level", levels.n_effective),
        "n_distinguishable": ("error", counts),
        "n_distinguishable_bound": (("error", "bound"), _percentiles(drawn, counts)),
        "n_empirical": ("error", empirical),
        "n_fit": ("error", fit),
        "n_fit_bound": (("error", "bound"), fit_bound),
        "misread": ("error", misread, {**ONE, "long_name": "measured share of misread reads of the selected levels"}),
        "n_misread_reads": ("error", n_misread),
        "sigma_law": ("power", law, {**ONE, "long_name": "ln(sigma / S) = sum of sigma_law ln(G / G_ref)^power"}),
        "sigma_law_stderr": ("power", law_stderr, {**ONE, "long_name": "its standard error"}),
        **_over_time(traces, levels, rng),
    }  # fmt: skip
    coordinates = {
        "level_name": ("level", levels.name.astype(str)),
        "error": ("error", errors, {**ONE, "long_name": "chance of misreading a pair of levels"}),
        "quantile": ("quantile", np.array(QUANTILES), {**ONE, "long_name": "quantile"}),
        "power": ("power", np.arange(len(law))),
        "bound": ["low", "high"],
    }
    return xr.Dataset(variables, coords=coordinates, attrs={"reference_conductance": reference})


def _quantiles(traces: Traces, levels: _Levels) -> np.ndarray:
    """Return (level, quantile) quantiles of all reads of each level [S]."""
    pooled = [traces.g[levels.owner == k] for k in range(len(levels.mean))]
    return np.array([np.quantile(values[np.isfinite(values)], QUANTILES) for values in pooled])


def _percentiles(drawn: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Return the 95 % percentile interval of draws along the last axis of the estimate, widened to hold it."""
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return np.stack([np.minimum(low, estimate), np.maximum(high, estimate)], axis=-1)


def _draws(traces: Traces, levels: _Levels, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (draw, level) means and standard deviations within their uncertainty."""
    shape = (N_BOOTSTRAP, len(levels.mean))
    freedom = np.maximum(levels.n_effective - 1, 1.0)
    std = levels.std * np.sqrt(rng.chisquare(freedom, shape) / freedom)
    mean = levels.mean + std * rng.standard_normal(shape) / np.sqrt(levels.n_effective)
    n = np.maximum(traces.count, 1)
    own_mean = np.nansum(traces.g, axis=1) / n
    own_variance = np.nansum(np.square(traces.g - own_mean[:, None]), axis=1) / n
    for level in np.flatnonzero(levels.n_traces >= FEW_TRACES):
        rows = np.flatnonzero(levels.owner == level)
        drawn = rows[rng.integers(len(rows), size=(N_BOOTSTRAP, len(rows)))]
        mean[:, level] = own_mean[drawn].mean(axis=1)
        std[:, level] = np.sqrt(own_variance[drawn].mean(axis=1) + own_mean[drawn].var(axis=1, ddof=1))
    return mean, std


def _measured(traces: Traces, levels: _Levels, sets: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return per error the count from measured quantiles, the share of misread reads of the sets, and their number."""
    pooled = [np.sort(traces.g[levels.owner == k][np.isfinite(traces.g[levels.owner == k])])
              for k in range(len(levels.mean))]  # fmt: skip
    empirical = np.full(len(ERRORS), np.nan)
    misread, number = np.full(len(ERRORS), np.nan), np.zeros(len(ERRORS), dtype=np.int64)
    for column, (error, chosen) in enumerate(zip(ERRORS, sets, strict=True)):
        enough = [values for values in pooled if len(values) >= READS_PER_ERROR / error]
        if len(enough) > 0.9 * len(pooled):
            ends = np.array([np.quantile(values, [error, 1 - error]) for values in enough])
            empirical[column] = len(select(ends[:, 0], ends[:, 1]))
        if len(chosen) < 2:
            continue
        m, s = levels.mean[chosen], levels.std[chosen]
        thresholds = (m[:-1] * s[1:] + m[1:] * s[:-1]) / (s[:-1] + s[1:])
        wrong = sum(
            int((np.searchsorted(thresholds, pooled[level]) != place).sum()) for place, level in enumerate(chosen)
        )
        number[column] = sum(len(pooled[level]) for level in chosen)
        misread[column] = wrong / number[column]
    return empirical, misread, number


def _range(
    levels: _Levels, mean: np.ndarray, std: np.ndarray, errors: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, np.ndarray]:
    """Return the law of sigma(G), its error, its reference conductance, and how many levels fit, with intervals."""
    keep = levels.mean > 0
    nothing = np.full(len(errors), np.nan)
    if keep.sum() < LEVELS_OF_LAW:
        return np.full(1, np.nan), np.full(1, np.nan), np.nan, nothing, np.full((len(errors), 2), np.nan)
    reference = float(np.exp(np.log(levels.mean[keep]).mean()))
    x = np.log(levels.mean[keep] / reference)
    order = _law_order(x, np.log(levels.std[keep]))
    law = np.polynomial.polynomial.polyfit(x, np.log(levels.std[keep]), order)
    low, high = (float(end) for end in levels.mean[keep][[0, -1]])
    fit = fitting_in(low, high, law, reference, errors)
    laws, drawn = [], []
    rows = np.flatnonzero(keep)
    for m, s in zip(mean, std, strict=True):
        part = rows[(m[rows] > 0) & (s[rows] > 0)]
        part = rng.choice(part, len(part))  # the scatter about the law counts as well
        if len(np.unique(part)) <= order:
            continue
        laws.append(np.polynomial.polynomial.polyfit(np.log(m[part] / reference), np.log(s[part]), order))
        drawn.append(fitting_in(max(m[rows[0]], 0.5 * low), m[rows[-1]], laws[-1], reference, errors))
    if len(laws) < N_BOOTSTRAP // 2:
        return law, np.full(len(law), np.nan), reference, fit, np.full((len(errors), 2), np.nan)
    return law, np.std(laws, axis=0), reference, fit, _percentiles(np.array(drawn), fit)


def _law_order(x: np.ndarray, y: np.ndarray) -> int:
    """Return the order 0, 1 or 2 of the polynomial with the smallest AICc (equal weights)."""
    n, best, chosen = len(x), np.inf, 0
    for order in range(min(3, max(n - 3, 1))):
        if len(np.unique(x)) <= order:
            break
        residual = y - np.polynomial.polynomial.polyval(x, np.polynomial.polynomial.polyfit(x, y, order))
        k = order + 2
        if n - k - 1 <= 0:
            break
        criterion = n * np.log(max(float(residual @ residual) / n, 1e-300)) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
        if criterion < best:
            best, chosen = criterion, order
    return chosen


def _over_time(traces: Traces, levels: _Levels, rng: np.random.Generator) -> dict[str, tuple]:
    """Return how many levels can be told apart at each time after programming, where many devices were read then."""
    rows = np.flatnonzero((levels.owner >= 0) & traces.timed)
    if len(rows) < FEW_TRACES * len(levels.mean) or traces.count[rows].max() > 60:
        return {}
    part = Traces(traces.g[rows], traces.time[rows], traces.device[rows], traces.origin)
    centres = time_groups(part.time)
    at = np.concatenate([np.where(part.time[:, :1] == 0, part.g[:, :1], np.nan), at_times(part, centres)], axis=1)
    times = np.concatenate([[0.0], centres])
    owner = levels.owner[rows]
    members = [np.flatnonzero(owner == k) for k in range(len(levels.mean))]
    kept = [c for c in range(len(times))
            if min(np.isfinite(at[m, c]).sum() for m in members) >= FEW_TRACES]  # fmt: skip
    if not kept:
        return {}
    shape = (len(kept), len(ERRORS))
    count, bound = np.zeros(shape), np.zeros((*shape, 2))
    for place, column in enumerate(kept):
        values = [at[m, column][np.isfinite(at[m, column])] for m in members]
        mean, std = np.array([v.mean() for v in values]), np.array([v.std(ddof=1) for v in values])
        drawn = [v[rng.integers(len(v), size=(N_BOOTSTRAP // 2, len(v)))] for v in values]
        means, stds = (np.stack([getattr(d, f)(axis=1) for d in drawn], axis=1) for f in ("mean", "std"))
        count[place] = [len(distinguishable(mean, std, e)) for e in ERRORS]
        counts = np.array([[len(distinguishable(m, s, e)) for e in ERRORS] for m, s in zip(means, stds, strict=True)])
        bound[place] = _percentiles(counts, count[place])
    return {
        "time": ("time", times[kept], {"units": "s", "long_name": "time of the reads"}),
        "n_distinguishable_at": (("time", "error"), count),
        "n_distinguishable_at_bound": (("time", "error", "bound"), bound),
    }


def _method(levels: _Levels) -> str:
    many = int((levels.n_traces >= FEW_TRACES).sum())
    kinds = [f"traces drawn with replacement ({many} levels)"] if many else []
    if many < len(levels.mean):
        kinds.append(f"normal mean and chi^2 variance of the effective number of reads ({len(levels.mean) - many})")
    return f"intervals from {N_BOOTSTRAP} bootstrap draws: {', '.join(kinds)}"


def _say_limits(node: xr.Dataset, levels: _Levels, warnings: list[str]) -> None:
    if (levels.n_devices == 1).all():
        warnings.append(
            "levels: each level was read on one device, so the difference between devices is not in its spread; the "
            "counts hold for this device"
        )
    few = levels.n_traces < FEW_TRACES
    if few.any() and float(np.median(levels.n_effective[few] / levels.n_reads[few])) < 0.1:
        warnings.append(
            f"levels: successive reads follow one another closely; a level's reads are worth "
            f"{float(np.median(levels.n_effective[few])):.0f} independent ones (median of {int(few.sum())} levels)"
        )
    expected, found = np.array(ERRORS), node["misread"].values
    off = np.flatnonzero(found > 3 * expected)
    if len(off):
        listed = ", ".join(f"{found[k]:.2g} at {expected[k]:g}" for k in off)
        warnings.append(
            f"levels: more reads of the selected levels are misread than normal distributions say ({listed}); the "
            "spread has heavy tails, see n_empirical"
        )
