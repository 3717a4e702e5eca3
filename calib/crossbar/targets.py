"""Conductances to program the devices of a real chip to, as a table, and the chip's currents back to outputs.

One line is one device: the tile, its row and column there, the word line of the layer that the row carries, the output
that the column belongs to (-1 is the reference of all outputs), the group, the digital factor of the column's current,
and the target [S]. What else a chip's outputs need is in the table's `attrs` and in the head of the file. With the
inputs x_i of a layer, the voltages of its word lines are

    V_i = k_V x_i / x_range,    V_bias = bias_voltage (the last word line, where there is one).

Every tile gets those of its rows, and its columns give the currents I_tc at virtual ground. With the factor f_c of a
column and the scale s = x_range / (k_V k_G), the outputs are

    y_o = s (sum over columns of output o of f_c I_tc + sum over columns of output -1 of f_c I_tc) + bias_o,

sums over all tiles t, with the digital bias where the layer has one. Inputs of both signs on a chip that takes one sign
only: apply the positive and the negative ones after one another, the bias with the positive ones, and subtract the
currents.
"""

import io
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from calib.crossbar.array import Array, Tile
from calib.crossbar.mapping import Mapping
from calib.errors import OptionError, ReadError
from calib.files import write_text

REFERENCE = -1
"""The `output` of columns that are subtracted from every output."""
_UNITS = {"conductance": "S", "level_conductance": "S"}
_WHOLE = ("tile", "row", "column", "word_line", "output", "group")
_TITLE = "# Target conductances of the devices of one layer, written by calib"
_FORMULA = """\
# A row carries the word line's voltage: V = input_voltage * x / input_range; the last word line is at bias_voltage
# if that is a number. Columns are read at virtual ground, I in A. Then, for output o,
# y_o = input_range / (input_voltage * k_g) * sum(factor * I), over the columns, of all tiles, with output = o or -1;
# plus bias[o] if the layer has a digital bias."""
_NEEDED = ("k_g", "input_voltage", "input_range", "bias_voltage", "bias", "word_lines", "outputs")
_KNOWN = ("layer", "mapping", *_NEEDED, "tiles", "tile_rows", "tile_columns")


def programming_targets(
    name: str,
    conductance: "torch.Tensor | ArrayLike",
    mapping: Mapping,
    array: Array,
    *,
    k_g: float,
    input_voltage: float,
    input_range: float = 1.0,
    bias_voltage: float | None = None,
    bias: "torch.Tensor | ArrayLike | None" = None,
    levels: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Return the target of every device of a layer, tile by tile, row by row.

    Parameters
    ----------
    name : of the layer.
    conductance : (group, word_line, bit_line) [S], of `Mapping.conductances`.
    mapping, array : of the layer.
    k_g : [S per unit of weight], of `Mapping.conductances`.
    input_voltage : k_V [V].
    input_range : the |x| that becomes k_V.
    bias_voltage : [V] of the last word line; None where all word lines carry inputs.
    bias : (out,) added as numbers; None where the bias is on a line or there is none.
    levels : conductances [S] that devices can be programmed to; adds the columns `level` and `level_conductance`, the
        level nearest to the target, the lower one of two.

    Returns
    -------
    A table with the columns tile, row, column, word_line, output, group, factor, conductance, and `attrs` layer,
    mapping, k_g, input_voltage, input_range, bias_voltage, bias, word_lines, outputs, tiles, tile_rows, tile_columns.

    Raises
    ------
    OptionError
        When the conductances do not have the mapping's shape or are not positive, or a number cannot be used.
    """
    g = _numbers(conductance)
    _check(name, g, mapping, k_g=k_g, input_voltage=input_voltage, input_range=input_range)
    _, word_lines, bit_lines = g.shape
    tiles = array.tiles(word_lines, bit_lines, mapping.groups)
    table = pd.concat([_devices_of(tile, g, mapping) for tile in tiles], ignore_index=True)
    if levels is not None:
        _quantise(table, levels)
    shape = tiles[0].shape
    table.attrs = {
        "layer": name, "mapping": mapping.text, "k_g": float(k_g), "input_voltage": float(input_voltage),
        "input_range": float(input_range), "bias_voltage": None if bias_voltage is None else float(bias_voltage),
        "bias": None if bias is None else _numbers(bias).tolist(), "word_lines": word_lines,
        "outputs": bit_lines - mapping.reference, "tiles": len(tiles), "tile_rows": shape[0], "tile_columns": shape[1],
    }  # fmt: skip
    return table


def write_targets(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as csv, with its `attrs` and what they mean in lines that start with #, atomically."""
    text = io.StringIO()
    text.write(f"{_TITLE}\n{_FORMULA}\n")
    for key, value in table.attrs.items():
        text.write(f"# {key} = {json.dumps(value)}\n")
    names = [f"{c} [{_UNITS[c]}]" if c in _UNITS else c for c in table.columns]
    table.to_csv(text, index=False, header=names, lineterminator="\n")
    write_text(path, text.getvalue())


def read_targets(path: str | Path) -> pd.DataFrame:
    """Read a table that `write_targets` has written.

    Raises
    ------
    ReadError
        When the file cannot be read or is none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            head = [line for line in iter(file.readline, "") if line.startswith("#")]
        table = pd.read_csv(path, comment="#", dtype=str, keep_default_na=False)
        pairs = [line[1:].strip().split(" = ", 1) for line in head]
        attrs: dict[Hashable, Any] = {
            pair[0]: json.loads(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in _KNOWN
        }
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ReadError(f"'{path}' cannot be read as a table of target conductances: {error}") from error
    table.columns = [c.removesuffix(" [S]") for c in table.columns]
    missing = [c for c in (*_WHOLE, "factor", "conductance") if c not in table.columns]
    missing += [key for key in _NEEDED if key not in attrs]
    if missing:
        raise ReadError(
            f"'{path}' is no table of target conductances: it lacks {', '.join(missing)}; expected a csv of calib"
        )
    try:
        table = table.astype({c: np.int64 if c in (*_WHOLE, "level") else np.float64 for c in table.columns})
    except (ValueError, OverflowError) as error:
        raise ReadError(f"'{path}' holds something that is no number: {error}; write the table again") from error
    table.attrs = attrs
    return table


def voltages(table: pd.DataFrame, inputs: ArrayLike) -> NDArray[np.float64]:
    """Return the voltages (..., word_line) [V] of inputs (..., in)."""
    a = table.attrs
    x = np.asarray(inputs, np.float64)
    expected = a["word_lines"] - (a["bias_voltage"] is not None)
    if x.shape[-1] != expected:
        raise OptionError(f"the layer '{a['layer']}' has {expected} inputs, and was given {x.shape[-1]}")
    v = x * a["input_voltage"] / a["input_range"]
    if a["bias_voltage"] is None:
        return v
    return np.concatenate((v, np.full((*v.shape[:-1], 1), a["bias_voltage"])), -1)


def bit_lines(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of all tiles that are read: tile, column, output and factor, one a line."""
    return table.loc[:, ["tile", "column", "output", "factor"]].drop_duplicates(ignore_index=True)


def outputs(table: pd.DataFrame, currents: ArrayLike) -> NDArray[np.float64]:
    """Return the outputs (..., out) of a chip's currents (..., line) [A], in the order of `bit_lines`.

    Raises
    ------
    OptionError
        When there are not as many currents as bit lines.
    """
    lines, a = bit_lines(table), table.attrs
    i = np.asarray(currents, np.float64)
    if i.shape[-1] != len(lines):
        raise OptionError(f"the layer '{a['layer']}' has {len(lines)} bit lines, and {i.shape[-1]} currents were given")
    weight = np.where(lines["output"].to_numpy()[:, None] == np.arange(a["outputs"]), 1.0, 0.0)
    weight[lines["output"] == REFERENCE] = 1.0
    weight *= lines["factor"].to_numpy()[:, None]
    y = i @ weight * (a["input_range"] / (a["input_voltage"] * a["k_g"]))
    return y if a["bias"] is None else y + np.asarray(a["bias"])


def _numbers(values: "torch.Tensor | ArrayLike") -> NDArray[np.float64]:
    given = values.detach().cpu().double().numpy() if isinstance(values, torch.Tensor) else values
    return np.asarray(given, np.float64)


def _devices_of(tile: Tile, g: NDArray[np.float64], mapping: Mapping) -> pd.DataFrame:
    """Return the lines of one tile."""
    row, column = (axis.ravel() for axis in np.indices(tile.used))
    word_line, group = row + tile.rows.start, column % mapping.groups
    bit_line = column // mapping.groups + tile.outputs.start
    place = tile.position(group, word_line, bit_line)
    reference = bit_line >= g.shape[-1] - mapping.reference
    factor = np.asarray(mapping.factors)[group]
    return pd.DataFrame(
        {
            "tile": tile.index,
            "row": place[0],
            "column": place[1],
            "word_line": word_line,
            "output": np.where(reference, REFERENCE, bit_line),
            "group": group,
            "factor": np.where(reference, -factor, factor),
            "conductance": g[group, word_line, bit_line],
        }
    )


def _check(name: str, g: NDArray[np.float64], mapping: Mapping, **numbers: float) -> None:
    problems: list[str] = []
    if g.ndim != 3 or g.shape[0] != mapping.groups or not g.size:
        problems.append(f"conductances have the shape {g.shape}; expected ({mapping.groups}, word_line, bit_line)")
    elif not (np.isfinite(g).all() and (g >= 0).all()):
        problems.append(f"conductances lie between {g.min():g} and {g.max():g} S; expected 0 or more, and finite")
    for key, value in numbers.items():
        if not (np.isfinite(value) and value > 0):
            problems.append(f"{key} is {value:g}; expected more than 0")
    if problems:
        raise OptionError(f"no targets for the layer '{name}': " + "; ".join(problems))


def _quantise(table: pd.DataFrame, levels: Sequence[float]) -> None:
    """Add the nearest level of every device."""
    known = np.unique(np.asarray(levels, np.float64))
    if not (known.size and np.isfinite(known).all() and known[0] >= 0):
        raise OptionError(f"levels {list(levels)} cannot be programmed; expected conductances in S, 0 or more")
    level = np.searchsorted((known[1:] + known[:-1]) / 2, table["conductance"].to_numpy())
    table["level"] = level
    table["level_conductance"] = known[level]
