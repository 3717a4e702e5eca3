"""What a data sheet says, whichever format it is written in: html, markdown and pdf show the same sheet.

All text is visible and on one line (`calib.exporters._text`); the formats escape what is markup to them.
"""

import json
import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import xarray as xr

from calib import characteristics as c
from calib import describe
from calib.device_model import attribute, identity
from calib.exporters._text import one_line, visible_model, with_short_names
from calib.exporters.base import slug
from calib.formatting import format_interval, format_number, format_percent, format_quantity, spelled
from calib.iv_models import iv_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("quantity", "value", "interval", "sample", "valid", "method")
"""Columns of the table of characteristics."""
ABSENT = "These were not measured, or the data do not support them; nothing is assumed in their place."
TABLE = (
    "Every number of the model with its uncertainty and its SI unit. Intervals are those of 95 % confidence unless "
    "they say otherwise. Where a cell is empty, the source does not state it. The methods are listed under the table."
)
CLOSING = (
    "Device model and data sheet by calib. The identity is the SHA-256 of the model's content: two sheets with the "
    "same identity describe the same model."
)
KIND = "Memristive device data sheet"
INSTALL = "pip install calib-memristor"
_TITLES = {"iv": "I-V law and resistance", "selection": "Choice of the I-V law"}
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
    (
        "valid",
        "the voltages, resistances, times or temperatures that were measured; beyond them the number is a guess.",
    ),
)


@dataclass(frozen=True)
class Row:
    """One number of the table of characteristics; `method` is a number in the sheet's list of methods, or 0."""

    label: str
    value: str
    interval: str
    n: str
    validity: str
    method: int

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells in the order of `COLUMNS`, the method as its number."""
        return (self.label, self.value, self.interval, self.n, self.validity, f"[{self.method}]" if self.method else "")


@dataclass(frozen=True)
class Sheet:
    """The content of a data sheet; every string is plain text on one line."""

    name: str
    technology: str
    citation: str
    summary: str
    key_numbers: list[tuple[str, str, str]]
    warnings: list[str]
    assumptions: list[str]
    characteristics: list[tuple[str, list[Row]]]
    methods: list[str]
    sections: list[describe.Section]
    file: str
    usage: list[str]
    commands: list[tuple[str, str]]
    words: list[tuple[str, str]]
    absent: list[str]
    provenance: list[tuple[str, str]]
    identity: str


def sheet(device_model: xr.DataTree) -> Sheet:
    """Return what the data sheet of a device model says, all but its figures."""
    tree = visible_model(device_model)
    title = str(tree.attrs.get("name", "")).strip() or "unnamed device"
    file = f"{slug(str(tree.attrs.get('name', '')))}.nc"
    groups, methods = _characteristics(tree)
    found = Sheet(
        name=title,
        technology=str(tree.attrs.get("technology", "")),
        citation=str(tree.attrs.get("citation", "")),
        summary=_summary(tree),
        key_numbers=describe.key_numbers(tree),
        warnings=attribute(tree, "warnings"),
        assumptions=attribute(tree, "assumptions"),
        characteristics=groups,
        methods=methods,
        sections=_sections(tree),
        file=file,
        usage=_usage(tree, file),
        commands=_commands(tree, file),
        words=list(_WORDS),
        absent=c.absent(tree),
        provenance=_provenance(tree, identity(device_model)),
        identity=identity(device_model),
    )
    parts = {field.name: _clean(getattr(found, field.name)) for field in fields(found) if field.name != "usage"}
    return replace(found, **parts)


_drawn: "dict[str, list[tuple[str, str, Figure]]]" = {}


def drawings(device_model: xr.DataTree) -> "list[tuple[str, str, Figure]]":
    """Return the figures of a data sheet as (key, caption, figure); keys are letters, digits and hyphens.

    The figures of the model drawn last are kept: the sheet's formats share them.
    """
    from calib import figures

    key = identity(device_model)
    if key not in _drawn:
        found = figures.device_figures(with_short_names(visible_model(device_model)))
        _drawn.clear()
        _drawn[key] = [(slug(name), one_line(caption), figure) for name, caption, figure in found]
    return _drawn[key]


def omits(tree: xr.DataTree) -> list[str]:
    """Return what a data sheet leaves out, whichever format it is written in."""
    sentences = ["when the model was made (equal models give equal sheets)"]
    if "iv" in tree.children and "curve_parameter" in tree["iv"]:
        sentences.append("the parameters of single curves, which are drawn but not listed")
    if "iv" in tree.children:
        sentences.append("the covariances between parameters; the spread of each is given")
    return sentences


def _clean(value: Any) -> Any:
    """Return the same structure with every text on one line."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_clean(item) for item in value)
    if isinstance(value, describe.Section | Row):
        return replace(value, **{field.name: _clean(getattr(value, field.name)) for field in fields(value)})
    return value


def _sections(tree: xr.DataTree) -> list[describe.Section]:
    """Return the tables in full; what the sheet says elsewhere, and when the model was made, is left out."""
    kept = [s for s in describe.describe(tree) if s.title not in describe.PLAIN_SECTIONS]
    elsewhere = ("name", "technology", "citation", "license", "made", "source", "identity", "")
    rows = tuple(row for row in kept[0].rows if row[0] not in elsewhere)
    return [replace(kept[0], rows=rows), *kept[1:]] if rows else kept[1:]


def _summary(tree: xr.DataTree) -> str:
    parts = [
        "This sheet describes a population of memristive devices: resistors whose conductance can be programmed and "
        "read, used here as the weights of neural networks."
    ]
    if "iv" in tree.children:
        attrs = tree["iv"].attrs
        model = iv_model(str(attrs["iv_model"]))
        low, high = (f"{float(attrs[key]):.3g}" for key in ("v_min", "v_max"))
        parts.append(
            f"Their current follows the law of {model.title}, {model.equation}, in the range |V| = {low} to {high} V; "
            "its parameters vary with the resistance R and from device to device."
        )
    elif "conductance" in tree.children:
        parts.append("No I-V law is part of the model: the devices are taken as ohmic.")
    else:
        parts.append("No I-V law and no conductance range in siemens are part of the model.")
    return " ".join(parts)


def _usage(tree: xr.DataTree, file: str) -> list[str]:
    """Return three lines of Python that use the model for what it can do."""
    opened = f'device = calib.open_device("{file}")'
    if "conductance" in tree.children:
        return ["import calib, torch", opened, "network = calib.nn.convert(torch.nn.Linear(784, 10), device)"]
    return ["import calib", opened, f'print(device["{next(iter(tree.children))}"])']


def _commands(tree: xr.DataTree, file: str) -> list[tuple[str, str]]:
    """Return commands and what each does."""
    found = [(f"calib show {file}", "prints this sheet's tables")]
    if "conductance" in tree.children:
        found.append((f"calib train --device {file} -o run", "trains a network that knows this device"))
    return found


def _characteristics(tree: xr.DataTree) -> tuple[list[tuple[str, list[Row]]], list[str]]:
    """Return the table of all numbers in groups with a title, and the methods to which their rows refer by number."""
    items = c.estimates(tree)
    per_state: dict[tuple[str, str], int] = {}
    for item in items:
        key = (item.characteristic, item.state)
        per_state[key] = per_state.get(key, 0) + 1
    groups: dict[str, list[Row]] = {}
    methods: dict[str, int] = {}
    for item in items:
        title = _TITLES.get(item.characteristic) or _title(item.characteristic)
        label = item.label
        if item.state and per_state[item.characteristic, item.state] > 2:
            title += f": {describe.state_name(item.state)}"
        elif item.state and item.state not in label:
            label = f"{describe.state_name(item.state)}: {label}"
        number = methods.setdefault(one_line(item.method), len(methods) + 1) if item.method.strip() else 0
        groups.setdefault(title, []).append(
            Row(label, _value(item), _interval(item), item.n, item.validity, number),
        )
    return list(groups.items()), list(methods)


def _title(characteristic: str) -> str:
    words = c.MEANINGS.get(characteristic, characteristic.replace("_", " ")).partition(":")[0]
    return words[:1].upper() + words[1:]


def _value(item: c.Estimate) -> str:
    if item.quantity == "probability":
        return format_percent(item.value)
    if item.characteristic == "programming" and math.isnan(item.value):
        return "not separated"
    return format_quantity(item.value, item.unit, item.stderr)


def _interval(item: c.Estimate) -> str:
    if not (math.isfinite(item.low) or math.isfinite(item.high)):
        return ""
    kind = "" if item.interval == "95 % confidence" else f" ({item.interval})"
    largest, width = max(abs(item.low), abs(item.high)), item.high - item.low
    if spelled(item.unit) in ("", "V^-1/2") and 0 < width < 0.02 * largest:
        digits = 2 + math.ceil(math.log10(largest / width))
        ends = f"{format_number(item.low, digits)} to {format_number(item.high, digits)}"
        return f"{ends} {spelled(item.unit)}".rstrip() + kind
    return format_interval(item.low, item.high, item.unit) + kind


def _provenance(tree: xr.DataTree, sha256: str) -> list[tuple[str, str]]:
    rows = [("identity (SHA-256)", sha256), ("schema", str(tree.attrs["schema"]))]
    if tree.attrs.get("license"):
        rows.append(("licence of the data", str(tree.attrs["license"])))
    rows += [("source", f"{s.get('name', '')}, sha256 {s.get('sha256', '')}") for s in attribute(tree, "sources")]
    options = json.loads(tree.attrs.get("options", "{}"))
    rows += [(f"option {key}", "not set" if value is None else str(value)) for key, value in sorted(options.items())]
    return rows
