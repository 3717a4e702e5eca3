"""Whether the line of the parameters against ln R changes at some resistance, found from the curves themselves.

In the two-regime law t = a_1 + b_1 ln R below the break x_0 and t = a_2 + b_2 ln R above it, each with its own
covariance; Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784, split their curves at the resistance
quantum. Here the break is the one of the largest likelihood. Two regimes are taken when each holds enough curves, the
Bayesian information criterion (G. Schwarz, Ann. Stat. 6, 461 (1978), doi 10.1214/aos/1176344136) falls by more than 10
(R. E. Kass, A. E. Raftery, J. Am. Stat. Assoc. 90, 773 (1995), doi 10.1080/01621459.1995.10476572), and a line without
a break gives so large a likelihood ratio, at whichever break it is largest, in less than 1 % of populations made from
its residuals (bootstrap).
"""

from dataclasses import dataclass, replace

import numpy as np

from calib.fitting import population
from calib.fitting.curves import CurveFits
from calib.fitting.mixed_model import MixedFit, fit_mixed
from calib.fitting.parameter_line import ShapeFit
from calib.iv_models import IVModel

MINIMUM_CURVES = 20
MINIMUM_DEVICES = 4
"""Curves, and devices where several were measured, that each regime must hold."""
BIC_DROP = 10.0
SIGNIFICANCE = 0.01
CANDIDATES = 60
REPLICATES = 199
MAXIMUM_TESTED = 2000
"""Curves up to which all are searched; more are thinned evenly in ln R, for the search only."""
SEED = 19450


@dataclass(frozen=True)
class Regimes:
    """Two lines of one state, below and above a break in ln R.

    Attributes
    ----------
    state : the state that is split.
    ln_r_break : where the line changes.
    bic_drop : by how much the information criterion falls with two regimes.
    p_value : fraction of populations made from the residuals of one line whose likelihood ratio is as large.
    lines : below and above.
    """

    state: str
    ln_r_break: float
    bic_drop: float
    p_value: float
    lines: tuple[population.Line, population.Line]


def find(
    law: IVModel, fits: CurveFits, reference_voltage: float, line: population.Line, warnings: list[str]
) -> Regimes | None:
    """Return the two regimes of a state where its curves clearly ask for them, else None."""
    if not law.shape or line.fitted is None or len(fits.curves) < 2 * MINIMUM_CURVES:
        return None
    used = population.usable(law, fits)
    shape = [law.parameter_names.index(name) for name in law.shape]
    part = population.responses(law, fits, used, reference_voltage, line.transforms).calibrated(shape)
    step = -(-len(part.x) // MAXIMUM_TESTED)
    some = np.sort(np.argsort(part.x)[::step])
    t, x, error, device = (
        part.t[some],
        part.x[some],
        part.error_about(line.fitted.slope)[some],
        fits.curves.device[used][some],
    )
    mixed = line.fitted.mixed
    breaks = _candidates(x, device)
    if not len(breaks):
        return None
    statistic, ratio = _largest_ratio(t[None], x, error, mixed, breaks)
    at = float(breaks[int(np.argmax(ratio[0]))])
    drop = _bic_drop(t, x, error, device, at)
    if drop <= BIC_DROP:
        return None
    simulated = _simulated(t, x, device, line.fitted, line.centre, np.random.default_rng(SEED))
    null, _ = _largest_ratio(simulated, x, error, mixed, breaks)
    p_value = float((1 + (null >= statistic[0]).sum()) / (len(null) + 1))
    if p_value >= SIGNIFICANCE:
        return None
    lines = [_side(law, fits, used, side, reference_voltage, line) for side in (part.x < at, part.x >= at)]
    warnings.append(
        f"state '{fits.curves.state}': the parameters do not lie on one line against ln R: it changes at "
        f"R = {np.exp(at):.3g} Ohm (BIC lower by {drop:.0f}, p {'<' if p_value <= 1 / (len(null) + 1) else '='} "
        f"{max(p_value, 1 / len(null)):.2g}); both lines are stored as regimes"
    )
    return Regimes(fits.curves.state, at, drop, p_value, (lines[0], lines[1]))


def _side(
    law: IVModel, fits: CurveFits, used: np.ndarray, side: np.ndarray, v_ref: float, line: population.Line
) -> population.Line:
    """Return the line of the curves on one side of the break."""
    here = used.copy()
    here[np.flatnonzero(used)[~side]] = False
    found = population.fit_used(law, fits, here, v_ref, line.transforms)
    return replace(found, n_at_bound=0)


def _candidates(x: np.ndarray, device: np.ndarray) -> np.ndarray:
    """Return the breaks, midway between neighbouring ln R, that leave enough curves and devices on both sides."""
    order = np.argsort(x)
    ends = np.unique(np.round(np.linspace(MINIMUM_CURVES, len(x) - MINIMUM_CURVES, CANDIDATES)).astype(int))
    ends = ends[(ends >= MINIMUM_CURVES) & (ends <= len(x) - MINIMUM_CURVES)]
    needed = MINIMUM_DEVICES if len(np.unique(device)) > 1 else 1
    ends = [k for k in ends if min(len(np.unique(device[order[:k]])), len(np.unique(device[order[k:]]))) >= needed]
    breaks = [(x[order[k - 1]] + x[order[k]]) / 2 for k in ends if x[order[k]] > x[order[k - 1]]]
    return np.array(breaks)


def _largest_ratio(
    t: np.ndarray, x: np.ndarray, error: np.ndarray, mixed: MixedFit, breaks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return per population the largest likelihood ratio of a break, and that of each break, (population, break).

    The curves' covariances are those of the single line, as if each were another device's: the simulated populations,
    in which devices repeat, say how large the ratio becomes by chance.
    """
    n, d = t.shape[1:]
    order = np.argsort(x)
    w = np.linalg.inv(mixed.total + error + 1e-12 * np.diag(np.diag(mixed.total) + 1e-300))[order]
    z = np.stack([np.ones(n), x[order] - x.mean()], axis=1)
    starts = np.concatenate([[0], np.searchsorted(x[order], breaks)])
    info = np.einsum("cij,ca,cb->ciajb", w, z, z).reshape(n, 2 * d, 2 * d)
    info = np.cumsum(np.add.reduceat(info, starts, axis=0), axis=0)
    weighted = np.einsum("cij,rcj->rci", w, t[:, order])
    right = [np.cumsum(np.add.reduceat(weighted * column[:, None], starts, axis=1), axis=1) for column in z.T]
    right = np.stack(right, axis=-1).reshape(len(t), len(starts), 2 * d)
    ratio = (
        _gain(info[:-1], right[:, :-1])
        + _gain(info[-1] - info[:-1], right[:, -1:] - right[:, :-1])
        - _gain(info[-1:], right[:, -1:])
    )
    return ratio.max(1), ratio


def _gain(information: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return by how much a line raises twice the log likelihood, (population, break)."""
    size = np.sqrt(np.maximum(np.einsum("kii->ki", information), 1e-300))
    scaled = information / (size[:, :, None] * size[:, None, :]) + 1e-12 * np.eye(information.shape[1])
    b = right / size
    return np.einsum("rki,kij,rkj->rk", b, np.linalg.inv(scaled), b)


def _bic_drop(t: np.ndarray, x: np.ndarray, error: np.ndarray, device: np.ndarray, at: float) -> float:
    """Return by how much BIC falls when both lines and covariances may differ below and above the break."""

    def likelihood(rows: np.ndarray) -> tuple[float, int]:
        z = np.stack([np.ones(rows.sum()), x[rows] - x[rows].mean()], axis=1)
        found = fit_mixed(t[rows], z, error[rows], device[rows], restricted=False)
        d = t.shape[1]
        return found.log_likelihood, 2 * d + d * (d + 1) // 2 * (1 + found.separated)

    below = x < at
    one, count = likelihood(np.ones(len(x), dtype=bool))
    two = [likelihood(side) for side in (below, ~below)]
    extra = two[0][1] + two[1][1] + 1 - count
    return 2 * (two[0][0] + two[1][0] - one) - extra * float(np.log(len(x)))


def _simulated(
    t: np.ndarray, x: np.ndarray, device: np.ndarray, line: ShapeFit, centre: float, generator: np.random.Generator
) -> np.ndarray:
    """Return populations without a break, (replicate, curve, parameter): the residuals with random signs.

    A device keeps its sign over its cycles. The residuals' own sizes stay where they are, so that a spread that changes
    with ln R does not pass for a line that does (C. F. J. Wu, Ann. Stat. 14, 1261 (1986), doi 10.1214/aos/1176350142).
    """
    residual = t - line.value - (x - centre)[:, None] * line.slope
    labels, index = np.unique(device, return_inverse=True)
    index = index if len(labels) > 1 else np.arange(len(x))
    signs = generator.choice([-1.0, 1.0], size=(REPLICATES, index.max() + 1))
    return signs[:, index, None] * residual
