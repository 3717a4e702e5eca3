"""The devices that a card draws: their conductance, whether they are stuck, and their law's parameters, as numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from calib.errors import ModelError, OptionError
from calib.exporters._population import SPREAD, SPREAD_DEVIATE, Population
from calib.model_draw import Spread, Stuck
from calib.sampling import PopulationDraw

MOST_SAMPLES = 100_000


@dataclass(frozen=True)
class Choice:
    """Which devices a card is asked for.

    Attributes
    ----------
    conductance : [S] that devices are programmed to.
    state : state of the model that devices are drawn from; not with `conductance`.
    seed : of a Monte-Carlo sample; None for the typical device.
    samples : how many devices are drawn.
    spread : whether programming spreads what is drawn at `conductance`.
    stuck : whether devices are stuck with the model's probability.
    """

    conductance: float | None = None
    state: str | None = None
    seed: int | None = None
    samples: int = 1
    spread: bool = True
    stuck: bool = True

    def check(self, population: Population) -> None:
        """Raise an OptionError for what cannot be had."""
        if self.conductance is not None and self.state is not None:
            raise OptionError("conductance and state are both given; expected one of them")
        if self.conductance is not None and not 0 < self.conductance < float("inf"):
            raise OptionError(f"the conductance is {self.conductance} S; expected a positive number, in siemens")
        known = [state for state, _ in population.typical]
        if self.state is not None and self.state not in known:
            raise OptionError(f"there is no state '{self.state}'; the model has {', '.join(known)}")
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise OptionError(f"samples is {self.samples}; expected 1 to {MOST_SAMPLES}")
        if self.seed is None and self.samples != 1:
            raise OptionError(f"{self.samples} samples need a seed; give seed=0, for example")
        if self.seed is not None and self.seed < 0:
            raise OptionError(f"the seed is {self.seed}; expected 0 or more")
        if self.seed is not None and self.conductance is None and self.state is None and len(known) > 1:
            raise OptionError(f"samples need a conductance, or a state, one of {', '.join(known)}")

    def default(self, population: Population) -> float:
        """Return the conductance [S] of the typical device."""
        if self.conductance is not None:
            return self.conductance
        return population.inputs[0].default if self.state is None else dict(population.typical)[self.state]


@dataclass(frozen=True)
class Devices:
    """Devices as numbers, each array (device, ...).

    Attributes
    ----------
    conductance : [S] at the reference voltage.
    stuck : whether the device is stuck.
    parameters : of the law, by name.
    """

    conductance: np.ndarray
    stuck: np.ndarray
    parameters: dict[str, np.ndarray]

    def __iter__(self) -> Iterator[tuple[float, bool, dict[str, float]]]:
        for k in range(len(self.conductance)):
            values = {name: float(column[k]) for name, column in self.parameters.items()}
            yield float(self.conductance[k]), bool(self.stuck[k]), values


def drawn(tree: xr.DataTree, population: Population, choice: Choice) -> Devices:
    """Draw a Monte-Carlo sample; `choice` has a seed."""
    generator = np.random.default_rng(choice.seed)
    if choice.conductance is not None:
        target = np.full(choice.samples, choice.conductance)
        return programmed(tree, population, target, generator, choice.spread, choice.stuck)
    state = choice.state if choice.state is not None else population.typical[0][0]
    stuck = np.full(choice.samples, np.nan)
    if "iv" in tree.children:
        of_state = PopulationDraw(tree).centre
        if choice.stuck:
            stuck = of_state.stuck(choice.samples, generator)
        ln_r, parameters = of_state.devices(state, stuck, 1, generator)
        parameters = {name: values[:, 0] for name, values in parameters.items()}
        return Devices(np.exp(-ln_r[:, 0]), np.isfinite(stuck), parameters)
    if "programming" not in tree.children:
        raise ModelError(
            f"the device model '{tree.attrs.get('name', '')}' does not say how its state '{state}' scatters; give a "
            "conductance"
        )
    node = tree["programming"].to_dataset()
    row = [str(name) for name in node["state"].values].index(state)
    ln_r = Spread.of(node, row).devices(choice.samples, 1, generator)[:, 0]
    if choice.stuck and "stuck" in tree.children:
        stuck = Stuck.of(tree["stuck"].to_dataset()).devices(choice.samples, generator)
    g = np.where(np.isfinite(stuck), stuck, np.exp(-ln_r))
    return Devices(g, np.isfinite(stuck), population.parameters(g))


def programmed(
    tree: xr.DataTree, population: Population, target: np.ndarray, generator: np.random.Generator | None,
    spread: bool = True, stuck: bool = True,
) -> Devices:  # fmt: skip
    """Return devices that were programmed to `target` [S], of any shape; typical ones without a generator.

    With a generator, programming spreads ln R (`calib.nonidealities.lognormal`), devices are stuck with the model's
    probability at conductances drawn from its kernel density, and the law's parameters scatter about their lines.
    """
    target = np.asarray(target, dtype=float)
    dead = np.full(target.shape, np.nan)
    if generator is None:
        return Devices(target, np.isfinite(dead), population.parameters(target))
    deviates: dict[str, np.ndarray | float] = {}
    if population.has_spread and spread:
        deviates[SPREAD_DEVIATE] = generator.standard_normal(target.shape)
    if stuck and "stuck" in tree.children:
        dead = Stuck.of(tree["stuck"].to_dataset()).devices(target.size, generator).reshape(target.shape)
    if population.has_spread:  # a stuck device is not programmed
        deviates[SPREAD] = np.where(np.isfinite(dead), 0.0, float(spread))
    for name in population.deviates:
        deviates[name] = generator.standard_normal(target.shape)
    wanted = np.where(np.isfinite(dead), dead, target)
    return Devices(
        population.conductance(wanted, **deviates), np.isfinite(dead), population.parameters(wanted, **deviates)
    )
