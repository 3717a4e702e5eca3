"""Error budget: what each nonideality costs, taken away in turn and applied alone, on the same chips."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import __version__, device_model, evaluation, files, paired, runs
from calib.crossbar.array import Array
from calib.effects import IV_SPREAD, NONLINEARITY, Hardware
from calib.energy import READ_TIME
from calib.errors import ModelError, OptionError
from calib.formatting import format_estimate, format_quantity
from calib.nonidealities.base import Conditions
from calib.runs import Run
from calib.vision import ImageData

SCHEMA = "calib-budget/1"
_DIMS = {
    "error": ("network", "chip"),
    "energy": ("network", "chip"),
    "ideal_error": ("network", "chip"),
    "ideal_energy": ("network", "chip"),
    "error_without": ("effect", "network", "chip"),
    "energy_without": ("effect", "network", "chip"),
    "error_alone": ("effect", "network", "chip"),
    "energy_alone": ("effect", "network", "chip"),
    "error_before_alone": ("effect", "network", "chip"),
    "energy_before_alone": ("effect", "network", "chip"),
}
_COSTS = ("cost_removed", "cost_alone", "energy_removed", "energy_alone_change")
_WHAT = {
    "cost_removed": ("1", "error with all effects less the error without this one"),
    "cost_alone": ("1", "error with this effect alone less the error without any"),
    "energy_removed": ("J", "energy per inference with all effects less that without this one"),
    "energy_alone_change": ("J", "energy per inference with this effect alone less that without any"),
}
Progress = Callable[..., None]


def budget(
    run: str | Path | Run,
    device: str | Path | xr.DataTree | None = None,
    *,
    chips: int = 25,
    seed: int = 0,
    time: float = 0.0,
    reads: int = 0,
    temperature: float | None = None,
    compensate: bool = False,
    array: str | Array | None = None,
    read_time: float = READ_TIME,
    extrapolate: bool = False,
    data: ImageData | None = None,
    data_folder: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Say what each effect of a device and its array costs in accuracy and energy.

    Every effect is taken away from the whole, and applied alone; all variants meet the same random numbers, so that
    their differences, chip by chip, are those of the effect. Costs are mean differences over networks and chips with
    95 % intervals (`calib.paired.mean`); what a finite number of test images leaves uncertain is not in them. Because
    effects act together, neither kind of costs adds up to the loss of all.

    Parameters
    ----------
    run : folder of trained networks.
    device : device model; default: the one that the networks were trained on.
    chips : of each network.
    seed : of the chips.
    time, reads, temperature, compensate, array, extrapolate, data, data_folder, read_time : as in
        `calib.evaluation.evaluate`.
    output : file to write to, netCDF-4.
    progress : called with (n=1, text) after each network and variant.

    Returns
    -------
    xarray.Dataset
        Dimensions effect (ranked by what is gained without it), network, chip and bound. Errors are fractions, energies
        are in J. cost_removed and cost_alone, energy_removed and energy_alone_change have `_bound` beside them.

    Raises
    ------
    OptionError
        When there is no effect to take away, or an option cannot be used.
    """
    evaluation.check_numbers(chips, read_time)
    conditions = Conditions(float(time), reads, temperature, compensate)
    opened, tree, whole = hardware_of(run, device, conditions, array, extrapolate)
    if not whole.effects:
        raise OptionError(
            f"the device model '{whole.devices.name}' and its array have no nonideality to take away; give a device "
            "model with more than a conductance range, or an array (--array)"
        )
    images = data if data is not None else opened.data(None, data_folder)
    variants = all_variants(whole)
    error, energy = {}, {}
    for name, hardware in variants.items():
        error[name], energy[name] = evaluation.error_and_energy(
            opened, hardware, images, seed=seed, chips=chips, read_time=read_time,
            advance=_advance(progress, name),
        )  # fmt: skip
    found = _dataset(whole, error, energy)
    found.attrs = {
        "schema": SCHEMA,
        "calib_version": __version__,
        "run": opened.path.name,
        "device": whole.devices.name,
        "device_sha256": device_model.identity(tree),
        "seed": int(seed),
        "options": json.dumps(
            {"chips": chips, "time": time, "reads": reads, "temperature": temperature, "compensate": compensate,
             "array": whole.array.to_options(), "read_time": read_time, "extrapolate": extrapolate},
            sort_keys=True,
        ),
        "data": json.dumps({"name": images.name, "sha256": images.sha256}, sort_keys=True),
        "versions": json.dumps(runs.versions(), sort_keys=True),
        "protocol": _protocol(opened, chips),
        "training": json.dumps(opened.record, sort_keys=True, ensure_ascii=False),
    }  # fmt: skip
    if output is not None:
        files.write_netcdf(found, output)
    return found


def _advance(progress: Progress | None, name: str) -> Callable[[int], None] | None:
    return None if progress is None else lambda network: progress(1, f"{name}, network {network}")


def hardware_of(
    run: str | Path | Run,
    device: str | Path | xr.DataTree | None,
    conditions: Conditions,
    array: str | Array | None,
    extrapolate: bool,
) -> tuple[Run, xr.DataTree, Hardware]:
    """Return the run, the device model (default: that of the run) and the hardware that they make."""
    opened = run if isinstance(run, Run) else runs.open_run(run)
    tree = opened.device if device is None else device
    tree = tree if isinstance(tree, xr.DataTree) else device_model.open_device(tree)
    devices = evaluation.devices_of(opened, tree, extrapolate=extrapolate, conditions=conditions)
    return opened, tree, Hardware(devices, evaluation.array_of(opened, array))


def _protocol(run: Run, chips: int) -> str:
    networks = run.options.networks
    over = (
        f"crossed over {networks} networks and {chips} chips" if networks > 1 else f"over {chips} chips of one network"
    )
    return (
        f"Differences on the same chips (common random numbers), mean with 95 % intervals (t), {over}; test images are "
        "taken as given. Effects act together, so that costs do not add up."
    )


def all_variants(whole: Hardware) -> dict[str, Hardware]:
    """Return all hardware to evaluate, by name; each once."""
    found = {"all effects": whole, "ideal": whole.only([])}
    for effect in whole.effects:
        found[f"without {effect}"] = whole.without(effect)
        found[f"{effect} alone"] = whole.alone(effect)[0]
    return found


def _dataset(whole: Hardware, error: Mapping[str, np.ndarray], energy: Mapping[str, np.ndarray]) -> xr.Dataset:
    effects = whole.effects
    before = {e: f"{NONLINEARITY} alone" if e == IV_SPREAD else "ideal" for e in effects}
    values: dict[str, np.ndarray] = {}
    for kind, found in (("error", error), ("energy", energy)):
        values[kind], values[f"ideal_{kind}"] = found["all effects"], found["ideal"]
        values[f"{kind}_without"] = np.stack([found[f"without {e}"] for e in effects])
        values[f"{kind}_alone"] = np.stack([found[f"{e} alone"] for e in effects])
        values[f"{kind}_before_alone"] = np.stack([found[before[e]] for e in effects])
    differences = {
        "cost_removed": values["error"] - values["error_without"],
        "cost_alone": values["error_alone"] - values["error_before_alone"],
        "energy_removed": values["energy"] - values["energy_without"],
        "energy_alone_change": values["energy_alone"] - values["energy_before_alone"],
    }
    units = {"error": "1", "energy": "J"}
    variables: dict[str, Any] = {
        name: (dims, values[name], {"units": units["energy" if "energy" in name else "error"]})
        for name, dims in _DIMS.items()
    }
    for name, difference in differences.items():
        means = [paired.mean(each) for each in difference]
        unit, text = _WHAT[name]
        variables[name] = ("effect", [m.value for m in means], {"units": unit, "long_name": text})
        bounds = [[m.low, m.high] for m in means]
        variables[f"{name}_bound"] = (
            ("effect", "bound"),
            bounds,
            {"units": unit, "long_name": f"95 % interval: {text}"},
        )
    networks, chips = values["error"].shape
    coordinates = {
        "effect": list(effects), "network": np.arange(networks), "chip": np.arange(chips), "bound": ["low", "high"],
        "description": ("effect", [whole.describe(e) for e in effects]),
    }  # fmt: skip
    result = xr.Dataset(variables, coords=coordinates)
    order = np.lexsort((-result["cost_alone"].values, -result["cost_removed"].values))
    return result.isel(effect=order)


def open_budget(path: str | Path) -> xr.Dataset:
    """Open a budget file and check it.

    Raises
    ------
    ModelError
        When it is damaged or no budget of calib.
    """
    found = files.open_netcdf(path, "budget", "make it again with 'calib budget'").to_dataset()
    schema = found.attrs.get("schema", "")
    if schema != SCHEMA:
        raise ModelError(f"'{path}' is no budget: found schema '{schema}', expected '{SCHEMA}'; use 'calib budget'")
    missing = [name for name in (*_DIMS, *_COSTS) if name not in found]
    if missing:
        raise ModelError(f"'{path}' is no whole budget: {', '.join(missing)} missing; use 'calib budget' again")
    return found


def rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """Return the budget as plain values, one dictionary for each effect; the keys are those of the JSON output."""
    energy = float(found["energy"].mean())
    result = []
    for effect in found["effect"].values:
        one = found.sel(effect=effect)
        row: dict[str, Any] = {"effect": str(effect), "description": str(one["description"].values)}
        for name in _COSTS:
            low, high = one[f"{name}_bound"].values
            key, factor = (name, 100.0) if name.startswith("cost") else (name, 1.0)
            unit = "points" if name.startswith("cost") else "joule"
            row[f"{key}_{unit}"] = factor * float(one[name])
            row[f"{key}_{unit}_half"] = factor * float(high - low) / 2
        row["energy_removed_share"] = row["energy_removed_joule"] / energy if energy else float("nan")
        result.append(row)
    return result


def sentences(found: xr.Dataset) -> list[str]:
    """Return the budget in words: the whole loss first, then what each effect costs, the most costly first."""
    loss = paired.mean(found["error"].values - found["ideal_error"].values)
    error, ideal = float(found["error"].mean()), float(found["ideal_error"].mean())
    energy, ideal_energy = float(found["energy"].mean()), float(found["ideal_energy"].mean())
    result = [
        f"all effects together cost {_points(100 * loss.value, 100 * loss.half)}: {100 * error:.2f} % wrong instead of "
        f"{100 * ideal:.2f} % ideally; an inference takes {format_quantity(energy, 'J')} instead of "
        f"{format_quantity(ideal_energy, 'J')}"
    ]
    for row in rows(found):
        value, half = row["cost_removed_points"], row["cost_removed_points_half"]
        alone = _points(row["cost_alone_points"], row["cost_alone_points_half"])
        share = 100 * row["energy_removed_share"]
        text = f"{row['effect']}: {'costs' if value >= 0 else 'gains'} {_points(abs(value), half)}, {alone} alone"
        if half == half and abs(value) <= half:
            text = f"{row['effect']}: no cost that can be told from 0 ({_points(value, half)}), {alone} alone"
        result.append(
            text + (f"; {abs(share):.2g} % {'more' if share > 0 else 'less'} energy" if abs(share) >= 0.1 else "")
        )
    return result


def points(value: float, half: float) -> str:
    """Return percentage points with half of their interval: '3.1 +- 0.4'."""
    text = f"{value:.2f}" if half == half and half < 0.005 else format_estimate(value, half)
    return text[1:] if text.startswith("-") and not text.partition(" ")[0].strip("-0.") else text  # no -0.0


def _points(value: float, half: float) -> str:
    return f"{points(value, half)} points"
