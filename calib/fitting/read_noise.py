"""Read noise: its relative level against conductance, two-level telegraph noise, slope of its spectrum."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from calib.fitting.intervals import binomial_interval
from calib.fitting.random_effects import RandomEffects, random_effects
from calib.fitting.spectrum import MINIMUM_READS as READS_FOR_SPECTRUM
from calib.fitting.spectrum import Spectrum, spectrum
from calib.fitting.telegraph import FALSE_ALARM, Telegraph, resolution_of, telegraph
from calib.fitting.telegraph import MINIMUM_READS as READS_FOR_TELEGRAPH
from calib.fitting.traces import correlation_reads, drift_removed, sampling_interval, traces_of

MINIMUM_READS = 10
"""Reads of a trace from which its noise is told from its drift."""
UNEVEN = 20.0
"""Reads whose longest interval is this many times the median one follow the drift rather than the noise."""
MOST_NOISE = 5000
MOST_TELEGRAPH = 300
"""Traces that are searched for telegraph noise; more are thinned evenly, and this is said."""
MOST_SPECTRA = 12
TRACES_FOR_SLOPE = 4
PIECE = 600
STATEMENT = (
    "relative noise: standard deviation of the reads of a trace about its drift (a constant, a logarithm and a line in "
    "the read's number, fitted by least squares), over the mean; successive noise: that of the difference of two "
    "successive reads over sqrt 2, over the mean, which leaves slow fluctuations out; sigma_G / G = "
    "exp(ln_noise) (G / G_ref)^exponent, geometric mean over traces; its spread is that of ln(sigma_G / G) between "
    "traces, estimation error removed; telegraph noise: probability that a trace of the stated length shows two "
    "levels, amplitude = distance of the levels over the mean conductance, dwell ratio = mean dwell in the high state "
    "over that in the low one"
)
ONE, S, SECOND = {"units": "1"}, {"units": "S"}, {"units": "s"}


@dataclass(frozen=True)
class _Noise:
    """Noise of the traces that were long enough."""

    row: np.ndarray  # index of the trace in the reads
    device: np.ndarray
    mean: np.ndarray
    relative: np.ndarray  # standard deviation over mean
    successive: np.ndarray
    n_reads: np.ndarray
    n_effective: np.ndarray
    interval: np.ndarray  # [s], NaN where not known or uneven
    resolution: np.ndarray  # the instrument's step [S], 0 where it is finer than the noise
    residual: list[np.ndarray]


def read_noise_node(
    reads: xr.Dataset, warnings: list[str], generator: np.random.Generator | None = None
) -> xr.Dataset | None:
    """Return the node read_noise from repeated conductance reads, or None with a sentence in `warnings`.

    The power law of the relative noise is a regression of ln(sigma_G / G) on ln G by restricted maximum likelihood;
    each trace's error is 1 / sqrt(2 (n_eff - 1)), n_eff being its number of independent reads, its correlation counted.

    Parameters
    ----------
    reads : node of a Measurement, conductance (trace, sample) [S].
    generator : for the surrogates of the test of telegraph noise; the same numbers each time by default.
    """
    rng = np.random.default_rng(20240503) if generator is None else generator
    noise = _noise(reads, warnings)
    if noise is None:
        return None
    variables = {**_law("noise", noise.relative, noise), **_law("successive", noise.successive, noise)}
    variables |= {
        "n_traces": ((), len(noise.row)),
        "n_devices": ((), len(np.unique(noise.device))),
        "ln_g_min": ((), float(np.log(noise.mean.min())), {**ONE, "long_name": "smallest ln(G / S) of a trace"}),
        "ln_g_max": ((), float(np.log(noise.mean.max())), {**ONE, "long_name": "largest ln(G / S) of a trace"}),
        **_per_trace(noise),
    }
    known = noise.interval[np.isfinite(noise.interval)]
    attrs: dict[str, object] = {
        "reference_conductance": float(np.exp(np.log(noise.mean).mean())), "statement": STATEMENT,
        "method": "restricted maximum likelihood of ln(sigma_G / G) on ln G, errors from independent reads",
        "n_reads_median": int(np.median(noise.n_reads)), "false_alarm": FALSE_ALARM,
        "frequency_unit": "Hz" if len(known) == len(noise.interval) else "1/read",
    }  # fmt: skip
    if len(known):
        attrs["interval"] = float(np.median(known))
    variables |= _spectra(noise, warnings)
    variables |= _telegraph(noise, rng, warnings)
    node = xr.Dataset(variables, coords={"bound": ["low", "high"]}, attrs=attrs)
    if len(noise.row) == 1:
        warnings.append("read noise: one trace was read, so its dependence on conductance and its spread are not known")
    elif int(node["n_devices"]) == 1:
        warnings.append("read noise: one device was read, so its spread is that between levels, not between devices")
    return node


def _noise(reads: xr.Dataset, warnings: list[str]) -> _Noise | None:
    traces = traces_of(reads)
    enough = traces.count >= MINIMUM_READS
    if not enough.any():
        warnings.append(
            f"read noise: not found, because traces have at most {int(traces.count.max(initial=0))} reads and at least "
            f"{MINIMUM_READS} are needed; read a device repeatedly without programming it"
        )
        return None
    rows = np.flatnonzero(enough)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_NOISE)).astype(int))]
    kept, values = [], []
    left = {"a mean that is not positive": 0, "reads that do not differ": 0, "reads spread over decades of time": 0,
            "noise under the instrument's resolution": 0}  # fmt: skip
    for row in rows:
        g = traces.g[row][np.isfinite(traces.g[row])]
        steps = np.diff(traces.time[row][np.isfinite(traces.time[row])])
        residual, mean = drift_removed(g)
        std = float(np.sqrt(residual @ residual / (len(g) - 3)))
        if mean <= 0:
            left["a mean that is not positive"] += 1
        elif not std > 1e-12 * mean:
            left["reads that do not differ"] += 1
        elif len(steps) and steps.max() > UNEVEN * max(float(np.median(steps)), 1e-300):
            left["reads spread over decades of time"] += 1
        elif std < resolution_of(g):
            left["noise under the instrument's resolution"] += 1
        else:
            successive = float(np.sqrt(np.mean(np.square(np.diff(g))) / 2))
            independent = max((len(g) - 3) / correlation_reads(residual), 2.0)
            interval = sampling_interval(traces.time[row]) if np.isfinite(traces.time[row]).any() else math.nan
            kept.append(row)
            values.append(
                (mean, std / mean, successive / mean, len(g), independent, interval, resolution_of(g), residual)
            )
    told = ", ".join(f"{count} with {reason}" for reason, count in left.items() if count)
    if not kept:
        warnings.append(f"read noise: not found, because none of {len(rows)} traces can be used ({told})")
        return None
    if told:
        warnings.append(f"read noise: of {len(rows)} traces were left out {told}")
    columns = list(zip(*values, strict=True))
    arrays = [np.array(column, dtype=float) for column in columns[:7]]
    return _Noise(np.array(kept), traces.device[kept], *arrays, residual=list(columns[7]))


def _law(name: str, relative: np.ndarray, noise: _Noise) -> dict[str, tuple]:
    """Return level, exponent and spread of a power law of the relative noise against conductance."""
    x = np.log(noise.mean) - np.log(noise.mean).mean()
    use = relative > 0
    # ln of a standard deviation: for 8 and more independent reads close to normal with variance 1 / (2 (n - 1))
    variance = 1 / (2 * np.maximum(noise.n_effective - 1, 1.0))
    if name == "successive":
        variance = 1.5 / (2 * np.maximum(noise.n_reads - 1, 1.0))
    y, v, x = np.log(relative[use]), variance[use], x[use]
    sloped = len(y) >= TRACES_FOR_SLOPE and np.ptp(x) > 1e-6
    design = np.stack([np.ones(len(y)), x], axis=1) if sloped else np.ones((len(y), 1))
    fit: RandomEffects = random_effects(y, v, design)
    slope, stderr, ends = math.nan, math.nan, (math.nan, math.nan)
    if sloped:
        slope, stderr, ends = float(fit.coefficient[1]), float(fit.stderr[1]), fit.bound(1)
    words = {"noise": "relative noise", "successive": "relative noise from one read to the next"}[name]
    return {
        f"ln_{name}": ((), float(fit.coefficient[0]), {**ONE, "long_name": f"ln of the {words} at G_ref"}),
        f"ln_{name}_stderr": ((), float(fit.stderr[0]), {**ONE, "long_name": "its standard error"}),
        f"ln_{name}_bound": ("bound", list(fit.bound()), {**ONE, "long_name": "its 95 % interval"}),
        f"{name}_exponent": ((), slope, {**ONE, "long_name": f"exponent of the {words} against G"}),
        f"{name}_exponent_stderr": ((), stderr, {**ONE, "long_name": "its standard error"}),
        f"{name}_exponent_bound": ("bound", list(ends), {**ONE, "long_name": "its 95 % interval"}),
        f"{name}_spread": ((), fit.std, {**ONE, "long_name": f"spread of ln of the {words} between traces"}),
        f"{name}_spread_bound": ("bound", list(fit.std_bound), {**ONE, "long_name": "its 95 % interval"}),
    }


def _per_trace(noise: _Noise) -> dict[str, tuple]:
    shown = np.unique(np.linspace(0, len(noise.row) - 1, min(len(noise.row), 1000)).astype(int))
    stderr = noise.relative / np.sqrt(2 * np.maximum(noise.n_effective - 1, 1.0))
    return {
        "trace_device": ("trace", noise.device[shown].astype(str)),
        "trace_conductance": ("trace", noise.mean[shown], {**S, "long_name": "mean conductance"}),
        "trace_noise": ("trace", noise.relative[shown], {**ONE, "long_name": "relative noise"}),
        "trace_noise_stderr": ("trace", stderr[shown], {**ONE, "long_name": "its standard error"}),
        "trace_successive": ("trace", noise.successive[shown], {
            **ONE, "long_name": "relative noise from one read to the next"}),
        "n_trace_reads": ("trace", noise.n_reads[shown].astype(np.int64)),
        "n_trace_effective": ("trace", noise.n_effective[shown]),
    }  # fmt: skip


def _spectra(noise: _Noise, warnings: list[str]) -> dict[str, tuple]:
    """Return the slope of the spectrum of each trace that is even and long enough, and over traces."""
    unknown = ~np.isfinite(noise.interval)
    all_unknown = bool(unknown.all())
    long = noise.n_reads >= READS_FOR_SPECTRUM
    able = np.flatnonzero(long & (all_unknown | ~unknown))
    able = able[np.unique(np.linspace(0, len(able) - 1, min(len(able), MOST_TELEGRAPH)).astype(int))] if len(
        able) else able  # fmt: skip
    found: list[tuple[int, Spectrum]] = []
    for k in able:
        relative = noise.residual[k] / noise.mean[k]
        part = spectrum(relative, 1.0 if all_unknown else float(noise.interval[k]))
        if part is not None:
            found.append((int(k), part))
    if not found:
        why = (
            f"at least {READS_FOR_SPECTRUM} reads are needed and the longest trace has {int(noise.n_reads.max())}"
            if not long.any()
            else "the reads are not evenly spaced in time"
        )
        warnings.append(f"noise spectrum: not found, because {why}")
        return {}
    if all_unknown:
        warnings.append(
            "noise spectrum: the reads have no even times; its slope takes them as evenly spaced, and frequencies are "
            "per read"
        )
    rough = sum(part.misfit > 4 for _, part in found)
    if rough:
        warnings.append(
            f"noise spectrum: {rough} of {len(found)} spectra have peaks or bends that A / f^alpha and white noise do "
            "not describe (interference, or single traps)"
        )
    return _spectra_found(noise, found, all_unknown)


def _spectra_found(noise: _Noise, found: list[tuple[int, Spectrum]], all_unknown: bool) -> dict[str, tuple]:
    alpha = np.array([part.alpha for _, part in found])
    variance = np.array([part.alpha_stderr**2 for _, part in found])
    effect = random_effects(alpha, variance)
    shown = found[:: max(1, -(-len(found) // MOST_SPECTRA))]
    width = max(len(part.frequency) for _, part in shown)
    frequency, density = np.full((len(shown), width), np.nan), np.full((len(shown), width), np.nan)
    for row, (_, part) in enumerate(shown):
        frequency[row, : len(part.frequency)], density[row, : len(part.frequency)] = part.frequency, part.density
    unit = "1" if all_unknown else "Hz"
    low, high = (f(part.frequency[end] for _, part in found) for f, end in ((min, 0), (max, -1)))
    laws = np.array([[p.level, p.alpha, p.white] for _, p in shown])
    return {
        "spectral_exponent": ((), float(effect.coefficient[0]), {**ONE, "long_name": "alpha of S(f) ~ 1 / f^alpha"}),
        "spectral_exponent_stderr": ((), float(effect.stderr[0]), {**ONE, "long_name": "its standard error"}),
        "spectral_exponent_bound": ("bound", list(effect.bound()), {**ONE, "long_name": "its 95 % interval"}),
        "spectral_exponent_spread": ((), effect.std, {**ONE, "long_name": "spread of alpha between traces"}),
        "spectral_exponent_spread_bound": ("bound", list(effect.std_bound), {
            **ONE, "long_name": "its 95 % interval"}),
        "n_spectra": ((), len(found)),
        "frequency_low": ((), float(low), {"units": unit, "long_name": "lowest frequency of the fits"}),
        "frequency_high": ((), float(high), {"units": unit, "long_name": "highest frequency of the fits"}),
        "spectrum_alpha": ("spectrum", alpha[:: max(1, -(-len(found) // MOST_SPECTRA))], {
            **ONE, "long_name": "alpha of the trace"}),
        "spectrum_misfit": ("spectrum", np.array([p.misfit for _, p in shown]), {
            **ONE, "long_name": "chi^2 per degree of freedom"}),
        "spectrum_conductance": ("spectrum", noise.mean[[k for k, _ in shown]], {
            **S, "long_name": "mean conductance"}),
        "spectrum_frequency": (("spectrum", "frequency_bin"), frequency, {"units": unit, "long_name": "frequency"}),
        "spectrum_density": (("spectrum", "frequency_bin"), density, {
            "units": "1" if all_unknown else "1/Hz", "long_name": "spectral density of G over its mean"}),
        "spectrum_law": (("spectrum", "law_term"), laws, {
            "units": "mixed", "long_name": "level at the lowest frequency, alpha, white level"}),
    }  # fmt: skip


def _telegraph(noise: _Noise, rng: np.random.Generator, warnings: list[str]) -> dict[str, tuple]:
    """Return how many devices show telegraph noise, its amplitudes and its dwell times."""
    able = np.flatnonzero(noise.n_reads >= READS_FOR_TELEGRAPH)
    if not len(able):
        warnings.append(
            f"telegraph noise: not found, because at least {READS_FOR_TELEGRAPH} reads of a trace are needed and the "
            f"longest has {int(noise.n_reads.max())}"
        )
        return {}
    searched = able[np.unique(np.linspace(0, len(able) - 1, min(len(able), MOST_TELEGRAPH)).astype(int))]
    if len(searched) < len(able):
        warnings.append(f"telegraph noise: {len(searched)} of {len(able)} traces, evenly taken, were searched")
    results = telegraph([noise.residual[k] for k in searched], rng, noise.resolution[searched])
    shown = [(int(k), result) for k, result in zip(searched, results, strict=True) if result.found]
    devices = noise.device[searched]
    per_device = len(np.unique(devices)) == len(searched)
    count = len(shown)
    low, high = binomial_interval(count, len(searched))
    what = "device" if per_device else "trace"
    known = noise.interval[[k for k, _ in shown]] if shown else np.zeros(0)
    seconds = bool(len(known)) and bool(np.isfinite(known).all())
    scale = known if seconds else np.ones(count)
    amplitude = np.array([result.amplitude / noise.mean[k] for k, result in shown])
    dwell = np.array([result.dwell * s for (_, result), s in zip(shown, scale, strict=True)]).reshape(-1, 2)
    bound = np.array([result.dwell_bound * s for (_, result), s in zip(shown, scale, strict=True)]).reshape(-1, 2, 2)
    p_value = np.array([result.p_value for result in results])
    unit = {"units": "s"} if seconds else {"units": "1"}
    word = "mean dwell time" if seconds else "mean dwell in reads"
    nearly = sum(result.p_value <= FALSE_ALARM and not result.found for result in results)
    if nearly:
        example = next(r.status for r in results if r.p_value <= FALSE_ALARM and not r.found)
        warnings.append(
            f"telegraph noise: {nearly} more of {len(searched)} traces are not Gaussian, but are not two-levelled "
            f"(first: {example})"
        )
    return {
        "telegraph_probability": ((), count / len(searched), {
            **ONE, "long_name": f"share of {what}s that show telegraph noise"}),
        "telegraph_probability_bound": ("bound", [low, high], {**ONE, "long_name": "its exact binomial 95 % interval"}),
        "n_telegraph": ((), count),
        "n_telegraph_traces": ((), len(searched)),
        "telegraph_p_value": ("searched", p_value, {
            **ONE, "long_name": "share of Gaussian surrogates that look as two-levelled"}),
        "telegraph_amplitude": ("telegraph", amplitude, {**ONE, "long_name": "distance of the levels over mean G"}),
        "telegraph_conductance": ("telegraph", noise.mean[[k for k, _ in shown]], {**S, "long_name": "mean G"}),
        "telegraph_device": ("telegraph", np.array([noise.device[k] for k, _ in shown], dtype=str)),
        "telegraph_noise": ("telegraph", np.array([r.noise / noise.mean[k] for k, r in shown]), {
            **ONE, "long_name": "relative noise about the levels"}),
        "telegraph_dwell": (("telegraph", "telegraph_state"), dwell, {**unit, "long_name": word}),
        "telegraph_dwell_bound": (("telegraph", "telegraph_state", "bound"), bound, {
            **unit, "long_name": "its 95 % interval"}),
        "n_telegraph_dwells": (("telegraph", "telegraph_state"), np.array(
            [r.n_dwells for _, r in shown], dtype=np.int64).reshape(-1, 2)),
        **_distribution("telegraph_ln_amplitude", np.log(amplitude), "ln of the relative amplitude"),
        **_distribution("telegraph_ln_dwell_ratio", np.log(dwell[:, 1] / dwell[:, 0]),
                        "ln of the dwell in the high state over that in the low one"),
        **_piece(noise, shown),
    }  # fmt: skip


def _distribution(name: str, values: np.ndarray, words: str) -> dict[str, tuple]:
    """Return mean and standard deviation of some values with their errors (chi^2 and t for small samples)."""
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    std = float(values.std(ddof=1)) if n > 1 else math.nan
    return {
        f"{name}_mean": ((), mean, {**ONE, "long_name": f"mean of {words}"}),
        f"{name}_mean_stderr": ((), std / math.sqrt(n) if n > 1 else math.nan, {
            **ONE, "long_name": "its standard error"}),
        f"{name}_std": ((), std, {**ONE, "long_name": f"standard deviation of {words}"}),
        f"{name}_std_stderr": ((), std / math.sqrt(2 * (n - 1)) if n > 1 else math.nan, {
            **ONE, "long_name": "its standard error"}),
    }  # fmt: skip


def _piece(noise: _Noise, shown: list[tuple[int, Telegraph]]) -> dict[str, tuple]:
    """Return a piece of the clearest telegraph trace, for a figure."""
    if not shown:
        return {}
    k, result = max(shown, key=lambda item: item[1].amplitude / item[1].noise)
    high = result.state > 0.5
    jumps = np.flatnonzero(np.diff(high.astype(np.int8)))
    middle = int(np.median(jumps))
    start = int(np.clip(middle - PIECE // 2, 0, max(len(high) - PIECE, 0)))
    window = slice(start, start + PIECE)
    step = noise.interval[k] if np.isfinite(noise.interval[k]) else 1.0
    level = np.where(high, 1.0, 0.0) * result.amplitude
    residual = noise.residual[k]
    level = (level - level.mean() + residual.mean()) / noise.mean[k]
    return {
        "piece_time": ("piece", (np.arange(len(high)) * step)[window], {
            "units": "s" if np.isfinite(noise.interval[k]) else "1", "long_name": "time or read"}),
        "piece_relative": ("piece", (residual / noise.mean[k])[window], {**ONE, "long_name": "change of G over mean"}),
        "piece_level": ("piece", level[window], {**ONE, "long_name": "level of the hidden chain"}),
    }  # fmt: skip
