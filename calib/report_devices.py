"""Excerpts of device models for reports: name, citation, main numbers with intervals, figure and identity."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from calib import characteristics as c
from calib.characteristics.base import known
from calib.device_model import attribute, identity, open_device
from calib.errors import OptionError
from calib.formatting import UNKNOWN, format_interval, format_quantity
from calib.iv_models import iv_model
from calib.report_files import ResultFile
from calib.report_parts import Table
from calib.state_names import state_name

_MAIN = {
    "iv": ("resistance_geometric_mean", "ln_resistance_std"),
    "conductance": ("g_off", "g_on"),
    "programming": ("sigma", "sigma_d2d", "sigma_c2c"),
    "stuck": ("probability",),
    "read_noise": (),
    "retention": ("drift_exponent_mean", "drift_exponent_std"),
}
"""Quantities of a device model that decide what networks do on it; of the law the shape parameters as well."""
COLUMNS = ("quantity", "of", "value", "95 % interval", "sample")


def main_estimates(tree: xr.DataTree) -> list[c.Estimate]:
    """Return the estimates of a device model that decide what networks do on it."""
    shape = set()
    if "iv" in tree.children:
        shape = {f"{name}_value_at_centre" for name in iv_model(str(tree["iv"].attrs["iv_model"])).shape}
    return [
        item
        for item in known(c.estimates(tree))
        if item.quantity in _MAIN.get(item.characteristic, ())
        or (item.characteristic == "iv" and item.quantity in shape)
    ]


def interval_text(item: c.Estimate) -> str:
    """Return the interval of an estimate, '' where it has none."""
    return "" if math.isnan(item.low) and math.isnan(item.high) else format_interval(item.low, item.high, item.unit)


def law_caption(tree: xr.DataTree) -> str:
    """Return the caption of a device model's I-V figure."""
    from calib import figures

    return figures.IV_CAPTION if "examples" in tree.children else figures.LAW_CAPTION


def excerpt(tree: xr.DataTree) -> dict[str, Any]:
    """Return what the template shows of a device model."""
    from calib import describe, figures, html

    sha256 = identity(tree)
    drawn = figures.iv_figure(tree)
    pictures = [] if drawn is None else html.pictures([("iv", law_caption(tree), drawn)], f"{sha256}-")
    rows = [
        (item.label, state_name(item.state) if item.state else "", format_quantity(item.value, item.unit),
         interval_text(item) or UNKNOWN, item.n or "not stated")
        for item in main_estimates(tree)
    ]  # fmt: skip
    name = str(tree.attrs.get("name", ""))
    return {
        "name": name,
        "technology": str(tree.attrs.get("technology", "")),
        "citation": str(tree.attrs.get("citation", "")),
        "identity": sha256,
        "numbers": describe.key_numbers(tree),
        "table": Table(f"Main parameters of {name}", COLUMNS, rows),
        "warnings": attribute(tree, "warnings"),
        "assumptions": attribute(tree, "assumptions"),
        "pictures": pictures,
    }


def devices_of(
    opened: Sequence[ResultFile], given: Sequence[str | Path | xr.DataTree], beside: Iterable[xr.DataTree] = ()
) -> list[xr.DataTree]:
    """Return the device models to show: those given, bundled ones that were evaluated, and those in run folders.

    Raises
    ------
    OptionError
        When a device model that is given is not one that the results were evaluated on.
    """
    from calib import data_folder

    named = {name: sha256 for file in opened for name, sha256 in file.devices.items()}
    evaluated = dict.fromkeys(
        sha256 for file in opened for hashes in file.devices.values() for sha256 in hashes.split()
    )
    found: dict[str, xr.DataTree] = {}
    for item in given:
        tree = item if isinstance(item, xr.DataTree) else open_device(item)
        if identity(tree) not in evaluated:
            raise OptionError(
                f"the device model '{tree.attrs.get('name', '')}' ({identity(tree)[:12]}) is not one that the results "
                f"were evaluated on ({', '.join(sha256[:12] for sha256 in evaluated) or 'none'}); leave it out"
            )
        found[identity(tree)] = tree
    bundled = set(data_folder.bundled_model_names())
    known = [open_device(name) for name in dict.fromkeys(name.split(", ")[0] for name in named) if name in bundled]
    for tree in (*known, *beside):
        if identity(tree) in evaluated:
            found.setdefault(identity(tree), tree)
    return [found[sha256] for sha256 in evaluated if sha256 in found]
