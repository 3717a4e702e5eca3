"""Small results of studies for tests: numbers made up, layout as `calib budget` and its like write it."""

import json
from typing import Any

import numpy as np
import xarray as xr

from calib import paired
from tests.result_sets import record

BOUND = ("low", "high")
EFFECTS = {"stuck devices": 0.031, "I-V nonlinearity": 0.006, "read noise": 0.0}
"""What each effect costs."""
VERSIONS = json.dumps({"calib": "0.1.0"})


def budget(run: str = "aware", device: str = "oxide", sha256: str = "b" * 64, seed: int = 1) -> xr.Dataset:
    """Return an error budget of two networks and eight chips in which effects cost what `EFFECTS` says."""
    generator = np.random.default_rng(seed)
    shape = (2, 8)
    ideal = np.full(shape, 0.04)
    error = ideal + 0.04 + 0.002 * generator.normal(size=shape)
    costs = np.stack([cost + 0.001 * generator.normal(size=shape) for cost in EFFECTS.values()])
    energy = 2e-11 * generator.lognormal(0, 0.02, shape)
    changes = np.stack([share * energy for share in (0.2, -0.05, 0.0)])
    dims = ("network", "chip")
    each = ("effect", *dims)
    variables = {
        "error": (dims, error), "ideal_error": (dims, ideal), "energy": (dims, energy),
        "ideal_energy": (dims, 0.9 * energy), "error_without": (each, error - costs),
        "energy_without": (each, energy - changes), "error_alone": (each, ideal + costs),
        "energy_alone": (each, 0.9 * energy + changes), "error_before_alone": (each, 0 * costs + ideal),
        "energy_before_alone": (each, 0 * costs + 0.9 * energy),
    }  # fmt: skip
    for name, values in {"cost_removed": costs, "cost_alone": costs, "energy_removed": changes,
                         "energy_alone_change": changes}.items():  # fmt: skip
        means = [paired.mean(value) for value in values]
        variables[name] = ("effect", [mean.value for mean in means])
        variables[f"{name}_bound"] = (("effect", "bound"), [[mean.low, mean.high] for mean in means])
    attrs = {
        "schema": "calib-budget/1", "run": run, "device": device, "device_sha256": sha256, "seed": 3,
        "options": json.dumps({"chips": 8, "time": 3600.0, "reads": 0, "temperature": None, "compensate": False,
                               "array": {"rows": 64}, "read_time": 5e-8}),
        "data": json.dumps({"name": "digits", "sha256": "d" * 64}), "versions": VERSIONS,
        "protocol": "Differences on the same chips.", "training": json.dumps(record(False)),
    }  # fmt: skip
    coordinates = {"effect": list(EFFECTS), "bound": list(BOUND),
                   "description": ("effect", [f"what {name} is" for name in EFFECTS])}  # fmt: skip
    return xr.Dataset(variables, coords=coordinates, attrs=attrs)


def requirements(run: str = "aware", device: str = "oxide", sha256: str = "b" * 64) -> xr.Dataset:
    """Return requirements of stuck devices, of which the device has more, and of read noise, which costs nothing."""
    sizes = np.array([[0.0, 0.01, 0.03, 0.1], [0.0, 0.1, 1.0, np.nan]])
    loss = np.array([[0.0, 0.004, 0.02, 0.1], [0.0, 0.001, 0.002, np.nan]])
    variables = {
        "size_value": (("effect", "size"), sizes), "loss": (("effect", "size"), loss),
        "loss_bound": (("effect", "size", "bound"), np.stack([0.8 * loss, 1.2 * loss], -1)),
        "loss_isotonic": (("effect", "size"), loss), "crossing": ("effect", [0.017, np.inf]),
        "crossing_bound": (("effect", "bound"), [[0.015, 0.02], [np.inf, np.inf]]),
        "present": ("effect", [0.05, 0.0]), "quantity": ("effect", ["probability", "standard deviation of I / I"]),
        "unit": ("effect", ["1", "1"]),
    }  # fmt: skip
    attrs = {
        "schema": "calib-requirements/1", "run": run, "device": device, "device_sha256": sha256, "seed": 3,
        "allowed_loss": 0.01, "options": json.dumps({"chips": 5, "alone": True, "array": {}}),
        "data": json.dumps({"name": "digits"}), "versions": VERSIONS, "protocol": "Loss against the same chips.",
        "training": json.dumps(record(False)),
    }  # fmt: skip
    return xr.Dataset(variables, coords={"effect": ["stuck devices", "read noise"], "bound": list(BOUND)}, attrs=attrs)


def uncertainty(run: str = "aware", device: str = "oxide", sha256: str = "b" * 64, seed: int = 1) -> xr.Dataset:
    """Return a split variance: 12 devices were measured of 'stuck', and 'iv' does not say."""
    from calib.variance_split import COMPONENTS, split_variance

    generator = np.random.default_rng(seed)
    shape = (2, 5, 4)
    effect = 0.02 * generator.normal(size=shape) + 0.01 * generator.normal(size=(1, 5, 1))
    values = {"error": 0.1 + effect, "energy_per_inference": 2e-11 * (1 + effect)}
    splits = [split_variance(value) for value in values.values()]
    variables: dict[str, Any] = {name: (("network", "model", "chip"), value) for name, value in values.items()}
    for name, key in {"variance": "variance", "variance_unbiased": "unbiased", "variance_low": "low",
                      "variance_high": "high"}.items():  # fmt: skip
        table = [[getattr(split[component], key) for component in COMPONENTS] for split in splits]
        variables[name] = (("quantity", "component"), table)
    variables["nominal"] = (("quantity", "network"), [[0.1, 0.1], [2e-11, 2e-11]])
    for key in ("variance", "variance_low", "variance_high"):
        variables[f"characteristic_{key}"] = (("quantity", "characteristic"), [[1e-4, 2e-4], [1e-24, 2e-24]])
    attrs = {
        "schema": "calib-uncertainty/1", "device": device, "device_hash": sha256, "seed": 3,
        "drawn": json.dumps(["stuck", "iv"]), "not_drawn": json.dumps(["iv/v_max"]),
        "devices_measured": json.dumps({"stuck": 12, "iv": None}),
        "options": json.dumps({"models": 5, "chips": 4, "read_time": 5e-8}), "versions": VERSIONS,
        "training": json.dumps([record(False)]),
    }  # fmt: skip
    coordinates = {"network": [f"{run}/0", f"{run}/1"], "quantity": list(values), "component": list(COMPONENTS),
                   "characteristic": ["stuck", "iv"]}  # fmt: skip
    return xr.Dataset(variables, coords=coordinates, attrs=attrs)


def robustness(attack: str = "fgsm", run: str = "aware", device: str = "oxide", sha256: str = "b" * 64) -> xr.Dataset:
    """Return accuracies that fall from 0.95 by 0.4 (chip) and 0.1 (weights), or with age by 0.1 and 0.5."""
    curves, strengths, fall, unit = {
        "fgsm": (["chip", "ideal"], [0.0, 0.1, 0.2], (0.4, 0.1), "1"),
        "noise": (["gaussian", "uniform"], [0.0, 0.2], (0.2, 0.1), "1"),
        "ageing": (["compensated", "not compensated"], [0.0, 3600.0, 86400.0], (0.1, 0.5), "s"),
    }[attack]
    along = np.linspace(0, 1, len(strengths))
    spread = 0.02 * np.linspace(-1, 1, 6).reshape(2, 3)
    accuracy = 0.95 - np.array(fall)[:, None, None, None] * along + 0 * spread[..., None]
    accuracy = accuracy + spread[..., None]
    attrs = {
        "schema": "calib-robustness/1", "attack": attack, "device": device, "device_hash": sha256, "images": 90,
        "seed": 3, "versions": VERSIONS, "training": json.dumps(record(False)),
        "options": json.dumps({"step": 0.2, "steps": 10, "random_start": False, "known_chips": 8}),
    }  # fmt: skip
    name = {"fgsm": "largest change of a pixel, eps", "noise": "size", "ageing": "time since programming"}[attack]
    return xr.Dataset(
        {"accuracy": (("curve", "network", "chip", "strength"), accuracy)},
        coords={"curve": curves, "network": [f"{run}/0", f"{run}/1"], "chip": np.arange(3),
                "strength": ("strength", strengths, {"units": unit, "long_name": name})},
        attrs=attrs,
    )  # fmt: skip
