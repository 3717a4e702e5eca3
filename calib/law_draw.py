"""Draws of a population law: the distribution of ln R, the lines and the covariance about them, state by state."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from calib.iv_models import IVModel, iv_model
from calib.model_draw import MINIMUM_FREEDOM, chi_draw
from calib.resistance_draw import Components, components, drawn_quantiles

_LEAST_CURVES = 4


def curve_groups(node: xr.Dataset, stuck: xr.Dataset | None) -> dict[str, np.ndarray]:
    """Return per state the rows of the table of curves that the population law was fitted to.

    These are the fitted curves of devices that switch, and of stuck devices those nearest to the state's centre.
    """
    if "curve_ln_r" not in node:
        return {}
    ln_r, state = node["curve_ln_r"].values, node["curve_state"].values.astype(str)
    ok = (node["curve_status"].values.astype(str) == "ok") & np.isfinite(ln_r)
    dead = stuck["stuck_device"].values.astype(str) if stuck is not None and "stuck_device" in stuck.coords else []
    live = ok & ~np.isin(node["curve_device"].values.astype(str), dead)
    names = [str(name) for name in node["state"].values]
    centres = {name: float(np.median(ln_r[live & (state == name)])) for name in names if (live & (state == name)).any()}
    found = {}
    for name in names:
        here = live & (state == name)
        if name in centres:
            others = np.array(list(centres.values()))
            closest = others[np.argmin(np.abs(np.nan_to_num(ln_r)[:, None] - others), axis=1)]
            here |= ok & (state == name) & (closest == centres[name])
        if here.sum() >= _LEAST_CURVES:
            found[name] = np.flatnonzero(here)
    return found


@dataclass(frozen=True)
class StateData:
    """What the draws of one state's population law need, as plain arrays over the law's shape parameters.

    Attributes
    ----------
    curves : rows of the table of curves, None where the model has none.
    parts : devices and cycles in ln R, None without a table.
    measured : (quantile,) of ln R of the curves.
    covariance, covariance_stderr : (parameter, parameter), scale included.
    x, t, weight, device : (curve,), (curve, shape), (curve, shape), (curve,) of the table: ln R, the transformed shape
        parameters, their weights, and the number of the device.
    gradient : d ln(scale) / d t at fixed R.
    """

    curves: np.ndarray | None
    parts: Components | None
    measured: np.ndarray
    covariance: np.ndarray
    covariance_stderr: np.ndarray
    x: np.ndarray
    t: np.ndarray
    weight: np.ndarray
    device: np.ndarray
    gradient: np.ndarray


class LawDraw:
    """Draws of a population law: the distribution of ln R, the lines and the covariance about them, state by state."""

    def __init__(self, node: xr.Dataset, stuck: xr.Dataset | None) -> None:
        self.node = node
        self.law = iv_model(str(node.attrs["iv_model"]))
        self.states = [str(name) for name in node["state"].values]
        self.names = [str(name) for name in node["parameter"].values]
        self.shape = [self.names.index(name) for name in self.law.shape]
        self.levels = node["quantile"].values
        self.numbers = {name: node[name].values.astype(float) for name in _NUMBERS if name in node}
        self.lines = [str(label) for label in node["line"].values] if "line_covariance" in node else []
        self.regime_state = (
            node["regime_state"].values.astype(str) if "regime_state" in node else np.empty(0, dtype=str)
        )
        groups = curve_groups(node, stuck)
        self.data = [self._data(row, groups.get(state)) for row, state in enumerate(self.states)]

    def _data(self, row: int, curves: np.ndarray | None) -> StateData:
        node, covariance = self.node, self.numbers["covariance"][row]
        error = self.numbers.get("covariance_stderr", np.full_like(self.numbers["covariance"], np.nan))[row]
        gradient = _scale_gradient(node, self.law, row) if self.shape else np.empty(0)
        if curves is None:
            empty = np.empty(0)
            return StateData(None, None, empty, covariance, error, empty, empty, empty, empty, gradient)
        t, weight = transformed(node, row, self.shape, curves)
        _, device = np.unique(node["curve_device"].values[curves], return_inverse=True)
        x = node["curve_ln_r"].values[curves]
        measured = np.quantile(x, self.levels)
        return StateData(curves, components(x, device), measured, covariance, error, x, t, weight, device, gradient)

    def correlations(self, row: int) -> tuple[float, float]:
        """Return how alike two cycles of a device are: in ln R, NaN where the curves do not tell, and in shape at R."""
        data = self.data[row]
        if data.parts is None:
            return float("nan"), 0.0
        own = data.parts.correlation if data.parts.n_values > data.parts.n_devices else float("nan")
        if not self.shape:
            return own, 0.0
        line = _line(data.x, data.t[:, 0], data.weight[:, 0])
        residual = data.t[:, 0] - line[0] - line[1] * data.x
        good = data.weight[:, 0] > 0.1 * np.median(data.weight[:, 0])
        device = data.device[good]
        if good.sum() < _LEAST_CURVES or len(np.unique(device)) in (1, len(device)):
            return own, 0.0
        return own, components(residual[good], device).correlation

    def draw(self, generator: np.random.Generator) -> tuple[dict[str, np.ndarray], list[str]]:
        """Return the drawn variables of the node, and what was kept because its uncertainty is not known."""
        changed = {name: self.numbers[name].copy() for name in _DRAWN_OF_IV if name in self.numbers}
        held: list[str] = []
        for row, state in enumerate(self.states):
            if self.shape:
                covariance, factor = _drawn_covariance(self.data[row], generator)
                changed["covariance"][row] = covariance
                change = self._lines(row, generator)
                if change is None:
                    held.append(f"lines of state {state}")
                    change = np.zeros((len(self.names), 2))
                changed["intercept"][row] += change[:, 0] * factor
                changed["slope"][row] += change[:, 1] * factor
                for segment in np.flatnonzero(self.regime_state == state):  # they move as their state does
                    changed["regime_intercept"][segment] += change[:, 0] * factor
                    changed["regime_slope"][segment] += change[:, 1] * factor
                    changed["regime_covariance"][segment] *= factor**2
            quantiles = self._ln_r(row, generator)
            if quantiles is None:
                held.append(f"ln R of state {state}")
                continue
            old = float(np.std(_spaced(self.numbers["ln_r_quantile"][row])))
            values = _spaced(quantiles)
            changed["ln_r_quantile"][row] = quantiles
            changed["ln_r_mean"][row] = values.mean()
            changed["ln_r_std"][row] *= values.std() / old if old > 0 else 1.0
        if "spread" in self.numbers:
            diagonal = np.diagonal(changed["covariance"], axis1=1, axis2=2)
            changed["spread"] = np.sqrt(np.maximum(diagonal, 0.0))
        if {"value_at_centre", "centre"} <= set(self.numbers):
            centre = self.numbers["centre"][:, None]
            changed["value_at_centre"] = changed["intercept"] + changed["slope"] * centre
        return changed, held

    def _number(self, name: str, row: int) -> float:
        return float(self.numbers[name][row]) if name in self.numbers else float("nan")

    def _ln_r(self, row: int, generator: np.random.Generator) -> np.ndarray | None:
        parts, old = self.data[row].parts, self.numbers["ln_r_quantile"][row]
        if parts is not None:
            moved = drawn_quantiles(parts, self.levels, generator) - self.data[row].measured
            return np.sort(old + moved)  # where the model's quantiles are those of its curves, what was drawn
        mean_error = self._number("ln_r_mean_stderr", row)
        std, std_error = self._number("ln_r_std", row), self._number("ln_r_std_stderr", row)
        if not np.isfinite(mean_error):
            return None
        mean = self._number("ln_r_mean", row)
        scale = chi_draw(std, std_error, generator) / std if std > 0 and np.isfinite(std_error) else 1.0
        return mean + mean_error * generator.standard_normal() + scale * (old - mean)

    def _lines(self, row: int, generator: np.random.Generator) -> np.ndarray | None:
        """Return changes (parameter, 2) of intercept and slope, None where their uncertainty is not known."""
        data = self.data[row]
        change: np.ndarray | None
        if self.lines:
            change = self._by_covariance(row, generator)
        elif data.curves is not None and int(data.device.max()) + 1 >= _LEAST_CURVES:
            change = _by_bootstrap(data, generator)
        else:
            change = self._by_stderr(row, generator)
        if change is None:
            return None
        result = np.zeros((len(self.names), 2))
        result[self.shape] = change
        result[self.names.index(self.law.scale)] = data.gradient @ change
        return result

    def _by_covariance(self, row: int, generator: np.random.Generator) -> np.ndarray | None:
        """Draw from the joint covariance of the lines' coefficients, labelled 'gamma intercept', 'gamma slope' ..."""
        covariance = self.numbers["line_covariance"][row]
        if not np.isfinite(covariance).all():
            return None
        scale = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
        eigenvalues, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
        normal = generator.standard_normal(len(scale))
        deviation = scale * (vectors @ (np.sqrt(np.maximum(eigenvalues, 0.0)) * normal))
        change = np.zeros((len(self.names), 2))
        for label, value in zip(self.lines, deviation, strict=True):
            name, _, kind = label.replace(" ", "_").rpartition("_")
            if name in self.names and kind in ("intercept", "slope"):
                change[self.names.index(name), 0 if kind == "intercept" else 1] = value
        return change[self.shape]

    def _by_stderr(self, row: int, generator: np.random.Generator) -> np.ndarray | None:
        """Draw the slope by its standard error, and the height at the mean of ln R by the spread and sample size."""
        if "slope_stderr" not in self.numbers:
            return None
        slope_error, n = self.numbers["slope_stderr"][row][self.shape], self.numbers["n_devices"][row]
        if not np.isfinite(slope_error).all() or n < 1:
            return None
        sigma = np.sqrt(np.maximum(np.diag(self.numbers["covariance"][row])[self.shape], 0.0))
        slope = slope_error * generator.standard_normal(len(self.shape))
        height = sigma / np.sqrt(n) * generator.standard_normal(len(self.shape))
        return np.stack([height - slope * self.numbers["ln_r_mean"][row], slope], axis=1)


_DRAWN_OF_IV = ("intercept", "slope", "covariance", "ln_r_quantile", "ln_r_mean", "ln_r_std", "regime_intercept",
                "regime_slope", "regime_covariance")  # fmt: skip
_NUMBERS = (*_DRAWN_OF_IV, "ln_r_mean_stderr", "ln_r_std_stderr", "slope_stderr", "covariance_stderr",
            "line_covariance", "n_devices", "spread", "value_at_centre", "centre")  # fmt: skip


def _spaced(quantiles: np.ndarray) -> np.ndarray:
    """Return equally probable values of a quantile function on an even grid."""
    return 0.5 * (quantiles[1:] + quantiles[:-1])


def _drawn_covariance(data: StateData, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """Draw a covariance from the inverse Wishart distribution about the estimate, whatever its rank.

    Sigma' = S A S^T with Sigma = S S^T and A = nu W^-1, W Wishart of identity with nu + r - 1 degrees of freedom, r the
    rank; nu = 2 Sigma_kk^2 / stderr_kk^2 of the largest relative error. Each variance is then Sigma_kk nu / chi^2_nu.

    Returns
    -------
    The covariance, and the factor by which standard errors of the lines grow with it.
    """
    sigma = data.covariance
    diagonal, stderr = np.diag(sigma), np.diag(data.covariance_stderr)
    known = np.isfinite(stderr) & (stderr > 0)
    if not known.any():
        return sigma, 1.0
    largest = float(diagonal.max())
    if largest <= 0:
        return sigma, 1.0
    relative = float(np.max(stderr[known] / np.maximum(diagonal[known], 1e-12 * largest)))
    freedom = max(2 / relative**2, MINIMUM_FREEDOM)
    scale = np.sqrt(np.maximum(diagonal, 1e-300))
    eigenvalues, vectors = np.linalg.eigh(sigma / np.outer(scale, scale))
    keep = eigenvalues > 1e-10 * eigenvalues[-1]
    root = scale[:, None] * vectors[:, keep] * np.sqrt(eigenvalues[keep])
    rank = root.shape[1]
    normal = np.tril(generator.standard_normal((rank, rank)), -1)
    chi = np.sqrt(generator.chisquare(freedom + rank - 1 - np.arange(rank)))
    bartlett = normal + np.diag(chi)
    half = root @ np.linalg.inv(bartlett).T * np.sqrt(freedom)
    drawn = half @ half.T
    drawn = 0.5 * (drawn + drawn.T)
    grown = np.diag(drawn)[diagonal > 0] / diagonal[diagonal > 0]
    return drawn, float(np.sqrt(np.exp(np.mean(np.log(grown)))))


def _by_bootstrap(data: StateData, generator: np.random.Generator) -> np.ndarray:
    """Return how the lines change when devices are drawn again with replacement, all cycles of a device together."""
    n = int(data.device.max()) + 1
    copies = np.bincount(generator.integers(n, size=n), minlength=n)[data.device].astype(float)
    if len(np.unique(data.x[copies > 0])) < 3:
        copies = np.ones(len(data.x))
    change = [
        _line(data.x, t, weight * copies) - _line(data.x, t, weight)
        for t, weight in zip(data.t.T, data.weight.T, strict=True)
    ]
    return np.stack(change) * np.sqrt(n / (n - 1))


def transformed(node: xr.Dataset, row: int, shape: list[int], curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the shape parameters as they are regressed, and their weights, each (curve, parameter)."""
    values = node["curve_parameter"].values[curves][:, shape]
    error = np.nan_to_num(node["curve_parameter_stderr"].values[curves][:, shape], nan=0.0, posinf=0.0)
    log = np.array([str(node["transform"].values[row, k]) == "log" for k in shape], dtype=bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(log, np.log(np.where(values > 0, values, np.nan)), values)
        error = np.where(log, error / values, error)
    if not shape:
        return t, np.ones_like(t)
    covariance = node["covariance"].values
    spread = np.array([covariance[row, k, k] for k in shape])
    total = np.maximum(spread, 1e-4 * np.nanvar(t, axis=0)) + np.square(error)
    weight = np.where(np.isfinite(t) & (total > 0), 1 / np.where(total > 0, total, 1.0), 0.0)
    return np.nan_to_num(t), weight


def _line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    total = weight.sum()
    if not total > 0:
        return np.zeros(2)
    mean_x, mean_y = weight @ x / total, weight @ y / total
    square = weight @ np.square(x - mean_x)
    slope = weight @ ((x - mean_x) * (y - mean_y)) / square if square > 0 else 0.0
    return np.array([mean_y - slope * mean_x, slope])


def _scale_gradient(node: xr.Dataset, law: IVModel, row: int) -> np.ndarray:
    """Return d ln(scale) / d t at fixed R, by central differences of the anchor at the centre of the line."""
    names = [str(name) for name in node["parameter"].values]
    ln_r = float(node["ln_r_mean"].values[row])
    centre = node["intercept"].values[row] + node["slope"].values[row] * ln_r
    v_ref = abs(float(node.attrs["reference_voltage"]))
    index = [names.index(name) for name in law.shape]
    log = [str(node["transform"].values[row, k]) == "log" for k in index]

    def ln_scale(t: np.ndarray) -> float:
        values = {name: np.exp(v) if is_log else v for name, v, is_log in zip(law.shape, t, log, strict=True)}
        return float(np.log(law.anchor(np.exp(ln_r), v_ref, xp=np, **values)))

    at, step = centre[index], 1e-5
    eye = step * np.eye(len(index))
    gradient = np.array([(ln_scale(at + e) - ln_scale(at - e)) / (2 * step) for e in eye])
    return np.where(np.isfinite(gradient), gradient, 0.0)
