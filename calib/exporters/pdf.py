"""PDF: the data sheet on A4, for printing, mailing and archives.

The text can be selected and searched, figures are vectors, the headings are bookmarks. Equal models give equal bytes:
the document carries no time, and its identifier is a hash of its content. The fonts (DejaVu, as matplotlib ships them)
are inside; characters that they lack are written as their code points.
"""

import datetime
import functools
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from fpdf import FPDF
from fpdf.fonts import FontFace, TTFFont

from calib.exporters import _sheet
from calib.exporters._text import dois
from calib.exporters.base import Exporter
from calib.formatting import typographic

_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_INK, _SOFT, _ACCENT, _LINE, _TINT = (27, 31, 36), (87, 96, 106), (0, 114, 178), (216, 222, 228), (243, 245, 247)
_WARN, _WARN_TINT = (154, 91, 0), (255, 248, 230)
_MARGIN, _BOTTOM = 15.0, 18.0
_GAP = 8.0
_LONGEST_CELL = 300
_DPI = 250
_TABLE_SIZES = (7.0, 6.5, 6.0, 5.5)
_POWER = re.compile(r"(?<![\w^])((?:V|A|K|s|S|Ω|m))\^(-?\d+(?:/\d+)?)(?![\w.])")
_SUPERSCRIPTS = str.maketrans("-/0123456789", "⁻ᐟ⁰¹²³⁴⁵⁶⁷⁸⁹")


class Pdf(Exporter):
    """The data sheet for paper."""

    name = "pdf"
    suffix = ".pdf"
    carries = "the data sheet for paper: selectable text, vector figures, bookmarks"

    def omits(self, device_model: xr.DataTree) -> list[str]:
        return [
            *_sheet.omits(device_model),
            "the text in figures, which is drawn and cannot be selected; the caption is the figure's alternative text",
        ]

    def contents(self, device_model: xr.DataTree) -> dict[str, bytes]:
        sheet = _sheet.sheet(device_model)
        paper = _Paper(sheet)
        paper.front(sheet)
        paper.figures(_sheet.drawings(device_model))
        paper.tables(sheet)
        paper.back(sheet)
        return {self.file_name(device_model): paper.finished()}


class _Paper(FPDF):
    """A4 pages with calib's fonts and colours; every method writes a part of the sheet and moves down."""

    def __init__(self, sheet: _sheet.Sheet) -> None:
        super().__init__(format="A4")
        for family, style, file in (
            ("sans", "", "DejaVuSans.ttf"), ("sans", "B", "DejaVuSans-Bold.ttf"), ("mono", "", "DejaVuSansMono.ttf"),
        ):  # fmt: skip
            self.add_font(family, style, _fonts() / file)
        self.set_margins(_MARGIN, _MARGIN, _MARGIN)
        self.set_auto_page_break(True, _BOTTOM)
        self.set_creation_date(_EPOCH)
        self.set_producer("calib")
        self.set_creator("calib")
        self.set_lang("en")
        self.set_title(sheet.name)
        self.set_subject(f"calib device model {sheet.identity}")
        self.running = f"{sheet.name[:60]}   {sheet.identity[:12]}"
        self.add_page()

    def finished(self) -> bytes:
        """Return the document and close its fonts."""
        document = bytes(self.output())
        for font in self.fonts.values():
            if isinstance(font, TTFFont):
                font.close()
        return document

    def footer(self) -> None:
        """Write the name, the short identity and the number of the page."""
        self.set_y(-12)
        self._font(7, colour=_SOFT)
        self.cell(self.epw / 2, 4, shown(self.running))
        self.cell(self.epw / 2, 4, f"{self.page_no()} / {{nb}}", align="R")

    def front(self, sheet: _sheet.Sheet) -> None:
        """Write name, technology, citation, summary, main numbers, warnings and assumptions."""
        self.start_section(shown(sheet.name)[:200])
        self._text(_sheet.KIND.upper(), 8, _SOFT)
        self._text(sheet.name, 20, style="B")
        if sheet.technology:
            self._text(sheet.technology, 10)
        if sheet.citation:
            self._linked(sheet.citation, 8)
        self._rule(_ACCENT, 0.8)
        self._text(sheet.summary, 10)
        self.ln(2)
        self._key_numbers(sheet.key_numbers)
        self._box("Warnings", sheet.warnings, _WARN, _WARN_TINT)
        self._box("Assumptions", sheet.assumptions, _SOFT, _TINT)

    def figures(self, drawings: Sequence[tuple[str, str, Any]]) -> None:
        """Write the figures in two columns, those that are wide across the page, each with its caption."""
        if not drawings:
            return
        self._heading("Figures", room=90)
        half = (self.epw - _GAP) / 2
        row: list[tuple[bytes, str, float, float]] = []
        for key, caption, drawing in drawings:
            width, height = (side * 25.4 for side in drawing.get_size_inches())
            if width > 1.2 * half:
                self._figure_row(row, half)
                scale = min(1.0, self.epw / width)
                self._figure_row([(_picture(drawing, key), caption, width * scale, height * scale)], self.epw)
                row = []
                continue
            row.append((_picture(drawing, key), caption, half, height * half / width))
            if len(row) == 2:
                self._figure_row(row, half)
                row = []
        self._figure_row(row, half)

    def tables(self, sheet: _sheet.Sheet) -> None:
        """Write the table of characteristics, the methods to which it refers, and the tables in full."""
        self._heading("Characteristics", room=40)
        self._text(_sheet.TABLE, 8, _SOFT)
        for title, rows in sheet.characteristics:
            self._heading(title, level=2, room=22)
            self._table(_sheet.COLUMNS, [row.cells for row in rows], (30, 20, 26, 19, 26, 10))
        if sheet.methods:
            self._heading("Methods", level=1)
            for number, method in enumerate(sheet.methods, 1):
                self._text(f"[{number}]  {typographic(method)}", 7.5, _SOFT)
        self._heading("Details", room=30)
        for section in sheet.sections:
            self._heading(section.title, level=1, room=22)
            if section.rows:
                self._table(section.columns, section.rows)
            for note in section.notes:
                self._text(typographic(note), 7.5, _SOFT)

    def back(self, sheet: _sheet.Sheet) -> None:
        """Write how to use the model, the words, what it lacks, and where it comes from."""
        self._heading("How to use it", room=45)
        self._text(f"With the Python package calib ({_sheet.INSTALL}) and the model's file {sheet.file}:", 9)
        self._code(sheet.usage)
        self._text("Or on the command line:", 9)
        self._code([f"{command}   # {meaning}" for command, meaning in sheet.commands])
        self._heading("Words")
        self._pairs(sheet.words)
        if sheet.absent:
            self._heading("Not in this model")
            self._text(_sheet.ABSENT, 8, _SOFT)
            for sentence in sheet.absent:
                self._text(f"\N{BULLET} {sentence}", 8.5)
        self._heading("Provenance")
        self._pairs(sheet.provenance)
        self.ln(2)
        self._text(_sheet.CLOSING, 7.5, _SOFT)

    def _font(self, size: float, style: str = "", family: str = "sans", colour: tuple[int, int, int] = _INK) -> None:
        self.set_font(family, style, size)
        self.set_text_color(*colour)

    def _text(self, text: str, size: float, colour: tuple[int, int, int] = _INK, style: str = "") -> None:
        self._font(size, style, colour=colour)
        self.multi_cell(self.epw, size * 0.5, shown(text), align="L", new_x="LMARGIN", new_y="NEXT")

    def _linked(self, text: str, size: float) -> None:
        """Write a paragraph whose DOIs are links: the only links that lead out of the document."""
        for part, address in dois(text):
            self._font(size, colour=_ACCENT if address else _SOFT)
            self.write(size * 0.5, shown(part), address)
        self.ln(size * 0.5)

    def _rule(self, colour: tuple[int, int, int], width: float) -> None:
        self.set_draw_color(*colour)
        self.set_line_width(width)
        y = self.get_y() + 2
        self.line(self.l_margin, y, self.l_margin + self.epw, y)
        self.set_y(y + 3)

    def _heading(self, title: str, level: int = 0, room: float = 20) -> None:
        """Write a heading, on a new page where less than `room` [mm] is left; the first two levels are bookmarks."""
        self.ln((5, 3, 2)[level])
        if self.will_page_break(room):
            self.add_page()
        if level < 2:
            self.start_section(shown(title)[:200], level=level)
        self._text(title, (13, 10, 8.5)[level], style="B")
        if level == 0:
            self._rule(_LINE, 0.3)
        self.ln(1)

    def _key_numbers(self, numbers: Sequence[tuple[str, str, str]]) -> None:
        columns, width = 4, self.epw / 4
        for start in range(0, len(numbers), columns):
            block = numbers[start : start + columns]
            lines = [[(label, 7.0, ""), (value, 11.0, "B"), (remark, 7.0, "")] for label, value, remark in block]
            heights = [sum(self._height(text, size, style, width - 3) for text, size, style in cell) for cell in lines]
            if self.will_page_break(max(heights) + 5):
                self.add_page()
            top = self.get_y()
            for index, cell in enumerate(lines):
                x = self.l_margin + index * width
                self.set_draw_color(*_ACCENT)
                self.set_line_width(0.5)
                self.line(x, top, x + width - 3, top)
                self.set_xy(x, top + 1)
                for text, size, style in cell:
                    self._font(size, style, colour=_INK if style else _SOFT)
                    self.set_x(x)
                    self.multi_cell(width - 3, size * 0.48, _typeset(text), align="L", new_x="LEFT", new_y="NEXT")
            self.set_xy(self.l_margin, top + max(heights) + 4)

    def _height(self, text: str, size: float, style: str, width: float) -> float:
        self._font(size, style)
        lines = self.multi_cell(width, size * 0.48, _typeset(text), align="L", dry_run=True, output="LINES")
        return len(lines) * size * 0.48  # type: ignore[arg-type]

    def _box(
        self, title: str, sentences: Sequence[str], colour: tuple[int, int, int], tint: tuple[int, int, int]
    ) -> None:
        """Write sentences on a tint with a bar at their left; the box goes on over pages."""
        if not sentences:
            return
        self.ln(3)
        if self.will_page_break(20):
            self.add_page()
        self.start_section(title, level=1)
        for index, line in enumerate([title, *(f"\N{BULLET} {sentence}" for sentence in sentences)]):
            self._font(9 if index == 0 else 8.5, "B" if index == 0 else "", colour=_INK)
            for part in self._lines(shown(line), self.epw - 6):
                if self.will_page_break(4.6):
                    self.add_page()
                self.set_fill_color(*tint)
                self.rect(self.l_margin, self.get_y(), self.epw, 4.6, style="F")
                self.set_fill_color(*colour)
                self.rect(self.l_margin, self.get_y(), 1.2, 4.6, style="F")
                self.set_x(self.l_margin + 4)
                self.cell(self.epw - 6, 4.6, part, new_x="LMARGIN", new_y="NEXT")

    def _lines(self, text: str, width: float) -> list[str]:
        found = self.multi_cell(width, 4, text, align="L", dry_run=True, output="LINES")
        return [str(line) for line in found]  # type: ignore[union-attr]

    def _figure_row(self, row: Sequence[tuple[bytes, str, float, float]], width: float) -> None:
        if not row:
            return
        captions = [self._height(caption, 7.0, "", width) for _, caption, _, _ in row]
        tallest = max(height for *_, height in row)
        if self.will_page_break(tallest + max(captions) + 6):
            self.add_page()
        top = self.get_y()
        for index, (picture, caption, across, height) in enumerate(row):
            x = self.l_margin + index * (width + _GAP)
            self.set_fill_color(0)  # what an SVG leaves open takes the page's colours
            self.set_draw_color(0)
            self.image(io.BytesIO(picture), x=x, y=top, w=across, h=height, alt_text=shown(caption))
            self._font(7, colour=_SOFT)
            self.set_xy(x, top + height + 1)
            self.multi_cell(width, 7 * 0.48, _typeset(caption), align="L")
        self.set_xy(self.l_margin, top + tallest + max(captions) + 5)

    def _table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], shares: Sequence[float] | None = None
    ) -> None:
        """Write a table whose heading repeats on every page; a row is never cut."""
        cells = [[_typeset(cell) for cell in row] for row in [columns, *_split(rows)]]
        widths = [self.epw * share / sum(shares) for share in shares] if shares else self._widths(cells)
        self._font(_TABLE_SIZES[0] if shares else self.font_size_pt)
        self.set_fill_color(255)
        self.set_draw_color(*_LINE)
        self.set_line_width(0.2)
        with self.table(
            col_widths=tuple(widths), width=min(sum(widths), self.epw), align="L", text_align="LEFT", v_align="TOP",
            borders_layout="HORIZONTAL_LINES", line_height=self.font_size * 1.35, padding=(0.6, 1.5, 0.6, 0),
            headings_style=FontFace(emphasis="B", color=_SOFT),
        ) as table:  # fmt: skip
            for row in cells:
                line = table.row()
                for cell in row:
                    line.cell(cell)
        self.ln(1)

    def _widths(self, cells: Sequence[Sequence[str]]) -> list[float]:
        """Return the columns' widths [mm] and set the font: the largest at which no word has to be broken."""
        natural, least = [0.0], [0.0]
        for size in _TABLE_SIZES:
            self._font(size, "B")
            columns = list(zip(*cells, strict=True))
            natural = [max(self.get_string_width(cell) for cell in column) + 3 for column in columns]
            least = [max(self._longest_word(cell) for cell in column) + 3 for column in columns]
            if sum(least) <= self.epw:
                break
        if sum(natural) <= self.epw:
            return natural
        spare = self.epw - sum(least)
        if spare < 0:
            return [self.epw * width / sum(least) for width in least]
        wanted = [a - b for a, b in zip(natural, least, strict=True)]
        return [b + spare * w / sum(wanted) for b, w in zip(least, wanted, strict=True)]

    def _longest_word(self, text: str) -> float:
        return max((self.get_string_width(word) for word in text.split(" ")), default=0.0)

    def _code(self, lines: Sequence[str]) -> None:
        self._font(8, family="mono")
        self.set_fill_color(*_TINT)
        self.multi_cell(self.epw, 4.4, "\n".join(map(shown, lines)), align="L", fill=True, padding=2,
                        new_x="LMARGIN", new_y="NEXT")  # fmt: skip
        self.ln(1)

    def _pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Write a name and its explanation, line by line."""
        for key, value in pairs:
            self._font(8.5, "B")
            self.write(4.2, f"{shown(key)}  ")
            self._font(8.5)
            self.write(4.2, shown(value))
            self.ln(5)


def shown(text: str) -> str:
    """Return text with the characters that the fonts lack as their code points, [U+6E2C]."""
    known = _known()
    return "".join(mark if ord(mark) in known else f"[U+{ord(mark):04X}]" for mark in text)


def _typeset(text: str) -> str:
    """Return text with printed signs for units and errors, and powers as superscripts."""
    powers = _POWER.sub(lambda match: match[1] + match[2].translate(_SUPERSCRIPTS), typographic(text))
    return shown(powers)


def _split(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return rows in which no cell is longer than a page has room for: the rest of a cell follows in the next row."""
    found = []
    for row in rows:
        parts = [[cell[i : i + _LONGEST_CELL] for i in range(0, len(cell), _LONGEST_CELL)] or [""] for cell in row]
        for k in range(max(map(len, parts))):
            found.append([part[k] if k < len(part) else "" for part in parts])
    return found


def _picture(drawing: Any, key: str) -> bytes:
    """Return a figure as SVG in which text is drawn as outlines, or as PNG where it holds pixels (maps, colour bars).

    fpdf2 does not place the pixel images of an SVG as their transformation says.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    style: dict[Any, Any] = {
        "svg.fonttype": "path", "svg.hashsalt": key, "mathtext.fontset": "dejavusans",
        "font.sans-serif": ["DejaVu Sans"],
    }  # fmt: skip
    with rc_context(style):
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        svg = buffer.getvalue()
        if "<image" in svg:
            pixels = io.BytesIO()
            drawing.savefig(pixels, format="png", dpi=_DPI, metadata={"Software": None})
            return pixels.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL).encode()


def _fonts() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@functools.cache
def _known() -> frozenset[int]:
    """Return the code points that both weights of the text's font have."""
    from fontTools.ttLib import TTFont

    known = []
    for file in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"):
        with TTFont(_fonts() / file, lazy=True) as font:
            known.append(set(font.getBestCmap() or ()))
    return frozenset(known[0] & known[1]) - set(range(32))


member = Pdf()
