"""Read noise: relative level against conductance, telegraph noise, spectrum."""

import math
import sys
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from calib.characteristics._axes import quantity_axis
from calib.characteristics.base import Estimate, Section, bounds, known, scalar, with_error
from calib.formatting import UNKNOWN, format_estimate, format_interval, format_percent, format_quantity, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

name = "read-noise"
node = "read_noise"
_CAPTIONS = {
    "read-noise": "Relative standard deviation of the reads of each trace against its mean conductance: about the "
    "drift, and from one read to the next; lines: the power laws, band: 90 % of traces.",
    "telegraph": "Piece of the trace with the clearest telegraph noise, drift removed, and the level that the hidden "
    "chain finds.",
    "noise-spectrum": "Spectral density of the relative fluctuation of some traces, drift removed, with the fitted "
    "laws; the dashed line falls as 1 / f.",
}
KINDS = (("noise", "about the drift"), ("successive", "from one read to the next"))


def sections(part: xr.Dataset, tree: xr.DataTree) -> list[Section]:
    """Return the level of the noise, telegraph noise and spectrum."""
    found = [_level(part)]
    if "telegraph_probability" in part:
        found.append(_telegraph(part))
    if "spectral_exponent" in part:
        found.append(_spectrum(part))
    return found


def _sample(part: xr.Dataset) -> str:
    return f"{plural(int(part['n_traces']), 'trace')} of {plural(int(part['n_devices']), 'device')}"


def _range(part: xr.Dataset) -> str:
    low, high = math.exp(float(part["ln_g_min"])), math.exp(float(part["ln_g_max"]))
    if high / low < 1.0001:
        return f"G {format_quantity(low, 'S')}"
    return f"G {format_interval(low, high, 'S')}"


def _relative(part: xr.Dataset, kind: str) -> tuple[float, float, float]:
    """Return the relative noise at the reference conductance with its 95 % interval."""
    low, high = bounds(part, f"ln_{kind}_bound")
    return math.exp(float(part[f"ln_{kind}"])), math.exp(low), math.exp(high)


def _level(part: xr.Dataset) -> Section:
    rows = []
    for kind, words in KINDS:
        value, low, high = _relative(part, kind)
        slope = scalar(part, f"{kind}_exponent")
        spread, ends = scalar(part, f"{kind}_spread"), bounds(part, f"{kind}_spread_bound")
        rows.append((
            words, format_percent(value),
            f"{format_interval(100 * low, 100 * high)} %" if math.isfinite(low) else UNKNOWN,
            format_estimate(slope, scalar(part, f"{kind}_exponent_stderr")) if math.isfinite(slope) else "-",
            format_estimate(spread) if math.isfinite(spread) else "-",
            format_interval(*ends) if math.isfinite(sum(ends)) else "-",
        ))  # fmt: skip
    columns = ("noise", "sigma of G over G", "95 %", "exponent of G", "spread of its ln", "95 %")
    notes = (
        f"at G_ref = {format_quantity(float(part.attrs['reference_conductance']), 'S')}; {_sample(part)}, "
        f"{int(part.attrs['n_reads_median'])} reads each (median); {_range(part)}",
        str(part.attrs["statement"]),
        str(part.attrs["method"]),
    )
    return Section("Read noise", columns, tuple(rows), notes)


def _telegraph(part: xr.Dataset) -> Section:
    low, high = bounds(part, "telegraph_probability_bound")
    k, n = int(part["n_telegraph"]), int(part["n_telegraph_traces"])
    rows = [
        ("traces that show it", f"{k} of {n}"),
        ("share", f"{format_percent(float(part['telegraph_probability']))}, exact 95 % interval "
                  f"{format_interval(100 * low, 100 * high)} %"),
        ("expected by false alarm", f"up to {format_percent(float(part.attrs['false_alarm']))} of the traces"),
    ]  # fmt: skip
    if k:
        mean, std = scalar(part, "telegraph_ln_amplitude_mean"), scalar(part, "telegraph_ln_amplitude_std")
        rows.append(("distance of the levels over G, geometric mean", format_percent(math.exp(mean))))
        rows.append(("spread of its ln", format_estimate(std, scalar(part, "telegraph_ln_amplitude_std_stderr"))))
        unit = str(part["telegraph_dwell"].attrs["units"])
        for column, words in enumerate(("low", "high")):
            dwell = float(np.exp(np.log(part["telegraph_dwell"].values[:, column]).mean()))
            text = format_quantity(dwell, unit) if unit == "s" else f"{format_estimate(dwell)} reads"
            rows.append((f"dwell in the {words} state, geometric mean", text))
        ratio = scalar(part, "telegraph_ln_dwell_ratio_mean")
        rows.append(("dwell ratio high over low, geometric mean", format_estimate(math.exp(ratio))))
    notes = (
        "a trace shows it when its reads are further from Gaussian than surrogates with its spectrum, its two "
        "levels lie at least 2 standard deviations apart, each was left at least 4 times all over the trace, and "
        "coloured noise alone explains it worse",
    )
    return Section("Telegraph noise", ("property", "value"), tuple(rows), notes)


def _spectrum(part: xr.Dataset) -> Section:
    low, high = bounds(part, "spectral_exponent_bound")
    unit = "Hz" if part.attrs["frequency_unit"] == "Hz" else "per read"
    value = format_estimate(float(part["spectral_exponent"]), float(part["spectral_exponent_stderr"]))
    ends = format_interval(float(part["frequency_low"]), float(part["frequency_high"]))
    rows = (
        ("alpha of S(f) = A / f^alpha + white", value),
        ("95 %", format_interval(low, high) if math.isfinite(low) else UNKNOWN),
        ("spread between traces", format_estimate(float(part["spectral_exponent_spread"]))),
        ("frequencies", f"{ends} {unit}"),
        ("traces", str(int(part["n_spectra"]))),
    )
    return Section("Noise spectrum", ("property", "value"), rows, ("Welch's estimate; slope over log frequency",))


def estimates(part: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    """Return level, exponent and spread of the noise, the share of telegraph noise, and the spectrum's slope."""
    sample, validity, method = _sample(part), _range(part), str(part.attrs["method"])
    at = format_quantity(float(part.attrs["reference_conductance"]), "S")
    found = []
    for kind, words in KINDS:
        value, low, high = _relative(part, kind)
        found.append(Estimate(
            "read_noise", "", f"relative_{kind}", f"sigma_G / G {words}, at {at}", value, "1",
            stderr=value * scalar(part, f"ln_{kind}_stderr"), low=low, high=high,
            interval="95 % confidence" if math.isfinite(low) else "", n=sample, method=method, validity=validity,
        ))  # fmt: skip
        for key, label in ((f"{kind}_exponent", "exponent of G"), (f"{kind}_spread", "spread of ln between traces")):
            low, high = bounds(part, f"{key}_bound")
            found.append(Estimate(
                "read_noise", "", key, f"sigma_G / G {words}: {label}", scalar(part, key), "1",
                stderr=scalar(part, f"{key}_stderr"), low=low, high=high,
                interval="95 % confidence" if math.isfinite(low) else "", n=sample, method=method, validity=validity,
            ))  # fmt: skip
    if "telegraph_probability" in part:
        low, high = bounds(part, "telegraph_probability_bound")
        n = f"{int(part['n_telegraph'])} of {plural(int(part['n_telegraph_traces']), 'trace')}"
        found.append(Estimate(
            "read_noise", "", "telegraph_probability", str(part["telegraph_probability"].attrs["long_name"]),
            float(part["telegraph_probability"]), "1", low=low, high=high, interval="exact binomial 95 %", n=n,
            method="hidden Markov chain, tested against Gaussian surrogates", validity=validity,
        ))  # fmt: skip
        for key in ("telegraph_ln_amplitude_mean", "telegraph_ln_dwell_ratio_mean"):
            found.append(with_error(Estimate(
                "read_noise", "", key, str(part[key].attrs["long_name"]), float(part[key]), "1",
                stderr=float(part[f"{key}_stderr"]), n=n, method="hidden Markov chain", validity=validity,
            )))  # fmt: skip
    if "spectral_exponent" in part:
        low, high = bounds(part, "spectral_exponent_bound")
        found.append(Estimate(
            "read_noise", "", "spectral_exponent", "alpha of S(f) ~ 1 / f^alpha", float(part["spectral_exponent"]), "1",
            stderr=float(part["spectral_exponent_stderr"]), low=low, high=high,
            interval="95 % confidence" if math.isfinite(low) else "", n=plural(int(part["n_spectra"]), "trace"),
            method="Welch's estimate, weighted least squares of its logarithm", validity=validity,
        ))  # fmt: skip
    return known(found)


def key_numbers(part: xr.Dataset, tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return the relative noise, and the share of telegraph noise where it was looked for."""
    value, low, high = _relative(part, "noise")
    remark = f"95 %: {format_interval(100 * low, 100 * high)} %" if math.isfinite(low) else ""
    at = format_quantity(float(part.attrs["reference_conductance"]), "S")
    found = [(f"Read noise at {at}", format_percent(value), remark)]
    if "telegraph_probability" in part:
        k, n = int(part["n_telegraph"]), int(part["n_telegraph_traces"])
        found.append(("Telegraph noise", format_percent(float(part["telegraph_probability"])), f"{k} of {n} traces"))
    return found


def figures(part: xr.Dataset, tree: xr.DataTree) -> "list[tuple[str, str, Figure]]":
    """Return noise against conductance, a piece of telegraph noise, and spectra."""
    found = []
    if part.sizes["trace"] > 1:
        found.append(("read-noise", _CAPTIONS["read-noise"], _noise_figure(part)))
    if "piece_relative" in part:
        found.append(("telegraph", _CAPTIONS["telegraph"], _piece_figure(part)))
    if "spectrum_density" in part:
        found.append(("noise-spectrum", _CAPTIONS["noise-spectrum"], _spectrum_figure(part)))
    return found


def _noise_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import COLOURS, figure, legend_above

    with figure() as drawing:
        axes = drawing.add_subplot()
        mean = part["trace_conductance"].values
        reference = float(part.attrs["reference_conductance"])
        g = np.geomspace(mean.min(), mean.max(), 50)
        for key, kind, colour, marker, words in (
            ("trace_noise", "noise", "total", "o", "about the drift"),
            ("trace_successive", "successive", "c2c", "v", "read to read"),
        ):
            value = part[key].values
            error = part["trace_noise_stderr"].values if kind == "noise" and len(value) <= 100 else None
            axes.errorbar(mean, 100 * value, None if error is None else 100 * error, fmt=marker, color=COLOURS[colour],
                          ms=2.8, mew=0, elinewidth=0.5, alpha=0.8, label=words)  # fmt: skip
            slope = float(np.nan_to_num(float(part[f"{kind}_exponent"])))
            line = 100 * np.exp(float(part[f"ln_{kind}"])) * (g / reference) ** slope
            axes.plot(g, line, color=COLOURS[colour], lw=1.0)
            spread = float(part[f"{kind}_spread"])
            if kind == "noise" and math.isfinite(spread):
                axes.fill_between(g, line * math.exp(-1.645 * spread), line * math.exp(1.645 * spread),
                                  color=COLOURS[colour], alpha=0.12, lw=0)  # fmt: skip
        quantity_axis(axes, "x", "conductance (S)")
        axes.set_yscale("log")
        _percent_axis(axes)
        axes.set_ylabel("σ of G over G (%)")
        legend_above(axes)
    return drawing


def _percent_axis(axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 40 else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _piece_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import COLOURS, figure, legend_above

    with figure(height=48.0) as drawing:
        axes = drawing.add_subplot()
        time = part["piece_time"].values
        axes.plot(time, 100 * part["piece_relative"].values, color=COLOURS["measured"], lw=0.6, label="measured")
        axes.plot(time, 100 * part["piece_level"].values, color=COLOURS["hrs"], lw=1.0, drawstyle="steps-mid",
                  label="hidden chain")  # fmt: skip
        axes.set_xlabel("time (s)" if part["piece_time"].attrs["units"] == "s" else "read")
        axes.set_ylabel("change of G (%)")
        axes.margins(x=0.01)
        legend_above(axes)
    return drawing


def _spectrum_figure(part: xr.Dataset) -> "Figure":
    from matplotlib import colormaps

    from calib.figure_style import COLOURS, figure, legend_above

    with figure() as drawing:
        axes = drawing.add_subplot()
        count = part.sizes["spectrum"]
        shown = np.unique(np.linspace(0, count - 1, min(count, 5)).astype(int))
        order = np.argsort(np.argsort(part["spectrum_conductance"].values))
        for k in shown:
            f, density = part["spectrum_frequency"].values[k], part["spectrum_density"].values[k]
            use = np.isfinite(f)
            colour = colormaps["viridis"](0.1 + 0.8 * order[k] / max(count - 1, 1))
            label = format_quantity(float(part["spectrum_conductance"][k]), "S").replace("u", "µ")
            axes.plot(f[use], density[use], "o", color=colour, ms=2.2, mew=0, label=label)
            level, alpha, white = part["spectrum_law"].values[k]
            axes.plot(f[use], level * (f[use] / f[use][0]) ** -alpha + white, color=colour, lw=0.8)
        f = np.array([float(part["frequency_low"]), float(part["frequency_high"])])
        top = float(np.nanmax(part["spectrum_density"].values[shown]))
        axes.plot(f, 1.5 * top * f[0] / f, color=COLOURS["fitted"], lw=0.8, ls="--", label="1 / f")
        axes.set_xscale("log")
        axes.set_yscale("log")
        hertz = part.attrs["frequency_unit"] == "Hz"
        axes.set_xlabel("frequency (Hz)" if hertz else "frequency (per read)")
        axes.set_ylabel("S$_G$ / G² (1/Hz)" if hertz else "S$_G$ / G² (reads)")
        legend_above(axes)
    return drawing


def resample(part: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    """Return the node with its numbers drawn within their uncertainty; spreads stay positive, the share in 0 to 1.

    The share of telegraph noise is drawn from the beta distribution of k of n under the prior of Jeffreys.
    """
    drawn = part.copy(deep=True)
    for kind, _ in KINDS:
        for key in (f"ln_{kind}", f"{kind}_exponent"):
            error = float(np.nan_to_num(float(part[f"{key}_stderr"])))
            drawn[key].values[...] = float(part[key]) + error * generator.standard_normal()
        value, bound = float(part[f"{kind}_spread"]), part[f"{kind}_spread_bound"].values
        drawn[f"{kind}_spread"].values[...] = _positive(value, bound, generator)
    if "telegraph_probability" in part:
        k, n = int(part["n_telegraph"]), int(part["n_telegraph_traces"])
        drawn["telegraph_probability"].values[...] = generator.beta(k + 0.5, n - k + 0.5)
        for key in ("telegraph_ln_amplitude", "telegraph_ln_dwell_ratio"):
            error = float(np.nan_to_num(float(part[f"{key}_mean_stderr"])))
            drawn[f"{key}_mean"].values[...] = float(part[f"{key}_mean"]) + error * generator.standard_normal()
            if k > 1:
                factor = math.sqrt((k - 1) / generator.chisquare(k - 1))
                drawn[f"{key}_std"].values[...] = float(part[f"{key}_std"]) * factor
    if "spectral_exponent" in part:
        error = float(part["spectral_exponent_stderr"])
        drawn["spectral_exponent"].values[...] = float(part["spectral_exponent"]) + error * generator.standard_normal()
    return drawn


def _positive(value: float, bound: np.ndarray, generator: np.random.Generator) -> float:
    """Return a positive value drawn lognormally, its width from the nearer end of its 95 % interval on either side."""
    z = float(generator.standard_normal())
    end = float(bound[1] if z > 0 else bound[0])
    if not (value > 0 and end > 0 and math.isfinite(end)):
        return value
    return value * math.exp(abs(math.log(end / value)) / 1.96 * z)


member = sys.modules[__name__]
