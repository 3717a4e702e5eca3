"""`calib report`: results -> one HTML page."""

import argparse
import sys

from calib.cli import console, print_json

name = "report"
summary = "write a report of results of any kind: one page with tables, figures and provenance"
example = "calib report results.nc budget.nc uncertainty.nc -o report.html"

JSON_KEYS = (
    "run, trained_on, device, error_median, error_median_low and error_median_high (95 %% interval of the median), "
    "error_low and error_high (5 and 95 %% of the chips), energy_per_inference_joule (mean), efficiency_tops_per_watt "
    "(at the mean power), error_over_ideally_trained (null where there are no such networks), networks, chips"
)
"""The keys of each row of the summary that `--json` prints."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS.nc",
        help="files that 'calib evaluate', 'budget', 'requirements', 'uncertainty' or 'robustness' wrote, in any mix",
    )
    parser.add_argument("-o", "--output", required=True, metavar="REPORT.html", help="the page to write")
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="DEVICE",
        help="device model of which an excerpt is shown; repeat for several (bundled ones are found by themselves)",
    )
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        dest="run_folder",
        metavar="RUN",
        help="run folder, for training curves and devices that the files do not hold; repeat for several (those beside "
        "the files are found by themselves)",
    )
    parser.add_argument(
        "--yield-above",
        type=float,
        metavar="ACCURACY",
        help="where robustness is shown, also say how many chips reach an accuracy (0 to 1)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print an object with the keys report (path), files (a list of objects with the keys file and kind) and "
        f"summary, a list of objects with the keys {JSON_KEYS}",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from calib.outcomes import outcomes, summary_json
    from calib.report import report
    from calib.report_evaluation import lead
    from calib.report_files import open_results

    path = report(args.results, args.output, devices=args.device, runs=args.run_folder, yield_above=args.yield_above)
    opened = open_results(args.results)
    evaluations = [file.data for file in opened if file.kind.name == "evaluation"]
    if args.json:
        kinds = [{"file": file.name, "kind": file.kind.name} for file in opened]
        print_json({"report": str(path), "files": kinds, "summary": summary_json(evaluations)})
        return 0
    if evaluations:
        console.text(lead(outcomes(evaluations)))
    for file in opened:
        console.text(f"{file.name}: {file.kind.name}")
    console.text(f"written: {path}")
    return 0


member = sys.modules[__name__]
