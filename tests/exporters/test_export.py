from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import calib
from calib import device_model, exporters
from calib.errors import CalibError, ModelError, OptionError
from calib.exporters.base import slug
from tests.contracts.exporter_contract import bare_device
from tests.device_trees import full_device


def test_export_writes_every_format_by_default(tmp_path: Path) -> None:
    paths = calib.export(bare_device(), tmp_path)
    assert len(paths) >= len(exporters.names())
    assert {path.suffix for path in paths} >= {".html", ".json"}


@pytest.mark.parametrize("formats", ["json", ["json"], "json,json", " json "])
def test_export_takes_one_format_in_any_spelling(formats: str | list[str], tmp_path: Path) -> None:
    assert [path.name for path in exporters.export(full_device(), tmp_path, formats)] == ["test-oxide-12.json"]


def test_export_takes_a_file(tmp_path: Path) -> None:
    device_model.save(full_device(), tmp_path / "device.nc")
    from_file = exporters.export(tmp_path / "device.nc", tmp_path / "a", "json")[0]
    assert from_file.read_bytes() == exporters.export(full_device(), tmp_path / "b", "json")[0].read_bytes()


@pytest.mark.parametrize(("formats", "message"), [("docx", "--format is 'docx'"), ("", "--format is nothing")])
def test_an_unknown_format_is_named_with_those_that_there_are(formats: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"{message}; expected all, or some of .*html, json"):
        exporters.export(full_device(), tmp_path, formats)
    assert not list(tmp_path.iterdir())


def test_a_tree_that_is_no_device_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no device model"):
        exporters.export(full_device(schema="something"), tmp_path)


def test_an_unknown_exporter_is_named() -> None:
    with pytest.raises(OptionError, match="there is no 'docx' in exporters"):
        exporters.exporter("docx")


def test_every_format_says_what_it_carries() -> None:
    assert set(exporters.carries()) == set(exporters.names())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Ta/HfO2, 128 x 64", "ta-hfo2-128-x-64"), ("", "device"), ("..", "device"), ("NUL", "device-nul"),
     ("Größe", "groe"), ("a" * 200, "a" * 60)],
)  # fmt: skip
def test_slug_of_known_names(name: str, expected: str) -> None:
    assert slug(name) == expected


@given(st.text())
def test_slug_of_any_text_is_a_plain_file_name(text: str) -> None:
    stem = slug(text)
    assert stem
    assert len(stem) <= 67
    assert set(stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not stem.startswith("-")


def test_full_disk_is_a_calib_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(self: Path, *args: object, **kwargs: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CalibError, match="No space left on device"):
        exporters.export(full_device(), tmp_path, "json")
    assert not list(tmp_path.iterdir())
