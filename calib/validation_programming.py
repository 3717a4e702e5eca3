"""Conductance after programming: what a device model says of each state and level, against measured reads."""

import numpy as np
import xarray as xr
from scipy.special import ndtri

from calib.fitting.conductance import read_at
from calib.fitting.levels import level_names
from calib.model_draw import Spread, Stuck, chi_draw
from calib.validation_scores import Comparison, compare, groups_of

MODELS = 100
MINIMUM_DEVICES = 4
MAXIMUM_VALUES = 2000
"""Values of a comparison beyond which devices are left out at random."""
ELEMENTS = 2_000_000
MAXIMUM_LEVELS = 8
"""More levels are compared together, each value in units of its level's standard deviation."""


def thinned(devices: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the rows of as many whole devices as hold up to `MAXIMUM_VALUES` values."""
    labels, index, counts = np.unique(devices, return_inverse=True, return_counts=True)
    if len(devices) <= MAXIMUM_VALUES:
        return np.arange(len(devices))
    order = generator.permutation(len(labels))
    chosen = order[np.cumsum(counts[order]) <= MAXIMUM_VALUES]
    return np.flatnonzero(np.isin(index, chosen if len(chosen) else order[:1]))


def pool_shape(devices: np.ndarray) -> tuple[int, int, int]:
    """Return how many models, devices and cycles to draw for a comparison with these values."""
    groups = groups_of(devices)
    size = int(np.clip(2 * groups.n_devices, 40, max(ELEMENTS // (20 * groups.n_cycles), 40)))
    models = int(np.clip(ELEMENTS // (size * groups.n_cycles), 20, MODELS))
    return models, size, groups.n_cycles


def programming_values(
    tree: xr.DataTree, iv: xr.Dataset | None, reads: xr.Dataset | None
) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Return per state of the programming node ln(R / Ohm), the device of each, and ln of the largest R that is seen.

    From sweeps R is that of the measured point at the reference voltage; under the noise floor it counts as at it.
    """
    states = tree["programming"].to_dataset()["state"].values.astype(str).tolist()
    found = {}
    for state in states:
        if iv is not None and "iv" in tree.children:
            values = _from_sweeps(tree, iv, state)
        elif reads is not None and "state" in reads.coords:
            rows = np.flatnonzero(reads["state"].values.astype(str) == state)
            g = reads["conductance"].values[rows]
            device = np.broadcast_to(reads["device"].values[rows].astype(str)[:, None], g.shape)
            ok = np.isfinite(g) & (g > 0)
            values = (-np.log(g[ok]), device[ok], np.inf)
        else:
            continue
        if len(np.unique(values[1])) >= MINIMUM_DEVICES:
            found[state] = values
    return found


def _from_sweeps(tree: xr.DataTree, iv: xr.Dataset, state: str) -> tuple[np.ndarray, np.ndarray, float]:
    attrs = tree["iv"].attrs
    voltage = float(attrs["reference_voltage"])
    polarity = str(attrs.get("polarity", "positive"))
    rows = (iv["state"].values == state) & (iv["polarity"].values == polarity)
    part = iv.isel(sweep=np.flatnonzero(rows))
    if not part.sizes["sweep"]:
        return np.empty(0), np.empty(0, dtype=str), np.inf
    g, censored = read_at(part, voltage)
    floor = part["noise_floor"].values if "noise_floor" in part.coords else np.zeros(len(g))
    largest = np.log(abs(voltage) / np.maximum(np.nan_to_num(floor), 1e-300))
    owner = part["device"].values.astype(str)
    if len(np.unique(owner)) == 1:
        owner = part["cycle"].values.astype(str)
    ok = np.isfinite(g) & ((g > 0) | censored)
    with np.errstate(invalid="ignore", divide="ignore"):
        ln_r = np.minimum(-np.log(np.where(g > 0, g, np.nan)), largest)
    ln_r = np.where(censored, largest, ln_r)
    return ln_r[ok], owner[ok], float(np.median(largest[ok])) if ok.any() else np.inf


def compare_programming(
    tree: xr.DataTree, iv: xr.Dataset | None, reads: xr.Dataset | None, generator: np.random.Generator
) -> list[Comparison]:
    """Compare the resistance after programming with the lognormal spread of the model, stuck devices included."""
    if "programming" not in tree.children:
        return []
    node = tree["programming"].to_dataset()
    stuck = Stuck.of(tree["stuck"].to_dataset()) if "stuck" in tree.children else None
    found = []
    for state, (ln_r, device, largest) in programming_values(tree, iv, reads).items():
        rows = thinned(device, generator)
        models, size, cycles = pool_shape(device[rows])
        row = [str(name) for name in node["state"].values].index(state)
        spread = Spread.of(node, row)
        pool = np.stack([_programmed(spread, stuck, size, cycles, generator) for _ in range(models)])
        pool = np.minimum(pool, largest)
        found.append(compare("ln R after programming (ohm)", state, "", ln_r[rows], device[rows], pool, generator))
    return found


def _programmed(spread: Spread, stuck: Stuck | None, n: int, cycles: int, generator: np.random.Generator) -> np.ndarray:
    """Draw ln(R / Ohm) of devices in several cycles, (device, cycle), of a draw of the spread and the stuck devices."""
    ln_r = spread.draw(generator).devices(n, cycles, generator)
    if stuck is not None:
        g = stuck.draw(generator).devices(n, generator)
        rows = np.isfinite(g)
        ln_r[rows] = -np.log(g[rows])[:, None]
    return ln_r


def compare_levels(
    tree: xr.DataTree, reads: xr.Dataset | None, generator: np.random.Generator, fitted: xr.Dataset | None = None
) -> list[Comparison]:
    """Compare the conductance of programmed levels with the distributions of the node levels.

    A level's distribution is that of its quantiles (`g_quantile`) where the node has them, else normal. Values are
    compared as normal scores, each by its own level: with up to `MAXIMUM_LEVELS` levels one by one, with more together.
    """
    if "levels" not in tree.children or reads is None:
        return []
    node = tree["levels"].to_dataset()
    if not {"mean", "std", "level_name"} <= set(map(str, node.variables)):
        return []
    known = [str(name) for name in node["level_name"].values]
    law = _Levels(node)
    score, index, traces, n_devices = _level_scores(law, known, reads)
    if n_devices < MINIMUM_DEVICES:
        return []
    before = _level_scores(law, known, fitted) if fitted is not None else None
    parts = [(f"level {name}", k) for k, name in enumerate(known)]
    if len(known) > MAXIMUM_LEVELS:
        parts = [(f"all {len(known)} levels", -1)]
    found = []
    for at, k in parts:
        some = np.flatnonzero((index == k) | (k < 0))
        if len(np.unique(traces[some])) < MINIMUM_DEVICES:
            continue
        some = some[thinned(traces[some], generator)]
        models, size, cycles = pool_shape(traces[some])
        chosen = np.unique(index[some])
        pool = np.stack([law.draw(chosen, size, cycles, generator) for _ in range(models)])
        reference = None if before is None else before[0][(before[1] == k) | (k < 0)]
        name = "conductance of a level, normal score"
        found.append(compare(name, "", at, score[some], traces[some], pool, generator, reference))
    return found


def _level_scores(
    law: "_Levels", known: list[str], reads: xr.Dataset
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return of all reads of known levels the normal score, the level and the trace, and the number of devices."""
    names, _ = level_names(reads)
    rows = np.flatnonzero(np.isin(names, known))
    g = reads["conductance"].values[rows]
    member = np.array([known.index(str(name)) for name in names[rows]], dtype=int)
    device = reads["device"].values[rows].astype(str)
    trace = np.char.add(np.char.add(device, " "), rows.astype(str))
    ok = np.isfinite(g)
    index, owner = (np.broadcast_to(values[:, None], g.shape)[ok] for values in (member, trace))
    return law.score(g[ok], index), index, owner, len(np.unique(device[ok.any(axis=1)]))


class _Levels:
    """The distributions of the levels of a node, drawn within their errors."""

    def __init__(self, node: xr.Dataset) -> None:
        self.mean, self.std = node["mean"].values, np.maximum(node["std"].values, 1e-300)
        self.mean_error = np.nan_to_num(node["mean_stderr"].values)
        self.std_error = node["std_stderr"].values
        between, within = (np.nan_to_num(node[key].values) for key in ("std_between", "std_within"))
        total = np.square(between) + np.square(within)
        self.alike = np.divide(np.square(between), total, out=np.zeros(len(total)), where=total > 0)
        self.quantiles = node["g_quantile"].values if "g_quantile" in node else None
        self.scores = ndtri(node["quantile"].values) if "g_quantile" in node else None

    def score(self, values: np.ndarray, member: np.ndarray) -> np.ndarray:
        """Return the normal score of conductances [S] in the distribution of their levels."""
        if self.quantiles is None:
            return (values - self.mean[member]) / self.std[member]
        found = np.empty(len(values))
        for k in np.unique(member):
            found[member == k] = extended(values[member == k], *self._points(k))
        return found

    def draw(self, levels: np.ndarray, traces: int, reads: int, generator: np.random.Generator) -> np.ndarray:
        """Draw normal scores (trace, read) of conductances of levels whose mean and spread are drawn."""
        member = generator.choice(levels, traces)
        alike = self.alike[member][:, None]
        normal = np.sqrt(alike) * generator.standard_normal((traces, 1))
        normal = normal + np.sqrt(1 - alike) * generator.standard_normal((traces, reads))
        found = np.empty((traces, reads))
        for k in np.unique(member):
            here = member == k
            factor = chi_draw(float(self.std[k]), float(self.std_error[k]), generator) / float(self.std[k])
            shift = float(self.mean_error[k]) * generator.standard_normal()
            if self.quantiles is None:
                found[here] = shift / self.std[k] + factor * normal[here]
                continue
            values, scores = self._points(k)
            g = self.mean[k] + shift + factor * (extended(normal[here], scores, values) - self.mean[k])
            found[here] = extended(g, values, scores)
        return found

    def _points(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.quantiles is not None
        assert self.scores is not None
        return rising(self.quantiles[k], float(self.std[k])), self.scores


def extended(x: np.ndarray, xp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """Interpolate linearly, the outermost straight lines going on beyond the ends."""
    low = (fp[1] - fp[0]) / (xp[1] - xp[0])
    high = (fp[-1] - fp[-2]) / (xp[-1] - xp[-2])
    return np.interp(x, xp, fp) + low * np.minimum(x - xp[0], 0.0) + high * np.maximum(x - xp[-1], 0.0)


def rising(quantiles: np.ndarray, scale: float) -> np.ndarray:
    """Return quantiles that rise everywhere: equal ones are set apart by a billionth of the spread."""
    return quantiles + 1e-9 * max(scale, 1e-300) * np.arange(len(quantiles))
