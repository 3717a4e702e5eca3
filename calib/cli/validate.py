"""`calib validate`: a device model against measurements that it was not fitted to."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from calib.cli import console, print_json
from calib.errors import OptionError

name = "validate"
summary = "compare a device model with measurements that it was not fitted to"
example = "calib validate device.nc other-devices.xlsx --report validation.html"
FIGURE_SUFFIXES = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from calib.reading_options import add_reading_arguments

    parser.add_argument("device", metavar="DEVICE", help="device model: a path, or a bundled name (calib models list)")
    parser.add_argument("files", nargs="+", metavar="FILE", help="measurement files, folders or patterns")
    add_reading_arguments(parser)
    parser.add_argument("--population", metavar="NAME", help="population of the files to compare with")
    parser.add_argument("--seed", type=int, default=0, help="of the draws from the model (default 0)")
    parser.add_argument("--report", metavar="FILE.html", help="write verdict, figures and tables as one HTML page")
    parser.add_argument(
        "--figure", metavar="FILE", help="write coverage, probability transforms and quantiles (.png, .svg or .pdf)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print an object: verdict, findings, coverage_50 and coverage_90 with mean, low, high, coverage_curve_90 "
        "(the same by state), interval_score_ratio, distances (quantity, state, at, coverage_90, ks, ks_p, "
        "wasserstein, wasserstein_p, n_devices, n_values), files; same_sources (files that the model was fitted to)",
    )


def run(args: argparse.Namespace) -> int:
    """Read, draw, compare, print."""
    from calib import device_model, files, reading, validation, validation_tables
    from calib.measurement import notes_of
    from calib.reading_options import options_from

    _check_names(args)
    model = device_model.open_device(args.device)
    measurement = reading.read(args.files, **options_from(args))
    for node in measurement.children.values():
        for sentence in notes_of(node, "questions"):
            console.warn(sentence)
    fitted_to = {source["sha256"] for source in device_model.attribute(model, "sources")}
    sources = json.loads(measurement.attrs["sources"])
    same = [source["name"] for source in sources if source["sha256"] in fitted_to]
    if same:
        console.warn(
            f"the model was fitted to {', '.join(same)}: this says how well it fits, not how well it predicts; give "
            "other devices, or fit with --holdout"
        )
    found = validation.validate(model, measurement, population=args.population, seed=args.seed)
    written = []
    if args.report:
        from calib.validation_report import validation_page

        files.write_text(args.report, validation_page(found, model, sources))
        written.append(args.report)
    if args.figure:
        _write_figure(found, Path(args.figure))
        written.append(args.figure)
    if args.json:
        print_json({**validation_tables.validation_json(found), "files": written, "same_sources": same})
        return 0
    console.section(validation_tables.validation_section(found))
    comparisons = validation_tables.comparison_section(found)
    if comparisons is not None:
        console.section(comparisons)
    if written:
        console.text(f"written: {', '.join(written)}")
    return 0


def _check_names(args: argparse.Namespace) -> None:
    if args.report and Path(args.report).suffix != ".html":
        raise OptionError(f"the report is written as HTML: give a name that ends in .html, not '{args.report}'")
    if args.figure and Path(args.figure).suffix not in FIGURE_SUFFIXES:
        raise OptionError(f"--figure '{args.figure}': give a name that ends in {', '.join(FIGURE_SUFFIXES)}")


def _write_figure(found: Any, path: Path) -> None:
    from calib import files
    from calib.validation_figures import whole_figure

    with files.atomic_write(path) as scratch:
        whole_figure(found).savefig(scratch, format=path.suffix[1:], dpi=300)


member = sys.modules[__name__]
