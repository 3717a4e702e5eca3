"""Predictive coverage of currents: what a device model says a new device's I-V points are, against measured ones."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from calib import sampling
from calib.device_model import shape_law
from calib.fitting.curves import EXCLUDED_FLAGS, FLOOR_SIGMAS, flag_mask
from calib.iv_models import iv_model
from calib.validation_scores import (
    LEVELS,
    REPLICATES,
    Comparison,
    Groups,
    distances,
    groups_of,
    interval_score,
    probability_transform,
    replicate_indices,
    thinned_pool,
)

MODELS = 100
MINIMUM_DEVICES = 4
SAME_VOLTAGE = 0.01
ELEMENTS = 4_000_000
"""Largest number of drawn currents held at once."""
MAXIMUM_VOLTAGES = 40
USUAL = 0.8
"""A voltage counts when this fraction of the curves have a usable point there."""
BINS = 10
PROBABILITIES = np.round(np.linspace(0.02, 0.98, 33), 4)


@dataclass(frozen=True)
class Points:
    """Measured currents of one state at common voltages.

    Attributes
    ----------
    device : (curve,) names.
    voltage : (voltage,) [V].
    ln_i : (curve, voltage) ln(I / A), not under the floor; NaN where there is no usable point.
    floor : (curve,) [A] the instrument's noise floor; currents below it count as at it.
    n_beyond : curves left out because the noise floor leaves them fewer points than the law can be fitted to.
    """

    device: np.ndarray
    voltage: np.ndarray
    ln_i: np.ndarray
    floor: np.ndarray
    n_beyond: int = 0

    def __len__(self) -> int:
        return len(self.device)


@dataclass(frozen=True)
class StateCoverage:
    """One state's currents against draws; levels are `LEVELS`.

    Attributes
    ----------
    coverage, coverage_bound : (level, voltage) and (level, voltage, 2).
    perfect : (level, replicate) mean coverage of samples of a perfect model.
    curves, curves_bound : (level,) and (level, 2): curves that lie inside at all voltages.
    score, reference_score : (level,) mean interval score of ln I, of the model and of the fitted devices' quantiles.
    pit : (bin,) fraction of the points by their probability under the model.
    qq : (2, probability) ln I measured and drawn, at `qq_voltage`; qq_bound : (probability, 2) of samples of the model.
    comparisons : distances of ln R and of ln I.
    """

    points: Points
    coverage: np.ndarray
    coverage_bound: np.ndarray
    perfect: np.ndarray
    curves: np.ndarray
    curves_bound: np.ndarray
    score: np.ndarray
    reference_score: np.ndarray
    pit: np.ndarray
    qq_voltage: float
    qq: np.ndarray
    qq_bound: np.ndarray
    comparisons: list[Comparison]


def measured_points(
    iv: xr.Dataset, state: str, polarity: str, window: tuple[float, float], needed: int
) -> Points | None:
    """Take the currents of a state's branches at the set-points in the window that most curves have.

    Points with a flag are left out, save those under the noise floor: they say that the current is small. A curve with
    fewer than `needed` points over the floor is one that no law is fitted to: it is counted and left out.
    """
    v_min, v_max = window
    rows = np.flatnonzero((iv["state"].values == state) & (iv["polarity"].values == polarity))
    part = iv.isel(sweep=rows)
    if not len(rows):
        return None
    others = tuple(name for name in EXCLUDED_FLAGS if name != "below_floor")
    small = flag_mask(part, ("below_floor",)) & ~flag_mask(part, others)
    reach = (np.abs(part["voltage"].values) <= v_max * (1 + SAME_VOLTAGE)) & (part["voltage"].values != 0)
    over = (reach & ~flag_mask(part)).sum(1)
    beyond = (small & reach).any(1) & (over < needed)
    if beyond.all():
        return None
    part, rows = part.isel(sweep=np.flatnonzero(~beyond)), rows[~beyond]
    sign = -1.0 if polarity == "negative" else 1.0
    offset = np.nan_to_num(part["offset"].values) if "offset" in part.coords else np.zeros(len(rows))
    voltage = sign * part["voltage"].values
    current = sign * (part["current"].values - offset[:, None])
    keep = np.isfinite(voltage) & np.isfinite(current) & ~flag_mask(part, others) & (voltage > 0)
    voltage = np.where(keep, voltage, np.nan)
    levels = _set_points(voltage, v_min, v_max)
    if not len(levels):
        return None
    distance = np.abs(voltage[:, :, None] - levels)
    nearest = np.argmin(np.where(np.isfinite(distance), distance, np.inf), axis=1)
    gap = np.take_along_axis(np.nan_to_num(distance, nan=np.inf), nearest[:, None, :], axis=1)[:, 0]
    usable = gap < SAME_VOLTAGE * levels
    found = np.where(usable, current[np.arange(len(rows))[:, None], nearest], np.nan)
    common = usable.mean(0) >= USUAL
    if not common.any():
        return None
    floor = part["noise_floor"].values if "noise_floor" in part.coords else np.zeros(len(rows))
    floor = np.maximum(np.nan_to_num(floor), 1e-300)
    with np.errstate(invalid="ignore"):
        ln_i = np.log(np.maximum(found, floor[:, None]))  # NaN stays NaN
    owner = part["device"].values.astype(str)
    if len(np.unique(owner)) == 1:  # the cycles of one device are what was held out
        owner = part["cycle"].values.astype(str)
    return Points(owner, levels[common], ln_i[:, common], floor, int(beyond.sum()))


def _set_points(voltage: np.ndarray, v_min: float, v_max: float) -> np.ndarray:
    """Return the voltages between v_min and v_max that differ by more than `SAME_VOLTAGE`, thinned where many."""
    values = np.sort(voltage[np.isfinite(voltage)])
    values = values[(values >= v_min * (1 - SAME_VOLTAGE)) & (values <= v_max * (1 + SAME_VOLTAGE))]
    if not len(values):
        return values
    parts = np.split(values, np.flatnonzero(np.diff(values) > SAME_VOLTAGE * values[1:]) + 1)
    levels = np.array([np.median(part) for part in parts])
    step = -(-len(levels) // MAXIMUM_VOLTAGES)
    return levels[::-step][::-1]


def compare_currents(
    tree: xr.DataTree, parts: dict[str, Points], fitted: dict[str, Points], generator: np.random.Generator
) -> dict[str, StateCoverage]:
    """Compare each state's measured currents with those of devices drawn from draws of the model.

    A drawn current has the relative scatter of the fitted curves and the instrument's noise. A stuck device is stuck
    in all states and cycles.
    """
    groups = {state: groups_of(points.device) for state, points in parts.items()}
    devices = max(group.n_devices for group in groups.values())
    size = max(groups[s].n_cycles * len(parts[s].voltage) for s in parts)
    per_model = int(np.clip(2 * devices, 40, max(ELEMENTS // (20 * size), 40)))
    models = int(np.clip(ELEMENTS // (size * per_model), 20, MODELS))
    source = sampling.PopulationDraw(tree)
    drawn = [source.draw(generator) for _ in range(models)]
    stuck = [population.stuck(per_model, generator) for population in drawn]
    node = tree["iv"].to_dataset()
    scatter = {s: float(np.nan_to_num(node["rms"].sel(state=s))) if "rms" in node else 0.0 for s in parts}
    seed = int(generator.integers(2**62))
    found = {}
    for state, points in parts.items():
        pool = np.stack([
            _currents(population, state, points, (dead, groups[state].n_cycles, scatter[state]), generator)
            for population, dead in zip(drawn, stuck, strict=True)
        ])  # fmt: skip
        reference = fitted.get(state)
        shared = np.random.default_rng(seed)  # the same devices in every state
        found[state] = _state(state, points, groups[state], pool, reference, tree, shared, generator)
    return found


def _currents(
    population: sampling.Population, state: str, points: Points, how: tuple[np.ndarray, int, float],
    generator: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Draw ln(I / A) of devices with their cycles, (device, cycle, voltage); `how`: stuck devices, cycles, scatter."""
    stuck, cycles, scatter = how
    law = iv_model(population.law.iv_model)
    _, parameters = population.devices(state, stuck, cycles, generator)
    columns = {name: values[..., None] for name, values in parameters.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        current = law.current(points.voltage, xp=np, **columns)
        floor = float(np.median(points.floor))
        noise = np.hypot(scatter * current, floor / FLOOR_SIGMAS)
        measured = current + noise * generator.standard_normal(current.shape)
    return np.log(np.maximum(np.nan_to_num(measured, nan=0.0, posinf=1e300), floor))


def reference_points(tree: xr.DataTree, state: str, points: Points) -> Points | None:
    """Return the currents of the fitted curves themselves, by the law of each, where the model keeps their table."""
    node = tree["iv"].to_dataset()
    if "curve_parameter" not in node:
        return None
    law = iv_model(str(node.attrs["iv_model"]))
    rows = (node["curve_state"].values.astype(str) == state) & (node["curve_status"].values.astype(str) == "ok")
    values = node["curve_parameter"].values[rows]
    names = [str(name) for name in node["parameter"].values]
    if len(values) < MINIMUM_DEVICES:
        return None
    current = law.current(points.voltage, xp=np, **{name: values[:, [k]] for k, name in enumerate(names)})
    floor = np.full(len(values), float(np.median(points.floor)))
    ln_i = np.log(np.maximum(current, floor[:, None]))
    return Points(node["curve_device"].values.astype(str)[rows], points.voltage, ln_i, floor)


def _state(
    state: str, points: Points, groups: Groups, pool: np.ndarray, reference: Points | None, tree: xr.DataTree,
    shared: np.random.Generator, generator: np.random.Generator,
) -> StateCoverage:  # fmt: skip
    models, devices, cycles, voltages = pool.shape
    flat = pool.reshape(models * devices, cycles, voltages)
    every = thinned_pool(np.sort(pool.reshape(-1, voltages), axis=0))
    x, usable = points.ln_i, np.isfinite(points.ln_i)
    mixed = replicate_indices((models, devices), groups, shared, one_model=False)
    single = replicate_indices((models, devices), groups, shared, one_model=True)
    n = len(LEVELS)
    coverage, bound = np.zeros((n, voltages)), np.zeros((n, voltages, 2))
    curves, curves_bound, perfect = np.zeros(n), np.zeros((n, 2)), np.zeros((n, REPLICATES))
    score, reference_score = np.zeros(n), np.full(n, np.nan)
    for k, level in enumerate(LEVELS):
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(every, tails, axis=0)
        inside = (x >= low) & (x <= high)
        coverage[k] = (inside & usable).sum(0) / usable.sum(0)
        curves[k] = (inside | ~usable).all(1).mean()
        drawn_inside = (flat >= low) & (flat <= high)
        chance = _replicated(drawn_inside, mixed, groups)
        bound[k] = np.quantile(chance, [0.025, 0.975], axis=0).T
        perfect[k] = chance.mean(1)
        whole = _replicated(drawn_inside.all(2)[:, :, None], mixed, groups)[:, 0]
        curves_bound[k] = np.quantile(whole, [0.025, 0.975])
        score[k] = np.mean(interval_score(x, low, high, level)[usable])
        if reference is not None:
            low, high = np.nanquantile(reference.ln_i, tails, axis=0)
            reference_score[k] = np.mean(interval_score(x, low, high, level)[usable])
    transformed = [probability_transform(x[usable[:, j], j], every[:, j], generator) for j in range(voltages)]
    pit = np.histogram(np.concatenate(transformed), BINS, (0.0, 1.0))[0] / usable.sum()
    v_ref = abs(float(tree["iv"].attrs["reference_voltage"]))
    at = int(np.argmin(np.abs(points.voltage - v_ref)))
    some = usable[:, at]
    qq = np.stack([np.quantile(x[some, at], PROBABILITIES), np.quantile(every[:, at], PROBABILITIES)])
    samples = flat[single[:, groups.device], groups.cycle, at]
    qq_bound = np.quantile(np.quantile(samples, PROBABILITIES, axis=1), [0.025, 0.975], axis=1).T
    comparisons = _distances(state, points, groups, flat, every, single, v_ref, (coverage, bound), generator)
    return StateCoverage(
        points, coverage, bound, perfect, curves, curves_bound, score, reference_score, pit,
        float(points.voltage[at]), qq, qq_bound, comparisons,
    )  # fmt: skip


def _replicated(inside: np.ndarray, indices: np.ndarray, groups: Groups) -> np.ndarray:
    """Return the mean of (device, cycle, voltage) over samples like the measured one, (replicate, voltage)."""
    return np.stack([inside[row[groups.device], groups.cycle].mean(0) for row in indices])


def _distances(
    state: str, points: Points, groups: Groups, flat: np.ndarray, every: np.ndarray, single: np.ndarray, v_ref: float,
    covered: tuple[np.ndarray, np.ndarray], generator: np.random.Generator,
) -> list[Comparison]:  # fmt: skip
    """Compare the distribution of ln R at the reference voltage, and of ln I at the ends of the range."""
    at = {int(np.argmin(np.abs(points.voltage - v_ref))): "ln R (ohm)"}
    for index in (0, len(points.voltage) - 1):
        at.setdefault(index, "ln I (A)")
    found = []
    for index, quantity in at.items():
        some = np.isfinite(points.ln_i[:, index])
        x, voltage = points.ln_i[some, index], float(points.voltage[index])
        samples = flat[single[:, groups.device[some]], groups.cycle[some], index]
        ks, ks_p, moved, moved_p = distances(x, samples, every[:, index], generator)
        tails = [((1 - level) / 2, (1 + level) / 2) for level in LEVELS]
        ends = np.quantile(every[:, index], tails)
        score = [np.mean(interval_score(x, end[0], end[1], level)) for end, level in zip(ends, LEVELS, strict=True)]
        found.append(
            Comparison(
                quantity, state, f"{voltage:.3g} V", covered[0][:, index], covered[1][:, index], np.array(score),
                ks, ks_p, moved, moved_p, len(np.unique(groups.device[some])), int(some.sum()),
            )
        )  # fmt: skip
    return found


def state_points(tree: xr.DataTree, iv: xr.Dataset) -> dict[str, Points]:
    """Return the measured currents of each state of the model that has enough devices."""
    law = shape_law(tree)
    iv = iv.assign_coords(state=("sweep", np.where(iv["state"].values == "", "all", iv["state"].values)))
    polarity = str(tree["iv"].attrs.get("polarity", "positive"))
    found = {}
    for state in tree["iv"].to_dataset()["state"].values.astype(str).tolist():
        points = measured_points(iv, state, polarity, (law.v_min, law.v_max), len(law.parameters) + 1)
        if points is not None and len(np.unique(points.device)) >= MINIMUM_DEVICES:
            found[state] = points
    return found
