"""What a report is built from: chapters, their parts, tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calib.report_files import ResultFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERCENT = 100.0


@dataclass(frozen=True)
class Table:
    """A table with its caption; `best` is the row to mark, -1 for none, and a `wide` one scrolls on small screens."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    best: int = -1
    wide: bool = False


@dataclass(frozen=True)
class Part:
    """What one file, or one question, says: sentences, warnings, figures (key, caption, figure), tables and notes."""

    title: str
    sentences: tuple[str, ...]
    figures: "tuple[tuple[str, str, Figure], ...]" = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chapter:
    """Parts of one kind under a heading; `key` is where links lead."""

    key: str
    title: str
    parts: tuple[Part, ...]


def joined(names: Sequence[str]) -> str:
    """Return names in a sentence: 'a, b and c'."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def title_of(file: ResultFile) -> str:
    """Return which networks on which device: 'run on device'."""
    what = {"fgsm": ", FGSM", "pgd": ", PGD", "noise": ", noise", "ageing": ", ageing"}
    device = str(file.data.attrs["device"])
    return f"{', '.join(file.labels)} on {device}{what.get(str(file.data.attrs.get('attack', '')), '')}"
