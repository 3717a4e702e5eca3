"""A device model against measurements that it was not fitted to: coverage, scores, distances, a verdict in words."""

import json
from typing import Any

import numpy as np
import xarray as xr

from calib.errors import FitError, OptionError
from calib.validation_currents import (
    BINS,
    MINIMUM_DEVICES,
    PROBABILITIES,
    Points,
    StateCoverage,
    compare_currents,
    reference_points,
    state_points,
)
from calib.validation_drift import compare_drift, compare_noise
from calib.validation_programming import compare_levels, compare_programming
from calib.validation_scores import LEVELS, Comparison

SIGNIFICANCE = 0.05
ONE = {"units": "1"}


def validate(
    tree: xr.DataTree, measurement: xr.DataTree, *, population: str | None = None, seed: int = 0
) -> xr.Dataset:
    """Compare a device model with a measurement that it was not fitted to; see `validate_nodes`.

    Raises
    ------
    FitError
        When the measurement holds nothing that the model predicts, or too few devices.
    OptionError
        When it holds several populations and none is named, or not the one that is.
    """
    kinds = [name for name in ("iv", "reads") if name in measurement.children]
    if not kinds:
        listed = ", ".join(map(str, measurement.children)) or "nothing"
        raise FitError(
            f"the measurement holds {listed}; validating a device model takes I-V sweeps or conductance reads"
        )
    nodes = {name: measurement[name].to_dataset() for name in kinds}
    labels = {name: _populations(node) for name, node in nodes.items()}
    found = list(dict.fromkeys(label for values in labels.values() for label in values))
    listed = ", ".join(f"'{label}'" for label in found)
    if population is None and len(found) > 1:
        raise OptionError(f"the measurement holds {len(found)} populations: {listed}; choose one (--population)")
    if population is not None and population not in found:
        raise OptionError(f"there is no population '{population}' in the measurement; it holds {listed}")
    wanted = found[0] if population is None else population
    parts = {}
    for name, node in nodes.items():
        rows = np.flatnonzero(labels[name] == wanted)
        if len(rows):
            parts[name] = node.isel({_first(name): rows})
    return validate_nodes(tree, parts, seed)


def _first(name: str) -> str:
    return "sweep" if name == "iv" else "trace"


def _populations(node: xr.Dataset) -> np.ndarray:
    size = node.sizes["sweep" if "sweep" in node.dims else "trace"]
    return node["population"].values.astype(str) if "population" in node.coords else np.full(size, "")


def validation_node(tree: xr.DataTree, iv: xr.Dataset, seed: int = 0, fitted: xr.Dataset | None = None) -> xr.Dataset:
    """Compare a device model with branches of devices that it was not fitted to; see `validate_nodes`."""
    return validate_nodes(tree, {"iv": iv}, seed, None if fitted is None else {"iv": fitted})


def validate_nodes(
    tree: xr.DataTree, parts: dict[str, xr.Dataset], seed: int = 0, fitted: dict[str, xr.Dataset] | None = None
) -> xr.Dataset:
    """Compare a device model with the nodes of a measurement of one population that it was not fitted to.

    For each state and each measured voltage in the model's validity, the central predictive interval of the current is
    that of devices drawn from draws of the model (`calib.sampling.drawn_nodes`): it holds the spread of the devices and
    what the fit leaves uncertain. Stuck devices, the curves' scatter and the instrument's noise are in it; a current
    below the noise floor counts as at the floor, drawn or measured. Coverage is the fraction of the measured currents
    inside, averaged over voltages and states; a curve is covered when all its points are. A perfect model does not give
    exactly 0.9 with few devices: `coverage_bound` is the central 95 % interval of the mean coverage of as many devices,
    with as many cycles, drawn from the predictive distribution itself, all voltages and states of a device together.

    Curves that the noise floor leaves fewer points than the law can be fitted to are not in the model; they are left
    out here as well, counted (`n_beyond_floor`), and spoken of in the findings.

    Further comparisons are made with what the model and the data both hold: resistance after programming, conductance
    of the levels, drift, read noise. Each has its coverage and two distances with p-values (`Comparison`).

    Parameters
    ----------
    tree : the device model.
    parts : nodes iv and reads of a Measurement, of one population.
    seed : of the draws.
    fitted : the nodes of the devices that the model was fitted to: `interval_score_ratio` is then relative to the
        empirical quantiles of their currents; without it to those of the fitted curves that the model keeps.

    Returns
    -------
    xarray.Dataset
        The node 'validation' of a device model: coverage (level), by state and by voltage; comparisons (comparison).

    Raises
    ------
    FitError
        When no state has enough devices at voltages where the model holds, and the reads tell nothing either.
    """
    generator = np.random.default_rng(seed)
    iv, reads = parts.get("iv"), parts.get("reads")
    if iv is not None:
        iv = iv.assign_coords(state=("sweep", np.where(iv["state"].values == "", "all", iv["state"].values)))
    points = state_points(tree, iv) if iv is not None and "iv" in tree.children else {}
    states = compare_currents(tree, points, _fitted_points(tree, points, fitted), generator) if points else {}
    comparisons = [item for state in states.values() for item in state.comparisons]
    comparisons += compare_programming(tree, iv, reads, generator)
    before = None if fitted is None else fitted.get("reads")
    comparisons += compare_levels(tree, reads, generator, before)
    comparisons += compare_drift(tree, reads, generator, before)
    comparisons += compare_noise(tree, reads, generator)
    if not comparisons:
        raise FitError(_nothing(tree, iv, reads))
    node = _currents_node(states) if states else _reads_node(comparisons)
    node = node.assign(_table(comparisons))
    said = findings(comparisons) + beyond_floor(node)
    return node.assign_attrs(verdict=verdict(node), findings=json.dumps(said))


def _fitted_points(
    tree: xr.DataTree, points: dict[str, Points], fitted: dict[str, xr.Dataset] | None
) -> dict[str, Points]:
    """Return the fitted devices' currents at the same voltages: as measured, or by the law of each fitted curve."""
    measured = state_points(tree, fitted["iv"]) if fitted is not None and "iv" in fitted else {}
    found = {}
    for state, here in points.items():
        reference = measured.get(state)
        if reference is not None and np.allclose(reference.voltage[:1], here.voltage[:1], rtol=0.02):
            common = np.argmin(np.abs(reference.voltage[:, None] - here.voltage), axis=0)
            if np.allclose(reference.voltage[common], here.voltage, rtol=0.02):
                found[state] = Points(reference.device, here.voltage, reference.ln_i[:, common], reference.floor)
                continue
        from_table = reference_points(tree, state, here)
        if from_table is not None:
            found[state] = from_table
    return found


def _nothing(tree: xr.DataTree, iv: xr.Dataset | None, reads: xr.Dataset | None) -> str:
    if iv is not None and "iv" in tree.children:
        attrs = tree["iv"].attrs
        return (
            f"there is nothing to validate with: no state has {MINIMUM_DEVICES} devices measured on the "
            f"{attrs.get('polarity', 'positive')} branch between {float(attrs['v_min']):g} and "
            f"{float(attrs['v_max']):g} V; give more devices"
        )
    data = " and ".join(text for text, part in (("I-V sweeps", iv), ("conductance reads", reads)) if part is not None)
    nodes = ", ".join(map(str, tree.children))
    return (
        f"there is nothing to validate with: the measurement holds {data}, the model holds {nodes}, and no "
        f"{MINIMUM_DEVICES} devices have what both speak of; give measurements of the kind that the model was fitted to"
    )


def _currents_node(states: dict[str, StateCoverage]) -> xr.Dataset:
    names = list(states)
    every = np.unique(np.concatenate([state.points.voltage for state in states.values()]))
    table = np.full((len(LEVELS), len(names), len(every)), np.nan)
    bounds = np.full((*table.shape, 2), np.nan)
    for row, state in enumerate(states.values()):
        columns = np.searchsorted(every, state.points.voltage)
        table[:, row, columns], bounds[:, row, columns] = state.coverage, state.coverage_bound

    def stacked(get: Any) -> np.ndarray:
        return np.stack([get(state) for state in states.values()], axis=1)

    by_state = stacked(lambda s: s.coverage.mean(1))
    perfect = np.mean([state.perfect for state in states.values()], axis=0)  # (level, replicate)
    score, reference = stacked(lambda s: s.score), stacked(lambda s: s.reference_score)
    total = reference.sum(1)
    ratio = np.divide(score.sum(1), total, out=np.full(len(LEVELS), np.nan), where=total > 0)
    ls, lsv, spb = ("level", "state"), ("level", "state", "voltage"), ("state", "probability", "bound")
    qq = np.exp(np.stack([state.qq for state in states.values()]))  # (state, 2, probability)
    variables = {
        "coverage": ("level", by_state.mean(1), _one("mean coverage of the predictive interval")),
        "coverage_bound": (
            ("level", "bound"), np.quantile(perfect, [0.025, 0.975], axis=1).T,
            _one("95 % interval of a perfect model's coverage"),
        ),
        "coverage_state": (ls, by_state, _one("coverage of a state")),
        "coverage_voltage": (lsv, table, _one("coverage at a voltage")),
        "coverage_voltage_bound": ((*lsv, "bound"), bounds, _one("95 % interval of a perfect model's coverage there")),
        "coverage_curve": (ls, stacked(lambda s: s.curves), _one("curves that lie inside at all voltages")),
        "coverage_curve_bound": (
            (*ls, "bound"), stacked(lambda s: s.curves_bound), _one("95 % interval of it for a perfect model"),
        ),
        "interval_score": (ls, score, _one("mean interval score of ln I")),
        "interval_score_reference": (ls, reference, _one("that of the empirical quantiles of the fitted devices")),
        "interval_score_ratio": ("level", ratio, _one("interval score relative to that of the empirical quantiles")),
        "pit": (("state", "bin"), np.stack([s.pit for s in states.values()]),
                _one("fraction of the points by their probability under the model")),
        "qq_measured": (("state", "probability"), qq[:, 0], {"units": "A", "long_name": "quantile, measured"}),
        "qq_model": (("state", "probability"), qq[:, 1], {"units": "A", "long_name": "quantile, drawn"}),
        "qq_bound": (spb, np.exp(np.stack([s.qq_bound for s in states.values()])),
                     {"units": "A", "long_name": "95 % interval of the quantile of samples of the model"}),
        "qq_voltage": ("state", [s.qq_voltage for s in states.values()], {"units": "V"}),
        "n_devices": ("state", [len(np.unique(s.points.device)) for s in states.values()], ONE),
        "n_curves": ("state", [len(s.points) for s in states.values()], ONE),
        "n_beyond_floor": ("state", [s.points.n_beyond for s in states.values()], ONE),
    }  # fmt: skip
    coordinates = {
        "level": list(LEVELS), "state": names, "voltage": ("voltage", every, {"units": "V"}), "bound": ["low", "high"],
        "bin": ("bin", (np.arange(BINS) + 0.5) / BINS, _one("probability under the model, middle of the bin")),
        "probability": ("probability", PROBABILITIES, _one("probability of the quantile")),
    }  # fmt: skip
    method = (
        "coverage of central predictive intervals of the current; the predictive distribution holds the spread of the "
        "devices, the uncertainty of the fit, stuck devices, and noise"
    )
    return xr.Dataset(variables, coords=coordinates, attrs={"method": method, "quantity": "current"})


def _one(long_name: str) -> dict[str, str]:
    return {**ONE, "long_name": long_name}


def _reads_node(comparisons: list[Comparison]) -> xr.Dataset:
    """Return the node of a model without a law that the data could test: mean coverage over the comparisons."""
    coverage = np.stack([item.coverage for item in comparisons], axis=1)
    bound = np.stack([item.coverage_bound for item in comparisons], axis=1)  # (level, comparison, bound)
    mean = coverage.mean(1)
    # the same devices are in all comparisons, which may go up and down together: the mean of their intervals
    expected = bound.mean(1)
    names = list(dict.fromkeys(item.state or "all" for item in comparisons))
    devices = [max(i.n_devices for i in comparisons if (i.state or "all") == name) for name in names]
    by_state = np.stack(
        [coverage[:, [(i.state or "all") == name for i in comparisons]].mean(1) for name in names], axis=1
    )
    values = [sum(i.n_values for i in comparisons if (i.state or "all") == name) for name in names]
    return xr.Dataset(
        {
            "coverage": ("level", mean, _one("mean coverage of the predictive interval")),
            "coverage_bound": (
                ("level", "bound"), expected, _one("95 % interval of a perfect model's coverage"),
            ),
            "coverage_state": (("level", "state"), by_state, _one("coverage of a state")),
            "interval_score_ratio": (
                "level", _score_ratio(comparisons), _one("interval scores relative to those of empirical quantiles"),
            ),
            "n_devices": ("state", devices, ONE),
            "n_values": ("state", values, ONE),
        },
        coords={"level": list(LEVELS), "state": names, "bound": ["low", "high"]},
        attrs={"method": "coverage of central predictive intervals, mean over comparisons", "quantity": "conductance"},
    )  # fmt: skip


def _score_ratio(comparisons: list[Comparison]) -> np.ndarray:
    """Return (level,) the interval scores relative to the fitted devices' quantiles, geometric mean; NaN if unknown."""
    pairs = [(item.score, item.reference_score) for item in comparisons if np.isfinite(item.reference_score).all()]
    if not pairs:
        return np.full(len(LEVELS), np.nan)
    return np.exp(np.mean([np.log(score / reference) for score, reference in pairs], axis=0))


def _table(comparisons: list[Comparison]) -> dict[str, tuple]:
    dim = "comparison"

    def column(key: str) -> np.ndarray:
        return np.stack([np.asarray(getattr(item, key)) for item in comparisons], axis=-1)

    bound = np.moveaxis(column("coverage_bound"), -1, 1)  # (level, comparison, bound)
    return {
        "comparison_quantity": (dim, column("quantity").astype(str)),
        "comparison_state": (dim, column("state").astype(str)),
        "comparison_at": (dim, column("at").astype(str)),
        "comparison_coverage": (("level", dim), column("coverage"), _one("coverage of the predictive interval")),
        "comparison_coverage_bound": (
            ("level", dim, "bound"), bound, _one("95 % interval of it for a perfect model"),
        ),
        "comparison_interval_score": (("level", dim), column("score"), _one("mean interval score")),
        "comparison_interval_score_reference": (
            ("level", dim), column("reference_score"), _one("that of the fitted devices' empirical quantiles"),
        ),
        "ks": (dim, column("ks"), _one("Kolmogorov-Smirnov distance")),
        "ks_p": (dim, column("ks_p"), _one("fraction of samples drawn from the model that are as far")),
        "wasserstein": (dim, column("wasserstein"), _one("Wasserstein-1 distance, in the unit of the quantity")),
        "wasserstein_p": (dim, column("wasserstein_p"), _one("fraction of samples drawn from the model as far")),
        "n_comparison_devices": (dim, column("n_devices")),
        "n_comparison_values": (dim, column("n_values")),
    }  # fmt: skip


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
    size = (
        f"{int(node['n_curves'].sum())} curves' points"
        if "n_curves" in node
        else f"{int(node['n_values'].sum())} reads"
    )
    return (
        f"the 90 % predictive interval of the {node.attrs['quantity']} covers {coverage:.1%} of {size}, {outcome} "
        f"({low:.1%} to {high:.1%} in 95 of 100 cases)"
    )


def beyond_floor(node: xr.Dataset) -> list[str]:
    """Return a sentence for each state with curves that lie too far under the noise floor to be compared."""
    if "n_beyond_floor" not in node:
        return []
    counts = zip(node["state"].values, node["n_beyond_floor"].values, node["n_curves"].values, strict=True)
    return [
        f"state '{state}': {int(beyond)} of {int(beyond + kept)} curves have too few points over the noise floor for "
        "the law; the model does not hold such curves, and its high resistances are too few by that share"
        for state, beyond, kept in counts
        if beyond
    ]


def findings(comparisons: list[Comparison]) -> list[str]:
    """Return a sentence on the distances: which distributions differ from the model's by more than chance."""
    tests = [(item, min(1.0, 2 * min(item.ks_p, item.wasserstein_p))) for item in comparisons]  # two tests each
    far = [(item, p) for item, p in tests if p < SIGNIFICANCE / len(tests)]
    if not far:
        return [
            f"none of {len(tests)} distributions differs from the model's by more than chance (Kolmogorov-Smirnov and "
            f"Wasserstein distances, samples drawn from the model by device; p < {SIGNIFICANCE:g} over all)"
        ]
    names = [" ".join(part for part in (item.quantity, item.state, item.at) if part) for item, _ in far]
    listed = "; ".join(
        f"{name}: KS {item.ks:.2g}, Wasserstein {item.wasserstein:.2g}, p {p:.2g}"
        for name, (item, p) in list(zip(names, far, strict=True))[:6]
    )
    return [
        f"{len(far)} of {len(tests)} distributions differ from the model's by more than chance: {listed}; look at the "
        "quantile plot, and fit the devices on their own if they are of another population"
    ]


def split_devices(node: xr.Dataset, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split sweeps, or traces of reads, into those to fit and those held out.

    Devices are held out whole; of a single device, its cycles, or its traces where it has no cycles.

    Returns
    -------
    kept, held : (sweep,) or (trace,) masks.

    Raises
    ------
    FitError
        When there are too few devices, or cycles, for both parts.
    """
    owner = node["device"].values.astype(str)
    if len(np.unique(owner)) == 1:
        owner = node["cycle"].values.astype(str)
        if len(np.unique(owner)) == 1:
            owner = np.arange(len(owner)).astype(str)
    names = np.unique(owner)
    count = round(fraction * len(names))
    if count < MINIMUM_DEVICES or len(names) - count < MINIMUM_DEVICES:
        raise FitError(
            f"--holdout {fraction:g} of {len(names)} devices leaves {len(names) - count} to fit and {count} to hold "
            f"out; expected at least {MINIMUM_DEVICES} of each; measure more devices, or choose another fraction"
        )
    held = np.isin(owner, np.random.default_rng(seed).permutation(names)[:count])
    return ~held, held
