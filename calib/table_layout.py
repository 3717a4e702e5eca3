"""The layout of a grid of cells: delimiter, where the data begin, names, units and preamble."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Cell = str | float

BLANKS = frozenset({"", "-", "--", "---", "nan", "na", "n/a", "#n/a", "none", "null", "#num!", "#div/0!", "#value!"})
"""Cells, in lower case, that stand for no value."""

COMMENTS = ("#", "%", "//", "!")
_LONE_COMMA = 0.5
_LAST = 5  # last rows with numbers, which are data
_DELIMITERS = ("\t", ";", ",", "|", " ")


@dataclass(frozen=True)
class Region:
    """Where the data of a grid of cells begin and which of its columns are numeric."""

    first: int
    width: int
    numeric: tuple[bool, ...]


def number(cell: Cell, decimal: str = ".") -> float | None:
    """Return a cell as a number, NaN when it is blank, None when it is text."""
    if not isinstance(cell, str):
        return cell
    text = cell.strip().strip('"')
    if text.lower() in BLANKS:
        return np.nan
    if decimal == ",":
        text = text.replace(",", ".")
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def text_of(cell: Cell) -> str:
    """Return a cell as text, '' for NaN."""
    if isinstance(cell, str):
        return cell
    return "" if cell != cell else f"{cell:.15g}"


def split_line(line: str, delimiter: str) -> list[Cell]:
    """Split a line of text into cells; quoted cells may hold the delimiter."""
    if delimiter == " ":
        return list(line.split())
    if '"' in line:
        import csv

        try:
            return list(next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), []))
        except csv.Error:  # a quote that never ends
            return [cell.strip() for cell in line.split(delimiter)]
    return [cell.strip() for cell in line.split(delimiter)]


def sniff_delimiter(lines: Sequence[str]) -> tuple[str, str]:
    """Return the delimiter and the decimal sign under which the last lines hold most numbers in equal rows."""
    body = [line for line in lines if line.strip() and not line.lstrip().startswith(COMMENTS)]
    tail = body[-200:]
    best, chosen = (0.0, 0), (",", ".")
    for delimiter in _DELIMITERS:
        rows = [split_line(line, delimiter) for line in tail]
        if not rows:
            break
        width, count = Counter(map(len, rows)).most_common(1)[0]
        same = [row for row in rows if len(row) == width]
        for decimal in ".,":
            if decimal == delimiter:
                continue
            kinds = [number(cell, decimal) for row in same for cell in row]
            share = sum(k is not None for k in kinds) / max(len(kinds), 1)
            if not any(k is not None and k == k for k in kinds):
                continue
            alone = _LONE_COMMA if width == 1 and decimal == "," else 1.0  # "1,5" is rather two columns than one number
            score = (round(alone * share * count / len(rows), 3), width)
            if score > best:
                best, chosen = score, (delimiter, decimal)
    return chosen


def locate(grid: Sequence[Sequence[Cell]], comments: Sequence[bool], decimal: str) -> Region | None:
    """Find the first run of rows whose numeric columns, as judged from the last rows, hold numbers only."""
    kinds = [cell_kinds(row, decimal, comment) for row, comment in zip(grid, comments, strict=True)]
    filled = [k for k in kinds if 1 in k]
    if not filled:
        return None
    width, numeric = _numeric(filled[-_LAST:])
    begin = len(filled) - min(_LAST, len(filled))
    while begin > 0 and not any(k == 2 and n for k, n in zip(filled[begin - 1], numeric, strict=False)):
        begin -= 1
    width, numeric = _numeric(filled[begin:])
    good = [
        any(k == 1 for k in row) and not any(k == 2 and n for k, n in zip(row, numeric, strict=False)) for row in kinds
    ]
    # a stray word does not end the data, and does not begin them
    passable = [not any(row) or any(k == 1 and n for k, n in zip(row, numeric, strict=False)) for row in kinds]
    needed = min(3, sum(good))
    run = start = 0
    for index, (is_good, is_passable) in enumerate(zip(good, passable, strict=True)):
        if is_good:
            start = start if run else index
            run += 1
        elif not is_passable:
            run = 0
        if run >= needed:
            return Region(start, width, numeric)
    last = max(index for index, is_good in enumerate(good) if is_good)
    return Region(last, width, numeric)


def _numeric(rows: Sequence[Sequence[int]]) -> tuple[int, tuple[bool, ...]]:
    """Return the width of rows of cell kinds and which of their columns hold more numbers than words."""
    width = max(max(j for j, kind in enumerate(row) if kind) + 1 for row in rows)
    counts = np.zeros((3, width), dtype=int)
    for row in rows:
        kinds = np.array(row[:width])
        counts[kinds, np.arange(len(kinds))] += 1
    return width, tuple((counts[1] > counts[2]).tolist())


def header_rows(
    above: Sequence[Sequence[Cell]], comments: Sequence[bool], width: int
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...], tuple[str, ...]]:
    """Divide the rows above the data into preamble, names and a row of units."""
    rows = [
        _uncommented(row) if comment else tuple(map(text_of, row))
        for row, comment in zip(above, comments, strict=False)
    ]
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return (), (), ()
    units: tuple[str, ...] = ()
    if len(rows) > 1 and _is_unit_row(rows[-1]) and len(rows[-2]) > 1:
        units = fitted(tuple(cell.strip().strip("()[]") for cell in rows.pop()), width)
    names = rows[-1]
    filled = [cell for cell in names if cell.strip()]
    words = " ".join(names).split()
    if len(filled) < width and len(words) == width:
        names = tuple(words)
    return tuple(rows[:-1]), fitted(tuple(name.strip().strip('"').strip() for name in names), width), units


def cell_kinds(row: Sequence[Cell], decimal: str, comment: bool) -> list[int]:
    """Return 0 for blank, 1 for a number and 2 for text, by cell."""
    if comment:
        return [2] * len(row)
    result = []
    for cell in row:
        value = number(cell, decimal)
        result.append(2 if value is None else 0 if value != value else 1)
    return result


def fitted(row: tuple[str, ...], width: int) -> tuple[str, ...]:
    """Return a row with at least `width` cells and no blank ones beyond."""
    while len(row) > width and not row[-1]:
        row = row[:-1]
    return row + ("",) * (width - len(row))


def _uncommented(row: Sequence[Cell]) -> tuple[str, ...]:
    cells = list(map(text_of, row))
    cells[0] = cells[0].lstrip().lstrip("#%!/").strip()
    return tuple(cells if cells[0] or len(cells) == 1 else cells[1:])


def _is_unit_row(row: Sequence[str]) -> bool:
    from calib.units import is_unit

    cells = [cell.strip().strip("()[]") for cell in row if cell.strip() and cell.strip().lower() not in BLANKS]
    return (
        bool(cells)
        and all(re.search("[A-Za-zΩ°]", cell) and is_unit(cell) for cell in cells)
        and not (
            {cell.upper() for cell in cells} <= {"V", "A", "T", "R", "G"}
            and all("(" not in cell for cell in row)
            and len(cells) < 2
        )
    )
