"""Retention: drift of each trace, its distribution over devices, relaxation of the population, failure, temperature."""

import math

import numpy as np
import xarray as xr
from scipy import stats

from calib.fitting import drift
from calib.fitting import relaxation as relax
from calib.fitting.drift import DriftFits, drift_fits
from calib.fitting.intervals import binomial_interval, quantile_interval
from calib.fitting.random_effects import RandomEffects, random_effects
from calib.fitting.traces import Traces, log_binned, traces_of

HORIZONS = (1e3, 1e4, 1e5, 3.15576e8)
"""[s] Times at which the fraction of devices that left their conductance is stated; the last is ten years."""
THRESHOLDS = (0.05, 0.1, 0.2)
"""Relative changes of the conductance that count as failure."""
NEAR = 1.5
"""A read within this factor of a horizon is a measurement at the horizon."""
BOLTZMANN = 1.380649e-23
"""[J/K] exact, SI."""
MOST_TRACES = 1000
MOST_EXAMPLES = 24
TRACES_FOR_SLOPE = 5
N_DRAWS = 200
TELLING = 2.0
"""The simplest law is taken whose AICc is within this of the smallest."""
STATEMENT = (
    "drift exponent nu: G(t) = G0 (t / t0)^-nu, positive when the conductance falls; its std is the spread of the "
    "devices' own exponents, estimation error removed; shift and sigma of relaxation are the mean and the standard "
    "deviation over devices of G(t) less the device's first read, read noise of both and spread of nu included: use "
    "either the exponents' spread or sigma, not both; a device failed when its conductance differs from its first read "
    "by more than the threshold"
)
ONE, S, SECOND = {"units": "1"}, {"units": "S"}, {"units": "s"}


def retention_node(reads: xr.Dataset, warnings: list[str], temperature: float | None = None) -> xr.Dataset | None:
    """Return the node retention from conductance reads with times, or None with a sentence in `warnings`.

    Parameters
    ----------
    reads : node of a Measurement, conductance (trace, sample) [S] and time (trace, sample) [s].
    temperature : [K] of all reads, where the measurement does not state it; replaces what it states.
    """
    traces = traces_of(reads)
    timed = traces.timed
    if not timed.any():
        warnings.append(_why_not(traces))
        return None
    rows = np.flatnonzero(timed)
    part = Traces(traces.g[rows], traces.time[rows], traces.device[rows], traces.origin)
    fits = drift_fits(part)
    if not fits.ok.any():
        reason = str(fits.status[0])
        warnings.append(
            f"retention: not found, because none of {len(rows)} traces can be fitted ({reason}); give at least "
            f"{drift.MINIMUM_TIMES} reads at different times"
        )
        return None
    if len(rows) < len(timed):
        warnings.append(f"retention: {len(timed) - len(rows)} of {len(timed)} traces have no times and were left out")
    broad = relax.relaxation(_positive(part))
    kelvin = _temperatures(reads, temperature)[rows]
    variables = {**_population(part, fits), **_traces(part, fits), **_laws(fits)}
    if broad is not None:
        variables |= _relaxation(broad)
    rng = np.random.default_rng(20240502)
    variables |= _failures(part, fits, broad, rng)
    variables |= _activation(fits, kelvin, warnings)
    variables |= _examples(part, fits)
    node = xr.Dataset(variables, coords=_coordinates(variables, broad))
    node.attrs = {
        "reference_time": fits.reference_time, "time_origin": traces.origin, "statement": STATEMENT,
        "t_first": float(np.nanmin(fits.first[fits.ok])), "t_last": float(np.nanmax(fits.last[fits.ok])),
        "law": _law(node),
        "broadening_law": "" if broad is None else broad.law,
        "shift_law": "" if broad is None else broad.shift_law,
        "method": "least squares of ln G on ln t per trace; mean and spread of the exponents by restricted maximum "
        "likelihood with Hartung-Knapp intervals",
    }  # fmt: skip
    if len(np.unique(kelvin[np.isfinite(kelvin)])) == 1:
        node.attrs["temperature"] = float(kelvin[np.isfinite(kelvin)][0])
    _say_limits(node, part, fits, broad, warnings)
    return node


def _why_not(traces: Traces) -> str:
    if traces.count.max(initial=0) < 2:
        return "retention: not found, because no trace was read more than once; read the same devices again later"
    if not traces.origin:
        return (
            "retention: not found, because the reads have no times; name the column of times (--columns time=...), or "
            "add one to the file"
        )
    return "retention: not found, because the reads of no trace have times that differ; check the column of times"


def _positive(traces: Traces) -> Traces:
    """Return the traces that begin with a positive conductance."""
    keep = traces.g[:, 0] > 0
    return Traces(traces.g[keep], traces.time[keep], traces.device[keep], traces.origin)


def _temperatures(reads: xr.Dataset, temperature: float | None) -> np.ndarray:
    if temperature is not None:
        return np.full(reads.sizes["trace"], float(temperature))
    if "temperature" in reads.coords:
        return reads["temperature"].values.astype(float)
    return np.full(reads.sizes["trace"], np.nan)


def _population(traces: Traces, fits: DriftFits) -> dict[str, tuple]:
    """Return mean, median and spread of the exponents, as a whole, along ln G, and by range of conductance."""
    ok = np.flatnonzero(fits.ok)
    nu, variance, ln_g = fits.exponent[ok], fits.variance[ok], fits.ln_g[ok]
    whole = random_effects(nu, variance)
    found = _exponent("drift_exponent", whole, nu, ())
    found |= {
        "n_traces": ((), len(ok)),
        "n_devices": ((), len(np.unique(traces.device[ok]))),
        "ln_g_reference": ((), float(ln_g.mean()), {**ONE, "long_name": "mean ln(G / S), about which the line turns"}),
        "ln_g_min": ((), float(ln_g.min()), {**ONE, "long_name": "smallest ln(G / S) of a trace"}),
        "ln_g_max": ((), float(ln_g.max()), {**ONE, "long_name": "largest ln(G / S) of a trace"}),
    }
    t = abs(whole.coefficient[0]) / whole.stderr[0]
    found["drift_p_value"] = ((), float(2 * (stats.t.sf(t, whole.df) if whole.df > 0 else stats.norm.sf(t))), {
        **ONE, "long_name": "chance of such a mean exponent without drift"})  # fmt: skip
    slope, stderr, bound = math.nan, math.nan, (math.nan, math.nan)
    if len(ok) >= TRACES_FOR_SLOPE and ln_g.std() > 1e-9:
        line = random_effects(nu, variance, np.stack([np.ones(len(ok)), ln_g - ln_g.mean()], axis=1))
        slope, stderr, bound = float(line.coefficient[1]), float(line.stderr[1]), line.bound(1)
    found["drift_exponent_slope"] = ((), slope, {**ONE, "long_name": "change of nu with ln G"})
    found["drift_exponent_slope_stderr"] = ((), stderr, {**ONE, "long_name": "its standard error"})
    found["drift_exponent_slope_bound"] = ("bound", list(bound), {**ONE, "long_name": "its 95 % interval"})
    n_ranges = int(np.clip(len(ok) // relax.TRACES_PER_RANGE, 1, relax.MOST_RANGES))
    parts = np.array_split(np.argsort(ln_g, kind="stable"), n_ranges)
    effects = [random_effects(nu[p], variance[p]) for p in parts]
    rows = [_exponent("nu", effect, nu[p], ()) for effect, p in zip(effects, parts, strict=True)]
    for key in rows[0]:
        dims = ("nu_range", *((rows[0][key][0],) if rows[0][key][0] else ()))
        name = key.replace("nu_", "range_drift_exponent_", 1)
        found[name] = (dims, np.array([row[key][1] for row in rows]), rows[0][key][2])
    found["range_ln_g"] = ("nu_range", np.array([ln_g[p].mean() for p in parts]), {
        **ONE, "long_name": "mean ln(G / S) of the range"})  # fmt: skip
    found["n_range_traces"] = ("nu_range", np.array([len(p) for p in parts]))
    return found


def _exponent(name: str, effect: RandomEffects, nu: np.ndarray, dims: tuple) -> dict[str, tuple]:
    return {
        f"{name}_mean": (dims, float(effect.coefficient[0]), {**ONE, "long_name": "mean drift exponent"}),
        f"{name}_mean_stderr": (dims, float(effect.stderr[0]), {**ONE, "long_name": "its standard error"}),
        f"{name}_mean_bound": ("bound", list(effect.bound()), {**ONE, "long_name": "its 95 % interval"}),
        f"{name}_median": (dims, float(np.median(nu)), {**ONE, "long_name": "median drift exponent"}),
        f"{name}_median_bound": ("bound", list(quantile_interval(nu, 0.5)), {
            **ONE, "long_name": "its 95 % interval (order statistics)"}),
        f"{name}_std": (dims, effect.std, {**ONE, "long_name": "spread of the devices' drift exponents"}),
        f"{name}_std_bound": ("bound", list(effect.std_bound), {**ONE, "long_name": "its 95 % interval"}),
    }  # fmt: skip


def _traces(traces: Traces, fits: DriftFits) -> dict[str, tuple]:
    """Return the fits of single traces, evenly thinned where there are many."""
    shown = np.unique(np.linspace(0, len(traces.g) - 1, min(len(traces.g), MOST_TRACES)).astype(int))
    best = np.array([drift.LAWS[int(np.argmin(row))] if ok else "" for row, ok in zip(
        fits.aicc[shown], fits.ok[shown], strict=True)])  # fmt: skip
    return {
        "trace_device": ("trace", traces.device[shown].astype(str)),
        "trace_conductance": ("trace", np.exp(fits.ln_g[shown]), {
            **S, "long_name": "conductance at the reference time"}),
        "trace_drift_exponent": ("trace", fits.exponent[shown], {**ONE, "long_name": "drift exponent"}),
        "trace_drift_exponent_stderr": ("trace", np.sqrt(fits.variance[shown]), {
            **ONE, "long_name": "its standard error"}),
        "trace_residual": ("trace", fits.residual[shown], {**ONE, "long_name": "std of ln G about the power law"}),
        "n_trace_times": ("trace", fits.n_times[shown]),
        "trace_law": ("trace", best.astype(str)),
        "trace_status": ("trace", fits.status[shown].astype(str)),
    }  # fmt: skip


def _laws(fits: DriftFits) -> dict[str, tuple]:
    """Return how often each law has the smallest AICc, and each law's sum, over traces with enough times for two."""
    enough = fits.ok & np.isfinite(fits.aicc[:, drift.LAWS.index("power")])
    aicc = fits.aicc[enough]
    best = np.bincount(np.argmin(aicc, axis=1), minlength=len(drift.LAWS)) if len(aicc) else np.zeros(len(drift.LAWS))
    possible = np.isfinite(aicc).all(axis=0) & (len(aicc) > 0)
    total = np.where(possible, np.where(np.isfinite(aicc), aicc, 0.0).sum(axis=0), np.inf)
    least = float(total.min()) if possible.any() else 0.0
    return {
        "n_law_best": ("law", best.astype(np.int64)),
        "n_law_traces": ((), int(enough.sum())),
        "law_aicc": ("law", total - least, {
            **ONE, "long_name": "AICc less the smallest, summed over traces (inf: too few times on some traces)"}),
    }  # fmt: skip


def _law(node: xr.Dataset) -> str:
    """Return the simplest law that the traces support; '' where their times are too few to choose.

    Where no single trace shows a drift but the mean exponent differs from zero (at 1 %), the law is the power law.
    """
    if not int(node["n_law_traces"]):
        return ""
    law = drift.LAWS[int(np.argmax(node["law_aicc"].values <= TELLING))]
    return "power" if law == "constant" and float(node["drift_p_value"]) < 0.01 else law


def _relaxation(broad: relax.Relaxation) -> dict[str, tuple]:
    table = ("range", "time")
    return {
        "range_low": ("range", broad.edges[:, 0], {**S, "long_name": "lower end of the range of first reads"}),
        "range_high": ("range", broad.edges[:, 1], {**S, "long_name": "upper end of the range of first reads"}),
        "range_conductance": ("range", broad.centre, {**S, "long_name": "median first read"}),
        "n_relaxation": (table, broad.n),
        "shift_mean": (table, broad.mean, {**S, "long_name": "mean change since the first read"}),
        "shift_mean_stderr": (table, broad.mean_stderr, {**S, "long_name": "its standard error"}),
        "sigma": (table, broad.std, {**S, "long_name": "standard deviation of the change since the first read"}),
        "sigma_stderr": (table, broad.std_stderr, {**S, "long_name": "its standard error"}),
        "shift_quantile": ((*table, "quantile"), broad.quantile, {**S, "long_name": "quantile of the change"}),
        "broadening": (("range", "coefficient"), broad.broadening, {
            "units": "mixed", "long_name": relax.MEANINGS.get(broad.law, "not known")}),
        "broadening_covariance": (("range", "coefficient", "coefficient_other"), broad.broadening_covariance, {
            "units": "mixed", "long_name": "covariance of its coefficients"}),
        "broadening_misfit": ("range", broad.misfit, {**ONE, "long_name": "chi^2 per degree of freedom"}),
        "broadening_aic": ("broadening_name", broad.criterion, {**ONE, "long_name": "AIC over all ranges"}),
        "shift_law": (("range", "coefficient"), broad.shift, {
            "units": "mixed", "long_name": relax.SHIFTS.get(broad.shift_law, "not known")}),
        "shift_law_covariance": (("range", "coefficient", "coefficient_other"), broad.shift_covariance, {
            "units": "mixed", "long_name": "covariance of its coefficients"}),
    }  # fmt: skip


def _failures(
    traces: Traces, fits: DriftFits, broad: relax.Relaxation | None, rng: np.random.Generator
) -> dict[str, tuple]:
    """Return the fraction of devices outside +-x at the horizons, as measured, or as the laws say."""
    shape = (len(HORIZONS), len(THRESHOLDS))
    fraction, bound = np.full(shape, np.nan), np.full((*shape, 2), np.nan)
    number, basis = np.zeros(len(HORIZONS), dtype=np.int64), np.full(len(HORIZONS), "not known", dtype="<U80")
    positive = _positive(traces)
    last = float(np.nanmax(fits.last))
    by_population = broad if broad is not None and broad.law and broad.shift_law else None
    for row, horizon in enumerate(HORIZONS):
        change = _measured_change(positive, horizon)
        if len(change) >= max(relax.FEWEST, 0.05 * len(positive.g)) or 0 < len(change) == len(positive.g):
            basis[row] = "measured"
        elif by_population is None:
            change = _extrapolated_change(fits, horizon)
            basis[row] = "each trace's power law" + (f", extrapolated {horizon / last:.2g} times beyond the last read"
                                                     if horizon > last else "")  # fmt: skip
        else:
            basis[row] = "law of relaxation" + (f", extrapolated {horizon / last:.2g} times beyond the last read"
                                                if horizon > last else ", between measured times")  # fmt: skip
            fraction[row], bound[row] = _by_law(by_population, horizon, rng)
            number[row] = int(by_population.n.max(axis=1).sum())
            continue
        number[row] = len(change)
        for column, threshold in enumerate(THRESHOLDS):
            outside = int((np.abs(change) > threshold).sum())
            fraction[row, column] = outside / len(change)
            bound[row, column] = binomial_interval(outside, len(change))
    time = np.array([_failure_time(fits, threshold) for threshold in THRESHOLDS])
    return {
        "outside": (("horizon", "threshold"), fraction, {**ONE, "long_name": "fraction of devices that failed"}),
        "outside_bound": (("horizon", "threshold", "bound"), bound, {**ONE, "long_name": "its 95 % interval"}),
        "n_outside_traces": ("horizon", number),
        "outside_basis": ("horizon", basis.astype(str)),
        "failure_time": ("threshold", time[:, 0], {
            **SECOND, "long_name": "median time to failure by each trace's power law (inf: it never fails)"}),
        "failure_time_bound": (("threshold", "bound"), time[:, 1:], {**SECOND, "long_name": "its 95 % interval"}),
    }  # fmt: skip


def _measured_change(traces: Traces, horizon: float) -> np.ndarray:
    """Return the relative change since the first read of the traces that were read near a time."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(np.log(np.where(traces.time > 0, traces.time, np.nan) / horizon))
    distance = np.where(np.isfinite(distance), distance, np.inf)
    nearest = np.argmin(distance, axis=1)
    rows = np.flatnonzero(distance[np.arange(len(nearest)), nearest] <= math.log(NEAR))
    return traces.g[rows, nearest[rows]] / traces.g[rows, 0] - 1


def _extrapolated_change(fits: DriftFits, horizon: float) -> np.ndarray:
    nu, first = fits.exponent[fits.ok], fits.first[fits.ok]
    return np.expm1(-nu * np.log(horizon / first))


def _by_law(broad: relax.Relaxation, horizon: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the fraction outside each threshold by the laws of shift and broadening, with intervals."""
    centre = broad.outside(horizon, THRESHOLDS, broad.broadening, broad.shift)
    shifts = _normal(rng, broad.shift, broad.shift_covariance)
    widths = _normal(rng, broad.broadening, broad.broadening_covariance)
    n = len(broad.first)
    drawn = np.array([
        rng.binomial(n, broad.outside(horizon, THRESHOLDS, width, shift)) / n
        for width, shift in zip(widths, shifts, strict=True)
    ])  # fmt: skip
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return centre, np.stack([np.minimum(low, centre), np.maximum(high, centre)], axis=1)


def _normal(rng: np.random.Generator, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return (draw, range, 2) normal draws of each range's coefficients."""
    values, vectors = np.linalg.eigh(np.nan_to_num(covariance))
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    return mean + np.einsum("rij,drj->dri", root, rng.standard_normal((N_DRAWS, *mean.shape)))


def _failure_time(fits: DriftFits, threshold: float) -> tuple[float, float, float]:
    """Return the median over traces of t_first |1 +- x|^(-1/nu), the end of the power law's stay within +-x."""
    nu, first = fits.exponent[fits.ok], fits.first[fits.ok]
    with np.errstate(divide="ignore", over="ignore"):
        logs = np.where(nu > 0, -math.log1p(-threshold) / nu, -math.log1p(threshold) / nu) + np.log(first)
    logs = np.where(logs < 700, logs, np.inf)
    low, high = quantile_interval(np.where(np.isfinite(logs), logs, 1e9), 0.5)
    middle = float(np.median(np.where(np.isfinite(logs), logs, 1e9)))
    low, middle, high = (math.inf if x > 700 else math.exp(x) for x in (low, middle, high))
    return middle, low, high


def _activation(fits: DriftFits, kelvin: np.ndarray, warnings: list[str]) -> dict[str, tuple]:
    """Return the activation energy of the drift exponent, |nu| = nu_inf exp(-E / (k_B T)), over the temperatures."""
    known = fits.ok & np.isfinite(kelvin)
    levels = [t for t in np.unique(kelvin[known]) if (known & (kelvin == t)).sum() >= 2]
    if len(levels) < 2:
        return {}
    effects = [random_effects(fits.exponent[p], fits.variance[p]) for p in (known & (kelvin == t) for t in levels)]
    mean = np.array([effect.coefficient[0] for effect in effects])
    stderr = np.array([effect.stderr[0] for effect in effects])
    found: dict[str, tuple] = {
        "temperature": ("temperature_point", np.array(levels), {"units": "K", "long_name": "temperature"}),
        "temperature_drift_exponent": ("temperature_point", mean, {**ONE, "long_name": "mean drift exponent"}),
        "temperature_drift_exponent_stderr": ("temperature_point", stderr, {**ONE, "long_name": "its standard error"}),
        "n_temperature_traces": ("temperature_point", np.array([effect.n for effect in effects])),
    }
    if (np.sign(mean) != np.sign(mean[0])).any() or (np.abs(mean) < 2 * stderr).any():
        warnings.append(
            "retention: no activation energy, because the mean drift exponent is not clearly of one sign at all of "
            f"{len(levels)} temperatures"
        )
        return found
    x, w = 1 / (BOLTZMANN * np.array(levels)), np.square(mean / stderr)
    scale = 1 / x.mean()
    design = np.stack([np.ones(len(x)), -(x - x.mean()) * scale], axis=1)
    covariance = np.linalg.inv(design.T @ (w[:, None] * design))
    b = covariance @ design.T @ (w * np.log(np.abs(mean)))
    if len(levels) > 2:
        scatter = float((w * (np.log(np.abs(mean)) - design @ b) ** 2).sum()) / (len(levels) - 2)
        covariance = covariance * max(scatter, 1.0)
    found["activation_energy"] = ((), float(b[1] * scale), {
        "units": "J", "long_name": "activation energy of the drift exponent"})  # fmt: skip
    found["activation_energy_stderr"] = ((), float(np.sqrt(covariance[1, 1]) * scale), {
        "units": "J", "long_name": "its standard error"})  # fmt: skip
    return found


def _examples(traces: Traces, fits: DriftFits) -> dict[str, tuple]:
    """Return some traces in bins of log time, relative to the power law's conductance at the reference time."""
    ok = np.flatnonzero(fits.ok)
    shown = ok[np.unique(np.linspace(0, len(ok) - 1, min(len(ok), MOST_EXAMPLES)).astype(int))]
    parts = [log_binned(traces.time[row], traces.g[row] / np.exp(fits.ln_g[row])) for row in shown]
    width = max(len(t) for t, _ in parts)
    time, ratio = np.full((len(parts), width), np.nan), np.full((len(parts), width), np.nan)
    for row, (t, r) in enumerate(parts):
        time[row, : len(t)], ratio[row, : len(t)] = t, r
    return {
        "example_time": (("example", "point"), time, {**SECOND, "long_name": "time"}),
        "example_ratio": (("example", "point"), ratio, {**ONE, "long_name": "G / G at the reference time"}),
    }


def _coordinates(variables: dict[str, tuple], broad: relax.Relaxation | None) -> dict[str, object]:
    coordinates: dict[str, object] = {
        "bound": ["low", "high"],
        "law": list(drift.LAWS),
        "horizon": ("horizon", np.array(HORIZONS), {**SECOND, "long_name": "time"}),
        "threshold": ("threshold", np.array(THRESHOLDS), {**ONE, "long_name": "relative change"}),
    }
    if broad is not None:
        coordinates |= {
            "time": ("time", broad.time, {**SECOND, "long_name": "time"}),
            "quantile": ("quantile", np.array(relax.QUANTILES), {**ONE, "long_name": "quantile"}),
            "broadening_name": list(relax.BROADENING),
        }
    return coordinates


def _say_limits(
    node: xr.Dataset, traces: Traces, fits: DriftFits, broad: relax.Relaxation | None, warnings: list[str]
) -> None:
    left = int((~fits.ok).sum())
    if left:
        reasons = sorted({str(s) for s in fits.status[~fits.ok]})
        warnings.append(f"retention: {left} of {len(fits.ok)} traces have no drift exponent ({'; '.join(reasons)})")
    if node.attrs["time_origin"] == "the first read of each trace":
        warnings.append(
            "retention: the file gives clock times, so time counts from each trace's first read; the time since "
            "programming is not known, and early drift may be missed"
        )
    law = str(node.attrs["law"])
    if not law:
        warnings.append(
            "retention: no law of drift was chosen, because every trace has fewer than five times after 0 s"
        )
    elif law == "power" and int(node["n_law_best"].sel(law="constant")) > 0.5 * int(node["n_law_traces"]):
        warnings.append(
            f"retention: a constant describes {int(node['n_law_best'].sel(law='constant'))} of "
            f"{int(node['n_law_traces'])} traces as well as a drift law (few times or much noise); "
            + (
                "the drift of single devices is uncertain, the mean over devices is not"
                if float(node["drift_p_value"]) < 0.01
                else "no drift is established"
            )
        )
    elif law not in ("power", "constant"):
        gain = float(node["law_aicc"].sel(law="power"))
        warnings.append(
            f"retention: the law {law} ({drift.MEANINGS[law]}) describes the traces better than the power law (AICc "
            f"lower by {gain:.3g}, best for {int(node['n_law_best'].sel(law=law))} of {int(node['n_law_traces'])} "
            "traces); an extrapolation by the power law is not supported"
        )
    if 1 < int(node["n_devices"]) < int(node["n_traces"]):
        warnings.append(
            f"retention: {int(node['n_traces'])} traces of {int(node['n_devices'])} devices were taken as independent"
        )
    if int(node["n_devices"]) == 1:
        warnings.append("retention: one device was read, so nothing is known of the spread between devices")
    if broad is not None and broad.n.shape[1] > 1:
        n = broad.n.sum(axis=0)
        if n[-1] < 0.7 * n.max():
            warnings.append(
                f"retention: {n[-1]} of {n.max()} traces were read at the last time ({broad.time[-1]:.3g} s); if they "
                "were not chosen at random, the shift and the spread at that time are not those of all"
            )
        if np.nanmedian(broad.misfit) > 4:
            warnings.append(
                f"retention: the law of broadening misses the measured spreads by more than their errors (chi^2 of "
                f"{float(np.nanmedian(broad.misfit)):.2g} per degree of freedom, median over ranges); sigma holds the "
                "measured values"
            )
