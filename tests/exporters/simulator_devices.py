"""Device models for tests of the exporters to simulators of networks."""

import functools
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

from calib import device_model, exporters
from calib.fitting.pulse import pulse_node
from tests import pulse_trains, simple_devices


@functools.cache
def _pulse(law: str, noise: float, k_up: float, k_down: float) -> xr.Dataset:
    generator = np.random.default_rng(2)
    trains, polarity, names = [], [], []
    for n in range(6):
        for direction, start, change, shape in (
            ("potentiation", 1e-6, 4e-6, k_up), ("depression", 5e-6, -4e-6, k_down)
        ):  # fmt: skip
            u = np.arcsinh(shape) if law == "soft-bounds" else np.log(shape) if law == "power" else shape
            trains.append(pulse_trains.train(generator, law, float(u), 60, start, change, write=noise, other=noise / 4))
            polarity.append(direction)
            names.append(f"d{n}")
    node = pulse_node(pulse_trains.pulses(trains, polarity, names), [])
    assert node is not None
    return node


def pulsed(law: str = "soft-bounds", noise: float = 2e-8, k_up: float = 3.0, k_down: float = 1.5) -> xr.DataTree:
    """Return a model with a pulse response of 60 pulses between 1 and 5 uS."""
    return device_model.build(
        {"conductance": simple_devices.conductance_node(1e-6, 5e-6), "pulse": _pulse(law, noise, k_up, k_down)},
        name="pulsed",
    )


def drifting(sigma: float = 0.2) -> xr.DataTree:
    """Return a model with a law, spread, stuck devices, drift that depends on G, and read noise."""
    retention = xr.Dataset(
        {
            "drift_exponent_mean": ((), 0.04, {"units": "1"}),
            "drift_exponent_std": ((), 0.01, {"units": "1"}),
            "range_drift_exponent_mean": ("nu_range", [0.06, 0.02], {"units": "1"}),
            "range_drift_exponent_std": ("nu_range", [0.01, 0.005], {"units": "1"}),
            "range_ln_g": ("nu_range", np.log([5e-7, 2.5e-6]), {"units": "1"}),
            "outside": (("horizon", "threshold"), [[0.1]], {"units": "1"}),
            "n_traces": ((), 20),
        },
        attrs={"reference_time": 10.0, "t_first": 10.0, "t_last": 1e5},
    )
    noise = xr.Dataset(
        {
            "ln_noise": ((), np.log(0.02), {"units": "1"}), "noise_exponent": ((), -0.5, {"units": "1"}),
            "noise_spread": ((), 0.0, {"units": "1"}), "n_traces": ((), 20),
        },
        attrs={"reference_conductance": 1e-6},
    )  # fmt: skip
    return simple_devices.device(
        "drifting", iv=simple_devices.iv_node(two_states=True),
        programming=simple_devices.programming_node(sigma, 2 * sigma), stuck=simple_devices.stuck_node(),
        retention=retention, read_noise=noise,
    )  # fmt: skip


def document(format_name: str, tree: xr.DataTree) -> dict[str, Any]:
    """Return the JSON that an exporter writes."""
    texts = exporters.exporter(format_name).contents(tree)
    (text,) = (text for name, text in texts.items() if name.endswith(".json"))
    return json.loads(text)


def written(format_name: str, tree: xr.DataTree, folder: Path) -> ModuleType:
    """Write a card and import the module beside it, as a user does."""
    paths = exporters.exporter(format_name).write(tree, folder)
    (path,) = (path for path in paths if path.suffix == ".py")
    spec = importlib.util.spec_from_file_location(f"{path.stem}_of_a_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module
