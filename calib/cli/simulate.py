"""`calib simulate`: raw measurement files of virtual devices."""

import argparse
import math
import shlex
import sys
from collections.abc import Callable
from typing import Any

from calib.cli import console, print_json
from calib.errors import OptionError

name = "simulate"
summary = "write the raw measurement files of virtual devices, as instruments write them"
example = "calib simulate device.nc -o raw.csv --devices 100 --cycles 5 --layout keysight-easyexpert"
_STEPS = 100
_INSTRUMENT = ("points", "noise", "noise_floor", "compliance")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from calib.simulation import LAYOUTS

    layouts = "; ".join(f"{key}: {', '.join(each.name for each in group)}" for key, group in LAYOUTS.items())
    parser.add_argument("device", metavar="DEVICE", help="device model: a path, or a bundled name (calib models list)")
    parser.add_argument(
        "-o", "--output", metavar="PATH",
        help="file to write; a folder where a layout's files hold one device each and several are asked for",
    )  # fmt: skip
    parser.add_argument(
        "--experiment", metavar="NAME", choices=tuple(LAYOUTS),
        help=f"{', '.join(LAYOUTS)}; default: the first that the model holds",
    )  # fmt: skip
    parser.add_argument("--layout", metavar="NAME", help=f"how the files look (default: the first): {layouts}")
    parser.add_argument("--devices", type=int, default=50, metavar="N", help="virtual devices (default 50)")
    parser.add_argument("--cycles", type=int, default=5, metavar="N", help="cycles of each (default 5)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all draws; the same seed, the same file")
    parser.add_argument(
        "--points", type=int, metavar="N",
        help="sweeps: points from 0 V to the largest fitted voltage (default 24); retention, noise: reads of a trace",
    )  # fmt: skip
    parser.add_argument(
        "--noise", type=float, metavar="SHARE",
        help="relative standard deviation of the instrument (default: sweeps: that of the fitted curves; reads: 0)",
    )  # fmt: skip
    parser.add_argument("--noise-floor", type=float, metavar="A", help="sweeps: noise floor (default 0)")
    parser.add_argument(
        "--compliance", type=float, metavar="A",
        help="sweeps: largest current (default: 1.5 times the low-resistance state's at the largest fitted voltage)",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list what can be simulated, and write nothing")
    parser.add_argument(
        "--json", action="store_true",
        help="print an object with the keys experiment, layout, devices, cycles, seed and files (a list of paths); "
        "with --list a list of objects: experiment, layout, title, suffix, one_device_per_file and possible",
    )  # fmt: skip


class _Percent:
    """Turns how many of how many are done into steps of a hundred."""

    def __init__(self, advance: Callable[..., None]) -> None:
        self.advance = advance
        self.done = 0

    def __call__(self, done: int, total: int) -> None:
        steps = _STEPS * done // max(total, 1)
        if steps > self.done:
            self.advance(steps - self.done)
            self.done = steps


def run(args: argparse.Namespace) -> int:
    """Draw virtual devices, write their files, and say how they are read."""
    from calib import simulation
    from calib.device_model import open_device

    tree = open_device(args.device)
    if args.list:
        return _list(simulation, simulation.experiments(tree), args.json)
    if args.output is None:
        raise OptionError("the following is required: -o PATH (or --list, to see what can be simulated)")
    options = {key: getattr(args, key) for key in _INSTRUMENT}
    bad = [key for key, value in options.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        raise OptionError(f"--{bad[0].replace('_', '-')} is not a finite number; expected a positive one")
    with console.progress(_STEPS, "simulate") as advance:
        paths = simulation.simulate_file(
            tree, args.output, args.layout, args.devices, args.cycles, args.seed, experiment=args.experiment,
            progress=_Percent(advance), **options,
        )  # fmt: skip
    experiment = args.experiment or simulation.experiments(tree)[0]
    layout = args.layout or simulation.LAYOUTS[experiment][0].name
    if args.json:
        print_json({"experiment": experiment, "layout": layout, "devices": args.devices, "cycles": args.cycles,
                    "seed": args.seed, "files": [str(path) for path in paths]})  # fmt: skip
        return 0
    shown = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files in {args.output}"
    console.text(
        f"written: {shown} ({experiment} of {args.devices} devices, {args.cycles} cycles, seed {args.seed}, layout "
        f"{layout}); next: calib fit {shlex.quote(args.output)} -o device.nc"
    )
    return 0


def _list(simulation: Any, possible: list[str], as_json: bool) -> int:
    rows = [
        {"experiment": experiment, "layout": layout.name, "title": layout.title, "suffix": layout.suffix,
         "one_device_per_file": layout.single, "possible": experiment in possible}
        for experiment, layouts in simulation.LAYOUTS.items() for layout in layouts
    ]  # fmt: skip
    if as_json:
        print_json(rows)
        return 0
    cells = [
        (row["experiment"], row["layout"], row["title"], "a device" if row["one_device_per_file"] else "all devices",
         "yes" if row["possible"] else "no: not in the model")
        for row in rows
    ]  # fmt: skip
    console.table("What can be simulated", ("experiment", "layout", "what it is", "a file holds", "possible"), cells)
    return 0


member = sys.modules[__name__]
