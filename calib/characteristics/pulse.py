"""How the conductance changes from pulse to pulse: tables, numbers, figures."""

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from calib.characteristics.base import Z_95, Estimate, Section, bounds, scalar
from calib.formatting import format_interval, format_number, format_quantity, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

name = "pulse"
node = "pulse"

_PER_POLARITY = (
    ("g_start", "conductance at the first reading"),
    ("g_end", "conductance at the last reading"),
    ("shape", "shape parameter of the law"),
    ("nonlinearity", "nonlinearity (deviation from linear)"),
    ("neurosim_label", "nonlinearity, NeuroSim's label"),
    ("step_mid", "change per pulse at mid-range"),
    ("write_noise", "write noise of one step"),
    ("write_noise_relative", "write noise over the mean step"),
    ("memory", "write noise fades in (steps)"),
    ("noise_growth", "the noise grows with the step to the power"),
    ("transient_noise", "transient noise of one reading"),
    ("n_states", "number of states"),
    ("n_distinguishable", "levels that the noise allows"),
)
_PER_DEVICE = (
    ("g_min", "smallest conductance"),
    ("g_max", "largest conductance"),
    ("asymmetry", "asymmetry of the nonlinearity"),
    ("asymmetry_neurosim", "asymmetry, NeuroSim's labels"),
    ("asymmetry_area", "asymmetry, area between the curves"),
    ("asymmetry_step", "asymmetry of the steps at mid-range"),
    ("symmetry_point", "symmetry point (share of the range)"),
)
_POSITIVE = ("write_noise", "write_noise_relative", "transient_noise", "memory", "n_states", "n_distinguishable",
             "asymmetry", "asymmetry_neurosim", "asymmetry_area")  # fmt: skip
_CAPTIONS = {
    "pulse": "Conductance against the number of pulses: some trains as measured (points) and the law (lines).",
    "pulse-population": "The law's conductance along the train: median and the band of 90 % of the trains.",
    "pulse-steps": "Change of the conductance from one reading to the next, against the conductance: mean with "
    "standard error (points), the law's mean (lines), and one standard deviation about the law (shaded).",
    "pulse-noise": "Noise of the change from one reading to the next about the law, against the conductance, with "
    "standard errors; dashed: write noise, the part that lasts.",
}
_WIDE = 100.0


def sections(part: xr.Dataset, tree: xr.DataTree) -> list[Section]:
    """Return the numbers of each direction, range and asymmetry, and the comparison of the laws."""
    polarities = _polarities(part)
    fitted = "law_chosen" in part
    rows: list[tuple[str, ...]] = []
    if fitted:
        rows.append(("law", *(str(part["law_chosen"].sel(polarity=p).values) or "-" for p in polarities)))
    rows.append(("trains", *(str(int(part["n_sequences"].sel(polarity=p))) for p in polarities)))
    rows.append(("devices", *(str(int(part["n_devices"].sel(polarity=p))) for p in polarities)))
    for key, label in _PER_POLARITY:
        if key in part and np.isfinite(part[key].values).any():
            rows.append((label, *(_cell(part.sel(polarity=p), key) for p in polarities)))
    if "read_noise" in part:
        cells = [part.sel(polarity=p) for p in polarities]
        texts = [_quantity(scalar(c, "read_noise"), part["read_noise"], scalar(c, "read_noise_stderr")) for c in cells]
        rows.append(("read noise of one read", *texts))
    notes = (str(part.attrs["method"]), *([str(part.attrs["statement"])] if fitted else []))
    found = [Section("Pulse response", ("", *polarities), tuple(rows), notes)]
    found.append(_range_and_asymmetry(part))
    if fitted:
        found.append(_laws(part, polarities))
    return found


def _polarities(part: xr.Dataset) -> list[str]:
    return [str(value) for value in part["polarity"].values]


def _unit(variable: xr.DataArray) -> str:
    unit = str(variable.attrs.get("units", "1"))
    return unit if unit != "1" else ""


def _quantity(value: float, variable: xr.DataArray, stderr: float = math.nan) -> str:
    return format_quantity(value, _unit(variable), stderr) if math.isfinite(value) else "-"


def _cell(part: xr.Dataset, key: str) -> str:
    """Return 'median (95 %: low to high; trains spread by s)', as far as it is known."""
    value = scalar(part, key)
    if not math.isfinite(value):
        return "-"
    remarks = []
    low, high = bounds(part, f"{key}_bound")
    if value == low == high == 0:
        remarks.append("not told from zero in most trains")
    elif math.isfinite(low) and math.isfinite(high):
        remarks.append(f"95 %: {format_interval(low, high, _unit(part[key]))}")
    spread = scalar(part, f"{key}_spread")
    if spread > 0:
        remarks.append(f"spread {_quantity(spread, part[key])}")
    return _quantity(value, part[key]) + (f" ({'; '.join(remarks)})" if remarks else "")


def _range_and_asymmetry(part: xr.Dataset) -> Section:
    rows = [(label, _cell(part, key)) for key, label in _PER_DEVICE if math.isfinite(scalar(part, key))]
    notes = ["medians over devices"]
    if "n_both" in part:
        notes.append(f"asymmetry of {plural(int(part['n_both']), 'device')} with potentiation and depression")
    if part.attrs["unit"] == "1":
        notes.append("the conductances are normalised; siemens are not known")
    return Section("Pulse response: range and asymmetry", ("", "over devices"), tuple(rows), tuple(notes))


def _laws(part: xr.Dataset, polarities: list[str]) -> Section:
    rows = []
    for law in map(str, part["law"].values):
        cells = []
        for polarity in polarities:
            here = part.sel(law=law, polarity=polarity)
            cells.append(f"{float(here['aicc']):+.0f} ({int(here['n_preferred'])})")
        rows.append((law, *cells))
    note = "AICc summed over the trains, less that of the best law; in brackets how many trains prefer the law"
    return Section("Laws of the pulse response", ("law", *polarities), tuple(rows), (note,))


def estimates(part: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    """Return medians with intervals, and the spread of the trains, of every number and direction."""
    found = []
    for polarity in _polarities(part):
        here = part.sel(polarity=polarity)
        size = f"{plural(int(here['n_sequences']), 'train')} of {plural(int(here['n_devices']), 'device')}"
        law = str(here["law_chosen"].values) if "law_chosen" in part else ""
        for key, label in _PER_POLARITY:
            found += _estimate(here, key, label, polarity, size, f"{law} law" if law else "")
        if "read_noise" in part:
            value, stderr = scalar(here, "read_noise"), scalar(here, "read_noise_stderr")
            found.append(
                Estimate(
                    "pulse", polarity, "read_noise", "read noise of one read", value, str(part.attrs["unit"]),
                    stderr=stderr, low=value - Z_95 * stderr, high=value + Z_95 * stderr, interval="95 % confidence",
                    n=plural(int(here["n_read_freedom"]), "degree") + " of freedom", method="repeated reads",
                )
            )  # fmt: skip
    size = plural(int(part["n_devices"].max()), "device")
    for key, label in _PER_DEVICE:
        found += _estimate(part, key, label, "", size, "")
    return found


def _estimate(part: xr.Dataset, key: str, label: str, state: str, size: str, law: str) -> list[Estimate]:
    value = scalar(part, key)
    if not math.isfinite(value):
        return []
    low, high = bounds(part, f"{key}_bound")
    unit = str(part[key].attrs["units"])
    interval = "95 % confidence" if math.isfinite(low) or math.isfinite(high) else ""
    median = Estimate("pulse", state, key, f"{label}, median", value, unit, low=low, high=high, interval=interval,
                      n=size, method=str(part.attrs["method"]), validity=law)  # fmt: skip
    spread, stderr = scalar(part, f"{key}_spread"), scalar(part, f"{key}_spread_stderr")
    if not math.isfinite(spread):
        return [median]
    words = f"{label}, spread of the trains"
    half = Z_95 * stderr
    ends = (max(spread - half, 0.0), spread + half) if math.isfinite(stderr) else (math.nan, math.nan)
    return [
        median,
        Estimate("pulse", state, f"{key}_spread", words, spread, unit, stderr=stderr, low=ends[0], high=ends[1],
                 interval="95 % confidence" if math.isfinite(stderr) else "", n=size,
                 method="standard deviation, estimation error removed", validity=law),
    ]  # fmt: skip


def key_numbers(part: xr.Dataset, tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return the nonlinearity and the number of states, of potentiation and depression."""
    found = []
    for key, label in (("nonlinearity", "Pulse nonlinearity"), ("n_states", "Number of states")):
        if key not in part or not np.isfinite(part[key].values).any():
            continue
        values = [format_number(float(part[key].sel(polarity=p)), 3) for p in _polarities(part)]
        found.append((label, " / ".join(values), " / ".join(_polarities(part))))
    return found


def figures(part: xr.Dataset, tree: xr.DataTree) -> "list[tuple[str, str, Figure]]":
    """Draw some trains with the law, the population's band, and the change per step against the conductance."""
    found = [("pulse", _CAPTIONS["pulse"], _trains_figure(part))] if "example_pulse" in part else []
    if "band" not in part:
        return found
    if int(part["n_sequences"].max()) > 1:
        found.append(("pulse-population", _CAPTIONS["pulse-population"], _band_figure(part)))
    found.append(("pulse-steps", _CAPTIONS["pulse-steps"], _steps_figure(part)))
    found.append(("pulse-noise", _CAPTIONS["pulse-noise"], _noise_figure(part)))
    return found


def _trains_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import COLOURS, figure, legend_above

    with figure() as drawing:
        axes = drawing.add_subplot()
        named: set[str] = set()
        for row, polarity in enumerate(part["example_polarity"].values.astype(str)):
            pulse = part["example_pulse"].values[row]
            label = polarity if polarity not in named else None
            law = "law" if not named else None
            named.add(polarity)
            marker = "o" if polarity == "potentiation" else "s"
            axes.plot(pulse, part["example_conductance"].values[row], marker, color=COLOURS[polarity], ms=1.8, mew=0,
                      alpha=0.7, label=label)  # fmt: skip
            axes.plot(pulse, part["example_law"].values[row], color=COLOURS["fitted"], lw=0.8, label=law)
        axes.set_xlabel("pulses")
        _conductance_axis(axes, part, "y", "conductance", part["example_conductance"].values)
        legend_above(axes)
    return drawing


def _conductance_axis(
    axes: "Axes", part: xr.Dataset, direction: str, label: str, values: np.ndarray | None = None
) -> None:
    """Label an axis of conductances; it is logarithmic where the values are positive and span `_WIDE`."""
    from matplotlib.ticker import EngFormatter

    from calib.figure_style import log_scale

    unit = str(part.attrs["unit"])
    text = f"{label} ({unit})" if unit != "1" else f"{label} (normalised)"
    (axes.set_xlabel if direction == "x" else axes.set_ylabel)(text)
    if values is not None and np.nanmin(values) > 0 and np.nanmax(values) > _WIDE * np.nanmin(values):
        log_scale(axes, direction)
    elif unit != "1":
        axis = axes.xaxis if direction == "x" else axes.yaxis
        axis.set_major_formatter(EngFormatter(sep=""))


def _band_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import COLOURS, figure, legend_above

    with figure() as drawing:
        axes = drawing.add_subplot()
        share = part["band_share"].values
        for polarity in _polarities(part):
            low, centre, high = part["band"].sel(polarity=polarity).values.T
            n = int(part["n_sequences"].sel(polarity=polarity))
            axes.fill_between(share, low, high, color=COLOURS[polarity], alpha=0.2, lw=0)
            style = "-" if polarity == "potentiation" else "--"
            axes.plot(share, centre, style, color=COLOURS[polarity], label=f"{polarity}, n = {n}")
        axes.set_xlabel("share of the train's pulses")
        _conductance_axis(axes, part, "y", "conductance", part["band"].values)
        legend_above(axes)
    return drawing


def _steps_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import COLOURS, figure, legend_above

    g = part["g_bin"].values
    with figure() as drawing:
        axes = drawing.add_subplot()
        axes.axhline(0, color=COLOURS["measured"], lw=0.6)
        for polarity in _polarities(part):
            here = part.sel(polarity=polarity)
            mean, law, std = (here[key].values for key in ("step", "step_law", "step_std"))
            seen = np.isfinite(law)
            axes.fill_between(g[seen], (law - std)[seen], (law + std)[seen], color=COLOURS[polarity], alpha=0.15, lw=0)
            marker = "o" if polarity == "potentiation" else "s"
            axes.plot(g[seen], law[seen], color=COLOURS[polarity], lw=1.0)
            axes.errorbar(g, mean, here["step_stderr"].values, fmt=marker, color=COLOURS[polarity], ms=3, mew=0,
                          elinewidth=0.7, label=polarity)  # fmt: skip
        _conductance_axis(axes, part, "x", "conductance")
        _conductance_axis(axes, part, "y", "change per step")
        legend_above(axes)
    return drawing


def _noise_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import COLOURS, figure, legend_above

    g = part["g_bin"].values
    with figure() as drawing:
        axes = drawing.add_subplot()
        for polarity in _polarities(part):
            here = part.sel(polarity=polarity)
            marker = "o" if polarity == "potentiation" else "s"
            axes.errorbar(g, here["step_std"].values, here["step_std_stderr"].values, marker=marker, ms=3, mew=0,
                          lw=0.8, elinewidth=0.7, color=COLOURS[polarity], label=polarity)  # fmt: skip
            axes.plot(g, here["step_write_noise"].values, "--", color=COLOURS[polarity], lw=0.8)
        axes.set_ylim(bottom=0)
        _conductance_axis(axes, part, "x", "conductance")
        _conductance_axis(axes, part, "y", "σ of the change per step")
        legend_above(axes)
    return drawing


def resample(part: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    """Return the node with its medians drawn within their intervals and its spreads within their standard errors.

    Noises, numbers of states and asymmetries are drawn on the logarithm, so that they stay positive. What one train
    says is kept.
    """
    changed: dict[str, Any] = {}
    for key in (key for key, _ in (*_PER_POLARITY, *_PER_DEVICE) if key in part):
        value = part[key].values.astype(float)
        low, high = np.moveaxis(part[f"{key}_bound"].values, -1, 0)
        changed[key] = part[key].copy(data=_drawn(value, (high - low) / (2 * Z_95), key in _POSITIVE, generator))
        spread = f"{key}_spread"
        if spread in part:
            error = part[f"{spread}_stderr"].values
            changed[spread] = part[spread].copy(data=_drawn(part[spread].values, error, True, generator))
    if "read_noise" in part:
        drawn = _drawn(part["read_noise"].values, part["read_noise_stderr"].values, True, generator)
        changed["read_noise"] = part["read_noise"].copy(data=drawn)
    ordered = [changed[key].values for key in ("g_min", "g_max")]
    if not (ordered[0] < ordered[1]).all():
        changed["g_min"], changed["g_max"] = part["g_min"], part["g_max"]
    return part.assign(changed)


def _drawn(value: Any, stderr: Any, positive: bool, generator: np.random.Generator) -> np.ndarray:
    """Return normal, or lognormal, draws; a value without a standard error is kept."""
    value, stderr = np.asarray(value, dtype=float), np.nan_to_num(np.asarray(stderr, dtype=float))
    z = generator.standard_normal(value.shape)
    if not positive:
        return value + stderr * z
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(value > 0, stderr / value, 0.0)
    return value * np.exp(np.minimum(relative, 1.0) * z)


member = sys.modules[__name__]
