"""What virtual devices do in experiments beside sweeps: trains of pulses, writes with verification, reads against time.

Every number of a device is drawn from its distribution in the device model, and what a node does not hold is not made
up: an experiment that needs it is refused.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import ndtri

from calib.errors import ModelError
from calib.pulse_laws import LAWS, POLARITIES

_EFFORTS = {"set pulses": "n_set", "reset pulses": "n_reset", "reads": "n_read", "attempts": "attempts"}
RETENTION_READS, NOISE_READS = 30, 400
_AVERAGED = 200


@dataclass(frozen=True)
class Trains:
    """Trains of pulses: device, cycle, polarity and readings (pulse,) of each; the unit of the conductance."""

    device: list[str]
    cycle: list[int]
    polarity: list[str]
    values: list[np.ndarray]
    unit: str


@dataclass(frozen=True)
class Writes:
    """Writes: (write,) device, cycle, target range [S], achieved conductance [S], success, and counts by their role."""

    device: np.ndarray
    cycle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    achieved: np.ndarray
    success: np.ndarray
    counts: dict[str, np.ndarray]


@dataclass(frozen=True)
class ReadTraces:
    """Reads against time: time (read,) [s], conductance (trace, read) [S], device and cycle (trace,), voltage [V]."""

    time: np.ndarray
    conductance: np.ndarray
    device: np.ndarray
    cycle: np.ndarray
    voltage: float


def names(devices: int) -> np.ndarray:
    """Return the names of virtual devices: S1, S2... with leading zeros."""
    width = len(str(devices))
    return np.array([f"S{k + 1:0{width}d}" for k in range(devices)])


def trains(tree: xr.DataTree, devices: int, cycles: int, generator: np.random.Generator) -> Trains:
    """Apply trains of identical pulses, up and down; their lengths N are drawn from those of the fitted trains.

    G_n = start + change f(n / N) + d_n + e_n with the noise of the fit (`calib.fitting.pulse_fit`): d_n = phi_n d_(n-1)
    + w_n, phi_n = min(1, step_n / step_(n-1)) exp(-1 / memory), w and e normal with variances v_n, v ~ |step|^(2
    growth) of mean 1. Start, end and noise are lognormal between devices (and cycles, where separated), the shape
    parameter is normal.

    Raises
    ------
    ModelError
        When no law of identical pulses was fitted.
    """
    node = _node(tree, "pulse", "trains of pulses", "fit trains of pulses")
    if "law_chosen" not in node:
        raise _lacking(tree, "a law of identical pulses", "fit trains of identical pulses")
    name = names(devices)
    found = Trains([], [], [], [], str(node.attrs.get("unit", "S")))
    polarities = [
        p for p in POLARITIES if p in node["polarity"].values and str(node["law_chosen"].sel(polarity=p).values)
    ]
    for polarity in polarities:
        here = node.sel(polarity=polarity)
        rows = node["sequence_polarity"].values.astype(str) == polarity
        size = (devices, cycles)
        count = np.maximum(np.rint(generator.choice(node["sequence_pulses"].values[rows], size)).astype(int), 1)
        start, end, write, other = (
            _positive(here, key, size, generator) for key in ("g_start", "g_end", "write_noise", "transient_noise")
        )
        law = str(here["law_chosen"].values)
        u = _shape(here, law, size, generator)
        growth = np.nan_to_num(float(here["noise_growth"]))
        memory = float(here["memory"]) if _fades(here) else np.inf
        for device in range(devices):
            for cycle in range(cycles):
                at = (device, cycle)
                path = _train(
                    law, u[at], int(count[at]), start[at], end[at], write[at], other[at], growth, memory, generator
                )
                found.device.append(str(name[device]))
                found.cycle.append(cycle)
                found.polarity.append(polarity)
                found.values.append(path)
    return found


def _fades(here: xr.Dataset) -> bool:
    memory = float(here["memory"]) if "memory" in here else np.nan
    return memory > 0 and 2 * float(here["n_fading"]) > float(here["n_sequences"])


def _train(
    law: str, u: float, count: int, start: float, end: float, write: float, other: float, growth: float, memory: float,
    generator: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    x = np.arange(count + 1) / count
    f = LAWS[law].f(x, np.full(count + 1, u))
    step = np.abs(np.diff(f, prepend=0.0))
    step[0] = step[1] if count else 1.0
    v = (step / max(step.mean(), 1e-300) + 1e-4) ** (2 * growth)
    v /= v.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(step[1:] / step[:-1], nan=1.0, posinf=1.0)
    phi = np.minimum(1.0, np.r_[1.0, ratio]) * np.exp(-1 / memory)
    added = write * np.sqrt(v) * generator.standard_normal(count + 1)
    deviation = np.zeros(count + 1)
    for n in range(1, count + 1):
        deviation[n] = phi[n] * deviation[n - 1] + added[n]
    return start + (end - start) * f + deviation + other * np.sqrt(v) * generator.standard_normal(count + 1)


def _sizes(here: xr.Dataset, key: str) -> tuple[float, float]:
    """Return the standard deviations of a number between devices and between cycles."""
    d2d, c2c, total = (
        float(here[f"{key}_{part}"]) if f"{key}_{part}" in here else np.nan for part in ("d2d", "c2c", "spread")
    )
    if np.isfinite(d2d) and np.isfinite(c2c):
        return d2d, c2c
    return (total if np.isfinite(total) else 0.0), 0.0


def _normal(here: xr.Dataset, key: str, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    between, within = _sizes(here, key)
    own = between * generator.standard_normal((size[0], 1))
    return float(here[key]) + own + within * generator.standard_normal(size)


def _positive(here: xr.Dataset, key: str, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Draw a positive number (device, cycle) with its median and standard deviations; lognormal."""
    median = float(here[key]) if key in here else np.nan
    if not median > 0:
        return np.zeros(size)
    between, within = (_sigma_ln(part / median) for part in _sizes(here, key))
    ln = between * generator.standard_normal((size[0], 1)) + within * generator.standard_normal(size)
    return median * np.exp(ln)


def _sigma_ln(relative: float) -> float:
    """Return sigma of ln x of a lognormal x whose standard deviation over its median is `relative`.

    The variance is m^2 exp(s) (exp(s) - 1) with s = sigma^2, so exp(s) = (1 + sqrt(1 + 4 relative^2)) / 2.
    """
    return float(np.sqrt(np.log((1 + np.sqrt(1 + 4 * relative**2)) / 2)))


def _shape(here: xr.Dataset, law: str, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    if law == "linear":
        return np.zeros(size)
    low, high = LAWS[law].bounds
    ends = LAWS[law].shape(np.array([low, high]))
    return coordinate(law, np.clip(_normal(here, "shape", size, generator), *ends))


def coordinate(law: str, shape: Any) -> np.ndarray:
    """Return the search coordinate u of a law of pulses from its shape parameter: the inverse of `PulseLaw.shape`."""
    shape = np.asarray(shape, dtype=float)
    if law == "linear":
        return np.zeros_like(shape)
    return {"soft-bounds": np.arcsinh, "exponential-step": np.asarray, "power": np.log}[law](shape)


def writes(tree: xr.DataTree, devices: int, cycles: int, generator: np.random.Generator) -> Writes:
    """Write every device to every target of the model, `cycles` times.

    A device never switches with the model's probability: its conductance is then one of those of such devices. Others
    succeed with the target's probability; the achieved conductance is drawn from the quantiles of successes or of
    failures, those of successes shifted and scaled to the model's bias and standard deviation.
    """
    node = _node(tree, "writes", "writes with verification", "fit a log of writes")
    targets = node.sizes["target"]
    shape = (devices, cycles, targets)
    low, high = (np.broadcast_to(node[key].values, shape) for key in ("target_low", "target_high"))
    never = generator.random(devices) < float(np.nan_to_num(node["never_switched_probability"]))
    stuck = np.zeros(devices)
    if never.any() and node.sizes.get("never_device", 0):
        stuck[never] = generator.choice(node["never_conductance"].values, int(never.sum()))
    else:
        never[:] = False
    probability = node["switching_success_probability" if "switching_success_probability" in node
                       else "success_probability"].values  # fmt: skip
    success = generator.random(shape) < probability
    achieved = np.empty(shape)
    for k in range(targets):
        here = node.isel(target=k)
        done = _successes(here, (devices, cycles), generator)
        failed = _failures(here, (devices, cycles), generator)
        achieved[..., k] = np.where(success[..., k], done, failed)
    achieved = np.where(never[:, None, None], stuck[:, None, None], achieved)
    success = np.where(never[:, None, None], (achieved >= low) & (achieved <= high), success)
    return Writes(
        device=np.broadcast_to(names(devices)[:, None, None], shape).ravel(),
        cycle=np.broadcast_to(np.arange(cycles)[:, None], shape).ravel(),
        low=low.ravel(), high=high.ravel(), achieved=achieved.ravel(), success=success.ravel(),
        counts={role: values.ravel() for role, values in _efforts(node, shape, generator).items()},
    )  # fmt: skip


_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_EVEN = (np.arange(2000) + 0.5) / 2000


def _quantile_function(values: np.ndarray, low: float, high: float, u: np.ndarray) -> np.ndarray:
    """Return the quantile function through the five quantiles of a node, its tails ending within the range."""
    first = max(values[0] - (values[1] - values[0]), low)
    last = min(values[-1] + (values[-1] - values[-2]), high)
    return np.interp(u, (0.0, *_QUANTILES, 1.0), (first, *values, last))


def _successes(here: xr.Dataset, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    low, high = float(here["target_low"]), float(here["target_high"])
    target, bias, sigma = (float(here[key]) for key in ("target", "bias", "sigma"))
    quantiles = here["achieved_quantile"].values if "achieved_quantile" in here else np.full(5, np.nan)
    u = generator.random(size)
    mean, sigma = target + np.nan_to_num(bias), np.nan_to_num(sigma)
    if np.isfinite(quantiles).all():
        even = _quantile_function(quantiles, low, high, _EVEN)
        drawn = _quantile_function(quantiles, low, high, u)
        scale = sigma / even.std() if even.std() > 0 else 0.0
        drawn = mean + (drawn - even.mean()) * scale
    else:
        drawn = mean + sigma * ndtri(np.clip(u, 1e-6, 1 - 1e-6))
    return np.clip(drawn, low if low > 0 else 1e-3 * target, high)


def _failures(here: xr.Dataset, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Draw what writes that fail end with; outside the target range."""
    low, high = float(here["target_low"]), float(here["target_high"])
    quantiles = here["failed_quantile"].values if "failed_quantile" in here else np.full(5, np.nan)
    if np.isfinite(quantiles).all():
        drawn = _quantile_function(quantiles, 1e-3 * quantiles[0], np.inf, generator.random(size))
    else:
        edge = low if low > 0 else high
        drawn = edge * np.exp((-1 if low > 0 else 1) * 0.5 * generator.random(size))
    inside = (drawn >= low) & (drawn <= high)
    outside = low * 0.99 if low > 0 else high * 1.01
    return np.where(inside, outside, drawn)


def _efforts(node: xr.Dataset, shape: tuple[int, ...], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw how many pulses and reads writes took: quantiles of the model, exponential between them, with its mean."""
    found: dict[str, np.ndarray] = {}
    if "effort_of" not in node:
        return found
    levels = np.minimum(node["effort_quantile"].values.astype(float), 1 - 1e-4)
    for effort in map(str, node["effort"].values):
        if effort not in _EFFORTS:
            continue
        here = node.sel(effort=effort)
        table, mean = here["effort_of"].transpose("target", "effort_quantile").values, here["effort_mean"].values
        u = generator.random(shape)
        drawn = np.empty(shape)
        for k, row in enumerate(table):
            even, drawn[..., k] = (
                np.interp(-np.log1p(-p), (0.0, *-np.log1p(-levels)), (0.0, *row)) for p in (_EVEN, u[..., k])
            )
            drawn[..., k] *= mean[k] / even.mean() if even.mean() > 0 else 0.0
        if np.isfinite(drawn).all():
            found[_EFFORTS[effort]] = np.rint(drawn).astype(np.int64)
    return found


def retention(
    tree: xr.DataTree, devices: int, cycles: int, generator: np.random.Generator, reads: int | None = None
) -> ReadTraces:
    """Read devices at times that are even in their logarithm, from the first to the last time of the fitted traces.

    G(t) = G0 (t / t0)^-nu exp(e): ln G0 lies as that of the fitted traces, nu is normal with the mean and the spread of
    the model at G0, e normal with the fitted traces' median residual about the power law.
    """
    node = _node(tree, "retention", "drift", "fit reads against time")
    first, last, zero = (float(node.attrs[key]) for key in ("t_first", "t_last", "reference_time"))
    time = np.geomspace(first, last, RETENTION_READS if reads is None else reads)
    size = (devices, cycles)
    g = _conductances(tree, node, size, generator)
    mean, std = (_by_conductance(node, key, np.log(g)) for key in ("drift_exponent_mean", "drift_exponent_std"))
    nu = mean + np.nan_to_num(std) * generator.standard_normal((devices, 1))
    residual = float(np.nanmedian(node["trace_residual"].values)) if "trace_residual" in node else 0.0
    noise = residual * generator.standard_normal((*size, len(time)))
    values = g[..., None] * np.exp(-nu[..., None] * np.log(time / zero) + noise)
    return _traces(tree, time, values)


def _by_conductance(node: xr.Dataset, key: str, ln_g: np.ndarray) -> np.ndarray:
    table = f"range_{key}"
    if table in node and node.sizes["nu_range"] > 1:
        x, y = node["range_ln_g"].values.astype(float), node[table].values.astype(float)
        use = np.isfinite(x) & np.isfinite(y)
        if use.sum() > 1:
            order = np.argsort(x[use], kind="stable")
            return np.interp(ln_g, x[use][order], y[use][order])
    return np.full(np.shape(ln_g), float(node[key]))


def _conductances(
    tree: xr.DataTree, node: xr.Dataset, size: tuple[int, int], generator: np.random.Generator
) -> np.ndarray:
    """Draw the conductances [S] of traces: those of the fitted traces, else evenly in ln G over the model's range."""
    if "trace_conductance" in node:
        known = node["trace_conductance"].values.astype(float)
        known = np.sort(known[np.isfinite(known) & (known > 0)])
        if len(known):
            return np.exp(np.quantile(np.log(known), generator.random(size)))
    if "conductance" in tree.children:
        ends = [float(tree["conductance"].to_dataset()[key]) for key in ("g_off", "g_on")]
    else:
        ends = [float(np.exp(node[key])) if key in node else np.nan for key in ("ln_g_min", "ln_g_max")]
    if not 0 < ends[0] <= ends[1]:
        raise _lacking(tree, "a conductance range", "fit it together with the reads")
    return np.exp(generator.uniform(float(np.log(ends[0])), float(np.log(ends[1])), size))


def read_noise(
    tree: xr.DataTree, devices: int, cycles: int, generator: np.random.Generator, reads: int | None = None
) -> ReadTraces:
    """Read devices again and again, evenly in time.

    The standard deviation relative to G is the model's power of G, lognormal between devices; its spectrum is 1 / f^a
    with the model's exponent (white without one). The standard deviation is that about a constant and a logarithm of
    time, which is how it is measured.
    """
    node = _node(tree, "read_noise", "read noise", "fit repeated reads")
    count = NOISE_READS if reads is None else reads
    interval = float(node.attrs.get("interval", 1.0))
    time = (np.arange(count) + 1) * (interval if interval > 0 else 1.0)
    size = (devices, cycles)
    g = _conductances(tree, node, size, generator)
    reference = float(node.attrs["reference_conductance"])
    ln = float(node["ln_noise"]) + np.nan_to_num(float(node["noise_exponent"])) * np.log(g / reference)
    ln = ln + np.nan_to_num(float(node["noise_spread"])) * generator.standard_normal((devices, 1))
    exponent = float(node["spectral_exponent"]) if "spectral_exponent" in node else 0.0
    noise = _coloured((*size, count), np.nan_to_num(exponent), np.log(time), generator)
    return _traces(tree, time, g[..., None] * np.exp(_ln_of(np.exp(ln)[..., None] * noise)))


def _ln_of(relative: np.ndarray) -> np.ndarray:
    return np.log1p(np.clip(relative, -0.9, None))


def _coloured(
    shape: tuple[int, ...], exponent: float, ln_time: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Return noise of spectrum 1 / f^exponent along the last dimension.

    Its root mean square about a constant and a logarithm of time is 1 on the average over `_AVERAGED` further traces; a
    single trace differs, the more the fewer independent reads its correlation leaves.
    """
    n = shape[-1]
    count = int(np.prod(shape[:-1]))
    frequency = np.fft.rfftfreq(2 * n)
    frequency[0] = frequency[1]
    white = generator.standard_normal((count + _AVERAGED, 2 * n))
    noise = np.fft.irfft(np.fft.rfft(white) * frequency ** (-exponent / 2), 2 * n)[:, :n]
    basis = np.linalg.qr(np.stack([np.ones(n), ln_time], axis=1))[0]
    residual = noise - (noise @ basis) @ basis.T
    scale = np.sqrt(np.square(residual[count:]).sum(axis=1).mean() / (n - 2))
    return (residual[:count] / scale).reshape(shape)


def _traces(tree: xr.DataTree, time: np.ndarray, values: np.ndarray) -> ReadTraces:
    devices, cycles, reads = values.shape
    voltage = 0.1
    if "conductance" in tree.children:
        voltage = abs(float(tree["conductance"].attrs.get("reference_voltage", voltage)))
    return ReadTraces(
        time, values.reshape(-1, reads), np.repeat(names(devices), cycles), np.tile(np.arange(cycles), devices), voltage
    )


def _node(tree: xr.DataTree, name: str, what: str, remedy: str) -> xr.Dataset:
    if name not in tree.children:
        raise _lacking(tree, f"{what} (node {name})", remedy)
    node = tree[name].to_dataset()
    node.attrs = dict(tree[name].attrs)
    return node


def _lacking(tree: xr.DataTree, what: str, remedy: str) -> ModelError:
    return ModelError(
        f"the device model '{tree.attrs.get('name', '')}' holds no {what}, so this experiment cannot be simulated; "
        f"{remedy}, or choose another experiment"
    )
