"""The fit of every curve as a table."""

import csv
import io
import json

import numpy as np
import xarray as xr

from calib.errors import ModelError


def curve_table(tree: xr.DataTree) -> str:
    """Return the per-curve fits of a device model as csv.

    One row a curve: device, cycle, state, status ('ok' or a sentence), resistance_ohm with the standard error of ln R,
    every parameter with its standard error (the unit in the header), the relative residual, the offset and the number
    of points.

    Raises
    ------
    ModelError
        When the model has no per-curve fits.
    """
    if "iv" not in tree.children or "curve_status" not in tree["iv"]:
        name = tree.attrs.get("name", "")
        raise ModelError(f"the device model '{name}' holds no fits of single curves; fit it from I-V sweeps")
    node = tree["iv"].to_dataset()
    units = json.loads(node["curve_parameter"].attrs["units"])
    names = [str(name) for name in node["parameter"].values]
    header = ["device", "cycle", "state", "status", "resistance_ohm", "ln_resistance_stderr"]
    for name in names:
        header += [f"{name}_{units[name]}", f"{name}_stderr"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*header, "relative_rms", "offset_A", "points"])
    resistance = np.exp(node["curve_ln_r"].values)
    for k in range(node.sizes["curve"]):
        values = np.stack([node["curve_parameter"].values[k], node["curve_parameter_stderr"].values[k]], axis=1)
        writer.writerow([
            node["curve_device"].values[k], int(node["curve_cycle"].values[k]), node["curve_state"].values[k],
            node["curve_status"].values[k], *_numbers(resistance[k], node["curve_ln_r_stderr"].values[k]),
            *_numbers(*values.ravel()), *_numbers(node["curve_rms"].values[k], node["curve_offset"].values[k]),
            int(node["curve_n_points"].values[k]),
        ])  # fmt: skip
    return out.getvalue()


def _numbers(*values: float) -> list[str]:
    return [f"{value:.8g}" if np.isfinite(value) else "" for value in values]
