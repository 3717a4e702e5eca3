"""Sizes that files may have: a damaged or hostile file is refused before it fills the memory."""

import gzip
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from calib.errors import ReadError

LARGEST_TEXT = 1 << 28  # bytes of a text file, unpacked; ten million rows
LONGEST_LINE = 1 << 22  # characters
_LARGEST_WORKBOOK = 1 << 28  # bytes of its parts, unpacked
_MOST_CELLS = 5_000_000  # of a sheet, from A1 to its last cell
_MOST_COLUMNS = 20_000  # cells of one row of text
_PIECE = 1 << 20
_CELL = re.compile(rb'<(?:\w+:)?c\b[^>]*?\br="([A-Za-z]{1,4})(\d{1,9})"')
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")
_ODS_ROW = re.compile(rb"<table:table-row\b([^>]*)>(.*?)</table:table-row>", re.DOTALL)
_REPEATED = re.compile(rb'number-(?:rows|columns)-repeated="(\d{1,12})"')
_ROW = re.compile(rb'<(?:\w+:)?row\b[^>]*?\br="(\d{1,12})"')


def text_bytes(path: Path) -> bytes:
    """Return the bytes of a text file, unpacked when it is gzipped.

    Raises
    ------
    ReadError
        When they are more than calib reads.
    OSError, EOFError, zlib.error
        When the file is missing or damaged.
    """
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else open(path, "rb") as file:
        data = file.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise ReadError(
            f"'{path.name}' holds more than {LARGEST_TEXT >> 20} MB of text, which calib does not read; split it"
        )
    return data


def check_lines(path: Path, lines: Sequence[str]) -> None:
    """Refuse lines that are too long to be rows of a table."""
    longest = max(map(len, lines), default=0)
    if longest > LONGEST_LINE or (longest > _MOST_COLUMNS and max(map(_separators, lines)) > _MOST_COLUMNS):
        number = next(k for k, line in enumerate(lines, start=1) if len(line) == longest)
        raise ReadError(
            f"line {number} of '{path.name}' has {longest} characters; a row of a table has at most {_MOST_COLUMNS} "
            "cells; are its line ends missing?"
        )


def check_workbook(path: Path) -> None:
    """Refuse a zipped workbook that unpacks to more than calib reads, or whose cells lie too far apart.

    Raises
    ------
    ReadError
        With what was found.
    """
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            return
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            total = 0
            for info in archive.infolist():
                sheet = info.filename == "content.xml" or _SHEET.fullmatch(info.filename) is not None
                pieces: list[bytes] = []
                for piece in _unpacked(file, info):
                    total += len(piece)
                    if total > _LARGEST_WORKBOOK:
                        raise ReadError(
                            f"'{path.name}' unpacks to more than {_LARGEST_WORKBOOK >> 20} MB, which calib does not "
                            "read; save the sheet as .csv"
                        )
                    pieces += [piece] if sheet else []
                if sheet:
                    _check_extent(path, info.filename, b"".join(pieces))
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise ReadError(
            f"'{path.name}' cannot be read as a workbook ({error}); it may be truncated or no workbook; copy it again, "
            "or save the sheet as .csv"
        ) from error


def _unpacked(file: IO[bytes], info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the pieces of a member as its stream has them, whatever size the archive states."""
    file.seek(info.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    file.seek(info.header_offset + 30 + name + extra)
    if info.compress_type != zipfile.ZIP_DEFLATED:
        yield file.read(min(info.compress_size, _LARGEST_WORKBOOK + 1))
        return
    unpacker, left = zlib.decompressobj(-15), info.compress_size
    while left > 0 and not unpacker.eof:
        data = unpacker.unconsumed_tail or file.read(min(_PIECE, left))
        if not data:
            return
        left -= 0 if unpacker.unconsumed_tail else len(data)
        yield unpacker.decompress(data, _PIECE)
    while unpacker.unconsumed_tail and not unpacker.eof:
        yield unpacker.decompress(unpacker.unconsumed_tail, _PIECE)


def _check_extent(path: Path, name: str, xml: bytes) -> None:
    """Refuse a sheet whose last cell lies so far from its first place that the cells between fill the memory."""
    cells = [(_column(letters), int(row)) for letters, row in set(_CELL.findall(xml))]
    repeated = [
        max([1, *map(int, _REPEATED.findall(opening))]) * sum(map(int, _REPEATED.findall(row)))
        for opening, row in _ODS_ROW.findall(xml)
        if b"office:value" in row or b"<text:p" in row
    ]
    rows = [row for _, row in cells] + [int(row) for row in _ROW.findall(xml)]
    columns = [column for column, _ in cells]
    check_extent(path, name, max(rows, default=0), max(columns, default=1))
    check_extent(path, name, sum(repeated), 1)


def check_extent(path: Path, sheet: str, height: int, width: int) -> None:
    """Refuse a sheet of more cells than calib reads.

    Raises
    ------
    ReadError
        With their number.
    """
    spanned = height * width
    if spanned > _MOST_CELLS:
        raise ReadError(
            f"the cells of '{sheet}' in '{path.name}' span {spanned} places, more than calib reads ({_MOST_CELLS}); "
            "save the block of data as .csv"
        )


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = 26 * number + letter - 64
    return number


def _separators(line: str) -> int:
    return max(line.count(mark) for mark in "\t;,| ")
