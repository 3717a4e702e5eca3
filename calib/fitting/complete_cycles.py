"""Cycles in which every feature was measured, and whether the first of a device differs from the later ones."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from calib.fitting.cycle_table import FEATURES, CycleTable

FIRST_CYCLE_DEVICES = 8
FIRST_CYCLE_P = 0.01


@dataclass(frozen=True)
class CompleteCycles:
    """Complete rows of a cycle table as arrays."""

    names: tuple[str, ...]
    values: np.ndarray  # (row, feature)
    censored: np.ndarray  # (row, feature)
    device: np.ndarray
    cycle: np.ndarray
    step: np.ndarray  # (feature,)
    read_voltage: float
    n_left_out: int

    @property
    def number(self) -> np.ndarray:
        """(row,) number of the device."""
        return np.unique(self.device, return_inverse=True)[1]


def complete_cycles(table: CycleTable | None, warnings: list[str]) -> CompleteCycles | None:
    """Return the rows in which every feature that half of the cycles have was measured."""
    if table is None:
        warnings.append(
            "cycles: not found, because neither loops of set and reset nor reads of both states in numbered cycles "
            "were measured"
        )
        return None
    names = tuple(
        name for name in FEATURES
        if name in table.values and np.isfinite(table.values[name]).mean() >= 0.5
        and len(np.unique(table.values[name][np.isfinite(table.values[name])])) >= 3
    )  # fmt: skip
    values = np.stack([table.values[name] for name in names], axis=1) if names else np.zeros((len(table), 0))
    whole = np.isfinite(values).all(axis=1)
    if not names or whole.sum() < 3:
        warnings.append(f"cycles: not found, because {int(whole.sum()) if names else 0} complete cycles were measured")
        return None
    return CompleteCycles(
        names=names,
        values=values[whole],
        censored=np.stack([table.censored[name] for name in names], axis=1)[whole],
        device=table.device[whole],
        cycle=table.cycle[whole],
        step=np.array([table.resolution.get(name, 0.0) for name in names]),
        read_voltage=table.read_voltage,
        n_left_out=int((~whole).sum()),
    )


def without_first_cycle(data: CompleteCycles, warnings: list[str]) -> tuple[CompleteCycles, np.ndarray]:
    """Leave out the first cycle of every device where it differs from the later ones; return the median differences.

    A device's first switching often differs from what follows, which a stationary process cannot hold and would take
    for a long memory. It is compared with the median of the device's later cycles by Wilcoxon's signed-rank test, at
    0.01 over all features, where eight devices or more begin with the same cycle and have three or more.
    """
    number, size = data.number, len(data.names)
    start = np.flatnonzero(np.diff(number, prepend=-1))
    count = np.diff(np.append(start, len(number)))
    begins, often = np.unique(data.cycle[start], return_counts=True)
    usual = begins[often.argmax()]
    devices = np.flatnonzero((count >= 3) & (data.cycle[start] == usual))
    nothing = np.full(size, np.nan)
    if len(devices) < FIRST_CYCLE_DEVICES:
        return data, nothing
    difference = np.array([
        data.values[start[k]] - np.median(data.values[start[k] + 1 : start[k] + count[k]], axis=0) for k in devices
    ])  # fmt: skip
    p = np.array([float(np.asarray(stats.wilcoxon(row))[1]) if row.any() else 1.0 for row in difference.T])
    odd = p < FIRST_CYCLE_P / size
    if not odd.any():
        return data, nothing
    shift = np.median(difference, axis=0)
    listed = ", ".join(
        f"{name} by {value:+.2g}" for name, value, is_odd in zip(data.names, shift, odd, strict=True) if is_odd
    )
    warnings.append(
        f"cycles: the first cycle of a device differs from its later ones ({listed}, median); it was left out of the "
        "model"
    )
    keep = np.ones(len(number), dtype=bool)
    keep[start[(data.cycle[start] == usual) & (count >= 2)]] = False
    return replace(data, values=data.values[keep], censored=data.censored[keep], device=data.device[keep],
                   cycle=data.cycle[keep], n_left_out=data.n_left_out + int((~keep).sum())), shift  # fmt: skip
