"""How much is trained and drawn: as published, or quickly."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from calib.errors import OptionError


@dataclass(frozen=True)
class Recipe:
    """An optimiser with its learning rate, schedule and number of epochs, see `calib.training.train`."""

    optimizer: str
    learning_rate: float
    schedule: str
    epochs: int

    def describe(self) -> str:
        """Return the recipe in words."""
        schedule = "" if self.schedule == "constant" else f", {self.schedule} schedule"
        name = {"sgd": "SGD", "adam": "Adam"}[self.optimizer]
        return f"{name} {self.learning_rate:g}{schedule}, {self.epochs} epochs"


@dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers, besides the images.

    Attributes
    ----------
    recipe : of all trainings but two.
    other_recipe, long_recipe : of standard trainings that show what the recipe changes.
    networks, chips : trained for each training; draws of the devices of each network.
    validation_every, validation_repeats : see `calib.training.train`.
    batch_size, seed : of training; the seed also of the chips.
    """

    recipe: Recipe
    other_recipe: Recipe
    long_recipe: Recipe
    networks: int
    chips: int
    validation_every: int = 20
    validation_repeats: int = 20
    batch_size: int = 64
    seed: int = 0

    def record(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


def _adam(epochs: int) -> Recipe:
    return Recipe("adam", 0.004, "cosine", epochs)


_TENTH = Recipe("sgd", 0.1, "constant", 100)
"""The published recipe in a tenth of the steps, each ten times as long: standard training gives the same networks."""
PAPER = Settings(Recipe("sgd", 0.01, "constant", 1000), _adam(20), _TENTH, networks=5, chips=25)
"""The published optimiser, epochs, networks and draws."""
QUICK = Settings(_adam(15), Recipe("sgd", 0.1, "constant", 15), _TENTH, networks=1, chips=10)
"""Enough to see every effect."""


def settings(
    *,
    quick: bool = False,
    networks: int | None = None,
    epochs: int | None = None,
    chips: int | None = None,
    seed: int = 0,
) -> Settings:
    """Return the published or the quick settings with some of them replaced.

    Raises
    ------
    OptionError
        When a number is less than 1.
    """
    for name, value in (("networks", networks), ("epochs", epochs), ("chips", chips)):
        if value is not None and value < 1:
            raise OptionError(f"{name} is {value}; expected at least 1")
    chosen = replace(QUICK if quick else PAPER, seed=seed)
    if epochs is not None:
        names = ("recipe", "other_recipe", "long_recipe")
        chosen = replace(chosen, **{name: replace(getattr(chosen, name), epochs=epochs) for name in names})
    return replace(chosen, networks=networks or chosen.networks, chips=chips or chosen.chips)
