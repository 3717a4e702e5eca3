"""What a comparison of runs and device models holds."""

import math
from dataclasses import dataclass

import xarray as xr

from calib.model_diff import LEVEL, ModelDiff
from calib.outcomes import Outcome
from calib.paired import Mean


@dataclass(frozen=True, eq=False)
class Compared:
    """A training run's networks on one device model, with what says what they share with others.

    Attributes
    ----------
    outcome : what the chips do.
    loss : mean error less that of the same networks on ideal devices; NaN where these were not evaluated.
    networks : text that is the same for the same trained networks.
    chips : text that is the same where chips of one number are drawn from the same random numbers.
    images : text that is the same for the same images, '' where not known.
    read_time : [s].
    """

    outcome: Outcome
    loss: Mean
    networks: str
    chips: str
    images: str
    read_time: float

    @property
    def label(self) -> str:
        """'run on device'."""
        return f"{self.outcome.label} on {self.outcome.device}"


@dataclass(frozen=True)
class RunDifference:
    """What differs between two runs on devices: b less a.

    Attributes
    ----------
    a, b : labels.
    error : difference of the mean errors.
    energy : difference of the mean energies [J]; energy_share relative to the mean energy of a.
    how : which networks and chips both share, in words.
    p_error, p_energy : probability of such a difference where there is none, over all tests together (Holm).
    """

    a: str
    b: str
    error: Mean
    energy: Mean
    energy_share: float
    how: str
    p_error: float
    p_energy: float

    def told(self, name: str, level: float) -> bool | None:
        """Whether the difference of 'error' or 'energy' is more than the intervals; None where that is not known."""
        p = self.p_error if name == "error" else self.p_energy
        return None if math.isnan(p) else p < level


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs and device models side by side.

    Attributes
    ----------
    runs : every run on every device, in the order given.
    differences : between runs; of all pairs, or to the first.
    devices : device models, those given and bundled ones on which runs were evaluated.
    model_diffs : of each further device model from the first.
    warnings : what makes the comparison unequal.
    level : probability of telling any difference where there is none.
    """

    runs: tuple[Compared, ...]
    differences: tuple[RunDifference, ...]
    devices: tuple[xr.DataTree, ...]
    model_diffs: tuple[ModelDiff, ...]
    warnings: tuple[str, ...]
    level: float = LEVEL
