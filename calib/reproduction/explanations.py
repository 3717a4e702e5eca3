"""Why ours differ from the published numbers, in sentences that follow from the numbers."""

import json

import xarray as xr

from calib.reproduction import results
from calib.reproduction.experiments import PAPER_FORM, STANDARD
from calib.reproduction.published import ROUNDING
from calib.reproduction.results import BANDED, OTHER_RECIPES, Row, band, has
from calib.reproduction.settings import PAPER, Recipe

LENGTH = (
    "the noise of a hidden unit's input is proportional to max|w|, which grows with the length of training while the "
    "ideal error stays"
)
_SAME = 5e-4
"""Difference of error below which a published range of whole percents is met."""


def explanation(found: xr.Dataset, row: Row) -> list[str]:
    """Return what explains the difference of a row; nothing where no number was published."""
    published = row.published
    if published is None:
        return []
    said = []
    if published.calibrated:
        said.append("calibrated, not predicted: the published number served to choose s2 = 0.31")
    elif abs(row.difference) < _SAME:
        said.append("inside the published range")
    elif row.interval[0] <= row.error - row.difference <= row.interval[1]:
        said.append("the 95 % interval of our median holds the published number")
    else:
        said.append(f"{abs(100 * row.difference):.1f} points {'above' if row.difference > 0 else 'below'}")
    said += _band(found, row)
    if abs(row.difference) >= _SAME or published.efficiency is not None:
        said += _training(found)
    if published.efficiency is not None:
        said.append(_efficiency(row.efficiency / published.efficiency))
    if published.note:
        said.append(published.note)
    return said


def _band(found: xr.Dataset, row: Row) -> list[str]:
    """Return what the unpublished covariance leaves open, and, for standard training, the recipe and the form."""
    if row.setup != "siox-high" or row.training not in BANDED:
        return []
    standard = row.training == STANDARD
    said = []
    for training, words in ((row.training, ""), *(OTHER_RECIPES.items() if standard else ())):
        found_band = band(found, training, row.redraw)
        if found_band is not None:
            low, high = found_band
            by = f" with {words}" if words else ""
            said.append(f"over s2 = 0.28 to 0.374 ours is {100 * low:.1f} to {100 * high:.1f} %{by}")
    if has(found, (row.training, PAPER_FORM)):
        other = results.row(found, "covariance", (row.training, PAPER_FORM), row.redraw)
        said.append(f"with the paper's form of the law it is {100 * other.error:.1f} %")
    if standard:
        said.append(LENGTH)
    return said


def _training(found: xr.Dataset) -> list[str]:
    settings = json.loads(found.attrs["settings"])
    recipe, said = Recipe(**settings["recipe"]), []
    if recipe != PAPER.recipe:
        said.append("another training recipe")
    if settings["networks"] < PAPER.networks:
        said.append(f"{settings['networks']} instead of {PAPER.networks} networks")
    return said


def _efficiency(ratio: float) -> str:
    percent = f"efficiency {100 * abs(ratio - 1):.0f} % {'above' if ratio > 1 else 'below'}"
    if abs(ratio - 1) <= ROUNDING:
        return f"{percent}, which the rounding of the published coefficients explains"
    return f"{percent}: rounding explains {100 * ROUNDING:.0f} %, the rest is where training leaves the conductances"
