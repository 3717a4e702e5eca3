"""Per-curve fits of a conduction law: which points, which window, and the status of every curve."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from calib.errors import FitError, OptionError
from calib.fitting.least_squares import OK, BatchFit, fit_batch
from calib.iv_models import IVModel

EXCLUDED_FLAGS = ("compliance", "spike", "below_floor", "switching", "saturated", "duplicate")
MISFIT_THRESHOLD = 0.05
"""Root mean square of the law's relative misfit, median over curves, up to which a window is supported."""
MISFIT_BINS = 12
RELATIVE_NOISE_MINIMUM = 1e-3
FLOOR_SIGMAS = 3.0
"""The noise floor is taken as this many standard deviations of the instrument's noise."""
SEARCHED_CURVES = 300
"""A window is searched on at most this many curves, spread over the devices; the fit is of all."""
_PROBES = 24
_COARSE = 4  # every fourth probe first, then those between the last that serves and the first that does not
_CONTRASTS = 12  # fewer than this do not tell the noise


@dataclass(frozen=True)
class Curves:
    """The curves of one resistance state at one polarity, folded to positive voltage.

    Attributes
    ----------
    state : name of the state.
    device, cycle : (curve,) where each comes from.
    voltage, current : (curve, point) [V], [A]; NaN where there is no point or it is not used.
    floor : (curve,) [A] the instrument's noise floor.
    has_offset : whether a constant current offset was found in these curves.
    n_excluded : number of points left out, by reason.
    """

    state: str
    device: np.ndarray
    cycle: np.ndarray
    voltage: np.ndarray
    current: np.ndarray
    floor: np.ndarray
    has_offset: bool
    n_excluded: dict[str, int]

    def __len__(self) -> int:
        return len(self.device)


@dataclass(frozen=True)
class CurveFits:
    """The fits of one state's curves and the window in which they were made."""

    curves: Curves
    fit: BatchFit
    ln_r: np.ndarray
    ln_r_stderr: np.ndarray
    relative_rms: np.ndarray
    v_min: float
    v_max: float

    @property
    def ok(self) -> np.ndarray:
        """(curve,) whether the fit succeeded and gives a resistance."""
        return (self.fit.status == OK) & np.isfinite(self.ln_r)


def flag_mask(node: xr.Dataset, names: tuple[str, ...] = EXCLUDED_FLAGS) -> np.ndarray:
    """Return where any of the named flags is set, (sweep, point)."""
    meanings = str(node["flag"].attrs["flag_meanings"]).split()
    masks = np.atleast_1d(node["flag"].attrs["flag_masks"])
    bits = sum(int(mask) for mask, name in zip(masks, meanings, strict=True) if name in names)
    return (node["flag"].values & bits) != 0


def select(node: xr.Dataset, state: str, polarity: str) -> Curves:
    """Take the branches of one state and polarity from a Measurement's iv node, without the flagged points."""
    rows = np.flatnonzero((node["state"].values == state) & (node["polarity"].values == polarity))
    part = node.isel(sweep=rows)
    sign = -1.0 if polarity == "negative" else 1.0
    voltage, current = sign * part["voltage"].values, sign * part["current"].values
    measured = np.isfinite(voltage) & np.isfinite(current)
    offset = np.nan_to_num(part["offset"].values) if "offset" in part.coords else np.zeros(len(rows))
    has_offset = bool((offset != 0).any())
    excluded = {name: int((flag_mask(part, (name,)) & measured).sum()) for name in EXCLUDED_FLAGS}
    keep = measured & ~flag_mask(part) & (has_offset | (voltage > 0))
    floor = part["noise_floor"].values if "noise_floor" in part.coords else np.zeros(len(rows))
    return Curves(
        state=state,
        device=part["device"].values.astype(str),
        cycle=part["cycle"].values,
        voltage=np.where(keep, voltage, np.nan),
        current=np.where(keep, current - sign * offset[:, None], np.nan),
        floor=np.nan_to_num(floor),
        has_offset=has_offset,
        n_excluded={name: count for name, count in excluded.items() if count},
    )


def in_window(curves: Curves, v_max: float) -> tuple[np.ndarray, np.ndarray]:
    """Return voltage and current with the points beyond `v_max` replaced by NaN, columns that stay empty removed."""
    inside = curves.voltage <= v_max * (1 + 1e-9)
    some = inside.any(0)
    voltage = np.where(inside, curves.voltage, np.nan)[:, some]
    return voltage, np.where(inside, curves.current, np.nan)[:, some]


def fit_window(law: IVModel, curves: Curves, v_max: float) -> tuple[BatchFit, np.ndarray, float]:
    """Fit every curve up to `v_max`, weighted with the noise that the curves themselves show.

    The standard deviation of a point is sqrt((rho I)^2 + (I_floor / 3)^2); rho, the relative noise, and I are those of
    a first fit with relative weights of the measured current, which alone would be biased by -2 rho^2.

    Returns
    -------
    fit : the batched fit.
    residual : (curve, point) relative residual (I_fit - I) / |I|, NaN where there is no point.
    misfit : root mean square over the voltages of a curve, median over curves, of the residual that is not noise of
        the floor.
    """
    voltage, current = in_window(curves, v_max)
    absolute = np.broadcast_to(curves.floor[:, None] / FLOOR_SIGMAS, current.shape)
    relative = 0.05
    fit = fit_batch(law, voltage, current, np.hypot(relative * current, absolute), fit_offset=curves.has_offset)
    residual = relative_residual(law, fit, voltage, current)
    clear = np.isfinite(residual) & (np.abs(current) > 10 * absolute)
    if clear.any():
        relative = max(1.4826 * float(np.median(np.abs(residual[clear]))), RELATIVE_NOISE_MINIMUM)
        with np.errstate(invalid="ignore"):
            expected = current + residual * np.abs(current)  # not the measured one: it favours what noise made small
        expected = np.where(np.isfinite(expected), expected, current)
        fit = fit_batch(law, voltage, current, np.hypot(relative * expected, absolute), fit_offset=curves.has_offset)
        residual = relative_residual(law, fit, voltage, current)
    return fit, residual, systematic_misfit(residual, voltage, current, absolute, len(law.parameters))


def relative_residual(law: IVModel, fit: BatchFit, voltage: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Return (I_fit - I) / |I|, (curve, point)."""
    parameters = {name: fit.values[:, k, None] for k, name in enumerate(fit.names)}
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        model = law.current(voltage, xp=np, **parameters) + fit.offset[:, None]
        return (model - current) / np.abs(current)


def systematic_misfit(
    residual: np.ndarray, voltage: np.ndarray, current: np.ndarray, absolute: np.ndarray, parameters: int
) -> float:
    """Return the systematic part of the residual: root mean square over voltage bins of its median in a bin.

    Noise averages out over the curves in a bin, the law's misfit does not. Only currents clear of the floor count.
    """
    clear = np.isfinite(residual) & (np.abs(current) > 10 * absolute)
    if not clear.any():
        return 0.0
    if clear.sum() <= parameters * clear.any(1).sum():  # as many parameters as points: nothing is left to see
        return 0.0
    _, medians, counts = misfit_by_voltage(residual[clear], voltage[clear])
    return float(np.sqrt(np.average(np.square(medians), weights=counts)))


def misfit_by_voltage(residual: np.ndarray, voltage: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of up to `MISFIT_BINS` voltage bins with alike numbers of points: median voltage and residual, points."""
    edges = np.unique(np.quantile(voltage, np.linspace(0, 1, MISFIT_BINS + 1)))
    bins = np.clip(np.searchsorted(edges, voltage, side="right") - 1, 0, max(len(edges) - 2, 0))
    inside = [bins == k for k in np.unique(bins)]
    return (
        np.array([np.median(voltage[k]) for k in inside]),
        np.array([np.median(residual[k]) for k in inside]),
        np.array([np.count_nonzero(k) for k in inside]),
    )


def voltage_levels(curves: Curves) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the set-points > 0 of the curves: median and largest voltage of each, and its number of points.

    Set-points that differ by less than 1 %, and less than a fifth of the usual step, are one: 0.101 and 0.10127 V.
    """
    measured = np.sort(curves.voltage[np.isfinite(curves.voltage) & (curves.voltage > 0)])
    if not len(measured):
        return measured, measured, measured
    steps = np.abs(np.diff(curves.voltage, axis=1))
    steps = steps[np.isfinite(steps) & (steps > 0)]
    same = np.minimum(0.01 * measured[1:], 0.2 * float(np.median(steps)) if len(steps) else np.inf)
    groups = np.split(measured, np.flatnonzero(np.diff(measured) > same) + 1)
    if any(np.ptp(group) > 0.02 * group[-1] for group in groups):  # measured voltages, which run into one another
        levels, counts = np.unique(np.round(measured, 6), return_counts=True)
        return levels, levels, counts
    return tuple(np.array([take(group) for group in groups]) for take in (np.median, np.max, len))  # type: ignore[return-value]


def supported_window(law: IVModel, curves: Curves) -> tuple[float, float]:
    """Find the largest voltage up to which the law describes the curves.

    Windows grow over the measured voltages; the last one before the misfit (see `fit_window`) first exceeds
    `MISFIT_THRESHOLD` is taken, and no window is smaller than two points more than the law has parameters. The search
    uses at most `SEARCHED_CURVES` curves.

    Returns
    -------
    v_max [V], and the misfit in that window.

    Raises
    ------
    FitError
        When no curve has enough points.
    """
    few = thinned(curves, SEARCHED_CURVES)
    ends = window_ends(law, few)
    misfits: dict[float, float] = {}

    def serves(end: float) -> bool:
        misfits[end] = fit_window(law, few, end)[2]
        return misfits[end] <= MISFIT_THRESHOLD

    end = last_that_serves(ends, serves)
    end = float(ends[0]) if end is None else end
    return end, misfits[end]


def window_ends(law: IVModel, curves: Curves) -> np.ndarray:
    """Return the voltages at which windows for a law may end, ascending: measured ones that half the curves reach.

    Raises
    ------
    FitError
        When the curves have too few voltages for the law.
    """
    measured = curves.voltage[curves.voltage > 0]
    _, levels, counts = voltage_levels(curves)
    levels = levels[counts >= max(1, 0.02 * len(curves))]
    points = int(np.median((curves.voltage > 0).sum(1)))
    if len(levels) < points:  # the voltages are measured ones, which differ from curve to curve
        levels = np.unique(np.quantile(measured, np.linspace(0, 1, points)))
    needed = len(law.parameters) + curves.has_offset + 2
    if len(levels) < needed:
        raise FitError(
            f"the curves of state '{curves.state}' have {len(levels)} usable voltages; {law.name} needs {needed}; "
            "measure more points below the switching voltage"
            + ("" if not law.shape else ", or fit the ohmic law (--iv-model ohmic)")
        )
    reach = np.nanmax(np.where(np.isfinite(curves.voltage), curves.voltage, 0.0), axis=1)
    levels = levels[levels <= max(float(np.median(reach)), levels[needed - 1])]
    return levels[np.unique(np.round(np.linspace(needed - 1, len(levels) - 1, _PROBES)).astype(int))]


def last_that_serves(ends: np.ndarray, serves: Callable[[float], bool]) -> float | None:
    """Return the last of ascending window ends before the first that does not serve; None where not even one does.

    Every fourth end is tried, then those between the last that serves and the first that does not.
    """
    coarse = [*range(0, len(ends), _COARSE)]
    if coarse[-1] != len(ends) - 1:
        coarse.append(len(ends) - 1)
    last, first_bad = -1, len(ends)
    for k in coarse:
        if not serves(float(ends[k])):
            first_bad = k
            break
        last = k
    if last < 0:
        return None
    for k in range(last + 1, first_bad):
        if not serves(float(ends[k])):
            break
        last = k
    return float(ends[last])


def some(curves: Curves, rows: np.ndarray) -> Curves:
    """Return some of the curves."""
    return replace(
        curves, device=curves.device[rows], cycle=curves.cycle[rows], voltage=curves.voltage[rows],
        current=curves.current[rows], floor=curves.floor[rows],
    )  # fmt: skip


def thinned(curves: Curves, most: int) -> Curves:
    """Return at most `most` curves, evenly spaced in the order of device and cycle, whatever order they are in."""
    if len(curves) <= most:
        return curves
    order = np.lexsort((curves.cycle, curves.device))
    return some(curves, np.sort(order[np.linspace(0, len(order) - 1, most).round().astype(int)]))


def noise_of(curves: Curves, v_max: float) -> float:
    """Return the relative noise of the currents without assuming a law; NaN where there are too few points.

    Of ln(I / V) at five neighbouring voltages of a curve, the combination with coefficients
    c_j ~ 1 / prod_(k != j) (V_j - V_k), of unit norm, removes any cubic and leaves the noise (differences of fourth
    order; P. Hall, J. W. Kay, D. M. Titterington, Biometrika 77, 521 (1990), doi 10.1093/biomet/77.3.521). The noise is
    1.4826 times the median of their absolute values, over points clear of the floor; where five neighbours are too
    many, four or three are taken.
    """
    voltage, current = in_window(curves, v_max)
    clear = (voltage > 0) & (current > 10 * curves.floor[:, None] / FLOOR_SIGMAS) & (current > 0)
    v = np.where(clear, voltage, np.nan)
    order = np.argsort(v, axis=1)  # NaN last
    v = np.take_along_axis(v, order, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        y = np.log(np.take_along_axis(np.where(clear, current, np.nan), order, axis=1) / v)
    for count in (5, 4, 3):
        if v.shape[1] < count:
            continue
        x = np.lib.stride_tricks.sliding_window_view(v, count, axis=1)
        x, values = (a[np.isfinite(x).all(-1)] for a in (x, np.lib.stride_tricks.sliding_window_view(y, count, axis=1)))
        apart = x[:, :, None] - x[:, None, :] + np.eye(count)
        distinct = (np.abs(apart) > 1e-9).all((1, 2))
        contrast = 1 / apart[distinct].prod(-1)
        contrast /= np.linalg.norm(contrast, axis=1, keepdims=True)
        if len(contrast) >= _CONTRASTS:
            return 1.4826 * float(np.median(np.abs((contrast * values[distinct]).sum(1))))
    return float("nan")


def fit_curves(law: IVModel, curves: Curves, v_max: float, reference_voltage: float) -> CurveFits:
    """Fit every curve and read R = V_ref / I(V_ref) of the fitted law, offset removed.

    Raises
    ------
    OptionError
        When `v_max` is beyond the data.
    """
    measured = curves.voltage[np.isfinite(curves.voltage)]
    if not len(measured):
        raise FitError(f"the curves of state '{curves.state}' have no usable point; 'calib inspect' lists why")
    if v_max > measured.max() * (1 + 1e-6):
        raise OptionError(
            f"--v-max is {v_max:g} V but the usable curves of state '{curves.state}' end at {measured.max():g} V; "
            f"give at most {measured.max():g}, or leave it out"
        )
    fit, residual, _ = fit_window(law, curves, v_max)
    ln_r, ln_r_stderr = ln_resistance(law, fit, reference_voltage)
    inside = measured[(measured > 0) & (measured <= v_max * (1 + 1e-9))]
    with np.errstate(invalid="ignore"):
        count = np.isfinite(residual).sum(1)
        relative_rms = np.sqrt(np.nansum(np.square(residual), axis=1) / np.maximum(count, 1))
    relative_rms = np.where(count > 0, relative_rms, np.nan)
    return CurveFits(curves, fit, ln_r, ln_r_stderr, relative_rms, float(inside.min()), v_max)


def ln_resistance(law: IVModel, fit: BatchFit, reference_voltage: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ln(R / Ohm) at the reference voltage and its standard error, by the law's gradient."""
    parameters = {name: fit.values[:, k] for k, name in enumerate(fit.names)}
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        ln_r = np.log(law.resistance(reference_voltage, xp=np, **parameters))
    gradient = ln_r_gradient(law, fit, reference_voltage)
    variance = np.einsum("ci,cij,cj->c", gradient, np.nan_to_num(fit.covariance), gradient)
    return ln_r, np.where(np.isfinite(ln_r), np.sqrt(np.maximum(variance, 0.0)), np.nan)


def ln_r_gradient(law: IVModel, fit: BatchFit, reference_voltage: float) -> np.ndarray:
    """Return the derivative of ln R by the fitted coordinates, (curve, parameter)."""
    parameters = {name: fit.values[:, k] for k, name in enumerate(fit.names)}
    at = np.full(len(fit.values), reference_voltage)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        current = law.current(at, xp=np, **parameters)
        partial = law.jacobian(at, xp=np, **parameters)
        columns = []
        for k, parameter in enumerate(law.parameters):
            chain = fit.values[:, k] if parameter.transform == "log" else 1.0
            columns.append(-partial[parameter.name] * chain / current)
    return np.nan_to_num(np.stack(columns, axis=-1))
