"""`calib evaluate`: trained networks on device models, chip by chip."""

import argparse
import sys
from typing import Any

from calib.cli import _networks, console, print_json

name = "evaluate"
summary = "evaluate trained networks on device models over many chips"
example = "calib evaluate run --device siox-high-resistance --device ideal --chips 25 -o results.nc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that 'calib train' made")
    parser.add_argument(
        "--device",
        action="append",
        metavar="DEVICE",
        help="device model (a path or a bundled name) or ideal; repeat for several (default: the one "
        "that the networks were trained on)",
    )
    parser.add_argument("-o", "--output", metavar="RESULTS.nc", help="file to write the results of each chip to")
    _networks.add_options(parser, chips=25, each="for each network and device", array=True, read_time=True)
    parser.add_argument(
        "--redraw",
        choices=["chip", "batch"],
        default="chip",
        help="keep a chip's devices over the test set (default), or draw new ones every 100 images",
    )
    parser.add_argument(
        "--time",
        type=float,
        action="append",
        metavar="S",
        help="time since programming in seconds; repeat for several, which become devices labelled 'NAME, 1 h'",
    )
    _networks.add_conditions(parser)
    parser.add_argument(
        "--periphery",
        metavar="TEXT",
        help="energy of one conversion in J, as dac=1e-13,adc=2e-12; shown apart from that of the devices",
    )
    parser.add_argument(
        "--roles",
        action="store_true",
        help="write the power of positive, negative and bias devices to the results as well (slower)",
    )
    parser.add_argument(
        "--programming",
        nargs="?",
        const="",
        metavar="FIGURES",
        help="energy of programming the networks once, shown apart; voltages and widths of pulses that the "
        "device model lacks as voltage=2,width=1e-7, or set_voltage=2,reset_voltage=2.5,set_width=1e-7,"
        "reset_width=1e-6 (V, s)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a list of objects with the keys network, device, chips, error_median, error_low, error_high (5 and "
        "95 % of the chips), accuracy_median, energy_per_inference_joule, efficiency_tops_per_watt (at the mean power) "
        "and, with --periphery, energy_periphery_joule; with --programming energy_programming_joule, its 95 % interval "
        "energy_programming_low and energy_programming_high (null where not known) and programming_statement",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Evaluate and print one line for each network and device."""
    from calib.evaluation import evaluate
    from calib.runs import open_run

    opened = [open_run(path) for path in args.runs]
    cases = (len(args.device) if args.device else 1) * len(args.time or [0])
    count = sum(item.options.networks for item in opened) * cases
    with console.progress(count, "evaluating") as advance:
        results = evaluate(
            opened, args.device, redraw=args.redraw, time=args.time or 0.0, periphery=args.periphery,
            roles=args.roles, programming=args.programming, progress=advance, **_networks.keywords(args),
        )  # fmt: skip
    rows = _rows(results)
    if args.json:
        print_json(rows)
        return 0
    _print(results, rows, args)
    return 0


def _print(results: Any, rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    columns = ("network", "device", "error, median", "5 to 95 % of chips", "energy per inference", "TOPs/W")
    columns += ("periphery",) if args.periphery else ()
    columns += ("programming, 95 %",) if args.programming is not None else ()
    shown = [
        (
            row["network"],
            row["device"],
            f"{100 * row['error_median']:.2f} %",
            f"{100 * row['error_low']:.2f} to {100 * row['error_high']:.2f} %",
            _joules(row["energy_per_inference_joule"]),
            f"{row['efficiency_tops_per_watt']:.4g}",
            *((_joules(row["energy_periphery_joule"]),) if args.periphery else ()),
            *((_interval(row),) if args.programming is not None else ()),
        )
        for row in rows
    ]
    console.table(f"{args.chips} chips", columns, shown)
    console.text(results.attrs["protocol"])
    if args.programming is not None:
        for device, statement in zip(results["device"].values, results["programming_statement"].values, strict=True):
            console.text(f"Programming, {device}: {statement}.")
    if "line_residual_evaluated" in results:
        largest = float(results["line_residual_evaluated"].max())
        console.text(f"Kirchhoff's current law on the lines holds to {largest:.1e} of the devices' currents.")
    clipped = float(results["clipped"].mean("chip").sum("layer").max())
    if clipped >= 1:
        console.warn(
            f"up to {clipped:.0f} devices a chip lie outside of the range that the device model was fitted to, and "
            "take the law at its edge"
        )
    _networks.say_written(args.output)


def _rows(results: Any) -> list[dict[str, Any]]:
    rows = []
    for network in results["network"].values:
        for device in results["device"].values:
            cell = results.sel(network=network, device=device)
            error = cell["error"]
            periphery = (
                {"energy_periphery_joule": float(cell["energy_periphery"])} if "energy_periphery" in cell else {}
            )
            # efficiency at the mean power: a harmonic mean over chips
            rows.append(
                {
                    "network": str(network),
                    "device": str(device),
                    "chips": int(error.sizes["chip"]),
                    "error_median": float(error.median()),
                    "error_low": float(error.quantile(0.05)),
                    "error_high": float(error.quantile(0.95)),
                    "accuracy_median": float(cell["accuracy"].median()),
                    "energy_per_inference_joule": float(cell["energy_per_inference"].mean()),
                    "efficiency_tops_per_watt": float(1 / (1 / cell["efficiency_tops_per_watt"]).mean()),
                    **periphery,
                    **_programming(cell),
                }
            )
    return rows


def _programming(cell: Any) -> dict[str, Any]:
    if "energy_programming" not in cell:
        return {}
    values = (float(cell["energy_programming"]), *map(float, cell["energy_programming_bound"].values))
    keys = ("energy_programming_joule", "energy_programming_low", "energy_programming_high")
    known = {key: value if value == value else None for key, value in zip(keys, values, strict=True)}
    return {**known, "programming_statement": str(cell["programming_statement"].values)}


def _interval(row: dict[str, Any]) -> str:
    value, low, high = (row[f"energy_programming_{key}"] for key in ("joule", "low", "high"))
    if value is None:
        return "not known"
    return _joules(value) if low is None else f"{_joules(value)} ({_joules(low)} to {_joules(high)})"


def _joules(value: float) -> str:
    for factor, unit in ((1e-3, "mJ"), (1e-6, "uJ"), (1e-9, "nJ"), (1e-12, "pJ")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e-15:.3g} fJ"


member = sys.modules[__name__]
