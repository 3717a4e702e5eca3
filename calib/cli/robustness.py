"""`calib robustness`: accuracy under attacks, noise and age, and the yield of good chips."""

import argparse
import sys
from typing import Any

from calib.cli import _networks, console, print_json
from calib.errors import OptionError

name = "robustness"
summary = "measure accuracy under attacks, noise or age, and the yield of good chips"
example = "calib robustness run --device ddas04-rram --attack fgsm --yield-above 0.9 --figure fgsm.svg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", metavar="RUN", help="folder that 'calib train' made")
    parser.add_argument(
        "--device", metavar="DEVICE", help="device model (a path or a bundled name) or ideal (default: that of the run)"
    )
    parser.add_argument(
        "--attack",
        choices=["fgsm", "pgd", "noise", "ageing"],
        default="fgsm",
        help="fast gradient sign (default), projected gradient descent in L2, noise on the images, time",
    )
    parser.add_argument(
        "--strengths",
        metavar="A,B,...",
        help="eps of attacks, size of noise, or seconds since programming (default: the attack's usual range)",
    )
    parser.add_argument(
        "--knows",
        action="append",
        choices=["chip", "device", "ideal"],
        help="what attackers know: the chip's own devices, the device model, or the weights alone; repeat for several "
        "(default chip and ideal)",
    )
    parser.add_argument("--step", type=float, default=0.2, help="length of a step of pgd (default 0.2)")
    parser.add_argument("--steps", type=int, default=10, help="steps of pgd (default 10)")
    parser.add_argument("--random-start", action="store_true", help="start pgd anywhere in its ball")
    parser.add_argument(
        "--known-chips", type=int, default=8, metavar="N", help="chips of an attacker who knows the device (default 8)"
    )
    parser.add_argument("--images", type=int, metavar="N", help="take the first test images alone (default: all)")
    parser.add_argument(
        "--yield-above", type=float, metavar="ACCURACY", help="also say how many chips reach an accuracy (0 to 1)"
    )
    _networks.add_options(parser, chips=10, each="of each network", seeded="of chips, noise and starts")
    _networks.add_figure(parser, "write the curves as a figure")
    parser.add_argument("-o", "--output", metavar="RESULT.nc", help="file to write the accuracy of each chip to")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print an object: attack, device, images, chips (of all networks) and curves, a list of objects with "
        "curve, strength, accuracy_median, accuracy_low, accuracy_high (5 and 95 %% of the chips) and, with "
        "--yield-above, yield, yield_low, yield_high (95 %% interval)",
    )


def run(args: argparse.Namespace) -> int:
    """Attack, count and print."""
    from calib import figure_files
    from calib.robustness import AttackOptions, curves_of, robustness, strengths_of, tree_of
    from calib.runs import open_run

    strengths = None if args.strengths is None else _numbers(args.strengths)
    figure_files.check(args.figure)
    opened = open_run(args.folder)
    knows = args.knows or ["chip", "ideal"]
    options = AttackOptions(args.step, args.steps, args.random_start, args.known_chips)
    tree = tree_of(opened, args.device)
    cells = len(curves_of(args.attack, knows)) * len(strengths_of(args.attack, strengths, tree))
    with console.progress(opened.options.networks * cells, "attacking") as advance:
        result = robustness(
            opened, args.device, attack=args.attack, strengths=strengths, knows=knows, options=options,
            images=args.images, progress=advance, **_networks.keywords(args),
        )  # fmt: skip
    rows = rows_of(result, args.yield_above)
    if args.figure:
        from calib.robustness_figure import robustness_figure

        figure_files.write(robustness_figure(result, args.yield_above), args.figure)
    if args.json:
        chips = int(result.sizes["chip"] * result.sizes["network"])
        shown = {"attack": args.attack, "device": result.attrs["device"], "images": int(result.attrs["images"])}
        print_json({**shown, "chips": chips, "curves": rows})
        return 0
    _print(result, rows, args)
    return 0


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(f"--strengths is '{text}'; expected numbers joined by commas, such as 0,0.1,0.2") from error


def rows_of(result: Any, threshold: float | None) -> list[dict[str, Any]]:
    """Return one object for each curve and strength."""
    from calib.robustness import yield_above

    found = None if threshold is None else yield_above(result["accuracy"], threshold)
    rows = []
    for curve in map(str, result["curve"].values):
        for index, strength in enumerate(result["strength"].values):
            values = result["accuracy"].sel(curve=curve).isel(strength=index)
            low, middle, high = (float(values.quantile(q)) for q in (0.05, 0.5, 0.95))
            row = {"curve": curve, "strength": float(strength), "accuracy_median": middle, "accuracy_low": low,
                   "accuracy_high": high}  # fmt: skip
            if found is not None:
                cell = found.sel(curve=curve).isel(strength=index)
                row |= {
                    "yield": float(cell["yield"]),
                    "yield_low": float(cell["low"]),
                    "yield_high": float(cell["high"]),
                }
            rows.append(row)
    return rows


def _print(result: Any, rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    strength = result["strength"].attrs
    unit = "" if strength["units"] == "1" else f" ({strength['units']})"
    columns = ["time" + unit if args.attack == "ageing" else "strength", "accuracy, median", "5 to 95 % of chips"]
    if args.yield_above is not None:
        columns += [f"chips of {100 * args.yield_above:g} % or more", "95 % interval"]
    shown = [
        (
            row["curve"],
            f"{row['strength']:g}",
            f"{100 * row['accuracy_median']:.2f} %",
            f"{100 * row['accuracy_low']:.2f} to {100 * row['accuracy_high']:.2f} %",
            *_yield(row),
        )
        for row in rows
    ]
    heading = {"noise": "noise", "ageing": "drift"}.get(args.attack, "attacker knows")
    title = f"{args.attack} on {result.attrs['device']}, {result.attrs['images']} images"
    console.table(title, (heading, *columns), shown)
    console.text(
        f"strength: {strength['long_name']}{unit}; {result.sizes['network']} network(s) of {result.sizes['chip']} chips"
    )
    if args.attack == "pgd" and not args.random_start and result["strength"].values.max() > args.step * args.steps:
        console.text(f"{args.steps} steps of {args.step:g} reach no further than {args.step * args.steps:g}")
    _networks.say_written(args.figure, args.output)


def _yield(row: dict[str, Any]) -> tuple[str, ...]:
    if "yield" not in row:
        return ()
    return f"{100 * row['yield']:.1f} %", f"{100 * row['yield_low']:.1f} to {100 * row['yield_high']:.1f} %"


member = sys.modules[__name__]
