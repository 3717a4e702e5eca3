"""The notes about one population of sweeps: what was found, by which rule and with which numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calib.measurement_contract import FLAGS
from calib.sweeps.labels import Labels
from calib.sweeps.levels import Offset
from calib.sweeps.rules import SweepRules

_WAYS = {1: "counter-clockwise: |I| is larger on the way back", -1: "clockwise: |I| is smaller on the way back"}


def levels_and_loops(
    found: Labels,
    floor: float,
    offset: Offset,
    level: NDArray[np.float64],
    polarity: NDArray[np.int64],
    reads_only: bool,
) -> list[str]:
    """Return the notes about open loops, compliance, offset and noise floor."""
    result = []
    if found.n_open:
        sign = {1: "positive voltage sets", -1: "negative voltage sets", 0: "no polarity alone sets"}[
            found.set_polarity
        ]
        result.append(f"{found.n_open} of {found.n_loops} loops are open; {sign}")
        if found.n_against:
            result.append(
                f"{found.n_against} loops open the other way; their states are those of the nearest conductance"
            )
    elif found.n_loops:
        result.append(f"none of {found.n_loops} loops is open: reads only")
    for sign, name in ((1, "positive"), (-1, "negative")):
        known = level[(polarity == sign) & np.isfinite(level)]
        if len(known):
            kind = "range of the instrument" if reads_only else "compliance"
            result.append(f"{kind} at {name} voltage: {np.median(known):.4g} A")
    if offset.value.any():
        stderr = float(np.nanmedian(offset.stderr))
        kind = " (one for each sweep, their median)" if offset.per_sweep else ""
        result.append(
            f"a constant current of {np.median(offset.value):.4g} A is added, standard error {stderr:.2g} A{kind}"
        )
    if np.isfinite(floor):
        result.append(f"noise floor {floor:.3g} A")
    return result


def hysteresis(
    found: Labels, polarity: NDArray[np.int64], direction: NDArray[np.int64], partners: Sequence[tuple[int, int]]
) -> list[str]:
    """Return in which sense the open loops of each polarity are run through."""
    result = []
    up = np.array([pair[0] for pair in partners], dtype=np.int64)
    for sign, name in ((1, "positive"), (-1, "negative")):
        rows = up[(polarity[up] == sign) & (direction[up] > 0)] if len(up) else up
        sense = np.sign(np.nan_to_num(found.opened[rows]))
        for way, text in _WAYS.items():
            if (count := int((sense == way).sum())) > 0:
                result.append(f"hysteresis at {name} voltage: {count} of {len(rows)} loops are {text}")
    return result


def events(operation: NDArray[np.str_], voltage: NDArray[np.float64]) -> list[str]:
    """Return the number and the voltages of the switching events."""
    result = []
    for kind in ("set", "reset"):
        known = voltage[(operation == kind) & np.isfinite(voltage)]
        if len(known):
            low, high = float(known.min()), float(known.max())
            result.append(
                f"{len(known)} {kind} events, median {np.median(known):.4g} V ({low:.4g} to {high:.4g} V; coordinate "
                "switching_voltage)"
            )
    return result


def flagged(flags: NDArray[np.int32], rules: SweepRules) -> list[str]:
    """Return one note for each flag that was set, with its rule and numbers, and one for those switched off."""
    texts = _rules(rules)
    result = []
    for name, bit in FLAGS.items():
        count = int(((flags & bit) != 0).sum())
        if count:
            result.append(f"flag {name}, {count} points: {texts[name]} (--no-flag {name} switches this off)")
    if rules.no_flags:
        result.append(f"switched off: the flags {', '.join(rules.no_flags)}")
    return result


def _rules(rules: SweepRules) -> dict[str, str]:
    """Return the rule of each flag in words, with its numbers."""
    r = rules
    return {
        "compliance": f"a plateau at the top of the sweep, {r.plateau_points} points or more within "
        f"{r.plateau_tolerance:.2%} over {r.plateau_extent:.0%} of the largest |V|, shown by {r.plateau_share:.0%} of "
        "the branches of its polarity, or the stated compliance is reached",
        "spike": f"a point departs from the mean of its neighbours by more than {r.spike_local:.0%} of the larger one, "
        f"{r.spike_mean:.0%} of the mean |I| of its branch, {r.spike_isolation:g} times half their difference "
        f"and {r.spike_floor:g} times the noise floor",
        "below_floor": f"|I| is under the noise floor, {r.floor_sigma:g} standard deviations of the current at 0 V",
        "duplicate": "voltage and current repeat those of the point before exactly",
        "switching": f"from the switching event on; set: the first step of ln(I/V) above ln({r.set_jump:g}) and "
        f"{r.set_jump_ratio:g} times the median of the {r.set_history} steps before; reset: |I| has fallen by "
        f"{r.reset_drop:.0%} below its largest value",
        "sign_restored": f"|I| was recorded: at most {r.sign_negative:.0%} of the points at negative voltage above "
        f"{r.sign_signal:g} of the largest |I| are negative, of {r.sign_points} points or more",
        "saturated": f"|I| repeats the largest value of its branch exactly at {r.clip_points} points or more over "
        f"{r.plateau_extent:.0%} of the largest |V|, or lies on a plateau although nothing switches",
        "offset": f"the same current, {r.offset_sigma:g} standard errors or more and above {r.offset_relative:.0%} of "
        "the signal, is added to every sweep (the fit subtracts it)",
    }  # fmt: skip
