"""`calib requirements`: how large each nonideality may be."""

import argparse
import sys

from calib.cli import console, print_json

name = "requirements"
summary = "say how large each nonideality may be for a stated loss of accuracy"
example = "calib requirements run --device ddas04-rram --loss 1 -o requirements.nc --figure requirements.svg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("trained", metavar="RUN", help="folder that 'calib train' made")
    parser.add_argument("--device", metavar="DEVICE", help="device model (default: the one of the run)")
    parser.add_argument(
        "--loss",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="points that an effect may cost (default 1)",
    )
    parser.add_argument(
        "--effect",
        action="append",
        metavar="NAME",
        help="'stuck devices', 'programming spread', 'I-V nonlinearity', 'read noise' or 'line resistance'; repeat for "
        "several (default: all, line resistance with linear devices alone)",
    )
    parser.add_argument("--alone", action="store_true", help="leave the other effects of the device out")
    parser.add_argument("-o", "--output", metavar="FILE.nc", help="file to write the curves to")
    parser.add_argument("--figure", metavar="FILE", help="picture to draw, .svg, .pdf or .png")
    parser.add_argument("--chips", type=int, default=25, help="chips for each network (default 25)")
    parser.add_argument("--seed", type=int, default=0, help="of the chips (default 0)")
    parser.add_argument("--array", metavar="TEXT", help="array in place of the run's, as rows=128,adc_bits=8")
    parser.add_argument("--data", metavar="PATH", help="where the images are, if not where they were in training")
    parser.add_argument(
        "--extrapolate", action="store_true", help="accept an input voltage beyond the validity of the device model"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a list of objects with the keys effect, quantity, unit, at_most, at_most_low, at_most_high (95 %% "
        "interval), largest_tried, present (the size that the device has)",
    )


def run(args: argparse.Namespace) -> int:
    """Compute the requirements and print one line for each effect."""
    from calib import figure_files, requirements

    figure_files.check(args.figure)
    steps = requirements.most_steps(args.trained, args.device, args.effect, args.array, args.extrapolate)
    with console.progress(steps, "requirements") as advance:
        found = requirements.requirements(
            args.trained, args.device, loss=args.loss, effects=args.effect, alone=args.alone, chips=args.chips,
            seed=args.seed, array=args.array, extrapolate=args.extrapolate, data_folder=args.data, output=args.output,
            progress=advance,
        )  # fmt: skip
    if args.figure:
        from calib.budget_figures import requirements_figure

        figure_files.write(requirements_figure(found), args.figure)
    rows = requirements.rows(found)
    if args.json:
        print_json(rows)
        return 0
    shown = []
    for row in rows:
        most, interval, present = requirements.shown(row)
        shown.append((row["effect"], row["quantity"], most, interval, present))
    columns = ("effect", "size", "at most", "95 % interval", "the device has")
    console.table(f"Sizes that cost {args.loss:g} points of accuracy", columns, shown)
    console.text(found.attrs["protocol"])
    for path in filter(None, (args.output, args.figure)):
        console.text(f"written: {path}")
    return 0


member = sys.modules[__name__]
