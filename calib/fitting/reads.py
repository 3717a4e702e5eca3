"""What conductance reads without sweeps support: range, programming spread and stuck devices."""

import numpy as np
import xarray as xr

from calib.errors import FitError
from calib.fitting import conductance, programming, stuck

SWITCHING_RATIO = 2.0
"""Reads that name no states are of devices that were switched when the median device's reads span this factor."""


def reads_nodes(
    node: xr.Dataset, *, reference_voltage: float, stuck_rule: str, warnings: list[str]
) -> dict[str, xr.Dataset]:
    """Fit what conductance reads support: range, programming spread and stuck devices."""
    g = node["conductance"].values
    device = node["device"].values.astype(str)
    finite = np.isfinite(g) & (g > 0)
    dropped = int((np.isfinite(g) & (g <= 0)).sum())
    if dropped:
        warnings.append(f"{dropped} reads have a conductance that is not positive and were left out")
    if not finite.any():
        raise FitError("the reads hold no positive conductance; check the columns and units with 'calib inspect'")
    labels, index = np.unique(device, return_inverse=True)
    values, owner = g[finite], np.broadcast_to(index[:, None], g.shape)[finite]
    low, high = np.full(len(labels), np.inf), np.zeros(len(labels))
    np.minimum.at(low, owner, values)
    np.maximum.at(high, owner, values)
    total, count = np.bincount(owner, values, len(labels)), np.bincount(owner, minlength=len(labels))
    seen = count > 0
    labels, low, high, mean = labels[seen], low[seen], high[seen], (total[seen] / count[seen])
    nodes: dict[str, xr.Dataset] = {}
    warnings.append("I-V law: not found, because the measurement holds reads at one voltage; the law is ohmic")
    live = np.ones(len(labels), dtype=bool)
    switched = {"lrs", "hrs"} <= set(node["state"].values.astype(str)) if "state" in node.coords else False
    drifting = not switched and stuck.all_stuck(low, high, SWITCHING_RATIO)
    if len(labels) > 1 and (count[seen] > 1).any() and not drifting:
        nodes["stuck"] = stuck.stuck_node(labels, low, high, mean, stuck_rule)
        live = ~stuck.is_stuck(low, high, stuck_rule)
    else:
        warnings.append("stuck devices: not found, because the devices were not read in two states that differ")
    _add_range(nodes, low[live], high[live], mean, reference_voltage, warnings)
    _reads_programming(nodes, node, set(labels[live]), warnings)
    if not nodes:
        raise FitError(
            f"{len(labels)} devices with {int(count.sum())} reads give neither a conductance range nor a spread: "
            f"{'; '.join(warnings)}; expected reads of several devices, or of devices in their two states"
        )
    return nodes


def _add_range(
    nodes: dict[str, xr.Dataset], low: np.ndarray, high: np.ndarray, mean: np.ndarray, reference_voltage: float,
    warnings: list[str],
) -> None:  # fmt: skip
    rule = "medians over devices of the smallest and largest conductance seen (Joksas et al. 2022)"
    quantiles = (0.5, 0.5)
    if stuck.all_stuck(low, high, SWITCHING_RATIO):
        low, high, quantiles = mean, mean, (0.05, 0.95)
        rule = "5 and 95 % quantiles of the devices' mean conductances (the devices were not switched)"
    if not np.quantile(low, quantiles[0]) < np.quantile(high, quantiles[1]):
        warnings.append("conductance range: not found, because only one conductance was read")
        return
    nodes["conductance"] = xr.Dataset(
        conductance.range_of(low, high, quantiles),
        coords={"bound": ["low", "high"]},
        attrs={"reference_voltage": reference_voltage, "rule": rule},
    )


def _reads_programming(nodes: dict[str, xr.Dataset], node: xr.Dataset, live: set[str], warnings: list[str]) -> None:
    state = node["state"].values.astype(str) if "state" in node.coords else np.full(node.sizes["trace"], "")
    states: dict[str, tuple[np.ndarray, np.ndarray, float]] = {}
    for name in ("lrs", "hrs"):
        rows = np.flatnonzero((state == name) & np.isin(node["device"].values, list(live)))
        g = node["conductance"].values[rows]
        ok = np.isfinite(g) & (g > 0)
        if ok.sum() >= 2:
            devices = np.broadcast_to(node["device"].values[rows].astype(str)[:, None], g.shape)[ok]
            states[name] = (-np.log(g[ok]), devices, 0.0)
    if states:
        nodes["programming"] = programming.programming_node(states)
    else:
        warnings.append("programming spread: not found, because the reads name no low- and high-resistance state")
