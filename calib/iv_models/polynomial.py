"""An odd polynomial of the voltage."""

from types import ModuleType

import numpy as np

from calib.iv_models import _guess
from calib.iv_models.base import Array, IVModel, Parameter, StartGrid


class Polynomial(IVModel):
    """An odd polynomial, I = g (V + a3 V^3 + a5 V^5).

    A description of a curve that bends little, as array simulators use it (CrossSim, T. P. Xiao et al., Sandia
    National Laboratories, https://github.com/sandialabs/cross-sim). It is linear in g, g a3 and g a5, and Ohm's law is
    the regular point a3 = a5 = 0. Beyond the range that was fitted it follows no device, and with negative
    coefficients the current falls again: validity ends with the data.
    """

    name = "polynomial"
    title = "odd polynomial"
    parameters = (
        Parameter("g", "S", "conductance at vanishing voltage", lower=0.0, transform="log", typical=(1e-7, 1e-3)),
        Parameter("a3", "1/V^2", "cubic coefficient relative to g", typical=(0.1, 2.0)),
        Parameter("a5", "1/V^4", "coefficient of the fifth power relative to g", typical=(0.0, 1.0)),
    )
    scale = "g"
    odd = True
    expression = "g*(V + a3*V*V*V + a5*V*V*V*V*V)"
    start = StartGrid.product({}, a3=(0.0,), a5=(0.0,))
    no_series_because = "the coefficients of a polynomial take up whatever a series resistance does to the curve"
    latex = r"I = g \left(V + a_3 V^3 + a_5 V^5\right)"
    source = "T. P. Xiao et al., CrossSim, Sandia National Laboratories, https://github.com/sandialabs/cross-sim"

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        square = voltage * voltage
        return parameters["g"] * voltage * (1 + square * (parameters["a3"] + parameters["a5"] * square))

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        square = voltage * voltage
        per_scale = voltage * (1 + square * (parameters["a3"] + parameters["a5"] * square))
        cubic = parameters["g"] * voltage * square
        return {"g": per_scale + 0 * parameters["g"], "a3": cubic, "a5": cubic * square}

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        square = voltage * voltage
        return parameters["g"] * (1 + square * (3 * parameters["a3"] + 5 * parameters["a5"] * square))

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        """Return V^2, in which I / V is a polynomial of the second degree."""
        return voltage * voltage

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return xp.sqrt(coordinate)

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Solve for g, g a3 and g a5 with relative weights; where g is not positive, take the mean of I / V."""
        data = _guess.points(voltage, current)
        x = (data.v / data.v_max[:, None]) ** 2
        ratio = np.exp(np.clip(data.log_ratio, -200, 200))
        largest = np.maximum((ratio * (data.weight > 0)).max(1, initial=0.0), 1e-300)[:, None]
        w = data.weight * (largest / ratio) ** 2
        columns = np.stack([np.ones_like(x), x, x * x], -1)
        normal = np.einsum("cp,cpi,cpj->cij", w, columns, columns) + 1e-12 * np.maximum(w.sum(1), 1.0)[
            :, None, None
        ] * np.eye(3)
        right = np.einsum("cp,cpi,cp->ci", w, columns, ratio / largest)
        found = np.linalg.solve(normal, right[..., None])[..., 0]
        good = (found[:, 0] > 1e-3) & (data.weight > 0).sum(1).astype(bool)
        average = np.exp(np.clip(_guess.mean(data.log_ratio, data.weight), -200, 200))
        g = np.where(good, found[:, 0], 1.0)
        a3 = np.where(good, found[:, 1] / g, 0.0) / data.v_max**2
        a5 = np.where(good, found[:, 2] / g, 0.0) / data.v_max**4
        return _guess.clipped(self, {"g": np.where(good, g * largest[:, 0], average), "a3": a3, "a5": a5})


member = Polynomial()
