"""The contract of readers over every reader that calib finds."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from calib import measurement, plugins
from tests.contracts.reader_contract import ReaderContract

VOLTAGE = np.concatenate([np.linspace(0, 1, 9), np.linspace(1, -1, 17), np.linspace(-1, 0, 9)])
TEXT = "device,voltage (V),current (uA)\n" + "".join(f"A1,{v!r},{12 * v!r}\n" for v in VOLTAGE.tolist())


class TestText(ReaderContract):
    """The table reader on comma-separated text."""

    name = "table"

    def good_file(self, folder: Path) -> Path:
        path = folder / "good.csv"
        path.write_text(TEXT)
        return path


class TestGzip(ReaderContract):
    """The table reader on gzipped text."""

    name = "table"

    def good_file(self, folder: Path) -> Path:
        path = folder / "good.csv.gz"
        path.write_bytes(gzip.compress(TEXT.encode(), mtime=0))
        return path


class TestWorkbook(ReaderContract):
    """The table reader on a workbook."""

    name = "table"

    def good_file(self, folder: Path) -> Path:
        import openpyxl

        book = openpyxl.Workbook()
        assert book.active is not None
        for line in TEXT.splitlines():
            book.active.append([float(cell) if cell[0] in "-0123456789" else cell for cell in line.split(",")])
        book.save(folder / "good.xlsx")
        return folder / "good.xlsx"


class TestNetcdf(ReaderContract):
    """The reader of Measurements saved by calib."""

    name = "netcdf"

    def good_file(self, folder: Path) -> Path:
        node = measurement.iv_node([measurement.Trace(VOLTAGE, 1e-5 * VOLTAGE, "A1", temperature=300.0)])
        source = {"name": "x.csv", "sha256": "0" * 64, "reader": "table", "why": "text"}
        measurement.save(measurement.build({"iv": node}, [source]), folder / "good.nc")
        return folder / "good.nc"


def test_every_reader_has_a_contract_test() -> None:
    tested = {cls.name for cls in ReaderContract.__subclasses__()}
    assert tested == set(plugins.names("calib.readers"))


@pytest.mark.parametrize("name", plugins.names("calib.readers"))
def test_the_class_body_documents_the_format(name) -> None:
    reader = plugins.load("calib.readers", name)
    assert type(reader).__doc__
    assert type(reader).name == name
