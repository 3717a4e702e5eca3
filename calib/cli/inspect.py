"""`calib inspect`: what is in measurement files."""

import argparse
import sys
from pathlib import Path
from typing import Any

from calib.cli import console, print_json
from calib.errors import CalibError, ReadError

name = "inspect"
summary = "show what measurement files hold: kinds, devices, cycles, ranges, flags, open questions"
example = "calib inspect sweeps.xlsx --columns voltage=0,current=1 --units current=uA"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from calib.reading_options import add_reading_arguments

    parser.add_argument("files", nargs="+", metavar="FILE", help="measurement files, folders or patterns")
    add_reading_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a list with the keys of calib.inspection.describe")


def run(args: argparse.Namespace) -> int:
    """Read each file by itself and print what is in it; problems are raised together at the end."""
    from calib import inspection, reading
    from calib.reading_options import options_from

    options = options_from(args)
    found: list[dict[str, Any]] = []
    problems: list[CalibError] = []
    entries: list[str | Path] = list(args.files)
    for path in reading.expand(entries)[0]:
        try:
            found.append(inspection.describe(reading.read(path, **options)))
        except CalibError as error:
            problems.append(error)
            continue
        if not args.json:
            _show(found[-1])
    if args.json:
        print_json(found)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ReadError("\n".join([f"{len(problems)} files cannot be read", *(f"  {problem}" for problem in problems)]))
    return 0


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
