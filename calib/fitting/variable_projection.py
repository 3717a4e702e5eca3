"""Variable projection for laws that are a factor times an exponential: I = scale f(V) exp(u s(V)).

Poole-Frenkel emission (f = V, s = sqrt|V|), Fowler-Nordheim tunnelling and the power law are of this kind, in the
coordinate u in which the shape parameter is fitted. The scale enters linearly and is eliminated (G. H. Golub,
V. Pereyra, SIAM J. Numer. Anal. 10, 413 (1973), doi 10.1137/0710036): with g_i = w_i f_i exp(u s_i), w = 1 / sigma and
y_i = w_i I_i, scale = sum(g y) / sum(g^2), and u maximises sum(g y)^2 / sum(g^2).

Moving u by d multiplies g by exp(d s), so the moments M_j = sum(g y s^j) and N_j = sum(g^2 s^j) at one u give both
sums near it as power series,

    A(d) = sum(g y exp(d s)) = sum_j M_j d^j / j!,    B(d) = sum(g^2 exp(2 d s)) = sum_j N_j (2 d)^j / j!,

and the maximum is the root of the polynomial A' B - A B' / 2. One exponential a point is needed where the start is
close, as a regression of ln I on s over a few points is; the moments are a product with the matrix of the powers of s,
and so is the residual. Where the series does not reach to the root, its end is the next start.

Curves that do not converge so, that have no point with the law's sign, or whose root lies outside the bounds, are left
to Levenberg-Marquardt.
"""

import functools

import numpy as np

from calib.fitting.buffers import scratch
from calib.fitting.curve_data import CurveData
from calib.fitting.normal_equations import Rows, chunks
from calib.fitting.small_matrices import condition_number
from calib.fitting.solution import Solution
from calib.iv_models.base import IVModel

ORDER = 7  # of the power series
PASSES = 5
SERIES_TOLERANCE = 1e-11  # last term of the series relative to the sum, up to which its root is the estimate
_START_POINTS = 13
_NEWTON_STEPS = 4


@functools.lru_cache(maxsize=64)
def reference(law: IVModel) -> float | None:
    """Return a value of the fitted coordinate u at which f and s are read off, or None where a law has another form.

    Found by evaluating the law: ln I must be linear in u.
    """
    if not law.scale_is_factor or len(law.shape) != 1:
        return None
    scale, shape = law.parameter(law.scale), law.parameter(law.shape[0])
    if scale.transform != "log" or scale.lower > 0 or np.isfinite(scale.upper):
        return None
    is_log = shape.transform == "log"
    theta = np.unique(np.clip([-1.3, 0.0, 0.4, 1.1, 3.1], max(shape.lower, 1e-3 if is_log else -np.inf), shape.upper))
    u = np.log(theta) if is_log else theta
    voltage = np.array([0.013, 0.2, 0.71])[:, None] * ([1.0] if law.odd else [1.0, -1.0])
    with np.errstate(all="ignore"):
        ones = np.ones((len(theta), 1, 1))
        current = law.current(voltage, xp=np, **{law.scale: ones, shape.name: theta[:, None, None]})
        middle = len(theta) // 2
        slopes = np.log(np.delete(current / current[middle], middle, 0))
    slopes /= (np.delete(u, middle) - u[middle])[:, None, None]
    linear = np.isfinite(slopes).all() and np.allclose(slopes, slopes[:1], rtol=1e-9, atol=1e-9)
    return float(u[np.argmin(np.abs(u))]) if linear else None


def basis(law: IVModel, voltage: np.ndarray, u: float) -> tuple[np.ndarray, np.ndarray]:
    """Return f(V) exp(u s(V)) and s(V); both 0 where there is no current."""
    (name,) = law.shape
    value = np.exp(u) if law.parameter(name).transform == "log" else u
    with np.errstate(all="ignore"):
        jacobian = law.jacobian(voltage, xp=np, **{law.scale: np.ones(1), name: np.array([value])})
        front = np.broadcast_to(jacobian[law.scale], voltage.shape).astype(float)
        chain = value if law.parameter(name).transform == "log" else 1.0
        s = np.broadcast_to(jacobian[name] * chain, voltage.shape) / front
    usable = np.isfinite(front) & np.isfinite(s) & (front != 0)
    return np.where(usable, front, 0.0), np.where(usable, s, 0.0)


def fit(law: IVModel, data: CurveData) -> Solution:
    """Fit a block of curves with a law for which `reference` is not None; those that converge so."""
    n = len(data)
    origin = reference(law)
    assert origin is not None
    front, s = basis(law, data.voltage, origin)
    start, centre = _start(law, data, origin)
    sums = _Sums(data, front, s - centre)
    found = _Found(n)
    d, active = start, np.arange(n)
    with np.errstate(all="ignore"):
        for _ in range(PASSES):
            rows: Rows = slice(0, n) if len(active) == n else active
            moments = sums.at(rows, d)
            root = _Root(*moments)
            ends = root.good
            scale, normal = root.scale(), root.normal()
            square, fourth = sums.residual(rows, root.step, scale)
            found.put(active[ends], ends, d + root.step, scale, normal, square, fourth)
            active = active[~ends]
            if not len(active):
                break
            d = (d + root.safe_step())[~ends]
        return _assemble(law, data, found, origin, centre)


def _start(law: IVModel, data: CurveData, origin: float) -> tuple[np.ndarray, float]:
    """Return u - origin from a regression of ln I over a few points of each curve, and the mean of s."""
    voltage, current, weight = data.thinned(_START_POINTS).points_first()
    front, s = basis(law, voltage, origin)
    with np.errstate(all="ignore"):
        weight *= current
        weight *= weight
        ratio = current / front
        usable = (ratio > 0) & (ratio < np.inf)
        if not usable.all():
            weight, ratio = np.where(usable, weight, 0.0), np.where(usable, ratio, 1.0)
        weight /= weight.max(0)
        y = np.log(ratio)
        total = weight.sum(0)
        mean_s, mean_y = (weight * s).sum(0) / total, (weight * y).sum(0) / total
        ds = s - mean_s
        y -= mean_y
        weight *= ds
        y *= weight
        weight *= ds
        slope = y.sum(0) / weight.sum(0)
    known = np.isfinite(mean_s)
    centre = float(mean_s[known].mean()) if known.any() else 0.0
    return np.where(np.isfinite(slope), slope, 0.0), centre


class _Sums:
    """Moments and residuals of a block; what one pass leaves in the buffers serves its residual."""

    def __init__(self, data: CurveData, front: np.ndarray, s: np.ndarray) -> None:
        self.data, self.front, self.s = data, front, s
        self.g, self.y = (scratch(name, data.current.shape) for name in ("projection g", "projection y"))
        if data.shares_voltage:  # then the factor f is part of the powers, (point, order)
            powers = s[:, None] ** np.arange(ORDER + 1)
            self.linear, self.square = front[:, None] * powers, np.square(front)[:, None] * powers
            self.rows = np.ascontiguousarray(self.linear.T)

    def at(self, rows: Rows, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return M_j and N_j, (order, curve), at u = origin + d."""
        m, n = np.empty((ORDER + 1, len(d))), np.empty((ORDER + 1, len(d)))
        for part in chunks(len(d), self.data.width):
            at = _part(rows, part)
            g, y, weight = self.g[part], self.y[part], self.data.weight[at]
            buffer = scratch("projection", g.shape)
            np.multiply(self.data.current[at], weight, out=y)
            np.multiply(d[part, None], self.s if self.data.shares_voltage else self.s[at], out=g)
            np.exp(g, out=g)
            g *= weight
            if self.data.shares_voltage:
                m[:, part] = (np.multiply(g, y, out=buffer) @ self.linear).T
                n[:, part] = (np.multiply(g, g, out=buffer) @ self.square).T
            else:
                g *= self.front[at]
                m[:, part] = _moments(np.multiply(g, y, out=buffer), self.s[at])
                n[:, part] = _moments(np.multiply(g, g, out=buffer), self.s[at])
        return m, n

    def residual(self, rows: Rows, step: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of the residuals' squares and fourth powers at u + step, after `at` of the same curves."""
        square, fourth = np.empty(len(step)), np.empty(len(step))
        coefficients = np.empty((len(step), ORDER + 1))
        coefficients[:, 0] = scale
        for j in range(ORDER):
            np.multiply(coefficients[:, j], step / (j + 1), out=coefficients[:, j + 1])
        for part in chunks(len(step), self.data.width):
            g, y = self.g[part], self.y[part]
            r = scratch("projection", g.shape)
            if self.data.shares_voltage:
                np.matmul(coefficients[part], self.rows, out=r)
            else:
                s = self.s[_part(rows, part)]
                r[...] = coefficients[part, -1:]
                for j in reversed(range(ORDER)):
                    r *= s
                    r += coefficients[part, j : j + 1]
            r *= g
            r -= y
            np.vecdot(r, r, out=square[part])
            r *= r
            np.vecdot(r, r, out=fourth[part])
        return square, fourth


def _moments(product: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return sum(product s^j), (order, curve); `product` is overwritten."""
    square, out = s * s, np.empty((ORDER + 1, len(product)))
    for j in range(0, ORDER + 1, 2):
        if j:
            product *= square
        product.sum(1, out=out[j])
        np.vecdot(product, s, out=out[j + 1])
    return out


_FACTORIAL = np.cumprod([1.0, *range(1, ORDER + 1)])


class _Root:
    """The maximum of A^2 / B near d = 0, from the moments (order, curve)."""

    def __init__(self, m: np.ndarray, n: np.ndarray) -> None:
        self.m0, self.n0 = m[0], n[0]
        self.a = m / (m[0] * _FACTORIAL[:, None])
        self.b = n / (n[0] * (_FACTORIAL / 2.0 ** np.arange(ORDER + 1))[:, None])
        f = self._stationarity()
        self.step, last = np.zeros(len(m[0])), np.zeros(len(m[0]))
        slope = np.empty(len(m[0]))
        for _ in range(_NEWTON_STEPS):
            value, slope = _horner(f, self.step)
            last = value / slope
            self.step -= last
        self.at_a, _ = _horner(self.a, self.step)
        self.at_b, self.slope_b = _horner(self.b, self.step)
        power = np.abs(self.step) ** ORDER
        self.good = (slope < 0) & (np.abs(last) <= 1e-9 * (1 + np.abs(self.step))) & (self.at_b > 0)
        self.good &= (self.m0 * self.at_a > 0) & (power * np.abs(self.a[-1]) <= SERIES_TOLERANCE * np.abs(self.at_a))
        self.good &= power * np.abs(self.b[-1]) <= SERIES_TOLERANCE * self.at_b

    def _stationarity(self) -> np.ndarray:
        """Return the coefficients (power, curve) of A' B - A B' / 2."""
        f, product = np.zeros((ORDER, len(self.m0))), np.empty(len(self.m0))
        for k in range(ORDER):
            for i in range(k + 2):
                factor = i - 0.5 * (k + 1 - i)
                if factor:
                    np.multiply(self.a[i], self.b[k + 1 - i], out=product)
                    product *= factor
                    f[k] += product
        return f

    def scale(self) -> np.ndarray:
        """Return the scale at the root."""
        return self.m0 / self.n0 * self.at_a / self.at_b

    def normal(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return sum(g^2 s^k) at the root, k = 0, 1, 2."""
        curvature = np.zeros_like(self.step)
        for j in range(ORDER, 1, -1):
            curvature *= self.step
            curvature += j * (j - 1) * self.b[j]
        return self.n0 * self.at_b, 0.5 * self.n0 * self.slope_b, 0.25 * self.n0 * curvature

    def safe_step(self) -> np.ndarray:
        """Return the Gauss-Newton step in Kaufman's form (BIT 15, 49 (1975), doi 10.1007/BF01932995), not too long."""
        mean = self.b[1] / 2
        variance = np.maximum(self.b[2] / 2 - mean * mean, 1e-12 * np.abs(self.b[2]) + 1e-300)
        limit = 1 / np.sqrt(variance)
        return np.clip(np.nan_to_num((self.a[1] - mean) / variance), -limit, limit)


def _horner(coefficients: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return polynomials (power, curve) and their derivatives at x (curve,)."""
    value, slope = coefficients[-1].copy(), np.zeros_like(x)
    for c in coefficients[-2::-1]:
        slope *= x
        slope += value
        value *= x
        value += c
    return value, slope


class _Found:
    """What is known of each curve so far."""

    def __init__(self, n: int) -> None:
        self.good = np.zeros(n, dtype=bool)
        self.values = np.full((7, n), np.nan)  # d, scale, sums of g^2 s^k, square, fourth

    def put(
        self, rows: np.ndarray, where: np.ndarray, d: np.ndarray, scale: np.ndarray,
        normal: tuple[np.ndarray, np.ndarray, np.ndarray], square: np.ndarray, fourth: np.ndarray,
    ) -> None:  # fmt: skip
        """Keep the results of the curves `rows`, which are at `where` in the arrays."""
        for k, value in enumerate((d, scale, *normal, square, fourth)):
            self.values[k, rows] = value[where]
        self.good[rows] = True


def _assemble(law: IVModel, data: CurveData, found: _Found, origin: float, centre: float) -> Solution:
    """Return the estimates in the law's coordinates (ln scale, u), in the law's order of parameters."""
    n = len(data)
    d, scale, n0, n1, n2, square, fourth = found.values
    parameter = law.parameter(law.shape[0])
    first = law.parameter_names.index(law.scale)
    order = np.array([first, 1 - first])
    u, unscaled = np.empty((n, 2)), np.empty((n, 2, 2))
    u[:, order[0]], u[:, order[1]] = np.log(scale) - d * centre, origin + d
    lower, upper = _internal(parameter.lower, parameter.transform), _internal(parameter.upper, parameter.transform)
    inside = (u[:, order[1]] > lower) & (u[:, order[1]] < upper)
    determinant = scale**2 * (n2 - n1 * n1 / n0)  # of sum(g^2), times scale^2
    off = -(n1 / n0 + centre)  # the sums below are about s = 0 instead of the centre
    whole = n2 + 2 * centre * n1 + centre**2 * n0
    unscaled[:, order[1], order[1]] = 1 / determinant
    unscaled[:, order[0], order[1]] = unscaled[:, order[1], order[0]] = off / determinant
    unscaled[:, order[0], order[0]] = whole / n0 / determinant
    correlation = np.ones((2, 2, n))
    correlation[0, 1] = correlation[1, 0] = -off * np.sqrt(n0 / whole)
    condition = condition_number(correlation, correlation)
    n_free = data.n_points - 2
    good = found.good & inside & (determinant > 0) & np.isfinite(square) & np.isfinite(u).all(1)
    return Solution(
        u=u, cost=square.copy(), square=square, fourth=fourth, converged=good, at_bound=np.zeros((n, 2), dtype=bool),
        unscaled=unscaled, condition=condition, variance=np.where(n_free > 0, square / np.maximum(n_free, 1), np.nan),
        n_free=n_free, iterations=np.ones(n, dtype=int),
    )  # fmt: skip


def _internal(value: float, transform: str) -> float:
    """Return a bound in the fitted coordinate."""
    if transform != "log":
        return value
    return float(np.log(value)) if value > 0 else -np.inf


def _part(rows: Rows, part: slice) -> Rows:
    return part if isinstance(rows, slice) else rows[part]
