"""`calib card`: a device model as data sheet and in other programs' formats."""

import argparse
import sys

from calib import exporters
from calib.cli import console, print_json

name = "card"
summary = "write a device model's data sheet and cards for other programs"
example = "calib card device.nc -o cards --format html,json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("device", metavar="DEVICE", help="device model: a path, or a bundled name (calib models list)")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder to write into")
    parser.add_argument(
        "--format",
        default="all",
        metavar="FORMAT,...",
        help=f"all (default), or some of {', '.join(exporters.names())} separated by commas",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a list of objects with the keys format, path, carries and omits (a list of sentences)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the cards, then say what each cannot express."""
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
    for row in rows:
        console.text(f"written: {row['path']}")
        console.text(f"  {row['format']} carries {row['carries']}")
        for sentence in row["omits"]:
            console.text(f"  leaves out: {sentence}")
    return 0


member = sys.modules[__name__]
