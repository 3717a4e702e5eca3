"""Keysight Quick IV Measurement Software csv."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from calib.columns import NAME_MAP
from calib.errors import ReadError
from calib.files import stem_of
from calib.measurement import Measurement
from calib.readers._terminals import Run, Terminal, measurement_of
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import collect, in_name, one_temperature
from calib.tables import Table, read_head, read_text

_COLUMN = re.compile(r"\"?(\w+)\.(\w+)\s*\[(\d+)\]\s*\[(\d+)\]\"?")


class KeysightQuickIv(Reader):
    """One table: `Item,Smu1.Time[1][1],Smu1.V[1][1],Smu1.I[1][1],Smu1.R[1][1],`, the rows ending in a comma as well.

    Columns `Smu1.V[k][l]` of the same k and l are one sweep, in SI units; channels may be several and sweeps of a file
    stand side by side. The channel whose voltage is swept is the device; a channel that is held at a voltage is asked
    about. Resistances and further channels go to the node extra.
    """

    name = "keysight-quick-iv"
    suffixes = (".csv",)
    name_map: Mapping[str, str] = NAME_MAP

    def sniff(self, path: Path) -> Sniff:
        for line in read_head(path):
            if len(_COLUMN.findall(line)) >= 2:
                return Sniff(0.95, "columns named like Smu1.V[1][1]")
        return Sniff(0.0, "no columns named like Smu1.V[1][1]")

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        table = read_text(path, options.skip_rows)
        runs = _runs(path, table)
        kelvin, conflict = one_temperature([*collect(table.preamble).temperatures, *in_name(path.name, "file's name")])
        questions = []
        if conflict:
            questions.append(f"'{path.name}' states more than one temperature: {conflict}; give --temperature KELVIN")
        runs = [Run(run.columns, run.terminals, run.device, run.units, kelvin) for run in runs]
        notes = [f"'{path.name}': {note}" for note in table.notes]
        if len(runs) > 1:
            notes.append(f"'{path.name}': {len(runs)} sweeps, numbered [k][l] in its header, in their order")
        return measurement_of(path, runs, options, notes, questions)


def _runs(path: Path, table: Table) -> list[Run]:
    """Return one run for each [k][l] with the columns that bear it."""
    grouped: dict[tuple[int, int], dict[str, int]] = {}
    channels: dict[str, set[str]] = {}
    for index, name in enumerate(table.names):
        match = _COLUMN.fullmatch(name.strip())
        if match:
            grouped.setdefault((int(match[3]), int(match[4])), {})[f"{match[1]}.{match[2]}"] = index
            channels.setdefault(match[1], set()).add(match[2])
    if not grouped:
        raise ReadError(
            f"'{path.name}' has no columns named like Smu1.V[1][1]; its first names are "
            f"{', '.join(table.names[:6]) or 'missing'}; choose another reader with --reader"
        )
    device = stem_of(path)
    units = {"R": "ohm", "V": "V", "I": "A", "Time": "s"}
    runs = []
    for columns in grouped.values():
        values = {name: table.values[:, index] for name, index in columns.items()}
        filled = np.isfinite(np.column_stack(list(values.values()))).any(axis=1)
        one = _one_time({name: column[filled] for name, column in values.items()})
        terminals = [Terminal(c, f"{c}.V", f"{c}.I") for c in channels if f"{c}.V" in one or f"{c}.I" in one]
        stated = {name: units[name.rpartition(".")[2]] for name in one if name.rpartition(".")[2] in units}
        runs.append(Run(one, terminals, device, stated))
    return runs


def _one_time(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Call the first channel's time Time; those of the others stay as they are."""
    first = next((name for name in columns if name.endswith(".Time")), None)
    return {("Time" if name == first else name): values for name, values in columns.items()}


member = KeysightQuickIv()
