"""`calib card`: a device model as data sheet and in other programs' formats."""

import argparse
import sys

from calib import exporters
from calib.cli import console, print_json
from calib.errors import OptionError

name = "card"
summary = "write a device model's data sheet and cards for other programs"
example = "calib card device.nc -o cards --format html,json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "device", metavar="DEVICE", nargs="?", help="device model: a path, or a bundled name (calib models list)"
    )
    parser.add_argument("-o", "--output", metavar="DIR", help="folder to write into")
    parser.add_argument(
        "--format",
        default="all",
        metavar="FORMAT,...",
        help=f"all (default), or some of {', '.join(exporters.names())} separated by commas",
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="write nothing: list the formats with what each carries and, with DEVICE, what of it each leaves out",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a list of objects with the keys format, path, carries and omits (a list of sentences); with --list "
        "the keys format, suffix, carries and omits (null without DEVICE)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the cards, then say what each cannot express."""
    if args.list:
        return _list(args)
    if args.device is None or args.output is None:
        raise OptionError(
            "give a device model and -o FOLDER, as in 'calib card device.nc -o cards'; 'calib card --list' lists the "
            "formats"
        )
    from calib.device_model import open_device

    chosen = exporters.wanted(args.format)
    tree = open_device(args.device)
    rows = []
    for name in chosen:
        member = exporters.exporter(name)
        for path in exporters.export(tree, args.output, [name]):
            rows.append({"format": name, "path": str(path), "carries": member.carries, "omits": member.omits(tree)})
    if args.json:
        print_json(rows)
        return 0
    for name in chosen:
        here = [row for row in rows if row["format"] == name]
        for row in here:
            console.text(f"written: {row['path']}")
        for row in here[:1]:
            console.text(f"  {name} carries {row['carries']}")
            for sentence in row["omits"]:
                console.text(f"  leaves out: {sentence}")
    return 0


def _list(args: argparse.Namespace) -> int:
    rows = [row for row in exporters.listing(args.device) if row["format"] in exporters.wanted(args.format)]
    if args.json:
        print_json(rows)
        return 0
    console.table("Formats of cards", ("format", "files end in", "carries"), [
        (row["format"], row["suffix"], row["carries"]) for row in rows
    ])  # fmt: skip
    for row in rows:
        for sentence in row["omits"] or ():
            console.text(f"  {row['format']} leaves out: {sentence}")
    return 0


member = sys.modules[__name__]
