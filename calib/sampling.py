"""Draws from a device model in numpy: single devices, devices in several cycles, and whole models."""

import json
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from scipy.special import ndtr

from calib.characteristics import members
from calib.device_model import ShapeLaw, check, identity, shape_law
from calib.iv_models import iv_model
from calib.law_draw import LawDraw
from calib.model_draw import Stuck, draw_conductance, draw_programming


def sample_resistance(tree: xr.DataTree, state: str, n: int, generator: np.random.Generator) -> np.ndarray:
    """Draw ln(R / Ohm) of `n` devices from the empirical quantiles of a state (inverse of the distribution function).

    Raises
    ------
    ModelError
        When the model has no I-V law, or not that state.
    """
    shape_law(tree, state)  # says what is missing
    node = tree["iv"].to_dataset().sel(state=state)
    return np.interp(generator.random(n), node["quantile"].values, node["ln_r_quantile"].values)


def sample_parameters(law: ShapeLaw, ln_r: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the law's parameters of devices with the given ln(R / Ohm).

    In the anchored form the shape parameters are drawn given ln R and the scale is solved so that I(V_ref) = V_ref / R
    exactly; in the paper's form all parameters are drawn given ln R, by the square root of their covariance's
    eigenvalues (it is nearly singular).
    """
    normal = generator.standard_normal((*np.shape(ln_r), len(law.parameters)))
    return parameters_at(law, ln_r, normal)


def parameters_at(law: ShapeLaw, ln_r: np.ndarray, normal: np.ndarray) -> dict[str, np.ndarray]:
    """Return the law's parameters of devices with given ln(R / Ohm), from standard normal deviates (..., parameter)."""
    model = iv_model(law.iv_model)
    mean, covariance = law.at(ln_r)
    if len(law.centres) == 1:  # one covariance for all
        covariance = law.covariance[0]
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0.0))[..., None, :]
    t = mean + np.einsum("...ij,...j->...i", root, normal)
    values = {
        name: np.exp(t[..., k]) if law.transforms[k] == "log" else t[..., k] for k, name in enumerate(law.parameters)
    }
    values = {n: np.clip(v, model.parameter(n).lower, model.parameter(n).upper) for n, v in values.items()}
    if law.form == "anchored":
        shape = {name: values[name] for name in model.shape}
        shape = model.admissible(np.exp(ln_r), xp=np, **shape)
        values |= shape
        values[model.scale] = model.anchor(np.exp(ln_r), law.reference_voltage, xp=np, **shape)
    return values


def sample_devices(tree: xr.DataTree, state: str, n: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw ln(R / Ohm) and the law's parameters of `n` devices in a state."""
    generator = np.random.default_rng(seed)
    ln_r = sample_resistance(tree, state, n, generator)
    return ln_r, sample_parameters(shape_law(tree, state), ln_r, generator)


@dataclass(frozen=True)
class Population:
    """A population of devices as plain arrays, from which devices in several cycles are drawn.

    Attributes
    ----------
    states : names; the first dimension of `ln_r_quantile`.
    law : of all states.
    own : the law of each state by itself.
    levels : (quantile,) probabilities of `ln_r_quantile`.
    ln_r_quantile : (state, quantile) ln(R / Ohm).
    alike : per state, how alike two cycles of a device are: correlations of ln R and of the shape at given R.
    stuck_devices : None where the model does not know of any.
    """

    states: tuple[str, ...]
    law: ShapeLaw
    own: tuple[ShapeLaw, ...]
    levels: np.ndarray
    ln_r_quantile: np.ndarray
    alike: tuple[tuple[float, float], ...]
    stuck_devices: Stuck | None

    def stuck(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """Draw for each of `n` devices the conductance [S] at which it is stuck, NaN where it switches."""
        return np.full(n, np.nan) if self.stuck_devices is None else self.stuck_devices.devices(n, generator)

    def devices(
        self, state: str, stuck: np.ndarray, cycles: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Draw ln(R / Ohm) and the law's parameters of devices in a state, each (device, cycle).

        ln R keeps its marginal distribution; two cycles of a device are as alike as the fitted devices' were: the
        normal scores of ln R, and the deviations of the shape from its line, have the correlation between / (between +
        within).

        Parameters
        ----------
        stuck : (device,) from `stuck`; a stuck device has the same resistance in every state and cycle.
        """
        row = self.states.index(state)
        rho, rho_shape = self.alike[row]
        score = _alike((len(stuck), cycles), rho, generator)
        ln_r = np.interp(ndtr(score), self.levels, self.ln_r_quantile[row])
        normal = _alike((len(stuck), cycles, len(self.law.parameters)), rho_shape, generator)
        parameters = parameters_at(self.own[row], ln_r, normal)
        rows = np.flatnonzero(np.isfinite(stuck))
        if len(rows):
            ln_r[rows] = -np.log(stuck[rows])[:, None]
            same = np.broadcast_to(normal[rows, :1], normal[rows].shape)
            for name, values in parameters_at(self.law, ln_r[rows], same).items():
                parameters[name][rows] = values
        return ln_r, parameters


class PopulationDraw:
    """A device model's population, and draws of it within what the fit leaves uncertain."""

    def __init__(self, tree: xr.DataTree) -> None:
        law = shape_law(tree)
        self.node = tree["iv"].to_dataset()
        stuck = tree["stuck"].to_dataset() if "stuck" in tree.children else None
        self.draws = LawDraw(self.node, stuck)
        states = tuple(self.draws.states)
        alike = tuple(self._alike(tree, row, state) for row, state in enumerate(states))
        own = tuple(shape_law(tree, state) for state in states)
        self.centre = Population(
            states, law, own, self.node["quantile"].values, self.node["ln_r_quantile"].values.astype(float), alike,
            None if stuck is None else Stuck.of(stuck),
        )  # fmt: skip

    def _alike(self, tree: xr.DataTree, row: int, state: str) -> tuple[float, float]:
        """Return the correlations between cycles; of ln R from the curves, or the programming node, or 1."""
        rho, shape = self.draws.correlations(row)
        programming = tree["programming"].to_dataset() if "programming" in tree.children else None
        if np.isnan(rho) and programming is not None and state in programming["state"].values:
            here = programming.sel(state=state)
            d2d, c2c = float(here["sigma_d2d"]), float(here["sigma_c2c"])
            if np.isfinite(d2d) and np.isfinite(c2c) and d2d + c2c > 0:
                rho = d2d**2 / (d2d**2 + c2c**2)
        return (1.0 if np.isnan(rho) else rho), shape

    def draw(self, generator: np.random.Generator) -> Population:
        """Draw the population's parameters within their joint uncertainty."""
        changed, _ = self.draws.draw(generator)
        order = np.argsort(changed["ln_r_mean"], kind="stable")
        law, own = self.centre.law, self.centre.own
        if len(law.centres) == len(order):
            law = replace(
                law, centres=changed["ln_r_mean"][order], intercept=changed["intercept"][order],
                slope=changed["slope"][order], covariance=changed["covariance"][order],
            )  # fmt: skip
            own = tuple(_one_state(law, int(np.flatnonzero(order == row)[0])) for row in range(len(order)))
        else:  # a state's law has several regimes, which move together
            rise = changed["intercept"] - self.draws.numbers["intercept"]
            turn = changed["slope"] - self.draws.numbers["slope"]
            own = tuple(
                replace(part, intercept=part.intercept + rise[row], slope=part.slope + turn[row])
                for row, part in enumerate(own)
            )
        stuck = self.centre.stuck_devices
        return replace(
            self.centre, law=law, own=own, ln_r_quantile=changed["ln_r_quantile"],
            stuck_devices=None if stuck is None else stuck.draw(generator),
        )  # fmt: skip


def _one_state(law: ShapeLaw, index: int) -> ShapeLaw:
    at = slice(index, index + 1)
    return replace(
        law, centres=law.centres[at], intercept=law.intercept[at], slope=law.slope[at], covariance=law.covariance[at]
    )


def _alike(shape: tuple[int, ...], rho: float, generator: np.random.Generator) -> np.ndarray:
    """Draw standard normal deviates whose correlation along the second dimension is `rho`."""
    own = generator.standard_normal(shape)
    common = generator.standard_normal((shape[0], 1, *shape[2:]))
    return np.sqrt(rho) * common + np.sqrt(1 - rho) * own


def sample_population(
    tree: xr.DataTree, state: str, n: int, generator: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw ln(R / Ohm) and the law's parameters of `n` devices as they are found in a state, stuck ones among them.

    A device is stuck with the model's probability; its conductance is then one of the kernel density of the stuck
    devices, whatever the state, and its law that of its resistance.
    """
    population = PopulationDraw(tree).centre
    ln_r, parameters = population.devices(state, population.stuck(n, generator), 1, generator)
    return ln_r[:, 0], {name: values[:, 0] for name, values in parameters.items()}


def sample_model(tree: xr.DataTree, seed: int) -> xr.DataTree:
    """Draw a whole device model: every number within its joint uncertainty.

    ======================= ==========================================================================================
    iv, ln R                quantile functions that the measured devices leave open (`calib.resistance_draw`); without
                            a table of curves the mean and the spread move by their standard errors
    iv, lines               joint covariance of intercepts and slopes, else the bootstrap over devices, else standard
                            errors; the scale follows so that I(V_ref) = V_ref / R
    iv, covariance          inverse Wishart about the estimate with the freedom that its standard error tells
    conductance             ln G_off and ln G_on by their 95 % intervals, together with the mean of ln R of their state
    programming             sigma sqrt(nu / chi^2_nu), nu = sigma^2 / (2 stderr^2); the median of R by its own error
    stuck                   beta(k + 1/2, n - k + 1/2) (Jeffreys), the stuck conductances with replacement
    others                  `resample` of the characteristic's member (calib.characteristics)
    ======================= ==========================================================================================

    Parameters
    ----------
    tree : a device model.
    seed : a seed gives the same model again.

    Returns
    -------
    xarray.DataTree
        A device model of the same structure. Its root attribute `draw` is a JSON object: seed, parent (identity of
        `tree`), not_drawn (numbers that were kept because their uncertainty is not known).
    """
    generator = np.random.default_rng(seed)
    nodes = {str(name): child.to_dataset() for name, child in tree.children.items()}
    drawn, held = drawn_nodes(nodes, generator)
    for member in members(tree):
        drawn[member.node] = member.resample(nodes[member.node], generator)
    held += [f"node {name}" for name in nodes if name not in (*_DRAWN, *(m.node for m in members(tree)), *_KEPT)]
    sample = xr.DataTree.from_dict(
        {f"/{name}": drawn.get(name, node) for name, node in nodes.items() if name not in _LEFT}
    )
    draw = {"seed": int(seed), "parent": identity(tree), "not_drawn": held}
    sample.attrs = {**tree.attrs, "draw": json.dumps(draw, sort_keys=True)}
    check(sample)
    return sample


_DRAWN = ("iv", "conductance", "programming", "stuck")
_KEPT = ("examples",)
_LEFT = ("validation",)
"""What a draw does not have: the parent's validation says nothing about it."""


def drawn_nodes(
    nodes: dict[str, xr.Dataset], generator: np.random.Generator
) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Draw the nodes that have no member of the family of characteristics, and say what was kept."""
    found: dict[str, xr.Dataset] = {}
    held: list[str] = []
    shifts: dict[str, float] = {}
    if "iv" in nodes:
        node = nodes["iv"]
        changed, kept = LawDraw(node, nodes.get("stuck")).draw(generator)
        found["iv"] = node.assign({name: node[name].copy(data=values) for name, values in changed.items()})
        held += [f"iv: {text}" for text in kept]
        shifts = _shifts(nodes["iv"], found["iv"])
    if "conductance" in nodes:
        found["conductance"], kept = draw_conductance(nodes["conductance"], shifts, generator)
        held += kept
    if "programming" in nodes:
        found["programming"] = draw_programming(nodes["programming"], generator)
    if "stuck" in nodes:
        node = nodes["stuck"]
        drawn = Stuck.of(node).draw(generator)
        found["stuck"] = node.assign(
            probability=node["probability"].copy(data=drawn.probability),
            conductance=node["conductance"].copy(data=drawn.conductance),
        )
        held += ["stuck/probability"] if int(node["n_devices"]) < 1 else []
    return found, held


def _shifts(parent: xr.Dataset, drawn: xr.Dataset) -> dict[str, float]:
    """Return by how many standard errors the mean of ln R of the two states moved."""
    if "ln_r_mean_stderr" not in parent:
        return {}
    change = (drawn["ln_r_mean"] - parent["ln_r_mean"]).values
    error = parent["ln_r_mean_stderr"].values
    states = parent["state"].values.astype(str)
    return {
        s: float(np.clip(c / e, -4, 4))
        for s, c, e in zip(states, change, error, strict=True)
        if e > 0 and s in ("lrs", "hrs")
    }
