"""How writes hit their target ranges, at what effort, and which devices miss: tables, numbers, figures."""

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from calib.characteristics.base import Z_95, Estimate, Section, bounds, scalar
from calib.formatting import format_interval, format_number, format_percent, format_quantity, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

name = "writes"
node = "writes"

_CAPTIONS = {
    "writes-achieved": "Conductance achieved against the target: successful and failed writes (a sample of them), the "
    "target ranges (grey), and median with 5 to 95 % of the successful writes of devices that switch.",
    "writes-success": "Probability that a write hits its target range, all devices and only those that switch, with "
    "exact binomial 95 % intervals.",
    "writes-effort": "Pulses and reads per write: mean (points), median to 99 % (lines).",
}
_WIDE = 30.0  # ratio of targets from which on axes are logarithmic
_DEVICE_ROWS = (
    ("n_devices", "devices"),
    ("n_devices_judged", "written to several target ranges"),
    ("n_never_switched", "never switched"),
    ("n_narrow", "narrow range by the rule of stuck devices"),
    ("n_narrow_moved", "of those, hit two ranges that are apart"),
    ("n_switching", "switch"),
    ("n_failing", "switch, but failed a write"),
    ("n_half_of_failures", "devices that hold half of the failures"),
)
_PROBABILITIES = (
    ("never_switched_probability", "probability that a device never switches"),
    ("failing_device_probability", "probability that a device that switches fails a write"),
    ("failure_probability", "probability that a write of a device that switches fails"),
)
_BINOMIAL = "exact binomial 95 %"


def sections(part: xr.Dataset, tree: xr.DataTree) -> list[Section]:
    """Return outcomes per target range, effort per write, and the devices."""
    found = [_outcomes(part)]
    if "effort" in part:
        found.append(_effort(part))
    found.append(_devices(part))
    return found


def range_text(low: float, high: float) -> str:
    """Return a target range in words, with open ends: 'over 200 uS'."""
    if low <= 0:
        return f"under {format_quantity(high, 'S')}"
    if not math.isfinite(high):
        return f"over {format_quantity(low, 'S')}"
    return format_interval(low, high, "S")


def _ranges(part: xr.Dataset) -> list[str]:
    ends = zip(part["target_low"].values, part["target_high"].values, strict=True)
    return [range_text(float(low), float(high)) for low, high in ends]


def _percent(part: xr.Dataset, key: str) -> str:
    """Return '85.0 % (84.3 to 85.8)', with as many decimals as tell the value from 100 %."""
    value = scalar(part, key)
    if not math.isfinite(value):
        return "-"
    low, high = bounds(part, f"{key}_bound")
    distance = min(value, 1 - value) or high - low
    decimals = min(max(-math.floor(math.log10(max(distance, 1e-12))) - 1, 1), 6)
    return f"{100 * value:.{decimals}f} % ({100 * low:.{decimals}f} to {100 * high:.{decimals}f})"


def _siemens(part: xr.Dataset, key: str) -> str:
    value = scalar(part, key)
    return format_quantity(value, "S", scalar(part, f"{key}_stderr")) if math.isfinite(value) else "-"


def _outcomes(part: xr.Dataset) -> Section:
    rows = []
    for k, text in enumerate(_ranges(part)):
        here = part.isel(target=k)
        relative, error = scalar(here, "sigma_relative"), scalar(here, "sigma_relative_stderr")
        rows.append((
            text, str(int(here["n_writes"])), _percent(here, "success_probability"),
            _percent(here, "switching_success_probability"), _siemens(here, "bias"), _siemens(here, "sigma"),
            format_percent(relative, error) if math.isfinite(relative) else "-", _siemens(here, "miss"),
        ))  # fmt: skip
    columns = ("target range", "writes", "success, all devices", "devices that switch", "bias", "sigma",
               "sigma / target", "failed: distance")  # fmt: skip
    note = "intervals in brackets are exact binomial 95 %, for writes that are independent"
    return Section("Writes", columns, tuple(rows), (str(part.attrs["statement"]), note))


def _effort(part: xr.Dataset) -> Section:
    rows = []
    quantiles = part["effort_quantile"].values
    for effort in map(str, part["effort"].values):
        for k, text in enumerate(_ranges(part)):
            here = part.sel(effort=effort).isel(target=k)
            mean = format_number(float(here["effort_mean"]), 3)
            rows.append((effort, text, mean, *(format_number(float(v), 3) for v in here["effort_of"].values)))
    columns = ("per write", "target range", "mean", *(f"{100 * q:g} %" for q in quantiles))
    return Section("Effort of writes", columns, tuple(rows), ("columns in percent are quantiles over writes",))


def _devices(part: xr.Dataset) -> Section:
    rows = [(label, str(int(part[key]))) for key, label in _DEVICE_ROWS if key in part]
    rows += [(label, _percent(part, key)) for key, label in _PROBABILITIES if key in part]
    notes = []
    if math.isfinite(scalar(part, "dispersion")):
        notes.append(
            f"failures over devices that switch: dispersion {format_number(scalar(part, 'dispersion'))} (1 by chance, "
            f"p = {scalar(part, 'dispersion_p'):.2g})"
        )
    if "n_never_by_threshold" in part:
        counts = zip(part["threshold"].values, part["n_under_threshold"].values,
                     part["n_never_by_threshold"].values, strict=True)  # fmt: skip
        text = ", ".join(f"{t:g}: {n} ({silent})" for t, n, silent in counts)
        notes.append(f"devices under a threshold of the range (and hitting no two ranges apart): {text}")
    return Section("Devices that were written", ("", "value"), tuple(rows), tuple(notes))


def estimates(part: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    """Return probabilities of success, bias, programming error and effort per target, and those of devices."""
    found = []
    for k, text in enumerate(_ranges(part)):
        found += _of_target(part.isel(target=k), text)
    for key, label in _PROBABILITIES:
        if key in part:
            low, high = bounds(part, f"{key}_bound")
            n, rule = plural(int(part["n_devices"]), "device"), str(part.attrs["rule"])
            found.append(Estimate("writes", "", key, label, float(part[key]), "1", low=low, high=high, n=n,
                                  interval=_BINOMIAL, method=rule))  # fmt: skip
    if math.isfinite(scalar(part, "dispersion")):
        label = "dispersion of failures over devices, 1 by chance"
        n = plural(int(part["n_switching"]), "device")
        found.append(Estimate("writes", "", "dispersion", label, float(part["dispersion"]), "1", n=n,
                              method="chi-square against binomial"))  # fmt: skip
    return found


def _of_target(here: xr.Dataset, text: str) -> list[Estimate]:
    found = []
    n = plural(int(here["n_writes"]), "write")
    for key, label in (
        ("success_probability", "probability of success"),
        ("switching_success_probability", "probability of success, devices that switch"),
    ):
        low, high = bounds(here, f"{key}_bound")
        found.append(Estimate("writes", text, key, label, scalar(here, key), "1", low=low, high=high, n=n,
                              interval=_BINOMIAL if math.isfinite(low) else "", method="counts"))  # fmt: skip
    hits = plural(int(here["n_errors"]), "successful write")
    for key, label, unit in (
        ("bias", "mean error of what is achieved", "S"),
        ("sigma", "programming error, standard deviation", "S"),
        ("sigma_relative", "programming error over the target (fraction)", "1"),
    ):
        value, stderr = scalar(here, key), scalar(here, f"{key}_stderr")
        if math.isfinite(value):
            found.append(Estimate("writes", text, key, label, value, unit, stderr=stderr, low=value - Z_95 * stderr,
                                  high=value + Z_95 * stderr, interval="95 % confidence", n=hits,
                                  method="moments", validity="successful writes of devices that switch"))  # fmt: skip
    if "effort" in here:
        for effort in map(str, here["effort"].values):
            at = here.sel(effort=effort)
            value, stderr = scalar(at, "effort_mean"), scalar(at, "effort_stderr")
            key = f"mean_{effort.replace(' ', '_')}"
            found.append(Estimate("writes", text, key, f"{effort} per write, mean", value, "1", stderr=stderr,
                                  low=value - Z_95 * stderr, high=value + Z_95 * stderr, interval="95 % confidence",
                                  n=plural(int(at["n_effort"]), "write"), method="counts"))  # fmt: skip
    return found


def key_numbers(part: xr.Dataset, tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return the probability of success over all targets, and the share of devices that never switched."""
    n, k = int(part["n_writes"].sum()), int(part["n_success"].sum())
    found = [("Successful writes", format_percent(k / n), f"{k} of {plural(n, 'write')}")]
    value = scalar(part, "never_switched_probability")
    if math.isfinite(value):
        low, high = bounds(part, "never_switched_probability_bound")
        remark = f"95 %: {format_interval(100 * low, 100 * high)} %"
        found.append(("Devices that never switched", format_percent(value), remark))
    return found


def figures(part: xr.Dataset, tree: xr.DataTree) -> "list[tuple[str, str, Figure]]":
    """Draw achieved against target, success, and effort per target."""
    found = [("writes-success", _CAPTIONS["writes-success"], _success_figure(part))]
    if "example_achieved" in part:
        found.insert(0, ("writes-achieved", _CAPTIONS["writes-achieved"], _achieved_figure(part)))
    if "effort" in part:
        found.append(("writes-effort", _CAPTIONS["writes-effort"], _effort_figure(part)))
    return found


def _places(part: xr.Dataset, values: np.ndarray) -> np.ndarray:
    """Return the position of each value's target among the targets: nearest centre."""
    return np.abs(values[:, None] - part["target"].values).argmin(axis=1).astype(float)


def _target_axis(axes: "Axes", part: xr.Dataset) -> None:
    texts = _ranges(part)
    few = len(texts) <= 6
    shown = range(len(texts)) if few else np.unique(np.linspace(0, len(texts) - 1, 6).round().astype(int))
    labels = [texts[k].replace(" to ", " to\n").replace("under ", "under\n").replace("over ", "over\n") for k in shown]
    axes.set_xticks(list(shown), [label.replace(" uS", " µS") for label in labels])
    axes.set_xlim(-0.6, len(texts) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("target range")


def _achieved_figure(part: xr.Dataset) -> "Figure":
    from matplotlib.ticker import EngFormatter

    from calib.figure_style import COLOURS, figure, legend_above, log_scale

    achieved, success = part["example_achieved"].values, part["example_success"].values == 1
    positive = achieved[achieved > 0]
    wide = len(positive) > 0 and np.ptp(np.log(positive)) > math.log(_WIDE)
    with figure(height=66.0) as drawing:
        axes = drawing.add_subplot()
        floor = 0.5 * float(positive.min()) if wide else min(float(achieved.min()), 0.0)
        top = 1.2 * float(achieved.max())
        for k, (low, high) in enumerate(zip(part["target_low"].values, part["target_high"].values, strict=True)):
            axes.fill_between([k - 0.45, k + 0.45], max(low, floor), min(high, top), color="#BBBBBB", alpha=0.45, lw=0)
        place = _places(part, part["example_target"].values)
        shift = 0.3 * np.modf(np.arange(len(place)) * 0.6180339887)[0]  # evenly spread, so that points do not hide
        for mask, key, label, marker, side, edge in (
            (success, "success", "successful", "o", -0.4, 0.0), (~success, "failed", "failed", "x", 0.1, 0.6),
        ):  # fmt: skip
            axes.plot((place + side + shift)[mask], achieved[mask], marker, color=COLOURS[key], ms=2.2, mew=edge,
                      alpha=0.6, label=label)  # fmt: skip
        q = part["achieved_quantile"]
        x = np.arange(part.sizes["target"])
        axes.vlines(x, q.sel(quantile=0.05), q.sel(quantile=0.95), color=COLOURS["fitted"], lw=1.4)
        axes.plot(x, q.sel(quantile=0.5), "_", color=COLOURS["fitted"], ms=9, label="median, 5 to 95 %")
        if wide:
            axes.set_ylim(floor, top)
            log_scale(axes, "y")
        else:
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        _target_axis(axes, part)
        axes.set_ylabel("achieved conductance (S)")
        legend_above(axes)
    return drawing


def _success_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import COLOURS, figure, legend_above

    x = np.arange(part.sizes["target"])
    with figure(height=55.0) as drawing:
        axes = drawing.add_subplot()
        for key, label, colour, shift, marker in (
            ("success_probability", "all devices", COLOURS["all"], -0.08, "D"),
            ("switching_success_probability", "devices that switch", COLOURS["success"], 0.08, "o"),
        ):
            value, bound = part[key].values, part[f"{key}_bound"].values
            reach = np.maximum(100 * np.abs(np.stack([value - bound[:, 0], bound[:, 1] - value])), 0)
            axes.errorbar(x + shift, 100 * value, reach, fmt=marker, color=colour, ms=3.5, mew=0, elinewidth=0.8,
                          capsize=2, label=label)  # fmt: skip
        _target_axis(axes, part)
        axes.set_ylabel("successful writes (%)")
        legend_above(axes)
    return drawing


def _effort_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import CYCLE, figure, legend_above

    x = np.arange(part.sizes["target"])
    efforts = [str(value) for value in part["effort"].values]
    with figure(height=60.0) as drawing:
        axes = drawing.add_subplot()
        for row, effort in enumerate(efforts):
            here = part.sel(effort=effort)
            middle, _, high = here["effort_of"].values[:, 0], None, here["effort_of"].values[:, 2]
            at = x + 0.16 * (row - (len(efforts) - 1) / 2)
            axes.vlines(at, middle, high, color=CYCLE[row], lw=0.9)
            axes.plot(at, here["effort_mean"].values, "osD^v"[row % 5], color=CYCLE[row], label=effort)
        axes.set_yscale("symlog", linthresh=1.0)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        _target_axis(axes, part)
        axes.set_ylabel("number per write")
        legend_above(axes)
    return drawing


def resample(part: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    """Return the node with probabilities drawn from their posterior, bias and sigma within their standard errors.

    A probability of k in n is drawn from the beta distribution of Jeffreys' prior, so that it stays within 0 and 1;
    sigmas are drawn on the logarithm, so that they stay positive.
    """
    changed: dict[str, Any] = {}
    pairs = [("success_probability", "n_success", "n_writes")]
    pairs.append(("switching_success_probability", "n_switching_success", "n_switching_writes"))
    pairs.append(("never_switched_probability", "n_never_switched", "n_devices_judged"))
    pairs.append(("failing_device_probability", "n_failing", "n_switching"))
    for key, of_k, of_n in pairs:
        if key in part and of_n in part:
            k, n = part[of_k].values, part[of_n].values
            drawn = generator.beta(k + 0.5, n - k + 0.5)
            changed[key] = part[key].copy(data=np.where(n > 0, drawn, np.nan))
    z = generator.standard_normal(part.sizes["target"])
    changed["bias"] = part["bias"] + np.nan_to_num(part["bias_stderr"].values) * z
    z = generator.standard_normal(part.sizes["target"])
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.exp(np.nan_to_num(part["sigma_stderr"].values / part["sigma"].values) * z)
    for key in ("sigma", "sigma_relative", "sigma_all", "sigma_ln"):
        changed[key] = part[key].copy(data=part[key].values * factor)
    changed["bias"].attrs = part["bias"].attrs
    return part.assign(changed)


member = sys.modules[__name__]
