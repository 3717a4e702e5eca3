"""A block of I-V curves and a conduction law as a batch of least-squares problems.

The coordinates u are the law's parameters, logarithms of those whose transform is 'log', and, where it is fitted, a
constant current offset [A] at the end. Where the scale is a factor of the law, every evaluation puts it at its best
value for the other parameters, so that the iteration is variable projection (A. Ruhe, P. A. Wedin, SIAM Rev. 22, 318
(1980), doi 10.1137/1022057, algorithm 2).
"""

from collections.abc import Sequence

import numpy as np

from calib.fitting.curve_data import CurveData
from calib.fitting.normal_equations import Problem, Rows, dot
from calib.iv_models.base import IVModel

_LARGEST_LOG = 600.0


class LawColumns:
    """Derivatives of a law's current in the fitted coordinates; arrays are (point, problem), or the other way round.

    Attributes
    ----------
    names : the law's parameters.
    is_log : (parameter,) which coordinates are logarithms.
    scale_index : position of the scale.
    scale_is_factor : whether the current is the scale times a current at scale 1.
    projects : whether the scale may be put at its best value for the others.
    """

    def __init__(self, law: IVModel, points_first: bool = True) -> None:
        self.law, self.points_first = law, points_first
        self.names = law.parameter_names
        self.is_log = np.array([parameter.transform == "log" for parameter in law.parameters])
        self.scale_index = law.parameter_names.index(law.scale)
        scale = law.parameters[self.scale_index]
        self.scale_is_factor = law.scale_is_factor and bool(self.is_log[self.scale_index])
        self.projects = self.scale_is_factor and scale.lower <= 0 and not np.isfinite(scale.upper)

    def derivatives(self, u: np.ndarray, voltage: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Return dI/dtheta, at scale 1 where that is a factor, d theta/du (k, m), and the current where it is none."""
        values = {}
        chain = np.ones(u.shape)
        for k, name in enumerate(self.names):
            if self.is_log[k]:
                chain[k] = np.exp(np.clip(u[k], -_LARGEST_LOG, _LARGEST_LOG))
            values[name] = self.column(chain[k] if self.is_log[k] else u[k])
        if self.scale_is_factor:
            values[self.law.scale] = np.ones((1, 1))
        jacobian = self.law.jacobian(voltage, xp=np, **values)
        model = chain if self.scale_is_factor else self.law.current(voltage, xp=np, **values)
        return [jacobian[name] for name in self.names], chain, model

    def by_coordinates(self, u: np.ndarray, voltage: np.ndarray) -> list[np.ndarray]:
        """Return dI/du, where the scale is a factor, with nothing put at its best value."""
        found, chain, _ = self.derivatives(u, voltage)
        factors = chain * chain[self.scale_index]
        factors[self.scale_index] = chain[self.scale_index]
        return [column * self.column(factor) for column, factor in zip(found, factors, strict=True)]

    def put_scale(self, u: np.ndarray, chain: np.ndarray, best: np.ndarray) -> np.ndarray:
        """Put the scale at its best value where that is usable; return it. It becomes a factor of the other columns."""
        k = self.scale_index
        usable = (best > 0) & np.isfinite(best)
        u[k] = np.where(usable, np.log(np.where(usable, best, 1.0)), u[k])
        chain[k] = np.where(usable, best, chain[k])
        self.spread_scale(chain)
        return chain[k]

    def spread_scale(self, chain: np.ndarray) -> None:
        """Multiply the factors of the other columns by the scale."""
        for i in range(len(self.names)):
            if i != self.scale_index:
                chain[i] *= chain[self.scale_index]

    def column(self, value: np.ndarray) -> np.ndarray:
        """Return what belongs to the problems, to be multiplied with points."""
        return value if self.points_first else value[:, None]


class CurveProblem(Problem):
    """Residuals (I(V; theta) + I_0 - I) / sigma of a block of curves.

    Parameters
    ----------
    law : the conduction law.
    data : the curves.
    fit_offset : whether I_0 is fitted.
    projects : whether the scale may be put at its best value; only for the sum of squares.
    """

    def __init__(self, law: IVModel, data: CurveData, fit_offset: bool, projects: bool) -> None:
        self.fit_offset = fit_offset
        self.n_points, self.width = data.n_points, data.width
        self.points_first = data.width < 64 or not len(data)
        if self.points_first:
            self.voltage, self.current, self.weight = data.points_first()
        else:
            self.voltage, self.current, self.weight = np.atleast_2d(data.voltage), data.current, data.weight
        self.y = self.current * self.weight
        self.data_square = dot(self.y, self.y, self.points_first)
        self.columns = LawColumns(law, self.points_first)
        self.projects = projects and self.columns.projects and not fit_offset

    def evaluate(self, u: np.ndarray, rows: Rows) -> tuple[np.ndarray, Sequence[np.ndarray], np.ndarray | None]:
        voltage, weight, y = (self._rows(a, rows) for a in (self.voltage, self.weight, self.y))
        columns, chain, model = self.columns.derivatives(u, voltage)
        columns = [column * weight for column in columns]
        if self.columns.scale_is_factor:
            residual = self._from_scale(u, columns[self.columns.scale_index], y, chain)
        else:
            residual = model * weight
            residual -= y
        if self.fit_offset:
            columns.append(weight)
            residual += weight * self.columns.column(u[-1])
        return residual, columns, chain

    def _from_scale(self, u: np.ndarray, model: np.ndarray, y: np.ndarray, chain: np.ndarray) -> np.ndarray:
        """Return the residual from the weighted current at scale 1; the scale becomes a factor of the columns."""
        if self.projects:
            self.columns.put_scale(u, chain, dot(model, y, self.points_first) / dot(model, model, self.points_first))
        else:
            self.columns.spread_scale(chain)
        residual = model * self.columns.column(chain[self.columns.scale_index])
        residual -= y
        return residual

    def _rows(self, array: np.ndarray, rows: Rows) -> np.ndarray:
        if self.points_first:
            return array if array.shape[1] == 1 else array[:, rows]
        return array if len(array) == 1 else array[rows]
