"""What holds for every exporter. A new member inherits this suite by being a file in calib/exporters."""

import json
import os
import re
from pathlib import Path

import pytest
import xarray as xr

from calib.device_model import identity
from calib.errors import CalibError
from calib.exporters.base import Exporter
from tests.device_trees import full_device, part_of_device

HOSTILE_NAMES = (
    '<script>alert("x")</script>',
    "../../etc/passwd",
    "C:\\temp\\device",
    "two\nlines",
    "quote ' and \" and $x$ and {{ 7*7 }} and % and \\",
    "Größe µΩ 測定",
    "   ",
    "con",
    ".include /etc/passwd\n.control\nshell ls\n.endc",
    "\\input{/etc/passwd} $\\immediate\\write18{ls}$ %",
    "![x](http://evil.example/x.png) [y](javascript:alert(1)) | # | ```\n<img src=x onerror=alert(1)>",
    "turned \u202egnp.exe\u2066 round\x00 and \x1b[31m red\x07",
    "'); DROP TABLE devices; --",
    'name*/ endmodule `include "/etc/passwd"',
    "n" * 5000,
)
"""Names and citations that would be markup, directives or places in one format or another."""
TIMES = ("2031-07-08T09:10:11Z", "2029-01-02T03:04:05Z")
VARIANTS = {
    "full": (),
    "law": ("iv",),
    "range and stuck": ("conductance", "stuck"),
    "programming": ("programming",),
    "curves only": ("examples",),
}


def small_device(**attrs: str) -> xr.DataTree:
    """Return a device model that is quick to write."""
    return part_of_device("conductance", "stuck", **attrs)


def bare_device(**attrs: str) -> xr.DataTree:
    """Return a device model without anything to draw."""
    tree = part_of_device("conductance", **attrs)
    tree["conductance"] = xr.DataTree(tree["conductance"].to_dataset()[["g_off", "g_on"]])
    return tree


class ExporterContract:
    """The suite; a subclass gives `member`."""

    @pytest.fixture
    def member(self) -> Exporter:
        raise NotImplementedError

    def test_says_what_it_is(self, member: Exporter) -> None:
        assert isinstance(member, Exporter)
        assert re.fullmatch(r"\.[a-z0-9.]+", member.suffix)
        assert member.carries
        assert "\n" not in member.carries

    def test_omissions_are_sentences(self, member: Exporter) -> None:
        sentences = member.omits(full_device())
        assert all(isinstance(sentence, str) and len(sentence.split()) > 2 for sentence in sentences)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_writes_any_subset_of_characteristics(self, member: Exporter, variant: str, tmp_path: Path) -> None:
        tree = part_of_device(*VARIANTS[variant]) if VARIANTS[variant] else full_device()
        paths = member.write(tree, tmp_path / "new folder")
        assert paths
        assert all(path.is_file() and path.stat().st_size for path in paths)
        assert sorted(path.name for path in paths) == sorted(os.listdir(tmp_path / "new folder"))

    def test_equal_models_give_equal_files_without_time(self, member: Exporter, tmp_path: Path) -> None:
        for folder, time in zip(("a", "b"), TIMES, strict=True):
            member.write(full_device(created=time, calib_version=f"99.{folder}"), tmp_path / folder)
        names = os.listdir(tmp_path / "a")
        for name in names:
            first, second = (tmp_path / folder / name for folder in ("a", "b"))
            assert first.read_bytes() == second.read_bytes()
            assert not any(time[:10].encode() in first.read_bytes() for time in TIMES)

    def test_carries_the_identity(self, member: Exporter) -> None:
        tree = small_device()
        for content in member.contents(tree).values():
            assert isinstance(content, str | bytes)
            assert identity(tree).encode() in (content if isinstance(content, bytes) else content.encode("utf-8"))

    def test_different_models_give_different_files(self, member: Exporter) -> None:
        assert member.contents(small_device()) != member.contents(small_device(citation="another"))

    @pytest.mark.parametrize("text", HOSTILE_NAMES)
    def test_any_text_is_written_and_stays_in_the_folder(self, member: Exporter, text: str, tmp_path: Path) -> None:
        listed = json.dumps([text])
        sources = json.dumps([{"name": text, "sha256": text}])
        tree = bare_device(name=text, citation=text, technology=text, license=text, warnings=listed,
                           assumptions=listed, sources=sources, options=json.dumps({text: text}))  # fmt: skip
        paths = member.write(tree, tmp_path)
        for path in paths:
            assert path.parent == tmp_path
            assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", path.name)
            assert path.stat().st_size
        assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in paths)

    def test_replaces_an_older_file_and_leaves_nothing_else(self, member: Exporter, tmp_path: Path) -> None:
        tree = small_device()
        first = {path: path.read_bytes() for path in member.write(tree, tmp_path)}
        for path in first:
            path.write_text("older", encoding="utf-8")
        member.write(tree, tmp_path)
        assert {path: path.read_bytes() for path in first} == first
        assert len(os.listdir(tmp_path)) == len(first)

    def test_a_place_that_cannot_be_written_is_named(self, member: Exporter, tmp_path: Path) -> None:
        blocked = tmp_path / "file"
        blocked.write_text("not a folder", encoding="utf-8")
        with pytest.raises(CalibError, match="cannot write"):
            member.write(small_device(), blocked)
        assert blocked.read_text(encoding="utf-8") == "not a folder"

    def test_leaves_the_model_as_it_was(self, member: Exporter) -> None:
        tree = small_device()
        before = identity(tree)
        member.contents(tree)
        assert identity(tree) == before
