"""Ohm's law."""

from types import ModuleType

import numpy as np

from calib.iv_models.base import Array, IVModel, Parameter


class Ohmic(IVModel):
    """Ohm's law, I = g V: the limit in which a device is a resistor."""

    name = "ohmic"
    title = "Ohm's law"
    parameters = (Parameter("g", "S", "conductance", lower=0.0, transform="log", typical=(1e-7, 1e-3)),)
    scale = "g"
    odd = True
    expression = "g*V"
    no_series_because = "the resistance of an ohmic device takes up whatever lies in series with it"
    latex = r"I = g\,V"
    source = "G. S. Ohm, 1827"

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        return parameters["g"] * voltage

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        return {"g": voltage + 0 * parameters["g"]}

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        return parameters["g"] + 0 * voltage

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        return voltage

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return coordinate

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Take sum(I V) / sum(V^2)."""
        usable = np.isfinite(voltage) & np.isfinite(current)
        v, i = np.where(usable, voltage, 0.0), np.where(usable, current, 0.0)
        square = np.maximum((v * v).sum(-1), 1e-300)
        return {"g": np.maximum((i * v).sum(-1), np.maximum(1e-2 * np.abs(i * v).sum(-1), 1e-300)) / square}


member = Ohmic()
