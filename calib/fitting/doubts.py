"""What the choice of a law leaves out, and what makes the fits of a population doubtful, in words."""

from typing import Any

import numpy as np
import xarray as xr

from calib.fitting import curves as c
from calib.fitting.batch_fit import AT_BOUND, FLAGS
from calib.iv_models import IVModel

RESIDUAL_THRESHOLD = 0.10
"""Relative residual (root mean square of a curve, median over curves) above which the fit is called coarse."""
NOTEWORTHY = 0.05
"""Fraction of a state's curves from which on a doubt about curves is said."""
ENDS_BEFORE = 0.8


def say_doubts(law: IVModel, fits: dict[str, c.CurveFits], reference_voltage: float, warnings: list[str]) -> None:
    """Append what is doubtful about the fits of each state.

    Coarse fits; parameters at a bound; what the fits themselves flag (pairs of parameters that are not identified,
    ill-conditioned covariances, heavy-tailed residuals); and extrapolation, of the reference voltage or of curves that
    end before the window does.
    """
    for state, part in fits.items():
        n = int(part.ok.sum())
        if not n:
            continue
        said = [*_coarse(law, part), *_at_bound(law, part, n), *_flagged(part, n)]
        said += _extrapolated(part, reference_voltage, n)
        warnings.extend(f"state '{state}': {sentence}" for sentence in said)


def noteworthy(k: int, n: int) -> bool:
    """Say whether k of n curves are worth a sentence."""
    return k > 0 and k >= NOTEWORTHY * n


def _coarse(law: IVModel, part: c.CurveFits) -> list[str]:
    residual = float(np.median(part.relative_rms[part.ok]))
    if not residual > RESIDUAL_THRESHOLD:
        return []
    return [
        f"the curves scatter by {residual:.0%} about {law.name} in its window (median over curves); they are noisy "
        "there, or follow another law"
    ]


def _at_bound(law: IVModel, part: c.CurveFits, n: int) -> list[str]:
    at_bound: Any = getattr(part.fit, "at_bound", None)
    if at_bound is None:
        return []
    sentences = []
    for k, parameter in enumerate(law.parameters):
        count = int(np.asarray(at_bound, dtype=bool)[part.ok, k].sum())
        if noteworthy(count, n):
            sentences.append(
                f"{parameter.name} is at its bound on {count} of {n} curves, whose standard errors hold it there; "
                f"{law.name} has more freedom than they need, or is not their law"
            )
    return sentences


def _flagged(part: c.CurveFits, n: int) -> list[str]:
    """Return sentences for the doubts that the least-squares fits flag, one bit each."""
    flags: Any = getattr(part.fit, "flags", None)
    if flags is None:
        return []
    sentences = []
    for bit, words in FLAGS.items():
        count = int((np.asarray(flags)[part.ok] & bit != 0).sum())
        if bit != AT_BOUND and noteworthy(count, n):  # which parameter is at its bound is said by itself
            sentences.append(f"{count} of {n} curves: {words}")
    return sentences


def _extrapolated(part: c.CurveFits, reference_voltage: float, n: int) -> list[str]:
    sentences = []
    at = abs(reference_voltage)
    if not part.v_min * 0.99 <= at <= part.v_max * 1.01:
        sentences.append(
            f"the reference voltage {at:g} V lies outside the fitted voltages, {part.v_min:g} to {part.v_max:g} V, so "
            "R is extrapolated with the law; choose one inside (--reference-voltage)"
        )
    voltage = np.where(np.isfinite(part.curves.voltage), part.curves.voltage, 0.0)
    short = int((voltage.max(axis=1, initial=0.0)[part.ok] < ENDS_BEFORE * part.v_max).sum())
    if noteworthy(short, n):
        sentences.append(
            f"{short} of {n} curves end before {ENDS_BEFORE:.0%} of the window, {part.v_max:g} V; beyond their ends "
            "the law extrapolates them"
        )
    return sentences


def say_choice(node: xr.Dataset, warnings: list[str]) -> None:
    """Append what the law that was taken leaves out, from the node ``selection``."""
    law, best = (str(node.attrs[key]) for key in ("iv_model", "best"))
    taken = node.sel(law=law)
    for state in map(str, node["state"].values):
        misfit, end = float(taken["misfit"].sel(state=state)), float(node["v_max"].sel(state=state))
        if misfit > c.MISFIT_THRESHOLD:
            warnings.append(
                f"state '{state}': {law} misses the curves by {misfit:.1%} up to {end:g} V, and no law that could be "
                "taken serves them better; fit a shorter window (--v-max), or name a law (--iv-model)"
            )
    if law != best:
        percent = [f"{100 * float(v):.2g} % ({s})" for s, v in taken["difference"].to_series().items()]
        warnings.append(
            f"{law} was taken: {best} differs from it by {', '.join(percent)} over the window, less than the larger of "
            "the noise and the practical threshold"
        )
    if int(taken["n_parameters"]) == 1:
        warnings.extend(_curvatures(node, law))


def _curvatures(node: xr.Dataset, law: str) -> list[str]:
    """Say by how much the curves bend where Ohm's law was taken."""
    sentences = []
    for state in map(str, node["state"].values):
        here = node.sel(state=state)
        values, bounds = here["curvature"].values, here["curvature_bound"].values
        if not (np.isfinite(bounds).all(1) & ((bounds[:, 0] > 0) | (bounds[:, 1] < 0))).any():
            continue
        words = [
            f"{100 * v:.2g} % ({100 * low:.2g} to {100 * high:.2g} %)"
            for v, (low, high) in zip(values, bounds, strict=True)
        ]
        bent = node.attrs["curvature_law"]
        sentences.append(
            f"state '{state}': the curves bend, and {law} leaves that out: from a fifth of the window to its end, "
            f"{float(here['v_max']):g} V, I / V grows by {words[0]} by {bent} (median over curves, 95 % interval), in "
            f"the quarter of lowest conductance by {words[1]}, of highest by {words[2]}; --iv-model {bent} keeps it"
        )
    return sentences
