"""Averages of the weights over the steps of a training, which are validated and kept instead of the last weights.

With w_t the weights after step t = 1, 2, ... and m_t their average:

=========================== ==========================================================================================
text                        average
=========================== ==========================================================================================
exponential:B               m_t = b m_(t-1) + (1 - b) w_t with b = min(B, (t - 1) / t), so that it is the plain mean of
                            the first 1 / (1 - B) steps (Polyak and Juditsky, SIAM J. Control Optim. 30, 838 (1992), doi
                            10.1137/0330046, with a memory of about 1 / (1 - B) steps)
tail:F                      plain mean of the weights after the steps in the last fraction F of the training, before
                            it the weights themselves (Izmailov et al., UAI 2018, arXiv 1803.05407)
=========================== ==========================================================================================

An average of weights in the range of a mapping is in that range too. Buffers (ranges of converters, statistics of
normalisations) are those of the trained network.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from calib.crossbar.layers import memristive_layers
from calib.errors import OptionError

KINDS = ("exponential", "tail")


@dataclass(frozen=True)
class Averaging:
    """Which average is kept: `kind` of `KINDS`, and B or F."""

    kind: str
    value: float

    @classmethod
    def from_text(cls, text: str) -> "Averaging | None":
        """Return the average that a text such as 'exponential:0.998' or 'tail:0.25' names, None for ''.

        Raises
        ------
        OptionError
            When there is no such average, or its number is not between 0 and 1.
        """
        if not text:
            return None
        kind, _, number = (part.strip() for part in text.partition(":"))
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        upper = value <= 1 if kind == "tail" else value < 1
        if kind not in KINDS or not (value > 0 and upper):
            raise OptionError(
                f"average is '{text}'; expected exponential:B with the factor 0 < B < 1 of a step, or tail:F with the "
                "last fraction 0 < F <= 1 of the training, for example exponential:0.998"
            )
        return cls(kind, value)

    @property
    def text(self) -> str:
        """The average as text, which `from_text` understands."""
        return f"{self.kind}:{self.value!r}"


class AveragedNetwork:
    """The average of a network's weights.

    Attributes
    ----------
    network : a copy of the trained network, with the averaged weights.
    steps : how many steps the average holds.
    """

    def __init__(self, trained: nn.Module, averaging: Averaging) -> None:
        self.network = copy.deepcopy(trained)
        self.averaging = averaging
        self.steps = 0

    @torch.no_grad()
    def update(self, trained: nn.Module, fraction: float) -> None:
        """Take in the weights after a step; `fraction` of the training is done with it."""
        tail = self.averaging.kind == "tail"
        limit = 1.0 if tail else self.averaging.value
        share = 1 - min(limit, self.steps / (self.steps + 1))
        for mean, new in zip(self.network.parameters(), trained.parameters(), strict=True):
            mean.lerp_(new, share)
        if not tail or fraction > 1 - self.averaging.value:
            self.steps += 1

    @torch.no_grad()
    def follow(self, trained: nn.Module) -> None:
        """Take over the ranges of inputs and converters and all other buffers of the trained network."""
        for own, other in zip(memristive_layers(self.network), memristive_layers(trained), strict=True):
            if other._clips:
                own.set_input_range(float(other.input_range))
            if other.adc_is_calibrated:
                own.set_adc_range(other.adc_range)
        for own, other in zip(self.network.buffers(), trained.buffers(), strict=True):
            own.copy_(other)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"network": self.network.state_dict(), "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self.network.load_state_dict(state["network"])
        self.steps = state["steps"]
