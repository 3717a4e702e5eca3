"""What the commands on trained networks have in common: options, and the keywords that they become."""

import argparse
from typing import Any

from calib.cli import console


def add_options(
    parser: argparse.ArgumentParser, *, chips: int, each: str = "for each network", seeded: str = "of the chips",
    array: bool = False, read_time: bool = False,
) -> None:  # fmt: skip
    """Add the options that `keywords` turns into keywords, all but `-o`, of which each command says what it writes.

    Parameters
    ----------
    chips : default of --chips.
    each, seeded : what the chips are for, and what the seed is of, in words.
    array, read_time : whether the command has --array and --read-time.
    """
    parser.add_argument("--chips", type=int, default=chips, help=f"chips {each} (default {chips})")
    parser.add_argument("--seed", type=int, default=0, help=f"{seeded} (default 0)")
    if array:
        parser.add_argument("--array", metavar="TEXT", help="array in place of the run's, as rows=128,adc_bits=8")
    parser.add_argument("--data", metavar="PATH", help="where the images are, if not where they were in training")
    if read_time:
        parser.add_argument(
            "--read-time", type=float, default=50e-9, metavar="S", help="duration of a read (default 5e-8)"
        )
    parser.add_argument(
        "--extrapolate", action="store_true", help="accept an input voltage beyond the validity of a device model"
    )


def add_conditions(parser: argparse.ArgumentParser) -> None:
    """Add what happened to the devices since programming, all but the time."""
    parser.add_argument("--reads", type=int, default=0, metavar="N", help="readings of each device since programming")
    parser.add_argument("--temperature", type=float, metavar="K", help="at which devices are kept")
    parser.add_argument("--compensate", action="store_true", help="correct drift with reference columns")


def add_figure(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --figure, whose name `calib.figure_files.check` checks before what takes long."""
    parser.add_argument("--figure", metavar="FILE", help=f"{what}, .svg, .pdf or .png")


def keywords(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keywords that the functions behind the commands share."""
    found = {
        "chips": args.chips, "seed": args.seed, "data_folder": args.data, "extrapolate": args.extrapolate,
        "output": args.output,
    }  # fmt: skip
    more = ("array", "read_time", "reads", "temperature", "compensate")
    return found | {name: getattr(args, name) for name in more if hasattr(args, name)}


def say_written(*paths: str | None) -> None:
    """Print a line for every file that was asked for."""
    for path in filter(None, paths):
        console.text(f"written: {path}")
