"""Current-voltage nonlinearity: the device model's conduction law with its spread."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from calib.device_model import ShapeLaw, shape_law
from calib.iv_models import iv_model
from calib.nonidealities.base import AS_PROGRAMMED, Z_MAX, Conditions, Conduction

_MIX_FLOOR = 1e-6  # keeps the square root's gradient finite where a state's weight in a blend vanishes
_MARGIN = 1e-4  # in ln R: rounding of the range's own ends is not outside


@dataclass(frozen=True)
class Line:
    """How the only shape parameter is drawn where one state holds: theta = t or exp(t), t = intercept + slope ln R + e.

    Attributes
    ----------
    intercept, slope, deviation : of t; deviation is the standard deviation of e.
    is_log : whether theta is exp(t).
    ln_r_min, ln_r_max : range of the data, to which ln R is clipped.
    lower, upper : bounds of theta.
    """

    intercept: float
    slope: float
    deviation: float
    is_log: bool
    ln_r_min: float
    ln_r_max: float
    lower: float
    upper: float

    def covers(self, low: float, high: float) -> bool:
        """Say whether ln R from `low` to `high` lies in the range of the data, to rounding."""
        return low >= self.ln_r_min - _MARGIN and high <= self.ln_r_max + _MARGIN


class IV(Conduction):
    """A device of resistance R follows the law of its population, theta = intercept + slope ln R + e, e ~ N(0, C).

    In the anchored form only the shape parameters are drawn and the scale is solved, so that I(V_ref) = V_ref / R
    exactly; R is the resistance after programming and stuck devices. In the paper's form (Joksas et al., Adv. Sci. 9,
    2105784 (2022), doi 10.1002/advs.202105784) scale and shape are jointly normal, drawn through the eigenvalue
    square root of C. Drawn once per chip. Between the centres of two states intercept, slope and C are interpolated
    linearly in ln R. Deviates beyond 4 standard deviations are clipped, and so is the ln R of the lines to the range
    of the data, and a drawn series resistance is held below the device's own; `clipped` counts all three.

    Parameters
    ----------
    population : law of the population, of `calib.device_model.shape_law`.
    """

    name = "iv"
    stage = "conduction"
    redraw = "chip"

    def __init__(self, population: ShapeLaw) -> None:
        self.population = population
        self.law = iv_model(population.iv_model)
        self.reference_voltage = population.reference_voltage
        self.v_max = population.v_max
        self.anchored = population.form == "anchored"
        drawn = self.law.shape if self.anchored else self.law.parameter_names
        index = [population.parameters.index(name) for name in drawn]
        self._drawn = drawn
        self._transforms = tuple(population.transforms[i] for i in index)
        self._intercept = population.intercept[:, index]  # (state, parameter)
        self._slope = population.slope[:, index]
        self._covariance = population.covariance[:, index][:, :, index]
        self._roots = np.stack([_eigenvalue_root(c) for c in self._covariance])  # (state, parameter, deviate)

    @classmethod
    def from_device(cls, tree: xr.DataTree, conditions: Conditions = AS_PROGRAMMED) -> "IV | None":
        return cls(shape_law(tree)) if "iv" in tree.children else None

    def ideal(self) -> "IV":
        p = self.population
        return IV(
            ShapeLaw(
                iv_model="ohmic", form="anchored", reference_voltage=p.reference_voltage, parameters=("g",),
                transforms=("log",), centres=np.zeros(1), intercept=np.zeros((1, 1)), slope=-np.ones((1, 1)),
                covariance=np.zeros((1, 1, 1)), ln_r_min=-np.inf, ln_r_max=np.inf, v_min=0.0, v_max=np.inf,
            )
        )  # fmt: skip

    def describe(self) -> str:
        return f"I-V law {self.law.name}, {self.population.form}"

    def deviates(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        states, parameters = self._intercept.shape
        count = parameters if states == 1 or self._single else states * parameters
        z = torch.empty((count, *shape), dtype=dtype, device=generator.device)
        return z.normal_(generator=generator) if self._covariance.any() else z.zero_()

    @property
    def _single(self) -> bool:
        return len(self._drawn) == 1

    def parameters(self, conductance: torch.Tensor, deviates: torch.Tensor) -> dict[str, torch.Tensor]:
        if not self._drawn:
            return {self.law.scale: conductance}
        values = self._draw(-torch.log(conductance), deviates)
        if self.anchored:
            resistance = 1 / conductance
            values = self.law.admissible(resistance, xp=torch, **values)
            scale = self.law.anchor(resistance, self.reference_voltage, xp=torch, **values)
            values = {self.law.scale: scale, **values}
        return values

    def shape_with_slope(
        self, ln_r: torch.Tensor, deviates: torch.Tensor, covered: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        if not (self.anchored and self._single):
            return None
        if len(self.population.centres) == 1 and (covered or self.covers(ln_r)):
            return self._one_line(ln_r, deviates)
        with torch.enable_grad():
            ln_r = ln_r.detach().requires_grad_(True)
            (value,) = self._draw(ln_r, deviates).values()
            (slope,) = torch.autograd.grad(value.sum(), ln_r, allow_unused=True)
        return value.detach(), torch.zeros_like(ln_r) if slope is None else slope

    def line(self) -> Line | None:
        """Return how the only shape parameter is drawn, None where there are several of them or several states."""
        p = self.population
        if not (self.anchored and self._single and len(p.centres) == 1):
            return None
        parameter = self.law.parameter(self._drawn[0])
        return Line(
            float(self._intercept[0, 0]), float(self._slope[0, 0]), float(self._roots[0, 0, 0]),
            self._transforms[0] == "log", p.ln_r_min, p.ln_r_max, parameter.lower, parameter.upper,
        )  # fmt: skip

    def clipped(self, conductance: torch.Tensor, deviates: torch.Tensor) -> int:
        ln_r = -torch.log(conductance)
        if not self._drawn:
            return 0
        outside = (ln_r < self.population.ln_r_min - _MARGIN) | (ln_r > self.population.ln_r_max + _MARGIN)
        outside = outside | (deviates.abs() > Z_MAX).any(0)
        if self.anchored and self.law.series:
            drawn = self._draw(ln_r, deviates)
            held = self.law.admissible(1 / conductance, xp=torch, **drawn)
            outside = outside | (held[self.law.series] != drawn[self.law.series])
        return int(outside.sum())

    def extremes(self, spread: float = Z_MAX) -> list[dict[str, float]]:
        p = self.population
        found: list[dict[str, float]] = []
        for ln_r in np.unique([p.ln_r_min, *np.clip(p.centres, p.ln_r_min, p.ln_r_max), p.ln_r_max]):
            mean, covariance = p.at(np.asarray(ln_r))
            index = [p.parameters.index(name) for name in self._drawn]
            root = _eigenvalue_root(covariance[np.ix_(index, index)])
            spreading = [d for d in root.T if np.abs(d).max() > 1e-9]
            found.append(self._shape_of(mean[index], float(ln_r)))
            for direction, z in itertools.product(spreading, (-1.0, -0.5, 0.5, 1.0)):
                found.append(self._shape_of(mean[index] + spread * z * direction, float(ln_r)))
            if len(spreading) > 1:
                for signs in itertools.product((-1.0, 1.0), repeat=len(spreading)):
                    corner = np.dot(signs, spreading) * (spread / np.sqrt(len(spreading)))
                    found.append(self._shape_of(mean[index] + corner, float(ln_r)))
        return found

    def _shape_of(self, t: np.ndarray, ln_r: float) -> dict[str, float]:
        """Return the shape parameters of a device, with its scale where that is no factor of the current."""
        values: dict[str, float] = {}
        for name, transform, value in zip(self._drawn, self._transforms, t, strict=True):
            parameter = self.law.parameter(name)
            theta = float(np.exp(value) if transform == "log" else value)
            values[name] = min(max(theta, parameter.lower), parameter.upper)
        if self.anchored and not self.law.scale_is_factor:
            shape = {name: np.asarray(value) for name, value in values.items()}
            shape = self.law.admissible(np.exp(ln_r), xp=np, **shape)
            scale = self.law.anchor(np.exp(ln_r), self.reference_voltage, xp=np, **shape)
            values = {name: float(value) for name, value in {self.law.scale: scale, **shape}.items()}
        if self.law.scale_is_factor:
            values.pop(self.law.scale, None)
        return values

    def covers(self, ln_r: torch.Tensor) -> bool:
        """Say whether all `ln_r` lie in the range of the data, to rounding."""
        low, high = torch.aminmax(ln_r.detach())
        return float(low) >= self.population.ln_r_min - _MARGIN and float(high) <= self.population.ln_r_max + _MARGIN

    def _one_line(self, ln_r: torch.Tensor, deviates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the drawn parameter and its derivative by ln R where one line holds for all devices."""
        intercept, slope = float(self._intercept[0, 0]), float(self._slope[0, 0])
        value = deviates[0].clamp(-Z_MAX, Z_MAX).mul_(float(self._roots[0, 0, 0])).add_(intercept)
        value.add_(ln_r, alpha=slope)
        if self._transforms[0] == "log":
            value.exp_()
            return value, value * slope
        return value, torch.full((), slope, dtype=value.dtype, device=value.device)

    def _draw(self, ln_r: torch.Tensor, deviates: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the drawn parameters at ln R."""
        p = self.population
        ln_r = ln_r.clamp(p.ln_r_min, p.ln_r_max)
        z = deviates.clamp(-Z_MAX, Z_MAX)
        weights = [
            ((ln_r - low) / (high - low)).clamp(0.0, 1.0) for low, high in zip(p.centres, p.centres[1:], strict=False)
        ]  # of the upper state of each pair
        values = {}
        for j, name in enumerate(self._drawn):
            intercept = _blend(self._intercept[:, j], weights)
            slope = _blend(self._slope[:, j], weights)
            t = intercept + slope * ln_r + self._residual(j, weights, z)
            theta = torch.exp(t) if self._transforms[j] == "log" else t
            parameter = self.law.parameter(name)
            bounded = np.isfinite(parameter.lower) or np.isfinite(parameter.upper)
            values[name] = theta.clamp(parameter.lower, parameter.upper) if bounded else theta
        return values

    def _residual(self, j: int, weights: list[torch.Tensor], z: torch.Tensor) -> torch.Tensor:
        """Return e of parameter j: covariances blend linearly, so their roots blend with the roots of the weights."""
        states, parameters = self._intercept.shape
        if states == 1:
            return sum(float(self._roots[0, j, d]) * z[d] for d in range(parameters))  # type: ignore[return-value]
        if self._single:
            variance = torch.as_tensor(_blend(self._covariance[:, 0, 0], weights))
            return torch.sqrt(variance.clamp(min=1e-30)) * z[0]
        total = torch.zeros_like(z[0])
        for s in range(states):
            share = torch.as_tensor(_share(s, states, weights)).clamp(min=_MIX_FLOOR)
            part = sum(float(self._roots[s, j, d]) * z[s * parameters + d] for d in range(parameters))
            total = total + torch.sqrt(share) * part
        return total


def _eigenvalue_root(covariance: np.ndarray) -> np.ndarray:
    """Return A with A A^T = covariance, from its eigenvalues, the negative ones of rounding taken as zero."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.clip(values, 0.0, None))


def _blend(values: np.ndarray, weights: list[torch.Tensor]) -> torch.Tensor | float:
    """Return values interpolated between neighbouring states."""
    total: torch.Tensor | float = float(values[0])
    for step, weight in zip(np.diff(values), weights, strict=True):
        total = total + float(step) * weight
    return total


def _share(state: int, states: int, weights: list[torch.Tensor]) -> torch.Tensor:
    """Return the weight of one state in the blend."""
    entered = weights[state - 1] if state else 1.0
    left = weights[state] if state < states - 1 else 0.0
    return entered - left  # type: ignore[return-value]


member = IV
