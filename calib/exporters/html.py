"""HTML: a data sheet in one file, for a reader who has never seen calib.

The page needs nothing else: styles and figures are inside it, it has no scripts, and only DOIs lead out of it.
"""

import json
import math
from dataclasses import dataclass, replace

import xarray as xr

from calib import characteristics as c
from calib import describe
from calib.device_model import attribute, identity
from calib.exporters.base import Exporter, slug
from calib.formatting import format_interval, format_percent, format_quantity
from calib.iv_models import iv_model

_TITLES = {
    "iv": "I-V law and resistance",
    "conductance": "Conductance range",
    "programming": "Programming spread",
    "stuck": "Stuck devices",
}
_WORDS = (
    ("lrs, hrs", "low- and high-resistance state: what a set and a reset operation leave the device in."),
    ("R, G", "resistance R = V / I at the reference voltage, and conductance G = 1 / R."),
    (
        "spread about the line",
        "how far single devices lie from the trend of their parameter with ln R; what the fit of a single curve leaves "
        "uncertain has been taken out.",
    ),
    ("programming spread", "standard deviation of ln R after programming; 0.1 is about 10 %."),
    ("95 % confidence", "an interval that covers the true value in 95 of 100 repetitions of the measurement."),
)


@dataclass(frozen=True)
class _Row:
    label: str
    value: str
    interval: str
    n: str
    validity: str
    method: str


class Html(Exporter):
    """A self-contained data sheet."""

    name = "html"
    suffix = ".html"
    carries = "every characteristic with its uncertainty, figures, warnings and provenance, for people"

    def omits(self, device_model: xr.DataTree) -> list[str]:
        sentences = ["when the model was made (equal models give equal sheets)"]
        if "iv" in device_model.children and "curve_parameter" in device_model["iv"]:
            sentences.append("the parameters of single curves, which are drawn but not listed")
        if "iv" in device_model.children:
            sentences.append("the covariances between parameters; the spread of each is given")
        return sentences

    def contents(self, device_model: xr.DataTree) -> dict[str, str]:
        return {self.file_name(device_model): _page(device_model)}


def _page(tree: xr.DataTree) -> str:
    from calib import figures, html

    attrs = {key: str(tree.attrs.get(key, "")) for key in ("name", "technology", "citation")}
    file = f"{slug(attrs['name'])}.nc"
    return html.render(
        "card.html.j2",
        **attrs,
        summary=_summary(tree),
        key_numbers=describe.key_numbers(tree),
        warnings=attribute(tree, "warnings"),
        assumptions=attribute(tree, "assumptions"),
        pictures=html.pictures(figures.device_figures(tree)),
        characteristics=_characteristics(tree),
        sections=_sections(tree),
        usage=(
            f'import calib, torch\ndevice = calib.open_device("{file}")\n'
            "network = calib.nn.convert(torch.nn.Linear(784, 10), device)"
        ),
        file=file,
        words=_WORDS,
        absent=c.absent(tree),
        provenance=_provenance(tree),
    )


def _sections(tree: xr.DataTree) -> list[describe.Section]:
    """Return the tables in full; what the sheet says elsewhere, and when the model was made, is left out."""
    kept = [s for s in describe.describe(tree) if s.title not in describe.PLAIN_SECTIONS]
    rows = tuple(row for row in kept[0].rows if row[0] not in ("name", "technology", "citation", "made", "source"))
    return [replace(kept[0], rows=rows), *kept[1:]]


def _summary(tree: xr.DataTree) -> str:
    parts = [
        "This sheet describes a population of memristive devices: resistors whose conductance can be programmed and "
        "read, used here as the weights of neural networks."
    ]
    if "iv" in tree.children:
        attrs = tree["iv"].attrs
        model = iv_model(str(attrs["iv_model"]))
        parts.append(
            f"Their current follows the law of {model.title}, {model.equation}, in the range |V| = "
            f"{float(attrs['v_min']):g} to {float(attrs['v_max']):g} V; its parameters vary with the resistance R and "
            "from device to device."
        )
    else:
        parts.append("No I-V law is part of the model: the devices are taken as ohmic.")
    return " ".join(parts)


def _characteristics(tree: xr.DataTree) -> list[tuple[str, list[_Row]]]:
    groups: dict[str, list[_Row]] = {}
    for item in c.estimates(tree):
        title = _TITLES.get(item.characteristic, item.characteristic)
        title += f": {describe.state_name(item.state)}" if item.state else ""
        interval = ""
        if math.isfinite(item.low) or math.isfinite(item.high):
            interval = f"{format_interval(item.low, item.high, item.unit)} ({item.interval})"
        if item.quantity == "probability":
            value = format_percent(item.value)
        elif item.characteristic == "programming" and math.isnan(item.value):
            value = "not separated"
        else:
            value = format_quantity(item.value, item.unit, item.stderr)
        groups.setdefault(title, []).append(_Row(item.label, value, interval, item.n, item.validity, item.method))
    return list(groups.items())


def _provenance(tree: xr.DataTree) -> list[tuple[str, str]]:
    rows = [("identity (SHA-256)", identity(tree)), ("schema", str(tree.attrs["schema"]))]
    if tree.attrs.get("license"):
        rows.append(("licence of the data", str(tree.attrs["license"])))
    rows += [("source", f"{s.get('name', '')}, sha256 {s.get('sha256', '')}") for s in attribute(tree, "sources")]
    options = json.loads(tree.attrs.get("options", "{}"))
    rows += [(f"option {key}", "not set" if value is None else str(value)) for key, value in sorted(options.items())]
    return rows


member = Html()
