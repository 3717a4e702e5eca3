"""What a conduction law and the voltages of a sweep give for all curves: candidates, and nodes in place of points.

The candidates are those of the law's `calib.iv_models.base.StartGrid`, with more values between. A curve is compared
with all of them at about twelve voltages, in ln(I / V) less its mean, so that the scale drops out.

The nodes are some of the points: a function that the law makes, at the others, is a combination of its values there, by
an interpolative decomposition (H. Cheng, Z. Gimbutas, P. G. Martinsson, V. Rokhlin, SIAM J. Sci. Comput. 26, 1389
(2005), doi 10.1137/030602678). They are the columns that a QR factorisation with pivots picks first from functions
sampled from the law. Nothing here depends on the curves.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from calib.fitting.curve_data import CurveData
from calib.fitting.curve_problem import LawColumns
from calib.iv_models.base import IVModel, StartGrid

MOST_NODES = 26
STATIONS = 5
"""Values of a valley's parameter at which a curve is looked at; a polynomial of the fourth degree has two minima."""
_SHARES = np.array([0.03, 0.06, 0.1, 0.17, 0.25, 0.35, 0.45, 0.55, 0.66, 0.77, 0.88, 1.0])
_CLEAR = 10.0  # currents over their standard deviation from which on a point's logarithm counts fully
_MOST_CANDIDATES = 1200
_AT_A_TIME = 65_536  # misfits that are worked on at a time
_SAMPLES = 300
_REACH, _VALLEY_REACH = 1.4, 5.0  # of sampled shapes from a candidate, in steps of the grid
_NEGLIGIBLE = 1e-7  # share of the functions that the nodes may miss
_FAR = 4.0  # steps of the grid from the best candidate, from which on a fit has gone astray
_LEAST_CURRENT = 1e-150


@dataclass(frozen=True, eq=False)
class SweepCandidates:
    """What a law and the voltages of a sweep give.

    Attributes
    ----------
    voltage : (point,) [V].
    table : (candidate, point) currents of the candidates, in units of their largest.
    starts : (candidate, parameter) the candidates in the fitted coordinates.
    reach : (candidate, parameter) `_FAR` steps of the grid.
    columns : points at which curves are compared with the candidates.
    centred, half_square : (column, candidate) ln(I / V) there less its mean, and half of the sum of its squares.
    steps : (candidate, parameter, column) what a rest in the logarithm moves the parameters by.
    valley : position of the parameter along whose valley a curve is looked at, or None.
    stations : the candidates at each value of that parameter at which it is looked at.
    nodes : points that are nodes.
    spread : (point, node) L.
    bent : positions of the parameters in which the derivatives by the shapes are not constant.
    """

    voltage: np.ndarray
    table: np.ndarray
    starts: np.ndarray
    reach: np.ndarray
    columns: np.ndarray
    centred: np.ndarray
    half_square: np.ndarray
    steps: np.ndarray
    valley: int | None
    stations: tuple[slice, ...]
    nodes: np.ndarray
    spread: np.ndarray
    bent: tuple[int, ...]

    def nearest(self, data: CurveData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the candidate whose logarithm is nearest to that of each curve, and where to start from it.

        Returns
        -------
        best : (curve,) the candidate.
        at : (station, curve) the candidates at the stations.
        start : (curve, parameter) the candidate, moved by what is left in the logarithm where all points count.
        """
        voltage = self.voltage[self.columns]
        current, weight = data.current[:, self.columns], data.weight[:, self.columns]
        ratio = current / voltage
        with np.errstate(all="ignore"):
            size = np.minimum(np.abs(current) * weight / _CLEAR, 1.0)
            counts = np.where(ratio > 0, size * size, 0.0)
            y = np.where(ratio > 0, np.log(np.where(ratio > 0, ratio, 1.0)), 0.0)
        y -= ((counts * y).sum(1) / np.maximum(counts.sum(1), 1e-300))[:, None]
        clear = (counts == 1).all(1)
        best, at = np.zeros(len(data), dtype=np.intp), np.zeros((len(self.stations), len(data)), dtype=np.intp)
        size = max(16, _AT_A_TIME // len(self.table))
        for rows, misfit in ((np.flatnonzero(clear), self._misfit), (np.flatnonzero(~clear), self._weighted_misfit)):
            for k in range(0, len(rows), size):
                some = rows[k : k + size]
                found = misfit(y[some].astype(np.float32), counts[some].astype(np.float32))
                best[some] = found.argmin(1)
                for j, station in enumerate(self.stations):
                    at[j, some] = found[:, station].argmin(1) + station.start
        start = self.starts[best]
        if clear.any() and not self.stations:
            rest = y[clear] - self.centred.T[best[clear]]
            step = np.einsum("nkp,np->nk", self.steps[best[clear]], rest)
            limit = 2 / _FAR * self.reach[best[clear]]
            start[clear] += np.clip(step, -limit, limit)
        return best, at, start

    def _misfit(self, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
        del counts  # all are 1
        return self.half_square - y @ self.centred

    def _weighted_misfit(self, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
        wy = counts * y
        mean = counts @ self.centred - wy.sum(1, keepdims=True)
        total = np.maximum(counts.sum(1, keepdims=True), np.float32(1e-30))
        return counts @ self.squared - 2 * (wy @ self.centred) - mean * mean / total

    @functools.cached_property
    def squared(self) -> np.ndarray:
        """Return `centred`, squared."""
        return self.centred * self.centred


@functools.lru_cache(maxsize=8)
def sweep_candidates(law: IVModel, voltage_bytes: bytes) -> SweepCandidates | None:
    """Return the candidates and nodes of a law with a `start` at voltages (float64), or None where there are none."""
    voltage = np.frombuffer(voltage_bytes)
    some = np.flatnonzero(voltage)
    if not len(some):
        return None
    axes, shapes = _refined(law, float(np.abs(voltage).max()))
    nodes, spread = _interpolation(law, voltage, some, axes)
    columns = _columns(law, voltage)
    with np.errstate(all="ignore"):
        table = _at_scale_one(law, voltage, shapes)
        table = table / np.abs(table).max(1, keepdims=True)
        y = np.log(table[:, columns] / voltage[columns])
        usable = np.isfinite(table).all(1) & np.isfinite(y).all(1) & (np.abs(table[:, some]) > _LEAST_CURRENT).all(1)
    good, valley, stations = _stations(law, shapes, np.flatnonzero(usable))
    if not (len(good) and len(nodes)):
        return None
    y = y[good] - y[good].mean(1, keepdims=True)
    starts, reach = np.zeros((len(good), len(law.parameters))), np.full((len(good), len(law.parameters)), np.inf)
    for k, parameter in enumerate(law.parameters):
        if parameter.name != law.scale:
            is_log = parameter.transform == "log"
            value, axis = shapes[parameter.name][good, 0], axes[parameter.name]
            starts[:, k], axis = (np.log(value), np.log(axis)) if is_log else (value, axis)
            reach[:, k] = _FAR * np.gradient(axis)[np.searchsorted(axis, starts[:, k])] if len(axis) > 1 else np.inf
    return SweepCandidates(
        voltage=voltage, table=table[good], starts=starts, reach=reach, columns=columns,
        centred=np.ascontiguousarray(y.T, dtype=np.float32),
        half_square=(0.5 * np.square(y).sum(1)).astype(np.float32), steps=_steps(law, voltage[columns], starts),
        valley=valley, stations=stations, nodes=nodes, spread=spread, bent=_bent(law, voltage[some], starts),
    )  # fmt: skip


def _stations(
    law: IVModel, shapes: dict[str, np.ndarray], good: np.ndarray
) -> tuple[np.ndarray, int | None, tuple[slice, ...]]:
    """Return the candidates in the order of the valley's parameter, its position, and the candidates at each value."""
    assert law.start is not None
    name = law.start.valley
    if not name:
        return good, None, ()
    good = good[np.argsort(shapes[name][good, 0], kind="stable")]
    _, first, count = np.unique(shapes[name][good, 0], return_index=True, return_counts=True)
    slices = tuple(slice(start, start + number) for start, number in zip(first, count, strict=True))
    return good, law.parameter_names.index(name), slices


def _steps(law: IVModel, voltage: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return (candidate, parameter, column) Gauss and Newton's step for a rest in ln I, the scale being free."""
    columns, shapes = LawColumns(law), [k for k, name in enumerate(law.parameter_names) if name != law.scale]
    with np.errstate(all="ignore"):
        found = np.stack(columns.by_coordinates(starts.T, voltage[:, None]))  # (parameter, column, candidate)
        slopes = (found[shapes] / found[columns.scale_index]).transpose(2, 1, 0)
    slopes = np.nan_to_num(slopes - slopes.mean(1, keepdims=True), posinf=0.0, neginf=0.0)
    size = np.maximum(np.sqrt(np.square(slopes).sum(1, keepdims=True)), 1e-12)
    slopes /= size
    normal = slopes.swapaxes(1, 2) @ slopes + 1e-4 * np.eye(len(shapes))
    steps = np.zeros((len(starts), len(law.parameters), len(voltage)))
    steps[:, shapes] = np.linalg.solve(normal, slopes.swapaxes(1, 2)) / size.swapaxes(1, 2)
    return steps


def _bent(law: IVModel, voltage: np.ndarray, starts: np.ndarray) -> tuple[int, ...]:
    """Return in which parameters the derivatives by the shapes change, found by moving them."""
    columns, u = LawColumns(law), starts.T[:, :: max(1, len(starts) // 50)].copy()
    with np.errstate(all="ignore"):
        here, found = columns.by_coordinates(u, voltage[:, None]), []
        shapes = [k for k in range(len(u)) if k != columns.scale_index]
        for a in shapes:
            moved = u.copy()
            moved[a] += 1e-3
            there = columns.by_coordinates(moved, voltage[:, None])
            if any((np.abs(there[b] - here[b]) > 1e-9 * np.abs(here[b])).any() for b in shapes):
                found.append(a)
    return tuple(found)


def _at_scale_one(law: IVModel, voltage: np.ndarray, shapes: dict[str, np.ndarray]) -> np.ndarray:
    n = len(next(iter(shapes.values())))
    return np.broadcast_to(law.current(voltage, xp=np, **{law.scale: np.ones((n, 1))}, **shapes), (n, len(voltage)))


def _columns(law: IVModel, voltage: np.ndarray) -> np.ndarray:
    """Return the points nearest to shares of the largest voltage, of both signs for a law that is not odd."""
    x = voltage / np.abs(voltage).max()
    x = np.where(x == 0, np.inf, np.abs(x) if law.odd else x)
    nodes = _SHARES if law.odd else np.concatenate([-_SHARES[1::2], _SHARES[1::2]])
    return np.unique([np.abs(x - node).argmin() for node in nodes])


def _refined(law: IVModel, v_max: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the axes of the law's candidates, finer, and all their combinations.

    One more value between each two, the first axis last, up to `_MOST_CANDIDATES`; along a valley only the stations,
    and three more values between those of the others.
    """
    grid = law.start
    assert grid is not None
    coarse = {name: np.unique(values) for name, values in grid.shapes.items()}
    counts = {name: len(axis) for name, axis in coarse.items()}
    for name in reversed(counts):
        finer = {**counts, name: 2 * counts[name] - 1}
        if grid.valley:
            counts[name] = STATIONS if name == grid.valley else 4 * counts[name] - 3
        elif np.prod(list(finer.values())) <= _MOST_CANDIDATES:
            counts = finer
    axes = {}
    for name, axis in coarse.items():
        parameter = law.parameter(name)
        low = max(parameter.lower, 1e-100) if parameter.transform == "log" else parameter.lower
        finer_axis = np.interp(np.linspace(0, len(axis) - 1, counts[name]), np.arange(len(axis)), axis)
        axes[name] = np.clip(finer_axis * v_max ** grid.powers.get(name, 0.0), low, parameter.upper)
    return axes, {name: value[:, None] for name, value in StartGrid.product({}, **axes).shapes.items()}


def _interpolation(
    law: IVModel, voltage: np.ndarray, some: np.ndarray, axes: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes and L (point, node), with rows of zeros where there is no voltage."""
    near, reference = _sampled(law, axes)
    v = voltage[some]
    with np.errstate(all="ignore"):
        unit = _at_scale_one(law, v, reference)
        one = {law.scale: np.ones((_SAMPLES, 1))}
        columns = [np.broadcast_to(c, unit.shape) / unit for c in law.jacobian(v, xp=np, **one, **near).values()]
        functions = np.concatenate([*(a * b for i, a in enumerate(columns) for b in columns[i:]), *columns])
        functions = functions / np.abs(functions).max(1, keepdims=True)
    functions = functions[np.isfinite(functions).all(1)]
    if not len(functions):
        return np.zeros(0, dtype=int), np.zeros((len(voltage), 0))
    factors: Any = linalg.qr(functions, mode="r", pivoting=True)
    r, order = factors
    size = np.abs(np.diag(r))
    count = int(min(MOST_NODES, (size > _NEGLIGIBLE * size[0]).sum()))
    spread = np.zeros((len(voltage), count))
    spread[some[order[:count]]] = np.eye(count)
    spread[some[order[count:]]] = linalg.solve_triangular(r[:count, :count], r[:count, count:]).T
    return some[order[:count]], spread


def _sampled(law: IVModel, axes: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return shapes (sample, 1), and candidates near to them: where devices are usually found, by a regular sequence.

    The sequence is that of the generalised golden ratio, whose multiples fill a cube evenly.
    """
    assert law.start is not None
    near, reference = {}, {}
    dimensions = 2 * len(axes)
    root = 2.0
    for _ in range(30):
        root = (1 + root) ** (1 / (dimensions + 1))
    for k, (name, axis) in enumerate(axes.items()):
        share = [np.arange(1, _SAMPLES + 1) * root ** -(2 * k + j) % 1.0 for j in (1, 2)]
        usual = np.flatnonzero(_usual(law, name, axis))
        usual = usual if len(usual) else np.arange(len(axis))
        index = usual[(share[0] * len(usual)).astype(int)]
        reference[name] = axis[index][:, None]
        away = (2 * share[1] - 1) * (_VALLEY_REACH if law.start.valley else _REACH)
        at = share[1] * (len(axis) - 1) if name == law.start.valley else index + away
        near[name] = np.interp(at, np.arange(len(axis)), axis)[:, None]
    return near, reference


def _usual(law: IVModel, name: str, axis: np.ndarray) -> np.ndarray:
    """Return which values of a shape are near its typical range."""
    parameter = law.parameter(name)
    low, high = parameter.typical
    if parameter.transform == "log":
        return (axis >= low / 1.5) & (axis <= high * 1.5)
    return (axis >= low - 0.5 * (high - low)) & (axis <= high + 0.5 * (high - low))
