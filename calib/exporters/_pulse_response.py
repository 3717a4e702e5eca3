"""The typical response to identical pulses, and what simulators of training make of it.

A train of N pulses goes along G = start + (end - start) f(n / N), f being one of `calib.pulse_laws`.
"""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from calib.pulse_laws import LAWS, NEUROSIM_LABEL, POLARITIES
from calib.simulation_draws import coordinate

_GRID = np.linspace(0, 1, 4001)


@dataclass(frozen=True)
class Direction:
    """The typical train of one direction; conductances in the node's unit.

    Attributes
    ----------
    law, u : law of the pulse response and its search coordinate.
    pulses : N, pulses between the first and the last reading.
    start, end : conductances there.
    write_noise, transient_noise : standard deviations of what a step adds for good, and of a reading.
    memory : steps after which noise that was written has faded to 1/e; infinite where it stays.
    growth : power of the step with which the noise grows.
    step_spread : standard deviation between trains of the step at mid-range, as a share of it.
    label, label_spread : NeuroSim's nonlinearity label, positive where the first pulses change most.
    """

    law: str
    u: float
    pulses: float
    start: float
    end: float
    write_noise: float
    transient_noise: float
    memory: float
    growth: float
    step_spread: float
    label: float
    label_spread: float

    def share(self, x: np.ndarray) -> np.ndarray:
        """Return f, the share of the change after the share x of the pulses."""
        return LAWS[self.law].f(np.asarray(x, dtype=float), np.full(np.shape(x), self.u))

    def at(self, n: np.ndarray) -> np.ndarray:
        """Return the conductance after n pulses."""
        return self.start + (self.end - self.start) * self.share(np.asarray(n) / self.pulses)

    def step(self, share: np.ndarray) -> np.ndarray:
        """Return the size of the next pulse's change, where `share` of the change is done, as a share of the change."""
        curve = self.share(_GRID)
        x = np.interp(share, curve, _GRID)
        h = 1 / self.pulses
        begin = np.minimum(x, 1 - h)
        return self.share(begin + h) - self.share(begin)

    def rms_step(self) -> float:
        """Return the root mean square of the train's steps, as a share of the change."""
        steps = np.diff(self.share(np.linspace(0, 1, max(round(self.pulses), 1) + 1)))
        return float(np.sqrt(np.mean(steps**2)))


def directions(tree: xr.DataTree) -> dict[str, Direction]:
    """Return the typical trains of a device model by direction; none where no law of identical pulses was fitted."""
    if "pulse" not in tree.children:
        return {}
    node = tree["pulse"].to_dataset()
    if "law_chosen" not in node:
        return {}
    found = {}
    for polarity in POLARITIES:
        if polarity in node["polarity"].values:
            direction = _direction(node, node.sel(polarity=polarity), polarity)
            if direction is not None:
                found[polarity] = direction
    return found


def _direction(node: xr.Dataset, here: xr.Dataset, polarity: str) -> Direction | None:
    law = str(here["law_chosen"].values)
    pulses = typical_pulses(node, polarity)
    start, end, shape = (float(here[name]) for name in ("g_start", "g_end", "shape"))
    if law not in LAWS or not (np.isfinite([start, end, pulses]).all() and pulses >= 1 and start != end):
        return None
    if law != "linear" and not math.isfinite(shape):
        return None

    def number(name: str) -> float:
        value = float(here[name]) if name in here else math.nan
        return value if math.isfinite(value) else 0.0

    mid = abs(number("step_mid"))
    label = _label(law, float(coordinate(law, shape)), number("neurosim_label"))
    return Direction(
        law=law, u=float(coordinate(law, shape)), pulses=pulses, start=start, end=end,
        write_noise=number("write_noise"), transient_noise=number("transient_noise"),
        memory=_memory(here), growth=number("noise_growth"),
        step_spread=spread(here, "step_mid") / mid if mid > 0 else 0.0,
        label=label, label_spread=spread(here, "neurosim_label"),
    )  # fmt: skip


def _memory(here: xr.Dataset) -> float:
    """Return the median memory where the noise of most trains fades."""
    memory, fading, of = (
        float(here[key]) if key in here else math.nan for key in ("memory", "n_fading", "n_sequences")
    )
    return memory if memory > 0 and 2 * fading > of else math.inf


def _label(law: str, u: float, fitted: float) -> float:
    """Return NeuroSim's label: that of the law where it is NeuroSim's own, else that of the soft-bounds fits."""
    if law != "soft-bounds":
        return fitted
    difference = LAWS[law].f(_GRID, np.full(_GRID.shape, u)) - _GRID
    return float(difference[np.abs(difference).argmax()] / NEUROSIM_LABEL)


def typical_pulses(node: xr.Dataset, polarity: str) -> float:
    """Return the median number of pulses of a direction's trains."""
    if "sequence_pulses" not in node:
        return math.nan
    rows = node["sequence_polarity"].values.astype(str) == polarity
    return float(np.median(node["sequence_pulses"].values[rows])) if rows.any() else math.nan


def spread(node: xr.Dataset, name: str) -> float:
    """Return the standard deviation between devices of a number, or between trains where that is not separated."""
    for key in (f"{name}_d2d", f"{name}_spread"):
        value = float(node[key]) if key in node else math.nan
        if math.isfinite(value):
            return value
    return 0.0


def normalised_a(label: float) -> float:
    """Return NeuroSim's normalised A of a nonlinearity label; infinite at label 0.

    G(n) = B (1 - exp(-n / A)) + G_min with A = N A_normalised deviates from the straight line by 0.099 |label| of its
    change at most. With k = 1 / A_normalised and s = k / (1 - exp(-k)) the deviation
    (1 - exp(-k x)) / (1 - exp(-k)) - x is largest where exp(-k x) = 1 / s, so that k is the root of

        (1 - 1 / s) / (1 - exp(-k)) - ln(s) / k = 0.099 |label|.

    The sign is the label's: a negative label is a curve that is steepest at its end, which NeuroSim runs backwards for
    depression (P.-Y. Chen, X. Peng, S. Yu, IEEE TCAD 37, 3067 (2018), doi 10.1109/TCAD.2018.2789723).
    """
    target = NEUROSIM_LABEL * abs(label)
    if target < 1e-9:
        return math.inf
    if target >= _largest_deviation(700.0):
        raise ValueError(f"a nonlinearity label of {label:g} is beyond what the law can have")
    low, high = 1e-9, 700.0
    for _ in range(100):  # the deviation grows with k
        k = 0.5 * (low + high)
        low, high = (k, high) if _largest_deviation(k) < target else (low, k)
    return math.copysign(2 / (low + high), label)


def _largest_deviation(k: float) -> float:
    if k < 1e-4:
        return k / 8
    s = k / -math.expm1(-k)
    return (1 - 1 / s) / -math.expm1(-k) - math.log(s) / k
