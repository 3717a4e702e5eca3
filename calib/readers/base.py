"""What a reader is."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from calib.errors import OptionError
from calib.file_names import compiled
from calib.measurement import Measurement, Trace

__all__ = ["ReadOptions", "Reader", "Sniff", "Trace"]

PAIRS = ("device", "cycle")


@dataclass(frozen=True)
class ReadOptions:
    """What the user says about the files, overriding what is found in them.

    Attributes
    ----------
    columns : canonical name -> column index from 0 or header name.
    units : canonical name -> unit that the file's numbers have.
    sheets : sheets of a workbook to read; all when None.
    pairs : what repeated (V, I) column pairs and like sheets are, 'device' or 'cycle'; found when None.
    temperature : [K], replaces what the files state.
    series_resistance : [ohm] of the resistor in series with the device; turns an oscilloscope's volts into current.
    skip_rows : lines at the beginning of text files that are ignored.
    reader : name of the reader to use whatever the files look like.
    pattern : regular expression for the files' names; its named groups are labels (see `calib.file_names`).
    """

    columns: Mapping[str, int | str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    sheets: tuple[str, ...] | None = None
    pairs: str | None = None
    temperature: float = np.nan
    series_resistance: float = np.nan
    skip_rows: int = 0
    reader: str | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.pairs is not None and self.pairs not in PAIRS:
            raise OptionError(f"--pairs is '{self.pairs}'; expected {' or '.join(PAIRS)}")
        if self.skip_rows < 0:
            raise OptionError(f"--skip-rows is {self.skip_rows}; expected 0 or more")
        if self.temperature <= 0:
            raise OptionError(f"--temperature is {self.temperature:g} K; expected more than 0 K")
        if self.series_resistance <= 0 or np.isinf(self.series_resistance):
            raise OptionError(f"--series-resistance is {self.series_resistance:g} ohm; expected more than 0 ohm")
        if self.pattern is not None:
            compiled(self.pattern)


@dataclass(frozen=True)
class Sniff:
    """How well a reader fits a file.

    Attributes
    ----------
    confidence : 0 (cannot read it) to 1 (certain).
    reason : a phrase that says why.
    """

    confidence: float
    reason: str


class Reader(abc.ABC):
    """A file format. A new one is one new file in this folder that sets ``member``.

    Attributes
    ----------
    name : the file's name with hyphens.
    suffixes : lower-case suffixes that the format usually has, with their dot.
    name_map : canonical name -> regular expression over the names that the format uses, in lower case.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    name_map: ClassVar[Mapping[str, str]]

    @abc.abstractmethod
    def sniff(self, path: Path) -> Sniff:
        """Say how well this reader fits the file, from its suffix and its first bytes; never raises for content."""

    @abc.abstractmethod
    def read(self, path: Path, options: ReadOptions) -> Measurement:
        """Read the file as a Measurement in SI units.

        Sweeps are returned whole, as recorded (`calib.sweeps` splits and flags them for every reader alike), unless
        the format stores split sweeps.

        Raises
        ------
        ReadError
            When the file's content cannot be used; the message names the file, what was found, and the option that
            settles it.
        UnitError
            When a unit is unknown or cannot belong to its quantity.
        """
