"""`calib show`: what a device model holds."""

import argparse
import sys

from calib.cli import console, print_json

name = "show"
summary = "show a device model: estimates, intervals, sample sizes, goodness of fit, warnings"
example = "calib show device.nc"

JSON_KEYS = (
    "schema ('calib-show/1'); name, technology, citation, license, calib_version, created (text); identity (SHA-256 of "
    "the model's content); law (null, or name, expression, form, reference_voltage [V], v_min, v_max [V], polarity, "
    "temperature [K] or null); estimates (list of characteristic, state, quantity, label, value, unit, stderr, low, "
    "high, interval, n, method, validity; SI units, null where not known); conductance_table (list of state, "
    "read_voltage [V], minimum, median, maximum [S], n, n_censored); validation (null, or verdict, coverage_50 and "
    "coverage_90 with mean, low, high); warnings, assumptions, absent (lists of sentences); options (what the fit was "
    "asked for); sources (list of name, sha256)"
)
"""The keys that `--json` prints."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("device", metavar="DEVICE", help="device model: a path, or a bundled name (calib models list)")
    parser.add_argument("--json", action="store_true", help=f"print an object with the keys {JSON_KEYS}")


def run(args: argparse.Namespace) -> int:
    """Print every section of the model."""
    from calib.describe import PLAIN_SECTIONS, describe, describe_json
    from calib.device_model import open_device

    tree = open_device(args.device)
    if args.json:
        print_json(describe_json(tree))
        return 0
    for section in describe(tree):
        if section.title in PLAIN_SECTIONS:
            console.text(section.title)
            for row in section.rows:
                console.text(f"  - {': '.join(row)}")
        else:
            console.table(section.title, section.columns, section.rows)
        for note in section.notes:
            console.text(f"  {note}")
        if section.notes or section.title in PLAIN_SECTIONS:
            console.text()
    return 0


member = sys.modules[__name__]
