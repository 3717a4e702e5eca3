"""The numbers of every rule that splits, labels and flags sweeps."""

from dataclasses import dataclass

import numpy as np

from calib.errors import OptionError
from calib.measurement_contract import FLAGS


@dataclass(frozen=True)
class SweepRules:
    """Thresholds; a dimensionless one is a ratio unless said otherwise.

    Attributes
    ----------
    turn_noise : a reversal of the voltage is a turning point when it exceeds this many standard deviations of the
        voltage's noise, which is found from its second differences.
    turn_points : a trace of fewer points is taken to be free of noise.
    turn_irregular, turn_measured : where that standard deviation exceeds `turn_irregular` times the median step, the
        voltage was measured (a switching device in series with a resistor pulls it back), and reversals under
        `turn_measured` of the range do not count either.
    turn_largest : the most that this tolerance may be, as a part of the voltage's range.
    zero_range : |V| under this part of the trace's range is zero volts (rounding of set-points).
    near_zero : for offset and noise floor, |V| under this part of the sweep's largest |V| counts as zero volts.
    open_ratio : a loop is open when the currents on the way down and up differ by this factor (median).
    open_agreement : part of the compared voltages at which the difference must have the same sign.
    open_window : part of the largest |V| between which the two ways are compared.
    open_points : number of voltages that are compared.
    attempt_reach : a closed loop that goes to this part of the usual largest |V| of open ones failed to switch.
    open_minority : loops that open the other way than most of their polarity are taken at their word when they are more
        than this part of them; else their states are those whose typical conductance is nearest.
    plateau_tolerance : currents of a compliance plateau agree within this.
    plateau_outlier : single points may exceed it by this.
    plateau_points, plateau_extent : a plateau has this many points and covers this part of the largest |V|.
    plateau_share : part of the branches of a polarity that must show a plateau for it to be the instrument's setting.
    sign_points, sign_negative : |I| was recorded when at least `sign_points` points at negative voltage are above the
        noise and at most this part of them is negative.
    sign_signal : a point is above the noise when |I| exceeds this part of the largest |I| of its source.
    set_jump, set_jump_ratio : a set event is the first step of ln(I/V) above both ln(set_jump) and this multiple of the
        median of the steps before it.
    event_floor : currents under this multiple of the noise floor are not searched for events.
    set_history : number of steps before that are looked at, of which three must exist.
    reset_drop : a reset event is where |I| has fallen by this part below its largest value so far.
    spike_local, spike_mean : a spike departs from the mean of its neighbours by more than both of these parts, of the
        larger neighbour and of the mean |I| of the branch (the latter is the criterion of Joksas et al. 2022,
        doi 10.1002/advs.202105784: second derivative by the index over the mean current above 0.1) ...
    spike_isolation : ... and by more than this multiple of half the difference between its neighbours, which a
        switching event or a compliance knee, being monotonic, never does ...
    spike_floor : ... and by more than this multiple of the noise floor.
    offset_window, offset_points : the intercept is fitted to |V| under this part of the largest, at least these points.
    offset_sigma : an offset is significant beyond this many standard errors ...
    offset_relative : ... and when it exceeds this part of the median |I| at the upper end of the window ...
    offset_spread : ... and the spread over the sweeps (robust standard deviation) stays under this part of it ...
    offset_agreement : ... and current at 0 V and intercept differ by less than this part of it.
    offset_per_sweep : one offset per sweep is used when the spread over sweeps is beyond this multiple of the standard
        error of one of them.
    floor_quantile : quantile over the sweeps of |I| at 0 V that stands for noise (of the sweeps in the high-resistance
        state where there are any: in a conducting state conductance times the source's voltage error is added).
    floor_sigma : the noise floor in standard deviations.
    clip_points : |I| that repeats the largest value of its branch exactly at so many neighbouring points or more, over
        `plateau_extent` of the largest |V|, is clipped at the end of a range (a current in compliance fluctuates).
    no_flags : flags whose rules are switched off; without sign_restored and offset the current is taken as recorded,
        without compliance no plateau is looked for, without switching no event.
    """

    turn_noise: float = 6.0
    turn_points: int = 20
    turn_irregular: float = 0.05
    turn_measured: float = 0.02
    turn_largest: float = 0.05
    zero_range: float = 1e-6
    near_zero: float = 0.005
    open_ratio: float = 1.5
    open_agreement: float = 0.7
    open_window: tuple[float, float] = (0.02, 0.8)
    open_points: int = 16
    attempt_reach: float = 0.7
    open_minority: float = 0.2
    plateau_tolerance: float = 2e-3
    plateau_outlier: float = 0.02
    plateau_points: int = 3
    plateau_extent: float = 0.05
    plateau_share: float = 0.2
    sign_points: int = 5
    sign_negative: float = 0.01
    sign_signal: float = 1e-3
    set_jump: float = 2.0
    set_jump_ratio: float = 2.5
    event_floor: float = 10.0
    set_history: int = 5
    reset_drop: float = 0.05
    spike_local: float = 0.3
    spike_mean: float = 0.1
    spike_isolation: float = 3.0
    spike_floor: float = 10.0
    offset_window: float = 0.3
    offset_points: int = 6
    offset_sigma: float = 5.0
    offset_relative: float = 0.05
    offset_spread: float = 0.5
    offset_agreement: float = 0.5
    offset_per_sweep: float = 4.0
    floor_quantile: float = 0.5
    floor_sigma: float = 2.0
    clip_points: int = 3
    no_flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.no_flags if name not in FLAGS]
        if unknown:
            raise OptionError(f"--no-flag {unknown[0]}: there is no such flag; known are {', '.join(FLAGS)}")

    def uses(self, flag: str) -> bool:
        """Say whether the rule of a flag is in use."""
        return flag not in self.no_flags

    @property
    def open_log(self) -> float:
        """Return ln(open_ratio)."""
        return float(np.log(self.open_ratio))
