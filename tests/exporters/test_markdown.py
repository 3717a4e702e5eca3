import functools
import itertools
from xml.etree import ElementTree

import pytest
import xarray as xr
from markdown_it import MarkdownIt
from markdown_it.token import Token

from calib.device_model import identity
from calib.exporters import exporter
from calib.exporters._text import visible
from calib.exporters.markdown import literal
from tests.contracts.exporter_contract import bare_device
from tests.device_trees import full_device
from tests.exporters import hostile


@functools.cache
def files() -> dict[str, str]:
    return dict(exporter("markdown").contents(full_device()))


def page(tree: xr.DataTree) -> str:
    return next(text for file, text in exporter("markdown").contents(tree).items() if file.endswith(".md"))


def tokens(text: str) -> list[Token]:
    """Return all tokens of a page, those within lines included."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    found = []
    for token in parser.parse(text):
        found.append(token)
        found += token.children or []
    return found


def shown(text: str) -> str:
    """Return what a reader sees of a page, line by line."""
    lines = ["".join(part.content for part in token.children or []) for token in tokens(text) if token.type == "inline"]
    return "\n".join(lines)


def of_type(text: str, kind: str) -> list[Token]:
    return [token for token in tokens(text) if token.type == kind]


def test_figures_lie_beside_the_page_and_are_shown() -> None:
    names = {file for file in files() if file.endswith(".svg")}
    images = [str(token.attrs["src"]) for token in of_type(files()["test-oxide-12.md"], "image")]
    assert set(images) == names
    assert len(images) == len(names) > 4
    assert all(token.content for token in of_type(files()["test-oxide-12.md"], "image"))


def test_figures_are_whole_svg_files_with_a_text_alternative() -> None:
    for name, text in files().items():
        if name.endswith(".svg"):
            root = ElementTree.fromstring(text)
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert root.find("{http://www.w3.org/2000/svg}title") is not None
            assert identity(full_device()) in text


def test_headings_are_in_order() -> None:
    levels = [int(token.tag[1]) for token in of_type(files()["test-oxide-12.md"], "heading_open")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_row_of_a_table_has_as_many_cells_as_its_heading() -> None:
    counts: list[set[int]] = []
    row = 0
    for token in tokens(files()["test-oxide-12.md"]):
        if token.type == "table_open":
            counts.append(set())
        elif token.type == "tr_open":
            row = 0
        elif token.type in ("th_open", "td_open"):
            row += 1
        elif token.type == "tr_close":
            counts[-1].add(row)
    assert len(counts) > 8
    assert all(len(widths) == 1 for widths in counts)


def test_it_holds_what_a_reader_looks_for() -> None:
    text = shown(files()["test-oxide-12.md"])
    for wanted in (
        "Test oxide 12", "Pt / oxide / Ti", "|V| = 0.02 to 0.5 V", "36 curves of 12 devices", "exact binomial 95 %",
        "Not in this model", "sweeps.csv", identity(full_device()), "[1]", "kΩ", "±",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_the_doi_is_a_link_and_the_only_one() -> None:
    links = [token.attrs["href"] for token in of_type(files()["test-oxide-12.md"], "link_open")]
    assert links == ["https://doi.org/10.1000/test.12"]


def test_without_figures_there_is_only_the_page() -> None:
    assert list(exporter("markdown").contents(bare_device())) == ["test-oxide-12.md"]


@pytest.mark.parametrize("key", hostile.TEXTS)
def test_text_of_the_user_is_shown_as_it_is(key: str) -> None:
    text = page(hostile.device(hostile.TEXTS[key]))
    assert shown(text).count(visible(hostile.TEXTS[key])) >= 8
    assert {token.type for token in tokens(text)} == {token.type for token in tokens(page(hostile.device("plain")))}
    assert not [token for token in tokens(text) if token.type.startswith(("html", "link", "image"))]
    assert not any(mark in text for mark in hostile.HIDDEN)


@pytest.mark.parametrize("key", ["html", "markdown", "control", "turned"])
def test_names_of_states_do_no_harm(key: str) -> None:
    contents = exporter("markdown").contents(hostile.state_device(hostile.TEXTS[key]))
    for name, text in contents.items():
        assert not any(mark in text for mark in hostile.HIDDEN)
        if name.endswith(".svg"):
            tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()}
            assert not tags & {"script", "img", "foreignObject", "b"}
        else:
            assert not [token for token in tokens(text) if token.type.startswith("html")]
            assert visible(hostile.TEXTS[key]) in shown(text)


@pytest.mark.parametrize(
    "text",
    ["- a", "+ a", "# a", "1. a", "2) a", "===", "---", "> a", "```", "    code", "a\nb", "\tx", "*", "a  ", "&amp;",
     "\\", "|", "\\|", "www.x.org", "HTTP://x.org", "<https://x.org>", "[a]: /b", "- [ ] a"],
)  # fmt: skip
def test_a_line_is_one_paragraph_of_that_text(text: str) -> None:
    found = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(literal(text))
    assert [token.type for token in found] == ["paragraph_open", "inline", "paragraph_close"]
    assert "".join(part.content for part in found[1].children or []) == " ".join(text.split())
