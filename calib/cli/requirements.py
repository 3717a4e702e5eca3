"""`calib requirements`: how large each nonideality may be."""

import argparse
import sys

from calib.cli import _networks, console, print_json

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
    _networks.add_figure(parser, "picture to draw")
    _networks.add_options(parser, chips=25, array=True)
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
            args.trained, args.device, loss=args.loss, effects=args.effect, alone=args.alone, progress=advance,
            **_networks.keywords(args),
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
    _networks.say_written(args.output, args.figure)
    return 0


member = sys.modules[__name__]
