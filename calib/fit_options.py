"""What a fit can be asked for."""

from dataclasses import dataclass

import numpy as np

from calib.errors import OptionError
from calib.fitting import stuck
from calib.iv_models import all_names


@dataclass(frozen=True)
class FitOptions:
    """What `fit` was asked for; stored in the device model.

    Attributes
    ----------
    reference_voltage : [V] defines R = V_ref / I(V_ref); its sign chooses the polarity of the branches.
    v_max : [V] end of the fitted window; None finds what the data support.
    iv_model : name of a conduction law, or 'auto'.
    form : 'anchored' or 'paper' (see `calib.device_model`).
    temperature : [K]; None takes what the measurement states.
    stuck_rule : 'ratio' or 'range' (see `calib.fitting.stuck`).
    population : which of a measurement's populations.
    holdout : fraction of the devices (of the cycles, for one device) that is not fitted but validated with.
    """

    reference_voltage: float = 0.1
    v_max: float | None = None
    iv_model: str = "auto"
    form: str = "anchored"
    temperature: float | None = None
    stuck_rule: str = "ratio"
    population: str | None = None
    holdout: float = 0.0

    def __post_init__(self) -> None:
        problems = []
        if not np.isfinite(self.reference_voltage) or self.reference_voltage == 0:
            problems.append(f"--reference-voltage is {self.reference_voltage:g} V; expected a voltage other than zero")
        if self.v_max is not None and not self.v_max > 0:
            problems.append(f"--v-max is {self.v_max:g} V; expected a positive voltage")
        if self.iv_model not in ("auto", *all_names()):
            problems.append(f"--iv-model is '{self.iv_model}'; expected auto, {', '.join(all_names())}")
        if self.form not in ("anchored", "paper"):
            problems.append(f"--form is '{self.form}'; expected anchored or paper")
        if self.stuck_rule not in stuck.RULES:
            problems.append(f"--stuck-rule is '{self.stuck_rule}'; expected {' or '.join(stuck.RULES)}")
        if self.temperature is not None and not 0 < self.temperature < 2000:
            problems.append(f"--temperature is {self.temperature:g} K; expected kelvins between 0 and 2000")
        if not 0 <= self.holdout < 1:
            problems.append(f"--holdout is {self.holdout:g}; expected a fraction from 0 to below 1")
        if problems:
            raise OptionError("; ".join(problems))
