"""`calib inspect`: what is in measurement files."""

import argparse
import sys
from pathlib import Path
from typing import Any

from calib.cli import console, print_json
from calib.errors import CalibError, OptionError, ReadError

name = "inspect"
summary = "show what measurement files hold: kinds, devices, cycles, ranges, flags, open questions"
example = "calib inspect sweeps.xlsx --columns voltage=0,current=1 --units current=uA"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from calib.reading_options import add_reading_arguments

    parser.add_argument("files", nargs="+", metavar="FILE", help="measurement files, folders or patterns")
    add_reading_arguments(parser)
    parser.add_argument("--plot", metavar="FILE.png", help="draw what was read as a small picture (.png or .svg)")
    parser.add_argument("--json", action="store_true", help="print a list with the keys of calib.inspection.describe")


def run(args: argparse.Namespace) -> int:
    """Read each file by itself and print what is in it; problems are raised together at the end."""
    from calib import inspection, measurement, reading
    from calib.reading_options import options_from

    if args.plot is not None and Path(args.plot).suffix.lower() not in (".png", ".svg"):
        raise OptionError(f"--plot '{args.plot}': expected the name of a .png or .svg file")
    options = options_from(args)
    found: list[dict[str, Any]] = []
    trees: list[Any] = []
    problems: list[CalibError] = []
    entries: list[str | Path] = list(args.files)
    paths, left_out = reading.expand(entries)
    compact = len(paths) > 1 and any(Path(entry).is_dir() for entry in entries)
    for path in paths:
        try:
            tree = reading.read(path, **options)
        except CalibError as error:
            problems.append(error)
            continue
        found.append(inspection.describe(tree))
        trees += [tree] if args.plot is not None else []
        if not args.json and not compact:
            _show(found[-1])
    if args.json:
        print_json(found)
    elif compact:
        _show_folder(found, left_out)
    if trees and args.plot is not None:
        from calib.measurement_figures import save_figure

        save_figure(measurement.merge(trees), args.plot)
        console.note(f"written: {args.plot}")
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ReadError("\n".join([f"{len(problems)} files cannot be read", *(f"  {problem}" for problem in problems)]))
    return 0


def _show_folder(found: list[dict[str, Any]], left_out: list[str]) -> None:
    """Print one row per file, and then what is asked."""
    from calib import inspection

    rows = [
        (
            ", ".join(source["name"] for source in one["sources"]),
            ", ".join(dict.fromkeys(source["reader"] for source in one["sources"])),
            "; ".join(inspection.sentence(node, part) for node, parts in one["nodes"].items() for part in parts),
            len(one["questions"]),
        )
        for one in found
    ]
    console.table(f"{len(found)} files", ("file", "reader", "found", "questions"), rows)
    questions = list(dict.fromkeys(sentence for one in found for sentence in one["questions"]))
    for title, sentences in (("questions", questions), ("notes", left_out)):
        if sentences:
            console.text(f"{title}:")
            for sentence in sentences:
                console.text(f"  - {sentence}")


def _show(found: dict[str, Any]) -> None:
    from calib import inspection

    for source in found["sources"]:
        console.text(f"{source['name']}: reader {source['reader']} ({source['why']}), sha256 {source['sha256'][:12]}")
    for node, populations in found["nodes"].items():
        for population in populations:
            label = population["population"]
            console.table(
                f"{node}{f', population {label}' if label else ''}",
                ("what", "found"),
                inspection.rows(node, population),
            )
    for title, sentences in (("questions", found["questions"]), ("notes", found["notes"])):
        if sentences:
            console.text(f"{title}:")
            for sentence in sentences:
                console.text(f"  - {sentence}")
    console.text()


member = sys.modules[__name__]
