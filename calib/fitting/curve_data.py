"""Curves as the solvers take them: weighted, with the points that cannot be used set to zero weight."""

from dataclasses import dataclass

import numpy as np

from calib.fitting.buffers import scratch


@dataclass(frozen=True)
class CurveData:
    """A block of curves.

    Attributes
    ----------
    voltage : (point,) where all curves share their voltages, else (curve, point); finite everywhere.
    current : (curve, point) [A]; 0 where there is no point.
    weight : (curve, point) 1 / sigma; 0 where there is no point.
    n_points : (curve,) points that are there.
    complete : whether no point is missing.
    """

    voltage: np.ndarray
    current: np.ndarray
    weight: np.ndarray
    n_points: np.ndarray
    complete: bool

    def __len__(self) -> int:
        return len(self.current)

    @property
    def shares_voltage(self) -> bool:
        """Whether all curves have the same voltages."""
        return self.voltage.ndim == 1

    @property
    def width(self) -> int:
        """Points of a row, missing ones included."""
        return self.current.shape[1]

    def voltage_of(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return the voltages of some curves, (point,) or (curve, point)."""
        return self.voltage if self.shares_voltage else self.voltage[rows]

    def take(self, rows: np.ndarray) -> "CurveData":
        """Return some of the curves."""
        return CurveData(
            self.voltage_of(rows), self.current[rows], self.weight[rows], self.n_points[rows], self.complete
        )

    def points_first(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return voltage (point, 1) or (point, curve), copies of current and weight (point, curve); for few points."""
        voltage = self.voltage[:, None] if self.shares_voltage else np.array(self.voltage.T, order="C")
        return voltage, np.array(self.current.T, order="C"), np.array(self.weight.T, order="C")

    def thinned(self, count: int) -> "CurveData":
        """Return `count` or somewhat more points of each curve, spread evenly over the columns that hold any."""
        columns: slice | np.ndarray
        if self.complete:
            step = max(1, self.width // count)
            columns = slice((self.width - 1) % step // 2, None, step)
        else:
            used = np.flatnonzero((self.weight > 0).any(0))
            columns = used[np.unique(np.linspace(0, max(len(used) - 1, 0), min(count, len(used))).round().astype(int))]
        weight, current = self.weight[:, columns], self.current[:, columns]
        n_points = np.full(len(self), weight.shape[1]) if self.complete else np.count_nonzero(weight, axis=1)
        voltage = self.voltage[columns] if self.shares_voltage else self.voltage[:, columns]
        return CurveData(voltage, current, weight, n_points, self.complete)

    def masked(self) -> tuple[np.ndarray, np.ndarray]:
        """Return voltage and current (curve, point) with NaN where there is no point, as `IVModel.guess` takes them."""
        voltage = np.broadcast_to(self.voltage, self.current.shape)
        if self.complete:
            return voltage, self.current
        there = self.weight > 0
        return np.where(there, voltage, np.nan), np.where(there, self.current, np.nan)


def prepare(voltage: np.ndarray, current: np.ndarray, sigma: np.ndarray) -> CurveData:
    """Weight a block of curves (curve, point); a NaN, or a sigma that is not positive and finite, is no point."""
    n, width = current.shape
    if not current.size:
        return CurveData(np.zeros(width), np.zeros((n, width)), np.zeros((n, width)), np.zeros(n, dtype=int), True)
    complete = bool(sigma.min() > 0 and np.isfinite(sigma.max()) and np.isfinite(current).all())
    shared = voltage.strides[0] == 0 or (n > 1 and bool((voltage == voltage[0]).all()))
    v = voltage[0] if shared else voltage
    with np.errstate(over="ignore"):
        if complete and np.isfinite(v).all():
            weight = np.divide(1.0, sigma, out=scratch("weight", sigma.shape))
            if np.isfinite(weight).all():
                return CurveData(v, current, weight, np.full(n, width), True)
        usable = np.isfinite(voltage) & np.isfinite(current) & np.isfinite(sigma) & (sigma > 0)
        weight = np.where(usable, 1 / np.where(usable, sigma, 1.0), 0.0)
    usable &= np.isfinite(weight)
    weight = np.where(usable, weight, 0.0)
    if not shared:  # where there is no point, the curve's largest voltage stands in: every law is finite there
        size = np.where(usable, np.abs(voltage), 0.0).max(1)
        v = np.where(usable, voltage, np.where(size > 0, size, 1.0)[:, None])
    elif not np.isfinite(v).all():
        finite = np.abs(v[np.isfinite(v)])
        v = np.where(np.isfinite(v), v, finite.max() if len(finite) and finite.max() > 0 else 1.0)
    return CurveData(v, np.where(usable, current, 0.0), weight, usable.sum(1), False)
