"""Energy of programming devices, from what a device model knows of pulses, writes or switching voltages.

A pulse of amplitude V and duration t that meets a device of conductance G dissipates

    E = |V| |I(V)| t = V^2 t G_V,    G_V = I(V) / V = G I(V) V_ref / (V I(V_ref)),

where the factor of G is that of the mean I-V law of the device model, taken at the end of its validity where V lies
beyond that, and 1 where the model has no law. The path to a conductance differs by what was measured:

============ =======================================================================================================
energy       pulses of known amplitude, width and number: the node 'pulse' holds the energy to each conductance
writes       write and verify: mean number of set and reset pulses of each target range; a set pulse meets the target,
             the first reset pulse the largest target, any further one the target
pulse        trains of equal pulses from the low end: E = sum over pulses, G_V the mean of before and after each
switching    one reset pulse at the device's reset voltage in its low-resistance state, and one set pulse at its set
             voltage that meets the target: a least estimate, of voltages of slow sweeps, without verification
============ =======================================================================================================

Amplitudes and widths that were not measured are stated by the user. Intervals come from resampling the devices, for
writes from the standard errors of the counts over writes. Wires, drivers, selectors and reads that verify are not
included.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from calib.device_model import ShapeLaw, shape_law
from calib.errors import ModelError, OptionError
from calib.iv_models import iv_model
from calib.pulse_laws import LAWS
from calib.pulse_paths import cumulative, energy_to

FIGURES = ("voltage", "width", "set_voltage", "set_width", "reset_voltage", "reset_width")
"""What a user may state [V], [s]; 'voltage' and 'width' stand for those of set and of reset."""
DRAWS = 1000
_POINTS = 33
_MOST_PULSES = 400  # of a train that are summed one by one; longer trains are integrated on as many points
_SHAPE_COORDINATE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": np.zeros_like,
    "soft-bounds": np.arcsinh,
    "exponential-step": np.asarray,
    "power": np.log,
}
"""Shape parameter -> search coordinate u of `calib.pulse_laws.LAWS`."""


@dataclass(frozen=True)
class ProgrammingEnergy:
    """Energy [J] of programming one device, by the conductance [S] that it is programmed to.

    Attributes
    ----------
    source : 'energy', 'writes', 'pulse' or 'switching', see the table of the module.
    conductance : (point,) [S], ascending.
    energy : (point,) [J] mean over devices; linear between the points, constant outside.
    draws : (draw, point) [J] of resampled devices, NaN where one device was measured.
    n : devices, or writes, that it is the mean of.
    statement : sentences about where it comes from and what was assumed.
    """

    source: str
    conductance: np.ndarray
    energy: np.ndarray
    draws: np.ndarray
    n: int
    statement: str

    def of(self, conductance: np.ndarray) -> np.ndarray:
        """Return the energy [J] of each device, shaped as the conductances [S] that they are programmed to."""
        return np.interp(conductance, self.conductance, self.energy)

    def total(self, conductances: Iterable[np.ndarray]) -> tuple[float, tuple[float, float]]:
        """Return the energy [J] of programming all devices, and its 95 % interval.

        The interval is that of the mean over devices. What one chip costs scatters about it less than one device by the
        root of their number.
        """
        share = np.zeros(len(self.conductance))
        for part in conductances:
            share += _shares(np.ravel(part), self.conductance)
        with np.errstate(invalid="ignore"):
            low, high = np.quantile(self.draws @ share, [0.025, 0.975])
        return float(self.energy @ share), (float(low), float(high))


def programming_figures(given: "str | Mapping[str, Any] | None") -> dict[str, float]:
    """Return the figures of a text 'voltage=2,width=1e-7', or of a mapping.

    Raises
    ------
    OptionError
        When it cannot be read, or a figure is unknown or not positive.
    """
    if isinstance(given, str):
        pairs = [part.partition("=") for part in given.split(",") if part.strip()]
        given = {key.strip(): value for key, _, value in pairs}
    found = {}
    for key, value in (given or {}).items():
        try:
            found[key] = abs(float(value))
        except (TypeError, ValueError):
            found[key] = float("nan")
        if key not in FIGURES or not 0 < found[key] < np.inf:
            raise OptionError(
                f"programming has '{key}' of '{value}'; expected numbers in V and s for {', '.join(FIGURES)}, "
                "for example voltage=2,width=1e-7"
            )
    return found


def programming_energy(
    device: xr.DataTree, figures: Mapping[str, float] | None = None, generator: np.random.Generator | None = None
) -> ProgrammingEnergy:
    """Return the energy of programming a device, from what the model measured and the figures that are stated.

    Of several sources the first of the table of the module is taken for which all figures are known.

    Parameters
    ----------
    device : device model.
    figures : amplitudes [V] and widths [s] by the names of `FIGURES`.
    generator : of the resampled devices; default: one that always gives the same.

    Raises
    ------
    ModelError
        When it is not known; the message says what is missing of each source.
    """
    stated = {key: float(value) for key, value in (figures or {}).items()}
    random = np.random.default_rng(0) if generator is None else generator
    reasons = []
    for node, source in (("pulse", _measured), ("writes", _writes), ("pulse", _trains), ("switching", _switching)):
        if node in device.children:
            found = source(device, stated, random)
            if isinstance(found, ProgrammingEnergy):
                return found
            reasons += [found] if found else []
    name = str(device.attrs.get("name", "")) or "device"
    if not reasons:
        reasons = ["it has no pulses, no writes and no switching voltages, so the energy of one is not known"]
    raise ModelError(f"the energy of programming '{name}' is not known: {'; '.join(reasons)}")


def chord_conductance(device: xr.DataTree, conductance: np.ndarray, voltage: np.ndarray | float) -> np.ndarray:
    """Return I(V) / V [S] by the mean law of devices of conductance G = I(V_ref) / V_ref; G without a law.

    V is taken up to the end of the law's validity, and ln R within the range of the data.
    """
    g = np.asarray(conductance, dtype=float)
    if "iv" not in device.children:
        return np.broadcast_to(g, np.broadcast_shapes(g.shape, np.shape(voltage))).copy()
    law = shape_law(device)
    v = np.minimum(np.abs(voltage), law.v_max)
    values = _mean_parameters(law, -np.log(g))
    model = iv_model(law.iv_model)
    factor = model.current(v, xp=np, **values) / v
    at_reference = model.current(np.asarray(law.reference_voltage), xp=np, **values) / law.reference_voltage
    return g * factor / at_reference


def _mean_parameters(law: ShapeLaw, ln_r: np.ndarray) -> dict[str, np.ndarray]:
    """Return the parameters of usual devices: the mean line, with the scale solved from R."""
    model = iv_model(law.iv_model)
    held = np.clip(ln_r, law.ln_r_min, law.ln_r_max)
    mean, _ = law.at(held)
    shape = {}
    for k, name in enumerate(law.parameters):
        if name in model.shape:
            theta = np.exp(mean[..., k]) if law.transforms[k] == "log" else mean[..., k]
            shape[name] = np.clip(theta, model.parameter(name).lower, model.parameter(name).upper)
    resistance = np.exp(held)
    shape = model.admissible(resistance, xp=np, **shape)
    return {model.scale: model.anchor(resistance, law.reference_voltage, xp=np, **shape), **shape}


def _shares(conductance: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return how much each point counts in the sum of linear interpolations at the conductances."""
    if len(points) == 1:
        return np.full(1, float(len(conductance)))
    upper = np.clip(np.searchsorted(points, conductance), 1, len(points) - 1)
    weight = np.clip((conductance - points[upper - 1]) / (points[upper] - points[upper - 1]), 0, 1)
    count = len(points)
    return np.bincount(upper - 1, 1 - weight, count) + np.bincount(upper, weight, count)


def _resampled(by_device: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return means (draw, point) over resampled devices of a table (device, point)."""
    n = len(by_device)
    if n < 2:
        return np.full((DRAWS, by_device.shape[1]), np.nan)
    return random.multinomial(n, np.full(n, 1 / n), DRAWS) @ by_device / n


def _mean_by_device(table: np.ndarray, devices: np.ndarray) -> np.ndarray:
    """Return the mean row (device, point) of each device."""
    _, owner = np.unique(devices, return_inverse=True)
    return np.stack([table[owner == k].mean(axis=0) for k in range(owner.max() + 1)])


def _figure(stated: Mapping[str, float], operation: str, name: str) -> float | None:
    """Return the voltage or width of an operation that was stated, or that of both."""
    return stated.get(f"{operation}_{name}", stated.get(name))


def _law_words(device: xr.DataTree, voltage: float) -> str:
    if "iv" not in device.children:
        return "the current of a pulse is ohmic"
    law = shape_law(device)
    beyond = voltage > law.v_max * (1 + 1e-9)
    limit = f", taken at {law.v_max:.3g} V, where its validity ends" if beyond else ""
    return f"the current of a pulse follows the mean I-V law{limit}"


def _measured(
    device: xr.DataTree, stated: Mapping[str, float], random: np.random.Generator
) -> "ProgrammingEnergy | str":
    """Return the energy that the fit of the pulses found, '' where amplitudes or widths were not measured."""
    node = device["pulse"].to_dataset()
    if "pulse_energy" not in node:
        return ""
    up = node["pulse_energy_polarity"].values.astype(str) == "potentiation"
    if not up.any():
        return "its pulses of known amplitude and width only lower the conductance"
    by_device = _mean_by_device(node["pulse_energy"].values[up], node["pulse_energy_device"].values[up])
    return ProgrammingEnergy(
        "energy", node["pulse_energy_conductance"].values, by_device.mean(axis=0), _resampled(by_device, random),
        len(by_device),
        f"measured pulses of {len(by_device)} device(s), with their amplitudes and widths, from the low end of each "
        "train to the conductance; the current of a pulse is ohmic",
    )  # fmt: skip


def _writes(device: xr.DataTree, stated: Mapping[str, float], random: np.random.Generator) -> "ProgrammingEnergy | str":
    node = device["writes"].to_dataset()
    counted = node["effort"].values.astype(str).tolist() if "effort" in node else []
    if not {"set pulses", "reset pulses"} <= set(counted):
        return "its writes do not count set and reset pulses"
    needed = {(op, name): _figure(stated, op, name) for op in ("set", "reset") for name in ("voltage", "width")}
    missing = [f"{operation}_{name}" for (operation, name), value in needed.items() if value is None]
    if missing:
        return f"its writes count pulses, but not their {', '.join(missing)}; state them, as {missing[0]}=..."
    volts = {op: float(needed[op, "voltage"] or 0) for op in ("set", "reset")}
    order = np.argsort(node["target"].values)
    node = node.isel(target=order)
    target = np.maximum(node["target"].values, 0.0)
    each = {
        op: volts[op] ** 2 * float(needed[op, "width"] or 0) * _positive_chord(device, target, volts[op])
        for op in ("set", "reset")
    }
    mean, error = (
        node[key].sel(effort=["set pulses", "reset pulses"]).values for key in ("effort_mean", "effort_stderr")
    )
    mean, error = np.nan_to_num(mean), np.nan_to_num(error)
    counts = mean + error * random.standard_normal((DRAWS, *mean.shape))  # (draw, operation, target)

    def energy(count: np.ndarray) -> np.ndarray:
        pulses = np.maximum(count, 0.0)
        first = np.minimum(pulses[..., 1, :], 1.0)
        return pulses[..., 0, :] * each["set"] + first * each["reset"][-1] + (pulses[..., 1, :] - first) * each["reset"]

    n = int(node["n_effort"].sel(effort="set pulses").sum())
    words = _law_words(device, max(volts.values()))
    return ProgrammingEnergy(
        "writes", target, energy(mean), energy(counts), n,
        f"set and reset pulses counted in {n} writes, of stated {_stated(needed)}; a set pulse meets the target, the "
        f"first reset pulse the largest target, the others the target; {words}; interval from the standard errors of "
        "the counts over writes",
    )  # fmt: skip


def _positive_chord(device: xr.DataTree, conductance: np.ndarray, voltage: float) -> np.ndarray:
    """Return `chord_conductance`, 0 where the conductance is 0."""
    floor = np.finfo(float).tiny
    return np.where(conductance > 0, chord_conductance(device, np.maximum(conductance, floor), voltage), 0.0)


def _stated(needed: Mapping[tuple[str, str], float | None]) -> str:
    units = {"voltage": "V", "width": "s"}
    return ", ".join(f"{op} {name} {value:g} {units[name]}" for (op, name), value in needed.items())


def _trains(device: xr.DataTree, stated: Mapping[str, float], random: np.random.Generator) -> "ProgrammingEnergy | str":
    node = device["pulse"].to_dataset()
    if str(node.attrs.get("unit")) != "S":
        return "its pulse data are normalised, not in siemens"
    if "sequence_shape" not in node or "potentiation" not in node["polarity"].values:
        return "its pulse data hold no train of equal pulses that raises the conductance"
    voltage, width = _figure(stated, "set", "voltage"), _figure(stated, "set", "width")
    if voltage is None or width is None:
        return "its pulse data do not hold amplitude and width of a pulse; state them, as voltage=...,width=..."
    up = node["sequence_polarity"].values.astype(str) == "potentiation"
    law = LAWS[str(node["law_chosen"].sel(polarity="potentiation").values)]
    pulses, start, end, shape = (
        node[f"sequence_{name}"].values[up] for name in ("pulses", "g_start", "g_end", "shape")
    )
    steps = int(np.clip(np.median(pulses), 1, _MOST_PULSES))
    x = np.linspace(0, 1, steps + 1)
    u = _SHAPE_COORDINATE[law.name](np.nan_to_num(shape))[:, None]
    g = np.maximum(start[:, None] + (end - start)[:, None] * law.f(x, u), 0.0)  # (train, step)
    points = np.unique(np.quantile(g, np.linspace(0, 1, _POINTS)))
    drive = voltage**2 * width * pulses / steps
    spent = cumulative(drive[:, None], _positive_chord(device, g, voltage))
    by_train = np.stack([energy_to(points, *pair) for pair in zip(g, spent, strict=True)])
    by_device = _mean_by_device(by_train, node["sequence_device"].values[up])
    return ProgrammingEnergy(
        "pulse", points, by_device.mean(axis=0), _resampled(by_device, random), len(by_device),
        f"trains of pulses of {len(by_device)} device(s), of stated amplitude {voltage:g} V and width {width:g} s, "
        f"from the low end to the conductance, by the fitted law ({law.name}); erasing is not included; "
        f"{_law_words(device, voltage)}",
    )  # fmt: skip


def _switching(
    device: xr.DataTree, stated: Mapping[str, float], random: np.random.Generator
) -> "ProgrammingEnergy | str":
    node = device["switching"].to_dataset()
    if not {"device_v_set", "device_v_reset", "device_ln_r_lrs"} <= set(node) or "conductance" not in device.children:
        return "its switching voltages are not known for each device, or it has no conductance range"
    widths = _figure(stated, "set", "width"), _figure(stated, "reset", "width")
    if widths[0] is None or widths[1] is None:
        return "its sweeps give switching voltages, but not the width of a pulse; state it, as width=1e-7"
    v_set, v_reset, ln_r = (node[name].values for name in ("device_v_set", "device_v_reset", "device_ln_r_lrs"))
    known = np.isfinite(v_set) & np.isfinite(v_reset) & np.isfinite(ln_r)
    if not known.any():
        return "no device has both a set and a reset voltage"
    v_set, v_reset, g_lrs = v_set[known], v_reset[known], np.exp(-ln_r[known])
    v_set = np.full_like(v_set, stated["set_voltage"]) if "set_voltage" in stated else v_set
    v_reset = np.full_like(v_reset, stated["reset_voltage"]) if "reset_voltage" in stated else v_reset
    ends = device["conductance"].to_dataset()
    points = np.geomspace(float(ends["g_off"]), float(ends["g_on"]), _POINTS)
    by_set = v_set[:, None] ** 2 * widths[0] * chord_conductance(device, points, v_set[:, None])  # (device, point)
    by_reset = v_reset**2 * widths[1] * chord_conductance(device, g_lrs, v_reset)
    by_device = by_set + by_reset[:, None]
    return ProgrammingEnergy(
        "switching", points, by_device.mean(axis=0), _resampled(by_device, random), len(by_device),
        f"one reset and one set pulse at the switching voltages of {len(by_device)} device(s) (median "
        f"{np.median(v_reset):.3g} and {np.median(v_set):.3g} V, of slow sweeps), of stated width {widths[1]:g} and "
        f"{widths[0]:g} s, without verification: a least estimate; "
        f"{_law_words(device, float(max(v_set.max(), v_reset.max())))}",
    )  # fmt: skip
