"""Part of a report on where the spread of results comes from."""

import json
import math

import xarray as xr

from calib.characteristics import MEANINGS
from calib.formatting import UNKNOWN, format_quantity, plural
from calib.report_files import ResultFile
from calib.report_parts import PERCENT, Part, Table, joined, title_of

_CAPTION = (
    "Standard deviation of the error (left) and of the energy (right) from chip to chip, from network to network and "
    "from what is not known about the device, with 95 % intervals."
)
_QUANTITIES = {"error": "error", "energy_per_inference": "energy"}


def uncertainty_part(file: ResultFile) -> Part:
    """Return the split of the variance, and how many more devices to measure."""
    from calib.variance_figure import variance_figure

    data = file.data
    networks, models, chips = data["error"].shape
    held = json.loads(data.attrs.get("not_drawn", "[]"))
    notes = (
        f"{plural(networks, 'network')} x {models} draws of the device model within its parameter uncertainty x "
        f"{plural(chips, 'chip')}; crossed random effects with chips nested in them.",
        "What is not known falls as 1 / sqrt(n) of the measured devices: three times as many more halve it.",
        *((f"Held, because their uncertainty is not known: {', '.join(held)}.",) if held else ()),
    )
    return Part(
        title_of(file),
        (*(_split_sentence(data, quantity) for quantity in _QUANTITIES), *_more_sentence(data)),
        (("uncertainty", _CAPTION, variance_figure(data)),),
        tuple(table for table in (_split(data), _characteristics(data), _to_measure(data)) if table.rows),
        notes,
    )


def _split(data: xr.Dataset) -> Table:
    from calib.uncertainty import MEANINGS as COMPONENTS

    rows = []
    for quantity, word in _QUANTITIES.items():
        total = float(data["variance"].sel(quantity=quantity).sum())
        for component in map(str, data["component"].values):
            cell = data.sel(quantity=quantity, component=component)
            value = float(cell["variance"])
            share = f"{PERCENT * value / total:.1f} %" if total > 0 and math.isfinite(value) else "not told apart"
            rows.append((word, COMPONENTS.get(component, component), share, *_std(cell, "variance", quantity)))
    columns = ("of", "what varies", "share of the variance", "standard deviation", "95 % interval")
    return Table("Variance of error and energy, split", columns, rows)


def _characteristics(data: xr.Dataset) -> Table:
    names = list(map(str, data["characteristic"].values)) if "characteristic" in data.dims else []
    rows = []
    for quantity, word in _QUANTITIES.items():
        for name in names:
            cell = data.sel(quantity=quantity, characteristic=name)
            rows.append((word, _words(name), *_std(cell, "characteristic_variance", quantity)))
    columns = ("of", "characteristic", "standard deviation", "95 % interval")
    return Table("What each characteristic of the device model leaves open, drawn by itself", columns, rows)


def _to_measure(data: xr.Dataset) -> Table:
    from calib.uncertainty import more_devices

    measured, more = json.loads(data.attrs["devices_measured"]), more_devices(data)
    rows = [
        (_words(name), "not stated", UNKNOWN) if n is None else (_words(name), str(n), str(more[name]))
        for name, n in measured.items()
    ]  # fmt: skip
    columns = ("characteristic", "devices measured", "more, to halve its standard deviation")
    return Table("Devices to measure", columns, rows)


def _words(name: str) -> str:
    return MEANINGS.get(name, name).partition(":")[0]


def _std(cell: xr.Dataset, key: str, quantity: str) -> tuple[str, str]:
    """Return a standard deviation and its interval, of errors in points; empty where it is not known."""
    value, low, high = (math.sqrt(float(cell[name])) for name in (key, f"{key}_low", f"{key}_high"))
    if math.isnan(value):
        return "", ""
    if quantity == "error":
        return f"{PERCENT * value:.3g} points", f"{PERCENT * low:.2g} to {PERCENT * high:.3g} points"
    return format_quantity(value, "J"), f"{format_quantity(low, 'J')} to {format_quantity(high, 'J')}"


def _split_sentence(data: xr.Dataset, quantity: str) -> str:
    from calib.uncertainty import MEANINGS as COMPONENTS

    row = data["variance"].sel(quantity=quantity)
    total = float(row.sum())
    if not total > 0:
        return f"The {_QUANTITIES[quantity]} does not vary."
    shares = {str(name): float(row.sel(component=name)) / total for name in row["component"].values}
    ranked = sorted(((share, name) for name, share in shares.items() if math.isfinite(share)), reverse=True)
    parts = [f"{PERCENT * share:.0f} % {COMPONENTS.get(name, name)}" for share, name in ranked]
    return f"The variance of the {_QUANTITIES[quantity]} is {', '.join(parts)}."


def _more_sentence(data: xr.Dataset) -> tuple[str, ...]:
    """Return how many more devices to measure, empty where the model does not say how many there were."""
    from calib.uncertainty import more_devices

    by_count: dict[int, list[str]] = {}
    for name, count in more_devices(data).items():
        if count is not None:
            by_count.setdefault(count, []).append(_words(name))
    if not by_count:
        return ()
    parts = [f"{plural(count, 'more device')} ({', '.join(names)})" for count, names in by_count.items()]
    return (f"To halve the standard deviation of what is not known about the device, measure {joined(parts)}.",)
