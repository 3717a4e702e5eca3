"""Logs of write-verify programming as arrays: outcomes, groups of target ranges, and what each device went through."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

MOST_TARGETS = 32
"""More target ranges than this are pooled into `_POOLED` groups of neighbours."""
_POOLED = 16


@dataclass(frozen=True)
class WriteLog:
    """Writes as arrays (write,), and the groups of target ranges that they belong to.

    Attributes
    ----------
    achieved : [S], NaN where none was recorded.
    success : whether the write hit its range.
    group : index of the group of target ranges; `target` is the centre of each write's own range.
    low, high : the write's own target range [S].
    device : index into `devices`.
    """

    achieved: np.ndarray
    success: np.ndarray
    group: np.ndarray
    target: np.ndarray
    low: np.ndarray
    high: np.ndarray
    device: np.ndarray
    devices: np.ndarray
    rows: np.ndarray


def write_log(writes: xr.Dataset, warnings: list[str]) -> WriteLog | None:
    """Return the writes that have a target range and an outcome, None where none has.

    Where success is not stated it is whether the achieved conductance lies in the range.
    """
    low, high, achieved = (writes[name].values.astype(float) for name in ("target_low", "target_high", "achieved"))
    inside = (achieved >= low) & (achieved <= high)
    stated = writes["success"].values if "success" in writes else np.full(len(low), -1)
    known = np.isfinite(achieved) & ~np.isnan(low) & ~np.isnan(high)
    use = (stated >= 0) & ~np.isnan(low) & ~np.isnan(high) | known
    if not use.any():
        warnings.append("writes: not found, because no write has a target range and an outcome")
        return None
    success = np.where(stated >= 0, stated == 1, inside)
    _say_success(stated[use], inside[use], known[use], warnings)
    rows = np.flatnonzero(use)
    devices, device = np.unique(writes["device"].values.astype(str)[rows], return_inverse=True)
    low, high, achieved, success = low[rows], high[rows], achieved[rows], success[rows]
    group, target = _groups(low, high, achieved, success, warnings)
    return WriteLog(achieved, success, group, target, low, high, device, devices, rows)


def _say_success(stated: np.ndarray, inside: np.ndarray, known: np.ndarray, warnings: list[str]) -> None:
    n = len(stated)
    if derived := int((stated < 0).sum()):
        warnings.append(
            f"writes: {derived} of {n} do not state whether they succeeded; those whose achieved conductance lies in "
            "the target range count as successes"
        )
    differ = int(((stated >= 0) & known & ((stated == 1) != inside)).sum())
    if differ:
        warnings.append(
            f"writes: the stated success of {differ} of {n} disagrees with the achieved conductance and its target "
            "range; what is stated is kept; check the columns and units"
        )
    blind = int(((stated == 1) & ~known).sum())
    if blind:
        warnings.append(f"writes: {blind} of {n} state success but no achieved conductance; they count as successes")


def _groups(
    low: np.ndarray, high: np.ndarray, achieved: np.ndarray, success: np.ndarray, warnings: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the group of each write's target range, in the order of their centres, and the centre of its own range."""
    ranges, index = np.unique(np.stack([low, high], axis=1), axis=0, return_inverse=True)
    index = index.ravel()
    centre = ranges.mean(axis=1)
    for k in np.flatnonzero((ranges[:, 0] <= 0) | ~np.isfinite(ranges[:, 1])):
        here = (index == k) & np.isfinite(achieved)
        reached = achieved[here & success] if (here & success).any() else achieved[here]
        edge = ranges[k][np.isfinite(ranges[k]) & (ranges[k] > 0)]
        centre[k] = np.median(reached) if len(reached) else (edge[0] if len(edge) else np.nan)
    if len(ranges) <= MOST_TARGETS:
        rank = np.empty(len(ranges), dtype=np.int64)
        rank[np.argsort(centre, kind="stable")] = np.arange(len(ranges))
        return rank[index], centre[index]
    warnings.append(
        f"writes: their {len(ranges)} target ranges are pooled into {_POOLED} groups of neighbours; errors are taken "
        "from each write's own target"
    )
    edges = np.quantile(centre[index], np.linspace(0, 1, _POOLED + 1)[1:-1])
    group = np.searchsorted(edges, centre[index], side="right")
    return np.unique(group, return_inverse=True)[1], centre[index]


def extremes(data: WriteLog) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return each device's smallest, largest and mean conductance, and whether it was written to several targets."""
    ok = np.isfinite(data.achieved)
    n, device, values = len(data.devices), data.device[ok], data.achieved[ok]
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, device, values)
    np.maximum.at(high, device, values)
    count = np.bincount(device, minlength=n)
    mean = np.bincount(device, values, n) / np.maximum(count, 1)
    pairs = np.unique(np.stack([device, data.group[ok]], axis=1), axis=0)
    return low, high, mean, np.bincount(pairs[:, 0], minlength=n) > 1


def moved_devices(data: WriteLog) -> np.ndarray:
    """Say of each device whether it hit two target ranges that do not overlap."""
    n = len(data.devices)
    device = data.device[data.success]
    highest, lowest = np.full(n, -np.inf), np.full(n, np.inf)
    np.maximum.at(highest, device, data.low[data.success])
    np.minimum.at(lowest, device, data.high[data.success])
    return highest >= lowest
