"""Hostile input: damaged files end in one clear error or in a Measurement that passes its check.

A few hundred mutants of every reader's good files by default, CALIB_MUTANTS of them when that is set (`make hostile`).
A process of its own reads them, with a time limit per file and a limit on its memory; a mutant is made from CALIB_SEED
and its number alone, so `python -m tests.hostile_worker SEED N N+1 FOLDER` reads it again.
"""

import gzip
import io
import json
import os
import select
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import calib
from calib import plugins, size_limits
from calib.errors import ReadError
from tests import hostile_worker

MUTANTS = int(os.environ.get("CALIB_MUTANTS", "1500"))
SEED = int(os.environ.get("CALIB_SEED", "20220501"))
PARTS = 4
STALLED = 90.0  # s without a line from the process


def run_part(start: int, stop: int, folder: Path) -> tuple[Counter, list[str]]:
    """Return counts of (reader, result) and what failed, of the mutants from `start` to `stop` - 1."""
    counts: Counter = Counter()
    failures: list[str] = []
    while start < stop:
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.hostile_worker", str(SEED), str(start), str(stop)]
        with (folder / "stderr").open("w+") as stderr:
            with subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE, stderr=stderr) as process:
                begun = _follow(process, counts, failures)
                if begun is not None:
                    process.kill()
            code = process.returncode
            stderr.seek(0)
            last = stderr.read()[-1500:]
        if begun is None and code == 0:
            return counts, failures
        if begun is None:
            raise AssertionError(f"the process of the mutants ended with {code}: {last}")
        counts["", "failure"] += 1
        failures.append(f"mutant {begun}: the process stalled or died ({code})\n{last}")
        start = begun + 1
    return counts, failures


def _follow(process: subprocess.Popen, counts: Counter, failures: list[str]) -> int | None:
    """Take the lines of a process; return the mutant at which it stopped, None when it came to its end."""
    assert process.stdout is not None
    begun: int | None = None
    buffer, limit = b"", time.monotonic() + 120
    while True:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, limit - time.monotonic()))
        piece = os.read(process.stdout.fileno(), 65536) if ready else b""
        if not piece:
            return begun
        limit = time.monotonic() + STALLED
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in map(json.loads, lines):
            if "begin" in line:
                begun = line["begin"]
                continue
            begun = None
            counts[line["reader"], line["result"]] += 1
            if line["result"] == "failure":
                failures.append(f"mutant {line['index']} of {line['reader']} {line['options']}: {line['why']}")


@pytest.mark.parametrize("part", range(PARTS))
def test_mutants_end_in_an_error_or_a_measurement(part, tmp_path, record_property) -> None:
    start, stop = MUTANTS * part // PARTS, MUTANTS * (part + 1) // PARTS
    counts, failures = run_part(start, stop, tmp_path)
    print(f"mutants {start} to {stop - 1}:", dict(sorted(Counter(k[1] for k in counts.elements()).items())))
    record_property("counts", str(counts))
    assert not failures, f"{len(failures)} of {stop - start} mutants failed\n" + "\n".join(failures[:10])
    assert sum(counts.values()) == stop - start


def test_every_reader_has_seeds() -> None:
    assert {reader for reader, _, _ in hostile_worker.seeds()} == set(plugins.names("calib.readers"))


def test_a_gzip_bomb(tmp_path) -> None:
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(size_limits.LARGEST_TEXT // (1 << 20) + 1):
            file.write(b"0" * (1 << 20))
    assert path.stat().st_size < 4e6
    with pytest.raises(ReadError, match="'bomb.csv.gz' holds more than 256 MB of text"):
        calib.read(path)


def workbook(path: Path, sheet: bytes) -> Path:
    """Write a workbook with one sheet of the given XML."""
    import openpyxl

    buffer = io.BytesIO()
    book = openpyxl.Workbook()
    book.save(buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, sheet if info.filename == "xl/worksheets/sheet1.xml" else old.read(info))
    return path


HEAD = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
TAIL = b"</sheetData></worksheet>"


def test_a_zip_bomb(tmp_path) -> None:
    path = workbook(tmp_path / "bomb.xlsx", HEAD + b" " * (300 << 20) + TAIL)
    assert path.stat().st_size < 4e6
    with pytest.raises(ReadError, match="'bomb.xlsx' unpacks to more than 256 MB"):
        calib.read(path)


def test_a_cell_at_the_far_corner(tmp_path) -> None:
    cells = b'<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    with pytest.raises(ReadError, match=r"span 17179869184 places, more than calib reads"):
        calib.read(workbook(tmp_path / "corner.xlsx", HEAD + cells + TAIL))


def test_repeated_cells_of_an_open_document(tmp_path) -> None:
    cell = '<table:table-cell table:number-columns-repeated="99" office:value="1"><text:p>1</text:p></table:table-cell>'
    with zipfile.ZipFile(tmp_path / "repeated.ods", "w") as archive:
        row = f'<table:table-row table:number-rows-repeated="999999">{cell}</table:table-row>'
        archive.writestr("content.xml", f"<office:document-content>{row}</office:document-content>")
    with pytest.raises(ReadError, match=r"'repeated.ods' span 98999901 places, more than calib reads"):
        calib.read(tmp_path / "repeated.ods")


@pytest.mark.parametrize("mark", ["", ",", "\t", " "])
def test_one_huge_line(tmp_path, mark) -> None:
    path = tmp_path / "line.csv"
    path.write_text("voltage,current\n1,2\n" + f"1.5{mark}" * 3_000_000)
    with pytest.raises(ReadError, match=r"line 3 of 'line.csv' has \d+ characters"):
        calib.read(path)


def test_formulas_and_links_are_values_only(tmp_path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.append(["voltage (V)", "current (A)", "where"])
    for k in range(6):
        book.active.append([k, 1e-6 * k, '=HYPERLINK("http://localhost/x","x")'])
    book.save(tmp_path / "links.xlsx")
    node = calib.read(tmp_path / "links.xlsx")["iv"]
    assert int(np.isfinite(node["voltage"].values).sum()) == 6
