"""aihwkit, IBM's analog hardware acceleration kit: data, and a module that builds its configurations from them.

Pulses. The weight is w = 2 (G - G_min) / (G_max - G_min) - 1, from -1 to 1. Linear laws and soft bounds are aihwkit's
LinearStepDevice: a pulse up adds scale_up (1 - gamma_up w), one down takes scale_down (1 + gamma_down w). A train of N
pulses with soft bounds, A = N / k, from w_s to w_e runs towards w_b = w_s + (w_e - w_s) / (1 - exp(-k)) and
w(n + 1) - w(n) = (w_b - w(n)) (1 - exp(-1 / A)), so scale_up = w_b (1 - exp(-1 / A)) and gamma_up = 1 / w_b. Other
laws are a PiecewiseStepDevice, whose nodes are fitted so that a train of its pulses follows the law. In aihwkit's code
the larger of the two scales is dw_min, and up_down is 1 - scale_down / scale_up or scale_up / scale_down - 1
(rpu_pulsed_device.cpp of version 1.2.0; M. J. Rasch et al., AICAS 2021, doi 10.1109/AICAS51828.2021.9458494).
"""

import math
from typing import Any

import numpy as np
import xarray as xr

from calib.exporters import _numbers
from calib.exporters._pulse_response import Direction, directions, spread
from calib.exporters._simulator import LoadedSimulator

NODES = 32
"""Nodes of a piecewise device; on a GPU aihwkit allows less than 64."""
_FINER = {
    "programming": "spread between devices and between cycles apart: aihwkit draws anew for every programming",
    "stuck": "for training, where devices are stuck: aihwkit fixes them at any weight, all equally likely",
    "retention": "laws of drift other than the power law, and the random part of relaxation",
    "read_noise": "noise from read to read: aihwkit applies it once, with the drift; forward.w_noise is of every read",
    "pulse": "NeuroSim's labels, the table of steps, and how noise that is written fades: where it does, it is taken "
    "as noise of every reading",
}


class Aihwkit(LoadedSimulator):
    """JSON, and a module that makes an rpu_config of it."""

    name = "aihwkit"
    suffix = ".aihwkit.json"
    carries = "conductance range, programming spread, stuck devices, drift, read noise, and the response to pulses"

    versions = "1.1 and 1.2"
    units = "S, ohm, s"
    carried = ("conductance", "programming", "stuck", "retention", "read_noise", "pulse")
    finer = _FINER

    def more_omits(self, device_model: xr.DataTree) -> list[str]:
        return _pulse_omissions(device_model)

    def data(self, device_model: xr.DataTree) -> dict[str, Any]:
        return _numbers.parts(device_model) | {"pulsed_device": pulsed_device(device_model)}


def _pulse_omissions(tree: xr.DataTree) -> list[str]:
    if "pulse" not in tree.children:
        return []
    found = directions(tree)
    if len(found) < 2:
        return ["the response to pulses: aihwkit's devices need both directions, and the model has a law of "
                f"{' and '.join(found) or 'neither'}"]  # fmt: skip
    sentences = []
    growth = {name: direction.growth for name, direction in found.items() if direction.write_noise > 0}
    if any(0.15 < value < 0.85 or value > 1.15 for value in growth.values()):
        powers = ", ".join(f"{value:.2g} ({name})" for name, value in growth.items())
        sentences.append(f"noise that grows as a power of the step, here {powers}: aihwkit has the powers 0 and 1 only")
    if tree["pulse"].attrs.get("unit") != "S":
        sentences.append("conductances of the pulse response, which was measured in normalised units")
    return sentences


def pulsed_device(tree: xr.DataTree) -> dict[str, Any] | None:
    """Return the class and the parameters of aihwkit's device, None without laws of both directions.

    `curve_error` is the largest deviation of a train of its pulses from the law, as a share of the range.
    """
    found = directions(tree)
    if len(found) < 2:
        return None
    node = tree["pulse"].to_dataset()
    low, high = float(node["g_min"]), float(node["g_max"])
    if not high > low:
        return None
    half = (high - low) / 2
    up, down = found["potentiation"], found["depression"]
    ends = {d: tuple(float(np.clip((g - low) / half - 1, -1, 1)) for g in (d.start, d.end)) for d in (up, down)}
    if all(direction.law in ("linear", "soft-bounds") for direction in (up, down)):
        kind, parameters = "LinearStepDevice", _linear_step(up, down, ends)
    else:
        kind, parameters = "PiecewiseStepDevice", _piecewise_step(up, down, ends)
    mult = kind == "PiecewiseStepDevice" or parameters["mult_noise"]
    stuck = _numbers.stuck(tree)
    parameters |= {
        "w_min": -1.0, "w_max": 1.0,
        "w_min_dtod": spread(node, "g_min") / half, "w_max_dtod": spread(node, "g_max") / half,
        "dw_min_std": _step_noise(up, down, half, parameters["dw_min"], mult),
        "dw_min_dtod": math.hypot(up.step_spread, down.step_spread) / math.sqrt(2),
        "up_down_dtod": spread(node, "asymmetry_step") if "asymmetry_step" in node else 0.0,
        "write_noise_std": math.hypot(*map(_passing_noise, (up, down))) / math.sqrt(2) / half / parameters["dw_min"],
        "corrupt_devices_prob": stuck.probability if stuck else 0.0, "corrupt_devices_range": 1.0, "reset_std": 0.0,
    }  # fmt: skip
    error = max(
        float(np.abs(train(kind, parameters, name, ends[d][0], d.pulses) - _wanted(d, ends[d])).max()) / 2
        for name, d in found.items()
    )
    return {"class": kind, "parameters": parameters, "curve_error": error,
            "weight": "w = 2 (G - g_min) / (g_max - g_min) - 1", "g_min": low, "g_max": high,
            "unit": str(tree["pulse"].attrs.get("unit", "")),
            "pulses": {name: d.pulses for name, d in found.items()}}  # fmt: skip


def _wanted(direction: Direction, ends: tuple[float, ...]) -> np.ndarray:
    x = np.arange(round(direction.pulses) + 1) / direction.pulses
    return ends[0] + (ends[1] - ends[0]) * direction.share(np.minimum(x, 1.0))


def _scales(up: float, down: float) -> dict[str, float]:
    """Return dw_min and up_down, as aihwkit's code takes them."""
    return {"dw_min": max(up, down), "up_down": 1 - down / up if up >= down else up / down - 1}


def _linear_step(up: Direction, down: Direction, ends: dict[Direction, tuple[float, ...]]) -> dict[str, Any]:
    scale, gamma = {}, {}
    for direction, sign in ((up, 1.0), (down, -1.0)):
        begin, end = (sign * w for w in ends[direction])
        if direction.law == "linear":
            scale[sign], gamma[sign] = (end - begin) / direction.pulses, 0.0
            continue
        k = float(np.sinh(direction.u))
        k = math.copysign(max(abs(k), 1e-6), k)
        bound = begin + (end - begin) / -math.expm1(-k)
        bound = math.copysign(max(abs(bound), 1e-6), bound)
        scale[sign], gamma[sign] = bound * -math.expm1(-k / direction.pulses), 1 / bound
    return {
        **_scales(scale[1.0], scale[-1.0]), "gamma_up": gamma[1.0], "gamma_down": gamma[-1.0],
        "gamma_up_dtod": 0.0, "gamma_down_dtod": 0.0, "allow_increasing": min(gamma.values()) < 0,
        "mean_bound_reference": True, "mult_noise": up.growth + down.growth > 1.0,
    }  # fmt: skip


def _piecewise_step(up: Direction, down: Direction, ends: dict[Direction, tuple[float, ...]]) -> dict[str, Any]:
    steps = {
        "up": _nodes(up, ends[up]),
        "down": _nodes(down, tuple(-w for w in ends[down]))[::-1],
    }
    mean = float(np.mean([steps["up"].mean(), steps["down"].mean()]))
    relative = {f"piecewise_{key}": (values / mean).tolist() for key, values in steps.items()}
    return {"dw_min": mean, "up_down": 0.0, **relative}


def _nodes(direction: Direction, ends: tuple[float, ...]) -> np.ndarray:
    """Return the step at the nodes of w from -1 to 1, fitted so that repeated steps follow the law.

    The law's own steps at the nodes are the start; where a step grows fast with w, linear interpolation between them
    would lag behind.
    """
    from scipy.optimize import least_squares

    begin, end = ends
    w = np.linspace(-1, 1, NODES)
    share = np.clip((w - begin) / (end - begin), 0, 1)
    steps = np.maximum(direction.step(share) * (end - begin), 1e-9)
    wanted = _wanted(direction, ends)

    def misfit(log_steps: np.ndarray) -> np.ndarray:
        path = _repeat(np.exp(log_steps), begin, len(wanted) - 1)
        return np.concatenate([path - wanted, 1e-4 * (log_steps - np.log(steps))])

    return np.exp(least_squares(misfit, np.log(steps), max_nfev=30).x)


def _repeat(steps: np.ndarray, begin: float, count: int) -> np.ndarray:
    """Return w after 0 ... count pulses up of a piecewise device with `steps` at its nodes."""
    path = np.empty(count + 1)
    w = path[0] = begin
    last = len(steps) - 1
    for n in range(count):
        place = min(max((w + 1) / 2 * last, 0.0), float(last))
        left = min(int(place), last - 1)
        part = place - left
        w = min(w + float(steps[left] * (1 - part) + steps[left + 1] * part), 1.0)
        path[n + 1] = w
    return path


def train(kind: str, parameters: dict[str, Any], polarity: str, begin: float, pulses: float) -> np.ndarray:
    """Return w after 0, 1, ... pulses of one direction of aihwkit's device without noise, by its update rule."""
    sign = 1.0 if polarity == "potentiation" else -1.0
    bias = parameters["up_down"]
    scale = parameters["dw_min"] * (1 + min(bias, 0.0) if sign > 0 else 1 - max(bias, 0.0))
    count = round(pulses)
    if kind == "PiecewiseStepDevice":
        nodes = np.array(parameters["piecewise_up" if sign > 0 else "piecewise_down"]) * scale
        return sign * _repeat(nodes if sign > 0 else nodes[::-1], sign * begin, count)
    gamma = parameters["gamma_up" if sign > 0 else "gamma_down"]
    path = np.empty(count + 1)
    w = path[0] = sign * begin
    for n in range(count):
        w = path[n + 1] = min(w + scale * (1 - gamma * w), 1.0)
    return sign * path


def _step_noise(up: Direction, down: Direction, half: float, dw_min: float, proportional: bool) -> float:
    """Return dw_min_std: relative to each step where noise is proportional to it, else to the step at w = 0."""
    relative = []
    for direction in (up, down):
        change = abs(direction.end - direction.start)
        step = direction.rms_step() * change if proportional else dw_min * half
        relative.append(direction.write_noise / step if math.isinf(direction.memory) else 0.0)
    return math.hypot(*relative) / math.sqrt(2)


def _passing_noise(direction: Direction) -> float:
    """Return the noise of a reading that does not stay; written noise that fades counts with its stationary size."""
    written = (
        0.0 if math.isinf(direction.memory) else direction.write_noise / math.sqrt(-math.expm1(-2 / direction.memory))
    )
    return math.hypot(direction.transient_noise, written)


member = Aihwkit()
