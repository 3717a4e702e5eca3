"""``calib data``: the image data sets and where they are."""

import argparse
import sys
from typing import Any

from calib import cifar, idx, vision
from calib.cli import console, print_json

name = "data"
summary = "list the image data sets, or fetch one"
example = "calib data fetch mnist"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `list` and `fetch`."""
    actions = parser.add_subparsers(dest="action", metavar="list|fetch", required=True)
    listing = actions.add_parser("list", help="name, size, licence and place of every data set")
    listing.add_argument(
        "--json",
        action="store_true",
        help="print a list of objects with the keys name, train, test, image_shape, title, licence, place, available",
    )
    fetching = actions.add_parser("fetch", help="download a data set and check it")
    fetching.add_argument("name", metavar="NAME", help=f"one of {', '.join(vision.names())}")
    fetching.add_argument("--data-folder", metavar="DIR", help="where to put it (default: the download cache)")


def run(args: argparse.Namespace) -> int:
    """List or fetch."""
    return _fetch(args) if args.action == "fetch" else _list(args.json)


def _list(as_json: bool) -> int:
    rows = [_row(known) for known in vision.names()]
    if as_json:
        print_json(rows)
        return 0
    console.table(
        "Image data sets",
        ("name", "train", "test", "image", "place", "licence", "source"),
        [
            (
                r["name"],
                r["train"],
                r["test"],
                "x".join(map(str, r["image_shape"])),
                r["place"],
                r["licence"],
                r["title"],
            )
            for r in rows
        ],
    )
    return 0


def _row(known: str) -> dict[str, Any]:
    if known == "digits":
        data = vision.load(known)
        return {
            "name": known,
            "train": len(data.train_labels),
            "test": len(data.test_labels),
            "image_shape": data.image_shape,
            "title": vision.DIGITS_TITLE,
            "licence": vision.DIGITS_LICENCE,
            "place": "with scikit-learn",
            "available": True,
        }
    place = vision.locate(known)
    sizes = (cifar.N_TRAIN, cifar.N_TEST, cifar.SHAPE, cifar.TITLE, cifar.LICENCE)
    if known in idx.IDX_SETS:
        one = idx.IDX_SETS[known]
        sizes = (one.n_train, one.n_test, one.image_shape, one.title, one.licence)
    return {
        "name": known,
        **dict(zip(("train", "test", "image_shape", "title", "licence"), sizes, strict=True)),
        "place": str(place) if place else f"not here: calib data fetch {known}",
        "available": place is not None,
    }


def _fetch(args: argparse.Namespace) -> int:
    folder = None
    if args.name != "digits":
        console.note(f"fetching {args.name}")
        folder = vision.fetch(args.name, data_folder=args.data_folder)
    data = vision.load(args.name, data_folder=folder)
    shape = " x ".join(map(str, data.image_shape))
    console.text(f"{data.name}: {len(data.train_labels)} + {len(data.test_labels)} images of {shape}; {data.source}")
    console.text(f"place: {folder or 'with scikit-learn'}")
    if args.data_folder and folder:
        console.text(f"use it with --data-folder {args.data_folder}, or CALIB_DATA={args.data_folder}")
    return 0


member = sys.modules[__name__]
