"""From files to a checked Measurement: choosing readers, folders, options, and bad input."""

import gzip
import json

import numpy as np
import pytest
import xarray as xr

import calib
from calib import measurement as m
from calib import reading
from calib.errors import OptionError, ReadError, UnitError

SWEEP = "V,I\n" + "".join(f"{v},{1e-5 * v}\n" for v in [*np.linspace(0, 1, 11), *np.linspace(1, 0, 11)])


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.csv"
    path.write_text(SWEEP)
    return path


def test_a_file_becomes_branches(good) -> None:
    tree = calib.read(good)
    m.check(tree)
    node = tree["iv"]
    assert node["direction"].values.tolist() == ["up", "down"]
    assert node["operation"].values.tolist() == ["read", "read"]
    (source,) = json.loads(tree.attrs["sources"])
    assert source["name"] == "good.csv"
    assert source["reader"] == "table"
    assert "separated by commas" in source["why"]


def test_several_files_folders_and_patterns(tmp_path, good) -> None:
    (tmp_path / "other.csv").write_text(SWEEP)
    (tmp_path / "README.txt").write_text("nothing but words\nhere\n")
    for files in (tmp_path, [good, tmp_path / "other.csv"], str(tmp_path / "*.csv"), [str(good), tmp_path]):
        node = calib.read(files)["iv"]
        assert node["device"].values.tolist() == ["good", "good", "other", "other"]
        assert node["source"].values.tolist() == [0, 0, 1, 1]
    assert "left out in the folder" in m.notes_of(calib.read(tmp_path)["iv"])[0]
    assert "README.txt (text without rows of numbers)" in m.notes_of(calib.read(tmp_path)["iv"])[0]


def test_a_saved_measurement_is_read_as_it_is(tmp_path, good) -> None:
    tree = calib.read(good)
    m.save(tree, tmp_path / "x.nc")
    again = calib.read(tmp_path / "x.nc")
    xr.testing.assert_identical(tree["iv"].to_dataset(), again["iv"].to_dataset())
    assert (calib.read(tmp_path / "x.nc", temperature=300)["iv"]["temperature"].values == 300).all()


def test_options_as_text_and_as_mappings(good) -> None:
    one = calib.read(good, columns="voltage=0,current=1", units="current=nA", temperature="85 degC")
    two = calib.read(good, columns={"voltage": 0, "current": 1}, units={"current": "nA"}, temperature=358.15)
    xr.testing.assert_identical(one, two)
    assert one["iv"]["current"].values[0, -1] == pytest.approx(1e-14)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "'a.csv' is empty; expected rows of numbers"),
        ("a.csv", b" \n\n", "'a.csv' is empty"),
        ("a.csv", b"%PDF-1.4\n1 0 obj", "'a.csv' is a PDF document, not a text table"),
        ("a.csv", b"\x89PNG\r\n", "'a.csv' is a PNG image"),
        ("a.csv", b"1,2\n\x00\x00\x00\x00", "'a.csv' is a binary file"),
        ("a.csv", b"PK\x03\x04....", r"'a.csv' is a zip archive or a workbook \(.xlsx\)"),
        ("a.csv", b"<!DOCTYPE html><html>", "an HTML page"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "a Git LFS pointer"),
        ("a.json", b'{"a": 1}', "no reader can read 'a.json' .*a JSON file"),
        ("a.csv", b"hello\nworld\n", "holds no rows of numbers in columns; its first line is 'hello'"),
        ("a.csv.gz", gzip.compress(SWEEP.encode(), mtime=0)[:50], "'a.csv.gz' is a truncated or damaged gzip file"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "'a.csv.gz' is empty"),
        ("a.xlsx", b"PK\x03\x04....", "'a.xlsx' cannot be read as a workbook .*may be truncated"),
        ("a.xls", b"\xd0\xcf\x11\xe0" + bytes(600), "'a.xls' cannot be read as a workbook"),
        ("a.nc", b"\x89HDF\r\n\x1a\n" + bytes(50), "a.nc' cannot be opened as netCDF-4"),
    ],
)
def test_bad_files_end_in_one_sentence(tmp_path, name, content, message) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ReadError, match=message) as caught:
        calib.read(path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path) -> None:
    with pytest.raises(ReadError, match="none.csv' does not exist"):
        calib.read(tmp_path / "none.csv")
    with pytest.raises(ReadError, match=r"\*.dat' does not exist"):
        calib.read(str(tmp_path / "*.dat"))
    with pytest.raises(ReadError, match="holds no measurement file"):
        calib.read(tmp_path)
    with pytest.raises(ReadError, match="no files were given"):
        calib.read([])
    with pytest.raises(ReadError, match="is a folder"):
        reading.find_reader(tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"columns": "voltage"}, OptionError, "--columns 'voltage': 'voltage' is not NAME=VALUE"),
        ({"units": "current="}, OptionError, "expected something like current=uA"),
        ({"pairs": "cells"}, OptionError, "--pairs is 'cells'; expected device or cycle"),
        ({"temperature": "warm"}, OptionError, "--temperature 'warm': expected kelvin"),
        ({"temperature": -3}, OptionError, "--temperature is -3 K"),
        ({"temperature": "85 V"}, UnitError, "temperature cannot be in 'V'"),
        ({"skip_rows": -1}, OptionError, "--skip-rows is -1"),
        ({"reader": "spice"}, OptionError, "no 'spice' in readers; found: .*netcdf.* table"),
        ({"units": "current=V"}, UnitError, "current cannot be in 'V'"),
        ({"columns": "voltage=0,current=9"}, ReadError, "has no such column"),
    ],
)
def test_bad_options(good, options, error, message) -> None:
    with pytest.raises(error, match=message):
        calib.read(good, **options)


def test_skipping_rows(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1,2\n3,4\n5,6\n" + SWEEP)
    assert calib.read(path, skip_rows=3)["iv"].sizes["sweep"] == 2


def test_a_source_that_a_reader_does_not_record_is_added(good, monkeypatch) -> None:
    from calib.readers.table import TableReader

    def bare(self, path, options):
        return m.build({"iv": m.iv_node([m.Trace(np.arange(3.0), np.arange(3.0), "a")])})

    monkeypatch.setattr(TableReader, "read", bare)
    (source,) = json.loads(calib.read(good).attrs["sources"])
    assert (source["name"], source["reader"], len(source["sha256"])) == ("good.csv", "table", 64)


def test_finding_a_reader_says_why(good) -> None:
    choice = reading.find_reader(good)
    assert choice.reader.name == "table"
    assert choice.why == "text (.csv)"
    assert reading.find_reader(good, reading.ReadOptions(reader="table")).why == "chosen with --reader"


def test_every_example_for_a_file_without_header_works(tmp_path) -> None:
    """The option that an error proposes is one that can be given."""
    import re

    rng = np.random.default_rng(0)
    lines = [
        f"{k}\t{1e-5 * v + rng.normal(0, 1e-9)!r}\t{v!r}" for k in (7, 8, 9) for v in np.linspace(0, 0.35, 9).tolist()
    ]
    path = tmp_path / "a.tsv"
    path.write_text("\n".join(lines))
    with pytest.raises(ReadError) as caught:
        calib.read(path)
    found = re.search(r"--columns (\S+)", str(caught.value))
    assert found is not None
    assert found[1] == "device=0,voltage=2,current=1"
    assert calib.read(path, columns=found[1])["iv"]["device"].values.tolist() == ["7", "8", "9"]
