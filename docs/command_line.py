"""Write docs/command_line.md from the parsers themselves: ``python docs/command_line.py``."""

import argparse
from pathlib import Path

from calib.cli import build_parser

HEAD = """# Command line

Made from the parsers by `python docs/command_line.py`; a test keeps it true. A device argument is a path or the name of
a bundled model (`calib models list`). Exit codes: 0 done, 1 a message that says what is wrong and what to do, 2 wrong
usage, 130 interrupted. Tables go to standard output, progress and warnings to standard error.
"""


def page() -> str:
    """Return the page as markdown."""
    parts = [HEAD]
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, parser in action.choices.items():
                parts.append(_command(f"calib {name}", parser))
    return "\n".join(parts)


def _command(title: str, parser: argparse.ArgumentParser) -> str:
    lines = [f"## {title}", "", parser.description or "", ""]
    if parser.epilog:
        lines += ["```", parser.epilog.removeprefix("example: "), "```", ""]
    rows, nested = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            nested += [
                _command(f"{title} {name}", sub).replace("## ", "### ", 1) for name, sub in action.choices.items()
            ]
        elif not isinstance(action, argparse._HelpAction):
            rows.append(f"| {_name(action)} | {_text(action)} |")
    if rows:
        lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    return "\n".join([*lines, *nested])


def _name(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if action.choices is not None and action.option_strings:
        names += f" {'|'.join(map(str, action.choices))}"
    elif action.option_strings and action.nargs != 0:
        names += f" {action.metavar or action.dest.upper()}"
    return "`" + names.replace("|", "\\|") + "`"


def _text(action: argparse.Action) -> str:
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


if __name__ == "__main__":
    (Path(__file__).parent / "command_line.md").write_text(page(), encoding="utf-8")
