"""What calib's HTML documents share: the template environment, DOI links, figures inside the page.

All text is escaped by jinja2; only markup made here is passed on as markup.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from calib.formatting import typographic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOI = re.compile(r"\b10\.\d{4,9}/[^\s\"'<>]+[^\s\"'<>.,;:)\]]")

_PERCENT = re.compile(r"(?<=\d) %")
_POWER = re.compile(r"\b(V)\^(-?\d+(?:/\d+)?)")


@dataclass(frozen=True)
class Picture:
    """A figure in a page: its SVG, the caption, and whether it takes the whole width."""

    svg: Markup
    caption: str
    wide: bool = False


def render(template: str, **content: Any) -> str:
    """Return the page made from a template of calib/templates."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("calib", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["typographic"] = typeset
    environment.filters["doi_links"] = doi_links
    return environment.get_template(template).render(**content)


def typeset(text: str) -> Markup:
    """Return text, escaped, with printed signs for units and errors, V^-1/2 as a superscript, and no break before %."""
    printed = _PERCENT.sub("\N{NO-BREAK SPACE}%", str(escape(typographic(text))))
    return Markup(_POWER.sub(r"\1<sup>\2</sup>", printed))


def doi_links(text: str) -> Markup:
    """Return text, escaped, with its DOIs as links: the only links that lead out of a page."""
    parts, end = [], 0
    for match in _DOI.finditer(text):
        doi = escape(match[0])
        parts += [escape(text[end : match.start()]), Markup('<a href="https://doi.org/{0}">{0}</a>').format(doi)]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def pictures(drawn: "Iterable[tuple[str, str, Figure]]", prefix: str = "") -> list[Picture]:
    """Return figures (key, caption, figure) as inline SVG."""
    from calib.figure_style import COLUMN, to_svg

    found = []
    for key, caption, drawing in drawn:
        wide = drawing.get_figwidth() * 25.4 > 1.2 * COLUMN
        found.append(Picture(Markup(to_svg(drawing, f"{prefix}{key}", caption)), caption, wide))
    return found
