"""Text files and workbooks as tables: the layout is detected from the cells, the numbers are parsed by pandas.

A table is a block of numbers under any number of header rows and preamble lines. Delimiter, decimal comma,
byte-order mark, line ends, comment prefixes, blank markers, trailing delimiters, and names separated by spaces over
data separated by tabs are detected.
"""

import gzip
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.errors import ReadError
from calib.size_limits import check_extent, check_lines, check_workbook, text_bytes
from calib.table_layout import (
    BLANKS,
    COMMENTS,
    Cell,
    cell_kinds,
    fitted,
    header_rows,
    locate,
    number,
    sniff_delimiter,
    split_line,
    text_of,
)

SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
_MOST_NAMES = 100  # cells of a line that are looked at to recognise a format
_SAMPLE = 3000  # lines from which the layout is found
_MAGIC = {
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"PK\x03\x04": "a zip archive or a workbook (.xlsx)",
    b"\xd0\xcf\x11\xe0": "an old Office document (.xls)",
    b"\x89HDF": "an HDF5 or netCDF-4 file",
    b"CDF": "a netCDF-3 file",
    b"\x7fELF": "a program",
    b"MATLAB 5.0": "a MATLAB .mat file",
}


@dataclass(frozen=True)
class Table:
    """Numbers of one sheet or text file with what stands above them.

    Attributes
    ----------
    name : sheet name, '' for a text file.
    preamble : rows of cells above the names (they may be as wide as the table).
    names : (column,) header texts, '' where none; empty when the table has no header.
    units : (column,) texts of a row of units under the names, or empty.
    values : (row, column), NaN for blanks and text.
    texts : by column index, (row,) the cells of the columns that hold text.
    layout : a sentence fragment that says how it was read.
    notes : what was found that is not plain data, with counts.
    """

    name: str
    preamble: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    units: tuple[str, ...]
    values: NDArray[np.float64]
    texts: Mapping[int, NDArray[np.str_]] = field(default_factory=dict)
    layout: str = ""
    notes: tuple[str, ...] = ()

    def first_row(self) -> str:
        """Return the first row of data as text, for messages."""
        cells = [str(self.texts[k][0]) if k in self.texts else f"{v:g}" for k, v in enumerate(self.values[0])]
        return ", ".join(cells[:12]) + (", ..." if len(cells) > 12 else "")


def read_text(path: Path, skip: int = 0) -> Table:
    """Read a text file (plain or gzipped) as one table.

    Raises
    ------
    ReadError
        When the file is empty, binary, truncated, or holds no rows of numbers.
    """
    lines = read_lines(path, skip)
    sample = lines[:_SAMPLE]
    delimiter, decimal = sniff_delimiter(sample)
    grid = [split_line(line, delimiter) for line in sample]
    comments = [line.lstrip().startswith(COMMENTS) for line in sample]
    region = locate(grid, comments, decimal)
    if region is None:
        raise ReadError(
            f"'{path.name}' holds no rows of numbers in columns; its first line is '{_shown(lines)}'; "
            "expected columns such as voltage and current"
        )
    preamble, names, units = header_rows(grid[: region.first], comments, region.width)
    width = max(region.width, len(names))
    body = lines[region.first :]
    values, texts, notes = _parse_body(body, delimiter, decimal, width)
    layout = (
        f"text, {_spoken(delimiter)}{', decimal comma' if decimal == ',' else ''}, {_heading(names, units, preamble)}"
    )
    return _trimmed(Table("", preamble, names, units, values, texts, layout, notes))


def read_lines(path: Path, skip: int = 0) -> list[str]:
    """Return the lines of a text file (plain or gzipped, UTF-8, UTF-16 or Latin-1) after the first `skip`.

    Raises
    ------
    ReadError
        When the file is empty, binary or truncated.
    """
    lines = _decode(path, _bytes_of(path)).splitlines()[skip:]
    check_lines(path, lines)
    if not any(line.strip() for line in lines):
        raise ReadError(f"'{path.name}' is empty; expected rows of numbers")
    return lines


def read_head(path: Path, size: int = 65536) -> list[str]:
    """Return the complete lines among the first bytes of a text file; none for a file that is not plain text."""
    with open(path, "rb") as file:
        data = file.read(size)
    if kind_of_bytes(data) is not None or data.startswith(b"\x1f\x8b"):
        return []
    try:
        lines = _decode(path, data).splitlines()
    except ReadError:
        return []
    return lines[:-1] if len(data) == size and len(lines) > 1 else lines


def names_in_head(path: Path) -> list[list[str]]:
    """Return the cells of those of the first lines of a text file that hold words only, as they may be names."""
    lines = [re.split(r"[,;|\t]", line.lstrip("#%!/ ")) for line in read_head(path)[:300]]
    rows = [[cell.strip().strip('"') for cell in row[:_MOST_NAMES]] for row in lines]
    return [row for row in rows if len(row) > 1 and all(re.search("[A-Za-z]", cell) or not cell for cell in row)]


def read_workbook(path: Path, sheets: Sequence[str] | None = None) -> tuple[list[Table], list[str]]:
    """Read every sheet of a workbook that holds rows of numbers.

    Returns
    -------
    The tables, and the names of the sheets that hold none.
    """
    tables, empty = [], []
    for name, cells in read_cells(path, sheets).items():
        table = table_of(name, cells)
        if table is None:
            empty.append(name)
        else:
            tables.append(table)
    if not tables:
        raise ReadError(f"'{path.name}' holds no rows of numbers in its sheets {', '.join(empty)}")
    return tables, empty


def read_cells(path: Path, sheets: Sequence[str] | None = None) -> dict[str, list[list[Cell]]]:
    """Return the cells of the sheets of a workbook (all, or those given), by name.

    Raises
    ------
    ReadError
        When it is no workbook, is damaged, or lacks one of the sheets.
    """
    import python_calamine

    check_workbook(path)
    try:
        book = python_calamine.CalamineWorkbook.from_path(str(path))
        known = list(book.sheet_names)
        _check_sheets(path, sheets, known)
        grids: dict[str, list[list[Any]]] = {}
        for name in sheets or known:
            sheet = book.get_sheet_by_name(name)
            check_extent(path, name, sheet.total_height, sheet.total_width)
            grids[name] = sheet.to_python(skip_empty_area=False)
    except (python_calamine.CalamineError, OSError, ValueError, zlib.error) as error:
        raise ReadError(
            f"'{path.name}' cannot be read as a workbook ({error}); it may be truncated or no workbook; copy it again, "
            "or save the sheet as .csv"
        ) from error
    return {name: [[_workbook_cell(cell) for cell in row] for row in cells] for name, cells in grids.items()}


def table_of(name: str, rows: list[list[Cell]]) -> Table | None:
    """Return the table that a sheet's cells hold, None when they hold no rows of numbers."""
    comments = [bool(row) and isinstance(row[0], str) and row[0].lstrip().startswith("#") for row in rows]
    region = locate(rows, comments, ".")
    if region is None:
        return None
    preamble, names, units = header_rows(rows[: region.first], comments, region.width)
    body = [row for row in rows[region.first :] if any(cell_kinds(row, ".", False))]
    values, texts, notes = _from_rows(body, ".", max(region.width, len(names)))
    layout = f"sheet '{name}', {_heading(names, units, preamble)}"
    return _trimmed(Table(name, preamble, names, units, values, texts, layout, notes))


def looks_numeric(data: bytes) -> bool:
    """Say whether the beginning of a text file holds rows of numbers."""
    try:
        lines = _decode(Path(), data).splitlines()[:_SAMPLE]
    except ReadError:
        return False
    delimiter, decimal = sniff_delimiter(lines)
    comments = [line.lstrip().startswith(COMMENTS) for line in lines]
    return locate([split_line(line, delimiter) for line in lines], comments, decimal) is not None


def kind_of_bytes(data: bytes) -> str | None:
    """Say what a file is by its first bytes; None when it looks like text."""
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            return kind
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page (download the raw file instead)"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (run git lfs pull)"
    if head.startswith(b"{") and b'":' in head:
        return "a JSON file"
    return "a binary file" if b"\0" in data[:4096] else None


def _bytes_of(path: Path) -> bytes:
    try:
        data = text_bytes(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ReadError(f"'{path.name}' is a truncated or damaged gzip file ({error}); copy it again") from error
    except OSError as error:
        raise ReadError(f"'{path}' cannot be read: {error.strerror or error}") from error
    if not data.strip():
        raise ReadError(f"'{path.name}' is empty; expected rows of numbers")
    kind = kind_of_bytes(data)
    if kind:
        raise ReadError(
            f"'{path.name}' is {kind}, not a text table; give the file with its right suffix or export text"
        )
    return data


def _decode(path: Path, data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise ReadError(f"'{path.name}' is damaged UTF-16 text ({error}); export it as UTF-8") from error
        return data.decode("latin-1")


def _parse_body(
    body: Sequence[str], delimiter: str, decimal: str, width: int
) -> tuple[NDArray[np.float64], dict[int, NDArray[np.str_]], tuple[str, ...]]:
    import pandas as pd

    separator = r"\s+" if delimiter == " " else delimiter
    widest = max(width, max((line.count(delimiter) + 1 for line in body), default=0) if delimiter != " " else width)
    blanks = [blank for blank in BLANKS if blank] + [b.upper() for b in BLANKS if b] + ["NaN", "None", "Null"]
    try:
        frame = pd.read_csv(
            io.StringIO("\n".join(body)), sep=separator, decimal=decimal, header=None, names=range(widest),
            na_values=blanks, skipinitialspace=True, engine="c", skip_blank_lines=True, low_memory=False,
        )  # fmt: skip
    except (pd.errors.ParserError, ValueError):
        rows = [split_line(line, delimiter) for line in body if line.strip()]
        return _from_rows(rows, decimal, max(map(len, rows)))
    return _from_frame(frame)


def _from_frame(frame: Any) -> tuple[NDArray[np.float64], dict[int, NDArray[np.str_]], tuple[str, ...]]:
    """Return numbers and texts of a parsed table; a column with more words than numbers is text."""
    import pandas as pd

    columns: list[Any] = [frame[index] for index in frame.columns]
    wordy = [index for index, column in enumerate(columns) if column.dtype.kind not in "fiub"]
    numbers: list[NDArray[np.float64]] = [
        np.asarray(pd.to_numeric(column, errors="coerce") if index in wordy else column, dtype=np.float64)
        for index, column in enumerate(columns)
    ]
    values = np.column_stack(numbers)
    texts = {index: columns[index].fillna("").astype(str).str.strip().to_numpy(dtype=str) for index in wordy}
    return _sorted_out(values, texts)


def _from_rows(
    rows: Sequence[Sequence[Cell]], decimal: str, width: int
) -> tuple[NDArray[np.float64], dict[int, NDArray[np.str_]], tuple[str, ...]]:
    values = np.full((len(rows), width), np.nan)
    texts: dict[int, NDArray[np.str_]] = {}
    for column in range(width):
        cells = [row[column] if column < len(row) else "" for row in rows]
        parsed = [number(cell, decimal) for cell in cells]
        values[:, column] = [np.nan if value is None else value for value in parsed]
        if any(value is None for value in parsed):
            texts[column] = np.array([text_of(cell).strip().strip('"') for cell in cells])
    return _sorted_out(values, texts)


def _sorted_out(
    values: NDArray[np.float64], texts: dict[int, NDArray[np.str_]]
) -> tuple[NDArray[np.float64], dict[int, NDArray[np.str_]], tuple[str, ...]]:
    """Leave out rows of words only, and divide columns with words into text and numbers with stray words."""
    if not texts:
        return values, {}, ()
    notes = []
    words = {c: ~np.isfinite(values[:, c]) & ~np.isin(np.char.lower(text), list(BLANKS)) for c, text in texts.items()}
    wordy = np.any(list(words.values()), axis=0) & ~np.isfinite(values).any(axis=1)
    if 0 < wordy.sum() < len(values):
        row = int(np.argmax(wordy))
        shown = ", ".join(str(text[row]) for c, text in texts.items() if words[c][row])[:40]
        notes.append(f"{int(wordy.sum())} rows hold words only (the first is '{shown}') and are left out")
        values = values[~wordy]
        texts = {c: text[~wordy] for c, text in texts.items()}
        words = {c: mask[~wordy] for c, mask in words.items()}
    strays = {c: mask for c, mask in words.items() if mask.sum() <= np.isfinite(values[:, c]).sum()}
    strays = {c: mask for c, mask in strays.items() if mask.any()}
    if strays:
        listed = ", ".join(map(str, list(strays)[:8])) + (", ..." if len(strays) > 8 else "")
        column, mask = next(iter(strays.items()))
        notes.append(
            f"{sum(int(m.sum()) for m in strays.values())} cells of column{'s' * (len(strays) > 1)} {listed} are no "
            f"numbers (the first is '{texts[column][mask][0]}') and count as blank"
        )
    kept = {c: text for c, text in texts.items() if words[c].sum() > np.isfinite(values[:, c]).sum()}
    return values, kept, tuple(notes)


def _trimmed(table: Table) -> Table:
    """Leave out columns at the right end that have neither a name nor a value (trailing delimiters)."""
    width = table.values.shape[1]
    while width > 1 and not np.isfinite(table.values[:, width - 1]).any() and width - 1 not in table.texts:
        if width <= len(table.names) and table.names[width - 1]:
            break
        width -= 1
    names = table.names[:width] if any(table.names) else ()
    units = table.units[:width]
    if names:
        names = fitted(names, width)
    return Table(
        table.name, table.preamble, names, units, table.values[:, :width],
        {k: v for k, v in table.texts.items() if k < width}, table.layout, table.notes,
    )  # fmt: skip


def _workbook_cell(cell: object) -> Cell:
    if isinstance(cell, bool):
        return str(cell)
    return float(cell) if isinstance(cell, int | float) else str(cell)


def _check_sheets(path: Path, wanted: Sequence[str] | None, known: Sequence[str]) -> None:
    missing = [name for name in wanted or () if name not in known]
    if missing:
        raise ReadError(f"'{path.name}' has no sheet '{missing[0]}'; give --sheet one of {', '.join(known)}")


def _shown(lines: Sequence[str]) -> str:
    line = next(line for line in lines if line.strip()).strip()
    return line if len(line) <= 60 else line[:57] + "..."


def _spoken(delimiter: str) -> str:
    names = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars", " ": "spaces"}
    return f"separated by {names[delimiter]}"


def _heading(names: Sequence[str], units: Sequence[str], preamble: Sequence[object]) -> str:
    if not any(names):
        return "no header"
    rows = f"{len(preamble)} lines above the names" if preamble else "names in the first row"
    return rows + (", a row of units" if units else "")
