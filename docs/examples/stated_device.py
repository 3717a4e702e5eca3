"""A device model of stated numbers: a conductance range, spread and stuck devices that were not fitted to anything."""

import numpy as np
import xarray as xr

from calib import device_model
from calib.errors import OptionError


def stated_device(
    name: str,
    g_off: float,
    g_on: float,
    *,
    sigma: tuple[float, float] | None = None,
    stuck: float = 0.0,
    source: str = "",
) -> xr.DataTree:
    """Return a model of linear devices.

    Parameters
    ----------
    g_off, g_on : conductance range [S].
    sigma : standard deviation of ln R of devices programmed to G_on and to G_off, linear in R between; None for none.
    stuck : probability of a device to be stuck at G_off.
    source : where the numbers come from.

    Raises
    ------
    OptionError
        When there is no such range.
    """
    if not 0 < g_off < g_on:
        raise OptionError(f"the conductance range is {g_off} S to {g_on} S; expected 0 < G_off < G_on")
    one, siemens, unknown = {"units": "1"}, {"units": "S"}, [np.nan, np.nan]
    nodes = {"conductance": xr.Dataset({"g_off": ((), g_off, siemens), "g_on": ((), g_on, siemens)})}
    if sigma is not None:
        nodes["programming"] = xr.Dataset(
            {
                "r_median": ("state", [1 / g_on, 1 / g_off], {"units": "ohm"}),
                "sigma": ("state", list(sigma), one),
                "sigma_d2d": ("state", unknown, one),
                "sigma_c2c": ("state", unknown, one),
                "n_devices": ("state", [0, 0]),
            },
            coords={"state": ["lrs", "hrs"]},
        )
    if stuck:
        nodes["stuck"] = xr.Dataset(
            {
                "probability": ((), stuck, one),
                "probability_bound": ("bound", unknown, one),
                "n_devices": ((), 0),
                "n_stuck": ((), 0),
                "conductance": ("stuck_device", [g_off], siemens),
                "bandwidth": ((), 0.0, siemens),
            },
            coords={"bound": ["low", "high"]},
        )
    return device_model.build(
        nodes, name=name, citation=source, assumptions=["every number of this model is stated, none is fitted"]
    )
