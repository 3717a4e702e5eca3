"""Device models of stated parameters, built by hand, for tests of what is computed from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from calib import device_model
from calib.vision import ImageData

if TYPE_CHECKING:
    from calib.runs import Run

G_OFF, G_ON = 5e-7, 2.5e-6
LN_R = (-np.log(G_ON), -np.log(G_OFF))
ONE = {"units": "1"}


def iv_node(
    *,
    form: str = "anchored",
    law: str = "poole-frenkel",
    two_states: bool = False,
    spread: float = 0.28,
    transform: str = "log",
    v_max: float = 0.5,
) -> xr.Dataset:
    """Return a law's node: ln gamma = 0.05 ln R with standard deviation `spread`, c tied to it at 0.1 V."""
    names = ["c", "gamma"] if law == "poole-frenkel" else ["g"]
    states = ["lrs", "hrs"] if two_states else ["hrs"]
    centres = [LN_R[0] + 0.3, LN_R[1] - 0.3] if two_states else [float(np.mean(LN_R))]
    gamma_line = [(0.4, 0.02), (0.0, 0.05)] if two_states else [(0.0, 0.05)]
    direction = np.array([-0.6, 1.0])
    size = (len(states), len(names))
    intercept, slope, covariance = np.zeros(size), np.zeros(size), np.zeros((*size, len(names)))
    for i, line in enumerate(gamma_line):
        intercept[i], slope[i] = ([-0.6, line[0]], [-1.0, line[1]]) if len(names) == 2 else ([0.0], [-1.0])
        if len(names) == 2:
            covariance[i] = (spread * (1 - 0.5 * (i == 0 and two_states))) ** 2 * np.outer(direction, direction)
    variables = {
        "transform": (("state", "parameter"), np.full(size, "log", dtype=object)),
        "intercept": (("state", "parameter"), intercept, ONE),
        "slope": (("state", "parameter"), slope, ONE),
        "covariance": (("state", "parameter", "parameter_other"), covariance, ONE),
        "ln_r_quantile": (("state", "quantile"), np.tile(LN_R, (len(states), 1)), ONE),
        "ln_r_mean": (("state",), centres, ONE),
        "ln_r_std": (("state",), [0.3] * len(states), ONE),
        "ln_r_min": (("state",), [LN_R[0]] * len(states), ONE),
        "ln_r_max": (("state",), [LN_R[1]] * len(states), ONE),
        "n_curves": (("state",), [40] * len(states)),
        "n_devices": (("state",), [10] * len(states)),
    }
    if len(names) == 2 and transform == "identity":
        variables["transform"][1][:, 1] = "identity"
        intercept[:, 1] += 1.0
    coordinates = {"state": states, "parameter": names, "parameter_other": names, "quantile": [0.0, 1.0]}
    attrs = {"iv_model": law, "form": form, "reference_voltage": 0.1, "v_min": 0.005, "v_max": v_max}
    return xr.Dataset(variables, coords=coordinates, attrs=attrs)


def conductance_node(g_off: float = G_OFF, g_on: float = G_ON) -> xr.Dataset:
    """Return a conductance range."""
    return xr.Dataset({"g_off": ((), g_off, {"units": "S"}), "g_on": ((), g_on, {"units": "S"})})


def programming_node(sigma_on: float = 0.2, sigma_off: float = 0.4) -> xr.Dataset:
    """Return a lognormal spread between G_on and G_off."""
    nan = np.full(2, np.nan)
    return xr.Dataset(
        {
            "r_median": ("state", [1 / G_ON, 1 / G_OFF], {"units": "ohm"}),
            "sigma": ("state", [sigma_on, sigma_off], ONE),
            "sigma_d2d": ("state", nan, ONE),
            "sigma_c2c": ("state", nan, ONE),
            "n_devices": ("state", [10, 10]),
        },
        coords={"state": ["lrs", "hrs"]},
    )


def stuck_node(
    probability: float = 0.1, values: tuple[float, ...] = (8e-7, 2e-6), bandwidth: float = 3e-7
) -> xr.Dataset:
    """Return stuck devices."""
    return xr.Dataset(
        {
            "probability": ((), probability, ONE),
            "probability_bound": ("bound", [0.05, 0.2], ONE),
            "n_devices": ((), 100),
            "n_stuck": ((), 10),
            "conductance": ("stuck_device", list(values), {"units": "S"}),
            "bandwidth": ((), bandwidth, {"units": "S"}),
        },
        coords={"bound": ["low", "high"]},
    )


def device(name: str = "test device", *, iv: xr.Dataset | None = None, **nodes: xr.Dataset) -> xr.DataTree:
    """Return a device model of a conductance range, a law (Poole-Frenkel, anchored) and further nodes."""
    parts = {"conductance": conductance_node(), "iv": iv_node() if iv is None else iv, **nodes}
    return device_model.build(parts, name=name)


def range_only(name: str = "resistors", **nodes: xr.Dataset) -> xr.DataTree:
    """Return a device model without a law."""
    return device_model.build({"conductance": conductance_node(), **nodes}, name=name)


def everything() -> xr.DataTree:
    """Return a device model with a law, a lognormal spread and stuck devices."""
    return device(programming=programming_node(), stuck=stuck_node())


def blobs(n_train: int = 120, n_test: int = 60, features: int = 6, classes: int = 3, seed: int = 5) -> ImageData:
    """Return images of well separated classes."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0.1, 0.9, (classes, features))
    labels = np.arange(n_train + n_test) % classes
    images = np.clip(centres[labels] + random.normal(0, 0.05, (len(labels), features)), 0, 1).astype(np.float32)
    return ImageData(
        name="blobs",
        train_images=images[:n_train],
        train_labels=labels[:n_train],
        test_images=images[n_train:],
        test_labels=labels[n_train:],
        image_shape=(features,),
        source="made here",
        sha256=f"{seed:064d}",
    )


def trained(folder: Path, tree: xr.DataTree, data: ImageData, **options: Any) -> "Run":
    """Return two small networks that were trained on a device model, in a folder of their own within `folder`."""
    from calib.training import train

    return train(
        tree, output=folder / "first", dataset=data,
        **{"layers": (6, 5, 3), "networks": 2, "validation_repeats": 1, **options},
    )  # fmt: skip
