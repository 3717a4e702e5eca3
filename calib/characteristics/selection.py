"""Why a conduction law was chosen: the statistical comparison, the practical differences, and what was left out."""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from calib.characteristics.base import Estimate, Section
from calib.formatting import format_interval, format_number, format_percent, format_quantity, plural
from calib.state_names import state_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

name = "selection"
node = "selection"

CAPTION = (
    "Median relative residual of each law along the voltage: a law that describes the curves stays at zero; the grey "
    "band is the larger of the noise and the practical threshold. The law that was taken is black; laws that could not "
    "be taken are not drawn."
)
_SHOWN = 6
_LARGEST_SHOWN = 0.25


def sections(part: xr.Dataset, tree: xr.DataTree) -> list[Section]:
    """Return the comparison of each state, the practical differences, and how far the curves bend."""
    states = [str(state) for state in part["state"].values]
    found = [_statistics(part, state) for state in states]
    found.append(_differences(part, states))
    if np.isfinite(part["curvature"].values).any():
        found.append(_curvature(part, states))
    return found


def _laws(part: xr.Dataset) -> list[str]:
    """Return the laws in the order of tables: the one that was taken, the best, then by AICc."""
    total = part["delta_aicc"].sum("state", skipna=False)
    chosen, best = part.attrs["iv_model"], part.attrs["best"]
    keys = [
        (law != chosen, law != best, not np.isfinite(a), a) for law, a in zip(_names(part), total.values, strict=True)
    ]
    return [law for _, law in sorted(zip(keys, _names(part), strict=True))]


def _names(part: xr.Dataset) -> list[str]:
    return [str(law) for law in part["law"].values]


def _statistics(part: xr.Dataset, state: str) -> Section:
    rows = []
    for law in _laws(part):
        at = part.sel(law=law, state=state)
        rows.append((
            law, str(int(at["n_parameters"])), _or_dash(at["reach"], lambda v: format_quantity(v, "V")),
            _or_dash(at["delta_aicc"], lambda v: f"{v:+.0f}"), str(int(at["n_lowest"])),
            *(_or_dash(at[f"error_{kind}"], format_percent) for kind in ("curves", "between", "beyond")),
            _or_dash(at["misfit"], format_percent), _or_dash(at["autocorrelation"], lambda v: f"{v:+.2f}"),
        ))  # fmt: skip
    columns = (
        "law", "parameters", "holds to", "AICc", "curves it fits best", "error at other devices", "between voltages",
        "at larger voltages", "misfit", "residuals' correlation",
    )  # fmt: skip
    here = part.sel(state=state)
    notes = [
        f"{plural(int(here['n_curves']), 'curve')} of {plural(int(here['n_devices']), 'device')}, up to "
        f"{float(here['v_max']):g} V, {int(here['n_points'])} points a curve (median); AICc relative to "
        f"{part.attrs['best']}, summed over the {int(here['n_compared'])} curves that every eligible law fits",
        f"relative noise {format_percent(float(here['noise']))}, floor "
        f"{format_quantity(float(here['noise_floor']), 'A')}; weights: {part.attrs['noise_model']}",
        "errors at what was left out: of curves of other devices predicted from their resistance, of every third "
        "voltage, and beyond two thirds of the voltages; relative, median over curves",
    ]
    return Section(f"Choice of the law: {state_name(state)}", columns, tuple(rows), tuple(notes))


def _differences(part: xr.Dataset, states: list[str]) -> Section:
    rows = []
    for law in _laws(part):
        at = part.sel(law=law)
        if law == part.attrs["iv_model"]:
            verdict = "taken"
        elif str(at["reason"].values):
            verdict = f"not eligible: {at['reason'].values}"
        else:
            near = bool((at["difference"].values <= part["limit"].values).all())
            verdict = "as good in practice" if near else "differs from the best"
        cells = []
        for state in states:
            low, high = at["difference_bound"].sel(state=state).values
            value = float(at["difference"].sel(state=state))
            cells.append(
                f"{format_percent(value)} ({format_interval(100 * low, 100 * high)})" if value > 0 else _zero(value)
            )
        rows.append((law, *cells, verdict))
    rows.append(("counts as none up to", *(format_percent(float(part["limit"].sel(state=s))) for s in states), ""))
    columns = ("law", *(state_name(state) for state in states), "")
    notes = (str(part.attrs["statement"]), str(part.attrs["window"]), str(part.attrs["method"]))
    return Section(f"Difference from the best law, {part.attrs['best']}", columns, tuple(rows), notes)


def _zero(value: float) -> str:
    return "0" if value == 0 else "-"


def _curvature(part: xr.Dataset, states: list[str]) -> Section:
    rows = []
    for state in states:
        for group in map(str, part["part"].values):
            at = part.sel(state=state, part=group)
            cells = []
            for key in ("curvature", "deviation"):
                low, high = (100 * at[f"{key}_bound"].values).tolist()
                cells += [format_percent(float(at[key])), f"{format_interval(low, high)} %"]
            label = "all curves" if group == "all" else f"quarter of {group}"
            rows.append((state_name(state), label, *cells, plural(int(at["n_curvature"]), "curve")))
    columns = ("state", "", "growth of I / V", "95 % interval", "above the straight line", "95 % interval", "sample")
    notes = (
        f"by {part.attrs['curvature_law']}: I / V at the window's end against a fifth of it, and the current at the "
        "end against that of the best straight line; medians over curves",
    )
    return Section("How far the curves bend", columns, tuple(rows), notes)


def _or_dash(value: Any, form: Any) -> str:
    number = float(value)
    return form(number) if np.isfinite(number) else "-"


def estimates(part: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    """Return the noise, the difference of the law that was taken from the best, and the curvature."""
    found = []
    chosen = part.sel(law=part.attrs["iv_model"])
    for state in map(str, part["state"].values):
        here, taken = part.sel(state=state), chosen.sel(state=state)
        n = plural(int(here["n_curves"]), "curve")
        validity = f"up to {float(here['v_max']):g} V"
        low, high = taken["difference_bound"].values.tolist()
        found.append(
            Estimate(
                "selection", state, "difference", f"difference of the law's current from that of {part.attrs['best']}",
                float(taken["difference"]), "1", low=low, high=high, interval="95 % confidence", n=n,
                method="root mean square over the window, median over curves", validity=validity,
            )
        )  # fmt: skip
        found.append(
            Estimate("selection", state, "noise", "relative noise of the currents", float(here["noise"]), "1", n=n,
                     method="differences of neighbouring points", validity=validity)
        )  # fmt: skip
        for group in map(str, part["part"].values):
            at = here.sel(part=group)
            low, high = at["curvature_bound"].values.tolist()
            key = "curvature" if group == "all" else f"curvature_{group.replace(' ', '_')}"
            label = "growth of I / V over the window" + ("" if group == "all" else f", quarter of {group}")
            found.append(
                Estimate("selection", state, key, label, float(at["curvature"]), "1", low=low, high=high,
                         interval="95 % confidence", n=plural(int(at["n_curvature"]), "curve"),
                         method=f"by {part.attrs['curvature_law']}, median over curves", validity=validity)
            )  # fmt: skip
    return [estimate for estimate in found if np.isfinite(estimate.value)]


def key_numbers(part: xr.Dataset, tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return how far the curves bend where Ohm's law was taken."""
    if part.attrs["iv_model"] != "ohmic" or not np.isfinite(part["curvature"].values).any():
        return []
    at = part.sel(part="all")
    k = int(np.nanargmax(np.abs(at["curvature"].values)))
    here = at.isel(state=k)
    low, high = (100 * here["curvature_bound"].values).tolist()
    value = f"{format_number(100 * float(here['curvature']), 2)} %"
    return [("curvature left out", value, f"{format_interval(low, high)} %, up to {float(here['v_max']):g} V")]


def figures(part: xr.Dataset, tree: xr.DataTree) -> list[tuple[str, str, "Figure"]]:
    """Return the residuals of the laws along the voltage."""
    from calib.figure_style import COLOURS, CYCLE, figure, legend_above, plain

    states = [str(state) for state in part["state"].values]
    close = [law for law in _laws(part) if law == part.attrs["iv_model"] or not str(part["reason"].sel(law=law).values)]
    with figure(height=30.0 + 32.0 * len(states)) as drawing:
        rows = drawing.subplots(len(states), 1, squeeze=False, sharex=False)[:, 0]
        for axes, state in zip(rows, states, strict=True):
            here = part.sel(state=state)
            limit = 100 * float(here["limit"])
            axes.axhspan(-limit, limit, color=COLOURS["measured"], alpha=0.18, lw=0)
            for k, law in enumerate(close[:_SHOWN]):
                value = here["bin_misfit"].sel(law=law).values
                if not np.isfinite(value).any():
                    continue
                taken = law == part.attrs["iv_model"]
                shown = np.where(np.abs(value) <= _LARGEST_SHOWN, value, np.nan)
                look: dict[str, Any] = {"color": CYCLE[k % len(CYCLE)], "lw": 0.9}
                if taken:
                    look = {"color": COLOURS["fitted"], "lw": 1.4, "marker": "o", "ms": 2.5, "zorder": 3}
                axes.plot(here["bin_voltage"].values, 100 * shown, label=law, **look)
            axes.set_ylabel(f"{plain(state)}: residual (%)")
        rows[-1].set_xlabel("|V| (V)")
        legend_above(rows[0])
    return [("selection", CAPTION, drawing)]


def resample(part: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    """Return the node as it is: the choice of a law is no number to draw."""
    return part


member = sys.modules[__name__]
