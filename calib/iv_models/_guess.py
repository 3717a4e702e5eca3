"""Starting values: what the laws' `guess` share. Everything runs over all curves at once.

Of each curve the points next to fixed shares x of its largest voltage are taken. In x every law has a table of curves
ln(I / V), one for each candidate of its `StartGrid`, which is made once; the misfit of a curve to all candidates is
then a few matrix products. The best candidate is refined by damped Gauss-Newton steps on ln I, in which the scale and
most shapes are nearly linear.
"""

import functools
from dataclasses import dataclass

import numpy as np

from calib.iv_models.base import Array, IVModel, StartGrid

SHARES = np.array([0.03, 0.06, 0.1, 0.17, 0.25, 0.35, 0.45, 0.55, 0.66, 0.77, 0.88, 1.0])
"""Shares of the largest voltage at which a guess looks at a curve."""
_FLOOR = 1e-3
"""Share of a curve's largest current below which points lose weight: noise and offset of the instrument bend ln I."""
_WORST = 3.0
"""Largest misfit in ln I that a point can add in the refinement."""
_ROWS = 64  # curves at a time: what a block of misfits needs stays in the cache
_CLOSE = 1e-5
"""Mean square misfit in ln I (0.3 %) from which on a guess is not refined."""


@dataclass(frozen=True)
class Points:
    """A few usable points of every curve, (curve, node).

    Attributes
    ----------
    v, i : voltage [V] and current [A], of equal sign; 1 where `weight` is 0.
    log_ratio : ln(I / V).
    weight : 1, less for small currents, 0 where there is no point near the node.
    v_max : (curve,) largest |V| [V].
    """

    v: np.ndarray
    i: np.ndarray
    log_ratio: np.ndarray
    weight: np.ndarray
    v_max: np.ndarray

    def at(self, rows: np.ndarray) -> "Points":
        """Return the points of some curves."""
        return Points(self.v[rows], self.i[rows], self.log_ratio[rows], self.weight[rows], self.v_max[rows])


def points(voltage: Array, current: Array, nodes: np.ndarray = SHARES) -> Points:
    """Take of each curve the usable points nearest to the nodes, shares of its largest voltage.

    A point is usable where both are finite and the current has the voltage's sign. Each is taken once.
    """
    voltage, current = np.broadcast_arrays(np.asarray(voltage, dtype=float), np.asarray(current, dtype=float))
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        product = voltage * current
        usable = (product > 0) & (product < np.inf)
    x = np.where(usable, voltage, 0.0)
    v_max = np.maximum(x.max(-1, initial=0.0), -x.min(-1, initial=0.0))
    some = v_max > 0
    v_max = np.where(some, v_max, 1.0)
    x = (x / v_max[:, None]).astype(np.float32)
    if nodes[0] > 0:
        x = np.abs(x)
    if len(x) and (usable == usable[0]).all() and (x == x[0]).all():  # sweeps of one kind: the same points of each
        x = x[:1]
    x[x == 0] = np.inf
    index = np.stack([np.abs(x - np.float32(node)).argmin(-1) for node in nodes], -1)
    index = np.broadcast_to(index, (len(voltage), len(nodes)))
    x = np.broadcast_to(x, voltage.shape)
    taken = np.take_along_axis(x, index, -1)
    edges = 0.5 * (nodes[1:] + nodes[:-1])
    gap = np.abs(nodes) * 1.0
    gap[1:], gap[:-1] = np.minimum(gap[1:], nodes[1:] - edges), np.minimum(gap[:-1], edges - nodes[:-1])
    here = some[:, None] & (np.abs(taken - nodes) <= gap * (1 + 1e-9))
    v = np.where(here, np.take_along_axis(voltage, index, -1), 1.0)
    i = np.where(here, np.take_along_axis(current, index, -1), 1.0)
    size = np.where(here, np.abs(i), 0.0)
    weight = np.minimum(size / np.maximum(_FLOOR * size.max(-1, keepdims=True), 1e-300), 1.0) ** 2
    return Points(v, i, np.log(i / v), weight, v_max)


def mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the weighted mean over the points of each curve; 0 for curves without points."""
    return (weight * values).sum(-1) / np.maximum(weight.sum(-1), 1e-300)


def line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return intercept and slope (curve,) of the weighted regression of y on x; slope 0 where x does not vary."""
    x_mean, y_mean = mean(x, weight), mean(y, weight)
    dx = x - x_mean[..., None]
    variance = (weight * dx**2).sum(-1)
    covariance = (weight * dx * y).sum(-1)
    slope = np.where(variance > 0, covariance / np.where(variance > 0, variance, 1.0), 0.0)
    return y_mean - slope * x_mean, slope


def from_grid(law: IVModel, voltage: Array, current: Array, steps: int = 2) -> dict[str, Array]:
    """Return the best candidate of the law's `start` for each curve, after some steps of refinement."""
    table = _table(law)
    data = points(voltage, current, table.nodes)
    best, level = table.best(data)
    shape = {name: value[best] * data.v_max ** table.powers.get(name, 0.0) for name, value in table.shapes.items()}
    start = clipped(law, shape)
    values = scaled(law, data.v_max, level, start)
    return refine(law, data, values, steps)


def series_from_grid(
    law: IVModel, inner: IVModel, name: str, voltage: Array, current: Array, steps: int = 10
) -> dict[str, Array]:
    """Do the same for a law `inner` with the series resistance `name`.

    A large resistance and a gentler law may follow a curve nearly as well as the true ones, and refinement does not
    lead from one to the other: the best of a small, a middle and a large resistance are refined, and compared.
    """
    found: dict[str, np.ndarray] = {}
    least = np.full(len(voltage), np.inf)
    for table in _series_tables(inner):
        data = points(voltage, current, table.nodes)
        best, level = table.best(data)
        shape = {key: value[best] * data.v_max ** table.powers.get(key, 0.0) for key, value in table.shapes.items()}
        share = table.share[best]
        values = scaled(inner, data.v_max * (1 - share), level - np.log(1 - share), clipped(inner, shape))
        start = clipped(law, {**values, name: share * np.exp(-np.clip(level, -200, 200))})
        values = refine(law, data, start, steps)
        misfit = _misfit(law, data, values)
        better = (misfit < least) | (least == np.inf)
        least = np.where(better, misfit, least)
        found = {key: np.where(better, value, found.get(key, value)) for key, value in values.items()}
    return found


def scaled(law: IVModel, voltage: np.ndarray, level: np.ndarray, shape: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the parameters with the scale (a factor) for which ln(I / V) is `level` at `voltage`."""
    with np.errstate(all="ignore"):
        unit = law.current(voltage, xp=np, **{law.scale: np.ones_like(level), **shape}) / voltage
        scale = np.exp(np.clip(level - np.log(unit), -300, 300))
    return clipped(law, {law.scale: scale, **shape})


@dataclass(frozen=True, eq=False)
class _Table:
    """Curves ln(I / V) of candidates at the nodes (candidate, node), for a largest voltage of 1 V."""

    nodes: np.ndarray
    curves: np.ndarray
    shapes: dict[str, np.ndarray]
    powers: dict[str, float]
    share: np.ndarray  # of the voltage that drops over a series resistance at 1 V

    def best(self, data: Points) -> tuple[np.ndarray, np.ndarray]:
        """Return the index of the candidate nearest to each curve, and its ln(I / V) at the largest voltage."""
        w, y = data.weight, _moved(data, self.nodes)
        wy = w * y
        total, first = np.maximum(w.sum(-1), 1e-300), wy.sum(-1)
        every = (w == 1).all(-1)
        index = np.empty(len(w), dtype=np.intp)
        for k in range(0, len(w), _ROWS):
            part = slice(k, k + _ROWS)
            if every[part].all():
                misfit = self.half_square - y[part] @ self.centred
            else:
                mean = w[part] @ self.curves.T
                mean -= first[part, None]
                mean *= mean
                mean /= total[part, None]
                misfit = np.concatenate([w[part], -2 * wy[part]], axis=1) @ self.squares_and_curves - mean
            misfit.argmin(-1, out=index[part])
        nearest = self.curves[index]
        return index, (first - (w * nearest).sum(-1)) / total + nearest[:, -1]

    @functools.cached_property
    def centred(self) -> np.ndarray:
        return (self.curves - self.curves.mean(1, keepdims=True)).T

    @functools.cached_property
    def half_square(self) -> np.ndarray:
        return 0.5 * (self.centred**2).sum(0)

    @functools.cached_property
    def squares_and_curves(self) -> np.ndarray:
        return np.concatenate([(self.curves**2).T, self.curves.T])


def _moved(data: Points, nodes: np.ndarray) -> np.ndarray:
    """Return ln(I / V) at the nodes: that of the points, moved by the slope between their neighbours."""
    x, y = data.v / data.v_max[:, None], data.log_ratio
    if nodes[0] > 0:
        x = np.abs(x)
    x = np.where(data.weight > 0, x, nodes)
    dx = x[:, 2:] - x[:, :-2]
    slope = np.zeros_like(y)
    known = (data.weight[:, 2:] > 0) & (data.weight[:, :-2] > 0) & (dx > 0)
    slope[:, 1:-1] = np.where(known, (y[:, 2:] - y[:, :-2]) / np.where(known, dx, 1.0), 0.0)
    return y + slope * (nodes - x)


@functools.cache
def _table(law: IVModel) -> _Table:
    grid = law.start
    assert grid is not None, f"the law '{law.name}' has no grid of starting values"
    return _of_curves(law, grid, _nodes(law), np.zeros(_size(grid)))


@functools.cache
def _series_tables(law: IVModel) -> tuple[_Table, ...]:
    """Return tables of a law with a series resistance, for small, middle and large shares of the voltage."""
    grid = law.start
    assert grid is not None, f"the law '{law.name}' has no grid of starting values"
    tables = []
    for shares in ((0.03, 0.15, 0.3), (0.45, 0.6), (0.75, 0.88, 0.96)):
        share = np.repeat(shares, _size(grid))
        shapes = {name: np.tile(value, len(shares)) for name, value in grid.shapes.items()}
        tables.append(_of_curves(law, StartGrid(shapes, grid.powers), _nodes(law), share))
    return tuple(tables)


def _of_curves(law: IVModel, grid: StartGrid, nodes: np.ndarray, share: np.ndarray) -> _Table:
    shape = {name: value[:, None] for name, value in clipped(law, grid.shapes).items()}
    one = np.ones((len(share), 1))
    with np.errstate(all="ignore"):
        if share.any():
            from calib.iv_models._series import inner_voltage

            left = 1 - share[:, None]
            inner = {law.scale: 1 / law.current(left, xp=np, **{law.scale: one, **shape}), **shape}  # I(1 V) = 1 A
            v = inner_voltage(law, nodes * one, share[:, None], inner, np)
            current = law.current(v, xp=np, **inner)
        else:
            current = law.current(nodes * one, xp=np, **{law.scale: one, **shape})
        curves = np.log(current / nodes)
    good = ~np.isnan(curves).any(-1) & np.isfinite(curves[:, -1])
    curves = np.maximum(curves, curves.max(-1, keepdims=True) - 200)[good]
    shapes = {name: value[good] for name, value in grid.shapes.items()}
    return _Table(nodes, curves, shapes, grid.powers, share[good])


def _nodes(law: IVModel) -> np.ndarray:
    return SHARES if law.odd else np.concatenate([-SHARES[::-1], SHARES])


def _size(grid: StartGrid) -> int:
    return len(next(iter(grid.shapes.values())))


def refine(law: IVModel, data: Points, start: dict[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """Return `start` after some damped Gauss-Newton steps on ln I; a step that does not lower the misfit is shortened.

    Curves leave when a step lowers their misfit by less than a tenth, and when it is small already.
    """
    is_log = np.array([parameter.transform == "log" for parameter in law.parameters])
    values = clipped(law, start)
    misfit = _misfit(law, data, values)
    damping = np.full(len(data.v), 1e-3)
    active = np.flatnonzero(misfit > _CLOSE)
    for _ in range(steps):
        if not len(active):
            break
        part, old = data.at(active), {name: value[active] for name, value in values.items()}
        step = _step(law, part, old, is_log, damping[active])
        trial = {}
        for k, name in enumerate(law.parameter_names):
            trial[name] = old[name] * np.exp(np.clip(step[:, k], -2, 2)) if is_log[k] else old[name] + step[:, k]
        trial = clipped(law, trial)
        found = _misfit(law, part, trial)
        before = misfit[active]
        better = found < before
        for name, value in values.items():
            value[active] = np.where(better, trial[name], old[name])
        misfit[active] = np.where(better, found, before)
        damping[active] *= np.where(better, 0.1, 30.0)
        active = active[(~better & (damping[active] < 1e6)) | (better & (found < 0.9 * before) & (found > _CLOSE))]
    return values


def clipped(law: IVModel, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return values within the bounds of the law's parameters, positive ones within the range of a float."""
    result = {}
    for name, value in values.items():
        parameter = law.parameter(name)
        lower = max(parameter.lower, 1e-100) if parameter.transform == "log" else parameter.lower
        upper = min(parameter.upper, 1e100) if parameter.transform == "log" else parameter.upper
        bounded = np.fmin(np.fmax(value, lower), upper)
        result[name] = np.where(np.isnan(bounded), 0.0, bounded)
    return result


def _log_ratio(law: IVModel, data: Points, values: dict[str, np.ndarray]) -> np.ndarray:
    """Return ln(I_law / I), held within +-_WORST, also where the law over- or underflows."""
    with np.errstate(all="ignore"):
        ratio = np.log(law.current(data.v, xp=np, **{k: v[:, None] for k, v in values.items()}) / data.i)
    return np.fmin(np.fmax(ratio, -_WORST), _WORST)


def _misfit(law: IVModel, data: Points, values: dict[str, np.ndarray]) -> np.ndarray:
    return mean(_log_ratio(law, data, values) ** 2, data.weight)


def _step(
    law: IVModel, data: Points, values: dict[str, np.ndarray], is_log: np.ndarray, damping: np.ndarray
) -> np.ndarray:
    """Return Marquardt's step (curve, parameter) in the logarithms of positive parameters."""
    columns = {name: value[:, None] for name, value in values.items()}
    root = np.sqrt(data.weight)
    with np.errstate(all="ignore"):
        partial = law.jacobian(data.v, xp=np, **columns)
        if law.scale_is_factor:
            current = partial[law.scale] * columns[law.scale]
        else:
            current = law.current(data.v, xp=np, **columns)
        factor = root / current
        matrix = np.empty((*current.shape, len(is_log)))
        for k, name in enumerate(law.parameter_names):
            matrix[..., k] = partial[name] * (factor * columns[name] if is_log[k] else factor)
        residual = -root * np.fmin(np.fmax(np.log(current / data.i), -_WORST), _WORST)
    matrix = np.where(np.isfinite(matrix), matrix, 0.0)
    norm = np.sqrt(np.maximum(np.square(matrix).sum(1), 1e-200))
    matrix /= norm[:, None, :]
    normal = matrix.swapaxes(1, 2) @ matrix
    normal += (damping[:, None] + 1e-12)[..., None] * np.eye(len(is_log))
    right = matrix.swapaxes(1, 2) @ residual[..., None]
    return np.clip(np.linalg.solve(normal, right)[..., 0] / norm, -1e6, 1e6)
