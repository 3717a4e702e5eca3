"""The node ``selection`` of a device model: the tables by which a conduction law was chosen."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from calib.fitting import curves as c
from calib.fitting import law_comparison as lc
from calib.iv_models import IVModel

if TYPE_CHECKING:
    from calib.fitting.selection import Comparison

PARTS = ("all", "lowest conductance", "highest conductance")
QUARTER = 0.25
HELD_OUT = {
    "curves": "relative error at the curves of left-out devices, predicted from their resistance",
    "between": "relative error at every third voltage, left out in turn",
    "beyond": "relative error beyond two thirds of a curve's voltages, left out",
}
NOISE_MODEL = (
    "sigma^2 = s^2 ((rho I)^2 + (I_floor / 3)^2): relative noise rho of the state, I the smoothed measured current, "
    "I_floor the instrument's noise floor, one factor s a curve; the points of a curve are taken as independent"
)
_RUNS_Z = -1.645


def selection_node(
    found: "Comparison", reach: np.ndarray, reference_voltage: float, generator: np.random.Generator
) -> xr.Dataset:
    """Return the node of a comparison of laws.

    Parameters
    ----------
    found : the comparison; the law that was taken is `found.laws[found.chosen]`.
    reach : (law, state) [V] end of the longest window that each law supports; NaN where not searched.
    reference_voltage : [V] of R.
    generator : draws devices anew for the intervals.
    """
    states, laws = found.states, found.laws
    one, ls = {"units": "1"}, ("law", "state")
    data: dict[str, Any] = {
        "title": ("law", np.array([law.title for law in laws], dtype=str)),
        "reason": ("law", np.array(found.reasons, dtype=str)),
        "n_parameters": ("law", [len(law.parameters) for law in laws]),
        "empirical": ("law", found.empirical.astype(int), {**one, "long_name": "1 where a law only describes curves"}),
        "eligible": ("law", found.eligible.astype(int), {**one, "long_name": "1 where nothing speaks against a law"}),
        "reach": (ls, reach, {"units": "V", "long_name": "end of the longest window that the law supports"}),
        "aicc": (ls, found.aicc, {**one, "long_name": "AICc summed over curves"}),
        "delta_aicc": (ls, found.aicc - found.aicc[found.best], {**one, "long_name": "AICc above the best law's"}),
        "noise": ("state", found.noise, {**one, "long_name": "relative noise of the currents"}),
        "noise_floor": (
            "state", [float(np.median(found.points[s].curves.floor)) for s in states],
            {"units": "A", "long_name": "instrument's noise floor, median over curves"},
        ),
        "limit": ("state", found.limit, {**one, "long_name": "largest difference that counts as none"}),
        "v_max": ("state", [found.windows[s] for s in states], {"units": "V", "long_name": "end of the window"}),
        "n_curves": ("state", [len(found.points[s]) for s in states]),
        "n_devices": ("state", [len(np.unique(found.points[s].curves.device)) for s in states]),
        "n_points": ("state", [int(np.median(found.points[s].clear.sum(1))) for s in states]),
        "n_compared": ("state", found.n_compared),
    }  # fmt: skip
    data |= _by_law_and_state(found, generator) | _misfit_by_voltage(found) | _curvature(found, generator)
    bent = bent_law(found)
    return xr.Dataset(
        data,
        coords={"law": [law.name for law in laws], "state": states, "bound": ["low", "high"], "part": list(PARTS)},
        attrs={
            "iv_model": laws[found.chosen].name,
            "best": laws[found.best].name,
            "curvature_law": "" if bent is None else bent.name,
            "noise_model": NOISE_MODEL,
            "reference_voltage": reference_voltage,
        },
    )


def _by_law_and_state(found: "Comparison", generator: np.random.Generator) -> dict[str, Any]:
    """Return the errors at what was left out, the misfit and the residuals' structure, (law, state)."""
    shape = (len(found.laws), len(found.states))
    names = ("misfit", "residual", "autocorrelation", "runs", "difference", *(f"error_{kind}" for kind in HELD_OUT))
    table = {name: np.full(shape, np.nan) for name in names}
    bound = {name: np.full((*shape, 2), np.nan) for name in names if name.startswith("error") or name == "difference"}
    n_fitted, n_lowest, n_held_out = (np.zeros(shape, dtype=int) for _ in range(3))
    for j, s in enumerate(found.states):
        points = found.points[s]
        each = np.array([found.fits[law.name, s].aicc for law in found.laws])
        each[~found.eligible] = np.nan
        decided = np.isfinite(each).any(0)
        lowest = np.nanargmin(np.where(np.isfinite(each), each, np.inf), axis=0)
        for k, law in enumerate(found.laws):
            fits = found.fits[law.name, s]
            n_fitted[k, j] = int(fits.ok.sum())
            n_lowest[k, j] = int((decided & (lowest == k)).sum())
            if not fits.ok.any():
                continue
            table["misfit"][k, j] = lc.misfit(fits, points)
            table["residual"][k, j] = _median(lc.error_of_curves(fits, points, fits.ok[:, None] & points.clear))
            table["autocorrelation"][k, j] = _median(lc.autocorrelation(fits, points))
            z = lc.runs(fits, points)
            table["runs"][k, j] = (
                float((z[np.isfinite(z) | (z < 0)] < _RUNS_Z).mean()) if (~np.isnan(z)).any() else np.nan
            )
            each_difference = found.differences[law.name, s]
            summary = {"difference": (each_difference, points.curves.device)}
            for kind in HELD_OUT:
                summary[f"error_{kind}"] = (found.held_out[law.name, s][kind], found.held_out_device[s])
            for name, (values, device) in summary.items():
                table[name][k, j], *bound[name][k, j] = lc.median_interval(values, device, generator)
            n_held_out[k, j] = int(np.isfinite(found.held_out[law.name, s]["curves"]).sum())
    words = {
        "misfit": "systematic misfit: root mean square over voltages of the median relative residual",
        "residual": "relative residual, root mean square over voltages, median over curves",
        "autocorrelation": "lag-1 autocorrelation of the residuals along the voltage, median over curves",
        "runs": "share of curves whose residuals have fewer runs than 95 % of random signs",
        "difference": "relative difference from the best law's current over the window, median over curves",
        **{f"error_{kind}": text for kind, text in HELD_OUT.items()},
    }
    ls = ("law", "state")
    data: dict[str, Any] = {
        name: (ls, values, {"units": "1", "long_name": words[name]}) for name, values in table.items()
    }
    data |= {f"{name}_bound": ((*ls, "bound"), values, {"units": "1"}) for name, values in bound.items()}
    return data | {"n_fitted": (ls, n_fitted), "n_lowest": (ls, n_lowest), "n_held_out": (ls, n_held_out)}


def _misfit_by_voltage(found: "Comparison") -> dict[str, Any]:
    """Return the median relative residual in voltage bins of each state."""
    laws, states = found.laws, found.states
    voltage = np.full((len(states), c.MISFIT_BINS), np.nan)
    values = np.full((len(laws), len(states), c.MISFIT_BINS), np.nan)
    for j, s in enumerate(states):
        points = found.points[s]
        for k, law in enumerate(laws):
            fits = found.fits[law.name, s]
            usable = points.clear & np.isfinite(fits.residual) & fits.ok[:, None]
            if not usable.any():
                continue
            at, median, _ = c.misfit_by_voltage(fits.residual[usable], points.voltage[usable])
            values[k, j, : len(median)] = median
            if np.isnan(voltage[j]).all():  # the simplest law comes first: it fits the most curves
                voltage[j, : len(at)] = at
    return {
        "bin_voltage": (("state", "bin"), voltage, {"units": "V", "long_name": "median voltage of a bin"}),
        "bin_misfit": (("law", "state", "bin"), values, {"units": "1", "long_name": "median relative residual"}),
    }


def bent_law(found: "Comparison") -> IVModel | None:
    """Return the eligible law with the lowest AICc that is not Ohm's, by which the curvature is judged."""
    total = np.nansum(found.aicc, axis=1)
    curved = [k for k, law in enumerate(found.laws) if law.shape and found.eligible[k]]
    return found.laws[min(curved, key=lambda k: total[k])] if curved else None


def _curvature(found: "Comparison", generator: np.random.Generator) -> dict[str, Any]:
    """Return how far the curves are from straight: at the window's end, against the best straight line.

    `deviation` is I_bent / I_ohmic - 1 at the window's end, of two laws fitted to the same points; `curvature` is
    G(V_end) / G(V_start) - 1 of the bent law, G = I / V, V_start a fifth of V_end. Medians over curves, of all and of
    the quarters whose ohmic conductance is lowest and highest, with 95 % intervals by drawing devices anew.
    """
    names = ("deviation", "curvature")
    values = {name: np.full((len(found.states), len(PARTS)), np.nan) for name in names}
    bounds = {name: np.full((len(found.states), len(PARTS), 2), np.nan) for name in names}
    count = np.zeros((len(found.states), len(PARTS)), dtype=int)
    bent, straight = bent_law(found), found.laws[0]
    for j, s in enumerate(found.states if bent is not None and not straight.shape else ()):
        assert bent is not None
        ohmic, curved = found.fits[straight.name, s], found.fits[bent.name, s]
        each, conductance = _deviations(curved, ohmic, found.windows[s])
        usable = ohmic.ok & curved.ok & np.isfinite(each["deviation"]) & np.isfinite(conductance)
        if not usable.any():
            continue
        low, high = np.quantile(conductance[usable], [QUARTER, 1 - QUARTER])
        for part, rows in enumerate((usable, usable & (conductance <= low), usable & (conductance >= high))):
            count[j, part] = int(rows.sum())
            for name in names:
                device = found.points[s].curves.device[rows]
                values[name][j, part], *bounds[name][j, part] = lc.median_interval(each[name][rows], device, generator)
    words = {
        "deviation": "current at the window's end above the best straight line's, relative",
        "curvature": "conductance at the window's end above that at a fifth of it, relative",
    }
    sp = ("state", "part")
    data: dict[str, Any] = {name: (sp, values[name], {"units": "1", "long_name": words[name]}) for name in names}
    data |= {f"{name}_bound": ((*sp, "bound"), bounds[name], {"units": "1"}) for name in names}
    return data | {"n_curvature": (sp, count)}


def _deviations(curved: lc.LawFits, ohmic: lc.LawFits, end: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    def conductance(fits: lc.LawFits, voltage: float) -> np.ndarray:
        values = {name: fits.fit.values[:, k] for k, name in enumerate(fits.fit.names)}
        with np.errstate(all="ignore"):
            return fits.law.current(np.full(len(fits.ok), voltage), xp=np, **values) / voltage

    straight = conductance(ohmic, end)
    with np.errstate(all="ignore"):
        deviation = conductance(curved, end) / straight - 1
        curvature = conductance(curved, end) / conductance(curved, lc.LOWEST_VOLTAGE * end) - 1
    return {"deviation": deviation, "curvature": curvature}, straight


def _median(values: np.ndarray) -> float:
    usable = values[np.isfinite(values)]
    return float(np.median(usable)) if len(usable) else float("nan")
