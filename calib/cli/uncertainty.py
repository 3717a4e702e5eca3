"""`calib uncertainty`: what chips, networks and the knowledge of the device add to the spread of error and energy."""

import argparse
import json
import sys
from typing import Any

import numpy as np

from calib.cli import _networks, console, print_json

name = "uncertainty"
summary = "split the variance of error and energy into chips, networks and what is not known about the device"
example = "calib uncertainty run --device ddas04-rram --models 20 --chips 10 --characteristics"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that 'calib train' made; several networks")
    parser.add_argument(
        "--device", metavar="DEVICE", help="device model: a path or a bundled name (default: that of the first run)"
    )
    parser.add_argument("--models", type=int, default=20, help="draws of the device model (default 20)")
    parser.add_argument(
        "--characteristics", action="store_true", help="also draw each characteristic of the device model by itself"
    )
    parser.add_argument(
        "--check", action="store_true", help="also draw as from four times as many devices: does the spread halve?"
    )
    _networks.add_options(
        parser, chips=10, each="of each network and draw", seeded="of the draws and the chips", read_time=True
    )
    parser.add_argument("-o", "--output", metavar="RESULT.nc", help="file to write the values of each chip to")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print an object: device, drawn, not_drawn, split (a list of quantity, component, variance, share, std, "
        "std_low, std_high), mean and nominal of each quantity, characteristics (quantity, characteristic, std, "
        "std_low, std_high), check_ratio, devices_measured, more_devices_to_halve_std, more_devices_to_halve_variance",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Draw, evaluate, split and print."""
    from calib.runs import open_run
    from calib.uncertainty import MEANINGS, drawn_names, uncertainty

    opened = [open_run(path) for path in args.runs]
    networks = sum(item.options.networks for item in opened)
    count = networks * (args.models * (1 + args.check) + 1)
    if args.characteristics:
        count += networks * args.models * _characteristics(args, opened, drawn_names)
    with console.progress(count, "evaluating") as advance:
        result = uncertainty(
            opened, args.device, models=args.models, characteristics=args.characteristics, check=args.check,
            progress=advance, **_networks.keywords(args),
        )  # fmt: skip
    found = summary_of(result)
    if args.json:
        print_json(found)
        return 0
    _print(found, networks, args, MEANINGS)
    return 0


def _print(found: dict[str, Any], networks: int, args: argparse.Namespace, meanings: dict[str, str]) -> None:
    rows = [
        (row["quantity"], meanings[row["component"]], _percent(row["share"]), *_spread(row)) for row in found["split"]
    ]
    title = f"{networks} network(s) x {args.models} draws of {found['device']} x {args.chips} chips"
    columns = ("quantity", "what varies", "share of the variance", "standard deviation", "95 % interval")
    console.table(title, columns, rows)
    if found["characteristics"]:
        columns = ("quantity", "characteristic", "standard deviation", "95 % interval")
        rows = [(row["quantity"], row["characteristic"], *_spread(row)) for row in found["characteristics"]]
        console.table("what each characteristic leaves open, drawn by itself", columns, rows)
    for line in _sentences(found):
        console.text(line)
    if networks < 2:
        console.warn("one network: networks cannot be told from devices; train several (calib train --networks)")
    _networks.say_written(args.output)


def _characteristics(args: argparse.Namespace, opened: Any, drawn_names: Any) -> int:
    from calib.device_model import open_device
    from calib.uncertainty import drawn_model

    parent = open_device(args.device) if args.device else opened[0].device
    return len(drawn_names(parent, [drawn_model(parent, args.seed)]))


def summary_of(result: Any) -> dict[str, Any]:
    """Return the numbers that are printed."""
    from calib.uncertainty import more_devices

    split, characteristics = [], []
    for quantity in map(str, result["quantity"].values):
        row = result.sel(quantity=quantity)
        total = float(row["variance"].sum())
        for component in map(str, result["component"].values):
            cell = row.sel(component=component)
            variance = float(cell["variance"])
            share = variance / total if total > 0 else float("nan")
            split.append({"quantity": quantity, "component": component, "variance": variance, "share": share}
                         | _std(cell, "variance"))  # fmt: skip
        if "characteristic" in result.dims:
            for item in map(str, result["characteristic"].values):
                cell = row.sel(characteristic=item)
                found = _std(cell, "characteristic_variance")
                characteristics.append({"quantity": quantity, "characteristic": item} | found)
    quantities = [str(quantity) for quantity in result["quantity"].values]
    return {
        "device": result.attrs["device"],
        "drawn": json.loads(result.attrs["drawn"]),
        "not_drawn": json.loads(result.attrs["not_drawn"]),
        "split": split,
        "mean": {quantity: float(result[quantity].mean()) for quantity in quantities},
        "nominal": {quantity: float(result["nominal"].sel(quantity=quantity).mean()) for quantity in quantities},
        "characteristics": characteristics,
        "check_ratio": dict(zip(quantities, result["check_ratio"].values.tolist(), strict=True))
        if "check_ratio" in result
        else {},
        "devices_measured": json.loads(result.attrs["devices_measured"]),
        "more_devices_to_halve_std": more_devices(result, 2.0),
        "more_devices_to_halve_variance": more_devices(result, 2.0**0.5),
    }


def _std(cell: Any, key: str) -> dict[str, float]:
    names = {"std": key, "std_low": f"{key}_low", "std_high": f"{key}_high"}
    return {name: float(np.sqrt(cell[variable])) for name, variable in names.items()}


def _percent(share: float) -> str:
    return "not told apart" if np.isnan(share) else f"{100 * share:.1f} %"


def _spread(row: dict[str, Any]) -> tuple[str, str]:
    if np.isnan(row["std"]):
        return "", ""
    factor, unit = (100.0, "points") if row["quantity"] == "error" else (1e12, "pJ")
    std, low, high = (factor * row[key] for key in ("std", "std_low", "std_high"))
    return f"{std:.3g} {unit}", f"{low:.3g} to {high:.3g}"


def _sentences(found: dict[str, Any]) -> list[str]:
    mean, nominal = found["mean"]["error"], found["nominal"]["error"]
    lines = [f"mean error {100 * mean:.2f} % over the draws, {100 * nominal:.2f} % on the fitted model"]
    known = {name: n for name, n in found["devices_measured"].items() if n is not None}
    if known:
        parts = ", ".join(
            f"{name} {found['more_devices_to_halve_std'][name]} more (now {n})" for name, n in known.items()
        )
        lines.append(
            f"to halve the standard deviation of what is not known about the device, measure three times as many "
            f"devices more (it falls as 1 / sqrt(n)): {parts}; to halve the variance, as many again as now"
        )
    unknown = [name for name, n in found["devices_measured"].items() if n is None]
    if unknown:
        lines.append(f"not stated in the device model: how many devices {', '.join(unknown)} was fitted to")
    for quantity, ratio in found["check_ratio"].items():
        text = "cannot be told" if np.isnan(ratio) else f"{ratio:.2f} times the standard deviation (0.50 expected)"
        lines.append(f"check, draws as from four times as many devices: {quantity} has {text}")
    if found["not_drawn"]:
        lines.append(f"held, because their uncertainty is not known: {', '.join(found['not_drawn'])}")
    return lines


member = sys.modules[__name__]
