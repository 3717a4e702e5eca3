"""From files to one checked Measurement: find the reader, read, merge, split into branches, flag."""

import glob
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calib import plugins
from calib.errors import OptionError, ReadError
from calib.files import sha256_of
from calib.measurement import Measurement, check, merge, notes_of
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.sweeps import SweepRules, split
from calib.units import to_si

Files = str | Path | Sequence[str | Path]
_RECOGNISED = 0.2  # confidence from which a file of a folder is taken for a measurement
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
        sniff = reader.sniff(path)
        found.append((sniff.confidence, name, sniff))
    confidence, name, sniff = max(found, key=lambda item: item[0])
    if confidence <= 0:
        reasons = "; ".join(dict.fromkeys(f"{name}: {sniff.reason}" for _, name, sniff in found))
        raise ReadError(
            f"no reader can read '{path.name}' ({reasons}); export it as text with columns of voltage and current"
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
    skip_rows: int = 0,
    reader: str | None = None,
    rules: SweepRules | None = None,
) -> Measurement:
    """Read measurement files into one Measurement.

    Parameters
    ----------
    files : a path, a folder, a pattern such as ``data/*.csv``, or several of these.
    columns : which column is what, for example ``{"voltage": 0, "current": "I1"}`` or ``"voltage=0,current=I1"``.
    units : units that the files do not state or state wrongly, for example ``"current=uA"``.
    sheet : name or names of the sheets of a workbook to read; all by default.
    pairs : 'device' or 'cycle': what repeated (V, I) column pairs or like sheets are.
    temperature : [K], or text with a unit such as ``"85 degC"``; replaces what the files state.
    skip_rows : lines at the beginning of text files that are ignored.
    reader : name of the reader to use.
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
        skip_rows=skip_rows,
        reader=reader,
    )
    paths, left_out = expand(files)
    tree = merge([_read_one(path, options) for path in paths])
    if left_out:
        node = next(iter(tree.children.values()))
        node.attrs["notes"] = json.dumps([*left_out, *notes_of(node)], ensure_ascii=False)
    tree = split(tree, rules or SweepRules())
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


def kelvin(given: float | str | None) -> float:
    """Return a temperature [K] given in kelvin or as text with a unit ('85 degC'); NaN for None.

    Raises
    ------
    OptionError
        When the text is no temperature.
    """
    if given is None:
        return np.nan
    match = re.fullmatch(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(\S.*)?", str(given))
    if match is None:
        raise OptionError(f"--temperature '{given}': expected kelvin, or a number with a unit such as '85 degC'")
    return float(to_si(float(match[1]), match[2].strip(), "temperature")) if match[2] else float(match[1])


def _inside(folder: Path) -> tuple[list[Path], str]:
    """Return the files of a folder that look like measurements, and the names of the others with the reason."""
    readers = plugins.load_all("calib.readers", _REQUIRED).values()
    taken, others = [], []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        sniffs = [reader.sniff(path) for reader in readers]
        best = max(sniffs, key=lambda sniff: sniff.confidence)
        if best.confidence >= _RECOGNISED:
            taken.append(path)
        else:
            others.append(f"{path.name} ({best.reason})")
    return taken, ", ".join(others)


def _read_one(path: Path, options: ReadOptions) -> Measurement:
    choice = find_reader(path, options)
    tree = choice.reader.read(path, options)
    sources = json.loads(tree.attrs["sources"])
    if not sources:
        source = {"name": path.name, "sha256": sha256_of(path), "reader": choice.reader.name, "why": choice.why}
        tree.attrs["sources"] = json.dumps([source], ensure_ascii=False)
    elif len(sources) == 1:
        sources[0]["why"] = f"{choice.why}; {sources[0]['why']}" if sources[0].get("why") else choice.why
        tree.attrs["sources"] = json.dumps(sources, ensure_ascii=False)
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
