"""Parts of a report on what effects cost: error budgets and requirements."""

import math
from typing import Any

from calib.report_files import ResultFile
from calib.report_parts import PERCENT, Part, Table, joined, title_of


def budget_part(file: ResultFile) -> Part:
    """Return what each effect costs, ranked."""
    from calib import budget
    from calib.budget_figures import budget_figure

    rows = budget.rows(file.data)
    whole = budget.sentences(file.data)[0]
    table = Table(
        "Effects by what is gained without each of them, in points of accuracy, with 95 % intervals",
        ("effect", "what it is", "cost: gained without it", "cost alone", "energy that it adds"),
        [
            (
                row["effect"],
                row["description"],
                budget.points(row["cost_removed_points"], row["cost_removed_points_half"]),
                budget.points(row["cost_alone_points"], row["cost_alone_points_half"]),
                "" if math.isnan(row["energy_removed_share"]) else f"{PERCENT * row['energy_removed_share']:+.2g} %",
            )
            for row in rows
        ],
        wide=True,
    )
    caption = (
        "What each effect costs in accuracy (left) and adds in energy (right), where it is taken away from all, and "
        "where it acts alone; lines are 95 % intervals."
    )
    notes = (
        str(file.data.attrs["protocol"]),
        "Cost: error with all effects less the error without this one; alone: with this effect less without any.",
    )
    return Part(
        title_of(file), (f"{_ranked(rows)}.", f"{whole[0].upper()}{whole[1:]}."),
        (("budget", caption, budget_figure(file.data)),), (table,), notes,
    )  # fmt: skip


def _ranked(rows: list[dict[str, Any]]) -> str:
    """Return which effects cost how much, and which cost nothing that can be told."""
    from calib import budget

    told, untold = [], []
    for row in rows:
        value, half = row["cost_removed_points"], row["cost_removed_points_half"]
        if half == half and abs(value) <= half:
            untold.append(row["effect"])
        else:
            told.append((row["effect"], value, budget.points(abs(value), half)))
    costs = [(name, text) for name, value, text in told if value >= 0]
    gains = [f"{name} {_verb('gain', name)} {text} points" for name, value, text in told if value < 0]
    parts = [f"{name} {text}" for name, text in costs]
    if parts:
        name, text = costs[0]
        parts[0] = f"{name} {_verb('cost', name)} {text} points"
    text = "; ".join(filter(None, (", ".join(parts), ", ".join(gains))))
    if untold:
        verb = "has" if len(untold) == 1 and not untold[0].endswith("s") else "have"
        text += f"{'; ' if text else ''}{joined(untold)} {verb} no cost that can be told from 0"
    return f"{text[0].upper()}{text[1:]}" if text else "No effect was taken away"


def _verb(verb: str, effect: str) -> str:
    return verb if effect.endswith("s") else f"{verb}s"


def requirements_part(file: ResultFile) -> Part:
    """Return the sizes of effects at which the loss is the one allowed."""
    from calib import requirements
    from calib.budget_figures import requirements_figure

    allowed_points = PERCENT * float(file.data.attrs["allowed_loss"])
    points = f"{allowed_points:g} {'point' if allowed_points == 1 else 'points'}"
    rows = requirements.rows(file.data)
    cells = [(row["effect"], row["quantity"], *requirements.shown(row)) for row in rows]
    allowed = [
        f"{effect} up to {most}{f' (95 % {interval})' if interval else ''}" for effect, _, most, interval, _ in cells
    ]
    beyond = [
        f"{row['effect']} ({cell[4]})" for row, cell in zip(rows, cells, strict=True) if row["present"] > row["at_most"]
    ]
    sentence = f"The loss stays under {points} with {joined(allowed)}"
    sentence += (
        f"; the device has more than that of {joined(beyond)}." if beyond else "; the device keeps to all of them."
    )
    table = Table(
        f"Sizes at which an effect costs {points} of accuracy",
        ("effect", "what is scaled", "at most", "95 % interval", "the device has"), cells,
    )  # fmt: skip
    caption = (
        "Loss of accuracy against the size of each effect: means with 95 % intervals (points, band), the fit that "
        f"never decreases (line), the allowed {points} (dashed), where the two cross, with its interval "
        "(purple), and what the device has (dotted)."
    )
    figure = requirements_figure(file.data)
    return Part(
        title_of(file), (sentence,), (("requirements", caption, figure),), (table,), (str(file.data.attrs["protocol"]),)
    )
