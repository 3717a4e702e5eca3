"""Markdown: the data sheet as a page that GitHub, GitLab and documentation builders show, with its figures beside it.

GitHub shows neither figures that are embedded in a page nor its raw HTML, so that each figure is an SVG file of its own
which the page names. The text is GitHub Flavored Markdown without HTML; whatever a user wrote is taken literally.
"""

import re
from collections.abc import Sequence

import xarray as xr

from calib.exporters import _sheet
from calib.exporters._text import dois, one_line
from calib.exporters.base import Exporter, slug
from calib.formatting import typographic

_MARKUP = re.compile(r"[\\`*_{}\[\]<>|$~&]")
_ADDRESS = re.compile(r"(?i)(?<=http|ttps|.ftp|xmpp|ilto)(:)|(?<=www)(\.)")
_BLOCK = re.compile(r"^(?:[-+=#]|\d+[.)](?=\s|$))")


class Markdown(Exporter):
    """The data sheet as text, with one SVG a figure."""

    name = "markdown"
    suffix = ".md"
    carries = "the data sheet as a page for repositories and wikis, with each figure as an SVG beside it"

    def omits(self, device_model: xr.DataTree) -> list[str]:
        return _sheet.omits(device_model)

    def contents(self, device_model: xr.DataTree) -> dict[str, str]:
        from calib.figure_style import to_svg

        stem = slug(str(device_model.attrs.get("name", "")))
        sheet = _sheet.sheet(device_model)
        figures, pictures = {}, []
        for key, caption, drawing in _sheet.drawings(device_model):
            file = f"{stem}-{key}.svg"
            remark = f"<!-- device model {sheet.identity} -->\n"
            figures[file] = f'<?xml version="1.0" encoding="utf-8"?>\n{remark}{to_svg(drawing, key, caption)}'
            pictures.append((file, caption))
        return {self.file_name(device_model): _page(sheet, pictures), **figures}


def literal(text: str) -> str:
    r"""Return text that markdown shows as it is, in a table as well: markup and addresses are broken by `\`."""
    return _no_block(_escaped(one_line(text)))


def _escaped(text: str) -> str:
    return _ADDRESS.sub(r"\\\g<0>", _MARKUP.sub(r"\\\g<0>", text))


def _no_block(text: str) -> str:
    """Return a line whose start opens no list, heading or rule."""
    return _BLOCK.sub(lambda match: f"{match[0][:-1]}\\{match[0][-1]}", text)


def _cell(text: str) -> str:
    return _escaped(one_line(typographic(text)))


def _with_links(text: str) -> str:
    """Return text with its DOIs as links: the only links that lead out of a page."""
    parts = (f"[{_escaped(part)}]({address})" if address else _escaped(part) for part, address in dois(text))
    return _no_block("".join(parts))


def _page(sheet: _sheet.Sheet, pictures: Sequence[tuple[str, str]]) -> str:
    lines = [f"# {literal(sheet.name)}", "", f"*{_sheet.KIND}*", ""]
    lines += [f"{literal(sheet.technology)}\n"] if sheet.technology else []
    lines += [f"{_with_links(sheet.citation)}\n"] if sheet.citation else []
    lines += [literal(sheet.summary), ""]
    lines += _table(("main numbers", "", ""), sheet.key_numbers)
    for title, sentences in (("Warnings", sheet.warnings), ("Assumptions", sheet.assumptions)):
        lines += _list(title, sentences)
    if pictures:
        lines += ["## Figures", ""]
    for file, caption in pictures:
        lines += [f"![{literal(caption)}]({file})", "", f"*{literal(caption)}*", ""]
    lines += ["## Characteristics", "", _sheet.TABLE, ""]
    for title, rows in sheet.characteristics:
        lines += [f"### {literal(title)}", "", *_table(_sheet.COLUMNS, [row.cells for row in rows])]
    if sheet.methods:
        methods = [f"{number}. {literal(method)}" for number, method in enumerate(sheet.methods, 1)]
        lines += ["### Methods", "", *methods, ""]
    lines += ["## Details", ""]
    for section in sheet.sections:
        lines += [f"### {literal(section.title)}", ""]
        lines += _table(section.columns, section.rows) if section.rows else []
        lines += [f"- {literal(typographic(note))}" for note in section.notes] + [""] * bool(section.notes)
    lines += _closing(sheet)
    return "\n".join(lines) + "\n"


def _closing(sheet: _sheet.Sheet) -> list[str]:
    lines = ["## How to use it", "", f"With the Python package calib (`{_sheet.INSTALL}`):", ""]
    lines += ["```python", *sheet.usage, "```", "", "Or on the command line:", ""]
    lines += [f"- `{command}` {literal(meaning)}" for command, meaning in sheet.commands]
    lines += ["", "## Words", "", *(f"- **{literal(word)}**: {literal(meaning)}" for word, meaning in sheet.words), ""]
    if sheet.absent:
        lines += ["## Not in this model", "", _sheet.ABSENT, "", *(f"- {literal(s)}" for s in sheet.absent), ""]
    facts = [f"| {literal(key)} | {_with_links(value)} |" for key, value in sheet.provenance]
    return [*lines, "## Provenance", "", "| | |", "|---|---|", *facts, "", _sheet.CLOSING]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join(_cell(cell) for cell in columns)} |", "|" + "---|" * len(columns)]
    return [*head, *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows), ""]


def _list(title: str, sentences: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {literal(sentence)}" for sentence in sentences), ""] if sentences else []


member = Markdown()
