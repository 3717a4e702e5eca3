"""CrossSim of Sandia National Laboratories, version 3: data, and a module with a class of device made of them.

CrossSim's generic devices have normal errors; the class in the module has those of the device model: lognormal
programming, stuck devices, drift, read noise, and the current of the I-V law from a table of I R / V.
"""

from typing import Any

import numpy as np
import xarray as xr

from calib.device_model import shape_law
from calib.exporters import _numbers
from calib.exporters._loaders import loader, module_name
from calib.exporters.base import Exporter
from calib.iv_models import iv_model
from calib.sampling import parameters_at

FORMAT = "calib-crosssim/1"
RESISTANCES, VOLTAGES = 25, 65
_CARRIED = ("conductance", "programming", "stuck", "retention", "read_noise", "iv")
_FINER = {
    "iv": "the spread of the law's parameters at a given resistance, and other currents at negative voltages",
    "programming": "spread between devices and between cycles apart: CrossSim draws anew for every programming",
    "retention": "laws of drift other than the power law, and the random part of relaxation",
    "read_noise": "how read noise differs between devices, and its correlation in time",
}


class CrossSim(Exporter):
    """JSON, and a module with a device for CrossSim."""

    name = "crosssim"
    suffix = ".crosssim.json"
    carries = "conductance range, programming spread, stuck devices, drift, read noise and the typical I-V law"

    def omits(self, device_model: xr.DataTree) -> list[str]:
        return _numbers.omissions(device_model, _CARRIED, _FINER)

    def contents(self, device_model: xr.DataTree) -> dict[str, str]:
        head = _numbers.header(device_model)
        name = self.file_name(device_model)
        node = device_model["iv"] if "iv" in device_model.children else None
        document = {
            "format": FORMAT, "crosssim": "3.2", **head, "units": "S, ohm, V, s",
            "reference_voltage": None if node is None else abs(float(node.attrs["reference_voltage"])),
            "conductance": _numbers.as_dict(_numbers.conductance_range(device_model)),
            "programming": _numbers.as_dict(_numbers.programming(device_model)),
            "stuck": _numbers.as_dict(_numbers.stuck(device_model)),
            "drift": _numbers.as_dict(_numbers.drift(device_model)),
            "read_noise": _numbers.as_dict(_numbers.read_noise(device_model)),
            "current": current_table(device_model), "left_out": self.omits(device_model),
        }  # fmt: skip
        return {
            name: _numbers.to_json(document),
            module_name(head["name"], "crosssim"): loader("crosssim", name, head["identity"]),
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
