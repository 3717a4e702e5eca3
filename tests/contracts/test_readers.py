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


class TestMatlab(ReaderContract):
    """The reader of MATLAB files, on one of version 5."""

    name = "matlab"

    def good_file(self, folder: Path) -> Path:
        import scipy.io

        scipy.io.savemat(folder / "good.mat", {"V": VOLTAGE, "I_uA": 12 * VOLTAGE}, do_compression=True)
        return folder / "good.mat"


class TestMatlab73(ReaderContract):
    """The reader of MATLAB files, on one of version 7.3."""

    name = "matlab"

    def good_file(self, folder: Path) -> Path:
        import h5py

        with h5py.File(folder / "good.mat", "w", userblock_size=512) as file:
            for name, values in {"V": VOLTAGE, "I_uA": 12 * VOLTAGE}.items():
                file.create_dataset(name, data=values[None, :]).attrs["MATLAB_class"] = np.bytes_("double")
        return folder / "good.mat"


class TestWriteVerify(ReaderContract):
    """The reader of write-verify logs, with names."""

    name = "write-verify"

    def good_file(self, folder: Path) -> Path:
        rows = (f"{k},{10 + k % 4},{12 + k % 4},{11.5 + k % 4},1,{k % 7}" for k in range(40))
        text = "address,target r min (kohm),target r max (kohm),final r (kohm),success,attempts\n"
        (folder / "good.csv").write_text(text + "\n".join(rows))
        return folder / "good.csv"


class TestPulseLines(ReaderContract):
    """The reader of pulse trains, on lines of unequal length."""

    name = "pulse-train"

    def good_file(self, folder: Path) -> Path:
        lines = (
            f"(A,{k}),tprog=0.0002,Gprog, {', '.join(f'{1e-6 / n:.3g}' for n in range(1, 9 + k))}" for k in range(6)
        )
        (folder / "good.txt").write_text("\n".join(lines))
        return folder / "good.txt"


class TestPulseTable(ReaderContract):
    """The reader of pulse trains, on a table."""

    name = "pulse-train"

    def good_file(self, folder: Path) -> Path:
        rows = (f"{0.1 * k},5e-7,1000,-0.1,{-1e-9 * k},{-1.1e-9 * k}" for k in range(1, 30))
        text = "# pulse_v,pulse_width,num_applied,meas_v,i_0,i_1\n"
        (folder / "good.csv").write_text(text + "\n".join(rows))
        return folder / "good.csv"


def test_every_reader_has_a_contract_test() -> None:
    import tests.contracts.test_instrument_readers  # noqa: F401

    tested = {cls.name for cls in ReaderContract.__subclasses__()}
    assert tested == set(plugins.names("calib.readers"))


@pytest.mark.parametrize("name", plugins.names("calib.readers"))
def test_the_class_body_documents_the_format(name) -> None:
    reader = plugins.load("calib.readers", name)
    assert type(reader).__doc__
    assert type(reader).name == name
