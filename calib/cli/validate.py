"""`calib validate`: a device model against measurements that it was not fitted to."""

import argparse
import sys

from calib.cli import console, print_json

name = "validate"
summary = "compare a device model with measurements that it was not fitted to"
example = "calib validate device.nc other-devices.xlsx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from calib.reading_options import add_reading_arguments

    parser.add_argument("device", metavar="DEVICE", help="device model: a path, or a bundled name (calib models list)")
    parser.add_argument("files", nargs="+", metavar="FILE", help="measurement files, folders or patterns")
    add_reading_arguments(parser)
    parser.add_argument("--population", metavar="NAME", help="population of the files to compare with")
    parser.add_argument("--seed", type=int, default=0, help="of the draws from the model (default 0)")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print an object: verdict, coverage_50 and coverage_90 with mean, low, high; same_sources (files that the "
        "model was fitted to)",
    )


def run(args: argparse.Namespace) -> int:
    """Read, draw, compare, print."""
    import json

    from calib import describe, device_model, reading, validation
    from calib.measurement import notes_of
    from calib.reading_options import options_from

    model = device_model.open_device(args.device)
    measurement = reading.read(args.files, **options_from(args))
    for node in measurement.children.values():
        for sentence in notes_of(node, "questions"):
            console.warn(sentence)
    fitted_to = {source["sha256"] for source in device_model.attribute(model, "sources")}
    same = [s["name"] for s in json.loads(measurement.attrs["sources"]) if s["sha256"] in fitted_to]
    if same:
        console.warn(
            f"the model was fitted to {', '.join(same)}: this says how well it fits, not how well it predicts; give "
            "other devices, or fit with --holdout"
        )
    found = validation.validate(model, measurement, population=args.population, seed=args.seed)
    if args.json:
        print_json({**describe.validation_json(found), "same_sources": same})
        return 0
    console.section(describe.validation_section(found))
    return 0


member = sys.modules[__name__]
