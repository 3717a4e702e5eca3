"""SPICE: the population's I-V law as subcircuits, in ngspice's and LTspice's syntax."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np
import xarray as xr

from calib.errors import OptionError
from calib.exporters import _circuit_text as circuit
from calib.exporters._draws import Choice, Devices, drawn
from calib.exporters._expressions import VOLTAGE, Dialect, Step, hoisted, number, substitute, with_finite_slope
from calib.exporters._population import (
    CONDUCTANCE,
    LAW,
    Population,
    identifier,
    labels,
    population,
    typical_conductances,
)
from calib.exporters.base import Exporter, slug

Syntax = Literal["ngspice", "ltspice"]
_ASINH = "calib_asinh"
_ASINH_TEXT = (
    f".func {_ASINH}(x) {{max(sgn(abs(x) - 1e-4), 0)*asinh(x) + (1 - max(sgn(abs(x) - 1e-4), 0))*x*(1 - min(x*x, 1)/6"
    "*(1 - 0.45*min(x*x, 1)))}"
)
"""Whether LTspice's asinh keeps its digits where the argument is small is not documented; its series stands there."""
_DIALECTS = {
    "ngspice": Dialect({"log": "ln"}),
    "ltspice": Dialect({"log": "ln", "asinh": _ASINH}),
}
_TITLES = {"ngspice": "ngspice", "ltspice": "LTspice"}


class Spice(Exporter):
    """Two libraries of the same subcircuits, one for ngspice and one for LTspice.

    `calib_NAME p n` has the conductance and normal deviates as parameters, `calib_NAME_STATE p n` is the typical
    device of a state.
    """

    name = "spice"
    suffix = ".lib"
    carries = "I-V law with its population: any conductance, deviates of devices, programming spread"

    def omits(self, device_model: xr.DataTree) -> list[str]:
        return circuit.omissions(device_model)

    def contents(self, device_model: xr.DataTree) -> dict[str, str]:
        stem = slug(str(device_model.attrs.get("name", "")))
        return {f"{stem}.{syntax}{self.suffix}": _card(device_model, syntax) for syntax in _DIALECTS}


def subcircuit(
    device_model: xr.DataTree, conductance: float | None = None, *, state: str | None = None, seed: int | None = None,
    samples: int = 1, spread: bool = True, stuck: bool = True, syntax: Syntax = "ngspice",
) -> str:  # fmt: skip
    """Return a library of SPICE subcircuits of a device model.

    Without a seed it holds `calib_NAME p n`, the population with the parameters G [S] and z1, z2 ... (normal deviates
    of the law's parameters), and where the model has it `spread` and `zr` (programming spread); G's default is
    `conductance`, or the median of `state`. With a seed it holds `calib_NAME_1 p n` to `calib_NAME_N p n`, one drawn
    device each: programmed to `conductance`, or found in `state`.

    The text is the law as calib computes it, but for 1e-20 V that is added to |V| under a root, so that the slope is
    finite at 0 V: it changes a current by less than 1e-10 of itself for exponents up to 1 V^-1/2 at 0 V, and by less
    than rounding beyond 1 nV.

    Parameters
    ----------
    device_model : a device model.
    conductance : [S] at the reference voltage.
    state : one of the model's states, instead of a conductance.
    seed : of a Monte-Carlo sample; the same seed gives the same text.
    samples : how many devices are drawn.
    spread : whether programming spreads the devices that are drawn at `conductance`.
    stuck : whether drawn devices are stuck with the model's probability.
    syntax : 'ngspice' or 'ltspice'.

    Raises
    ------
    ModelError
        When the model has no law and no conductance.
    OptionError
        When an option cannot be used.
    """
    target = dialect(syntax)
    found = population(device_model)
    choice = Choice(conductance, state, seed, samples, spread, stuck)
    choice.check(found)
    name = identifier(device_model)
    head = _head(device_model, found, name, syntax)
    body = law_subcircuit(found, name, target)
    if seed is None:
        return _text(head, [*body, *_general(found, name, target, choice.default(found))])
    devices = drawn(device_model, found, choice)
    return _text([*head, *circuit.asked(choice, int(devices.stuck.sum()))], [*body, *_samples(found, name, devices)])


def dialect(syntax: str) -> Dialect:
    """Return how a simulator writes formulae.

    Raises
    ------
    OptionError
        When the simulator is not known.
    """
    if syntax not in _DIALECTS:
        raise OptionError(f"there is no SPICE syntax '{syntax}'; choose one of {', '.join(_DIALECTS)}")
    return _DIALECTS[syntax]


def law_subcircuit(found: Population, name: str, target: Dialect) -> list[str]:
    """Return the lines of `NAME_law p n`, whose parameters are those of the conduction law."""
    law = found.law
    middle = found.parameters(np.array(found.inputs[0].default))
    defaults = " ".join(f"{LAW}{key}={number(float(middle[key]))}" for key in law.parameter_names)
    text = with_finite_slope(substitute(law.expression, {key: LAW + key for key in law.parameter_names}))
    constants, text = hoisted(text, "const_")
    # In a B source a name stands in braces of its own: ngspice drops braces around more than a name.
    written = replace(target, name="{{{}}}").formula(text)
    node = "x" if law.series else "p"
    current = re.sub(rf"\b{VOLTAGE}\b", f"V({node},n)", written)
    lines = [f".subckt {name}_law p n params: {defaults}", *_functions(current), *_parameters(constants, target)]
    if law.series:
        lines.append(f"Rseries p x {{{LAW}{law.series}}}")
    return _lines([*lines, f"Blaw {node} n I={current}", f".ends {name}_law", ""])


def instance(name: str, nodes: str, model: str, parameters: dict[str, float]) -> str:
    """Return the statement of a device: an instance of `NAME_law` with numbers."""
    values = " ".join(f"{LAW}{key}={number(value)}" for key, value in parameters.items())
    return f"{name} {nodes} {model}_law {values}"


def _card(tree: xr.DataTree, syntax: str) -> str:
    if not typical_conductances(tree):
        return _text(circuit.nothing(tree, _title(syntax)), [])
    found, name, target = population(tree), identifier(tree), dialect(syntax)
    body = [*law_subcircuit(found, name, target), *_general(found, name, target, found.inputs[0].default)]
    return _text(_head(tree, found, name, syntax), [*body, *_states(found, name)])


def _title(syntax: str) -> str:
    return f"SPICE subcircuits of a memristive device, {_TITLES[syntax]} syntax, by calib"


def _head(tree: xr.DataTree, found: Population, name: str, syntax: str) -> list[str]:
    inputs = " ".join(f"{parameter.name}=0" for parameter in found.inputs[1:])
    return [
        *circuit.header(tree, _title(syntax)),
        *circuit.about(tree, found),
        f"use: X1 top bottom {name} G={found.typical[0][1]:.3g} {inputs}".rstrip(),
        "convergence: current and slope are finite at every voltage, 0 V included; an exponential law can overflow far "
        "beyond the range in which it is valid, so keep sources within it",
        *(f"left out: {sentence}" for sentence in circuit.omissions(tree)),
    ]


def _general(found: Population, name: str, target: Dialect, conductance: float) -> list[str]:
    """Return the subcircuit of the population, with the law's parameters computed from G and the deviates."""
    steps = _parameters(found.steps, target)
    inputs = [f"{CONDUCTANCE}={number(conductance)}", *(f"{p.name}={number(p.default)}" for p in found.inputs[1:])]
    values = " ".join(f"{LAW}{key}={{{LAW}{key}}}" for key in found.law.parameter_names)
    return _lines([
        f".subckt {name} p n params: {' '.join(inputs)}",
        *_functions(" ".join(steps)),
        *steps,
        f"Xlaw p n {name}_law {values}",
        f".ends {name}",
        "",
    ])  # fmt: skip


def _states(found: Population, name: str) -> list[str]:
    """Return the subcircuits of the typical device of each state."""
    inputs = found.inputs[1:]
    given = " ".join(f"{p.name}={number(p.default)}" for p in inputs)
    passed = " ".join(f"{p.name}={{{p.name}}}" for p in inputs)
    lines = []
    for label, (_, g) in zip(labels(found.typical), found.typical, strict=True):
        lines += [
            f".subckt {name}_{label} p n" + (f" params: {given}" if given else ""),
            f"Xdevice p n {name} {CONDUCTANCE}={number(g)} {passed}".rstrip(),
            f".ends {name}_{label}",
            "",
        ]
    return _lines(lines)


def _samples(found: Population, name: str, devices: Devices) -> list[str]:
    lines = []
    for k, (g, stuck, parameters) in enumerate(devices, 1):
        lines += [
            f"* G = {g:.9g} S{', stuck' if stuck else ''}",
            f".subckt {name}_{k} p n",
            instance("Xlaw", "p n", name, parameters),
            f".ends {name}_{k}",
        ]
    return _lines(lines)


def _parameters(steps: Iterable[Step], target: Dialect) -> list[str]:
    return [f".param {step.name}={{{target.formula(step.formula)}}}" for step in steps]


def _functions(text: str) -> list[str]:
    return [_ASINH_TEXT] if _ASINH in text else []


def _lines(statements: list[str]) -> list[str]:
    return [part for statement in statements for part in circuit.wrapped(statement, "+ ")]


def _text(head: list[str], body: list[str]) -> str:
    return "\n".join([*circuit.commented(head, "*"), "*", *body]) + "\n"


member = Spice()
