"""The node validation in tables and as plain values."""

import json
import math
from typing import Any

import numpy as np
import xarray as xr

from calib.characteristics.base import Section
from calib.formatting import format_percent, plural
from calib.state_names import state_name


def states_of(node: xr.Dataset) -> list[str]:
    """Return the names of a node's states."""
    return [str(state) for state in node["state"].values]


def validation_section(node: xr.Dataset) -> Section:
    """Return the coverage of the predictive intervals on devices that the model was not fitted to."""
    rows = []
    for level in node["level"].values:
        here = node.sel(level=level)
        name = f"{100 * float(level):g} %"
        for state in states_of(node):
            at = here.sel(state=state)
            curves = format_percent(float(at["coverage_curve"])) if "coverage_curve" in at else ""
            if "coverage_curve_bound" in at:
                curves += f" (a perfect model: {_percents(at['coverage_curve_bound'].values)})"
            count = f"{int(at['n_curves'])} curves" if "n_curves" in at else f"{int(at['n_values'])} reads"
            size = f"{count} of {plural(int(at['n_devices']), 'device')}"
            rows.append((name, state_name(state), format_percent(float(at["coverage_state"])), curves, size))
        together = format_percent(float(here["coverage"]))
        perfect = f"a perfect model: {_percents(here['coverage_bound'].values)}"
        rows.append((name, "all states", together, "", perfect))
    notes = [str(node.attrs["verdict"])]
    ratio = float(node["interval_score_ratio"].sel(level=0.9)) if "interval_score_ratio" in node else math.nan
    if math.isfinite(ratio):
        notes.append(
            f"interval score of the 90 % interval: {ratio:.2f} of that of the fitted devices' own "
            "quantiles (1 is as good; small is better)"
        )
    notes += json.loads(node.attrs.get("findings", "[]"))
    columns = ("interval", "state", "points inside", "whole curves inside", "sample")
    return Section("Coverage of the predictive interval", columns, tuple(rows), tuple(notes))


def comparison_section(node: xr.Dataset) -> Section | None:
    """Return every quantity that was compared: coverage of its 90 % interval, and the distances with their p-values."""
    if not node.sizes.get("comparison"):
        return None
    rows = []
    for k in range(node.sizes["comparison"]):
        here = node.isel(comparison=k)
        at = here.sel(level=0.9)
        rows.append((
            str(here["comparison_quantity"].item()), str(here["comparison_state"].item()),
            str(here["comparison_at"].item()), format_percent(float(at["comparison_coverage"])),
            _percents(at["comparison_coverage_bound"].values),
            f"{float(here['ks']):.2g} (p {float(here['ks_p']):.2g})",
            f"{float(here['wasserstein']):.2g} (p {float(here['wasserstein_p']):.2g})",
            f"{int(here['n_comparison_values'])} of {plural(int(here['n_comparison_devices']), 'device')}",
        ))  # fmt: skip
    columns = ("quantity", "state", "at", "in 90 % interval", "a perfect model", "Kolmogorov-Smirnov", "Wasserstein",
               "values")  # fmt: skip
    note = "p: fraction of samples of as many devices and cycles, drawn from the model, that are as far from it"
    return Section("Measured against drawn distributions", columns, tuple(rows), (note,))


def _percents(bound: np.ndarray) -> str:
    return f"{100 * float(bound[0]):.1f} to {100 * float(bound[1]):.1f} %"


def validation_json(node: xr.Dataset) -> dict[str, Any]:
    """Return verdict, coverage_50 and coverage_90 (mean; low and high of a perfect model), and what else was compared.

    coverage_curve_90 has the same keys for whole curves by state, interval_score_ratio is that of the 90 % interval,
    distances is a list with one object for each quantity that was compared.
    """
    found: dict[str, Any] = {"verdict": str(node.attrs["verdict"])}
    for level in node["level"].values:
        here = node.sel(level=level)
        low, high = here["coverage_bound"].values.tolist()
        found[f"coverage_{100 * float(level):g}"] = {"mean": float(here["coverage"]), "low": low, "high": high}
    here = node.sel(level=0.9)
    if "coverage_curve_bound" in node:
        found["coverage_curve_90"] = {
            state: {"mean": mean, "low": low, "high": high}
            for state, mean, (low, high) in zip(
                states_of(node), here["coverage_curve"].values.tolist(), here["coverage_curve_bound"].values.tolist(),
                strict=True,
            )
        }  # fmt: skip
    if "interval_score_ratio" in node:
        ratio = float(here["interval_score_ratio"])
        found["interval_score_ratio"] = ratio if math.isfinite(ratio) else None
    found["distances"] = [_comparison_json(here.isel(comparison=k)) for k in range(node.sizes.get("comparison", 0))]
    found["findings"] = json.loads(node.attrs.get("findings", "[]"))
    return found


def _comparison_json(here: xr.Dataset) -> dict[str, Any]:
    low, high = here["comparison_coverage_bound"].values.tolist()
    return {
        **{key: str(here[f"comparison_{key}"].item()) for key in ("quantity", "state", "at")},
        "coverage_90": {"mean": float(here["comparison_coverage"]), "low": low, "high": high},
        **{key: float(here[key]) for key in ("ks", "ks_p", "wasserstein", "wasserstein_p")},
        "n_devices": int(here["n_comparison_devices"]),
        "n_values": int(here["n_comparison_values"]),
    }
