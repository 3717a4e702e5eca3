import functools
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from calib import device_model, figures
from calib.characteristics.base import Estimate
from calib.device_model import identity
from calib.exporters import _sheet, exporter
from calib.exporters._text import visible
from tests.contracts.exporter_contract import bare_device
from tests.device_trees import full_device, part_of_device
from tests.exporters import hostile

VOID = {"meta", "br", "hr", "img", "link", "input", "path", "use", "rect", "circle"}
ATTACK = "<img src=x onerror=alert(1)>\"'&amp;</style></title>"


class Checker(HTMLParser):
    """Collects tags and text, and says which tags are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.sequence: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.problems: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sequence.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.open[-3:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    return checker


@functools.cache
def page(**attrs: str) -> str:
    return next(iter(exporter("html").contents(full_device(**attrs)).values()))


def test_it_is_well_formed_and_needs_nothing_else() -> None:
    checker = parsed(page())
    assert checker.problems == []
    assert checker.open == []
    assert not checker.tags & {"script", "link", "iframe", "object", "img"}
    for tag, key, value in checker.attributes:
        assert not key.startswith("on")
        if key in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "https://doi.org/")), (tag, value)
    assert "url(http" not in page()
    assert "@import" not in page()


def test_the_doi_is_a_link() -> None:
    assert '<a href="https://doi.org/10.1000/test.12">10.1000/test.12</a>' in page()


def test_identifiers_are_unique_and_references_resolve() -> None:
    checker = parsed(page())
    ids = [value for _, key, value in checker.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    used = [value[1:] for _, key, value in checker.attributes if key in ("href", "xlink:href") and value[0] == "#"]
    used += re.findall(r"url\(#([^)]+)\)", page())
    used += [value for _, key, value in checker.attributes if key == "aria-labelledby"]
    assert set(used) <= set(ids)


def test_text_of_the_user_is_escaped() -> None:
    texts = dict.fromkeys(("name", "technology", "citation", "license"), ATTACK)
    listed = dict.fromkeys(("warnings", "assumptions"), json.dumps([ATTACK]))
    sources = json.dumps([{"name": ATTACK, "sha256": "1" * 64}])
    checker = parsed(page(**texts, **listed, sources=sources, options=json.dumps({"o": ATTACK})))
    assert checker.problems == []
    assert "img" not in checker.tags
    assert sum(ATTACK in text for text in checker.text) >= 8


def test_names_of_states_with_markup_do_no_harm() -> None:
    tree = full_device()
    for node in ("iv", "conductance", "programming"):
        data = tree[node].to_dataset()
        tree[node] = type(tree)(data.assign_coords(state=["<b>$x_1$", "a & b"]))
    iv = tree["iv"].to_dataset()
    iv["curve_state"] = ("curve", ["<b>$x_1$"] * iv.sizes["curve"])
    tree["iv"] = type(tree)(iv)
    checker = parsed(next(iter(exporter("html").contents(tree).values())))
    assert checker.problems == []
    assert "b" not in checker.tags


def test_it_holds_what_a_reader_looks_for() -> None:
    text = " ".join(parsed(page()).text)
    for wanted in (
        "Test oxide 12", "Pt / oxide / Ti", "Poole-Frenkel", "0.02 to 0.5 V", "36 curves of 12 devices",
        "1 of 12 devices", "exact binomial 95 %", "Not in this model", "retention", "sweeps.csv", "calib.open_device",
        identity(full_device()),
    ):  # fmt: skip
        assert wanted in text, wanted


def test_a_model_without_a_law_says_so() -> None:
    tree = part_of_device("conductance", "stuck")
    text = " ".join(parsed(next(iter(exporter("html").contents(tree).values()))).text)
    assert "taken as ohmic" in text
    assert "I-V law: how the current" in text


def test_every_figure_has_a_text_alternative() -> None:
    checker = parsed(page())
    labelled = [value for tag, key, value in checker.attributes if tag == "svg" and key == "aria-labelledby"]
    assert len(labelled) == len(figures.device_figures(full_device()))
    images = [1 for tag, key, value in checker.attributes if (tag, key, value) == ("svg", "role", "img")]
    assert len(images) == len(labelled)


@pytest.mark.parametrize("key", hostile.TEXTS)
def test_text_of_the_user_is_shown_as_it_is(key: str) -> None:
    text = next(iter(exporter("html").contents(hostile.device(hostile.TEXTS[key])).values()))
    plain = parsed(next(iter(exporter("html").contents(hostile.device("plain")).values())))
    checker = parsed(text)
    assert checker.problems == []
    assert checker.tags == plain.tags
    assert {(tag, name) for tag, name, _ in checker.attributes} == {(tag, name) for tag, name, _ in plain.attributes}
    assert sum(visible(hostile.TEXTS[key]) in part for part in checker.text) >= 8
    assert not any(mark in text for mark in hostile.HIDDEN)


def test_names_of_states_with_hidden_characters_do_no_harm() -> None:
    text = next(iter(exporter("html").contents(hostile.state_device(hostile.TEXTS["control"])).values()))
    assert parsed(text).problems == []
    assert not any(mark in text for mark in hostile.HIDDEN)


def test_headings_are_in_order_and_the_page_says_its_language() -> None:
    checker = parsed(page())
    levels = [int(tag[1]) for tag in checker.sequence if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert ("html", "lang", "en") in checker.attributes
    assert any(tag == "meta" and value.startswith("width=device-width") for tag, _, value in checker.attributes)


def test_every_heading_of_a_table_says_what_it_heads() -> None:
    checker = parsed(page())
    assert checker.sequence.count("th") == sum((tag, key) == ("th", "scope") for tag, key, _ in checker.attributes)
    assert checker.sequence.count("thead") == checker.sequence.count("table") - 1  # names and values of provenance


def test_every_number_names_its_method_and_every_method_is_used() -> None:
    checker = parsed(page())
    used = {value for tag, key, value in checker.attributes if key == "href" and value.startswith("#method-")}
    listed = {f"#{value}" for tag, key, value in checker.attributes if key == "id" and value.startswith("method-")}
    assert used == listed
    assert len(listed) > 3


def test_cells_carry_their_column_for_narrow_screens() -> None:
    labels = {value for tag, key, value in parsed(page()).attributes if key == "data-label"}
    assert labels == set(_sheet.COLUMNS[1:])


@pytest.mark.parametrize(("ink", "paper"), [("ink", "#ffffff"), ("soft", "#ffffff"), ("soft", "warn-tint"),
                                            ("accent", "#ffffff"), ("ink", "warn-tint"), ("soft", "tint")])  # fmt: skip
def test_text_stands_out_from_its_ground(ink: str, paper: str) -> None:
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", page()))
    first, second = (luminance(colours.get(name, name)) for name in (ink, paper))
    assert (max(first, second) + 0.05) / (min(first, second) + 0.05) >= 4.5  # WCAG 2.2, criterion 1.4.3


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_model_without_siemens_is_not_used_for_training() -> None:
    text = " ".join(parsed(next(iter(exporter("html").contents(part_of_device("programming")).values()))).text)
    assert "calib train" not in text
    assert 'print(device["programming"])' in text


def test_the_three_lines_of_use_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = _sheet.sheet(bare_device())
    device_model.save(bare_device(), tmp_path / sheet.file)
    monkeypatch.chdir(tmp_path)
    assert len(sheet.usage) == 3
    namespace: dict[str, object] = {}
    exec("\n".join(sheet.usage), namespace)
    assert "network" in namespace


def test_close_ends_of_an_interval_are_told_apart() -> None:
    item = Estimate("iv", "", "c", "ln c", -11.703, "1", low=-11.7123, high=-11.6934, interval="95 % confidence")
    assert _sheet._interval(item) == "-11.712 to -11.693"
