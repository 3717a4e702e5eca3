"""`calib diff`: what differs between two device models, and whether it is more than their uncertainty."""

import argparse
import sys

from calib.cli import console, print_json

name = "diff"
summary = "say what differs between two device models, and whether it is more than their uncertainty"
example = "calib diff before.nc after.nc"

JSON_KEYS = (
    "schema ('calib-diff/1'); statement (a sentence); identical; level (of the decision, over all comparisons); models "
    "(of a and b: name, identity, iv_model); differences (list of characteristic, state, quantity, label, unit, a, b, "
    "difference = b - a, low, high (95 % interval of the difference), z, p, p_holm, more_than_uncertainty (null where "
    "an uncertainty is not known), n_a, n_b, validity_a, validity_b; SI units); not_comparable (list of "
    "characteristic, state, quantity, a, b, why); only_a, only_b (estimates of one model); texts, options, sources "
    "(what is not the same: key, a, b); shared_sources (files that both were fitted to); warnings (sentences)"
)
"""The keys that `--json` prints."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("a", metavar="A", help="device model: a path, or a bundled name (calib models list)")
    parser.add_argument("b", metavar="B", help="device model to compare with it; differences are B - A")
    parser.add_argument(
        "--level",
        type=float,
        default=0.05,
        metavar="P",
        help="probability of calling any difference of equal populations more than their uncertainty, over all "
        "comparisons together (Holm; default 0.05)",
    )
    parser.add_argument("--changed", action="store_true", help="list only what differs by more than its uncertainty")
    parser.add_argument(
        "--json", action="store_true", help=f"print an object with the keys {JSON_KEYS}".replace("%", "%%")
    )


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    from calib import model_diff
    from calib.exporters._text import one_line

    found = model_diff.diff(args.a, args.b, level=args.level)
    if args.json:
        print_json(model_diff.as_json(found))
        return 0
    for letter, model in zip("ab", found.models, strict=True):
        law = f", {model['iv_model']}" if model["iv_model"] else ""
        console.text(f"{letter}: {one_line(model['name'])}{law}, identity {model['identity'][:16]}")
    for sentence in found.warnings:
        console.warn(one_line(sentence))
    for section in model_diff.sections(found, every=not args.changed):
        console.section(section)
    return 0


member = sys.modules[__name__]
