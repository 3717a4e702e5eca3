"""`calib pareto`: the front of error against energy."""

import argparse
import sys
from typing import Any

from calib import experiment
from calib.cli import _networks, console, print_json
from calib.errors import OptionError

name = "pareto"
summary = "train networks for a front of error against energy, and evaluate them on fixed chips"
example = "calib pareto --device siox-high-resistance --dataset mnist --data mnist/ -o front --figure front.svg"
_NUMBERS = (
    ("epochs", int, None, "of each network"),
    ("learning-rate", float, None, "the largest"),
    ("batch-size", int, None, "images a step"),
    ("draws", int, None, "draws of a step"),
    ("input-voltage", float, "V", "voltage of x = 1"),
    ("hidden-voltage", float, "V", "voltage of x = 1 from the second layer on"),
)
_TEXTS = ("mapping", "scale", "variation", "bias", "average", "schedule", "array")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--device", metavar="DEVICE", required=True, help="device model: a file or a bundled name")
    parser.add_argument("--dataset", default="digits", help="name or path of the images (default digits)")
    parser.add_argument("--data", metavar="PATH", help="folder of the images")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", required=True, help="folder to write; called again, it goes on"
    )
    parser.add_argument(
        "--weights", metavar="L1,L2,...", help="weights of the energy in the loss, one for each point of the front "
        "(default 10,25,40)",
    )  # fmt: skip
    parser.add_argument("--networks", type=int, default=5, help="of each weight (default 5)")
    parser.add_argument("--chips", type=int, default=25, help="for each network (default 25)")
    parser.add_argument("--layers", metavar="SIZES", help="such as 784-25-10 (default: features-25-classes)")
    for option, kind, unit, text in _NUMBERS:
        parser.add_argument(f"--{option}", type=kind, metavar=unit, help=f"{text} (default: that of the recipe)")
    for option in _TEXTS:
        parser.add_argument(f"--{option}", metavar="TEXT", help="see 'calib train' (default: that of the recipe)")
    parser.add_argument("--extrapolate", action="store_true", help="accept an input voltage beyond the law's validity")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    parser.add_argument("--read-time", type=float, default=50e-9, metavar="S", help="duration of a read (default 5e-8)")
    parser.add_argument(
        "--target", type=float, metavar="TOPS", help="name the weight of least error, on validation, of at least so "
        "many TOPs/W",
    )  # fmt: skip
    _networks.add_figure(parser, "picture of error against efficiency")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print an object with the keys device, dataset, network, best_weight (of --target) and points, a list of "
        "objects with weight, on_front, energy_joule, and error_median_percent, error_mean_percent and "
        "efficiency_tops_per_watt, each also with _low and _high and with validation_ before it",
    )


def run(args: argparse.Namespace) -> int:
    """Train, evaluate and print the front."""
    from calib import figure_files, pareto_front

    figure_files.check(args.figure)
    weights = _weights(args.weights) if args.weights else pareto_front.WEIGHTS
    recipe = _recipe(args)
    epochs = recipe.get("epochs", pareto_front.RECIPE["epochs"])
    with console.progress(pareto_front.steps(weights, args.networks, epochs), "front") as advance:
        found = pareto_front.pareto(
            args.device, output=args.output, dataset=args.dataset, data_folder=args.data, weights=weights,
            networks=args.networks, chips=args.chips, seed=args.seed, read_time=args.read_time, progress=advance,
            **recipe,
        )  # fmt: skip
    if args.figure:
        from calib.pareto_figure import pareto_figure

        figure_files.write(pareto_figure(found), args.figure)
    rows = pareto_front.rows(found)
    chosen = pareto_front.best(found, args.target) if args.target is not None else None
    if args.json:
        keys = {"device": found.attrs["device"], "dataset": args.dataset, "network": found.attrs["network"]}
        print_json({**keys, "best_weight": chosen, "points": rows})
        return 0
    columns = ("weight", "error, median", "error, mean", "TOPs/W", "energy", "on the front")
    console.table(
        f"{args.dataset}, {found.attrs['network']}, {found.attrs['device']}; {args.networks} networks, {args.chips} "
        "chips, 95 % intervals",
        columns,
        [_shown(row) for row in rows],
    )
    if args.target is not None:
        console.text(_sentence(rows, chosen, args.target))
    _networks.say_written(f"{args.output}/{pareto_front.FILE}", args.figure)
    return 0


def _weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(f"the weights are '{text}'; expected numbers joined by commas, such as 10,20,40") from error


def _recipe(args: argparse.Namespace) -> dict[str, Any]:
    names = [option.replace("-", "_") for option in (*(row[0] for row in _NUMBERS), *_TEXTS)]
    found = {key: getattr(args, key) for key in names if getattr(args, key) is not None}
    if args.layers:
        found["layers"] = experiment.sizes(args.layers)
    return {**found, "extrapolate": True} if args.extrapolate else found


def _shown(row: dict[str, Any]) -> tuple[str, ...]:
    def interval(key: str, digits: int) -> str:
        return f"{row[key]:.{digits}f} ({row[f'{key}_low']:.{digits}f} to {row[f'{key}_high']:.{digits}f})"

    return (
        f"{row['weight']:g}",
        f"{interval('error_median_percent', 2)} %",
        f"{interval('error_mean_percent', 2)} %",
        interval("efficiency_tops_per_watt", 0),
        f"{1e12 * row['energy_joule']:.3g} pJ",
        "yes" if row["on_front"] else "no",
    )


def _sentence(rows: list[dict[str, Any]], chosen: float | None, target: float) -> str:
    if chosen is None:
        most = max(row["validation_efficiency_tops_per_watt"] for row in rows)
        return f"no weight reaches {target:g} TOPs/W on validation; the most is {most:.0f}: try larger weights"
    row = next(row for row in rows if row["weight"] == chosen)
    return (
        f"chosen on validation with at least {target:g} TOPs/W: weight {chosen:g}, with a median test error of "
        f"{row['error_median_percent']:.2f} % at {row['efficiency_tops_per_watt']:.0f} TOPs/W"
    )


member = sys.modules[__name__]
