import functools
import json
import re
from html.parser import HTMLParser

from calib import figures
from calib.device_model import identity
from calib.exporters import exporter
from tests.device_trees import full_device, part_of_device

VOID = {"meta", "br", "hr", "img", "link", "input", "path", "use", "rect", "circle"}
ATTACK = "<img src=x onerror=alert(1)>\"'&amp;</style></title>"


class Checker(HTMLParser):
    """Collects tags and text, and says which tags are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.problems: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
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
