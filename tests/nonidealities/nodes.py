"""Nodes of device models of stated parameters, for nonidealities that tests/simple_devices.py does not have."""

import functools

import numpy as np
import xarray as xr

from calib.nonidealities.base import Conditions
from tests.simple_devices import G_OFF, G_ON, ONE, device, iv_node, programming_node, stuck_node

S = {"units": "S"}
LATER = Conditions(time=1e4, reads=1000)
LEVELS = (4e-7, 8e-7, 1.4e-6, 2.6e-6)


def levels_node(mean: tuple[float, ...] = LEVELS, told_by: str = "level") -> xr.Dataset:
    """Return programmed levels."""
    return xr.Dataset(
        {
            "mean": ("level", list(mean), S),
            "std": ("level", [0.02 * m for m in mean], S),
            "n_distinguishable": ("error", [2, 3]),
            "n_fit": ("error", [2.0, 3.0], ONE),
        },
        coords={
            "level_name": ("level", [str(k) for k in range(len(mean))]),
            "error": ("error", [0.01, 0.05], ONE),
        },
        attrs={"told_by": told_by},
    )


def retention_node(
    mean: tuple[float, ...] = (0.05,),
    std: tuple[float, ...] = (0.02,),
    *,
    relaxation: bool = False,
    temperatures: tuple[float, ...] = (),
) -> xr.Dataset:
    """Return drift exponents per range of conductance, and a relaxation that is better than them if `relaxation`."""
    ln_g = np.linspace(np.log(G_OFF), np.log(G_ON), len(mean))
    variables = {
        "drift_exponent_mean": ((), float(np.mean(mean)), ONE),
        "drift_exponent_std": ((), float(np.mean(std)), ONE),
        "range_drift_exponent_mean": ("nu_range", list(mean), ONE),
        "range_drift_exponent_std": ("nu_range", list(std), ONE),
        "range_ln_g": ("nu_range", ln_g, ONE),
        "outside": (("horizon", "threshold"), [[0.1]], ONE),
        "n_traces": ((), 50),
        "law_aicc": ("law", [0.0, 5.0] if relaxation else [5.0, 0.0], ONE),
        "n_law_traces": ((), 50),
    }
    attrs = {"reference_time": 2.0, "t_first": 1.0, "t_last": 1e5, "shift_law": "", "broadening_law": ""}
    coordinates: dict = {"law": ["constant", "power"]}
    if relaxation:
        attrs |= {"shift_law": "logarithmic", "broadening_law": "power"}
        coordinates["time"] = ("time", [1.0, 10.0, 100.0], {"units": "s"})
        centre = np.array([G_OFF, G_ON])
        shift = np.array([[0.0, -0.01], [-0.02, 0.005]]) * centre[:, None]
        broadening = np.array([[0.03**2, 0.1], [0.02**2, 0.15]]) * np.stack([centre**2, np.ones(2)], 1)
        mixed = {"units": "mixed"}
        variables |= {
            "range_conductance": ("range", centre, S),
            "shift_law": (("range", "coefficient"), shift, mixed),
            "broadening": (("range", "coefficient"), broadening, mixed),
        }
    if temperatures:
        nu = 4.0 * np.exp(-0.12 * 1.602176634e-19 / (1.380649e-23 * np.array(temperatures)))
        variables |= {
            "temperature": ("temperature_point", list(temperatures), {"units": "K"}),
            "temperature_drift_exponent": ("temperature_point", nu, ONE),
            "temperature_drift_exponent_stderr": ("temperature_point", 0.02 * nu, ONE),
            "activation_energy": ((), 0.12 * 1.602176634e-19, {"units": "J"}),
        }
    return xr.Dataset(variables, coords=coordinates, attrs=attrs)


def read_noise_node(level: float = 0.02, probability: float = 0.2) -> xr.Dataset:
    """Return read noise of which some devices have two levels."""
    values = {
        "ln_noise": np.log(level), "noise_exponent": -0.4, "noise_spread": 0.3,
        "ln_g_min": np.log(G_OFF), "ln_g_max": np.log(G_ON), "telegraph_probability": probability,
        "telegraph_ln_amplitude_mean": np.log(0.03), "telegraph_ln_amplitude_std": 0.4,
        "telegraph_ln_dwell_ratio_mean": 0.5, "telegraph_ln_dwell_ratio_std": 0.8,
    }  # fmt: skip
    variables = {name: ((), float(value), ONE) for name, value in values.items()}
    return xr.Dataset({**variables, "n_traces": ((), 40)}, attrs={"reference_conductance": 1e-6})


def disturb_node() -> xr.Dataset:
    """Return a disturb of readings in the direction of set."""
    values = {"rate": (2e-6, {"units": "1"}), "towards": (G_ON, S), "exponent": (0.7, ONE), "threshold": (10.0, ONE),
              "spread": (0.3, ONE)}  # fmt: skip
    return xr.Dataset({name: ((), value, attrs) for name, (value, attrs) in values.items()})


def writes_node(*, quantiles: bool = True, failures: bool = True) -> xr.Dataset:
    """Return writes to three target ranges: lognormal about the targets, of 3, 2 and 1 %; some fail near G_off."""
    target = np.array([G_OFF, 1.2e-6, G_ON])
    sigma = np.array([0.03, 0.02, 0.01]) * target
    probability = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    success = np.array([0.8, 0.95, 1.0]) if failures else np.ones(3)
    z = np.array([-1.645, -0.674, 0.0, 0.674, 1.645])
    variables = {
        "target": ("target", target, S),
        "target_low": ("target", [0.0, *(target - 4 * sigma)[1:]], S),
        "target_high": ("target", [*(target + 4 * sigma)[:2], np.inf], S),
        "success_probability": ("target", success, ONE),
        "success_probability_bound": (("target", "bound"), np.tile([0.5, 1.0], (3, 1)), ONE),
        "sigma": ("target", sigma, S),
        "sigma_relative": ("target", sigma / target, ONE),
        "sigma_d2d": ("target", 0.6 * sigma, S),
        "sigma_c2c": ("target", 0.8 * sigma, S),
        "bias": ("target", 0.01 * target, S),
        "n_writes": ("target", [500] * 3),
        "n_devices": ((), 100),
    }
    if quantiles:
        variables["achieved_quantile"] = (
            ("target", "quantile"),
            target[:, None] * (1.01 + np.outer(sigma / target, z)),
            S,
        )
        failed = np.tile([1.5e-6, 1.7e-6, 1.8e-6, 1.9e-6, 2.1e-6], (3, 1))
        failed[2] = np.nan
        variables["failed_quantile"] = (("target", "quantile"), failed, S)
    coordinates = {"bound": ["low", "high"], "quantile": probability}
    return xr.Dataset(variables, coords=coordinates, attrs={"statement": "made here", "rule": "none"})


def separated_programming(between: float = 0.3, within: float = 0.4) -> xr.Dataset:
    """Return a spread of ln R of which the parts between devices and between cycles are known."""
    total = float(np.hypot(between, within))
    node = programming_node(total, total)
    node["sigma_d2d"] = ("state", [between, between], ONE)
    node["sigma_c2c"] = ("state", [within, within], ONE)
    return node


@functools.cache
def all_effects() -> xr.DataTree:
    """Return a device model that has every nonideality."""
    return device(
        levels=levels_node(), programming=programming_node(), stuck=stuck_node(), retention=retention_node(),
        read_disturb=disturb_node(), read_noise=read_noise_node(), writes=writes_node(),
        iv=_with_quantiles(),
    )  # fmt: skip


def _with_quantiles() -> xr.Dataset:
    """Return the usual law in two states, whose ln R is skewed."""
    node = iv_node(two_states=True)
    level = np.linspace(0.0, 1.0, 21)
    skewed = np.array([c + 0.3 * (np.exp(1.2 * (level - 0.5)) - 1) for c in node["ln_r_mean"].values])
    return node.drop_dims("quantile").assign(
        ln_r_quantile=(("state", "quantile"), skewed, ONE)
    ).assign_coords(quantile=level)  # fmt: skip
