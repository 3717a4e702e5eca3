"""`calib convert`: measurement files -> one Measurement as netCDF."""

import argparse
import sys
from pathlib import Path

from calib.cli import console, print_json
from calib.errors import OptionError

name = "convert"
summary = "keep everything that measurement files hold in one netCDF file, in SI units"
example = "calib convert chip7/ -o chip7.nc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from calib.reading_options import add_reading_arguments

    parser.add_argument("files", nargs="+", metavar="FILE", help="measurement files, folders or patterns")
    parser.add_argument("-o", "--output", required=True, metavar="MEASUREMENT.nc", help="the file to write")
    add_reading_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the keys of calib.inspection.describe")


def run(args: argparse.Namespace) -> int:
    """Read all files into one Measurement and save it; reading it back gives the same."""
    from calib import inspection, measurement, reading
    from calib.reading_options import options_from

    output = Path(args.output)
    if output.suffix != ".nc":
        raise OptionError(f"the measurement is written as netCDF: give a name that ends in .nc, not '{output.name}'")
    tree = reading.read(args.files, **options_from(args))
    found = inspection.describe(tree)
    measurement.save(tree, output)
    if args.json:
        print_json({"path": str(output), **found})
        return 0
    for sentence in found["questions"]:
        console.warn(sentence)
    inside = "; ".join(inspection.sentence(node, part) for node, parts in found["nodes"].items() for part in parts)
    console.text(f"written: {output} ({len(found['sources'])} files: {inside}); next: calib fit {output} -o device.nc")
    return 0


member = sys.modules[__name__]
