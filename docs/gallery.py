"""Write docs/gallery/, a page for each bundled device model: the docs build does it, or ``python docs/gallery.py``."""

from pathlib import Path

import xarray as xr

from calib import data_folder, describe, figures
from calib.device_model import attribute, open_device
from calib.figure_style import to_svg

FOLDER = Path(__file__).parent / "gallery"
HEAD = """# Gallery of device models

The models that come with calib, by the name that stands for them wherever a device is asked for
(`calib show NAME`, `calib train --device NAME`). Each was made by the command on its page; numbers and figures are
those of the model itself.

| model | technology | law | off and on conductance | holds |
|---|---|---|---|---|
"""


def write(folder: Path = FOLDER) -> list[Path]:
    """Write the pages and their figures into a folder, and return the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    trees = {name: open_device(name) for name in data_folder.bundled_model_names()}
    rows = [_row(name, tree) for name, tree in trees.items()]
    listed = "\n".join(trees)
    pages = {"index": f"{HEAD}{chr(10).join(rows)}\n\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"}
    pages |= {name: _page(name, tree, folder) for name, tree in trees.items()}
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return [folder / f"{name}.md" for name in pages]


def _row(name: str, tree: xr.DataTree) -> str:
    numbers = {label: value for label, value, _ in describe.key_numbers(tree)}
    span = [numbers[key] for key in ("Off conductance", "On conductance") if key in numbers]
    law = str(tree["iv"].attrs["iv_model"]) if "iv" in tree.children else ""
    kinds = ", ".join(str(node).replace("_", " ") for node in tree.children if node != "examples")
    cells = (str(tree.attrs["technology"]), law, " to ".join(span), kinds)
    return f"| [{name}]({name}.md) | {' | '.join(map(_cell, cells))} |"


def _page(name: str, tree: xr.DataTree, folder: Path) -> str:
    lines = [f"# {name}", ""]
    lines += [f"{_cell(str(tree.attrs[key]))}\n" for key in ("technology", "citation") if tree.attrs.get(key)]
    options = attribute(tree, "options")
    if options.get("command"):
        lines += ["Made by:", "", "```", str(options["command"]), "```", ""]
    lines += ["| | | |", "|---|---|---|"]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in describe.key_numbers(tree)]
    for key, caption, drawing in figures.device_figures(tree):
        file = f"{name}-{key}.svg"
        (folder / file).write_text(to_svg(drawing, f"{name}-{key}", caption), encoding="utf-8")
        lines += ["", f"![{_cell(caption)}]({file})", "", f"*{_cell(caption)}*"]
    for title, key in (("Warnings", "warnings"), ("Assumptions", "assumptions")):
        sentences = attribute(tree, key)
        if sentences:
            lines += ["", f"## {title}", "", *(f"- {_cell(str(sentence))}" for sentence in sentences)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return text that markdown takes literally, on one line."""
    return " ".join("".join(f"\\{mark}" if mark in "\\`*_[]<>|$" else mark for mark in text).split())


if __name__ == "__main__":
    for page in write():
        print(page.name)
