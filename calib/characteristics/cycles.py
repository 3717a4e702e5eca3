"""The generative model of switching: tables, numbers, figures, and draws within its uncertainty."""

import math
import sys
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from calib.characteristics.base import Estimate, Section, with_error
from calib.cycle_sampling import block_covariance, spectral_radius
from calib.formatting import format_estimate, format_interval, format_number, format_percent, format_quantity, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

name = "cycles"
node = "cycles"

LABELS = {"ln_r_hrs": "ln R of hrs", "ln_r_lrs": "ln R of lrs", "v_set": "set voltage", "v_reset": "reset voltage"}
_COLOURS = {"ln_r_hrs": "hrs", "ln_r_lrs": "lrs", "v_set": "set", "v_reset": "reset"}
_MARKERS = {"ln_r_hrs": "s", "ln_r_lrs": "o", "v_set": "^", "v_reset": "v"}
_ATTEMPTS = 20
_LARGEST_RADIUS = 0.98


def sections(node: xr.Dataset, tree: xr.DataTree) -> list[Section]:
    """Return which model was taken and why, the marginals, the correlations, the memory, and the checks."""
    found = [_model_section(node), _marginal_section(node)]
    if node.sizes["feature"] > 1 and bool(np.isfinite(node["correlation_bound"].values).any()):
        found.append(_correlation_section(node))
    if int(node.attrs["order"]):
        found.append(_memory_section(node))
    return found


def _features(node: xr.Dataset) -> list[str]:
    return [str(value) for value in node["feature"].values]


def _size(node: xr.Dataset) -> str:
    return f"{plural(int(node['n_cycles']), 'cycle')} of {plural(int(node['n_devices']), 'device')}"


def _model_section(node: xr.Dataset) -> Section:
    rows = [
        ("model", str(node.attrs.get("model", ""))),
        ("data", _size(node)),
        ("memory", f"{plural(int(node.attrs['order']), 'cycle')}" if int(node.attrs["order"]) else "none"),
        ("classes of devices", ", ".join(format_percent(float(w)) for w in node["class_weight"].values)),
    ]
    if int(node["n_left_out"]):
        rows.append(("left out", f"{plural(int(node['n_left_out']), 'cycle')}, incomplete or first ones"))
    if "first_shift" in node and bool(np.isfinite(node["first_shift"].values).any()):
        shift = [
            f"{LABELS[f]} {_value(node, k, float(node['first_shift'].values[k]))}"
            for k, f in enumerate(_features(node))
        ]
        rows.append(("first cycle less later ones", ", ".join(shift)))
    return Section("Switching from cycle to cycle", ("property", "value"), tuple(rows), (str(node.attrs["selection"]),))


def _marginal_section(node: xr.Dataset) -> Section:
    rows = []
    for k, feature in enumerate(_features(node)):
        low, middle, high = (_quantile(node, k, q) for q in (0.05, 0.5, 0.95))
        share = format_number(float(node["share_between"].values[k]), 2)
        low_share, high_share = node["share_between_bound"].values[k]
        check = format_number(float(node["check_p"].values[k]), 2) if "check_p" in node else ""
        rows.append((
            LABELS[feature], str(node["marginal"].values[k]), _value(node, k, middle),
            f"{_value(node, k, low)} to {_value(node, k, high)}",
            f"{share} ({format_interval(low_share, high_share)})" if math.isfinite(low_share) else "", check,
        ))  # fmt: skip
    columns = ("feature", "marginal", "median", "5 to 95 %", "devices' share of the variance", "check, p")
    note = "check: Kolmogorov-Smirnov distance of the data among data sets drawn from the model"
    return Section("Marginals", columns, tuple(rows), (note,))


def _value(node: xr.Dataset, k: int, value: float) -> str:
    unit = str(node["feature_unit"].values[k])
    return format_quantity(value, unit) if unit != "1" else format_number(value)


def _quantile(node: xr.Dataset, k: int, q: float) -> float:
    """Return a quantile of a feature over all classes."""
    from scipy.special import ndtr

    part = ndtr(node["score"].values)
    tables, weight = node["table"].values[:, k], node["class_weight"].values
    if len(tables) == 1:
        return float(np.interp(q, part, tables[0]))
    values = np.sort(tables.ravel())
    below = sum(w * np.interp(values, t, part) for w, t in zip(weight, tables, strict=True))
    return float(np.interp(q, below, values))


def _correlation_section(node: xr.Dataset) -> Section:
    rows = []
    names = _features(node)
    for i, first in enumerate(names):
        for j in range(i):
            low, high = node["correlation_bound"].values[i, j]
            inside = ""
            if "check_correlation_bound" in node:
                below, above = node["check_correlation_bound"].values[i, j]
                value = float(node["check_correlation"].values[i, j])
                inside = "yes" if below <= value <= above else "no"
            rows.append((
                f"{LABELS[names[j]]} and {LABELS[first]}", format_number(float(node["correlation"].values[i, j]), 2),
                format_interval(low, high), format_number(float(node["correlation_model"].values[i, j]), 2), inside,
            ))  # fmt: skip
    columns = ("features", "correlation", "95 % interval", "in the model", "reproduced")
    return Section("Correlations of the normal scores", columns, tuple(rows))


def _memory_section(node: xr.Dataset) -> Section:
    names = _features(node)
    rows = []
    for lag in range(int(node.attrs["order"])):
        for i, to in enumerate(names):
            values, errors = node["memory"].values[lag, i], node["memory_stderr"].values[lag, i]
            cells = [format_estimate(float(v), float(e)) if v else "0" for v, e in zip(values, errors, strict=True)]
            rows.append((str(lag + 1), LABELS[to], *cells))
    notes = ["u(t) = sum of A_lag u(t - lag) + e in normal scores about the device's own level"]
    aicc = node["aicc"].values
    notes.append("AICc by order: " + ", ".join(f"{k}: {value:.1f}" for k, value in enumerate(aicc)))
    return Section("Memory", ("lag", "of", *(f"from {LABELS[n]}" for n in names)), tuple(rows), tuple(notes))


def estimates(node: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    """Return medians, correlations, the devices' share of the variance, and the memory of each feature."""
    found = []
    names = _features(node)
    for k, feature in enumerate(names):
        unit = str(node["feature_unit"].values[k])
        found.append(Estimate(
            "cycles", "", f"{feature}_median", f"{LABELS[feature]}, median", _quantile(node, k, 0.5), unit,
            low=_quantile(node, k, 0.05), high=_quantile(node, k, 0.95), interval="5 to 95 % of the cycles",
            n=_size(node), method=f"{node['marginal'].values[k]} marginal",
        ))  # fmt: skip
        share = float(node["share_between"].values[k])
        if math.isfinite(share):
            low, high = map(float, node["share_between_bound"].values[k])
            found.append(Estimate(
                "cycles", "", f"{feature}_share_between", f"{LABELS[feature]}, devices' share of the variance", share,
                "1", low=low, high=high, interval="95 % confidence", n=_size(node),
                method="analysis of variance of the normal scores",
            ))  # fmt: skip
        if int(node.attrs["order"]):
            found.append(with_error(Estimate(
                "cycles", "", f"{feature}_memory", f"{LABELS[feature]}, memory of the cycle before",
                float(node["memory"].values[0, k, k]), "1", stderr=float(node["memory_stderr"].values[0, k, k]),
                n=_size(node), method=str(node.attrs["method"]),
            )))  # fmt: skip
        for j in range(k):
            low, high = map(float, node["correlation_bound"].values[k, j])
            found.append(Estimate(
                "cycles", "", f"{names[j]}_{feature}_correlation",
                f"correlation of {LABELS[names[j]]} and {LABELS[feature]}", float(node["correlation"].values[k, j]),
                "1", low=low, high=high, interval="95 % confidence" if math.isfinite(low + high) else "", n=_size(node),
                method="normal scores",
            ))  # fmt: skip
    return found


def key_numbers(node: xr.Dataset, tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return which model of the cycles was taken."""
    order = int(node.attrs["order"])
    remark = f"memory of {plural(order, 'cycle')}" if order else "no memory from cycle to cycle"
    return [("Cycle-to-cycle model", str(node.attrs.get("model", "")), remark)]


def figures(node: xr.Dataset, tree: xr.DataTree) -> "list[tuple[str, str, Figure]]":
    """Return the marginals and, where successive cycles were measured, the autocorrelation."""
    caption = (
        "Marginal distributions of the cycles on probability paper, as the model draws them: the tables (lines) and "
        "straight lines through their median and quartiles, as of a normal distribution of ln R or V (dotted)."
    )
    found = [("cycles-marginals", caption, _marginal_figure(node))]
    if "check_memory" in node:
        text = (
            "Autocorrelation of the normal scores about each device's mean: the data (marks) and the range of 95 % of "
            "data sets of the same devices and cycles drawn from the model (bars)."
        )
        found.append(("cycles-memory", text, _memory_figure(node)))
    return found


def _marginal_figure(node: xr.Dataset) -> "Figure":
    from matplotlib.ticker import LogLocator
    from scipy.special import ndtri

    from calib.figure_style import DOUBLE, figure, legend_above, log_scale

    names = _features(node)
    groups = [group for group in (("ln_r_hrs", "ln_r_lrs"), ("v_set", "v_reset")) if set(group) & set(names)]
    percents = np.array([0.1, 1.0, 10.0, 50.0, 90.0, 99.0, 99.9])
    with figure(DOUBLE if len(groups) > 1 else 85.0, 62.0) as drawing:
        for axes, group in zip(np.atleast_1d(drawing.subplots(1, len(groups))), groups, strict=True):
            for feature in group:
                if feature in names:
                    _marginal(axes, node, names.index(feature), feature)
            axes.set_yticks(ndtri(percents / 100), [f"{p:g}" for p in percents])
            axes.set_ylim(-3.3, 3.3)
            axes.set_ylabel("cycles below (%)")
            if group[0].startswith("ln_r"):
                log_scale(axes, "x")
                low, high = axes.get_xlim()
                if high / low < 300:
                    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 60 else (1.0, 3.0)))
                axes.set_xlabel("R (Ω)")
            else:
                axes.set_xlabel("switching voltage |V| (V)")
            legend_above(axes)
    return drawing


def _marginal(axes: "Axes", node: xr.Dataset, k: int, feature: str) -> None:
    from scipy.special import ndtr, ndtri

    from calib.figure_style import colour_of

    colour = colour_of(_COLOURS[feature])
    score = np.linspace(-3.3, 3.3, 181)
    values = np.array([_quantile(node, k, float(q)) for q in ndtr(score)])
    low, middle, high = (_quantile(node, k, q) for q in (0.25, 0.5, 0.75))
    straight = middle + score * (high - low) / float(ndtri(0.75) - ndtri(0.25))
    shown = straight > 0 if feature.startswith("v_") else np.ones(len(score), dtype=bool)
    x, y = (np.exp(v) if feature.startswith("ln_r") else v for v in (values, straight))
    axes.plot(x, score, color=colour, label=LABELS[feature].replace("ln ", ""))
    axes.plot(y[shown], score[shown], ":", color=colour, lw=0.9)


def _memory_figure(node: xr.Dataset) -> "Figure":
    from matplotlib.ticker import FormatStrFormatter, MultipleLocator

    from calib.figure_style import COLOURS, colour_of, figure, legend_above

    names = _features(node)
    lag = node["check_lag"].values
    with figure(height=56.0) as drawing:
        axes = drawing.add_subplot()
        axes.axhline(0.0, color=COLOURS["fitted"], lw=0.6)
        for k, feature in enumerate(names):
            x = lag + 0.14 * (k - (len(names) - 1) / 2)
            colour = colour_of(_COLOURS[feature])
            low, high = node["check_memory_bound"].values[k].T
            axes.vlines(x, low, high, color=colour, lw=3.0, alpha=0.3)
            axes.plot(x, node["check_memory"].values[k], _MARKERS[feature], color=colour, ms=3, mew=0,
                      label=LABELS[feature])  # fmt: skip
        axes.set_xticks(lag)
        axes.set_xlim(0.5, float(lag[-1]) + 0.5)
        axes.yaxis.set_major_locator(MultipleLocator(0.2))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%.1f"))
        axes.set_xlabel("cycles between")
        axes.set_ylabel("autocorrelation")
        legend_above(axes)
    return drawing


def resample(node: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    """Return the node with marginals, memory and covariances drawn within their uncertainty.

    The marginals are shifted and stretched in normal scores (their mean has the variance B / devices + W / cycles,
    enlarged by the memory); A is drawn about its estimate until it is stationary; B and S are drawn from Wishart
    distributions with the devices' and the cycles' degrees of freedom; then all scores have the variance 1 again.
    """
    size = node.sizes["feature"]
    n_devices, n_cycles = int(node["n_devices"]), int(node["n_cycles"])
    order = int(node.attrs["order"])
    memory = _stationary(node, generator)
    innovation = _wishart(
        node["innovation"].values, n_cycles - n_devices if node.attrs["separable"] else n_cycles, generator
    )
    between = _wishart(node["between"].values, n_devices - 1, generator)
    within = block_covariance(memory[:order], innovation)[:size, :size]
    scale = np.sqrt(np.maximum(np.diag(between + within), 1e-12))
    outer = np.outer(scale, scale)
    share = np.clip(np.diag(node["between"].values), 0.0, 1.0)
    inertia = np.clip(np.diag(node["memory"].values[0]), 0.0, 0.9) if order else np.zeros(size)
    count = n_cycles * (1 - inertia) / (1 + inertia)
    shift = np.sqrt(share / n_devices + (1 - share) / count) * generator.standard_normal(size)
    stretch = np.exp(
        generator.standard_normal(size) / np.sqrt(2 * np.minimum(count, _effective(share, n_devices, count)))
    )
    score, tables = node["score"].values, node["table"].values
    drawn = np.empty_like(tables)
    for k in range(size):
        for j in range(len(tables)):
            drawn[j, k] = _extended(shift[k] + stretch[k] * score, score, tables[j, k])
            if str(node["feature"].values[k]).startswith("v_"):
                drawn[j, k] = np.maximum(drawn[j, k], tables[j, k].min())
    new = {
        "memory": memory * np.outer(1 / scale, scale), "innovation": innovation / outer, "between": between / outer,
        "within": within / outer, "table": drawn, "correlation_model": (between + within) / outer,
    }  # fmt: skip
    return node.assign({key: (node[key].dims, value, node[key].attrs) for key, value in new.items() if key in node})


def _effective(share: np.ndarray, n_devices: int, count: np.ndarray) -> np.ndarray:
    """Return for how many independent values the spread of a feature counts."""
    return 1 / np.maximum(share**2 / max(n_devices - 1, 1) + (1 - share) ** 2 / count, 1e-12)


def _stationary(node: xr.Dataset, generator: np.random.Generator) -> np.ndarray:
    memory, order = node["memory"].values, int(node.attrs["order"])
    error = np.where(memory != 0, np.nan_to_num(node["memory_stderr"].values), 0.0) if order else np.zeros_like(memory)
    for _ in range(_ATTEMPTS):
        drawn = memory + error * generator.standard_normal(memory.shape)
        if float(spectral_radius(drawn[:order])) < _LARGEST_RADIUS:
            return drawn
    return memory


def _wishart(covariance: np.ndarray, freedom: int, generator: np.random.Generator) -> np.ndarray:
    """Return a covariance drawn about its estimate with the given degrees of freedom."""
    if freedom < 2 or not covariance.any():
        return covariance
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normal = root @ generator.standard_normal((len(covariance), freedom))
    return normal @ normal.T / freedom


def _extended(at: np.ndarray, score: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the table's values at scores, beyond its ends with the slope of its last step."""
    inside = np.interp(at, score, table)
    step = score[1] - score[0]
    low, high = (table[1] - table[0]) / step, (table[-1] - table[-2]) / step
    inside = np.where(at < score[0], table[0] + low * (at - score[0]), inside)
    return np.where(at > score[-1], table[-1] + high * (at - score[-1]), inside)


member = sys.modules[__name__]
