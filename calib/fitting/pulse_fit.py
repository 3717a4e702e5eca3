"""A law of the pulse response fitted to many trains of pulses at once, by restricted maximum likelihood.

Noise has two parts, which the readings of a train keep apart by how long they last. Write noise stays: the device
goes on from where the pulse left it. The rest, read noise and what relaxes before the next reading, does not:

    d_n = phi_n d_(n-1) + e_n,   y_n = G(n) + d_n + h_n,   Var e_n = s^2 rho v_n,   Var h_n = s^2 (1 - rho) v_n,

where phi_n = min(1, step_n / step_(n-1)) exp(-1 / memory) is how a deviation is pulled back, by the law's own update
(for soft bounds exp(-1/A)) and by forgetting, and v_n = |step_n|^(2 growth), of mean 1, lets the noise grow with the
step. The differences y_n - phi_n y_(n-1) have a tridiagonal covariance, whose Cholesky factor makes them white; start,
change and s^2 are then linear or in closed form (G. H. Golub, V. Pereyra, SIAM J. Numer. Anal. 10, 413 (1973), doi
10.1137/0710036), which leaves the shape, rho, the growth and the memory. The restricted likelihood is maximised (H. D.
Patterson, R. Thompson, Biometrika 58, 545 (1971), doi 10.1093/biomet/58.3.545), so that the line that was fitted does
not make the noise look smaller. All trains share one factorisation.

Trials with known truth: the 95 % intervals of start, change and shape cover 88 to 96 % of single trains of 60 to 200
readings, and about 80 % of trains of 25 readings whose noise stays, where the noise itself is hardly known.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve_banded, cholesky_banded, get_lapack_funcs

from calib.fitting.pulse_trains import Trains
from calib.pulse_laws import PulseLaw

_RHO = (-14.0, 14.0)  # logit of the share of the noise that persists
_GROWTH = (-0.5, 1.2)  # power of the step with which the noise grows
_SMALL_STEP = 1e-4
_FORGETTING = (-9.0, -0.5)  # ln of 1 / memory, in readings
_NEVER = -30.0
_FORGETS = 12.0
"""How much a finite memory has to lower -2 ln likelihood: detrended noise that never forgets looks as if it did (the
5 % point of the test for a unit root beside a trend is t = -3.4; D. A. Dickey, W. A. Fuller, J. Am. Stat. Assoc. 74,
427 (1979), doi 10.1080/01621459.1979.10482531)."""
_STARTS = ((-5.0, 0.0, _NEVER), (3.0, 0.0, _NEVER), (-3.0, 1.0, _NEVER), (3.0, 1.0, _NEVER))
FEWEST_FOR_MEMORY = 40
"""A shorter train cannot tell noise that fades from noise that stays."""
_FADING_STARTS = ((-1.5, 0.0, -2.5), (2.0, 1.0, -2.5))
_GRID_POINTS = 9
_ROUNDS = 12
_AT_BOUND = 1e-3
_SINGULAR = 1e-12
(_solve_triangular,) = get_lapack_funcs(("tbtrs",), dtype=np.float64)


@dataclass(frozen=True)
class TrainFits:
    """One law fitted to every train; arrays over trains.

    Attributes
    ----------
    start, change : G at x = 0, and from there to x = 1.
    u : search coordinate of the shape parameter.
    covariance : (train, 3, 3) of (start, change, u).
    write_noise, other_noise : standard deviation of what persists and of what does not, root mean square over the
        train; `_log_stderr` are standard errors of their logarithms, NaN at a bound.
    growth : power of the step with which the noise grows: 0 the same everywhere, 1 in proportion to the step.
    memory : readings after which a deviation has faded to 1/e beside the law's own pull; infinite where it stays.
    ends, ends_stderr : (2, train) conductance that the device had at its first and last reading, transient noise
        removed (its expectation given all readings), and standard errors.
    variance_shape : (reading,) v_n.
    deviance : -2 ln likelihood.
    aicc : corrected information criterion of Akaike (C. M. Hurvich, C.-L. Tsai, Biometrika 76, 297 (1989)).
    shape_at_bound, write_noise_at_bound : whether the search ended at a bound.
    """

    law: PulseLaw
    start: np.ndarray
    change: np.ndarray
    u: np.ndarray
    covariance: np.ndarray
    write_noise: np.ndarray
    write_noise_log_stderr: np.ndarray
    other_noise: np.ndarray
    other_noise_log_stderr: np.ndarray
    growth: np.ndarray
    memory: np.ndarray
    ends: np.ndarray
    ends_stderr: np.ndarray
    variance_shape: np.ndarray
    deviance: np.ndarray
    aicc: np.ndarray
    shape_at_bound: np.ndarray
    write_noise_at_bound: np.ndarray


def fit_law(law: PulseLaw, trains: Trains) -> TrainFits:
    """Fit one law to every train by maximum likelihood; every train needs `pulse_trains.MINIMUM_READINGS` readings
    and a change."""
    likelihood = _Likelihood(law, trains)
    point = _search(likelihood)
    return _finish(likelihood, point)


class _Likelihood:
    """-2 ln likelihood of every train, with start, change and s^2 at their best, as a function of a point.

    A point is (4, train): u, logit rho, growth, -ln memory.
    """

    def __init__(self, law: PulseLaw, trains: Trains) -> None:
        self.law, self.trains = law, trains
        self.first, self.n = trains.first, trains.count.astype(float)
        self.centre = np.add.reduceat(trains.y, self.first) / self.n
        centred = trains.y - self.centre[trains.owner]
        self.scale = np.sqrt(np.add.reduceat(centred**2, self.first) / self.n)
        self.y = centred / self.scale[trains.owner]
        self.is_first = np.zeros(len(self.y), dtype=bool)
        self.is_first[self.first] = True
        self.gap = np.where(self.is_first, 1.0, np.diff(trains.x, prepend=0.0))
        self.freedom = trains.read_freedom.astype(float)
        self.read_sum = np.where(self.freedom > 0, self.freedom * trains.read_variance, 0.0) / self.scale**2
        self.bounds = np.array([law.bounds, _RHO, _GROWTH, _FORGETTING])

    def total(self, values: np.ndarray) -> np.ndarray:
        """Return sums over the readings of each train."""
        return np.add.reduceat(values, self.first, axis=0)

    def curve(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return f and the step per unit of x up to each reading (the first reading has the second's)."""
        f = self.law.f(self.trains.x, u[self.trains.owner])
        step = np.diff(f, prepend=0.0) / self.gap
        step[self.first] = step[self.first + 1]
        return f, step

    def factor(self, point: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return phi, the banded Cholesky factor of the differences, ln of its determinant squared, and v_n."""
        owner = self.trains.owner
        _, logit, growth, forgetting = point
        size = np.abs(step)
        v = np.exp(2 * growth[owner] * np.log(size / (self.total(size) / self.n)[owner] + _SMALL_STEP))
        v /= (self.total(v) / self.n)[owner]
        rho = 1 / (1 + np.exp(-logit))
        with np.errstate(divide="ignore", invalid="ignore"):
            phi = np.clip(np.nan_to_num(step / np.roll(step, 1), nan=1.0, posinf=1.0), 0.0, 1.0)
        phi *= np.exp(-np.exp(forgetting))[owner]
        phi[self.first] = 0.0
        passing = (1 - rho)[owner] * v
        before = np.roll(passing, 1)
        band = np.zeros((2, len(v)))
        band[0] = rho[owner] * v + passing + phi**2 * before
        band[1, :-1] = -(phi * before)[1:]
        factor = cholesky_banded(band, lower=True, check_finite=False)
        return phi, factor, 2 * self.total(np.log(factor[0])), v

    def whiten(self, point: np.ndarray, step: np.ndarray, columns: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns made white (reading, column), and ln det of the covariance per train."""
        phi, factor, log_determinant, _ = self.factor(point, step)
        block = np.stack(columns)
        block[:, 1:] -= phi[1:] * block[:, :-1]
        white, _ = _solve_triangular(factor, block.T, uplo="L", overwrite_b=1)
        return white, log_determinant

    def solve(self, point: np.ndarray) -> "_Solution":
        """Return the likelihoods with start, change and s^2 at their best."""
        logit = point[1]
        f, step = self.curve(point[0])
        white, log_determinant = self.whiten(point, step, [self.y, np.ones_like(f), f])
        y, one, g = white.T
        s11, s1f, sff, s1y, sfy, syy = map(self.total, (one * one, one * g, g * g, one * y, g * y, y * y))
        determinant = s11 * sff - s1f**2
        possible = determinant > _SINGULAR * s11 * sff  # False for NaN, too
        determinant = np.where(possible, determinant, s11 * sff)
        start = (sff * s1y - s1f * sfy) / determinant
        change = (s11 * sfy - s1f * s1y) / determinant
        rest = np.maximum(syy - start * s1y - change * sfy, 1e-14 * syy)
        passing = 1 / (1 + np.exp(logit))
        total = rest + self.read_sum / passing
        values, log_determinant = self.n + self.freedom, log_determinant + self.freedom * np.log(passing)
        deviance = values * (np.log(total / values) + 1) + log_determinant
        left = np.maximum(values - 2, 1)
        restricted = left * (np.log(total / left) + 1) + log_determinant + np.log(determinant)
        deviance, restricted = (np.where(possible, value, np.inf) for value in (deviance, restricted))
        return _Solution(deviance, restricted, total, start, change)

    def __call__(self, point: np.ndarray) -> np.ndarray:
        return self.solve(point).restricted


@dataclass(frozen=True)
class _Solution:
    """-2 ln likelihood and restricted likelihood, sum of squares, start and change of every train at a point."""

    deviance: np.ndarray
    restricted: np.ndarray
    total: np.ndarray
    start: np.ndarray
    change: np.ndarray


def _search(likelihood: _Likelihood) -> np.ndarray:
    """Return the best point: a coarse grid, then parabolas along one coordinate after another.

    Write noise is taken to stay for good unless a finite memory lowers -2 ln restricted likelihood by `_FORGETS`.
    """
    low, high = likelihood.bounds[0]
    apart = (high - low) / (_GRID_POINTS - 1)
    lasting = _refine(likelihood, _coarse(likelihood, _STARTS), [0.5 * apart, 2.0, 0.3], _ROUNDS)
    long = np.flatnonzero(likelihood.n >= FEWEST_FOR_MEMORY)
    if not len(long):
        return lasting
    part = _Likelihood(likelihood.law, likelihood.trains.take(long))
    fading = _coarse(part, _FADING_STARTS)
    value = part(fading)
    for forgetting in (-4.0, -2.5):
        point = lasting[:, long]
        point[3] = forgetting
        fading, value = _better(fading, value, point, part(point))
    fading = _refine(part, fading, [0.3 * apart, 1.0, 0.2, 0.7], _ROUNDS - 4)
    better = part(fading) < part(lasting[:, long]) - _FORGETS
    lasting[:, long] = np.where(better, fading, lasting[:, long])
    return lasting


def _coarse(likelihood: _Likelihood, starts: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """Return the best point of a grid in the shape, with each of these noises."""
    low, high = likelihood.bounds[0]
    trains = len(likelihood.first)
    best, value = np.zeros((4, trains)), np.full(trains, np.inf)
    for u in np.linspace(low, high, _GRID_POINTS) if high > low else np.zeros(1):
        for noise in starts:
            point = np.repeat(np.array([[u], *([number] for number in noise)]), trains, axis=1)
            best, value = _better(best, value, point, likelihood(point))
    return best


def _refine(likelihood: _Likelihood, best: np.ndarray, width: list[float], rounds: int) -> np.ndarray:
    """Search along the first coordinates, starting with these widths, and return the best point."""
    value = likelihood(best)
    low, high = likelihood.bounds.T
    widths = np.repeat(np.array(width)[:, None], best.shape[1], axis=1)
    for _ in range(rounds):
        for k in range(len(width)):
            if high[k] > low[k]:
                best, value, widths[k] = _along(likelihood, best, value, k, widths[k], low[k], high[k])
    return best


def _along(
    likelihood: _Likelihood, best: np.ndarray, value: np.ndarray, k: int, width: np.ndarray, low: float, high: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Go to the vertex of the parabola through three points of coordinate k, or to the best of them."""
    centre = best[k].copy()
    points, values = [], []
    for sign in (-1.0, 1.0):
        point = best.copy()
        point[k] = np.clip(centre + sign * width, low, high)
        points.append(point)
        values.append(likelihood(point))
    left, right = points[0][k] - centre, points[1][k] - centre
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (values[0] - value) / left, (values[1] - value) / right
        vertex = (a * right - b * left) / (2 * (a - b))
        curved = np.isfinite(vertex) & ((b - a) / (right - left) > 0)
    inside = np.where(curved, np.clip(np.nan_to_num(vertex), 2 * left, 2 * right), 0.0)
    point = best.copy()
    point[k] = np.clip(centre + inside, low, high)
    before = value
    for candidate, found in zip(points, values, strict=True):
        best, value = _better(best, value, candidate, found)
    best, value = _better(best, value, point, likelihood(point))
    moved = np.abs(best[k] - centre)
    narrower = np.where(moved >= 0.9 * width, 1.5 * width, np.maximum(0.3 * width, np.minimum(2 * moved, 0.5 * width)))
    return best, value, np.where(before - value > 0, narrower, 0.4 * width)


def _better(best: np.ndarray, value: np.ndarray, point: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    improved = found < value
    return np.where(improved, point, best), np.where(improved, found, value)


def _finish(likelihood: _Likelihood, point: np.ndarray) -> TrainFits:
    law, scale = likelihood.law, likelihood.scale
    point = _polish(likelihood, point)
    found = likelihood.solve(point)
    start, change = found.start, found.change
    normal, _ = _normal(likelihood, point, change)
    fitted = 2 + int(law.bounds[1] > law.bounds[0])
    unbiased = found.total / np.maximum(likelihood.n + likelihood.freedom - fitted, 1)
    covariance = np.zeros((len(scale), 3, 3))
    covariance[:, :fitted, :fitted] = _inverse(normal[:, :fitted, :fitted]) * unbiased[:, None, None]
    size = np.stack([scale, scale, np.ones_like(scale)], axis=1)
    rho = 1 / (1 + np.exp(-point[1]))
    errors = _noise_errors(likelihood, point)
    ends = _ends(likelihood, point, (start, change), covariance, unbiased)
    persists, passes = (np.abs(point[1] - end) > _AT_BOUND * (_RHO[1] - _RHO[0]) for end in _RHO)
    forgets = point[3] > _NEVER
    deviance = found.deviance + 2 * likelihood.n * np.log(scale)
    parameters = law.n_parameters + forgets
    lost = np.maximum(likelihood.n - parameters - 1, 1)
    return TrainFits(
        law=law,
        start=start * scale + likelihood.centre,
        change=change * scale,
        u=point[0],
        covariance=covariance * size[:, :, None] * size[:, None, :],
        write_noise=np.where(persists, np.sqrt(unbiased * rho), 0.0) * scale,
        write_noise_log_stderr=np.where(persists, errors[0], np.nan),
        other_noise=np.where(passes, np.sqrt(unbiased * (1 - rho)), 0.0) * scale,
        other_noise_log_stderr=np.where(passes, errors[1], np.nan),
        growth=point[2],
        memory=np.where(forgets, np.exp(-point[3]), np.inf),
        ends=ends[0] * scale + likelihood.centre,
        ends_stderr=ends[1] * scale,
        variance_shape=likelihood.factor(point, likelihood.curve(point[0])[1])[3],
        deviance=deviance,
        aicc=deviance + 2 * parameters * (1 + (parameters + 1) / lost),
        shape_at_bound=_at_bound(point[0], law.bounds),
        write_noise_at_bound=~(persists & passes),
    )


def _at_bound(u: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    low, high = bounds
    margin = _AT_BOUND * (high - low)
    return (high > low) & ((u < low + margin) | (u > high - margin))


def _shape_gradient(likelihood: _Likelihood, u: np.ndarray) -> np.ndarray:
    """Return df/du (reading,) by central differences."""
    h = 1e-5
    above, below = likelihood.curve(u + h)[0], likelihood.curve(u - h)[0]
    return (above - below) / (2 * h)


def _normal(likelihood: _Likelihood, point: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the normal matrices (train, 3, 3) of (start, change, u), and J^T y (train, 3)."""
    f, step = likelihood.curve(point[0])
    third = change[likelihood.trains.owner] * _shape_gradient(likelihood, point[0])
    columns = [np.ones_like(f), f, third, likelihood.y]
    white, _ = likelihood.whiten(point, step, columns)
    products = likelihood.total(white[:, :, None] * white[:, None, :])
    return products[:, :3, :3], products[:, :3, 3]


def _polish(likelihood: _Likelihood, point: np.ndarray) -> np.ndarray:
    """Take Gauss-Newton steps in the shape at fixed noise, kept where they raise the likelihood."""
    low, high = likelihood.law.bounds
    if not high > low:
        return point
    for _ in range(3):
        found = likelihood.solve(point)
        normal, right = _normal(likelihood, point, found.change)
        linear = np.stack([found.start, found.change, np.zeros_like(found.start)], axis=1)
        residual = right - np.einsum("tij,tj->ti", normal, linear)
        step = np.einsum("tij,tj->ti", _inverse(normal), residual)[:, 2]
        trial = point.copy()
        trial[0] = np.clip(point[0] + np.nan_to_num(step), low, high)
        point, _ = _better(point, found.deviance, trial, likelihood.solve(trial).deviance)
    return point


def _inverse(matrices: np.ndarray) -> np.ndarray:
    """Return the inverses of normal matrices, scaled to a unit diagonal first; NaN where one is singular."""
    size = np.sqrt(np.maximum(np.diagonal(matrices, axis1=1, axis2=2), 1e-300))
    scaled = matrices / (size[:, :, None] * size[:, None, :])
    scaled[~np.isfinite(scaled).all(axis=(1, 2))] = 0.0
    singular = ~(np.linalg.cond(scaled) < 1e14)
    scaled[singular] = np.eye(matrices.shape[1])
    inverse = np.linalg.inv(scaled) / (size[:, :, None] * size[:, None, :])
    inverse[singular] = np.nan
    return inverse


def _ends(
    likelihood: _Likelihood,
    point: np.ndarray,
    line: tuple[np.ndarray, np.ndarray],
    covariance: np.ndarray,
    variance: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the state at the first and the last reading (2, train), and standard errors, in the train's scale.

    With V the covariance of the readings and R that of transient noise, the noise of reading n is expected to be
    R_n q (y - G), q = V^-1 e_n; what is left of its variance is R_n - R_n^2 q_n, and the error of the curve enters
    through R_n q X.
    """
    owner, count = likelihood.trains.owner, likelihood.trains.count
    start, change = line
    f, step = likelihood.curve(point[0])
    columns = np.stack([np.ones_like(f), f, change[owner] * _shape_gradient(likelihood, point[0])], axis=1)
    residual = likelihood.y - start[owner] - change[owner] * f
    phi, factor, _, v = likelihood.factor(point, step)
    passing = v / (1 + np.exp(point[1]))[owner]
    places = np.stack([likelihood.first, likelihood.first + count - 1])
    units = np.zeros((len(f), 2))
    units[places, np.arange(2)[:, None]] = 1.0
    differences = units - phi[:, None] * np.roll(units, 1, axis=0)
    q = cho_solve_banded((factor, True), differences, check_finite=False)
    q -= np.roll(phi[:, None] * q, -1, axis=0)
    states, errors = [], []
    for k, place in enumerate(places):
        r = passing[place]
        states.append(likelihood.y[place] - r * likelihood.total(q[:, k] * residual))
        gradient = r[:, None] * likelihood.total(q[:, k : k + 1] * columns)
        left = variance * np.maximum(r - r**2 * q[place, k], 0.0)
        errors.append(np.sqrt(left + np.einsum("ti,tij,tj->t", gradient, covariance, gradient)))
    return np.array(states), np.array(errors)


def _noise_errors(likelihood: _Likelihood, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return standard errors of ln(write noise) and ln(other noise) from the curvature of the profile in logit rho.

    With ln s^2 of variance 2 / n given rho, and ln s^2(rho) moving with logit rho by its slope, ln(s^2 rho) has
    variance 2 / n + (slope + 1 - rho)^2 Var(logit rho), and ln(s^2 (1 - rho)) likewise with slope - rho.
    """
    h = 0.2
    values, logs = [], []
    for sign in (-1.0, 1.0):
        moved = point.copy()
        moved[1] += sign * h
        found = likelihood.solve(moved)
        values.append(found.restricted)
        logs.append(np.log(found.total))
    curvature = (values[0] + values[1] - 2 * likelihood(point)) / h**2
    with np.errstate(divide="ignore", invalid="ignore"):
        of_logit = np.where(curvature > 0, 2 / curvature, np.nan)
    slope = (logs[1] - logs[0]) / (2 * h)
    rho = 1 / (1 + np.exp(-point[1]))
    common = 2 / (likelihood.n + likelihood.freedom)
    write = common + (slope + 1 - rho) ** 2 * of_logit
    other = common + (slope - rho) ** 2 * of_logit
    return 0.5 * np.sqrt(write), 0.5 * np.sqrt(other)
