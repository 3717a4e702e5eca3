"""Small results files for tests: numbers made up, layout as `calib.evaluate` writes it."""

import json

import numpy as np
import xarray as xr

OPTIONS = {
    "dataset": "digits", "layers": [64, 10, 10], "mapping": "double", "l1": 0.0, "ideal": False, "epochs": 4,
    "optimizer": "adam", "learning_rate": 0.003, "schedule": "cosine", "batch_size": 64, "input_voltage": 0.5,
    "extrapolate": False, "seed": 7, "networks": 2, "validation_every": 2, "validation_repeats": 5,
}  # fmt: skip
ERRORS = {"standard": 0.40, "aware": 0.09}


def record(ideal: bool, device: str = "oxide", networks: int = 2) -> dict:
    """Return what a run folder's run.json holds."""
    return {
        "schema": "calib-run/1",
        "options": {**OPTIONS, "ideal": ideal, "networks": networks},
        "versions": {"calib": "0.1.0"},
        "device": {"name": device, "sha256": "a" * 64},
        "data": {"name": "digits", "source": "made here", "sha256": "d" * 64},
    }


def results(
    runs: tuple[str, ...] = ("standard", "aware"), devices: tuple[str, ...] = ("ideal", "oxide"), networks: int = 2,
    chips: int = 6, seed: int = 1, hashes: dict[str, str] | None = None,
) -> xr.Dataset:  # fmt: skip
    """Return results of runs whose median errors on 'oxide' are near `ERRORS`; 'standard' was trained ideally."""
    generator = np.random.default_rng(seed)
    names = [f"{run}/{index}" for run in runs for index in range(networks)]
    shape = (len(names), len(devices), chips)
    level = np.array([[0.05 if d == "ideal" else ERRORS.get(run, 0.2) for d in devices] for run in runs])
    error = np.repeat(level, networks, axis=0)[:, :, None] * generator.lognormal(0, 0.1, shape)
    power = generator.lognormal(np.log(2e-4), 0.1, (*shape, 2)) * np.array([1.0, 0.1])
    cells = ("network", "device", "chip")
    layers = (*cells, "layer")
    one = {"units": "1"}
    median = np.full((len(names), 4), np.nan)
    median[:, [0, 1, 3]] = np.array([0.6, 0.3, 0.1]) * generator.lognormal(0, 0.05, (len(names), 3))
    return xr.Dataset(
        {
            "accuracy": (cells, 1 - error, one),
            "error": (cells, error, one),
            "loss": (cells, 2 * error, one),
            "clipped": (layers, np.zeros((*shape, 2)), one),
            "power_layer": (layers, power, {"units": "W"}),
            "energy_per_inference": (cells, power.sum(-1) * 50e-9, {"units": "J"}),
            "efficiency_tops_per_watt": (cells, 2e-12 * 760 / (50e-9 * power.sum(-1)), {"units": "1e12 s^-1 W^-1"}),
            "validation_error_median": (("network", "epoch"), median, one),
            "validation_error_low": (("network", "epoch"), 0.9 * median, one),
            "validation_error_high": (("network", "epoch"), 1.1 * median, one),
            "train_error": (("network", "epoch"), np.tile([0.5, 0.25, 0.15, 0.1], (len(names), 1)), one),
        },
        coords={"network": names, "device": list(devices), "chip": np.arange(chips), "layer": [0, 1],
                "epoch": np.arange(1, 5)},
        attrs={
            "schema": "calib-results/1",
            "calib_version": "0.1.0",
            "protocol": "Each chip keeps its devices over the whole test set.",
            "options": json.dumps({"chips": chips, "redraw": "chip", "read_time": 5e-8}),
            "seed": 3,
            "device_hashes": json.dumps({name: "b" * 64 for name in devices} if hashes is None else hashes),
            "data": json.dumps({"name": "digits"}),
            "versions": json.dumps({"calib": "0.1.0", "torch": "2.13.0"}),
            "training": json.dumps([record(run == "standard", networks=networks) for run in runs]),
        },
    )  # fmt: skip
