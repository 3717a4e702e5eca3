"""Families find their members by folder, and name the culprit when one is broken."""

import importlib
import sys
from pathlib import Path

import pytest

from calib import plugins
from calib.errors import CalibError, OptionError

GOOD = """
class Law:
    name = "poole-frenkel"
    odd = True

member = Law()
"""


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A family `laws` with one good member, in a package of its own."""
    folder = tmp_path / "some_package" / "laws"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "base.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (folder / "poole_frenkel.py").write_text(GOOD, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "some_package"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    return folder


def load(name: str, *requires: str) -> object:
    return plugins.load("some_package.laws", name, requires)


def test_names_come_from_the_files_without_importing_them(family: Path) -> None:
    (family / "broken.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (family / "_private.py").touch()
    (family / "notes.txt").touch()
    assert plugins.names("some_package.laws") == ["broken", "poole-frenkel"]
    assert "some_package.laws.broken" not in sys.modules


def test_a_new_file_is_a_new_member(family: Path) -> None:
    (family / "ohmic.py").write_text(GOOD.replace("poole-frenkel", "ohmic"), encoding="utf-8")
    members = plugins.load_all("some_package.laws", ("odd",))
    assert list(members) == ["ohmic", "poole-frenkel"]
    assert all(member.name == name for name, member in members.items())


def test_unknown_member_lists_the_known_ones(family: Path) -> None:
    with pytest.raises(OptionError, match="there is no 'ohmic' in laws; found: poole-frenkel"):
        load("ohmic")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import package_that_is_not_there", "'some_package.laws.broken' .* cannot be imported: No module named"),
        ("def f(:", "'some_package.laws.broken' .* cannot be imported: invalid syntax"),
        ("1 / 0", "'some_package.laws.broken' .* cannot be imported: division by zero"),
        ("law = 1", "'some_package.laws.broken' .* defines no 'member'"),
        (GOOD, "'some_package.laws.broken' calls itself 'poole-frenkel'; it must be 'broken'"),
        (GOOD.replace("odd", "even"), "the member of 'some_package.laws.broken' lacks odd"),
        ("member = object()", "the member of 'some_package.laws.broken' lacks name, odd"),
    ],
)
def test_broken_member_is_named(family: Path, content: str, message: str) -> None:
    (family / "broken.py").write_text(content, encoding="utf-8")
    with pytest.raises(CalibError, match=message):
        load("broken", "odd")
    assert load("poole-frenkel", "odd") is not None


def test_one_broken_member_stops_the_whole_family(family: Path) -> None:
    (family / "broken.py").write_text("1 / 0", encoding="utf-8")
    with pytest.raises(CalibError, match=r"some_package\.laws\.broken"):
        plugins.load_all("some_package.laws")


@pytest.mark.parametrize("family_name", ["iv_models", "readers", "nonidealities", "exporters", "cli"])
def test_shipped_families_load(family_name: str) -> None:
    package = f"calib.{family_name}"
    members = plugins.load_all(package)
    assert members
    assert list(members) == plugins.names(package)
