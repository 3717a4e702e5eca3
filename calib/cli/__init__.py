"""The command line: one file per command, found by folder.

Exit codes: 0 done, 1 a CalibError (its message, no traceback), 2 wrong usage, 130 interrupted.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from calib import __version__, plugins
from calib.errors import CalibError

_REQUIRED = ("summary", "example", "add_arguments", "run")
_ORDER = (
    "inspect", "convert", "fit", "show", "validate", "card", "diff", "simulate", "train", "evaluate", "pareto",
    "budget", "requirements", "uncertainty", "robustness", "reproduce", "report", "compare", "models", "data",
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="calib", description="From raw memristor measurements to device models, cards and trained networks."
    )
    parser.add_argument("--version", action="version", version=f"calib {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    known = plugins.names("calib.cli")
    for name in [*(n for n in _ORDER if n in known), *(n for n in known if n not in _ORDER)]:
        command = plugins.load("calib.cli", name, _REQUIRED)
        sub = commands.add_parser(
            name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"example: {command.example}",
        )
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments) or 0)
    except CalibError as error:
        print(f"calib {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"calib {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def print_json(value: object) -> None:
    """Print a value as JSON with sorted keys; NaN is written as null."""
    print(json.dumps(_plain(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())  # type: ignore[union-attr]
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return value
