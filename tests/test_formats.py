"""Every example file of the page on formats is read as the page says."""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest

import calib
from calib import measurement as m
from calib.reading_options import add_reading_arguments, options_from

PAGES = sorted((Path(__file__).parent.parent / "docs" / "formats").glob("*.md"))
EXAMPLE = re.compile(r"<!-- example( workbook)?: (.*?) -->\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = [example for page in PAGES for example in EXAMPLE.findall(page.read_text(encoding="utf-8"))]


def write(path: Path, content: str, workbook: bool) -> None:
    """Write an example: as it is, or sheet after sheet of a workbook."""
    if not workbook:
        path.write_text(content, encoding="utf-8")
        return
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for line in content.splitlines():
        if line.startswith("["):
            book.create_sheet(line.strip("[]"))
        else:
            sheet = book.worksheets[-1]
            numbers = sheet.title != "Settings" and line[0].isdigit()
            sheet.append([float(cell) if numbers else cell for cell in line.split("\t")])
    book.save(path)


@pytest.mark.parametrize(("workbook", "head", "content"), EXAMPLES, ids=[e[1].split(";")[0] for e in EXAMPLES])
def test_an_example_is_read_as_the_page_says(tmp_path, workbook, head, content) -> None:
    name, *rest = (part.strip() for part in head.split(";"))
    said = dict(part.split(" ", 1) for part in rest)
    write(tmp_path / name, content, bool(workbook))
    parser = argparse.ArgumentParser()
    add_reading_arguments(parser)
    tree = calib.read(tmp_path / name, **options_from(parser.parse_args(said.get("options", "").split())))
    (source,) = json.loads(tree.attrs["sources"])
    assert source["reader"] == said["reader"]
    assert set(tree.children) == set(said["nodes"].split())
    assert not [question for node in tree.children.values() for question in m.notes_of(node, "questions")]
    if "iv" in tree.children:
        voltage, current = (tree["iv"][key].values for key in ("voltage", "current"))
        assert np.nanmax(voltage) == pytest.approx(1.0)
        assert np.nanmax(current) == pytest.approx(8e-5)


def test_values_that_the_page_states(tmp_path) -> None:
    found = {}
    for workbook, head, content in EXAMPLES:
        name = head.split(";")[0]
        write(tmp_path / name, content, bool(workbook))
        found[name] = calib.read(tmp_path / name)
    assert found["loop.txt"]["iv"]["temperature"].values == pytest.approx(358.15)
    assert set(found["loop.txt"]["iv"]["device"].values) == {"A7"}
    assert set(found["easyexpert.csv"]["iv"]["device"].values) == {"W3-A7"}
    assert found["easyexpert.csv"]["iv"]["compliance"].values == pytest.approx(1e-4)
    assert set(found["clarius.xlsx"]["iv"]["cycle"].values.tolist()) == {0, 1}
    assert found["clarius.xlsx"]["iv"]["compliance"].values == pytest.approx(1e-3)
    assert found["readings.txt"]["iv"]["compliance"].values == pytest.approx(8e-5)
    assert found["arc.csv"]["reads"]["device"].values.tolist() == ["3-7"]
    assert list(found["keysight.csv"].children) == ["extra"]
    assert "--series-resistance" in m.notes_of(found["keysight.csv"]["extra"], "questions")[0]
