"""Every example of the documentation runs: python blocks of a page in order, calib commands of console blocks."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from calib import data_folder
from calib.cli import main

ROOT = Path(__file__).parent.parent
MADE = {"_build", "gallery"}  # folders of pages that the docs build makes
PAGES = sorted([ROOT / "README.md", *(p for p in (ROOT / "docs").rglob("*.md") if not MADE & set(p.parts))])
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    text = re.sub(
        r"<!-- not run -->\s*```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    return BLOCK.findall(text)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.stem)
def test_examples_of_the_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    namespace: dict[str, object] = {}
    for kind, source in blocks(page):
        if kind == "python":
            exec(compile(source, str(page), "exec"), namespace)
        else:
            for line in source.splitlines():
                if line.startswith("$ calib "):
                    assert main(shlex.split(line[len("$ calib ") :], comments=True)) == 0, line


def test_every_family_has_a_page():
    for family in ("reader", "iv_model", "nonideality", "exporter"):
        assert list((ROOT / "docs").glob(f"add_a*_{family}.md")), family


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_command_line_page_is_that_of_the_parsers():
    spec = importlib.util.spec_from_file_location("command_line", ROOT / "docs" / "command_line.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    assert written == module.page(), "run: python docs/command_line.py"


def test_the_gallery_shows_every_bundled_model(tmp_path):
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages = module.write(tmp_path)
    assert {page.stem for page in pages} == {"index", *data_folder.bundled_model_names()}
    index = (tmp_path / "index.md").read_text(encoding="utf-8")
    for page in pages[1:]:
        text = page.read_text(encoding="utf-8")
        pictures = re.findall(r"^!\[.*\]\((.+)\)$", text, re.MULTILINE)
        assert pictures
        assert all((tmp_path / picture).exists() for picture in pictures)
        assert f"[{page.stem}]({page.name})" in index
