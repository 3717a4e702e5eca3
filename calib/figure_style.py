"""The look of every figure of calib: size, colours, marks, scales and legends.

A quantity has one colour in all figures (`COLOURS`, after M. Okabe and K. Ito, Color Universal Design, 2008, which
readers with any colour vision can tell apart), and a state also has its own marker.
"""

import hashlib
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

COLUMN = 85.0
DOUBLE = 175.0
_MM_PER_INCH = 25.4

COLOURS = {
    "lrs": "#0072B2",
    "hrs": "#D55E00",
    "all": "#5A5A5A",
    "fitted": "#1A1A1A",
    "measured": "#7F7F7F",
    "stuck": "#CC79A7",
    "set": "#0072B2",
    "reset": "#D55E00",
    "form": "#009E73",
    "g_off": "#D55E00",
    "g_on": "#0072B2",
    "total": "#1A1A1A",
    "d2d": "#009E73",
    "c2c": "#E69F00",
    "ideal": "#56B4E9",
    "aware": "#009E73",
    "training": "#7F7F7F",
    "validation": "#0072B2",
    "potentiation": "#0072B2",
    "depression": "#D55E00",
    "success": "#0072B2",
    "failed": "#D55E00",
}
"""One colour per quantity, in every figure of calib."""
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#5A5A5A", "#B8A900")
MARKERS = {"lrs": "o", "hrs": "s", "all": "D"}

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "mathtext.fontset": "dejavusans",
    "svg.fonttype": "none",
    "figure.dpi": 100,
}
_FALLBACK_FONTS = "'DejaVu Sans', Verdana, Arial, sans-serif"


@contextmanager
def figure(width: float = COLUMN, height: float = 62.0) -> Iterator[Figure]:
    """Yield an empty figure of `width` x `height` mm in calib's style; at the end its layout is settled and frozen."""
    with rc_context(_STYLE):
        drawing = Figure(figsize=(width / _MM_PER_INCH, height / _MM_PER_INCH), layout="constrained")
        yield drawing
        engine = drawing.get_layout_engine()
        if engine is not None:
            engine.execute(drawing)
        drawing.set_layout_engine("none")


def to_svg(drawing: Figure, key: str, description: str) -> str:
    """Return a figure as inline SVG: deterministic, its identifiers unique to `key`, with a text alternative."""
    buffer = io.StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": key}):
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    prefix = "f" + hashlib.sha256(key.encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    svg = svg.replace("'DejaVu Sans'", _FALLBACK_FONTS).replace(f"{_FALLBACK_FONTS}, sans-serif", _FALLBACK_FONTS)
    opening = f'<svg role="img" aria-labelledby="{prefix}-title" '
    title = f'<title id="{prefix}-title">{escape(description)}</title>'
    head, rest = svg.replace("<svg ", opening, 1).split(">", 1)
    return f"{head}>{title}{rest}\n"


def colour_of(key: str) -> str:
    """Return the colour of a quantity or a state; a state without a colour of its own gets one of the cycle."""
    return COLOURS.get(key) or CYCLE[int(hashlib.sha256(key.encode()).hexdigest(), 16) % len(CYCLE)]


def plain(label: str) -> str:
    """Return text for a figure with the dollar sign, which would start mathematics, taken literally."""
    return label.replace("\\", "\\\\").replace("$", r"\$")


def log_scale(axes: Axes, direction: str) -> None:
    """Make an axis logarithmic, with prefixed labels at decades, or at 1, 2 and 5 where there are few of those."""
    (axes.set_xscale if direction == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if direction == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    decades = math.floor(math.log10(high)) - math.ceil(math.log10(low)) + 1
    subs = (1.0,) if high / low > 40 and decades > 1 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.set_minor_formatter(NullFormatter())


def legend_above(axes: Axes, *, by_label: bool = False) -> None:
    """Put the legend over the axes, where it hides no data; `by_label` groups it by state."""
    handles, labels = axes.get_legend_handles_labels()
    if by_label:
        groups = list(dict.fromkeys(label.partition(",")[0] for label in labels))
        order = sorted(range(len(labels)), key=lambda i: groups.index(labels[i].partition(",")[0]))
        handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    if handles:
        axes.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2,
            columnspacing=1.2, handlelength=1.6, handletextpad=0.5,
        )  # fmt: skip
