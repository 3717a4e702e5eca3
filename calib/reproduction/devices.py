"""Device models of the paper's set-ups, derived from the bundled ones."""

import functools

import numpy as np
import xarray as xr

from calib import device_model
from calib.fitting.intervals import binomial_interval
from calib.fitting.stuck import RULES
from calib.reproduction.experiments import SETUPS, Setup

BUNDLED_VARIANCE = 0.31
"""s2 of the bundled model of SiOx at high resistance; its covariance is proportional to s2."""
ARRAY_DEVICES = 128 * 64  # of Ta/HfO2; elsewhere nothing was counted
_UNIFORM = 101


def device(setup: str) -> xr.DataTree | str:
    """Return the device model of a set-up, or 'ideal' for the one without nonidealities.

    A set-up without a law, spread or stuck devices of its own has the conductance range of its base alone. Devices
    stuck at one conductance have a density without width there.
    """
    return "ideal" if setup == "ideal" else _derived(setup)


@functools.cache
def bundled(name: str) -> xr.DataTree:
    """Return a bundled device model, read once."""
    return device_model.open_device(name)


@functools.cache
def _derived(name: str) -> xr.DataTree:
    setup = SETUPS[name]
    base = bundled(setup.base)
    nodes = {"conductance": base["conductance"].to_dataset()}
    if setup.law:
        nodes["iv"] = _law(base, setup)
    if setup.sigma is not None:
        nodes["programming"] = _lognormal(nodes["conductance"], setup.sigma)
    if setup.stuck == "base":
        nodes["stuck"] = base["stuck"].to_dataset()
    elif setup.stuck:
        nodes["stuck"] = _stuck(nodes["conductance"], setup)
    said = device_model.attribute(base, "assumptions")
    return device_model.build(
        nodes,
        name=name,
        technology=f"{base.attrs['technology']}: {setup.title}",
        citation=base.attrs["citation"],
        assumptions=[*said, *_assumptions(setup)],
        options={"command": "calib reproduce joksas2022", "base": setup.base, "setup": name},
    )


def _law(base: xr.DataTree, setup: Setup) -> xr.Dataset:
    node = base["iv"].to_dataset()
    if setup.form:
        node = node.assign_attrs(form=setup.form)
    if setup.variance is None:
        return node
    attrs = node["covariance"].attrs
    scaled = node["covariance"] * (setup.variance / BUNDLED_VARIANCE)
    return node.assign(covariance=scaled.assign_attrs(attrs))


def _lognormal(conductance: xr.Dataset, sigma: tuple[float, float]) -> xr.Dataset:
    resistance = [1 / float(conductance[key]) for key in ("g_on", "g_off")]
    unknown = [np.nan, np.nan]
    one = {"units": "1"}
    return xr.Dataset(
        {
            "r_median": ("state", resistance, {"units": "ohm"}),
            "sigma": ("state", list(sigma), one),
            "sigma_d2d": ("state", unknown, one),
            "sigma_c2c": ("state", unknown, one),
            "n_devices": ("state", [0, 0]),
        },
        coords={"state": ["lrs", "hrs"]},
        attrs={"rule": "chosen in the paper, not measured"},
    )


def _stuck(conductance: xr.Dataset, setup: Setup) -> xr.Dataset:
    g_off, g_on = float(conductance["g_off"]), float(conductance["g_on"])
    values = {"off": [g_off], "on": [g_on], "uniform": np.linspace(g_off, g_on, _UNIFORM).tolist()}[setup.stuck]
    counted = ARRAY_DEVICES if setup.base == "ta-hfo2" else 0
    n_stuck = round(setup.stuck_probability * counted)
    bound = list(binomial_interval(n_stuck, counted)) if counted else [np.nan, np.nan]
    one, siemens = {"units": "1"}, {"units": "S"}
    return xr.Dataset(
        {
            "probability": ((), setup.stuck_probability, one),
            "probability_bound": ("bound", bound, one),
            "n_devices": ((), counted),
            "n_stuck": ((), n_stuck),
            "conductance": ("stuck_device", values, siemens),
            "bandwidth": ((), 0.0, siemens),
        },
        coords={"bound": ["low", "high"]},
        attrs={"rule": RULES["range"], "rule_name": "range", "assumed": 1},
    )


def _assumptions(setup: Setup) -> list[str]:
    said = []
    if not setup.law:
        said.append("the I-V curves are taken as linear")
    if setup.sigma is not None:
        said.append(f"the spread of ln R is chosen: {setup.sigma[0]:g} at G_on and {setup.sigma[1]:g} at G_off")
    if setup.stuck and setup.stuck != "base":
        where = {"off": "at G_off", "on": "at G_on", "uniform": "evenly between G_off and G_on"}[setup.stuck]
        said.append(f"ASSUMED: {100 * setup.stuck_probability:g} % of the devices are stuck {where}")
    if setup.form:
        said.append(f"here the law has the form '{setup.form}'")
    if setup.variance is not None:
        said.append(f"here the variance of ln(d eps) is {setup.variance:g} instead of {BUNDLED_VARIANCE:g}")
    return said
