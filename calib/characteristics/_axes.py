"""Axes that figures of several characteristics share."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NARROW = 4.0


def quantity_axis(axes: "Axes", direction: str, label: str) -> None:
    """Make an axis of positive values logarithmic where it spans more than a factor of four, with prefixed labels."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    from calib.figure_style import log_scale

    axis = axes.xaxis if direction == "x" else axes.yaxis
    low, high = axis.get_data_interval()
    (axes.set_xlabel if direction == "x" else axes.set_ylabel)(label)
    if low > 0 and high / low > _NARROW:
        log_scale(axes, direction)
        return
    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(EngFormatter(sep=""))
    if np.isfinite(low) and low == high:
        (axes.set_xlim if direction == "x" else axes.set_ylim)(0.9 * low, 1.1 * high)
