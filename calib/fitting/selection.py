"""The conduction law of a population, and the window in which it holds.

All laws are fitted to the same curves, points and weights (`calib.fitting.law_comparison`). Two tables come out and
both are stored in the node ``selection``: the statistical comparison (AICc, error at voltages and curves that were left
out, structure of the residuals), and the practical differences, by how much each law's currents differ from those of
the best law. `STATEMENT` says what is taken, `WINDOW` over which voltages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from calib import iv_models
from calib.errors import FitError
from calib.fitting import curves as c
from calib.fitting import law_comparison as lc
from calib.fitting.doubts import say_choice
from calib.fitting.population import MINIMUM_CURVES
from calib.fitting.selection_node import selection_node
from calib.iv_models import IVModel, iv_model

SIMPLER_LAW_THRESHOLD = 0.03
"""A simpler law is taken when its currents differ from the best law's by less than this, or than the noise."""
READ_VOLTAGE = 0.5
"""[V] Devices are usually read at up to this voltage; a window should include it where the data do."""
LONGER = 2.0
"""Another parameter is paid with a window that is this many times longer."""
WORSE = 1.1
FITTED_FRACTION = 0.8
MISSED = 1.5 * c.MISFIT_THRESHOLD
"""Misfit of the law that was taken from which on laws with a series resistance are compared too."""
HOPELESS, HOPELESS_FRACTION = 3, 0.5
BOUND_FRACTION = 0.5
ILL_CONDITIONED = 1e10
EMPIRICAL = ("polynomial", "power-law")
"""Laws without a mechanism behind their parameters."""
SEARCHED, JUDGED, COMPARED = 60, 200, 400
"""Curves used at most: to search windows, to predict what was left out, and to compare likelihoods and residuals."""
STATEMENT = (
    "the law with the lowest AICc, summed over the curves that every eligible law fits, is called the best; taken is "
    "the law with the fewest parameters (a physical law before an empirical one, then the lower AICc) whose currents "
    f"differ from those of the best law by less than the larger of the noise and {SIMPLER_LAW_THRESHOLD:.0%} in every "
    "state "
    f"(root mean square over the voltages from {lc.LOWEST_VOLTAGE:.0%} of the window's end, median over curves)"
)
METHOD = (
    f"AICc and residuals on at most {COMPARED} curves a state, errors at what was left out on at most {JUDGED}, "
    f"windows searched on at most {SEARCHED}, spread evenly over the devices, and only of laws that could lengthen them"
)
WINDOW = (
    "the window is the longest in which a law's systematic misfit stays under "
    f"{c.MISFIT_THRESHOLD:.0%}, of the laws with the fewest parameters that reach {READ_VOLTAGE:g} V, the reference "
    f"voltage, or the end of the data; more parameters are taken only where none reaches it or the window becomes "
    f"{LONGER:g} times as long; it is shortened, by at most half and not below those voltages, where a law of fewer "
    "parameters, or a physical instead of an empirical one, then suffices; laws with a series resistance are compared "
    "only where no plain law describes the curves up to those voltages"
)


@dataclass(frozen=True)
class Selection:
    """The law taken, the end of each state's window [V], and the node that says why (None where the law was given)."""

    law: IVModel
    v_max: dict[str, float]
    node: xr.Dataset | None


@dataclass
class Comparison:
    """All laws in given windows; tables are (law, state), NaN where a law could not be compared."""

    laws: list[IVModel]
    states: list[str]
    windows: dict[str, float]
    points: dict[str, lc.Points]
    fits: dict[tuple[str, str], lc.LawFits]
    aicc: np.ndarray
    difference: np.ndarray
    noise: np.ndarray
    reasons: list[str]
    best: int
    chosen: int
    n_compared: list[int] = field(default_factory=list)
    held_out: dict[tuple[str, str], dict[str, np.ndarray]] = field(default_factory=dict)
    held_out_device: dict[str, np.ndarray] = field(default_factory=dict)
    differences: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    @property
    def eligible(self) -> np.ndarray:
        """(law,) whether nothing speaks against the law."""
        return np.array([not reason for reason in self.reasons])

    @property
    def empirical(self) -> np.ndarray:
        """(law,) whether a law only describes curves."""
        return np.array([is_empirical(law) for law in self.laws])

    @property
    def limit(self) -> np.ndarray:
        """(state,) the practical threshold."""
        return np.maximum(self.noise, SIMPLER_LAW_THRESHOLD)


def is_empirical(law: IVModel) -> bool:
    """Say whether a law only describes curves, without a mechanism behind its parameters."""
    return law.name.partition("+")[0] in EMPIRICAL


def choose(
    selected: dict[str, c.Curves],
    *,
    iv_model_name: str = "auto",
    v_max: float | None = None,
    reference_voltage: float = 0.1,
    warnings: list[str],
    laws: Sequence[IVModel] | None = None,
    generator: np.random.Generator | None = None,
) -> Selection:
    """Choose the law of a population's states, and per state the window in which it is fitted.

    Parameters
    ----------
    selected : the curves of each state, folded to positive voltage.
    iv_model_name : 'auto', or the law that is wanted, for which only the window is found.
    v_max : [V] fixes the window's end.
    reference_voltage : [V] of R; its sign is the branch's.
    warnings : sentences are appended.
    laws : to compare; by default all plain laws, and where none suffices those with a series resistance.
    generator : for the intervals; by default one with seed 0.

    Raises
    ------
    FitError
        When no curve has enough points.
    """
    if iv_model_name != "auto":
        law = iv_model(iv_model_name)
        return Selection(law, {s: _window(law, part, v_max, warnings) for s, part in selected.items()}, None)
    generator = np.random.default_rng(0) if generator is None else generator
    candidates = sorted(laws or map(iv_model, iv_models.names()), key=lambda law: (len(law.parameters), law.name))
    search = _Search(selected, candidates, v_max, reference_voltage)
    found = search.run()
    n_curves = max(len(part) for part in selected.values())
    if laws is None and n_curves >= MINIMUM_CURVES and _falls_short(found, search):
        more = [iv_model(name) for name in iv_models.all_names() if "+" in name]
        candidates = sorted([*candidates, *more], key=lambda law: (len(law.parameters), law.name))
        search = _Search(selected, candidates, v_max, reference_voltage)
        found = search.run()
    if any(len(part) > JUDGED for part in selected.values()):
        found = search.compare(found.windows, {s: c.thinned(part, COMPARED) for s, part in selected.items()})
    node = selection_node(found, search.reach, reference_voltage, generator)
    node.attrs |= {"method": METHOD, "statement": STATEMENT, "window": WINDOW if v_max is None else "as asked for"}
    say_choice(node, warnings)
    return Selection(found.laws[found.chosen], found.windows, node)


class _Search:
    """The way from curves to a law and its windows."""

    def __init__(
        self, selected: dict[str, c.Curves], laws: list[IVModel], v_max: float | None, reference_voltage: float
    ) -> None:
        self.laws, self.v_max, self.reference_voltage = laws, v_max, reference_voltage
        self.states = list(selected)
        self.few = {s: c.thinned(part, SEARCHED) for s, part in selected.items()}
        self.judged = {s: c.thinned(part, JUDGED) for s, part in selected.items()}
        self.noise = {s: c.noise_of(part, np.inf) for s, part in self.judged.items()}
        self.ends = {s: self._ends(laws[0], part) for s, part in self.few.items()}
        data = {s: float(ends[-1]) for s, ends in self.ends.items()}
        self.needed = {s: min(max(READ_VOLTAGE, abs(reference_voltage)), data[s]) for s in self.states}
        self.reach = np.full((len(laws), len(self.states)), np.nan)
        asymmetric = "its two polarities differ, and the negative branch is fitted"
        self.unfit = {law.name: asymmetric for law in laws if not law.odd and reference_voltage < 0}
        self._searched: set[int] = set()
        self._fitted_by_simplest: dict[tuple[str, float], np.ndarray] = {}

    def run(self) -> Comparison:
        """Return the comparison in the windows that are taken, on at most `JUDGED` curves."""
        if self.v_max is not None:
            return self.compare(dict.fromkeys(self.states, self.v_max), self.judged)
        carrier = self._carrier()
        windows = {s: self._or_shortest(self.reach[carrier, k], s) for k, s in enumerate(self.states)}
        found = self._lengthened(self.compare(windows, self.judged), carrier)
        return self._shortened(found)

    def compare(self, windows: dict[str, float], parts: dict[str, c.Curves]) -> Comparison:
        """Fit all laws in these windows and choose among them."""
        points = {s: lc.points_of(parts[s], windows[s], self.noise[s]) for s in self.states}
        tried = [law for law in self.laws if law.name not in self.unfit]
        fits = {(law.name, s): lc.fit_law(law, points[s]) for law in tried for s in self.states}
        fits |= {(law, s): lc.no_fit(iv_model(law), points[s]) for law in self.unfit for s in self.states}
        result = Comparison(
            laws=self.laws, states=self.states, windows=windows, points=points, fits=fits,
            aicc=np.full((len(self.laws), len(self.states)), np.nan),
            difference=np.full((len(self.laws), len(self.states)), np.nan),
            noise=np.array([self._noise(s, points[s], fits) for s in self.states]),
            reasons=[self.unfit.get(law.name, "") for law in self.laws],
            best=0, chosen=0,
        )  # fmt: skip
        _judge(result, self.judged, self.reference_voltage)
        return result

    def _noise(self, state: str, points: lc.Points, fits: dict[tuple[str, str], lc.LawFits]) -> float:
        """Return the noise over the range; where it cannot be told without a law, that about the closest law."""
        if np.isfinite(self.noise[state]):
            return lc.noise_over_the_range(points)
        about = [fits[law.name, state].residual for law in self.laws if fits[law.name, state].ok.any()]
        about = [1.4826 * float(np.nanmedian(np.abs(r))) for r in about if np.isfinite(r).any()]
        return min(about) if about else 0.0

    def _reach(self, law: IVModel, state: str) -> float:
        """Return the end of the longest window that the law supports and in which most curves can be fitted.

        A law that fits fewer than half the curves in each of the first windows is not tried in longer ones.
        """
        few, fitted = self.few[state], {}
        if law.name in self.unfit:
            return np.nan
        try:
            ends = self._ends(law, few)
        except FitError as error:
            self.unfit[law.name] = str(error)
            return np.nan

        def serves(end: float) -> bool:
            points = lc.points_of(few, end, self.noise[state])
            fits = lc.fit_law(law, points, careful=not law.series)  # many windows; with a resistance a fit is slow
            fitted[end] = fits.ok & self._simplest(state, end)
            if len(fitted) >= HOPELESS and max(ok.mean() for ok in fitted.values()) < HOPELESS_FRACTION:
                return False
            return lc.misfit(fits, points) <= c.MISFIT_THRESHOLD

        end = c.last_that_serves(ends, serves)
        for shorter in sorted((v for v in fitted if end is not None and v <= end), reverse=True):
            if fitted[shorter].sum() >= max(1, FITTED_FRACTION * int(self._simplest(state, shorter).sum())):
                return shorter
        if end is not None:
            most = max((v for v in fitted if v <= end), key=lambda v: fitted[v].mean())
            n = int(self._simplest(state, most).sum())
            self.unfit[law.name] = (
                f"state '{state}': fits at most {int(fitted[most].sum())} of {n} curves that {self.laws[0].name} fits"
            )
        return np.nan

    def _ends(self, law: IVModel, few: c.Curves) -> np.ndarray:
        """Return the ends of windows in which half the curves have enough points clear of the floor, or else all."""
        ends = c.window_ends(law, few)
        needed = len(law.parameters) + few.has_offset + 1
        enough = [np.median(lc.points_of(few, float(end), np.nan).clear.sum(1)) >= needed for end in ends]
        return ends[enough] if any(enough) else ends

    def _simplest(self, state: str, end: float) -> np.ndarray:
        """Return which of the few curves the simplest law fits up to `end`."""
        if (state, end) not in self._fitted_by_simplest:
            fits = lc.fit_law(self.laws[0], lc.points_of(self.few[state], end, self.noise[state]))
            self._fitted_by_simplest[state, end] = fits.ok
        return self._fitted_by_simplest[state, end]

    def _carrier(self) -> int:
        """Return which law's reach the windows have, see `WINDOW`; laws that cannot change that are not searched."""
        needed = np.array([self.needed[s] for s in self.states])
        best, best_length = None, 0.0
        data = np.exp(np.mean([np.log(self.ends[s][-1]) for s in self.states]))
        for count in sorted({len(law.parameters) for law in self.laws}):
            if best is not None and data < LONGER * best_length:
                return best
            these = [k for k, law in enumerate(self.laws) if len(law.parameters) == count]
            for k in these:
                self._search(k)
            covering = [k for k in these if np.all(np.nan_to_num(self.reach[k]) >= 0.98 * needed)]
            length = {k: float(np.exp(np.log(self.reach[k]).mean())) for k in covering}
            longest = max(covering, key=lambda k: length[k], default=None)
            if longest is not None and (best is None or length[longest] >= LONGER * best_length):
                best, best_length = longest, length[longest]
        if best is not None:
            return best
        reach = np.nan_to_num(self.reach)
        served = (np.minimum(reach / needed, 1.0).min(1) * 20).round()
        order = range(len(self.laws))
        return max(order, key=lambda k: (served[k], -len(self.laws[k].parameters), reach[k].sum()))

    def _search(self, k: int) -> None:
        """Fill in how far a law reaches in every state, once."""
        if k not in self._searched:
            self._searched.add(k)
            self.reach[k] = [self._reach(self.laws[k], s) for s in self.states]

    def _or_shortest(self, reach: float, state: str) -> float:
        return float(reach) if np.isfinite(reach) else float(self.ends[state][0])

    def _lengthened(self, found: Comparison, carrier: int) -> Comparison:
        """Return the comparison in longer windows where the law that was taken supports them."""
        if len(found.laws[found.chosen].parameters) <= len(self.laws[carrier].parameters):
            return found
        self._search(found.chosen)
        reach = self.reach[found.chosen]
        longer = {s: float(np.nanmax([found.windows[s], reach[k]])) for k, s in enumerate(self.states)}
        if longer == found.windows:
            return found
        again = self.compare(longer, self.judged)
        return again if _rank(again) <= _rank(found) else found

    def _shortened(self, found: Comparison) -> Comparison:
        """Return the comparison in shorter windows where those save a parameter, or an empirical law."""
        if _rank(found) <= (2, False):
            return found
        shortest = {s: max(self.needed[s], found.windows[s] / 2) for s in self.states}
        for part in (0.5, 0.0):
            windows = {s: self._measured(s, (1 - part) * shortest[s] + part * found.windows[s]) for s in self.states}
            if all(windows[s] >= found.windows[s] for s in self.states):
                continue
            again = self.compare(windows, self.judged)
            if _rank(again) < _rank(found):
                return again
        return found

    def _measured(self, state: str, voltage: float) -> float:
        """Return the first window end at or above a voltage."""
        ends = self.ends[state]
        return float(ends[min(np.searchsorted(ends, voltage * (1 - 1e-6)), len(ends) - 1)])


def _falls_short(found: Comparison, search: _Search) -> bool:
    """Say whether the law that was taken misses the curves, or ends before the voltages at which devices are read."""
    law = found.laws[found.chosen].name
    missed = any(lc.misfit(found.fits[law, s], found.points[s]) > MISSED for s in found.states)
    return missed or any(found.windows[s] < 0.98 * search.needed[s] for s in found.states)


def _rank(found: Comparison) -> tuple[int, bool]:
    law = found.laws[found.chosen]
    return len(law.parameters), is_empirical(law)


def _judge(found: Comparison, judged: dict[str, c.Curves], reference_voltage: float) -> None:
    """Fill in which laws are eligible, which is best, how far the others are from it, and which is taken."""
    for k, law in enumerate(found.laws):
        found.reasons[k] = found.reasons[k] or _not_eligible(found, law)
    for s in found.states:
        points = lc.points_of(judged[s], found.windows[s], found.points[s].noise)
        found.held_out_device[s] = points.curves.device
        same = len(points) == len(found.points[s])
        for law in found.laws:
            if found.reasons[found.laws.index(law)]:
                nothing = np.full(len(points), np.nan)
                found.held_out[law.name, s] = dict.fromkeys(("between", "beyond", "curves"), nothing)
                continue
            fits = found.fits[law.name, s] if same else lc.fit_law(law, points)
            between, beyond = lc.held_out_voltages(law, points)
            curves = lc.held_out_curves(fits, points, abs(reference_voltage))
            found.held_out[law.name, s] = {"between": between, "beyond": beyond, "curves": curves}
    for k in range(1, len(found.laws)):
        found.reasons[k] = found.reasons[k] or _predicts_worse(found, k)
    allowed = np.flatnonzero(found.eligible)
    if not len(allowed):  # the simplest law stands, whatever it is worth
        allowed = np.array([0])
    for j, s in enumerate(found.states):
        common = np.all([found.fits[found.laws[k].name, s].ok for k in allowed], axis=0)
        found.n_compared.append(int(common.sum()))
        for k, law in enumerate(found.laws):
            found.aicc[k, j] = found.fits[law.name, s].aicc[common].sum() if common.any() else np.nan
    total = np.nansum(found.aicc, axis=1)
    found.best = int(min(allowed, key=lambda k: total[k]))
    for k, law in enumerate(found.laws):
        for j, s in enumerate(found.states):
            each = lc.difference(found.fits[law.name, s], found.fits[found.laws[found.best].name, s], found.points[s])
            found.differences[law.name, s] = each
            found.difference[k, j] = np.median(each[np.isfinite(each)]) if np.isfinite(each).any() else np.nan
    order = sorted(allowed, key=lambda k: (len(found.laws[k].parameters), is_empirical(found.laws[k]), total[k]))
    near = [k for k in order if not (found.difference[k] > found.limit).any()]
    found.chosen = int(near[0]) if near else found.best


def _not_eligible(found: Comparison, law: IVModel) -> str:
    """Say why a law cannot be taken; '' where nothing speaks against it."""
    for s in found.states:
        simplest, fits = found.fits[found.laws[0].name, s], found.fits[law.name, s]
        possible = int(simplest.ok.sum())
        n = int((fits.ok & simplest.ok).sum())
        if n < FITTED_FRACTION * possible:
            failed = [str(text) for text in fits.fit.status[simplest.ok & ~fits.ok]]
            return f"state '{s}': fits {n} of the {possible} curves that {found.laws[0].name} fits ({failed[0]})"
        if not n:
            return f"state '{s}': no curve could be fitted"
        at_bound = np.asarray(getattr(fits.fit, "at_bound", np.zeros((len(fits.ok), len(law.parameters)), dtype=bool)))
        for k, parameter in enumerate(law.parameters):
            count = int(at_bound[fits.ok, k].sum())
            if count > BOUND_FRACTION * n:
                return f"state '{s}': {parameter.name} is at its bound on {count} of {n} curves"
        count = int((fits.fit.condition[fits.ok] > ILL_CONDITIONED).sum())
        if count > BOUND_FRACTION * n:
            return f"state '{s}': its parameters cannot be told apart on {count} of {n} curves"
    return ""


def _predicts_worse(found: Comparison, k: int) -> str:
    """Say that a law of fewer parameters predicts better what was left out."""
    law = found.laws[k]
    simpler = [o for j, o in enumerate(found.laws) if not found.reasons[j] and len(o.parameters) < len(law.parameters)]
    for s in found.states:
        for kind, words in (("between", "voltages"), ("curves", "curves")):
            own = found.held_out[law.name, s][kind]
            for other in simpler:
                theirs = found.held_out[other.name, s][kind]
                both = np.isfinite(own) & np.isfinite(theirs)
                if both.sum() < max(3, 0.5 * np.isfinite(theirs).sum()):
                    continue
                mine, their = float(np.median(own[both])), float(np.median(theirs[both]))
                if mine > WORSE * their + 1e-4:
                    return (
                        f"state '{s}': predicts {words} that were left out worse than {other.name}, with fewer "
                        f"parameters ({mine:.2g} against {their:.2g})"
                    )
    return ""


def _window(law: IVModel, part: c.Curves, v_max: float | None, warnings: list[str]) -> float:
    """Return the window of a law that was asked for."""
    if v_max is not None:
        return v_max
    end, misfit = c.supported_window(law, part)
    if misfit > c.MISFIT_THRESHOLD:
        warnings.append(
            f"state '{part.state}': {law.name} misses the curves by {misfit:.1%} even in the smallest window (to "
            f"{end:g} V); another law would serve it better"
        )
    return end
