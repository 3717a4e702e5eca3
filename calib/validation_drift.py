"""Drift and read noise: what a device model says of later reads, against reads that it was not fitted to."""

import numpy as np
import xarray as xr
from scipy.special import ndtri

from calib.fitting.traces import Traces, at_times, traces_of
from calib.model_draw import chi_draw
from calib.validation_programming import MINIMUM_DEVICES, extended, pool_shape, rising, thinned
from calib.validation_scores import Comparison, compare

MINIMUM_READS = 10
MOST_TRACES = 400
MOST_PAIRS = 25
"""Traces, and pairs of reads of each, whose noise is compared."""


def compare_drift(
    tree: xr.DataTree, reads: xr.Dataset | None, generator: np.random.Generator, fitted: xr.Dataset | None = None
) -> list[Comparison]:
    """Compare the change of the conductance since the first read with the node retention, at each of its times."""
    if "retention" not in tree.children or reads is None:
        return []
    node = tree["retention"].to_dataset()
    part = _timed(reads)
    if len(np.unique(part.device)) < MINIMUM_DEVICES:
        return []
    if not {"shift_quantile", "range_low", "n_relaxation"} <= set(node.data_vars):
        return _by_exponent(node, part, generator)
    before = _scores(node, _timed(fitted)) if fitted is not None else None
    found = []
    for column, (x, device) in enumerate(_scores(node, part)):
        if len(np.unique(device)) < MINIMUM_DEVICES:
            continue
        law = _Change(node.isel(time=column))
        some = thinned(device, generator)
        models, size, cycles = pool_shape(device[some])
        pool = np.stack([law.draw(size, cycles, generator) for _ in range(models)])
        at = f"{float(node['time'][column]):.3g} s"
        reference = None if before is None else before[column][0]
        found.append(compare("change of G, normal score", "", at, x[some], device[some], pool, generator, reference))
    return found


def _timed(reads: xr.Dataset) -> Traces:
    """Return the traces that have times and begin with a positive conductance."""
    traces = traces_of(reads)
    timed = traces.timed & (np.nan_to_num(traces.g[:, 0]) > 0)
    return Traces(traces.g[timed], traces.time[timed], traces.device[timed], traces.origin)


def _scores(node: xr.Dataset, traces: Traces) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each time of the node the normal scores of the changes since the first read, and their devices."""
    times, first = node["time"].values, traces.g[:, 0]
    values = at_times(traces, times)
    values[traces.time[:, 0] > 0, 0] = np.nan  # the first read is the reference
    member = np.clip(np.searchsorted(node["range_low"].values, first, side="right") - 1, 0, node.sizes["range"] - 1)
    found = []
    for column in range(len(times)):
        law, change = _Change(node.isel(time=column)), values[:, column] - first
        usable = np.flatnonzero(np.isfinite(change) & law.known[member])
        found.append((law.score(change[usable], member[usable]), traces.device[usable]))
    return found


class _Change:
    """The distribution of the change at one time, by range of the first read, through its quantiles."""

    def __init__(self, node: xr.Dataset) -> None:
        self.quantiles = node["shift_quantile"].values  # (range, quantile)
        self.scores = ndtri(node["quantile"].values)
        self.known = np.asarray(np.isfinite(self.quantiles).all(axis=1))
        self.n = node["n_relaxation"].values.astype(float)
        self.mean, self.mean_error = node["shift_mean"].values, node["shift_mean_stderr"].values
        self.sigma, self.sigma_error = node["sigma"].values, node["sigma_stderr"].values

    def score(self, change: np.ndarray, member: np.ndarray) -> np.ndarray:
        """Return the normal score of changes [S] of traces in the given ranges."""
        found = np.empty(len(change))
        for k in np.unique(member):
            here = member == k
            found[here] = extended(change[here], self._increasing(k), self.scores)
        return found

    def draw(self, devices: int, cycles: int, generator: np.random.Generator) -> np.ndarray:
        """Draw normal scores (device, cycle) of changes whose mean and spread are drawn within their errors."""
        weight = np.where(self.known, self.n, 0.0)
        member = generator.choice(len(weight), size=devices, p=weight / weight.sum())
        normal = generator.standard_normal((devices, cycles))
        found = np.empty((devices, cycles))
        for k in np.unique(member):
            here = member == k
            change = extended(normal[here], self.scores, self._increasing(k))
            factor = chi_draw(float(self.sigma[k]), float(self.sigma_error[k]), generator) / float(self.sigma[k])
            shift = float(self.mean_error[k]) * generator.standard_normal()
            moved = self.mean[k] + shift + factor * (change - self.mean[k])
            found[here] = extended(moved, self._increasing(k), self.scores)
        return found

    def _increasing(self, k: int) -> np.ndarray:
        return rising(self.quantiles[k], float(self.sigma[k]))


def _by_exponent(node: xr.Dataset, traces: Traces, generator: np.random.Generator) -> list[Comparison]:
    """Compare ln(G(t) / G(t_1)) of each trace's last and first read after time 0 with -nu ln(t / t_1)."""
    positive = np.isfinite(traces.g) & (traces.g > 0) & (np.nan_to_num(traces.time) > 0)
    rows = np.flatnonzero(positive.sum(1) > 1)
    if len(np.unique(traces.device[rows])) < MINIMUM_DEVICES:
        return []
    start = np.argmax(positive[rows], axis=1)
    end = positive.shape[1] - 1 - np.argmax(positive[rows][:, ::-1], axis=1)
    change = np.log(traces.g[rows, end] / traces.g[rows, start])
    decades = np.log(traces.time[rows, end] / traces.time[rows, start])
    mean, error = float(node["drift_exponent_mean"]), float(node["drift_exponent_mean_stderr"])
    spread = float(np.nan_to_num(node["drift_exponent_std"]))
    noise = np.sqrt(2) * float(np.nanmedian(node["trace_residual"].values)) if "trace_residual" in node else 0.0
    freedom = max(int(node["n_traces"]) - 1, 2)
    usable = decades > 0
    x, device = change[usable] / decades[usable], traces.device[rows][usable]
    models, size, cycles = pool_shape(device)
    length = generator.choice(decades[usable], size=(models, size, cycles))
    centre = -mean + error * generator.standard_normal((models, 1, 1))
    width = spread * np.sqrt(freedom / generator.chisquare(freedom, (models, 1, 1)))
    pool = centre + width * generator.standard_normal((models, size, 1))
    pool = pool + np.nan_to_num(noise) / length * generator.standard_normal(length.shape)
    at = f"{float(np.median(traces.time[rows, end])):.3g} s"
    return [compare("change of ln G per unit of ln t", "", at, x, device, pool, generator)]


def compare_noise(tree: xr.DataTree, reads: xr.Dataset | None, generator: np.random.Generator) -> list[Comparison]:
    """Compare differences of successive reads with the node read_noise.

    x = (g_2 - g_1) / (sqrt 2 G) / (relative noise of the law at G), of reads that follow one another and are used once;
    under the model it is normal, with a standard deviation that is lognormal over traces. A trace counts as a device.
    """
    if "read_noise" not in tree.children or reads is None or "ln_successive" not in tree["read_noise"]:
        return []
    node = tree["read_noise"].to_dataset()
    g = traces_of(reads).g
    seen = np.isfinite(g)
    mean = np.nanmean(np.where(seen.any(axis=1, keepdims=True), g, 1.0), axis=1)
    rows = np.flatnonzero((seen.sum(axis=1) >= MINIMUM_READS) & (mean > 0))
    if len(rows) < MINIMUM_DEVICES:
        return []
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_TRACES)).astype(int))]
    exponent = float(np.nan_to_num(node["successive_exponent"]))
    level = np.log(mean[rows] / float(node.attrs["reference_conductance"])) * exponent + float(node["ln_successive"])
    first, second = g[rows, :-1:2], g[rows, 1::2]
    change = (second - first[:, : second.shape[1]]) / (np.sqrt(2) * mean[rows, None] * np.exp(level)[:, None])
    step = -(-change.shape[1] // MOST_PAIRS)
    change = change[:, ::step]
    owner = np.broadcast_to(rows.astype(str)[:, None], change.shape)
    ok = np.isfinite(change)
    models, size, cycles = pool_shape(owner[ok])
    error = float(np.nan_to_num(node["ln_successive_stderr"])) * generator.standard_normal((models, 1, 1))
    spread = float(np.nan_to_num(node["successive_spread"])) * generator.standard_normal((models, size, 1))
    pool = np.exp(error + spread) * generator.standard_normal((models, size, cycles))
    return [compare("read-to-read change, by its noise", "", "reads", change[ok], owner[ok], pool, generator)]
