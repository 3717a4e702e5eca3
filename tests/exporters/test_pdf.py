import functools
import io
import os
import subprocess
import sys

import pytest
import xarray as xr
from pypdf import PdfReader
from pypdf.generic import Destination

from calib.characteristics.base import Section
from calib.device_model import identity, open_device
from calib.exporters import _sheet, exporter
from calib.exporters._text import visible
from calib.exporters.pdf import shown
from tests.contracts.exporter_contract import bare_device
from tests.device_trees import full_device
from tests.exporters import hostile


def pdf(tree: xr.DataTree) -> bytes:
    (content,) = exporter("pdf").contents(tree).values()
    assert isinstance(content, bytes)
    return content


@functools.cache
def content() -> bytes:
    return pdf(full_device())


@functools.cache
def plain_text() -> str:
    return text_of(content())


def reader(data: bytes) -> PdfReader:
    return PdfReader(io.BytesIO(data), strict=True)


def text_of(data: bytes) -> str:
    """Return the text of all pages with every run of white space as one space."""
    return " ".join(" ".join(page.extract_text() for page in reader(data).pages).split())


def joined(text: str) -> str:
    return "".join(text.split())


def bookmarks(outline: list) -> list[str]:
    found = []
    for item in outline:
        found += [str(item.title)] if isinstance(item, Destination) else bookmarks(item)
    return found


def test_the_text_can_be_selected() -> None:
    text = plain_text()
    for wanted in (
        "Test oxide 12", "Pt / oxide / Ti", "Poole-Frenkel", "0.02 to 0.5 V", "1 of 12 devices", "Not in this model",
        "sweeps.csv", "calib.open_device",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert joined(identity(full_device())) in joined(text)


def test_greek_letters_signs_and_superscripts_are_there() -> None:
    text = plain_text()
    for wanted in ("µS", "kΩ", "±", "V⁻¹ᐟ²"):
        assert wanted in text, wanted


def test_every_number_of_the_sheet_is_in_it() -> None:
    text = joined(plain_text()).replace("⁻¹ᐟ²", "^-1/2").replace("±", "+-").replace("Ω", "Ohm").replace("µ", "u")
    values = [row.value for _, rows in _sheet.sheet(full_device()).characteristics for row in rows]
    assert len(values) > 30
    assert [value for value in values if joined(value) not in text] == []


def test_headings_are_bookmarks() -> None:
    titles = bookmarks(reader(content()).outline)
    assert titles[0] == "Test oxide 12"
    assert [title for title in titles if title in ("Figures", "Characteristics", "Details", "Provenance")] == [
        "Figures", "Characteristics", "Details", "Provenance",
    ]  # fmt: skip


def test_the_file_says_what_it_is() -> None:
    document = reader(content())
    assert document.metadata is not None
    assert document.metadata.title == "Test oxide 12"
    assert identity(full_device()) in str(document.metadata.subject)
    assert str(document.root_object["/Lang"]) == "en"
    assert all(page.mediabox.width == pytest.approx(595.28, abs=0.1) for page in document.pages)


def test_figures_are_vectors_with_a_text_alternative() -> None:
    document = reader(content())
    assert not [image for page in document.pages for image in page.images]
    captions = [shown(caption) for _, caption, _ in _sheet.drawings(full_device())]
    alternatives = [
        str(item["/Alt"])
        for item in (document.get_object(number) for number in range(1, len(document.xref[0]) + 1))
        if isinstance(item, dict) and "/Alt" in item
    ]
    assert sorted(alternatives) == sorted(captions)


def test_the_doi_is_the_only_link() -> None:
    links = [
        annotation.get_object()["/A"]["/URI"]
        for page in reader(content()).pages
        for annotation in page.get("/Annots", [])
        if "/A" in annotation.get_object()
    ]
    assert links == ["https://doi.org/10.1000/test.12"]


def test_bytes_are_the_same_in_another_process() -> None:
    code = (
        "import sys; from calib.exporters import exporter; from calib.device_model import open_device\n"
        "sys.stdout.buffer.write(next(iter(exporter('pdf').contents(open_device('ta-hfo2')).values())))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert made.stdout == pdf(open_device("ta-hfo2"))


@pytest.mark.parametrize("key", hostile.TEXTS)
def test_text_of_the_user_is_shown_as_it_is(key: str) -> None:
    data = pdf(hostile.device(hostile.TEXTS[key]))
    document, text = reader(data), text_of(data)
    assert joined(text).count(joined(visible(hostile.TEXTS[key]))) >= 7
    assert document.metadata is not None
    assert document.metadata.title == visible(hostile.TEXTS[key])
    assert not {"/AA", "/AcroForm", "/Names", "/JavaScript"} & set(document.root_object)
    assert isinstance(document.root_object["/OpenAction"], list)  # a place in the document, no action
    assert not [page for page in document.pages if "/Annots" in page]
    assert not any(mark in text for mark in hostile.HIDDEN)


def test_a_state_with_any_name_is_shown() -> None:
    text = joined(text_of(pdf(hostile.state_device(hostile.TEXTS["html"]))))
    assert joined(hostile.TEXTS["html"]) in text


def test_characters_that_the_fonts_lack_are_their_code_points() -> None:
    assert shown("Größe µΩ 測定") == "Größe µΩ [U+6E2C][U+5B9A]"
    assert "[U+6E2C]" in text_of(pdf(bare_device(name="測定")))


def test_very_long_texts_go_on_over_pages() -> None:
    words = " ".join(f"word{number}" for number in range(4000))
    tree = bare_device(citation=words, name="n" * 3000)
    node = tree["conductance"].to_dataset()
    node.attrs["rule"] = words
    tree["conductance"] = xr.DataTree(node)
    text = joined(text_of(pdf(tree)))
    assert text.count("word3999") >= 2


def test_a_table_with_a_cell_longer_than_a_page_keeps_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    long = " ".join(f"cell{number}" for number in range(2000))
    sheet = _sheet.sheet(bare_device())
    wide = Section("Wide", tuple("abcdefghijkl"), (("x", *("1.2345 +- 0.0001 uS",) * 10, long),))
    changed = _sheet.replace(sheet, sections=[wide])
    monkeypatch.setattr(_sheet, "sheet", lambda tree: changed)
    text = joined(text_of(pdf(bare_device())))
    assert "cell1999" in text


def test_maps_are_pixels() -> None:
    import numpy as np

    from calib.exporters.pdf import _picture
    from calib.figure_style import figure

    with figure() as drawing:
        drawing.add_subplot().imshow(np.eye(4))
    assert _picture(drawing, "map").startswith(b"\x89PNG")
    assert _picture(drawing, "map") == _picture(drawing, "map")
