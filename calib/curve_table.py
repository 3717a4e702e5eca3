"""The fit of every curve as a table: csv, or a workbook that also holds every estimate of the model."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import files
from calib.errors import ModelError

SUFFIXES = (".csv", ".xlsx")
Cell = str | int | float | None
"""What a table holds; None where a number is not known."""


def curve_rows(tree: xr.DataTree) -> list[list[Cell]]:
    """Return the per-curve fits of a device model, the header first.

    One row a curve: device, cycle, state, status ('ok' or a sentence), resistance_ohm with the standard error of ln R,
    every parameter with its standard error (the unit in the header), the relative residual, the offset and the number
    of points.

    Raises
    ------
    ModelError
        When the model has no per-curve fits.
    """
    if not has_curves(tree):
        name = tree.attrs.get("name", "")
        raise ModelError(f"the device model '{name}' holds no fits of single curves; fit it from I-V sweeps")
    node = tree["iv"].to_dataset()
    units = json.loads(node["curve_parameter"].attrs["units"])
    names = [str(name) for name in node["parameter"].values]
    header: list[Cell] = ["device", "cycle", "state", "status", "resistance_ohm", "ln_resistance_stderr"]
    for name in names:
        header += [f"{name}_{units[name]}", f"{name}_stderr"]
    rows = [[*header, "relative_rms", "offset_A", "points"]]
    resistance = np.exp(node["curve_ln_r"].values)
    parameters = np.stack([node["curve_parameter"].values, node["curve_parameter_stderr"].values], axis=2)
    for k in range(node.sizes["curve"]):
        rows.append([
            str(node["curve_device"].values[k]), int(node["curve_cycle"].values[k]),
            str(node["curve_state"].values[k]), str(node["curve_status"].values[k]),
            *_numbers(resistance[k], node["curve_ln_r_stderr"].values[k], *parameters[k].ravel(),
                      node["curve_rms"].values[k], node["curve_offset"].values[k]),
            int(node["curve_n_points"].values[k]),
        ])  # fmt: skip
    return rows


def estimate_rows(tree: xr.DataTree) -> list[list[Cell]]:
    """Return every number of a device model with its interval, the header first."""
    from calib.characteristics import estimates

    rows: list[list[Cell]] = [[
        "characteristic", "state", "quantity", "meaning", "value", "unit", "stderr", "low", "high", "interval", "n",
        "method", "validity",
    ]]  # fmt: skip
    for e in estimates(tree):
        value, stderr, low, high = _numbers(e.value, e.stderr, e.low, e.high)
        rows.append([
            e.characteristic, e.state, e.quantity, e.label, value, e.unit, stderr, low, high, e.interval, e.n, e.method,
            e.validity,
        ])  # fmt: skip
    return rows


def curve_table(tree: xr.DataTree) -> str:
    """Return the per-curve fits of a device model as csv; see `curve_rows`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in curve_rows(tree):
        writer.writerow(["" if cell is None else f"{cell:.8g}" if isinstance(cell, float) else cell for cell in row])
    return out.getvalue()


def write_table(tree: xr.DataTree, path: str | Path) -> None:
    """Write the per-curve fits of a device model as csv or xlsx, by the path's suffix, atomically.

    The workbook's sheets are curves, where the model has any (see `curve_rows`), and estimates (see `estimate_rows`);
    text stays text, so that no device name is taken for a formula.

    Raises
    ------
    ModelError
        When the model has no per-curve fits and the path ends in .csv.
    """
    table_writer(tree, path)(Path(path))


def table_writer(tree: xr.DataTree, path: str | Path) -> Callable[[Path], None]:
    """Return what writes the table of `write_table`; what the model cannot give is raised here, before any writing."""
    if Path(path).suffix == ".csv":
        text = curve_table(tree)
        return lambda place: files.write_text(place, text)
    sheets = {"estimates": estimate_rows(tree)}
    if has_curves(tree):
        sheets = {"curves": curve_rows(tree), **sheets}
    return lambda place: _save(_workbook(sheets), place)


def has_curves(tree: xr.DataTree) -> bool:
    """Say whether a device model holds the fits of single curves."""
    return "iv" in tree.children and "curve_status" in tree["iv"]


def _save(book: Any, path: Path) -> None:
    with files.atomic_write(path) as temporary:
        book.save(temporary)


def _workbook(sheets: dict[str, list[list[Cell]]]) -> Any:
    import openpyxl
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    from openpyxl.styles import Font

    book = openpyxl.Workbook(write_only=True)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        sheet.freeze_panes = "A2"
        for number, row in enumerate(rows):
            cells = []
            for value in row:
                cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("?", value) if isinstance(value, str) else value)
                if isinstance(value, str):
                    cell.data_type = "s"
                if number == 0:
                    cell.font = Font(bold=True)
                cells.append(cell)
            sheet.append(cells)
    return book


def _numbers(*values: float) -> list[Cell]:
    return [float(value) if np.isfinite(value) else None for value in values]
