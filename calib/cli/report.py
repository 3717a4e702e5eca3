"""`calib report`: results -> one HTML page."""

import argparse
import sys

from calib.cli import console, print_json

name = "report"
summary = "write a report of results: one page with tables, figures and provenance"
example = "calib report results.nc -o report.html"

JSON_KEYS = (
    "run, trained_on, device, error_median, error_median_low and error_median_high (95 %% interval of the median), "
    "error_low and error_high (5 and 95 %% of the chips), energy_per_inference_joule (mean), efficiency_tops_per_watt "
    "(at the mean power), error_over_ideally_trained (null where there are no such networks), networks, chips"
)
"""The keys of each row of the summary that `--json` prints."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("results", nargs="+", metavar="RESULTS.nc", help="files that 'calib evaluate' wrote")
    parser.add_argument("-o", "--output", required=True, metavar="REPORT.html", help="the page to write")
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="DEVICE",
        help="device model of which an excerpt is shown; repeat for several (bundled ones are found by themselves)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help=f"print an object with the keys report (path) and summary, a list of objects with the keys {JSON_KEYS}",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from calib.evaluation import open_results
    from calib.outcomes import outcomes, summary_json
    from calib.report import lead, report

    path = report(args.results, args.output, devices=args.device)
    results = [open_results(item) for item in args.results]
    if args.json:
        print_json({"report": str(path), "summary": summary_json(results)})
        return 0
    console.text(lead(outcomes(results)))
    console.text(f"written: {path}")
    return 0


member = sys.modules[__name__]
