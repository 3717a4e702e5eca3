"""From files to one checked Measurement: find the reader, read, merge, split into branches, flag."""

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calib import plugins
from calib.columns import CANONICAL
from calib.errors import CalibError, OptionError, ReadError
from calib.file_names import apply, labels_in_names
from calib.files import sha256_of
from calib.measurement import Measurement, check, merge, notes_of
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import kelvin
from calib.sweeps import SweepRules, split
from calib.tables import kind_of_bytes, looks_numeric

Files = str | Path | Sequence[str | Path]
_RECOGNISED = 0.2  # confidence from which a file of a folder is taken for a measurement
_HEAD = 65536  # bytes of a file of a folder that are looked at for rows of numbers
_REQUIRED = ("suffixes", "name_map", "sniff", "read")


@dataclass(frozen=True)
class Choice:
    """The reader chosen for a file and why."""

    reader: Reader
    why: str


def find_reader(path: str | Path, options: ReadOptions | None = None) -> Choice:
    """Return the reader that is surest of a file.

    Raises
    ------
    ReadError
        When the file is missing, is empty, or no reader can read it.
    """
    path, options = Path(path), options or ReadOptions()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ReadError(f"'{path}' {what}; give the path of a measurement file")
    if path.stat().st_size == 0:
        raise ReadError(f"'{path.name}' is empty; expected rows of numbers")
    if options.reader is not None:
        return Choice(plugins.load("calib.readers", options.reader, _REQUIRED), "chosen with --reader")
    readers = plugins.load_all("calib.readers", _REQUIRED)
    found: list[tuple[float, str, Sniff]] = []
    for name, reader in readers.items():
        try:
            sniff = reader.sniff(path)
        except OSError as error:
            raise ReadError(f"'{path}' cannot be read: {error.strerror or error}") from error
        found.append((sniff.confidence, name, sniff))
    asked = set(options.columns) - set(CANONICAL)  # names that belong to one format tell which it is
    claiming = [(len(asked & set(readers[item[1]].name_map)), *item) for item in found if item[0] > 0]
    known, _, name, _ = max(claiming, key=lambda item: item[:2], default=(0, 0.0, "", None))
    if known:
        return Choice(readers[name], f"it reads the columns {', '.join(sorted(asked))} of --columns")
    confidence, name, sniff = max(found, key=lambda item: item[0])
    if confidence <= 0:
        with open(path, "rb") as file:
            kind = kind_of_bytes(file.read(4096)) or "text without rows of numbers"
        raise ReadError(
            f"no reader can read '{path.name}' (it looks like {kind}); export it as text with columns of voltage and "
            f"current, or choose one of the readers {', '.join(readers)} with --reader"
        )
    return Choice(readers[name], sniff.reason)


def read(
    files: Files,
    *,
    columns: Mapping[str, int | str] | str | None = None,
    units: Mapping[str, str] | str | None = None,
    sheet: str | Sequence[str] | None = None,
    pairs: str | None = None,
    temperature: float | str | None = None,
    series_resistance: float | None = None,
    skip_rows: int = 0,
    reader: str | None = None,
    pattern: str | None = None,
    no_flag: Sequence[str] | None = None,
    rules: SweepRules | None = None,
) -> Measurement:
    r"""Read measurement files into one Measurement.

    Parameters
    ----------
    files : a path, a folder, a pattern such as ``data/*.csv``, or several of these.
    columns : which column is what, for example ``{"voltage": 0, "current": "I1"}`` or ``"voltage=0,current=I1"``.
    units : units that the files do not state or state wrongly, for example ``"current=uA"``.
    sheet : name or names of the sheets of a workbook to read; all by default.
    pairs : 'device' or 'cycle': what repeated (V, I) column pairs or like sheets are.
    temperature : [K], or text with a unit such as ``"85 degC"``; replaces what the files state.
    series_resistance : [ohm] of the resistor in series with the device, where the files do not state it; turns the
        second channel of an oscilloscope into current.
    skip_rows : lines at the beginning of text files that are ignored.
    reader : name of the reader to use.
    pattern : regular expression that every file's name contains; its named groups device, cycle, level, row, column,
        die, wafer and temperature label what the file holds, for example ``r"K9_(?P<device>\d+_\d+)_"``.
    no_flag : names of the flags whose rules are switched off, for example ``["spike"]``.
    rules : numbers of the splitting and flagging rules; `calib.sweeps.SweepRules()` by default.

    Returns
    -------
    Measurement
        Checked; the sweeps of the node iv are monotonic branches with labels and flags.

    Raises
    ------
    ReadError, UnitError, OptionError
        With the file, what was found, what was expected and what to do.
    """
    options = ReadOptions(
        columns=_mapping("columns", columns),
        units=_mapping("units", units),
        sheets=None if sheet is None else (sheet,) if isinstance(sheet, str) else tuple(sheet),
        pairs=pairs,
        temperature=kelvin(temperature),
        series_resistance=np.nan if series_resistance is None else float(series_resistance),
        skip_rows=skip_rows,
        reader=reader,
        pattern=pattern,
    )
    tree = _read_all(files, options)
    rules = rules or SweepRules()
    switched_off = (no_flag,) if isinstance(no_flag, str) else tuple(no_flag or ())
    tree = split(tree, replace(rules, no_flags=(*rules.no_flags, *switched_off)))
    check(tree)
    return tree


def expand(files: Files) -> tuple[list[Path], list[str]]:
    """Return the files that paths, folders and patterns stand for, in order, each once.

    Of a folder, the files that a reader recognises are taken; a sentence names those that are left out.

    Raises
    ------
    ReadError
        When one of them stands for no file.
    """
    entries = [files] if isinstance(files, str | Path) else list(files)
    if not entries:
        raise ReadError("no files were given; give at least one measurement file")
    paths: dict[Path, None] = {}
    left_out: list[str] = []
    for entry in entries:
        path = Path(entry)
        if path.is_dir():
            inside, others = _inside(path)
            if not inside:
                raise ReadError(f"the folder '{path}' holds no measurement file{': ' + others if others else ''}")
            paths |= dict.fromkeys(inside)
            if others:
                left_out.append(f"left out in the folder '{path.name}': {others}")
        elif path.is_file():
            paths[path] = None
        else:
            matches = sorted(Path(match) for match in glob.glob(str(entry)))
            if not matches:
                raise ReadError(f"'{entry}' does not exist; give the path of a measurement file, a folder or a pattern")
            paths |= dict.fromkeys(match for match in matches if match.is_file())
    return list(paths), left_out


def _inside(folder: Path) -> tuple[list[Path], str]:
    """Return the files of a folder that look like measurements, and the names of the others with the reason."""
    readers = plugins.load_all("calib.readers", _REQUIRED).values()
    taken, others = [], []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        sniffs = [reader.sniff(path) for reader in readers]
        best = max(sniffs, key=lambda sniff: sniff.confidence)
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        wordy = kind_of_bytes(head) is None and not looks_numeric(head)  # a text that quotes the names of a format
        if best.confidence >= _RECOGNISED and not wordy:
            taken.append(path)
        else:
            others.append(f"{path.name} ({'text without rows of numbers' if wordy else best.reason})")
    return taken, ", ".join(others)


def _read_all(files: Files, options: ReadOptions) -> Measurement:
    """Read files, folders and patterns into one Measurement, its traces whole."""
    paths, left_out = expand(files)
    named = labels_in_names(paths, options.pattern) if options.pattern is not None else [{}] * len(paths)
    tree = merge([_read_one(path, options, labels) for path, labels in zip(paths, named, strict=True)])
    if left_out:
        node = next(iter(tree.children.values()))
        node.attrs["notes"] = json.dumps([*left_out, *notes_of(node)], ensure_ascii=False)
    return tree


def _read_one(path: Path, options: ReadOptions, labels: dict[str, Any]) -> Measurement:
    choice = find_reader(path, options)
    try:
        tree = _with_series_resistance(choice.reader.read(path, options), options.series_resistance)
    except (MemoryError, RecursionError, OSError) as error:
        reason = "it is larger than the memory" if isinstance(error, MemoryError) else str(error) or "it is damaged"
        raise ReadError(f"'{path.name}' cannot be read: {reason}; give a part of it, or copy it again") from error
    except CalibError as error:
        if str(error).isprintable():
            raise
        shown = "".join(letter if letter.isprintable() else " " for letter in str(error))  # cells may hold anything
        raise type(error)(shown) from error
    try:
        check(tree)
    except ReadError as error:
        raise ReadError(f"'{path.name}' cannot be used: {error}") from error
    sources = json.loads(tree.attrs["sources"])
    if not sources:
        source = {"name": path.name, "sha256": sha256_of(path), "reader": choice.reader.name, "why": choice.why}
        tree.attrs["sources"] = json.dumps([source], ensure_ascii=False)
    elif len(sources) == 1 and sources[0]["reader"] == choice.reader.name:
        sources[0]["why"] = f"{choice.why}; {sources[0]['why']}" if sources[0].get("why") else choice.why
        tree.attrs["sources"] = json.dumps(sources, ensure_ascii=False)
    return apply(tree, labels, path.name) if labels else tree


def _with_series_resistance(tree: Measurement, ohm: float) -> Measurement:
    """Set the coordinate series_resistance [ohm] of the sweeps for which the file states none."""
    if np.isfinite(ohm) and "iv" in tree.children:
        node = tree.children["iv"].to_dataset(inherit=False)
        stated = node.coords["series_resistance"]
        tree.children["iv"].dataset = node.assign_coords(series_resistance=stated.fillna(ohm))
    return tree


def _mapping(option: str, given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, str):
        return dict(given)
    result: dict[str, Any] = {}
    for part in given.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            example = "voltage=0,current=1" if option == "columns" else "current=uA"
            raise OptionError(f"--{option} '{given}': '{part}' is not NAME=VALUE; expected something like {example}")
        result[key.strip()] = value.strip()
    return result
