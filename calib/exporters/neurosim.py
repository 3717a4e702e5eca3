"""NeuroSim: parameter blocks for MLP+NeuroSim 3.0 (Cell.cpp) and DNN+NeuroSim (Param.cpp and options of its programs).

NeuroSim's update is G(n) = B (1 - exp(-n / A)) + G_min with B = (G_max - G_min) / (1 - exp(-N / A)) and A = N A_n; the
label of nonlinearity names A_n in a table. calib's soft-bounds law f = (1 - exp(-k x)) / (1 - exp(-k)), x = n / N, is
the same curve with k = 1 / A_n; the label is its largest deviation from the straight line over 0.099
(`calib.exporters._pulse_response.normalised_a`). Depression is run backwards: its label is calib's with a minus.
"""

import math
from collections.abc import Iterable

import xarray as xr

from calib.exporters import _numbers
from calib.exporters._pulse_response import Direction, directions, normalised_a, spread
from calib.exporters._simulator import Simulator
from calib.exporters._text import one_line

LARGEST_LABEL = 9.0
"""The last row of NeuroSim's table."""
_FINER = {
    "programming": "programming spread that depends on R, and its lognormal form: NeuroSim has one normal spread",
    "retention": "the spread of drift and its dependence on G: NeuroSim has one drift coefficient",
    "read_noise": "read noise that depends on G: NeuroSim has one relative noise, that of the model at mid-range",
    "pulse": "laws of pulses other than soft bounds, noise that grows with the step, and how written noise fades",
}


class NeuroSim(Simulator):
    """Lines of C++ and of a command line."""

    name = "neurosim"
    suffix = ".neurosim.cpp"
    carries = "conductance range, nonlinearity labels, numbers of pulses, write and read noise, spreads, drift"

    carried = ("conductance", "pulse", "read_noise", "programming", "retention")
    finer = _FINER

    def more_omits(self, device_model: xr.DataTree) -> list[str]:
        sentences = []
        found = directions(device_model)
        if "pulse" in device_model.children and len(found) < 2:
            sentences.append("the nonlinearity: NeuroSim needs a law of pulses in both directions")
        if any(abs(direction.label) > LARGEST_LABEL for direction in found.values()):
            sentences.append(f"nonlinearity labels beyond {LARGEST_LABEL:g}, where NeuroSim's table ends")
        sentences.append("write voltages, pulse widths and the access transistor, which stay NeuroSim's defaults")
        return sentences

    def contents(self, device_model: xr.DataTree) -> dict[str, str]:
        head = _numbers.header(device_model)
        lines = [f"device model {head['identity']}", f"name: {head['name']}", f"citation: {head['citation']}"]
        lines += [f"leaves out: {sentence}" for sentence in self.omits(device_model)]
        blocks = [
            *map(comment, lines), "",
            *_block("MLP+NeuroSim 3.0: in Cell.cpp, RealDevice::RealDevice, for the lines of the same names.",
                    mlp(device_model)),
            "",
            *_block("DNN+NeuroSim: in Param.cpp, Param::Param, for the lines of the same names.", dnn(device_model)),
            "",
            comment("DNN+NeuroSim 2.1 (training), values in train.py, and 1.4 (inference), options:"),
            *(comment(f"{program}: {text}") for program, text in options(device_model).items() if text),
        ]  # fmt: skip
        return {self.file_name(device_model): "\n".join([*blocks, ""])}


def comment(text: str) -> str:
    """Return text as one comment line of C++: nothing in it ends the line or joins the next one to it."""
    line = one_line(text).replace("\\", "/").replace("??/", "? ?/")
    return f"// {line}" if line else ""


def _block(title: str, rows: Iterable[tuple[str, str, str]]) -> list[str]:
    rows = list(rows)
    if not rows:
        return [comment(title), comment("the model knows none of them")]
    return [comment(title), *(f"{name} = {value};\t{comment(meaning)}".rstrip() for name, value, meaning in rows)]


def mlp(tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of the parameters of RealDevice."""
    rows = []
    window = _numbers.conductance_range(tree)
    if window is not None:
        rows += [("maxConductance", _number(window.g_on), "[S]"), ("minConductance", _number(window.g_off), "[S]"),
                 ("avgMaxConductance", "maxConductance", "[S]"), ("avgMinConductance", "minConductance", "[S]"),
                 ("conductance", "minConductance", "[S]"), ("conductancePrev", "conductance", "[S]")]  # fmt: skip
    rows += _read_noise(tree)
    found = directions(tree)
    if len(found) < 2:
        return rows
    node = tree["pulse"].to_dataset()
    up, down = found["potentiation"], found["depression"]
    labels = {"LTP": label(up), "LTD": -label(down)}
    rows += [("nonlinearWrite", "true", "")]
    for name, direction in (("LTP", up), ("LTD", down)):
        a = normalised_a(labels[name])
        rows.append((f"maxNumLevel{name}", str(round(direction.pulses)), "pulses of a train"))
        rows.append((f"NL_{name}", _number(labels[name]), f"label of nonlinearity, normalised A {_number(a)}"))
    rows.append(("sigmaDtoD", _number(max(up.label_spread, down.label_spread)), "of the label, between devices"))
    rows.append((
        "sigmaCtoC", f"{_number(cycle_noise(up, down))} * (maxConductance - minConductance)", "of a pulse's change",
    ))  # fmt: skip
    if tree["pulse"].attrs.get("unit") == "S":
        sigmas = [spread(node, name) for name in ("g_max", "g_min")]
        rows += [("conductanceRangeVar", "true" if any(sigmas) else "false", ""),
                 ("maxConductanceVar", _number(sigmas[0]), "[S] between devices"),
                 ("minConductanceVar", _number(sigmas[1]), "[S] between devices")]  # fmt: skip
    return rows


def dnn(tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of the parameters of Param.cpp."""
    window = _numbers.conductance_range(tree)
    if window is None:
        return []
    rows = [("resistanceOn", _number(1 / window.g_on), "[ohm]"), ("resistanceOff", _number(1 / window.g_off), "[ohm]"),
            ("maxConductance", "(double) 1/resistanceOn", "[S]"),
            ("minConductance", "(double) 1/resistanceOff", "[S]")]  # fmt: skip
    for node in ("conductance", "iv"):
        if node in tree.children and "reference_voltage" in tree[node].attrs:
            voltage = abs(float(tree[node].attrs["reference_voltage"]))
            return [*rows, ("readVoltage", _number(voltage), "[V] that conductances were measured at")]
    return rows


def options(tree: xr.DataTree) -> dict[str, str]:
    """Return the options of DNN+NeuroSim's programs."""
    common = []
    window = _numbers.conductance_range(tree)
    if window is not None:
        common.append(f"--onoffratio {_number(window.g_on / window.g_off)}")
    inference = list(common)
    spread_of = _numbers.programming(tree)
    if spread_of is not None:
        inference.append(f"--vari {_number(max(spread_of.sigma))}")
    drift = _numbers.drift(tree)
    if drift is not None:
        inference.append(f"--v {_number(float(tree['retention'].to_dataset()['drift_exponent_mean']))} "
                         f"--t TIME/{_number(drift.reference_time)}s --detect 1 --target 0")  # fmt: skip
    found = directions(tree)
    if len(found) == 2:
        up, down = found["potentiation"], found["depression"]
        common += [
            f"--nonlinearityLTP {_number(label(up))} --nonlinearityLTD {_number(-label(down))}",
            f"--max_level {round((up.pulses + down.pulses) / 2)} --c2cVari {_number(cycle_noise(up, down))}",
            f"--d2dVari {_number(max(up.label_spread, down.label_spread))}",
        ]
    return {"training": " ".join(common), "inference": " ".join(inference)}


def label(direction: Direction) -> float:
    """Return NeuroSim's label of a direction, within its table; 0.01 where the response is linear."""
    size = min(max(abs(direction.label), 0.01), LARGEST_LABEL)
    return math.copysign(size, direction.label)


def cycle_noise(up: Direction, down: Direction) -> float:
    """Return the write noise of a pulse as a share of the conductance range."""
    shares = [direction.write_noise / abs(direction.end - direction.start) for direction in (up, down)]
    return math.hypot(*shares) / math.sqrt(2)


def _read_noise(tree: xr.DataTree) -> list[tuple[str, str, str]]:
    part, window = _numbers.read_noise(tree), _numbers.conductance_range(tree)
    if part is None:
        return []
    g = math.sqrt(window.g_off * window.g_on) if window is not None else part.reference_conductance
    relative = part.relative * (g / part.reference_conductance) ** part.exponent
    return [("readNoise", "true", ""),
            ("sigmaReadNoise", _number(relative), f"relative, at {_number(g)} S")]  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.{_numbers.DIGITS}g}"


member = NeuroSim()
