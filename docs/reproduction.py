"""Put the tables of a reproduction into docs/reproduction.md: ``python docs/reproduction.py FOLDER``.

Those of the published recipe, and those of any other, have a place each.
"""

import json
import sys
import textwrap
from pathlib import Path

import xarray as xr

from calib.characteristics.base import Section
from calib.reproduction.experiments import MATRIX_SETUPS, MATRIX_TRAININGS, SETUPS, TRAININGS
from calib.reproduction.report import section
from calib.reproduction.results import matrix, open_reproduction, rows
from calib.reproduction.settings import PAPER, Recipe

PAGE = Path(__file__).with_name("reproduction.md")
PLACES = {True: "tables as published", False: "tables of a run"}
"""Where tables go, by whether the recipe is the published one."""


def tables(found: xr.Dataset) -> str:
    """Return how a reproduction was trained and drawn, and its tables, as markdown."""
    settings = json.loads(found.attrs["settings"])
    recipes = [("", "recipe"), ("; the other recipe: ", "other_recipe"), ("; the long recipe: ", "long_recipe")]
    said = "".join(f"{words}{Recipe(**settings[name]).describe()}" for words, name in recipes)
    parts = [f"Networks of each training: {settings['networks']}; draws: {settings['chips']}. {said}."]
    experiments = found.attrs["experiments"].split(",")
    listed = rows(found, experiments)
    parts += [_table(section(found, listed, name)) for name in experiments if name != "matrix"]
    if "matrix" in experiments:
        parts += [_matrix(found, way) for way in found["redraw"].values.astype(str)]
    return "\n\n".join(parts)


def _table(part: Section) -> str:
    head = ["| " + " | ".join(part.columns) + " |", "|" + "---|" * len(part.columns)]
    lines = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in part.rows]
    notes = [textwrap.fill(note, 119, initial_indent="* ", subsequent_indent="  ") for note in part.notes]
    return "\n".join([f"### {part.title}", "", *head, *lines, "", *notes]).rstrip()


def _matrix(found: xr.Dataset, way: str) -> str:
    values = 100 * matrix(found, way, MATRIX_TRAININGS, MATRIX_SETUPS)
    how = {"batch": "devices redrawn every 100 images", "chip": "fixed chips"}[way]
    title = f"### Trained on the row, tested on the column: median error (%), {how}"
    head = ["| | " + " | ".join(SETUPS[name].title for name in MATRIX_SETUPS) + " |", "|---|" + "---|" * len(values[0])]
    lines = []
    for name, line in zip(MATRIX_TRAININGS, values, strict=True):
        own = "ideal" if TRAININGS[name].ideal else TRAININGS[name].setup
        marked = [f"**{v:.1f}**" if s == own else f"{v:.1f}" for v, s in zip(line, MATRIX_SETUPS, strict=True)]
        lines.append(f"| {TRAININGS[name].title} | " + " | ".join(marked) + " |")
    return "\n".join([title, "", *head, *lines])


def page(found: xr.Dataset, text: str) -> str:
    """Return the page with its tables replaced."""
    place = PLACES[Recipe(**json.loads(found.attrs["settings"])["recipe"]) == PAPER.recipe]
    begin, end = f"<!-- {place}: begin -->", f"<!-- {place}: end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    assert end in rest, f"{PAGE.name} has the lines {begin} and {end}"
    return f"{before}{begin}\n\n{tables(found)}\n\n{end}{after}"


if __name__ == "__main__":
    results = open_reproduction(Path(sys.argv[1]) / "results.nc")
    PAGE.write_text(page(results, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
