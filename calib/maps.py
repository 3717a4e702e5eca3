"""Maps by row and column: a quantity of every device at its place, and whether rows or columns differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

N_PERMUTATIONS = 999
_LARGEST = 3_000_000  # cells times permutations
SIGNIFICANT = 0.01


@dataclass(frozen=True)
class PlaceEffects:
    """How much of the spread over an array belongs to its rows and columns.

    Attributes
    ----------
    sigma_row, sigma_column, sigma_rest : standard deviations of the row effects, the column effects and the rest, in
        the unit of the values (method of moments; 0 where the estimate is negative).
    p_row, p_column : part of the random permutations in which rows (columns) differ as much.
    row_effect, column_effect : medians after the two-way median polish, about the overall median.
    n_cells : number of values.
    n_permutations : that were drawn.
    """

    sigma_row: float
    sigma_column: float
    sigma_rest: float
    p_row: float
    p_column: float
    row_effect: np.ndarray
    column_effect: np.ndarray
    overall: float
    n_cells: int
    n_permutations: int

    def sentence(self, what: str) -> str:
        """Return in words whether the place matters."""
        parts = []
        for name, sigma, p in (("rows", self.sigma_row, self.p_row), ("columns", self.sigma_column, self.p_column)):
            if not np.isfinite(p):
                parts.append(f"{name} cannot be compared")
            elif p <= SIGNIFICANT:
                share = sigma**2 / max(sigma**2 + self.sigma_rest**2, 1e-300)
                parts.append(
                    f"{name} differ more than chance (p {_p_text(p, self.n_permutations)}, {share:.0%} of their and "
                    "the rest's variance)"
                )
            else:
                parts.append(f"{name} do not differ more than chance (p = {p:.2g})")
        return f"{what}: {', '.join(parts)}"


def _p_text(p: float, n: int) -> str:
    return f"< {1.5 / (n + 1):.2g}" if p <= 1.001 / (n + 1) else f"= {p:.2g}"


def grid(row: np.ndarray, column: np.ndarray, values: np.ndarray) -> xr.DataArray:
    """Return values by (row, column), NaN where there is none; several values of one place become their median.

    Devices whose row or column is not known (negative) are left out.
    """
    row, column, values = np.asarray(row), np.asarray(column), np.asarray(values, dtype=float)
    known = (row >= 0) & (column >= 0) & np.isfinite(values)
    if not known.any():
        return xr.DataArray(np.zeros((0, 0)), dims=("row", "column"))
    rows, columns = (
        np.arange(row[known].min(), row[known].max() + 1),
        np.arange(column[known].min(), column[known].max() + 1),
    )
    cell = (row[known] - rows[0]) * len(columns) + (column[known] - columns[0])
    order = np.lexsort([values[known], cell])
    cells, first, count = np.unique(cell[order], return_index=True, return_counts=True)
    ordered = values[known][order]
    middle = (ordered[first + (count - 1) // 2] + ordered[first + count // 2]) / 2
    table = np.full(len(rows) * len(columns), np.nan)
    table[cells] = middle
    return xr.DataArray(
        table.reshape(len(rows), len(columns)), dims=("row", "column"), coords={"row": rows, "column": columns}
    )


def places_from_address(device: Sequence[str] | np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of devices that are numbered along the rows of an array of `width` columns.

    Raises
    ------
    ValueError
        When a name is no whole number.
    """
    address = np.array([int(float(name)) for name in device], dtype=np.int64)
    return address // width, address % width


def of_measurement(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Return maps of what was measured where rows and columns are stated: resistance per state, attempts, success.

    Keys are 'resistance', or 'resistance of lrs' where states are named, 'attempts' and 'success'; attrs hold units.
    """
    found: dict[str, xr.DataArray] = {}
    if "reads" in tree.children and {"row", "column"} <= set(tree["reads"].coords):
        node = tree["reads"].to_dataset()
        g = np.where(node["conductance"].values > 0, node["conductance"].values, np.nan)
        some = np.isfinite(g).any(axis=1)
        resistance = np.full(len(g), np.nan)
        resistance[some] = 1 / np.nanmedian(g[some], axis=1)
        for state in np.unique(node["state"].values.astype(str)):
            here = node["state"].values.astype(str) == state
            key = f"resistance of {state}" if state else "resistance"
            found[key] = grid(node["row"].values[here], node["column"].values[here], resistance[here])
            found[key].attrs = {"units": "ohm"}
    if "writes" in tree.children and {"row", "column"} <= set(tree["writes"].coords):
        node = tree["writes"].to_dataset()
        for key in ("attempts", "success"):
            if key in node:
                found[key] = grid(node["row"].values, node["column"].values, node[key].values)
                found[key].attrs = {"units": "1"}
    return {key: table for key, table in found.items() if table.size}


def place_effects(table: xr.DataArray, generator: np.random.Generator) -> PlaceEffects:
    """Compare the rows and the columns of a map.

    The model is additive, x = mu + row + column + rest. The effects are those of Tukey's median polish (J. W. Tukey,
    Exploratory Data Analysis, 1977, chapter 11), which a few odd cells do not move. The tests are permutation tests of
    the variance of the row means after the column means were taken off: values are permuted within columns, which is
    exact where rows do not matter (and likewise for columns).
    """
    x = table.values
    finite = np.isfinite(x)
    n = int(finite.sum())
    overall, row_effect, column_effect = median_polish(x)
    repeats = int(np.clip(_LARGEST // max(n, 1), 99, N_PERMUTATIONS))
    rest = float("nan")
    degrees = n - finite.any(axis=1).sum() - finite.any(axis=0).sum() + 1
    residual = _centred(x)
    if degrees > 0:
        rest = float(np.sqrt(np.nansum(np.square(residual)) / degrees))
    found = []
    for values, present in ((x, finite), (x.T, finite.T)):
        p, variance = _compare(values, present, repeats, generator)
        per_line = float(np.mean(present.sum(axis=1)[present.any(axis=1)])) if n else 1.0
        sigma = float(np.sqrt(max(variance - rest**2 / per_line, 0.0))) if np.isfinite(rest) else float("nan")
        found.append((sigma, p))
    (sigma_row, p_row), (sigma_column, p_column) = found
    return PlaceEffects(sigma_row, sigma_column, rest, p_row, p_column, row_effect, column_effect, overall, n, repeats)


def median_polish(x: np.ndarray, sweeps: int = 10) -> tuple[float, np.ndarray, np.ndarray]:
    """Return overall value, row effects and column effects of a table with gaps (NaN)."""
    rest = np.array(x, dtype=float)
    overall, row, column = 0.0, np.zeros(rest.shape[0]), np.zeros(rest.shape[1])
    if not np.isfinite(rest).any():
        return float("nan"), row, column
    for _ in range(sweeps):
        step = _median(rest, 1)
        rest, row = rest - step[:, None], row + step
        middle = float(np.median(column))
        column, overall = column - middle, overall + middle
        step = _median(rest, 0)
        rest, column = rest - step[None, :], column + step
        middle = float(np.median(row))
        row, overall = row - middle, overall + middle
    return overall, row, column


def _median(x: np.ndarray, axis: int) -> np.ndarray:
    some = np.isfinite(x).any(axis=axis)
    filled = np.where(np.expand_dims(some, axis), x, 0.0)
    return np.nanmedian(filled, axis=axis)


def _centred(x: np.ndarray) -> np.ndarray:
    """Return x without its additive row and column means, by turns, gaps allowed."""
    finite = np.isfinite(x)
    rest = np.where(finite, x, 0.0)
    for _ in range(1 if finite.all() else 50):
        rest = np.where(finite, rest - (rest.sum(1) / np.maximum(finite.sum(1), 1))[:, None], 0.0)
        rest = np.where(finite, rest - (rest.sum(0) / np.maximum(finite.sum(0), 1))[None, :], 0.0)
    return np.where(finite, rest, np.nan)


def _compare(
    x: np.ndarray, finite: np.ndarray, repeats: int, generator: np.random.Generator
) -> tuple[float, float]:  # fmt: skip
    """Return the p-value of equal rows, and the variance of the row means after the column means were taken off."""
    lines = finite.sum(axis=1)
    use = lines > 0
    if use.sum() < 2 or finite.sum(axis=0).max(initial=0) < 2:
        return float("nan"), 0.0
    means = np.where(finite, x, 0.0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    rest = np.where(finite, x - means, 0.0)
    weight = np.where(use, lines, 1)

    def between(values: np.ndarray) -> float:
        line = values.sum(axis=1) / weight
        return float((lines * np.square(line)).sum())

    observed = between(rest)
    variance = float(np.var((rest.sum(axis=1) / weight)[use], ddof=1))
    exceed = sum(between(_permuted(rest, finite, generator)) >= observed * (1 - 1e-12) for _ in range(repeats))
    return (1 + exceed) / (1 + repeats), variance


def _permuted(rest: np.ndarray, finite: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the values permuted within columns, gaps left where they are."""
    if finite.all():
        return generator.permuted(rest, axis=0)
    key = np.where(finite, generator.random(rest.shape), 2.0)
    shuffled = np.take_along_axis(rest, np.argsort(key, axis=0), axis=0)  # the gaps are last
    position = np.where(finite, np.cumsum(finite, axis=0) - 1, 0)
    return np.where(finite, np.take_along_axis(shuffled, position, axis=0), 0.0)


def map_figure(table: xr.DataArray, label: str, *, logarithmic: bool = False, centred: bool = False) -> Any:
    """Draw a map with its colour scale; returns a matplotlib Figure.

    Parameters
    ----------
    table : by (row, column), NaN where there is no value (drawn white).
    label : quantity and unit, for the colour scale.
    logarithmic : of the colour scale.
    centred : take the scale symmetric about 0, in two colours.
    """
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    from calib.figure_style import COLUMN, figure

    x = table.values
    finite = x[np.isfinite(x)]
    low, high = np.quantile(finite, [0.005, 0.995]) if len(finite) else (0.0, 1.0)
    if centred:
        high = max(abs(low), abs(high))
        low = -high
    elif not high > low:
        low, high = low - 0.5 * abs(low) - 1e-30, high + 0.5 * abs(high) + 1e-30
    logarithmic = logarithmic and low > 0
    shape = np.clip(x.shape[0] / max(x.shape[1], 1), 0.25, 1.3)
    with figure(COLUMN, float(14 + 60 * shape)) as drawing:
        axes = drawing.add_subplot()
        axes.grid(visible=False)
        norm = LogNorm(low, high) if logarithmic else Normalize(low, high)
        edges = [float(table[name].values[0]) - 0.5 for name in ("column", "row")]
        extent = (edges[0], edges[0] + x.shape[1], edges[1] + x.shape[0], edges[1])
        image = axes.imshow(
            x, norm=norm, cmap="RdBu_r" if centred else "viridis", extent=extent, interpolation="nearest",
            aspect="auto" if max(x.shape) > 4 * min(x.shape) else "equal",
        )  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True))
        bar = drawing.colorbar(image, ax=axes, fraction=0.046, pad=0.03, extend="both", label=label)
        if logarithmic:
            bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 40 else (1.0, 2.0, 5.0)))
            bar.ax.yaxis.set_minor_formatter(NullFormatter())
        if logarithmic or high > 1e3:
            bar.ax.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("column")
        axes.set_ylabel("row")
    return drawing
