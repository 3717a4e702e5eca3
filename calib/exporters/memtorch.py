"""MemTorch: constructor arguments of its memristor models and nonidealities, and a module that applies them."""

import math
from typing import Any

import numpy as np
import xarray as xr

from calib.exporters import _numbers
from calib.exporters._simulator import LoadedSimulator

ERROR = 0.01
"""Misread probability of the levels that count as distinct."""
_SIGMAS = 4.0
"""Resistances are drawn within so many standard deviations of ln R: MemTorch fails where R_on exceeds R_off."""
_FINER = {
    "programming": "spread between cycles, and of states between R_on and R_off: MemTorch draws these two per device",
    "stuck": "where devices are stuck: MemTorch has R_on and R_off only, and each counts as the nearer one in ln R",
    "levels": "where levels lie: MemTorch spaces them evenly",
    "retention": "the spread of drift between devices and its dependence on G; drift that raises G is not applied",
}


class MemTorch(LoadedSimulator):
    """JSON, and a module that applies it to a network."""

    name = "memtorch"
    suffix = ".memtorch.json"
    carries = "R_on and R_off with their spread, shares of stuck devices, number of levels, mean drift"

    versions = "1.1.6"
    units = "ohm, s"
    carried = ("conductance", "programming", "stuck", "levels", "retention")
    finer = _FINER

    def more_omits(self, device_model: xr.DataTree) -> list[str]:
        sentences = ["the switching of the memristor's model (VTEAM and others), which stays MemTorch's"]
        if "levels" in device_model.children and _states(device_model) is None:
            sentences.append("the number of levels: fewer than two can be told apart, and MemTorch needs two")
        return sentences

    def data(self, device_model: xr.DataTree) -> dict[str, Any]:
        return {
            "resistance": resistance(device_model), "device_faults": faults(device_model),
            "conductance_states": _states(device_model), "drift": _drift(device_model),
        }  # fmt: skip


def resistance(tree: xr.DataTree) -> dict[str, dict[str, float] | None]:
    """Return r_on and r_off: mean [Ohm], sigma of ln R between devices, and the ends of what is drawn.

    `loc` is the mean of ln R, with which a lognormal distribution has the mean R: E[R] = exp(loc + sigma^2 / 2), as
    programming keeps it. The ends lie between R_on and R_off at their geometric mean, where the two would meet.
    """
    window = _numbers.conductance_range(tree)
    if window is None:
        return {"r_on": None, "r_off": None}
    spread = _numbers.programming(tree)
    ends = {"r_on": 1 / window.g_on, "r_off": 1 / window.g_off}
    middle = math.sqrt(ends["r_on"] * ends["r_off"])
    found: dict[str, dict[str, float] | None] = {}
    for name, r in ends.items():
        sigma = float(np.interp(r, spread.resistance, spread.sigma)) if spread else 0.0
        loc = math.log(r) - sigma**2 / 2
        low, high = math.exp(loc - _SIGMAS * sigma), math.exp(loc + _SIGMAS * sigma)
        limits = (low, min(high, middle)) if name == "r_on" else (max(low, middle), high)
        found[name] = {"mean": r, "loc": loc, "sigma": sigma, "min": limits[0], "max": limits[1]}
    return found


def faults(tree: xr.DataTree) -> dict[str, float] | None:
    """Return the shares of devices stuck at R_on and at R_off."""
    part, window = _numbers.stuck(tree), _numbers.conductance_range(tree)
    if part is None or window is None:
        return None
    nearer_on = np.array(part.values) > math.sqrt(window.g_on * window.g_off)
    on = part.probability * float(nearer_on.mean())
    return {"lrs_proportion": on, "hrs_proportion": part.probability - on, "electroform_proportion": 0.0}


def _drift(tree: xr.DataTree) -> dict[str, float] | None:
    """Return the drift of all devices, None where the conductance grows, which MemTorch refuses."""
    part = _numbers.drift(tree)
    if part is None:
        return None
    exponent = float(tree["retention"].to_dataset()["drift_exponent_mean"])
    return {"initial_time": part.reference_time, "drift_coefficient": exponent} if 0 <= exponent <= 1 else None


def _states(tree: xr.DataTree) -> int | None:
    if "levels" not in tree.children:
        return None
    node = tree["levels"].to_dataset()
    k = int(np.argmin(np.abs(node["error"].values - ERROR)))
    count = float(node["n_distinguishable"].values[k])
    return int(count) if math.isfinite(count) and count >= 2 else None


member = MemTorch()
