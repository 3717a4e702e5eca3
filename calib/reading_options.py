"""The options that say how files are read, shared by every command that reads files."""

import argparse
from typing import Any

from calib.errors import CalibError


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what the files do not."""
    group = parser.add_argument_group("reading the files", "what the files do not say, or say wrongly")
    group.add_argument(
        "--columns",
        metavar="NAME=COLUMN,...",
        help="which column is what, by index from 0 or by name: voltage=0,current=1,device=2",
    )
    group.add_argument("--units", metavar="NAME=UNIT,...", help="units of the columns: current=uA")
    group.add_argument(
        "--sheet", action="append", metavar="SHEET", help="sheet of a workbook to read; may be repeated (default: all)"
    )
    group.add_argument(
        "--pairs", choices=["device", "cycle"], help="what (V, I) column pairs side by side, or like sheets, are"
    )
    group.add_argument(
        "--temperature",
        type=_kelvin,
        metavar="K",
        help="temperature in kelvin, or with its unit ('85 degC'); replaces what the files state",
    )
    group.add_argument(
        "--series-resistance",
        type=float,
        metavar="OHM",
        help="resistor in series with the device; turns the second channel of an oscilloscope into current",
    )
    group.add_argument(
        "--skip-rows", type=int, default=0, metavar="N", help="lines to ignore at the beginning of text files"
    )
    group.add_argument(
        "--pattern",
        metavar="REGEX",
        help="what the names of the files say, as named groups among device, cycle, level, row, column, die, wafer and "
        r"temperature: 'K9_(?P<device>\d+_\d+)_'",
    )
    group.add_argument(
        "--no-flag",
        action="append",
        metavar="NAME",
        help="flag whose rule is switched off (compliance, spike, below_floor, duplicate, switching, sign_restored, "
        "saturated, offset); may be repeated",
    )
    group.add_argument("--reader", metavar="NAME", help="reader to use (default: found from the file)")  # fmt: skip


_NAMES = (
    "columns", "units", "sheet", "pairs", "temperature", "series_resistance", "skip_rows", "pattern", "no_flag",
    "reader",
)  # fmt: skip


def options_from(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments for `calib.read` from parsed arguments."""
    return {name: getattr(args, name) for name in _NAMES}


def _kelvin(text: str) -> float:
    from calib.statements import kelvin

    try:
        return kelvin(text)
    except CalibError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
