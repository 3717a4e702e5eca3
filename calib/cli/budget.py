"""`calib budget`: what each nonideality costs in accuracy and energy."""

import argparse
import sys

from calib.cli import _networks, console, print_json

name = "budget"
summary = "say what each nonideality costs in accuracy and energy"
example = "calib budget run --device ddas04-rram --chips 25 -o budget.nc --figure budget.svg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("trained", metavar="RUN", help="folder that 'calib train' made")
    parser.add_argument("--device", metavar="DEVICE", help="device model (default: the one of the run)")
    parser.add_argument("-o", "--output", metavar="BUDGET.nc", help="file to write the errors of each chip to")
    _networks.add_figure(parser, "picture to draw")
    _networks.add_options(parser, chips=25, array=True, read_time=True)
    parser.add_argument("--time", type=float, default=0.0, metavar="S", help="time since programming in seconds")
    _networks.add_conditions(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a list of objects with the keys effect, description, cost_removed_points, cost_alone_points (of "
        "accuracy), energy_removed_joule, energy_alone_change_joule, each also with _half (half of its 95 %% "
        "interval), and energy_removed_share (of the energy with all effects)",
    )


def run(args: argparse.Namespace) -> int:
    """Compute the budget and print a ranked table and sentences."""
    from calib import budget, figure_files
    from calib.nonidealities.base import Conditions

    figure_files.check(args.figure)
    conditions = Conditions(args.time, args.reads, args.temperature, args.compensate)
    opened, _, whole = budget.hardware_of(args.trained, args.device, conditions, args.array, args.extrapolate)
    steps = opened.options.networks * len(budget.all_variants(whole))
    with console.progress(steps, "budget") as advance:
        found = budget.budget(args.trained, args.device, time=args.time, progress=advance, **_networks.keywords(args))
    if args.figure:
        from calib.budget_figures import budget_figure

        figure_files.write(budget_figure(found), args.figure)
    rows = budget.rows(found)
    if args.json:
        print_json(rows)
        return 0
    columns = ("effect", "what is gained without it, points", "cost alone, points", "energy without it")
    shown = [
        (
            row["effect"],
            budget.points(row["cost_removed_points"], row["cost_removed_points_half"]),
            budget.points(row["cost_alone_points"], row["cost_alone_points_half"]),
            f"{-100 * row['energy_removed_share']:+.2f} %",
        )
        for row in rows
    ]
    console.table(f"Error budget of {found.attrs['device']}, +- 95 % interval", columns, shown)
    for sentence in budget.sentences(found):
        console.text(f"- {sentence}")
    console.text(found.attrs["protocol"])
    _networks.say_written(args.output, args.figure)
    return 0


member = sys.modules[__name__]
