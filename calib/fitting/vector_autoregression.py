"""Vector autoregression with random device effects: memory from cycle to cycle and differences between devices."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from calib.cycle_sampling import block_covariance, spectral_radius

LARGEST_RADIUS = 0.98
"""The companion matrix's spectral radius stays under this, so that the process is stationary."""
_STEP = 1e-5


@dataclass(frozen=True)
class Runs:
    """Scores in runs of successive cycles; a device may have several runs.

    Attributes
    ----------
    scores : (row, feature), runs one after the other.
    device : (row,) number of the device, from 0.
    first : (run,) first row of each run; the next run's first row ends it.
    """

    scores: np.ndarray
    device: np.ndarray
    first: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """(run,) number of rows."""
        return np.diff(np.append(self.first, len(self.scores)))


@dataclass(frozen=True)
class Autoregression:
    """A fitted process u_dt = m_d + w_dt.

    Attributes
    ----------
    memory : (lag, feature, feature) A_i of w_t = sum_i A_i w_(t-i) + e_t.
    innovation : (feature, feature) covariance of e.
    between : (feature, feature) covariance of m; zero where devices cannot be told apart.
    log_likelihood, n_parameters, aicc : AICc = 2 k - 2 ln L + 2 k (k + 1) / (n - k - 1), n the number of scores.
    """

    memory: np.ndarray
    innovation: np.ndarray
    between: np.ndarray
    log_likelihood: float
    n_parameters: int
    aicc: float

    @property
    def within(self) -> np.ndarray:
        """(feature, feature) stationary covariance of w."""
        size = len(self.innovation)
        return block_covariance(self.memory, self.innovation)[:size, :size]


def runs_of(scores: np.ndarray, device: np.ndarray, cycle: np.ndarray) -> Runs:
    """Return the runs of rows that are sorted by device and cycle: a gap in the cycles begins a new one."""
    _, number = np.unique(device, return_inverse=True)
    new = np.ones(len(number), dtype=bool)
    new[1:] = (np.diff(number) != 0) | (np.diff(cycle) != 1)
    return Runs(scores, number, np.flatnonzero(new))


def fit(runs: Runs, order: int, *, random_effects: bool) -> Autoregression | None:
    """Fit a vector autoregression of the given order by maximum likelihood, None where no optimum was found.

    A_1 is full; A_2 and so on are diagonal, because a feature's own long memory is what the data can show of them.
    The likelihood is exact: the first cycles of a run are drawn from the stationary distribution, and the device
    effect, which is normal, is integrated out in closed form (it enters the states linearly). Mean 0 is taken as known.
    """
    size = runs.scores.shape[1]
    likelihood = _Likelihood(runs, order)
    start = _start(runs, order, random_effects)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the negative log likelihood and its gradient by central differences, all in one batch."""
        step = _STEP * np.maximum(np.abs(theta), 1.0)
        around = np.concatenate([theta[None], theta + np.diag(step), theta - np.diag(step)])
        memory, innovation, between = _unpacked(around, size, order, random_effects)
        stationary = spectral_radius(memory) < LARGEST_RADIUS
        if not stationary[0]:
            return 1e12, np.zeros_like(theta)
        value = -likelihood(np.where(stationary[:, None, None, None], memory, memory[0]), innovation, between)
        up, down = value[1 : 1 + len(theta)], value[1 + len(theta) :]
        return float(value[0]), (up - down) / (2 * step)

    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 300, "ftol": 1e-10})
    if not np.isfinite(found.fun) or found.fun >= 1e12:
        return None
    k, n = len(start), runs.scores.size
    aicc = 2 * k + 2 * found.fun + (2 * k * (k + 1) / (n - k - 1) if n > k + 1 else np.inf)
    memory, innovation, between = (part[0] for part in _unpacked(found.x[None], size, order, random_effects))
    return Autoregression(memory, innovation, between, float(-found.fun), k, float(aicc))


def normalised(fitted: Autoregression) -> Autoregression:
    """Return the process with its scores scaled so that each has the variance 1, device effects included."""
    scale = np.sqrt(np.diag(fitted.between + fitted.within))
    ratio = np.outer(1 / scale, scale)
    outer = np.outer(scale, scale)
    return Autoregression(
        fitted.memory * ratio, fitted.innovation / outer, fitted.between / outer, fitted.log_likelihood,
        fitted.n_parameters, fitted.aicc,
    )  # fmt: skip


def _n_memory(size: int, order: int) -> int:
    """Return the number of free coefficients: a full matrix at lag 1, diagonals after it."""
    return size * size + (order - 1) * size if order else 0


def _unpacked(theta: np.ndarray, size: int, order: int, random_effects: bool) -> tuple[np.ndarray, ...]:
    """Return memory, innovation and between from free parameters (set, parameter), each with the sets in front.

    The covariances are given by Cholesky factors, the diagonal of the innovation's as logarithms.
    """
    lower, diagonal = np.tril_indices(size), np.arange(size)
    n_triangle, n_memory, n_sets = len(lower[0]), _n_memory(size, order), len(theta)
    memory = np.zeros((n_sets, order, size, size))
    if order:
        memory[:, 0] = theta[:, : size * size].reshape(n_sets, size, size)
        memory[:, 1:, diagonal, diagonal] = theta[:, size * size : n_memory].reshape(n_sets, order - 1, size)
    rest = theta[:, n_memory:]
    factors = []
    for k, logarithmic in enumerate((True, False)[: 1 + random_effects]):
        factor = np.zeros((n_sets, size, size))
        factor[:, lower[0], lower[1]] = rest[:, k * n_triangle : (k + 1) * n_triangle]
        if logarithmic:
            factor[:, diagonal, diagonal] = np.exp(np.clip(factor[:, diagonal, diagonal], -8.0, 4.0))
        factors.append(factor @ factor.swapaxes(1, 2))
    between = factors[1] if random_effects else np.zeros((n_sets, size, size))
    return memory, factors[0], between


def _start(runs: Runs, order: int, random_effects: bool) -> np.ndarray:
    """Return starting values from moments: between and within devices, and a regression on the cycles before."""
    u, device = runs.scores, runs.device
    size = u.shape[1]
    count = np.bincount(device)
    means = np.stack([np.bincount(device, u[:, k]) / count for k in range(size)], axis=1)
    centred = u - means[device] if random_effects else u
    freedom = max(len(u) - len(count), 1) if random_effects else len(u)
    within = centred.T @ centred / freedom + 0.02 * np.eye(size)
    memory = np.zeros((order, size, size))
    rows = _later_rows(runs, 1)
    if order and len(rows) > 3 * size:
        memory[0] = np.linalg.lstsq(centred[rows - 1], centred[rows], rcond=None)[0].T
        while spectral_radius(memory) >= 0.9:
            memory = memory * 0.8
    innovation = within
    if order:
        residual = centred[rows] - centred[rows - 1] @ memory[0].T
        innovation = residual.T @ residual / max(len(rows), 1) + 0.02 * np.eye(size)
    lower = np.tril_indices(size)
    factor = np.linalg.cholesky(innovation)
    factor[np.diag_indices(size)] = np.log(np.diag(factor))
    parts = [memory[:1].ravel(), np.zeros(max(order - 1, 0) * size), factor[lower]]
    if random_effects:
        between = np.cov(means.T).reshape(size, size) - within / np.mean(count)
        values, vectors = np.linalg.eigh(between)
        between = (vectors * np.maximum(values, 0.05)) @ vectors.T
        parts.append(np.linalg.cholesky(between)[lower])
    return np.concatenate(parts)


def _later_rows(runs: Runs, order: int) -> np.ndarray:
    """Return the rows that have `order` rows of their run before them."""
    position = np.arange(len(runs.scores)) - np.repeat(runs.first, runs.length)
    return np.flatnonzero(position >= order)


class _Likelihood:
    """Log likelihood of (memory, innovation, between), from sums over the devices that do not depend on them."""

    def __init__(self, runs: Runs, order: int) -> None:
        u, length = runs.scores, runs.length
        self.order, self.size = order, u.shape[1]
        self.n_devices = int(runs.device.max()) + 1
        owner = runs.device[runs.first]
        rows = _later_rows(runs, order)
        stacked = np.concatenate([u[rows - lag] for lag in range(order + 1)], axis=1)  # (row, (lag + 1) feature)
        self.moment = stacked.T @ stacked
        self.sums = _by_group(stacked, runs.device[rows], self.n_devices)
        self.n_later = np.bincount(runs.device[rows], minlength=self.n_devices)
        self.starts: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
        for depth in range(1, order + 1):  # runs that are shorter than the order have shorter beginnings
            here = np.flatnonzero(length >= depth if depth == order else length == depth)
            if len(here):
                first = runs.first[here]
                block = np.concatenate([u[first + depth - 1 - lag] for lag in range(depth)], axis=1)
                self.starts.append((
                    depth, block.T @ block, _by_group(block, owner[here], self.n_devices),
                    np.bincount(owner[here], minlength=self.n_devices),
                ))  # fmt: skip
        counts = np.stack([self.n_later, *(part[3] for part in self.starts)], axis=1)
        self.signatures, self.which = np.unique(counts, axis=0, return_inverse=True)
        self.which = self.which.ravel()
        self.share = np.bincount(self.which)
        self.n_values = u.size

    def __call__(self, memory: np.ndarray, innovation: np.ndarray, between: np.ndarray) -> np.ndarray:
        """Return the log likelihood of every parameter set, (set,); all arguments have the sets in front."""
        size, order = self.size, self.order
        precision = np.linalg.inv(innovation)
        identity = np.broadcast_to(np.eye(size), innovation.shape)
        filtered = np.concatenate([identity, *(-memory[:, lag] for lag in range(order))], axis=2)
        gain = identity - memory.sum(axis=1)  # residual = filtered @ stacked = gain @ m + e
        square = (filtered @ self.moment @ filtered.swapaxes(1, 2) * precision).sum(axis=(1, 2))
        log_determinant = float(self.n_later.sum()) * np.linalg.slogdet(innovation)[1]
        weighted = precision @ gain
        linear = self.sums @ (filtered.swapaxes(1, 2) @ weighted)  # (set, device, feature)
        informations = [gain.swapaxes(1, 2) @ weighted]
        for depth, moment, sums, count in self.starts:
            covariance = block_covariance(memory, innovation, depth)
            inverse = np.linalg.inv(covariance)
            ones = np.tile(np.eye(size), (depth, 1))
            square = square + (moment * inverse).sum(axis=(1, 2))
            log_determinant = log_determinant + float(count.sum()) * np.linalg.slogdet(covariance)[1]
            linear = linear + sums @ (inverse @ ones)
            informations.append(ones.T @ inverse @ ones)
        value = self.n_values * np.log(2 * np.pi) + log_determinant + square
        if between.any():
            counts = self.signatures.astype(float)  # (signature, part)
            information = np.einsum("sc,cbij->bsij", counts, np.stack(informations))
            system = np.eye(size) + information @ between[:, None]
            value = value + np.linalg.slogdet(system)[1] @ self.share
            posterior = between[:, None] @ np.linalg.inv(system)  # (set, signature, feature, feature)
            for k in range(len(counts)):
                here = linear[:, self.which == k]
                value = value - (here @ posterior[:, k] * here).sum(axis=(1, 2))
        return -0.5 * value


def _by_group(values: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    return np.stack([np.bincount(group, column, count) for column in values.T], axis=1)
