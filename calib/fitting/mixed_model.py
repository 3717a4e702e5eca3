"""A linear model of several responses with random devices and known errors, by restricted maximum likelihood.

For value k of device g, with d responses t and q regressors z,

    t_k = B z_k + a_g + b_k + e_k,    a_g ~ N(0, between),    b_k ~ N(0, within),    e_k ~ N(0, E_k),

with E_k known. The covariances maximise the restricted likelihood (H. D. Patterson, R. Thompson, Biometrika 58, 545
(1971), doi 10.1093/biomet/58.3.545) over their Cholesky factors, by L-BFGS with the analytic gradient. With
V_g = blockdiag(C_k) + 1 between 1^T, C_k = within + E_k, W_k = C_k^-1 and A_g = sum_k W_k, the inverse is
V_g^-1 = W - W 1 M_g 1^T W, M_g = between (I + A_g between)^-1, so that the work grows with the number of values.

Intervals of coefficients are Student's t with Satterthwaite's degrees of freedom nu = 2 (c^T H c)^2 / Var(c^T H c)
(F. E. Satterthwaite, Biometrics Bull. 2, 110 (1946), doi 10.2307/3002019), where the variance follows from the expected
information of the covariances; for independent values without errors nu is exactly n - q. H holds the adjustment for
the uncertainty of the covariances, H - sum_ij Cov(theta_i, theta_j) d^2 H / d theta_i d theta_j (M. G. Kenward,
J. H. Roger, Biometrics 53, 983 (1997), doi 10.2307/2533558).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from scipy.optimize import minimize

LEVEL = 0.95
_FLOOR = 1e-12  # of the responses' variance: what is smaller is rounding
_STEP = 1e-4  # of a variance: finite difference of the information
_SMALL = 100
"""With fewer devices than this the covariance of the coefficients is adjusted for that of the covariances."""
_STARTS = ((0.8, 0.5), (0.2, 0.1))
"""Cholesky factors of within and between, in units of the residual's standard deviation, from which the search goes."""


@dataclass(frozen=True)
class MixedFit:
    """What `fit_mixed` returns; d responses, q regressors.

    Attributes
    ----------
    coefficients : (d, q) B.
    covariance : (d q, d q) of the coefficients, response by response, adjusted for small samples.
    within, between : (d, d) covariance of the values of a device, and of the devices (zero where not separated).
    theta_covariance : (m, m) of the lower triangles of within and, if `separated`, of between.
    derivatives : (m, d q, d q) derivative of `covariance` by them.
    log_likelihood : restricted, or the plain one where that was asked for.
    separated : whether devices repeat, so that within and between are told apart.
    error : (d, d) mean of the known errors' covariances.
    n_values, n_devices, per_device : number of values, of devices, and the harmonic mean of the values of a device.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    within: np.ndarray
    between: np.ndarray
    theta_covariance: np.ndarray
    derivatives: np.ndarray
    log_likelihood: float
    separated: bool
    error: np.ndarray
    n_values: int
    n_devices: int
    per_device: float

    @property
    def total(self) -> np.ndarray:
        """(d, d) covariance of one value of one device about the line."""
        return self.within + self.between

    def degrees_of_freedom(self, contrast: np.ndarray) -> float:
        """Return Satterthwaite's degrees of freedom of a linear combination of the coefficients."""
        variance = float(contrast @ self.covariance @ contrast)
        slope = np.einsum("p,mpq,q->m", contrast, self.derivatives, contrast)
        spread = float(slope @ self.theta_covariance @ slope)
        if not variance > 0 or not spread > 0:
            return float(max(self.n_values - self.coefficients.shape[1], 1))
        return float(np.clip(2 * variance**2 / spread, 1.0, 1e9))

    def estimate(self, contrast: np.ndarray, level: float = LEVEL) -> tuple[float, float, float, float]:
        """Return value, standard error and interval of a linear combination of the coefficients."""
        value = float(contrast @ self.coefficients.ravel())
        stderr = float(np.sqrt(max(contrast @ self.covariance @ contrast, 0.0)))
        half = stderr * float(stats.t.ppf((1 + level) / 2, self.degrees_of_freedom(contrast)))
        return value, stderr, value - half, value + half

    def spread(self, weights: np.ndarray, level: float = LEVEL) -> tuple[float, float, float, float]:
        """Return the standard deviation of a linear combination of the responses, its standard error and interval.

        One level: chi-square with Satterthwaite's degrees of freedom, the known error taken off. Devices that repeat:
        the sum of what is between the means of the devices and what is within, bounded as F. A. Graybill and C.-M. Wang
        bound a sum of mean squares (J. Am. Stat. Assoc. 75, 869 (1980), doi 10.1080/01621459.1980.10477565).
        """
        variance, error = float(weights @ self.total @ weights), float(weights @ self.error @ weights)
        pair = np.outer(weights, weights).ravel()
        uncertainty = float(np.sqrt(max(pair @ self.total_covariance() @ pair, 0.0)))
        q = min(self.coefficients.shape[1], 2)  # of the regressors that are the same for all values of a device
        if self.separated:
            inner = float(weights @ self.within @ weights) + error
            squares = np.array([variance - inner + error + inner / self.per_device, (1 - 1 / self.per_device) * inner])
            df = np.array([self.n_devices - q, self.n_values - self.n_devices])
        else:
            squares = np.array([variance + error])
            nu = 2 * squares[0] ** 2 / uncertainty**2 if uncertainty > 0 else self.n_values - q
            df = np.array([nu])
        df = np.maximum(df, 1)
        ends = [float(squares.sum())] * 2
        for k, p in enumerate(((1 + level) / 2, (1 - level) / 2)):
            ratio = df / stats.chi2.ppf(p, df) - 1
            ends[k] += float(np.sign(ratio[0]) * np.hypot.reduce(ratio * squares))
        low, high = (float(np.sqrt(max(end - error, 0.0))) for end in ends)
        sigma = float(np.sqrt(max(variance, 0.0)))
        stderr = uncertainty / (2 * sigma) if sigma > 0 else float(np.sqrt(uncertainty))
        return sigma, stderr, min(low, sigma), max(high, sigma)

    def total_covariance(self) -> np.ndarray:
        """Return the covariance of the elements of `total`, (d d, d d)."""
        d = len(self.within)
        lift = np.stack([direction.ravel() for direction in _directions(d)], axis=1)
        lift = np.hstack([lift, lift]) if self.separated else lift
        return lift @ self.theta_covariance @ lift.T


@dataclass(frozen=True)
class _Data:
    """Values sorted by device; `starts` are the first rows of the devices, None where devices do not repeat."""

    t: np.ndarray
    z: np.ndarray
    e: np.ndarray
    index: np.ndarray
    starts: np.ndarray | None

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Return sums over the values of each device."""
        assert self.starts is not None
        return np.add.reduceat(values, self.starts, axis=0)


@dataclass(frozen=True)
class _Pieces:
    """The likelihood's parts at given covariances; `trace_*` and `square_*` are the two terms of its gradient."""

    coefficients: np.ndarray
    covariance: np.ndarray
    objective: float
    trace_within: np.ndarray
    square_within: np.ndarray
    trace_between: np.ndarray
    square_between: np.ndarray


def fit_mixed(t: np.ndarray, z: np.ndarray, e: np.ndarray, devices: np.ndarray, *, restricted: bool = True) -> MixedFit:
    """Fit the model to n values.

    Parameters
    ----------
    t : (n, d) responses.
    z : (n, q) regressors.
    e : (n, d, d) covariance of each value's own error.
    devices : (n,) the device of each value; where none repeats, or there is one, within is all of the covariance.
    restricted : maximise the restricted likelihood; the plain one compares models with different regressors.
    """
    n, d = t.shape
    labels, index = np.unique(devices, return_inverse=True)
    separated = 1 < len(labels) < n
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(labels))) if separated else None
    residual = t - z @ np.linalg.lstsq(z, t, rcond=None)[0]
    rounding = 1e-10 * np.abs(t).max(0)
    varying = (residual.std(0) > rounding) | (np.einsum("cii->i", e) > 0)
    if varying.any() and not varying.all():
        part = fit_mixed(t[:, varying], z, e[:, varying][:, :, varying], devices, restricted=restricted)
        return _with_constants(part, varying, t.mean(0), e)
    scale = np.maximum(residual.std(0), np.where(rounding > 0, rounding, 1e-12))
    data = _Data(t[order] / scale, z[order], e[order] / np.outer(scale, scale), index[order], starts)
    within, between = _maximise(data, restricted)
    pieces = _pieces(data, within, between, restricted)
    theta_covariance, derivatives = _information(data, within, between)
    inflated = pieces.covariance
    if min(len(labels), n) < _SMALL:
        inflated = inflated + _adjustment(data, within, between, theta_covariance)
    unit = np.outer(scale, scale)
    lift = np.array([unit[i, j] for i, j in zip(*np.tril_indices(d), strict=True)])
    lift = np.concatenate([lift, lift]) if separated else lift
    wide = np.repeat(scale, z.shape[1])
    return MixedFit(
        coefficients=pieces.coefficients * scale[:, None],
        covariance=inflated * np.outer(wide, wide),
        within=within * unit,
        between=between * unit,
        theta_covariance=theta_covariance * np.outer(lift, lift),
        derivatives=derivatives * np.outer(wide, wide) / lift[:, None, None],
        log_likelihood=-0.5 * pieces.objective - n * float(np.log(scale).sum())
        + (z.shape[1] * float(np.log(scale).sum()) if restricted else 0.0) - 0.5 * n * d * float(np.log(2 * np.pi)),
        separated=separated,
        error=e.mean(0),
        n_values=n,
        n_devices=len(labels),
        per_device=float(1 / np.mean(1 / np.bincount(index))),
    )  # fmt: skip


def _with_constants(part: MixedFit, varying: np.ndarray, mean: np.ndarray, e: np.ndarray) -> MixedFit:
    """Return the fit of some responses with the others, which are the same for all values, put back at no spread."""
    d, q = len(varying), part.coefficients.shape[1]
    coefficients = np.zeros((d, q))
    coefficients[:, 0], coefficients[varying] = mean, part.coefficients
    wide = np.repeat(varying, q)
    rows, columns = np.tril_indices(d)
    theta = varying[rows] & varying[columns]
    theta = np.concatenate([theta, theta]) if part.separated else theta

    def placed(small: np.ndarray, where: np.ndarray) -> np.ndarray:
        full = np.zeros((len(where), len(where)))
        full[np.ix_(where, where)] = small
        return full

    derivatives = np.zeros((len(theta), d * q, d * q))
    derivatives[theta] = [placed(small, wide) for small in part.derivatives]
    return replace(
        part, coefficients=coefficients, covariance=placed(part.covariance, wide), derivatives=derivatives,
        within=placed(part.within, varying), between=placed(part.between, varying), error=e.mean(0),
        theta_covariance=placed(part.theta_covariance, theta),
    )  # fmt: skip


def _directions(d: int) -> list[np.ndarray]:
    """Return the symmetric matrices that the elements of a lower triangle stand for."""
    found = []
    for i, j in zip(*np.tril_indices(d), strict=True):
        direction = np.zeros((d, d))
        direction[i, j] = direction[j, i] = 1.0
        found.append(direction)
    return found


def _maximise(data: _Data, restricted: bool) -> tuple[np.ndarray, np.ndarray]:
    d = data.t.shape[1]
    rows, columns = np.tril_indices(d)
    m = len(rows)

    def factors(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inner, outer = np.zeros((d, d)), np.zeros((d, d))
        inner[rows, columns] = theta[:m]
        if data.starts is not None:
            outer[rows, columns] = theta[m:]
        return inner, outer

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        inner, outer = factors(theta)
        pieces = _pieces(data, inner @ inner.T, outer @ outer.T, restricted)
        slope = [2 * ((pieces.trace_within - pieces.square_within) @ inner)[rows, columns]]
        if data.starts is not None:
            slope.append(2 * ((pieces.trace_between - pieces.square_between) @ outer)[rows, columns])
        return pieces.objective, np.concatenate(slope)

    eye = np.eye(d)[rows, columns]
    best = None
    for inner, outer in _STARTS:
        start = np.concatenate([eye * inner, eye * outer]) if data.starts is not None else eye * inner
        options = {"maxiter": 500, "ftol": 1e-13, "gtol": 1e-7}
        result = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        if best is None or result.fun < best.fun:
            best = result
    assert best is not None
    inner, outer = factors(best.x)
    return inner @ inner.T, outer @ outer.T


def _pieces(data: _Data, within: np.ndarray, between: np.ndarray, restricted: bool = True) -> _Pieces:
    """Return -2 log likelihood (less its constant) and its gradient's terms."""
    n, d = data.t.shape
    q = data.z.shape[1]
    eye = np.eye(d)
    c = within + data.e + _FLOOR * eye
    w = np.linalg.inv(c)
    wz = (w[:, :, :, None] * data.z[:, None, None, :]).reshape(n, d, d * q)
    a = m = np.zeros((0, d, d))
    if data.starts is None:
        u, diagonal, log_devices = wz, w, 0.0
    else:
        a = data.summed(w)
        inside = eye + a @ between
        m = between @ np.linalg.inv(inside)
        u = wz - w @ (m @ data.summed(wz))[data.index]
        diagonal = w - w @ m[data.index] @ w
        log_devices = float(np.linalg.slogdet(inside)[1].sum())
    information = np.einsum("ca,cip->iap", data.z, u).reshape(d * q, d * q)
    covariance = np.linalg.inv(information)
    flat = u.reshape(n * d, d * q)
    beta = covariance @ (flat.T @ data.t.ravel())
    residual = data.t - data.z @ beta.reshape(d, q).T
    r = np.einsum("cij,cj->ci", w, residual)
    zero = np.zeros((d, d))
    trace_between = square_between = zero
    half = _root(covariance) if restricted else np.zeros_like(covariance)
    if data.starts is not None:
        r = r - np.einsum("cij,cj->ci", w, np.einsum("gij,gj->gi", m, data.summed(r))[data.index])
        uh = data.summed(u) @ half
        summed = data.summed(r)
        trace_between = (a - a @ m @ a).sum(0) - np.einsum("gip,gjp->ij", uh, uh)
        square_between = summed.T @ summed
    uh = u @ half
    trace_within = diagonal.sum(0) - np.einsum("cip,cjp->ij", uh, uh)
    value = float(np.linalg.slogdet(c)[1].sum()) + log_devices + float((residual * r).sum())
    value += float(np.linalg.slogdet(information)[1]) if restricted else 0.0
    return _Pieces(beta.reshape(d, q), covariance, value, trace_within, r.T @ r, trace_between, square_between)


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return A with A A^T = covariance, which rounding may have made indefinite."""
    size = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    values, vectors = np.linalg.eigh(covariance / np.outer(size, size))
    return size[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))


def _information(data: _Data, within: np.ndarray, between: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the covariance of the covariances' elements, and the derivatives of the coefficients' covariance by them.

    The expected information is I_ij = tr(P V_i P V_j) / 2 = -(1/2) d tr(P V_i) / d theta_j, by forward differences.
    """
    directions = _directions(len(within))
    here = _pieces(data, within, between)
    rows, slopes = [], []
    for part, steps in enumerate(_sizes(data, within, between)):
        for direction, size in zip(directions, steps, strict=True):
            step = _STEP * size
            moved = [within, between]
            moved[part] = moved[part] + step * direction
            there = _pieces(data, moved[0], moved[1])
            change = [(there.trace_within - here.trace_within) / step]
            if data.starts is not None:
                change.append((there.trace_between - here.trace_between) / step)
            rows.append([-0.5 * float((block * other).sum()) for block in change for other in directions])
            slopes.append((there.covariance - here.covariance) / step)
    information = np.array(rows)
    information = (information + information.T) / 2
    size = np.sqrt(np.maximum(np.diag(information), 1e-300))
    scaled = information / np.outer(size, size)
    return np.linalg.pinv(scaled, rcond=1e-9, hermitian=True) / np.outer(size, size), np.array(slopes)


def _sizes(data: _Data, within: np.ndarray, between: np.ndarray) -> list[np.ndarray]:
    """Return how large each element of the covariances may be, from which the steps of finite differences follow."""
    rows, columns = np.tril_indices(len(within))
    inner = np.diag(within) + np.median(np.einsum("cii->ci", data.e), axis=0) + 1e3 * _FLOOR
    sizes = [np.sqrt(inner[rows] * inner[columns])]
    if data.starts is not None:
        outer = np.diag(between) + inner * len(data.starts) / len(data.t)
        sizes.append(np.sqrt(outer[rows] * outer[columns]))
    return sizes


def _adjustment(data: _Data, within: np.ndarray, between: np.ndarray, theta_covariance: np.ndarray) -> np.ndarray:
    """Return what the uncertainty of the covariances adds to the coefficients' covariance: - sum W_ij d^2 H_ij."""
    directions = _directions(len(within))
    size = np.concatenate(_sizes(data, within, between))
    values, vectors = np.linalg.eigh(theta_covariance / np.outer(size, size))
    here = _pieces(data, within, between).covariance
    total = np.zeros_like(here)
    step = 10 * _STEP
    for value, vector in zip(values, (vectors * size[:, None]).T, strict=True):
        if value <= 1e-12 * values.max():
            continue
        move = [np.einsum("m,mij->ij", part, directions) for part in vector.reshape(-1, len(directions))]
        ends = [
            _pieces(data, within + sign * move[0], between + sign * move[-1] * (len(move) > 1)).covariance
            for sign in (step, -step)
        ]
        total -= value * (ends[0] - 2 * here + ends[1]) / step**2
    return total
