"""Conduction laws on the same points: likelihood, prediction of what was left out, and structure of the residuals.

All laws are fitted to the same points with the same weights. The standard deviation of a point is taken as

    sigma_i^2 = s^2 ( (rho I_i)^2 + (I_floor / 3)^2 ),

with rho the relative noise of the state's curves, found without a law (`calib.fitting.curves.noise_of`), I_i the
measured current smoothed over three neighbours in I / V, I_floor the instrument's noise floor, and s one factor a
curve. With n points and k parameters (the law's, the offset where it is fitted, and s)

    AICc = n ln(chi^2 / n) + 2 k + 2 k (k + 1) / (n - k - 1),    chi^2 at s = 1,

a curve, n - k - 1 taken as at least 1, after C. M. Hurvich, C.-L. Tsai, Biometrika 76, 297 (1989),
doi 10.1093/biomet/76.2.297. It takes the points of a curve as independent, which neighbouring voltages need not be;
that is why the laws are also compared by what they predict and by how much they differ.
"""

from dataclasses import dataclass

import numpy as np

from calib.fitting import curves as c
from calib.fitting.least_squares import OK, BatchFit, fit_batch
from calib.iv_models import IVModel

NOISE_WHERE_UNKNOWN = 0.02
FOLDS = 5
VOLTAGE_FOLDS = 3
LOWEST_VOLTAGE = 0.2
"""Laws are compared from this fraction of the window's end: below, offset and noise floor decide."""
INTERVAL_DRAWS = 200
FLOOR_CLEAR = 10.0  # standard deviations of the floor's noise from which on a current is compared
_NEGLIGIBLE_CHI = 1e-4  # a misfit of a hundredth of the noise or less is none
_HUBER = 2.0
_LARGEST_ERROR = 10.0


@dataclass(frozen=True)
class Points:
    """The points of one state in a window, with the weights that all laws share; arrays are (curve, point)."""

    curves: c.Curves
    voltage: np.ndarray
    current: np.ndarray
    expected: np.ndarray
    sigma: np.ndarray
    clear: np.ndarray
    noise: float

    def __len__(self) -> int:
        return len(self.voltage)


@dataclass(frozen=True)
class LawFits:
    """One law's fits.

    Attributes
    ----------
    law, fit : the law, and the batched fit.
    residual : (curve, point) relative to the smoothed current, offset included.
    scaled : (curve, point) residual in units of sigma at s = 1.
    aicc : (curve,) NaN where the fit failed.
    """

    law: IVModel
    fit: BatchFit
    residual: np.ndarray
    scaled: np.ndarray
    aicc: np.ndarray

    @property
    def ok(self) -> np.ndarray:
        """(curve,) whether the fit succeeded and can be compared."""
        return (self.fit.status == OK) & np.isfinite(self.aicc)


def points_of(curves: c.Curves, v_max: float, noise: float) -> Points:
    """Return the points up to `v_max` [V]; `noise` is the relative noise, NaN where not known."""
    voltage, current = c.in_window(curves, v_max)
    rho = max(noise if np.isfinite(noise) else NOISE_WHERE_UNKNOWN, c.RELATIVE_NOISE_MINIMUM)
    floor = curves.floor[:, None] / c.FLOOR_SIGMAS
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(voltage > 0, current / voltage, np.nan)
    around = np.stack(
        [np.pad(ratio, ((0, 0), (1, 1)), constant_values=np.nan)[:, k : k + ratio.shape[1]] for k in range(3)]
    )
    count = np.isfinite(around).sum(0)
    smooth = np.nansum(around, axis=0) / np.maximum(count, 1)
    expected = np.where((voltage > 0) & (count > 0), np.abs(smooth * voltage), np.abs(current))
    sigma = np.hypot(rho * expected, floor)
    clear = np.isfinite(current) & (voltage > 0) & (expected > FLOOR_CLEAR * floor) & (expected > 0)
    return Points(curves, voltage, current, expected, sigma, clear, rho)


def fit_law(law: IVModel, points: Points, keep: np.ndarray | None = None, *, careful: bool = True) -> LawFits:
    """Fit a law to the points, or to those in `keep` (curve, point), and evaluate it at all of them.

    `careful` is that of `fit_batch`.
    """
    current = points.current if keep is None else np.where(keep, points.current, np.nan)
    with np.errstate(all="ignore"):  # laws are also tried on curves that they are far from
        fit = fit_batch(
            law, points.voltage, current, points.sigma, fit_offset=points.curves.has_offset, careful=careful
        )
        values = {name: fit.values[:, k, None] for k, name in enumerate(fit.names)}
        alone = law.current(points.voltage, xp=np, **values)
        off = alone + fit.offset[:, None] - points.current
        residual, scaled = off / points.expected, off / points.sigma
        usable = np.isfinite(scaled) if keep is None else np.isfinite(scaled) & keep
        n = usable.sum(1)
        chi = np.square(np.where(usable, scaled, 0.0)).sum(1)
        k = len(law.parameters) + points.curves.has_offset + 1
        free = n - k - 1
        correction = 2 * k * (k + 1) / np.maximum(free, 1)
        aicc = n * np.log(np.maximum(chi / np.maximum(n, 1), _NEGLIGIBLE_CHI)) + 2 * k + correction
    aicc = np.where((n > 0) & (fit.status == OK), aicc, np.nan)
    return LawFits(law, fit, residual, scaled, aicc)


def no_fit(law: IVModel, points: Points) -> LawFits:
    """Return the fits of a law that is not tried: all of them failed."""
    return fit_law(law, points, np.zeros(points.voltage.shape, dtype=bool))


def over_the_range(points: Points) -> np.ndarray:
    """Return the points (curve, point) over which currents are compared: clear, and not at the smallest voltages."""
    end = np.nanmax(np.where(points.clear, points.voltage, 0.0), initial=0.0)
    return points.clear & (points.voltage >= LOWEST_VOLTAGE * end)


def noise_over_the_range(points: Points) -> float:
    """Return the relative noise, that of the floor included: root mean square over the range, median over curves."""
    judged = over_the_range(points)
    each = _rms(points.sigma / np.where(points.expected > 0, points.expected, np.nan), judged)
    return float(np.median(each[np.isfinite(each)])) if np.isfinite(each).any() else 0.0


def difference(fits: LawFits, best: LawFits, points: Points) -> np.ndarray:
    """Return each curve's root mean square of (I - I_best) / I over the range; NaN where either law was not fitted.

    The offsets that were fitted are part of the currents: at small voltages the data do not tell the two apart.
    """
    judged = over_the_range(points) & (fits.ok & best.ok)[:, None]
    with np.errstate(invalid="ignore"):
        return _rms(fits.residual - best.residual, judged)


def misfit(fits: LawFits, points: Points) -> float:
    """Return the systematic part of the residual (`curves.systematic_misfit`) over the curves that were fitted."""
    residual = np.where(fits.ok[:, None] & points.clear, fits.residual, np.nan)
    floor = np.broadcast_to(points.curves.floor[:, None] / c.FLOOR_SIGMAS, residual.shape)
    return c.systematic_misfit(residual, points.voltage, points.current, floor, len(fits.law.parameters))


def autocorrelation(fits: LawFits, points: Points) -> np.ndarray:
    """Return each curve's lag-1 autocorrelation of the scaled residuals along the voltage; NaN under four points."""
    ordered = _along_voltage(fits, points)
    both = np.isfinite(ordered[:, 1:]) & np.isfinite(ordered[:, :-1])
    products = np.where(both, ordered[:, 1:] * ordered[:, :-1], 0.0).sum(1)
    square = np.nansum(np.square(ordered), axis=1)
    count = np.isfinite(ordered).sum(1)
    return np.where((count >= 4) & (square > 0), products / np.where(square > 0, square, 1.0), np.nan)


def runs(fits: LawFits, points: Points) -> np.ndarray:
    """Return each curve's z of the runs test: far below zero where residuals of one sign stand together.

    With n+ and n- residuals of either sign, independent signs give 1 + 2 n+ n- / n runs on average, with variance
    (mean - 1)(mean - 2) / (n - 1) (A. Wald, J. Wolfowitz, Ann. Math. Stat. 11, 147 (1940),
    doi 10.1214/aoms/1177731909). NaN under eight points.
    """
    ordered = _along_voltage(fits, points)
    present = np.isfinite(ordered)
    positive = present & (ordered > 0)
    n, up = present.sum(1), positive.sum(1)
    changes = (positive[:, 1:] != positive[:, :-1]) & present[:, 1:] & present[:, :-1]
    mean = 1 + 2 * up * (n - up) / np.maximum(n, 1)
    variance = (mean - 1) * (mean - 2) / np.maximum(n - 1, 1)
    z = (1 + changes.sum(1) - mean) / np.sqrt(np.where(variance > 0, variance, 1.0))
    return np.where((n >= 8) & (variance > 0), z, np.where(n >= 8, -np.inf, np.nan))


def _along_voltage(fits: LawFits, points: Points) -> np.ndarray:
    """Return the scaled residuals of clear points sorted by voltage, gaps closed."""
    usable = points.clear & np.isfinite(fits.scaled)
    order = np.argsort(np.where(usable, points.voltage, np.inf), axis=1)
    return np.take_along_axis(np.where(usable, fits.scaled, np.nan), order, axis=1)


def error_of_curves(fits: LawFits, points: Points, judged: np.ndarray) -> np.ndarray:
    """Return each curve's root mean square of the relative residual over the judged, clear points; NaN without any."""
    return _rms(fits.residual, judged & points.clear)


def held_out_voltages(law: IVModel, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return each curve's relative error at voltages that its fit did not see: in between, and beyond.

    In between: every third point is left out, then the next ones, `VOLTAGE_FOLDS` times. Beyond: the points above two
    thirds of the curve's voltages are left out. NaN where too few points are left to fit.
    """
    rank = np.argsort(np.argsort(np.where(points.clear, points.voltage, np.inf), axis=1), axis=1)
    square, count = np.zeros(len(points)), np.zeros(len(points))
    for fold in range(VOLTAGE_FOLDS):
        out = points.clear & (rank % VOLTAGE_FOLDS == fold)
        error = _left_out(law, points, out)
        square += np.nan_to_num(np.square(error))
        count += np.isfinite(error)
    with np.errstate(invalid="ignore"):
        top = np.where(points.clear, points.voltage, 0.0).max(1, keepdims=True, initial=0.0)
        beyond = _left_out(law, points, points.clear & (points.voltage > 2 / 3 * top))
    return np.where(count > 0, np.sqrt(square / np.maximum(count, 1)), np.nan), beyond


def _left_out(law: IVModel, points: Points, out: np.ndarray) -> np.ndarray:
    """Return each curve's error at the points `out` of a fit to the others; NaN where that fit failed."""
    fits = fit_law(law, points, ~out)
    return np.where(fits.fit.status == OK, error_of_curves(fits, points, out), np.nan)


def held_out_curves(fits: LawFits, points: Points, reference_voltage: float) -> np.ndarray:
    """Return each curve's relative error when only its resistance is known.

    The curves of a device (of a cycle, where one device was measured) are left out together, in `FOLDS` parts. The
    law's shape parameters are regressed on ln R over the other curves; a left-out curve is predicted from its measured
    R = V / I at the reference voltage, or at the nearest voltage in the window, and that line. NaN where R was not
    measured or there are too few other curves.
    """
    law = fits.law
    anchor, ln_r = _measured_resistance(points, reference_voltage)
    groups = points.curves.device if len(np.unique(points.curves.device)) > 1 else points.curves.cycle
    _, index = np.unique(groups, return_inverse=True)
    shape = [law.parameter_names.index(name) for name in law.shape]
    predicted = np.full((len(points), len(shape)), np.nan)
    at_bound = np.asarray(getattr(fits.fit, "at_bound", np.zeros((len(points), 1), dtype=bool))).any(1)
    known = fits.ok & np.isfinite(ln_r) & ~at_bound
    for fold in range(FOLDS):
        out, train = (index % FOLDS == fold) & np.isfinite(ln_r), (index % FOLDS != fold) & known
        if train.sum() < 4:
            continue
        for column, k in enumerate(shape):
            variance = fits.fit.unscaled[train, k, k]
            line = _robust_line(ln_r[train], fits.fit.internal[train, k], variance)
            predicted[out, column] = line[0] + line[1] * ln_r[out]
    values = {
        name: np.exp(np.clip(predicted[:, j], -300, 300)) if law.parameter(name).transform == "log" else predicted[:, j]
        for j, name in enumerate(law.shape)
    }
    with np.errstate(all="ignore"):
        scale = law.anchor(np.exp(ln_r), anchor, xp=np, **values)
        columns = {law.scale: scale[:, None], **{name: value[:, None] for name, value in values.items()}}
        current = law.current(points.voltage, xp=np, **columns)
        offset = np.where(np.isfinite(fits.fit.offset), fits.fit.offset, 0.0)[:, None]
        residual = (current + offset - points.current) / points.expected
    predictable = np.isfinite(ln_r) & np.isfinite(predicted).all(1)
    return np.where(predictable, _rms(residual, points.clear), np.nan)


def median_interval(
    values: np.ndarray, device: np.ndarray, generator: np.random.Generator
) -> tuple[float, float, float]:
    """Return the median over curves and its 95 % interval by drawing devices anew (curves, where there is one)."""
    usable = np.isfinite(values)
    values, device = values[usable], device[usable]
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    labels, index = np.unique(device, return_inverse=True)
    members = (
        [np.flatnonzero(index == k) for k in range(len(labels))]
        if len(labels) > 1
        else list(np.arange(len(values))[:, None])
    )
    if len(members) < 2:
        return float(np.median(values)), float("nan"), float("nan")
    draws = generator.integers(len(members), size=(INTERVAL_DRAWS, len(members)))
    medians = [np.median(values[np.concatenate([members[k] for k in draw])]) for draw in draws]
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def _rms(relative: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Return each row's root mean square; a value that is not finite or is huge counts as `_LARGEST_ERROR`."""
    value = np.where(np.isfinite(relative), np.clip(np.abs(relative), 0, _LARGEST_ERROR), _LARGEST_ERROR)
    count = judged.sum(1)
    mean = np.square(np.where(judged, value, 0.0)).sum(1) / np.maximum(count, 1)
    return np.where(count > 0, np.sqrt(mean), np.nan)


def _measured_resistance(points: Points, reference_voltage: float) -> tuple[float, np.ndarray]:
    """Return the voltage nearest to the reference at which most curves have clear points, and ln(V / I) there."""
    v = np.where(points.clear, points.voltage, np.nan)
    some = points.clear.sum(1) >= 2
    ln_r = np.full(len(points), np.nan)
    if not some.any():
        return reference_voltage, ln_r
    low, high = (float(np.median(f(v[some], axis=1))) for f in (np.nanmin, np.nanmax))
    anchor = float(np.clip(reference_voltage, low, high))
    for row in np.flatnonzero(some):
        at = np.flatnonzero(points.clear[row] & (points.current[row] > 0))
        at = at[np.argsort(points.voltage[row, at])]
        x = points.voltage[row, at]
        if len(at) >= 2 and x[0] <= anchor * 1.01 and x[-1] >= anchor * 0.99:
            ln_r[row] = np.interp(anchor, x, np.log(x / points.current[row, at]))
    return anchor, ln_r


def _robust_line(x: np.ndarray, t: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Return intercept and slope of t on x, each value weighted with its own error and the spread about the line.

    Iteratively reweighted least squares with Huber's weights; the spread is 1.4826 times the median absolute residual.
    """
    usable = np.isfinite(x) & np.isfinite(t) & np.isfinite(variance)
    x, t, variance = x[usable], t[usable], variance[usable]
    if not len(x):
        return float("nan"), float("nan")
    centre = float(np.median(x))
    dx = x - centre
    level, slope = float(np.median(t)), 0.0
    for _ in range(8):
        off = np.abs(t - level - slope * dx)
        spread = 1.4826 * float(np.median(off)) + 1e-12
        width = np.sqrt(variance + spread**2)
        w = _HUBER / np.maximum(off / width, _HUBER) / width**2
        mean_x, mean_t = np.average(dx, weights=w), np.average(t, weights=w)
        square = np.average(np.square(dx - mean_x), weights=w)
        slope = float(np.average((dx - mean_x) * (t - mean_t), weights=w) / square) if square > 1e-12 else 0.0
        level = float(mean_t - slope * mean_x)
    return level - slope * centre, slope
