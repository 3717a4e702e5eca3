"""`calib compare`: several results and device models side by side."""

import argparse
import sys

from calib.cli import console, print_json

name = "compare"
summary = "put several results and device models side by side, and say what differs by more than the intervals"
example = "calib compare first.nc second.nc ddas04-rram -o compare.html"

JSON_KEYS = (
    "schema ('calib-compare/1'); level; runs (list of run, device, trained_on, error_median, error_median_low, "
    "error_median_high (95 % interval of the median), error_low, error_high (5 and 95 % of the chips), error_mean, "
    "loss_points, loss_points_half (mean error less that of the same networks on ideal devices, half of its 95 % "
    "interval; null where they were not evaluated), energy_per_inference_joule, efficiency_tops_per_watt, networks, "
    "chips); differences (list of a, b, error_points, error_points_half, p_error, error_told, energy_joule, "
    "energy_joule_half, energy_share, p_energy, energy_told, how; b less a; p over all tests together (Holm)); devices "
    "(list of name, identity, estimates (characteristic, state, quantity, label, value, unit, low, high, n)); "
    "device_differences (what 'calib diff --json' prints, of each further device from the first); warnings"
)
"""The keys that `--json` prints."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "items",
        nargs="+",
        metavar="RESULTS|DEVICE",
        help="files that 'calib evaluate' wrote, and device models: paths or bundled names (calib models list)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="page or table to write: .html, .csv or .json")
    parser.add_argument(
        "--against",
        metavar="'RUN on DEVICE'",
        help="with what the others are compared (default: the first that is not on ideal devices)",
    )
    parser.add_argument("--all-pairs", action="store_true", help="compare each with each")
    parser.add_argument(
        "--level",
        type=float,
        default=0.05,
        metavar="P",
        help="probability of telling any difference where there is none, over all runs together (Holm; default 0.05)",
    )
    parser.add_argument(
        "--json", action="store_true", help=f"print an object with the keys {JSON_KEYS}".replace("%", "%%")
    )


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    from calib import comparison_tables
    from calib.comparison import compare
    from calib.exporters._text import one_line

    found = compare(
        args.items, against=args.against, all_pairs=args.all_pairs, level=args.level, output=args.output
    )  # fmt: skip
    if args.json:
        print_json(comparison_tables.as_json(found))
        return 0
    for sentence in found.warnings:
        console.warn(one_line(sentence))
    for section in comparison_tables.sections(found):
        console.section(section)
    if args.output:
        console.text(f"written: {args.output}")
    return 0


member = sys.modules[__name__]
