"""A programmed crossbar as a SPICE netlist: devices, lines with resistance, drivers and virtual grounds.

Nodes: `inI` is the source of word line I, `wI_J` and `bI_J` are the word line's and the bit line's side of the device
in row I and column J, `outJ` is the end of bit line J on virtual ground. Where a resistance of
`calib.crossbar.line_resistance.Lines` is zero, the nodes that it would join are one node. The currents are those of the
sources `VoutJ`, positive out of the array.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from calib import files
from calib.errors import OptionError
from calib.exporters import _circuit_text as circuit
from calib.exporters._draws import Devices, programmed
from calib.exporters._expressions import number
from calib.exporters._population import Population, identifier, population
from calib.exporters.spice import Syntax, dialect, instance, law_subcircuit

if TYPE_CHECKING:
    from calib.crossbar.line_resistance import Lines

_OPTIONS = ".options reltol=1e-9 abstol=1e-18 vntol=1e-12 gmin=1e-18 itl1=1000"
"""The simulators' own tolerances, 1e-3 of a current and 1e-12 A, are coarse for devices of nanosiemens."""


def write_crossbar(
    path: str | Path,
    conductance: np.ndarray,
    device_model: xr.DataTree,
    lines: "Lines | None" = None,
    *,
    voltages: Sequence[float] | np.ndarray | None = None,
    seed: int | None = None,
    spread: bool = True,
    stuck: bool = True,
    parameters: Mapping[str, np.ndarray] | None = None,
    syntax: Syntax = "ngspice",
) -> Path:
    """Write the netlist of a programmed crossbar, line by line, atomically, and return its path.

    Parameters
    ----------
    path : of the netlist; `ngspice -b PATH` prints the currents of the bit lines.
    conductance : (word_line, bit_line) [S], what the devices are programmed to.
    device_model : gives the I-V law, and to a drawn chip the spread of devices and of programming, and stuck devices.
    lines : resistances of the lines; none if not given.
    voltages : (word_line,) [V] of the inputs; without them each is a parameter `vinI` of the netlist, at first 0.
    seed : of a Monte-Carlo chip; without it every device is the typical one of exactly its conductance.
    spread, stuck : whether programming spreads the devices of a drawn chip, and whether some are stuck.
    parameters : of the law, each (word_line, bit_line), of devices that were drawn elsewhere; no seed then.
    syntax : 'ngspice' or 'ltspice'.

    Raises
    ------
    OptionError
        When an array has the wrong shape or values, or options exclude one another.
    ModelError
        When the model has neither an I-V law nor a conductance.
    CalibError
        When the file cannot be written.
    """
    found = population(device_model)
    target = _checked(conductance, voltages, seed, parameters, found)
    if parameters is not None:
        given = {name: np.broadcast_to(np.asarray(parameters[name], float), target.shape) for name in parameters}
        devices = Devices(target, np.zeros(target.shape, dtype=bool), given)
    else:
        generator = None if seed is None else np.random.default_rng(seed)
        devices = programmed(device_model, found, target, generator, spread, stuck)
    drawn = "devices given by their parameters" if parameters is not None else "every device typical of its conductance"
    if seed is not None:
        drawn = (
            f"Monte-Carlo chip of seed {seed}, programming spread {'on' if spread else 'off'}, stuck devices "
            f"{'on' if stuck else 'off'} ({int(devices.stuck.sum())} stuck)"
        )
    with files.atomic_write(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        for line in _netlist(device_model, found, devices, _Resistances(lines), voltages, drawn, syntax):
            file.write(line + "\n")
    return Path(path)


class _Resistances:
    """The resistances of lines [Ohm], and the names of nodes that follow from them."""

    def __init__(self, lines: "Lines | None") -> None:
        self.word = 0.0 if lines is None else lines.word_segment
        self.bit = 0.0 if lines is None else lines.bit_segment
        self.driver = 0.0 if lines is None else lines.driver
        self.sense = 0.0 if lines is None else lines.sense
        self.both_ends = lines is not None and lines.both_ends

    def word_node(self, row: int, column: int) -> str:
        if self.word:
            return f"w{row}_{column}"
        return f"w{row}" if self.driver else f"in{row}"

    def bit_node(self, row: int, column: int) -> str:
        if self.bit:
            return f"b{row}_{column}"
        return f"b{column}" if self.sense else f"out{column}"

    def word_line(self, row: int, columns: int) -> Iterator[str]:
        """The driver's resistors and the segments of one word line."""
        drive = self.driver + self.word
        if drive:
            yield f"Rdrive{row} in{row} {self.word_node(row, 0)} {number(drive)}"
            if self.both_ends:
                yield f"Rback{row} in{row} {self.word_node(row, columns - 1)} {number(drive)}"
        for j in range(1, columns) if self.word else ():
            yield f"Rw{row}_{j} {self.word_node(row, j - 1)} {self.word_node(row, j)} {number(self.word)}"

    def bit_segments(self, row: int, columns: int) -> Iterator[str]:
        """The segments of the bit lines that end at one word line."""
        for j in range(columns) if self.bit and row else ():
            yield f"Rb{row}_{j} {self.bit_node(row - 1, j)} {self.bit_node(row, j)} {number(self.bit)}"

    def bit_end(self, rows: int, column: int) -> Iterator[str]:
        """The last segment, the sense resistance and the virtual ground of one bit line."""
        if self.bit + self.sense:
            yield f"Rsense{column} {self.bit_node(rows - 1, column)} out{column} {number(self.bit + self.sense)}"
        yield f"Vout{column} out{column} 0 0"


def _netlist(
    tree: xr.DataTree, found: Population, devices: Devices, lines: _Resistances,
    voltages: Sequence[float] | np.ndarray | None, drawn: str, syntax: Syntax,
) -> Iterator[str]:  # fmt: skip
    rows, columns = devices.conductance.shape
    name = identifier(tree)
    simulator = {"ngspice": "ngspice", "ltspice": "LTspice"}
    yield from circuit.commented(_head(tree, found, (rows, columns), lines, drawn, simulator.get(syntax, syntax)), "*")
    yield from law_subcircuit(found, name, dialect(syntax))
    for i in range(rows):
        value = f"{{vin{i}}}" if voltages is None else number(voltages[i])
        if voltages is None:
            yield f".param vin{i}=0"
        yield f"Vin{i} in{i} 0 {value}"
    for i in range(rows):
        yield from lines.word_line(i, columns)
        yield from lines.bit_segments(i, columns)
        for j in range(columns):
            values = {key: float(column[i, j]) for key, column in devices.parameters.items()}
            nodes = f"{lines.word_node(i, j)} {lines.bit_node(i, j)}"
            yield from circuit.wrapped(instance(f"X{i}_{j}", nodes, name, values), "+ ")
    for j in range(columns):
        yield from lines.bit_end(rows, j)
    yield _OPTIONS
    if syntax == "ngspice":
        yield from (".control", "op", "set numdgt=15", *(f"print i(vout{j})" for j in range(columns)), ".endc")
    else:
        yield ".op"
    yield ".end"


def _head(
    tree: xr.DataTree, found: Population, shape: tuple[int, int], lines: _Resistances, drawn: str, simulator: str
) -> list[str]:
    return [
        *circuit.header(tree, f"SPICE netlist of a programmed crossbar, {simulator} syntax, by calib"),
        f"array: {shape[0]} word lines, {shape[1]} bit lines; {drawn}",
        f"lines [Ohm]: word segment {lines.word:g}, bit segment {lines.bit:g}, driver {lines.driver:g}, sense "
        f"{lines.sense:g}, word lines driven at {'both ends' if lines.both_ends else 'one end'}",
        "nodes: inI source of word line I; wI_J and bI_J sides of the device in row I, column J; outJ end of bit line "
        "J; the current of bit line J is I(VoutJ)",
        *circuit.about(tree, found),
        *(f"left out: {sentence}" for sentence in circuit.omissions(tree)),
    ]


def _checked(
    conductance: np.ndarray, voltages: Sequence[float] | np.ndarray | None, seed: int | None,
    parameters: Mapping[str, np.ndarray] | None, found: Population,
) -> np.ndarray:  # fmt: skip
    """Return the conductances, checked together with what belongs to them."""
    target = np.asarray(conductance, dtype=float)
    problems = []
    if target.ndim != 2 or not target.size:
        problems.append(f"the conductances have shape {target.shape}; expected (word_line, bit_line)")
    elif not (np.isfinite(target).all() and (target > 0).all()):
        bad = int((~(np.isfinite(target) & (target > 0))).sum())
        problems.append(f"{bad} of {target.size} conductances are not positive numbers; expected siemens")
    if voltages is not None and np.shape(voltages) != target.shape[:1]:
        problems.append(f"the voltages have shape {np.shape(voltages)}; expected {target.shape[:1]}, one a word line")
    if voltages is not None and not np.isfinite(np.asarray(voltages, dtype=float)).all():
        problems.append("some voltages are not finite")
    if seed is not None and seed < 0:
        problems.append(f"the seed is {seed}; expected 0 or more")
    if parameters is not None:
        if seed is not None:
            problems.append("both a seed and parameters are given; expected one of them")
        if set(parameters) != set(found.law.parameter_names):
            expected = ", ".join(found.law.parameter_names)
            problems.append(f"the parameters are {', '.join(parameters)}; expected those of the law: {expected}")
        problems += _parameter_problems(parameters, target.shape)
    if problems:
        raise OptionError("; ".join(problems))
    return target


def _parameter_problems(parameters: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> list[str]:
    problems = []
    for name, values in parameters.items():
        try:
            usable = np.isfinite(np.broadcast_to(np.asarray(values, dtype=float), shape)).all()
        except (TypeError, ValueError):
            problems.append(f"the parameter '{name}' has shape {np.shape(values)}; expected numbers, {shape}")
            continue
        if not usable:
            problems.append(f"some values of the parameter '{name}' are not finite")
    return problems
