"""CrossSim of Sandia National Laboratories, version 3: data, and a module with a class of device made of them.

CrossSim's generic devices have normal errors; the class in the module has those of the device model: lognormal
programming, stuck devices, drift, read noise, and the current of the I-V law from a table of I R / V.
"""

from typing import Any

import numpy as np
import xarray as xr

from calib.device_model import shape_law
from calib.exporters import _numbers
from calib.exporters._simulator import LoadedSimulator
from calib.iv_models import iv_model
from calib.sampling import parameters_at

RESISTANCES, VOLTAGES = 25, 65
_FINER = {
    "iv": "the spread of the law's parameters at a given resistance, and other currents at negative voltages",
    "programming": "spread between devices and between cycles apart: CrossSim draws anew for every programming",
    "retention": "laws of drift other than the power law, and the random part of relaxation",
    "read_noise": "how read noise differs between devices, and its correlation in time",
}


class CrossSim(LoadedSimulator):
    """JSON, and a module with a device for CrossSim."""

    name = "crosssim"
    suffix = ".crosssim.json"
    carries = "conductance range, programming spread, stuck devices, drift, read noise and the typical I-V law"

    versions = "3.2"
    units = "S, ohm, V, s"
    carried = ("conductance", "programming", "stuck", "retention", "read_noise", "iv")
    finer = _FINER

    def more_omits(self, device_model: xr.DataTree) -> list[str]:
        if "iv" in device_model.children and _numbers.conductance_range(device_model) is None:
            return ["the I-V law, whose table needs a conductance range"]
        return []

    def data(self, device_model: xr.DataTree) -> dict[str, Any]:
        node = device_model["iv"] if "iv" in device_model.children else None
        return _numbers.parts(device_model) | {
            "reference_voltage": None if node is None else abs(float(node.attrs["reference_voltage"])),
            "current": current_table(device_model),
        }


def current_table(tree: xr.DataTree) -> dict[str, Any] | None:
    """Return I R / V of the typical device by ln R (evenly spaced) and V (evenly spaced in its square root).

    The resistances are those of the conductance range and of what programming and stuck devices add to it; outside the
    table its edge holds. None without an I-V law or a conductance range.
    """
    window = _numbers.conductance_range(tree)
    if "iv" not in tree.children or window is None:
        return None
    law = shape_law(tree)
    model = iv_model(law.iv_model)
    spread = _numbers.programming(tree)
    margin = 3 * max(spread.sigma) if spread else 0.0
    ln_r = np.linspace(-np.log(window.g_on) - margin, -np.log(window.g_off) + margin, RESISTANCES)
    v_max = abs(float(law.v_max))
    voltage = v_max * np.linspace(0, 1, VOLTAGES) ** 2
    at = np.maximum(voltage, 1e-6 * v_max)
    parameters = parameters_at(law, ln_r, np.zeros((RESISTANCES, len(law.parameters))))
    columns = {name: values[:, None] for name, values in parameters.items()}
    ratio = model.current(at, xp=np, **columns) * np.exp(ln_r)[:, None] / at
    return {"ln_resistance": ln_r, "voltage": voltage, "ratio": ratio, "law": law.iv_model}


member = CrossSim()
