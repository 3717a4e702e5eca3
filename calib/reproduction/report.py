"""The table of ours beside the published numbers, and the page with the figures."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from calib import files, html
from calib.characteristics.base import Section
from calib.reproduction.experiments import EXPERIMENTS, SETUPS, TRAININGS
from calib.reproduction.explanations import explanation
from calib.reproduction.published import SOURCE
from calib.reproduction.results import Row, has, is_mnist, plain_rows, rows
from calib.reproduction.settings import PAPER, Recipe

_WAYS = {"batch": "ours, devices redrawn every 100 images", "chip": "ours, fixed chips"}
_NOTHING = "–"
_NO_SPREAD = 0.005
"""Width of an interval, in percent, below which its ends read the same."""
_WHOLE = 100
NOT_KNOWN = "Where no published number stands, none is known here in digits (the paper shows a figure)."


def write_report(found: xr.Dataset, folder: Path, experiments: Sequence[str]) -> None:
    """Write table.csv, report.html and figures/*.svg of results into a folder."""
    from calib.reproduction.figures import figures

    listed = rows(found, experiments)
    files.write_text(folder / "table.csv", _csv(listed))
    drawn = figures(found, experiments)
    pictures = html.pictures(drawn)
    for (key, _, _), picture in zip(drawn, pictures, strict=True):
        files.write_text(folder / "figures" / f"{key}.svg", str(picture.svg))
    page = html.render(
        "reproduction.html.j2",
        lead=lead(found, listed),
        notes=notes(found),
        sections=[section(found, listed, name) for name in experiments if name != "matrix"],
        pictures=pictures,
        provenance=_provenance(found),
    )
    files.write_text(folder / "report.html", page)


def section(found: xr.Dataset, listed: Sequence[Row], experiment: str) -> Section:
    """Return the table of an experiment: one row for each cell, the ways of drawing devices side by side."""
    ways = found["redraw"].values.astype(str)
    columns = (
        "training", "tested on", "published error", *(_WAYS[way] for way in ways), "difference", "published TOPs/W",
        "our TOPs/W",
    )  # fmt: skip
    by_cell: dict[tuple[str, str], list[Row]] = {}
    for item in listed:
        if item.experiment == experiment:
            by_cell.setdefault(item.cell, []).append(item)
    table = tuple(_cells(items) for items in by_cell.values())
    said = [(items[0], "; ".join(explanation(found, items[0]))) for items in by_cell.values()]
    differences = tuple(
        f"{TRAININGS[item.training].title} on {SETUPS[item.setup].title}: {text}" for item, text in said if text
    )
    return Section(EXPERIMENTS[experiment].title, columns, table, (*differences, *EXPERIMENTS[experiment].notes))


def _cells(items: Sequence[Row]) -> tuple[str, ...]:
    """Return the rows of a cell, the published way of drawing first, as one line of text."""
    first = items[0]
    setup, published = SETUPS[first.setup], first.published
    efficiency = _NOTHING if published is None or published.efficiency is None else f"{published.efficiency:g}"
    return (
        TRAININGS[first.training].title,
        f"{setup.title} (assumed)" if setup.assumed and "assumed" not in setup.title else setup.title,
        published_error(first),
        *(_error(item) for item in items),
        _NOTHING if math.isnan(first.difference) else f"{100 * first.difference:+.1f} points",
        efficiency,
        f"{first.efficiency:.0f}" if first.efficiency >= _WHOLE else f"{first.efficiency:.3g}",
    )


def _error(item: Row) -> str:
    low, high = (100 * end for end in item.interval)
    same = math.isnan(low) or high - low < _NO_SPREAD
    return f"{100 * item.error:.2f} %" if same else f"{100 * item.error:.2f} % ({low:.2f} to {high:.2f})"


def published_error(item: Row) -> str:
    """Return the published error as text."""
    if item.published is None:
        return _NOTHING
    low, high = (100 * end for end in item.published.error)
    text = f"{low:g} %" if low == high else f"about {low:g} to {high:g} %"
    return f"{text} (calibrated)" if item.published.calibrated else text


def lead(found: xr.Dataset, listed: Sequence[Row]) -> str:
    """Return the result in one sentence or two."""
    first = str(found["redraw"].values[0])
    beside = [item for item in listed if item.published and item.experiment == "siox" and item.redraw == first]
    if not is_mnist(found):
        name = json.loads(found.attrs["data"])["name"]
        return f"The whole chain ran on '{name}', which is not the data set of the paper: no number is compared"
    if not beside:
        return "None of these experiments has a published number that is known here"
    parts = [
        f"{TRAININGS[item.training].title} on {SETUPS[item.setup].title}: {100 * item.error:.1f} % "
        f"(published {published_error(item)})"
        for item in beside
    ]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}"


def notes(found: xr.Dataset) -> list[str]:
    """Return what holds for the whole page."""
    settings = json.loads(found.attrs["settings"])
    recipe = Recipe(**settings["recipe"])
    said = [
        "Errors are medians over networks and draws, with their 95 % bootstrap interval; the efficiency is that at the "
        "mean power of the devices.",
        found.attrs["protocol"],
    ]
    said.append(f"Training: {recipe.describe()}; published: {PAPER.recipe.describe()}.")
    for name in ("other", "long"):
        if has(found, (f"standard-{name}", "siox-high")):
            said.append(f"The {name} recipe: {Recipe(**settings[f'{name}_recipe']).describe()}.")
    if found.attrs["left_out"]:
        said.append(found.attrs["left_out"])
    return [*said, NOT_KNOWN]


def _csv(listed: Sequence[Row]) -> str:
    plain = plain_rows(listed)
    buffer = io.StringIO()
    if plain:
        writer = csv.DictWriter(buffer, list(plain[0]), lineterminator="\n")
        writer.writeheader()
        for item in plain:
            writer.writerow({key: "" if value is None else _number(value) for key, value in item.items()})
    return buffer.getvalue()


def _number(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def _provenance(found: xr.Dataset) -> list[tuple[str, str]]:
    data = json.loads(found.attrs["data"])
    versions = json.loads(found.attrs["versions"])
    return [
        ("paper", SOURCE),
        ("images", f"{data['name']}: {data['source']} (SHA-256 {data['sha256']})"),
        ("settings", found.attrs["settings"]),
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
    ]
