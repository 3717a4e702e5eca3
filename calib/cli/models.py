"""`calib models`: the device models that come with calib."""

import argparse
import sys
from typing import Any

from calib import data_folder
from calib.cli import console, print_json

name = "models"
summary = "list the bundled device models, or say where one lies"
example = "calib models path siox-high-resistance"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `list` and `path`."""
    actions = parser.add_subparsers(dest="action", metavar="list|path", required=True)
    listing = actions.add_parser("list", help="name, technology, conductance range and what each model holds")
    listing.add_argument(
        "--json",
        action="store_true",
        help="print a list of objects with the keys name, technology, citation, characteristics (list), g_off and g_on "
        "[S, null where not known], identity, path",
    )
    place = actions.add_parser("path", help="print the file of a model")
    place.add_argument("name", metavar="NAME", help="a name that 'calib models list' prints")
    place.add_argument("--json", action="store_true", help="print an object with the keys name and path")


def run(args: argparse.Namespace) -> int:
    """List the models, or print a path."""
    if args.action == "path":
        path = str(data_folder.bundled_model_path(args.name))
        if args.json:
            print_json({"name": args.name, "path": path})
        else:
            console.text(path)
        return 0
    rows = [_row(known) for known in data_folder.bundled_model_names()]
    if args.json:
        print_json(rows)
        return 0
    columns = ("name", "technology", "G_off", "G_on", "characteristics")
    console.table("Bundled device models", columns, [_cells(row) for row in rows])
    console.text("use a name wherever a device model is asked for, as in: calib show NAME")
    return 0


def _row(known: str) -> dict[str, Any]:
    from calib.device_model import identity, open_device

    path = data_folder.bundled_model_path(known)
    tree = open_device(path)
    bounds: dict[str, float | None] = {"g_off": None, "g_on": None}
    if "conductance" in tree.children:
        node = tree["conductance"].to_dataset()
        bounds = {key: float(node[key]) for key in bounds}
    return {
        "name": known,
        "technology": str(tree.attrs.get("technology", "")),
        "citation": str(tree.attrs.get("citation", "")),
        "characteristics": [str(node) for node in tree.children if node != "examples"],
        **bounds,
        "identity": identity(tree),
        "path": str(path),
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    from calib.formatting import UNKNOWN, format_quantity

    bounds = [UNKNOWN if row[key] is None else format_quantity(row[key], "S") for key in ("g_off", "g_on")]
    return (row["name"], row["technology"], *bounds, ", ".join(row["characteristics"]))


member = sys.modules[__name__]
