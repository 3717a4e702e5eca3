"""The contract of readers over those of one instrument's layout each, on the golden files."""

import shutil
from pathlib import Path

from calib.readers.base import ReadOptions
from tests.contracts.reader_contract import ReaderContract
from tests.readers.golden import FOLDER, clarius


def golden(name: str, folder: Path) -> Path:
    """Copy a golden file, so that a test may damage it."""
    return Path(shutil.copyfile(FOLDER / name, folder / f"good{Path(name).suffix}"))


class TestKeysightEasyExpert(ReaderContract):
    """EasyEXPERT csv."""

    name = "keysight-easyexpert"

    def good_file(self, folder: Path) -> Path:
        return golden("easyexpert_gate.csv", folder)


class TestKeysightQuickIv(ReaderContract):
    """Quick IV csv."""

    name = "keysight-quick-iv"

    def good_file(self, folder: Path) -> Path:
        return golden("quick_iv.csv", folder)


class TestKeithleyClarius(ReaderContract):
    """Clarius workbooks."""

    name = "keithley-clarius"

    def good_file(self, folder: Path) -> Path:
        return clarius(folder / "good.xlsx", ("BitLine", "Source", "Gate"), gates=(1.0, 1.5))


class TestKeithley2400Readings(ReaderContract):
    """Strings of five readings."""

    name = "keithley-2400"

    def good_file(self, folder: Path) -> Path:
        return golden("2400_readings.txt", folder)


class TestKeithley2400Buffer(ReaderContract):
    """A saved buffer."""

    name = "keithley-2400"

    def good_file(self, folder: Path) -> Path:
        return golden("2450_buffer.csv", folder)


class TestArcOne(ReaderContract):
    """ArC ONE csv."""

    name = "arc-one"

    def good_file(self, folder: Path) -> Path:
        return golden("arc_one.csv", folder)


class TestOscilloscope(ReaderContract):
    """Oscilloscope csv."""

    name = "oscilloscope"
    options = ReadOptions(series_resistance=1000.0)

    def good_file(self, folder: Path) -> Path:
        return golden("scope_keysight.csv", folder)


class TestTektronix(ReaderContract):
    """Tektronix columns."""

    name = "oscilloscope"

    def good_file(self, folder: Path) -> Path:
        return golden("scope_tektronix_columns.csv", folder)


class TestLabview(ReaderContract):
    """LabVIEW measurement files."""

    name = "labview"

    def good_file(self, folder: Path) -> Path:
        return golden("labview.lvm", folder)
