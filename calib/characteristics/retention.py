"""Retention: drift of single devices, relaxation of the population, failures, temperature."""

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from calib.characteristics._axes import quantity_axis
from calib.characteristics.base import Estimate, Section, bounds, scalar, with_error
from calib.formatting import UNKNOWN, format_estimate, format_interval, format_percent, format_quantity, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

name = "retention"
node = "retention"
_CAPTIONS = {
    "drift": "Conductance of some traces against time, relative to their power law's value at the reference time "
    "(thin), the power law of the mean drift exponent (black), and the band of 90 % of the devices' own power laws.",
    "drift-exponent": "Drift exponent of each trace against its conductance, with standard errors where traces are "
    "few; the line of the mean and the band of 90 % of devices, estimation error removed.",
    "relaxation": "Mean and standard deviation over devices of the change of conductance since the first read, by "
    "range of that read; lines: the laws of broadening and of the mean shift.",
}
ELECTRONVOLT = 1.602176634e-19
"""[J] exact, SI."""
YEAR = 3.15576e7
"""[s] Julian year."""
DISTANT = 1e10
"""[s] A failure time beyond this (three centuries) is not printed as a number."""


def sections(part: xr.Dataset, tree: xr.DataTree) -> list[Section]:
    """Return the drift exponents, the laws compared, the relaxation, the failures, and the activation."""
    found = [_drift(part), _laws(part)]
    if "sigma" in part:
        found.append(_relaxation(part))
    found.append(_failures(part))
    if "temperature_drift_exponent" in part:
        found.append(_temperatures(part))
    return found


def _sample(part: xr.Dataset) -> str:
    return f"{plural(int(part['n_traces']), 'trace')} of {plural(int(part['n_devices']), 'device')}"


def _validity(part: xr.Dataset) -> str:
    times = format_interval(float(part.attrs["t_first"]), float(part.attrs["t_last"]), "s")
    kelvin = part.attrs.get("temperature")
    return f"t {times}" + (f", {float(kelvin):g} K" if kelvin is not None else "")


def _number(value: float, stderr: float = math.nan) -> str:
    return format_estimate(value, stderr) if math.isfinite(value) else "-"


def _interval(values: np.ndarray) -> str:
    low, high = map(float, values)
    return format_interval(low, high) if math.isfinite(low + high) else UNKNOWN


def _drift(part: xr.Dataset) -> Section:
    rows = [(
        "all", _number(float(part["drift_exponent_mean"]), float(part["drift_exponent_mean_stderr"])),
        _interval(part["drift_exponent_mean_bound"].values), _number(float(part["drift_exponent_median"])),
        _number(float(part["drift_exponent_std"])), _interval(part["drift_exponent_std_bound"].values),
        str(int(part["n_traces"])),
    )]  # fmt: skip
    if part.sizes["nu_range"] > 1:
        for k in range(part.sizes["nu_range"]):
            here = part.isel(nu_range=k)
            rows.append((
                f"about {format_quantity(math.exp(float(here['range_ln_g'])), 'S')}",
                _number(float(here["range_drift_exponent_mean"]), float(here["range_drift_exponent_mean_stderr"])),
                _interval(here["range_drift_exponent_mean_bound"].values),
                _number(float(here["range_drift_exponent_median"])), _number(float(here["range_drift_exponent_std"])),
                _interval(here["range_drift_exponent_std_bound"].values), str(int(here["n_range_traces"])),
            ))  # fmt: skip
    columns = ("conductance", "mean", "95 %", "median", "spread of devices", "95 %", "traces")
    slope, stderr = float(part["drift_exponent_slope"]), float(part["drift_exponent_slope_stderr"])
    notes = [
        f"t0 = {format_quantity(float(part.attrs['reference_time']), 's')}; time 0: {part.attrs['time_origin']}",
        str(part.attrs["statement"]),
        str(part.attrs["method"]),
    ]
    if math.isfinite(slope):
        notes.insert(1, f"change of nu with ln G: {format_estimate(slope, stderr)}")
    kelvin = part.attrs.get("temperature")
    notes.append("temperature not known" if kelvin is None else f"at {float(kelvin):g} K")
    return Section("Drift exponent nu", columns, tuple(rows), tuple(notes))


def _laws(part: xr.Dataset) -> Section:
    rows = []
    for law in map(str, part["law"].values):
        here = part.sel(law=law)
        value = float(here["law_aicc"])
        verdict = "taken" if law == str(part.attrs["law"]) else ""
        criterion = _number(value) if math.isfinite(value) else "too few times"
        rows.append((law, criterion, str(int(here["n_law_best"])), verdict))
    notes = (
        f"AICc less the smallest, summed over {plural(int(part['n_law_traces']), 'trace')} with at least five times; "
        "the simplest law within 2 of the smallest is taken, and the power law where only the mean over devices drifts",
        f"chance of such a mean drift without drift: {_p(float(part['drift_p_value']))}",
    )
    return Section("Law of drift", ("law", "AICc", "best for traces", ""), tuple(rows), notes)


def _p(value: float) -> str:
    return "under 0.001" if value < 0.001 else _number(value)


def _relaxation(part: xr.Dataset) -> Section:
    times = part["time"].values
    shown = np.unique(np.linspace(0, len(times) - 1, min(len(times), 5)).astype(int))
    rows = []
    for k in range(part.sizes["range"]):
        here = part.isel(range=k)
        cells = []
        for t in shown:
            mean, std = float(here["shift_mean"][t]), float(here["sigma"][t])
            text = f"{format_quantity(mean, 'S')}, {format_quantity(std, 'S', float(here['sigma_stderr'][t]))}"
            cells.append(text if math.isfinite(mean) else "-")
        rows.append((format_interval(float(here["range_low"]), float(here["range_high"]), "S"), *cells))
    columns = ("first read", *(format_quantity(float(times[t]), "s") for t in shown))
    law = str(part.attrs["broadening_law"])
    notes = ["mean shift and standard deviation of the change since the first read"]
    if law:
        notes.append(f"broadening: {part['broadening'].attrs['long_name']}")
    if part.attrs["shift_law"]:
        notes.append(f"shift: {part['shift_law'].attrs['long_name']}")
    return Section("Relaxation after programming", columns, tuple(rows), tuple(notes))


def _failures(part: xr.Dataset) -> Section:
    rows = []
    for h, horizon in enumerate(part["horizon"].values):
        cells = []
        for t in range(part.sizes["threshold"]):
            value = float(part["outside"][h, t])
            low, high = 100 * part["outside_bound"].values[h, t]
            known = math.isfinite(value)
            cells.append(f"{format_percent(value)} ({format_interval(low, high)})" if known else UNKNOWN)
        rows.append((_time(float(horizon)), *cells, str(part["outside_basis"].values[h])))
    times = part["failure_time"].values
    rows.append(("median time to failure", *(_time(float(t)) for t in times), "each trace's power law"))
    columns = ("after", *(f"beyond +-{100 * x:g} %" for x in part["threshold"].values), "basis")
    return Section(
        f"{_what(part).capitalize()} outside their conductance", columns, tuple(rows), ("95 % intervals in brackets",)
    )


def _what(part: xr.Dataset) -> str:
    """Return what the fractions count: devices where each has one trace."""
    return "devices" if int(part["n_devices"]) == int(part["n_traces"]) else "traces"


def _time(value: float) -> str:
    if not math.isfinite(value) or value > DISTANT:
        return "over 300 years" if not math.isnan(value) else UNKNOWN
    if value >= YEAR:
        return f"{format_estimate(value / YEAR)} years"
    return format_quantity(value, "s")


def _temperatures(part: xr.Dataset) -> Section:
    rows = tuple(
        (
            f"{float(part['temperature'][k]):g} K",
            _number(float(part["temperature_drift_exponent"][k]), float(part["temperature_drift_exponent_stderr"][k])),
            str(int(part["n_temperature_traces"][k])),
        )
        for k in range(part.sizes["temperature_point"])
    )
    notes = ()
    if "activation_energy" in part:
        energy, stderr = (float(part[key]) / ELECTRONVOLT for key in ("activation_energy", "activation_energy_stderr"))
        notes = (f"activation energy of nu: {format_estimate(energy, stderr)} eV",)
    return Section("Drift against temperature", ("temperature", "mean nu", "traces"), rows, notes)


def estimates(part: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    """Return the drift exponent's mean, median, spread and slope, the failures, and the activation energy."""
    sample, validity, method = _sample(part), _validity(part), str(part.attrs["method"])

    def estimate(key: str, label: str, unit: str = "1", **more) -> Estimate:
        return Estimate(
            "retention", "", key, label, scalar(part, key), unit, stderr=scalar(part, f"{key}_stderr"), n=sample,
            method=method, validity=validity, **more,
        )  # fmt: skip

    found = []
    for key, label in (
        ("drift_exponent_mean", "drift exponent nu, mean over devices"),
        ("drift_exponent_median", "drift exponent nu, median over devices"),
        ("drift_exponent_std", "drift exponent nu, spread of devices"),
        ("drift_exponent_slope", "change of nu with ln G"),
    ):
        low, high = bounds(part, f"{key}_bound")
        kind = "95 % confidence" if math.isfinite(low) else ""
        found.append(replace(estimate(key, label), low=low, high=high, interval=kind))
    for h, horizon in enumerate(part["horizon"].values):
        for t, threshold in enumerate(part["threshold"].values):
            low, high = part["outside_bound"].values[h, t]
            label = f"{_what(part)} beyond +-{100 * threshold:g} % after {_time(float(horizon))}"
            found.append(Estimate(
                "retention", "", f"outside_{100 * threshold:g}_percent_{horizon:.3g}_s", label,
                float(part["outside"][h, t]), "1", low=float(low), high=float(high),
                interval="95 % confidence" if math.isfinite(low) else "",
                n=plural(int(part["n_outside_traces"][h]), "trace"), method=str(part["outside_basis"].values[h]),
                validity=validity,
            ))  # fmt: skip
    if "activation_energy" in part:
        found.append(with_error(estimate("activation_energy", "activation energy of the drift exponent", "J")))
    return found


def key_numbers(part: xr.Dataset, tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return the mean drift exponent and the devices beyond +-10 % after 1e5 s."""
    low, high = bounds(part, "drift_exponent_mean_bound")
    remark = f"95 %: {format_interval(low, high)}" if math.isfinite(low + high) else _sample(part)
    found = [("Drift exponent", format_estimate(float(part["drift_exponent_mean"])), remark)]
    here = part.sel(horizon=1e5, threshold=0.1, method="nearest")
    if math.isfinite(float(here["outside"])):
        basis = str(here["outside_basis"].values)
        found.append(("Beyond +-10 % after 100 ks", format_percent(float(here["outside"])), basis))
    return found


def figures(part: xr.Dataset, tree: xr.DataTree) -> "list[tuple[str, str, Figure]]":
    """Return drift of some traces, exponents against conductance, and the broadening with time."""
    found = [("drift", _CAPTIONS["drift"], _drift_figure(part))]
    if int(part["n_traces"]) >= 5:
        found.append(("drift-exponent", _CAPTIONS["drift-exponent"], _exponent_figure(part)))
    if "sigma" in part and np.isfinite(part["sigma"].values).sum() > 1:
        found.append(("relaxation", _CAPTIONS["relaxation"], _relaxation_figure(part)))
    return found


def _drift_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import COLOURS, figure, legend_above, log_scale

    with figure() as drawing:
        axes = drawing.add_subplot()
        for row in range(part.sizes.get("example", 0)):
            time, ratio = part["example_time"].values[row], part["example_ratio"].values[row]
            shown = np.isfinite(time) & (time > 0)
            label = "measured" if row == 0 else None
            style = "o-" if shown.sum() <= 12 else "-"
            axes.plot(time[shown], ratio[shown], style, color=COLOURS["measured"], lw=0.6, ms=1.5, alpha=0.7,
                      label=label)  # fmt: skip
        reference = float(part.attrs["reference_time"])
        t = np.geomspace(float(part.attrs["t_first"]), float(part.attrs["t_last"]), 100)
        mean, std = float(part["drift_exponent_mean"]), float(part["drift_exponent_std"])
        if math.isfinite(std):
            upper, lower = ((t / reference) ** -(mean + z * std) for z in (-1.645, 1.645))
            axes.fill_between(t, lower, upper, color=COLOURS["d2d"], alpha=0.2, lw=0, label="90 % of devices")
        axes.plot(t, (t / reference) ** -mean, color=COLOURS["fitted"], lw=1.2, label="mean power law")
        log_scale(axes, "x")
        if part.sizes.get("example", 0):
            shown = part["example_ratio"].values[np.isfinite(part["example_ratio"].values)]
            low, high = np.quantile(shown, [0.01, 0.99])
            axes.set_ylim(max(min(low, 0.98) - 0.1 * (high - low), 0), max(high, 1.02) + 0.1 * (high - low))
        axes.set_xlabel("time (s)")
        axes.set_ylabel("G / G(t$_0$)")
        legend_above(axes)
    return drawing


def _exponent_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import COLOURS, figure, legend_above

    with figure() as drawing:
        axes = drawing.add_subplot()
        g, nu, error = (part[key].values for key in ("trace_conductance", "trace_drift_exponent",
                                                     "trace_drift_exponent_stderr"))  # fmt: skip
        few = len(nu) <= 100
        axes.errorbar(g, nu, error if few else None, fmt="o", color=COLOURS["measured"], ms=2.5 if few else 1.2, mew=0,
                      elinewidth=0.5, alpha=0.8 if few else 0.4, label="traces")  # fmt: skip
        centre, mean, std = (part[key].values for key in ("range_ln_g", "range_drift_exponent_mean",
                                                          "range_drift_exponent_std"))  # fmt: skip
        if len(centre) > 1:
            axes.fill_between(np.exp(centre), mean - 1.645 * std, mean + 1.645 * std, color=COLOURS["d2d"], alpha=0.25,
                              lw=0, label="90 % of devices")  # fmt: skip
            half = 1.96 * part["range_drift_exponent_mean_stderr"].values
            axes.errorbar(np.exp(centre), mean, half, color=COLOURS["fitted"], marker="s", ms=3, lw=1.0, capsize=2,
                          label="mean")  # fmt: skip
        else:
            span = np.array([g[np.isfinite(g)].min(), g[np.isfinite(g)].max()])
            half = 1.645 * std[0]
            axes.fill_between(span, mean[0] - half, mean[0] + half, color=COLOURS["d2d"], alpha=0.25, lw=0,
                              label="90 % of devices")  # fmt: skip
            axes.plot(span, np.full(2, mean[0]), color=COLOURS["fitted"], lw=1.0, label="mean")
        known = nu[np.isfinite(nu)]
        low, high = np.quantile(known, [0.01, 0.99])
        axes.set_ylim(low - 0.25 * (high - low), high + 0.25 * (high - low))
        quantity_axis(axes, "x", "conductance (S)")
        axes.set_ylabel("drift exponent ν")
        legend_above(axes)
    return drawing


def _relaxation_figure(part: xr.Dataset) -> "Figure":
    from matplotlib import colormaps
    from matplotlib.ticker import EngFormatter

    from calib.figure_style import figure, legend_above, log_scale

    with figure(height=95.0) as drawing:
        above, below = drawing.subplots(2, 1, sharex=True)
        time = part["time"].values
        dense = np.geomspace(time[0], time[-1], 100)
        ranges = part.sizes["range"]
        for k in np.unique(np.linspace(0, ranges - 1, min(ranges, 4)).astype(int)):
            here = part.isel(range=k)
            colour = colormaps["viridis"](0.15 + 0.7 * k / max(ranges - 1, 1))
            label = format_quantity(float(here["range_conductance"]), "S").replace("u", "µ")
            above.errorbar(time, here["shift_mean"].values, here["shift_mean_stderr"].values, fmt="o", color=colour,
                           ms=3, capsize=1.5, elinewidth=0.6, label=label)  # fmt: skip
            below.errorbar(time, here["sigma"].values, here["sigma_stderr"].values, fmt="o", color=colour, ms=3,
                           capsize=1.5, elinewidth=0.6)  # fmt: skip
            line, width = here["shift_law"].values, here["broadening"].values
            if np.isfinite(line).all():
                above.plot(dense, mean_shift(str(part.attrs["shift_law"]), line, dense), color=colour, lw=0.8)
            if np.isfinite(width).all():
                sigma = broadening(str(part.attrs["broadening_law"]), width, dense, time[0])
                below.plot(dense, sigma, color=colour, lw=0.8)
        log_scale(below, "x")
        for axes, label in ((above, "mean shift (S)"), (below, "σ of the shift (S)")):
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
            axes.set_ylabel(label)
        below.set_ylim(bottom=0)
        below.set_xlabel("time (s)")
        legend_above(above)
    return drawing


def mean_shift(law: str, coefficients: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return the mean change [S] since the first read at some times [s].

    Parameters
    ----------
    law : 'power' (first t^second) or 'logarithmic' (first + second ln t), t in s.
    """
    first, second = coefficients
    return first * time**second if law == "power" else first + second * np.log(time)


def broadening(law: str, coefficients: np.ndarray, time: np.ndarray, start: float) -> np.ndarray:
    """Return the standard deviation [S] of the change since the first read at some times [s].

    Parameters
    ----------
    law : 'power' (sigma^2 = first t^(2 second)) or 'logarithmic' (sigma^2 = first + second ln(t / start)).
    start : the node's first time [s].
    """
    first, second = coefficients
    variance = first * time ** (2 * second) if law == "power" else first + second * np.log(time / start)
    return np.sqrt(np.maximum(variance, 0.0))


def resample(part: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    """Return the node with exponents, shifts and spreads drawn within their uncertainty; spreads stay positive.

    The whole and the ranges of conductance share one deviation in standard errors per quantity, since they rest on the
    same reads; so do the times of a range. Quantiles of the shift move and widen with their mean and spread.
    """
    drawn = part.copy(deep=True)
    z = generator.standard_normal(5)
    for key in ("drift_exponent_mean", "range_drift_exponent_mean"):
        error = np.nan_to_num(part[f"{key}_stderr"].values)
        drawn[key].values[...] = part[key].values + error * z[0]
    for key in ("drift_exponent_std", "range_drift_exponent_std"):
        drawn[key].values[...] = _within(part[key].values, part[f"{key}_bound"].values, z[1])
    error = np.nan_to_num(float(part["drift_exponent_slope_stderr"]))
    drawn["drift_exponent_slope"].values[...] = float(part["drift_exponent_slope"]) + error * z[2]
    if "sigma" in part:
        ranges = part.sizes["range"]
        wide, shift = generator.standard_normal((2, ranges, 1))
        relative = np.nan_to_num(part["sigma_stderr"].values / part["sigma"].values)
        factor = np.exp(relative * wide - relative**2 / 2)
        mean = part["shift_mean"].values + part["shift_mean_stderr"].values * shift
        drawn["sigma"].values[...] = part["sigma"].values * factor
        drawn["shift_mean"].values[...] = mean
        drawn["shift_quantile"].values[...] = mean[..., None] + factor[..., None] * (
            part["shift_quantile"].values - part["shift_mean"].values[..., None])  # fmt: skip
        for key in ("broadening", "shift_law"):
            drawn[key].values[...] = _joint(part[key].values, part[f"{key}_covariance"].values, generator)
        drawn["broadening"].values[:, 0] = np.maximum(drawn["broadening"].values[:, 0], 0.0)
    if "activation_energy" in part:
        drawn["activation_energy"].values[...] = float(part["activation_energy"]) + z[3] * float(
            part["activation_energy_stderr"])  # fmt: skip
    low, high = part["outside_bound"].values[..., 0], part["outside_bound"].values[..., 1]
    drawn["outside"].values[...] = np.clip(part["outside"].values + z[4] * np.nan_to_num(high - low) / 3.92, 0.0, 1.0)
    return drawn


def _within(value: np.ndarray, bound: np.ndarray, z: float) -> np.ndarray:
    """Return a positive value moved by z standard errors of its logarithm, from its 95 % interval's nearer end."""
    value = np.asarray(value, dtype=float)
    end = bound[..., 1] if z > 0 else bound[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        width = np.abs(np.log(end / value)) / 1.96
        moved = value * np.exp(np.where(np.isfinite(width), width, 0.0) * z)
    return np.where(np.isfinite(moved), moved, value)


def _joint(mean: np.ndarray, covariance: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    values, vectors = np.linalg.eigh(np.nan_to_num(covariance))
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    return mean + np.einsum("rij,rj->ri", root, generator.standard_normal(mean.shape))


member = sys.modules[__name__]
