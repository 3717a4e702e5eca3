"""Verilog-A: the population's I-V law as a module."""

import re

import xarray as xr

from calib.exporters import _circuit_text as circuit
from calib.exporters._draws import Choice, drawn
from calib.exporters._expressions import VOLTAGE, Dialect, Step, number, substitute, with_finite_slope
from calib.exporters._population import (
    CONDUCTANCE,
    LAW,
    Population,
    identifier,
    population,
    typical_conductances,
)
from calib.exporters.base import Exporter
from calib.iv_models import IVModel

_DIALECT = Dialect({"log": "ln"})  # log is the decimal logarithm in Verilog-A
_TITLE = "Verilog-A module of a memristive device, by calib"


class VerilogA(Exporter):
    """One module, `calib_NAME(p, n)`, with the conductance and normal deviates as parameters."""

    name = "verilog-a"
    suffix = ".va"
    carries = "I-V law with its population: any conductance, deviates of devices, programming spread"

    def omits(self, device_model: xr.DataTree) -> list[str]:
        return circuit.omissions(device_model)

    def contents(self, device_model: xr.DataTree) -> dict[str, str]:
        if typical_conductances(device_model):
            text = module(device_model)
        else:
            text = _text(circuit.nothing(device_model, _TITLE), [])
        return {self.file_name(device_model): text}


def module(
    device_model: xr.DataTree, conductance: float | None = None, *, state: str | None = None, seed: int | None = None,
    samples: int = 1, spread: bool = True, stuck: bool = True,
) -> str:  # fmt: skip
    """Return Verilog-A modules of a device model.

    Without a seed it is `calib_NAME(p, n)`, the population with the parameters G [S] and z1, z2 ... (normal deviates of
    the law's parameters), and where the model has it `spread` and `zr` (programming spread); G's default is
    `conductance`, or the median of `state`. With a seed it is `calib_NAME_1` to `calib_NAME_N`, one drawn device each,
    whose parameters are those of the conduction law.

    The variable `i_law` [A] is that through the law; it carries the attribute `retrieve`, by which VerilogAE finds
    it, and other tools ignore. Options, accuracy and errors are those of `calib.exporters.spice.subcircuit`.
    """
    found = population(device_model)
    choice = Choice(conductance, state, seed, samples, spread, stuck)
    choice.check(found)
    name = identifier(device_model)
    head = [*circuit.header(device_model, _TITLE), *circuit.about(device_model, found)]
    left_out = [f"left out: {sentence}" for sentence in circuit.omissions(device_model)]
    if seed is None:
        return _text([*head, *left_out], _general(found, name, choice.default(found)))
    devices = drawn(device_model, found, choice)
    body = []
    for k, (g, dead, parameters) in enumerate(devices, 1):
        body += [f"// G = {g:.9g} S{', stuck' if dead else ''}", *_drawn(found.law, f"{name}_{k}", parameters)]
    return _text([*head, *left_out, *circuit.asked(choice, int(devices.stuck.sum()))], body)


def _general(found: Population, name: str, conductance: float) -> list[str]:
    """Return the module of the population."""
    first = found.inputs[0]
    declared = _parameter(CONDUCTANCE, conductance, first.unit, first.meaning, " from (0:inf)")
    for given in found.inputs[1:]:
        declared += _parameter(given.name, given.default, given.unit, given.meaning)
    return _module(found.law, name, declared, found.steps)


def _drawn(law: IVModel, name: str, values: dict[str, float]) -> list[str]:
    """Return the module of one device, whose parameters are the law's own."""
    declared = []
    for parameter in law.parameters:
        declared += _parameter(LAW + parameter.name, values[parameter.name], parameter.unit, parameter.meaning)
    return _module(law, name, declared, ())


def _module(law: IVModel, name: str, declared: list[str], steps: tuple[Step, ...]) -> list[str]:
    node = "x" if law.series else "p"
    text = with_finite_slope(substitute(law.expression, {key: LAW + key for key in law.parameter_names}))
    current = re.sub(rf"\b{VOLTAGE}\b", "v_law", _DIALECT.formula(text))
    lines = [
        f"module {name}(p, n);",
        "  inout p, n;",
        f"  electrical p, n{', x' if law.series else ''};",
        *(f"  {line}" for line in declared),
        '  (* desc="current through the law", units="A", retrieve *)',
        "  real i_law;",
        "  real v_law" + "".join(f", {step.name}" for step in steps) + ";",
        "  analog begin",
        *(f"    {step.name} = {_DIALECT.formula(step.formula)};" for step in steps),
        f"    v_law = V({node}, n);",
        f"    i_law = {current};",
        f"    I({node}, n) <+ i_law;",
        *([f"    I(p, x) <+ V(p, x)/{LAW}{law.series};"] if law.series else []),
        "  end",
        "endmodule",
    ]
    written = [part for line in lines for part in ([line] if '"' in line else circuit.wrapped(line, "      "))]
    return [*written, ""]


def _parameter(name: str, value: float, unit: str, meaning: str, bounds: str = "") -> list[str]:
    """Return the lines of a parameter's declaration; a text is never broken."""
    about = circuit.comment(meaning).replace('"', "'")
    return [f'(* desc="{about}", units="{unit}" *)', f"parameter real {name} = {number(value)}{bounds};"]


def _text(head: list[str], body: list[str]) -> str:
    start = ['`include "disciplines.vams"', ""] if body else []
    return "\n".join([*circuit.commented(head, "//"), "", *start, *body]).rstrip("\n") + "\n"


member = VerilogA()
