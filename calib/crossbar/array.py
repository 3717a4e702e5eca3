"""The array around the devices: its size, lines, drivers and converters.

A layer whose word or bit lines are more than an array has is split into tiles. Word lines are cut into blocks of at
most `rows`. The physical bit lines of one output (its groups, for example the positive and the negative line of a pair)
stand side by side: bit line j of group g is column j * groups + g. Columns are cut into blocks of at most `columns`
such that the groups of an output are never torn apart, because they are subtracted at the tile's edge; up to
groups - 1 columns of a tile therefore stay empty. The currents of the blocks of word lines are added as numbers after
the converters.

A tile that is not full holds its devices next to the ends of both lines that matter: in the last rows, beside the sense
amplifiers, and in the first columns, beside the drivers. Its other devices let no current through, so the tile behaves
as an array of the size that is used; a second driver of each word line, where there is one, is taken to be right after
the last column that is used.
"""

import difflib
import math
from collections.abc import Mapping as Options
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal, InvalidOperation
from typing import Any

import torch

from calib.crossbar.converters import Adc, Dac
from calib.crossbar.line_resistance import Lines
from calib.crossbar.mapping import Mapping
from calib.errors import OptionError

INPUT_MODES = ("two-phase", "voltage", "offset")
_LINES = tuple(f.name for f in fields(Lines))
OPTIONS = ("rows", "columns", *_LINES, "dac_bits", "adc_bits", "adc_range", "adc_mode", "input_mode")
"""Options of `Array.from_options`."""
_ADC_MODES = ("differential", "single-ended")
_EFFECTS = ("line resistance", "drivers", "DAC", "ADC")


@dataclass(frozen=True)
class Tile:
    """Devices of a layer that are in one array.

    Attributes
    ----------
    index : number of the tile; the blocks of word lines of one block of outputs follow one another.
    row_block, column_block : which block of word lines, which block of bit lines.
    rows : word lines of the layer.
    outputs : bit lines of each group of the layer.
    groups : physical bit lines of an output.
    first_row : row of the array that holds the first of these word lines; columns start at 0.
    shape : (rows, columns) of the array.
    """

    index: int
    row_block: int
    column_block: int
    rows: slice = field(hash=False)
    outputs: slice = field(hash=False)
    groups: int
    first_row: int
    shape: tuple[int, int]

    @property
    def used(self) -> tuple[int, int]:
        """Rows and columns that hold devices."""
        return self.rows.stop - self.rows.start, (self.outputs.stop - self.outputs.start) * self.groups

    def position(self, group: Any, word_line: Any, bit_line: Any) -> tuple[Any, Any]:
        """Return (row, column) in the array of devices, given as numbers or arrays, that are in the tile."""
        return self.first_row + word_line - self.rows.start, (bit_line - self.outputs.start) * self.groups + group

    def take(self, conductance: torch.Tensor) -> torch.Tensor:
        """Return the tile's devices (..., row, column) of a layer's (..., group, word_line, bit_line)."""
        part = conductance[..., self.rows, self.outputs]
        return part.movedim(-3, -1).flatten(-2)

    def split(self, currents: torch.Tensor) -> torch.Tensor:
        """Return currents (..., group, bit_line) of the tile's columns (..., column)."""
        return currents.unflatten(-1, (-1, self.groups)).transpose(-2, -1)


@dataclass(frozen=True)
class Array:
    """An array of given size with its lines and converters.

    Attributes
    ----------
    rows, columns : word lines and physical bit lines of a tile; None is without limit.
    lines : resistances.
    dac, adc : converters; None is ideal.
    input_mode : how inputs of both signs are applied: 'two-phase', the positive and the negative ones after one
        another; 'voltage', as voltages of both signs; 'offset', shifted to positive ones.
    """

    rows: int | None = None
    columns: int | None = None
    lines: Lines = field(default_factory=Lines)
    dac: Dac | None = None
    adc: Adc | None = None
    input_mode: str = "two-phase"

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not (isinstance(value, int) and value >= 1)):
                raise OptionError(f"an array has {value} {name}; expected a whole number from 1, or None for any size")
        if self.input_mode not in INPUT_MODES:
            raise OptionError(f"there is no input mode '{self.input_mode}'; expected one of {', '.join(INPUT_MODES)}")
        signed = self.input_mode == "voltage"
        if self.dac is not None and self.dac.signed != signed:
            object.__setattr__(self, "dac", replace(self.dac, signed=signed))
        if self.adc is not None and not self.adc.differential and self.adc.signed != signed:
            object.__setattr__(self, "adc", replace(self.adc, signed=signed))

    @property
    def effects(self) -> tuple[str, ...]:
        """What makes outputs differ from those of a matrix product: of 'line resistance', 'drivers', 'DAC', 'ADC'."""
        present = (
            bool(self.lines.word_segment or self.lines.bit_segment),
            bool(self.lines.driver or self.lines.sense),
            self.dac is not None and not self.dac.is_ideal,
            self.adc is not None and not self.adc.is_ideal,
        )
        return tuple(name for name, there in zip(_EFFECTS, present, strict=True) if there)

    @property
    def ideal(self) -> bool:
        """Whether outputs are those of a matrix product; the size of tiles alone changes nothing."""
        return not self.effects

    def without(self, *effects: str) -> "Array":
        """Return the same array without some of its `effects`; its size stays."""
        _check_effects(effects)
        lines = self.lines
        if "line resistance" in effects:
            lines = replace(lines, word_segment=0.0, bit_segment=0.0)
        if "drivers" in effects:
            lines = replace(lines, driver=0.0, sense=0.0)
        return replace(
            self,
            lines=lines,
            dac=None if "DAC" in effects else self.dac,
            adc=None if "ADC" in effects else self.adc,
        )

    def only(self, *effects: str) -> "Array":
        """Return the same array with none but some of its `effects`; its size stays."""
        _check_effects(effects)
        return self.without(*(e for e in _EFFECTS if e not in effects))

    def tiles(self, word_lines: int, bit_lines: int, groups: int = 2) -> list[Tile]:
        """Return the tiles of a layer.

        Parameters
        ----------
        word_lines : of the layer, with that of the bias.
        bit_lines : of each group, with the reference (`Mapping.bit_lines`).
        groups : physical bit lines of an output (`Mapping.groups`).

        Raises
        ------
        OptionError
            When a tile has fewer columns than the groups of one output.
        """
        if self.columns is not None and self.columns < groups:
            raise OptionError(
                f"an array of {self.columns} columns cannot hold the {groups} bit lines of one output side by side; "
                f"give at least {groups} columns, or a mapping with fewer bit lines"
            )
        row_blocks = _blocks(word_lines, self.rows)
        column_blocks = _blocks(bit_lines, None if self.columns is None else self.columns // groups)
        result = []
        for c, outputs in enumerate(column_blocks):
            for r, rows in enumerate(row_blocks):
                used = (rows.stop - rows.start, (outputs.stop - outputs.start) * groups)
                shape = (self.rows or used[0], self.columns or used[1])
                result.append(Tile(len(result), r, c, rows, outputs, groups, shape[0] - used[0], shape))
        return result

    def utilisation(self, word_lines: int, bit_lines: int, groups: int = 2) -> float:
        """Return the devices that are used as a fraction of the devices of all tiles."""
        tiles = self.tiles(word_lines, bit_lines, groups)
        return sum(math.prod(t.used) for t in tiles) / sum(math.prod(t.shape) for t in tiles)

    def read(
        self, currents: torch.Tensor, mapping: Mapping, full_scale: torch.Tensor | float | None = None
    ) -> torch.Tensor:
        """Return k_V k_G y (..., out) of the currents (..., group, bit_line) [A] of a tile's bit lines.

        Differential: difference, conversion, digital sum with the factors. Single-ended: conversion, then `combine`.

        Parameters
        ----------
        currents : of one block of word lines.
        mapping : of the layer.
        full_scale : [A] of the converter, broadcast against the currents or their differences.
        """
        if self.adc is None or self.adc.is_ideal:
            return mapping.combine(currents)
        if self.adc.differential:
            return mapping.add(self.adc.quantise(mapping.difference(currents), full_scale))
        return mapping.combine(self.adc.quantise(currents, full_scale))

    def converted(self, currents: torch.Tensor, mapping: Mapping) -> torch.Tensor:
        """Return the currents that the converter sees, to calibrate its range with, of (..., group, bit_line)."""
        differential = self.adc is not None and self.adc.differential
        return mapping.difference(currents) if differential else currents

    def describe(self) -> list[str]:
        """Return what the array is, one sentence a line."""
        rows, columns = (str(n) if n is not None else "any number of" for n in (self.rows, self.columns))
        limited = self.rows is not None or self.columns is not None
        result = [f"tiles of {rows} word lines and {columns} bit lines" if limited else "one array of any size"]
        lines = self.lines
        if lines.word_segment or lines.bit_segment:
            result.append(f"line segments of {lines.word_segment:g} Ohm (word) and {lines.bit_segment:g} Ohm (bit)")
        if lines.driver or lines.sense:
            result.append(f"drivers of {lines.driver:g} Ohm, sense resistance {lines.sense:g} Ohm")
        if lines.both_ends:
            result.append("word lines driven from both ends")
        if self.dac is not None and self.dac.bits is not None:
            result.append(f"inputs of {self.dac.bits} bits")
        if self.adc is not None and self.adc.bits is not None:
            result.append(_describe_adc(self.adc))
        result.append(f"signed inputs: {self.input_mode}")
        return result

    def to_options(self) -> dict[str, Any]:
        """Return the array as plain numbers and texts, from which `from_options` makes the same array."""
        result: dict[str, Any] = {"rows": self.rows, "columns": self.columns}
        result |= {name: getattr(self.lines, name) for name in _LINES}
        if self.dac is not None:
            result["dac_bits"] = self.dac.bits
        if self.adc is not None and not self.adc.is_ideal:
            share = f"{Decimal(repr(self.adc.quantile)) * 100:f}%"
            result["adc_bits"] = self.adc.bits
            result["adc_range"] = share if self.adc.full_scale is None else self.adc.full_scale
            result["adc_mode"] = _ADC_MODES[not self.adc.differential]
        result["input_mode"] = self.input_mode
        bare = Array().to_options() if self != Array() else {}
        return {k: v for k, v in result.items() if v is not None and (k not in bare or v != bare[k])}

    @classmethod
    def from_options(cls, given: "str | Options[str, Any] | Array | None") -> "Array":
        """Return the array that options state, as a text 'rows=128,columns=64,adc_bits=8' or as a mapping.

        The options are `OPTIONS`, in Ohm and A: the sizes and resistances by their names, dac_bits, adc_bits, adc_range
        (a current, 'array', 'calibrated', or the share of currents that it holds, for example 99.9%), adc_mode
        ('differential' or 'single-ended') and input_mode.

        Raises
        ------
        OptionError
            With everything that cannot be used.
        """
        if isinstance(given, Array):
            return given
        options = _read_text(given) if isinstance(given, str) else dict(given or {})
        options = {str(k).replace("-", "_"): v for k, v in options.items()}
        problems: list[str] = []
        values = {k: _value(k, v, problems) for k, v in options.items() if v is not None}
        if any(k.startswith("adc_") for k in values) and "adc_bits" not in values and "adc_bits" not in options:
            problems.append("adc_range and adc_mode are those of an ADC with a number of bits; give adc_bits too")
        if problems:
            raise OptionError("the array's options cannot be used: " + "; ".join(problems))
        return cls(
            rows=values.get("rows"),
            columns=values.get("columns"),
            lines=Lines(**{k: values[k] for k in _LINES if k in values}),
            dac=Dac(values["dac_bits"]) if "dac_bits" in values else None,
            adc=_adc(values) if "adc_bits" in values else None,
            input_mode=values.get("input_mode", "two-phase"),
        )


def _check_effects(effects: tuple[str, ...]) -> None:
    for effect in effects:
        if effect not in _EFFECTS:
            raise OptionError(f"an array has no effect '{effect}'; expected one of {', '.join(_EFFECTS)}")


def _adc(values: Options[str, Any]) -> Adc:
    scale, quantile = values.get("adc_range", (None, 1.0))
    differential = values.get("adc_mode", "differential") == "differential"
    return Adc(values["adc_bits"], scale, differential, quantile)


def _blocks(count: int, most: int | None) -> list[slice]:
    """Return slices of at most `most` that cover `count`."""
    size = count if most is None else most
    return [slice(start, min(start + size, count)) for start in range(0, count, max(size, 1))]


def _describe_adc(adc: Adc) -> str:
    kind = "after the subtraction of pairs" if adc.differential else "of every bit line"
    if adc.full_scale is None:
        span = "found from data" + (f", holding {100 * adc.quantile:g} % of the currents" if adc.quantile < 1 else "")
    else:
        span = "of the largest current of an array" if adc.full_scale == "array" else f"{adc.full_scale:g} A"
    return f"currents of {adc.bits} bits, converted {kind}, range {span}"


def _read_text(text: str) -> dict[str, str]:
    """Return the options of a text 'a=1,b=2'."""
    result: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        option, equals, value = (p.strip() for p in part.partition("="))
        if not (equals and option and value):
            raise OptionError(f"the array was given '{part}'; expected option=value, for example rows=128,columns=64")
        if option in result:
            raise OptionError(f"the array was given '{option}' twice; give it once")
        result[option] = value
    return result


def _value(option: str, value: Any, problems: list[str]) -> Any:
    """Return the value of an option; what is wrong with it is added to the problems."""
    text = str(value).strip()
    if option in ("rows", "columns", "dac_bits", "adc_bits"):
        expected, read = "a whole number", _whole
    elif option == "both_ends":
        expected, read = "true or false", _truth
    elif option in _LINES:
        expected, read = "a resistance in Ohm", float
    elif option == "adc_range":
        expected, read = "a current in A, array, calibrated or a share such as 99.9%", _range
    elif option == "adc_mode":
        expected, read = " or ".join(_ADC_MODES), {m: m for m in _ADC_MODES}.__getitem__
    elif option == "input_mode":
        expected, read = ", ".join(INPUT_MODES), {m: m for m in INPUT_MODES}.__getitem__
    else:
        close = difflib.get_close_matches(str(option), OPTIONS, 1)
        hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(OPTIONS)}"
        problems.append(f"there is no option '{option}'; {hint}")
        return None
    try:
        return read(text)
    except (ValueError, KeyError, OverflowError, InvalidOperation):
        problems.append(f"{option} is '{value}'; expected {expected}")
        return None


def _whole(text: str) -> int:
    number = float(text)
    if number != int(number):
        raise ValueError(text)
    return int(number)


def _truth(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


def _range(text: str) -> tuple[float | str | None, float]:
    """Return the full scale and the share of currents."""
    if text in ("calibrated", "array"):
        return (None if text == "calibrated" else text), 1.0
    if text.endswith("%"):
        return None, float(Decimal(text[:-1]) / 100)
    return float(text), 1.0
