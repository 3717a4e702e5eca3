"""A device model against measurements that it was not fitted to: predictive coverage."""

import numpy as np
import xarray as xr

from calib.device_model import shape_law
from calib.errors import FitError, OptionError
from calib.fitting.curves import Curves, select, voltage_levels
from calib.iv_models import iv_model
from calib.sampling import sample_population

LEVELS = (0.5, 0.9)
DRAWS = 4000
REPLICATES = 2000
MINIMUM_DEVICES = 4
SAME_VOLTAGE = 0.01


def validate(
    tree: xr.DataTree, measurement: xr.DataTree, *, population: str | None = None, seed: int = 0
) -> xr.Dataset:
    """Compare a device model with a measurement that it was not fitted to; see `validation_node`.

    Raises
    ------
    FitError
        When the measurement holds no sweeps, or too few devices at voltages where the model holds.
    OptionError
        When it holds several populations and none is named, or not the one that is.
    """
    if "iv" not in measurement.children:
        kinds = ", ".join(map(str, measurement.children)) or "nothing"
        raise FitError(f"the measurement holds {kinds}; validating a device model takes I-V sweeps")
    iv = measurement["iv"].to_dataset()
    labels = iv["population"].values.astype(str)
    found = list(dict.fromkeys(labels))
    listed = ", ".join(f"'{label}'" for label in found)
    if population is None and len(found) > 1:
        raise OptionError(f"the measurement holds {len(found)} populations: {listed}; choose one (--population)")
    if population is not None and population not in found:
        raise OptionError(f"there is no population '{population}' in the measurement; it holds {listed}")
    part = iv.isel(sweep=np.flatnonzero(labels == (found[0] if population is None else population)))
    return validation_node(tree, part, seed)


def validation_node(tree: xr.DataTree, iv: xr.Dataset, seed: int = 0) -> xr.Dataset:
    """Compare a device model with branches of devices that it was not fitted to.

    For each state and each measured voltage in the model's validity, the central predictive interval of the current is
    that of `DRAWS` devices drawn from the model, stuck ones among them. Its coverage is the fraction of the measured
    currents inside, averaged over voltages and states; a curve is covered when all its points are. A perfect model does
    not give exactly 0.9 with few devices: `coverage_bound` is the central 95 % interval of the mean coverage when as
    many devices as were measured are drawn from the model itself, all voltages of a device together.

    Parameters
    ----------
    tree : the device model.
    iv : iv node of a Measurement, of one population.
    seed : of the draws.

    Returns
    -------
    xarray.Dataset
        Dimensions level (0.5, 0.9), state, voltage; the node 'validation' of a device model.

    Raises
    ------
    FitError
        When no state has enough devices at voltages where the model holds.
    """
    law = shape_law(tree)
    iv = iv.assign_coords(state=("sweep", np.where(iv["state"].values == "", "all", iv["state"].values)))
    polarity = str(tree["iv"].attrs["polarity"])
    generator = np.random.default_rng(seed)
    parts: dict[str, tuple[Curves, np.ndarray]] = {}
    for state in map(str, tree["iv"].to_dataset()["state"].values):
        curves = select(iv, state, polarity)
        voltages = _voltages(curves, law.v_min, law.v_max) if len(curves) else np.empty(0)
        if len(np.unique(curves.device)) >= MINIMUM_DEVICES and len(voltages):
            parts[state] = (curves, voltages)
    if not parts:
        raise FitError(
            f"there is nothing to validate with: no state has {MINIMUM_DEVICES} devices measured on the {polarity} "
            f"branch between {law.v_min:g} and {law.v_max:g} V; give more devices"
        )
    found = {state: _coverage(tree, state, *part, generator) for state, part in parts.items()}
    node = _node(parts, found)
    return node.assign_attrs(verdict=verdict(node))


def _voltages(curves: Curves, v_min: float, v_max: float) -> np.ndarray:
    """Return the voltages in the model's validity at which most curves have a usable point."""
    levels, _, counts = voltage_levels(curves)
    inside = (levels >= v_min * (1 - SAME_VOLTAGE)) & (levels <= v_max * (1 + SAME_VOLTAGE))
    return levels[inside & (counts >= 0.8 * len(curves))]


def _coverage(
    tree: xr.DataTree, state: str, curves: Curves, voltages: np.ndarray, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return coverage by level and voltage, of whole curves, and draws of the mean coverage of a perfect model."""
    law = iv_model(str(tree["iv"].attrs["iv_model"]))
    _, parameters = sample_population(tree, state, DRAWS, generator)
    columns = {name: values[:, None] for name, values in parameters.items()}
    drawn = np.log(law.current(voltages[None, :], xp=np, **columns))  # (draw, voltage)
    distance = np.abs(curves.voltage[:, :, None] - voltages)
    nearest = np.argmin(np.where(np.isfinite(distance), distance, np.inf), axis=1)
    rows = np.arange(len(curves))[:, None]
    gap = np.take_along_axis(np.nan_to_num(distance, nan=np.inf), nearest[:, None, :], axis=1)[:, 0]
    usable = gap < SAME_VOLTAGE * voltages
    measured = np.where(usable, curves.current[rows, nearest], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        measured = np.log(np.where(measured > 0, measured, np.where(usable, 1e-300, np.nan)))
    n_devices = len(np.unique(curves.device))
    result: dict[str, list[np.ndarray]] = {"coverage": [], "curves": [], "perfect": []}
    for level in LEVELS:
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
        inside = np.where(usable, (measured >= low) & (measured <= high), np.nan)
        result["coverage"].append(np.nanmean(inside, axis=0))
        result["curves"].append(np.array(np.mean(np.nan_to_num(inside, nan=1.0).all(axis=1))))
        own = ((drawn >= low) & (drawn <= high)).mean(1)
        result["perfect"].append(own[generator.integers(DRAWS, size=(REPLICATES, n_devices))].mean(1))
    return {key: np.stack(values) for key, values in result.items()}


def _node(parts: dict[str, tuple[Curves, np.ndarray]], found: dict[str, dict[str, np.ndarray]]) -> xr.Dataset:
    states = list(found)
    every = np.unique(np.concatenate([voltages for _, voltages in parts.values()]))
    table = np.full((len(LEVELS), len(states), len(every)), np.nan)
    for row, state in enumerate(states):
        table[:, row, np.searchsorted(every, parts[state][1])] = found[state]["coverage"]
    by_state = np.stack([found[state]["coverage"].mean(1) for state in states], axis=1)
    perfect = np.mean([found[state]["perfect"] for state in states], axis=0)  # (level, replicate)
    bound = np.quantile(perfect, [0.025, 0.975], axis=1).T
    one = {"units": "1"}
    return xr.Dataset(
        {
            "coverage": ("level", by_state.mean(1), {**one, "long_name": "mean coverage of the predictive interval"}),
            "coverage_bound": (
                ("level", "bound"), bound, {**one, "long_name": "95 % interval of a perfect model's coverage"},
            ),
            "coverage_state": (("level", "state"), by_state, {**one, "long_name": "coverage of a state"}),
            "coverage_voltage": (("level", "state", "voltage"), table, {**one, "long_name": "coverage at a voltage"}),
            "coverage_curve": (
                ("level", "state"), np.stack([found[s]["curves"] for s in states], axis=1),
                {**one, "long_name": "curves that lie inside at all voltages"},
            ),
            "n_devices": ("state", [len(np.unique(parts[s][0].device)) for s in states], one),
            "n_curves": ("state", [len(parts[s][0]) for s in states], one),
        },
        coords={"level": list(LEVELS), "state": states, "voltage": ("voltage", every, {"units": "V"}),
                "bound": ["low", "high"]},
        attrs={"method": "coverage of central predictive intervals of the current, stuck devices included"},
    )  # fmt: skip


def verdict(node: xr.Dataset) -> str:
    """Return in one sentence whether the 90 % interval covers as a perfect model's would."""
    here = node.sel(level=0.9)
    coverage, (low, high) = float(here["coverage"]), here["coverage_bound"].values
    if low <= coverage <= high:
        outcome = "as a perfect model's would"
    elif coverage < low:
        outcome = "less than a perfect model's would: the model is too narrow, or off, for these devices"
    else:
        outcome = "more than a perfect model's would: the model is wider than these devices"
    return (
        f"the 90 % predictive interval of the current covers {coverage:.1%} of {int(node['n_curves'].sum())} curves' "
        f"points, {outcome} ({low:.1%} to {high:.1%} in 95 of 100 cases)"
    )


def split_devices(iv: xr.Dataset, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split sweeps into those to fit and those held out, by device, or by cycle where one device was measured.

    Returns
    -------
    kept, held : (sweep,) masks.

    Raises
    ------
    FitError
        When there are too few devices, or cycles, for both parts.
    """
    owner = iv["device"].values.astype(str)
    if len(np.unique(owner)) == 1:
        owner = iv["cycle"].values.astype(str)
    names = np.unique(owner)
    count = round(fraction * len(names))
    if count < MINIMUM_DEVICES or len(names) - count < MINIMUM_DEVICES:
        raise FitError(
            f"--holdout {fraction:g} of {len(names)} devices leaves {len(names) - count} to fit and {count} to hold "
            f"out; expected at least {MINIMUM_DEVICES} of each; measure more devices, or choose another fraction"
        )
    held = np.isin(owner, np.random.default_rng(seed).permutation(names)[:count])
    return ~held, held
