"""Results -> one HTML page: what networks do on devices, what that costs, how well it is known, where it is from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from calib import files
from calib.outcomes import Outcome, outcomes
from calib.report_budget import budget_part, requirements_part
from calib.report_devices import devices_of, excerpt
from calib.report_evaluation import History, evaluation_chapters, training_chapter
from calib.report_files import ResultFile, open_results, run_folders
from calib.report_parts import Chapter, Table
from calib.report_record import commands, option_rows, provenance, records_of
from calib.report_robustness import robustness_part
from calib.report_uncertainty import uncertainty_part

if TYPE_CHECKING:
    from calib.runs import Run


def report(
    results: Sequence[str | Path | xr.Dataset] | str | Path | xr.Dataset,
    output: str | Path,
    *,
    devices: Sequence[str | Path | xr.DataTree] = (),
    runs: Sequence[str | Path] = (),
    yield_above: float | None = None,
) -> Path:
    """Write an HTML report of results of any kind and return its path.

    Every kind of result has its chapter; what is not among the results is left out. Equal files give an equal report:
    it holds no path, and no time but that of the files.

    Parameters
    ----------
    results : files that `calib.evaluate`, `calib.budget`, `calib.requirements`, `calib.uncertainty` or
        `calib.robustness` made, in any mix, or what they returned.
    output : the report, one self-contained file.
    devices : device models of which an excerpt is shown; bundled ones among those evaluated, and those of run folders
        beside the files, are found by themselves.
    runs : run folders that do not lie beside the files, for training curves and devices that the files do not hold.
    yield_above : accuracy above which chips count as good where robustness is among the results.

    Raises
    ------
    ModelError
        When a file is no results file.
    OptionError
        When there are no results, or a device model or a run is not one that they come from.
    """
    opened = open_results(results)
    text = _page(opened, devices, run_folders(opened, runs), yield_above, Path(output).name)
    files.write_text(output, text)
    return Path(output)


def report_chapters(
    opened: Sequence[ResultFile], folders: "Mapping[str, Run]", yield_above: float | None = None
) -> list[Chapter]:
    """Return the chapters of a report, in order; kinds of results of which there are none have no chapter."""
    evaluations = [file for file in opened if file.kind.name == "evaluation"]
    found = outcomes([file.data for file in evaluations])
    made = evaluation_chapters(found, [file.data for file in evaluations])
    made[1:1] = [_training(opened, found, folders)]
    for kind, title, part_of in (
        ("budget", "Error budget", budget_part),
        ("requirements", "Requirements", requirements_part),
        ("uncertainty", "Where the spread comes from", uncertainty_part),
        ("robustness", "Robustness", lambda file: robustness_part(file, yield_above)),
    ):
        parts = tuple(part_of(file) for file in opened if file.kind.name == kind)
        made += [Chapter(kind, title, parts)] if parts else []
    return made


def _training(opened: Sequence[ResultFile], found: Sequence[Outcome], folders: "Mapping[str, Run]") -> Chapter:
    from calib.result_figures import colours_of, run_colours

    histories: dict[str, History] = {item.label: item.history for item in found if item.history}
    labels = list(dict.fromkeys(label for file in opened for label in file.labels))
    for label in labels:
        if label not in histories and label in folders:
            histories[label] = _history(folders[label])
    unknown = [label for label in labels if label not in histories]
    ideal = {label for label, run in folders.items() if run.options.ideal and label in histories}
    colours = colours_of(list(histories), ideal) | run_colours(found)
    return training_chapter(histories, unknown, colours)


def _history(run: "Run") -> History:
    """Return the history of a run folder, column -> (network, epoch)."""
    import numpy as np

    from calib.outcomes import HISTORY

    rows = [run.history(network) for network in range(run.options.networks)]
    epochs = max(map(len, rows))
    return {
        key: np.array([[row[key] for row in each] + [np.nan] * (epochs - len(each)) for each in rows])
        for key in HISTORY
    }


def _page(
    opened: Sequence[ResultFile],
    devices: Sequence[str | Path | xr.DataTree],
    folders: "Mapping[str, Run]",
    yield_above: float | None,
    file: str,
) -> str:
    from calib import html

    records = records_of(opened, folders)
    trees = devices_of(opened, devices, [run.device for run in folders.values()])
    rows = option_rows(records)
    return html.render(
        "report.html.j2",
        chapters=[_shown(chapter) for chapter in report_chapters(opened, folders, yield_above)],
        devices=[excerpt(tree) for tree in trees],
        options=Table("What each run was asked for", ("option", *records), rows, wide=len(records) > 3),
        commands=commands(opened, file, records),
        provenance=provenance(opened, records),
    )


def _shown(chapter: Chapter) -> dict[str, Any]:
    """Return a chapter with its figures as pictures."""
    from calib import html

    parts = [
        {
            "title": part.title if len(chapter.parts) > 1 else "",
            "sentences": part.sentences,
            "warnings": part.warnings,
            "pictures": html.pictures(part.figures, f"report-{number}-" if number else "report-"),
            "tables": part.tables,
            "notes": part.notes,
        }
        for number, part in enumerate(chapter.parts)
    ]
    subject = chapter.parts[0].title if len(chapter.parts) == 1 else ""
    return {"key": chapter.key, "title": chapter.title, "subject": subject, "parts": parts}
