"""The figure of a front: error against efficiency."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from calib.figure_style import COLOURS, DOUBLE, figure, legend_above

PUBLISHED = {"siox-high-resistance": (("published, aware", 234.0, 0.091), ("published, aware + L1", 381.0, 0.071))}
"""Label, efficiency [1e12 / (s W)] and median error by device model, of 784-25-10 on MNIST: Joksas et al., Adv. Sci. 9,
2105784 (2022), doi 10.1002/advs.202105784."""
_MNIST = "784-25-10"


def pareto_figure(found: xr.Dataset) -> Figure:
    """Draw the median test error of each weight against its efficiency, with intervals, every network and chip faintly.

    Beside the points of a device model whose published results are known, those are drawn too.
    """
    from calib.energy import efficiency

    read_time = float(found.attrs["read_time"])
    with figure(DOUBLE, 84) as drawing:
        axes = drawing.subplots()
        each = efficiency(found["energy"].values[..., None] / read_time, int(found.attrs["synapses"]), read_time)
        axes.plot(each.ravel(), 100 * found["error"].values.ravel(), ".", color=COLOURS["training"], ms=1.5, alpha=0.35,
                  label="a network on a chip", zorder=1)  # fmt: skip
        value, error = found["efficiency"].values, 100 * found["error_median"].values
        spread = [
            np.abs(scale * found[f"{name}_bound"].values - middle[:, None]).T
            for name, scale, middle in (("efficiency", 1, value), ("error_median", 100, error))
        ]
        order = np.argsort(value)
        axes.errorbar(
            value[order], error[order], xerr=np.nan_to_num(spread[0][:, order], posinf=0), yerr=spread[1][:, order],
            fmt="o-", color=COLOURS["lrs"], ms=3.5, elinewidth=0.8, label="median, 95 % interval", zorder=3,
        )  # fmt: skip
        for weight, x, y in zip(found["weight"].values, value, error, strict=True):
            axes.annotate(f"{weight:g}", (x, y), (3, 4), textcoords="offset points", size=6.5, zorder=4)
        known = PUBLISHED.get(str(found.attrs["device"]), ()) if found.attrs["network"] == _MNIST else ()
        for marker, (label, x, y) in zip("sD", known, strict=False):
            axes.plot([x], [100 * y], marker, color=COLOURS["stuck"], ms=4, label=label)
        axes.set_xlabel("efficiency (TOPs s$^{-1}$ W$^{-1}$); numbers: weight of the energy")
        axes.set_ylabel("test error (%)")
        legend_above(axes)
    return drawing
