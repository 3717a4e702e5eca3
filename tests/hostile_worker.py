"""Damaged files for every reader: each mutant is made from its seed alone, read, and its outcome printed as a line.

`python -m tests.hostile_worker SEED START STOP FOLDER` reads the mutants START to STOP-1; a mutant that kills or
stalls the process is found by whoever reads its lines (`tests/test_hostile.py`).
"""

import gzip
import io
import json
import re
import resource
import signal
import sys
import tempfile
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

SECONDS = 30  # for one file
MEMORY = 1 << 30  # bytes beyond what the process has when it starts
_NUMBERS = (
    b"nan", b"inf", b"-inf", b"1e308", b"-1e308", b"1e400", b"1e-400", b"99999999999999999999999", b"-1", b"0", b"",
    b"x", b"0x10", b"1_000", b"1,5", b"--", b"1e", b"\xb5", b"4294967297", b"-2147483649", b'"', b"=A1+1", b"\x00",
)  # fmt: skip

_COLUMNS = (
    "voltage=0,current=1", "device=0,resistance=1", "potentiation=0,depression=1", "time=0,conductance=-1",
    "device=0,target_low=1,target_high=2,conductance=3", "amplitude=0,conductance=1",
)  # fmt: skip


def seeds() -> list[tuple[str, str, bytes]]:
    """Return (reader, file name, content) of the good files of every reader's contract tests."""
    from tests.contracts import test_instrument_readers, test_readers
    from tests.contracts.reader_contract import ReaderContract

    assert test_readers
    assert test_instrument_readers
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for cls in sorted(ReaderContract.__subclasses__(), key=lambda cls: cls.__name__):
            inside = Path(folder) / cls.__name__
            inside.mkdir()
            path = cls().good_file(inside)
            found.append((cls.name, path.name, path.read_bytes()))
    return found


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(0, len(data) + 1)]


def bits_flipped(data: bytes, rng: np.random.Generator) -> bytes:
    array = np.frombuffer(data, dtype=np.uint8).copy()
    if len(array):
        span = int(rng.choice([64, 512, 4096, len(array)]))
        places = rng.integers(0, min(span, len(array)), int(rng.choice([1, 2, 8, 64])))
        array[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
    return array.tobytes()


def bytes_moved(data: bytes, rng: np.random.Generator) -> bytes:
    first, second = sorted(rng.integers(0, len(data) + 1, 2))
    block = data[first:second]
    place = int(rng.integers(0, len(data) + 1))
    kind = rng.integers(0, 4)
    if kind == 0:
        return data[:first] + data[second:]
    if kind == 1:
        return data[:place] + block + data[place:]
    if kind == 2:
        return data[:first] + bytes(int(rng.choice([0, 255])) for _ in range(0)) + bytes(len(block)) + data[second:]
    return data[:place] + rng.integers(0, 256, int(rng.integers(1, 200)), dtype=np.uint8).tobytes() + data[place:]


def lines_moved(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    head = min(len(lines), int(rng.choice([3, 12, len(lines)])))
    for _ in range(int(rng.integers(1, 6))):
        a, b = rng.integers(0, head), rng.integers(0, len(lines))
        kind = rng.integers(0, 4)
        if kind == 0:
            lines[a], lines[b] = lines[b], lines[a]
        elif kind == 1:
            lines.insert(int(b), lines[a])
        elif kind == 2 and len(lines) > 1:
            lines.pop(int(a))
            head = min(head, len(lines))
        else:
            lines = lines[:b] + lines[:head] + lines[b:]
    return b"".join(lines)


def cells_moved(data: bytes, rng: np.random.Generator) -> bytes:
    mark = rng.choice([b",", b"\t", b";", b" ", b"="])
    cells = data.split(bytes(mark))
    for _ in range(int(rng.integers(1, 8))):
        a, b = rng.integers(0, len(cells), 2)
        if rng.integers(0, 2):
            cells[a], cells[b] = cells[b], cells[a]
        else:
            cells[a : a + 1] = [] if len(cells) > 1 and rng.integers(0, 2) else [cells[a], b""]
    return bytes(rng.choice([mark, mark, b",", b"\t"])).join(cells)


def numbers_replaced(data: bytes, rng: np.random.Generator) -> bytes:
    places = list(re.finditer(rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?", data))
    early = places[: int(rng.choice([6, 40, len(places) or 1]))]
    for match in sorted((early[k] for k in set(rng.integers(0, max(len(early), 1), 4).tolist()) if early),
                        key=lambda m: -m.start()):  # fmt: skip
        data = data[: match.start()] + _NUMBERS[int(rng.integers(len(_NUMBERS)))] + data[match.end() :]
    return data


def words_replaced(data: bytes, rng: np.random.Generator) -> bytes:
    words = list(re.finditer(rb"[A-Za-z_]{2,}", data))
    if not words:
        return data
    match, other = (words[int(k)] for k in rng.integers(0, len(words), 2))
    new = [other[0], b"", b"Voltage", b"current (uA)", b"R", b"(kg)", b"I (V)", b"t (m)", b"V (%s)"][
        int(rng.integers(9))
    ]
    return data[: match.start()] + new + data[match.end() :]


def encoded_otherwise(data: bytes, rng: np.random.Generator) -> bytes:
    text = data.decode("latin-1") + str(rng.choice(["", "µΩ°", "日本", "\u2028"]))
    code = str(rng.choice(["utf-16", "utf-16-le", "utf-32", "cp1252", "utf-8-sig", "utf-7", "cp037"]))
    coded = text.encode(code, errors="replace")
    return coded[: len(coded) - int(rng.integers(0, 3))]


def one_huge_line(data: bytes, rng: np.random.Generator) -> bytes:
    joined = data.replace(b"\r", b"").replace(b"\n", bytes(rng.choice([b"", b",", b"\t", b" "])))
    repeats = int(rng.choice([1, 20, 200_000 // max(len(joined), 1) + 1]))
    return data[: int(rng.integers(0, len(data) + 1))] + joined * repeats


def packed(data: bytes, rng: np.random.Generator) -> bytes:
    coded = gzip.compress(data * int(rng.choice([1, 3])), mtime=0)
    return coded if rng.integers(0, 2) else bits_flipped(coded, rng)


def inside_the_archive(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage one member of a workbook and pack it again."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, KeyError, OSError):
        return bits_flipped(data, rng)
    names = sorted(members, key=lambda name: "sheet" not in name)
    chosen = names[int(rng.integers(0, min(len(names), 4)))] if rng.integers(0, 3) else str(rng.choice(names))
    change = (numbers_replaced, bits_flipped, truncated, words_replaced, bytes_moved, far_cells)[int(rng.integers(6))]
    members[chosen] = change(members[chosen], rng)
    if not rng.integers(0, 8):
        members.pop(str(rng.choice(names)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def far_cells(data: bytes, rng: np.random.Generator) -> bytes:
    places = [b"XFD1048576", b"ZZZ9", b"A99999999", b"A0", b"B1", b"A4294967297", b"AAAA1", b"1A", b""]
    return re.sub(
        rb'r="[A-Z]+\d+"', lambda m: b'r="' + places[int(rng.integers(9))] + b'"', data, count=int(rng.integers(1, 4))
    )


MUTATIONS: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    truncated, bits_flipped, bytes_moved, lines_moved, cells_moved, numbers_replaced, words_replaced,
    encoded_otherwise, one_huge_line, packed,
)  # fmt: skip


def mutant(index: int, seed: int, files: list[tuple[str, str, bytes]]) -> tuple[str, bytes, dict[str, object]]:
    """Return file name, content and reading options of a mutant."""
    rng = np.random.default_rng([seed, index])
    reader, name, data = files[index % len(files)]
    options: dict[str, object] = {}
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        archive = data.startswith(b"PK") and rng.integers(0, 3)
        change = inside_the_archive if archive else MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        data = change(data, rng)[: 1 << 22]
    if not rng.integers(0, 12):
        name = f"mutant{rng.choice(['.csv', '.xlsx', '.xls', '.mat', '.nc', '.txt', '.csv.gz', '.ods', '.xlsb', ''])}"
    if rng.integers(0, 2):
        options["reader"] = reader
    if not rng.integers(0, 6):
        options["columns"] = str(rng.choice(_COLUMNS))
    if not rng.integers(0, 10):
        options["pairs"] = str(rng.choice(["device", "cycle"]))
    return name, data, options


class _TooSlow(BaseException):
    pass


def _stop(*_: object) -> None:
    raise _TooSlow


def outcome(path: Path, options: dict[str, object]) -> dict[str, object]:
    """Read a file: 'error' for a CalibError of one line, 'measurement' for one that passes its check, or 'failure'."""
    import calib
    from calib.errors import CalibError
    from calib.measurement import check

    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        check(calib.read(path, **options))  # type: ignore[arg-type]
    except CalibError as error:
        if "\n" in str(error).strip():
            return {"result": "failure", "why": f"a message of several lines: {str(error)[:300]!r}"}
        return {"result": "error"}
    except (Exception, _TooSlow) as error:  # noqa: BLE001  every other exception is what this test looks for
        where = "".join(traceback.format_exception(error)[-3:])
        return {"result": "failure", "why": f"{type(error).__name__}: {str(error)[:200]}\n{where}"}
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return {"result": "failure", "why": f"{type(error).__name__}: {str(error)[:200]}"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"result": "measurement"}


def main(seed: int, start: int, stop: int, folder: Path) -> None:
    """Read mutants and print a line before and after each."""
    import calib

    warnings.simplefilter("ignore")
    files = seeds()
    path = folder / "warm.csv"
    path.write_text("voltage (V),current (A)\n" + "".join(f"{v},{v}\n" for v in range(9)))
    calib.read(path)
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, _stop)
    for index in range(start, stop):
        name, data, options = mutant(index, seed, files)
        path = folder / name
        path.write_bytes(data)
        print(json.dumps({"begin": index}), flush=True)
        found = outcome(path, options)
        print(
            json.dumps({"index": index, "reader": files[index % len(files)][0], "options": options, **found}),
            flush=True,
        )
        path.unlink()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
