"""What a batched fit returns, and what is said of every curve: its status and its flags."""

from dataclasses import dataclass

import numpy as np

from calib.fitting.solution import ILL_CONDITIONED, Solution
from calib.iv_models.base import IVModel

OK = "ok"
UNDETERMINED = 1.0
"""Standard error of the logarithm of a positive parameter from which on it counts as not determined."""
SINGULAR = 1e14
"""Condition number from which on the points do not determine the parameters."""
CORRELATED = 0.999
"""Size of the correlation of two estimates from which on they cannot be told apart."""
HEAVY_TAILED_Z = 4.0
"""Standard deviations by which a kurtosis exceeds that of normal noise before it is flagged (3e-5 of normal curves)."""
_FEWEST_FOR_KURTOSIS = 20

AT_BOUND, UNIDENTIFIABLE_PAIR, ILL_CONDITIONED_COVARIANCE, HEAVY_TAILED = 1, 2, 4, 8
FLAGS: dict[int, str] = {
    AT_BOUND: "a parameter is at its bound; the standard errors of the others hold with it there",
    UNIDENTIFIABLE_PAIR: "two parameters cannot be told apart; fit a simpler law, or a wider range of voltage",
    ILL_CONDITIONED_COVARIANCE: "the covariance is ill-conditioned; fit a simpler law, or a wider range of voltage",
    HEAVY_TAILED: "the residuals have heavier tails than normal noise; use a robust loss, or look for stray points",
}
"""What each bit of `BatchFit.flags` means, and what to do."""


@dataclass(frozen=True)
class BatchFit:
    """What a batched fit returns; the first dimension is the curve.

    Attributes
    ----------
    names : names of the law's parameters, in order.
    values, stderr : (curve, parameter) estimates and standard errors in SI units; NaN where the fit failed; a
        parameter at its bound has no standard error (NaN).
    internal : (curve, parameter) estimates in the fitted coordinates (logarithm of positive parameters).
    covariance : (curve, parameter, parameter) covariance of `internal`; that of the parameters that are not at a
        bound, with zeros for those that are.
    unscaled : the same without the factor `variance`: multiply with a pooled s^2.
    variance : (curve,) the factor: s^2 = chi^2 / (n - p), Huber's with a robust loss; where the sigmas are taken as
        known, 1, and that of normal noise with a robust loss.
    offset, offset_stderr : (curve,) [A] the nuisance I_0; 0 and NaN when not fitted.
    cost : (curve,) chi^2 at the estimate, with the loss.
    rms : (curve,) root mean square of (fit - measured) / sigma.
    n_points, n_free : (curve,) points used, and points less parameters that are not at a bound.
    condition : (curve,) condition number of the normal matrix in units of its columns' norms.
    at_bound : (curve, parameter) whether an estimate lies on its bound.
    flags : (curve,) bit mask of what is doubtful, see `FLAGS`.
    pair : (curve, 2) the two parameters of the largest correlation, as positions in (*names, 'offset'); -1 for one
        parameter.
    correlation : (curve,) the correlation of that pair.
    kurtosis : (curve,) of the residuals, about zero; 3 for normal noise.
    status : (curve,) 'ok' or a sentence that says why there is no estimate, or why it is doubtful.
    """

    names: tuple[str, ...]
    values: np.ndarray
    stderr: np.ndarray
    internal: np.ndarray
    covariance: np.ndarray
    unscaled: np.ndarray
    variance: np.ndarray
    offset: np.ndarray
    offset_stderr: np.ndarray
    cost: np.ndarray
    rms: np.ndarray
    n_points: np.ndarray
    n_free: np.ndarray
    condition: np.ndarray
    at_bound: np.ndarray
    flags: np.ndarray
    pair: np.ndarray
    correlation: np.ndarray
    kurtosis: np.ndarray
    status: np.ndarray

    @property
    def ok(self) -> np.ndarray:
        """(curve,) whether the fit succeeded."""
        return self.status == OK

    def sentences(self, curve: int) -> list[str]:
        """Return in words, with names and numbers, what is doubtful about a curve's fit."""
        flags, found = int(self.flags[curve]), []
        names = [*self.names, "offset"]
        if flags & AT_BOUND:
            held = [f"{names[k]} = {self.values[curve, k]:.4g}" for k in np.flatnonzero(self.at_bound[curve])]
            found.append(f"at a bound: {', '.join(held)}; the standard errors of the others hold with it there")
        if flags & UNIDENTIFIABLE_PAIR:
            first, second = (names[k] for k in self.pair[curve])
            found.append(
                f"{first} and {second} cannot be told apart: their correlation is {self.correlation[curve]:.6f}; "
                "fit a simpler law, or a wider range of voltage"
            )
        if flags & ILL_CONDITIONED_COVARIANCE:
            found.append(
                f"the covariance is ill-conditioned (condition number {self.condition[curve]:.1g}); "
                "fit a simpler law, or a wider range of voltage"
            )
        if flags & HEAVY_TAILED:
            found.append(
                f"the residuals have heavier tails than normal noise (kurtosis {self.kurtosis[curve]:.1f}, not 3); "
                "use a robust loss, or look for stray points"
            )
        return found

    def flag_sentences(self) -> list[str]:
        """Return one sentence for each flag that any curve with status 'ok' has, with the number of such curves."""
        ok = self.ok
        counts = {flag: int(((self.flags & flag) != 0)[ok].sum()) for flag in FLAGS}
        return [f"{n} of {int(ok.sum())} curves: {FLAGS[flag]}" for flag, n in counts.items() if n]


def largest_kurtosis(n: np.ndarray) -> np.ndarray:
    """Return the kurtosis of n normal residuals that lies `HEAVY_TAILED_Z` standard deviations up; inf for few points.

    The normal approximation of F. J. Anscombe and W. J. Glynn, Biometrika 70, 227 (1983), doi 10.1093/biomet/70.1.227,
    solved for the kurtosis.
    """
    m = np.maximum(n, _FEWEST_FOR_KURTOSIS).astype(float)
    mean = 3 * (m - 1) / (m + 1)
    variance = 24 * m * (m - 2) * (m - 3) / ((m + 1) ** 2 * (m + 3) * (m + 5))
    skew = 6 * (m * m - 5 * m + 2) / ((m + 7) * (m + 9)) * np.sqrt(6 * (m + 3) * (m + 5) / (m * (m - 2) * (m - 3)))
    a = 6 + 8 / skew * (2 / skew + np.sqrt(1 + 4 / skew**2))
    root = 1 - 2 / (9 * a) - HEAVY_TAILED_Z * np.sqrt(2 / (9 * a))
    with np.errstate(divide="ignore"):
        x = ((1 - 2 / a) / np.maximum(root, 0.0) ** 3 - 1) / np.sqrt(2 / (a - 4))
    return np.where(n < _FEWEST_FOR_KURTOSIS, np.inf, mean + x * np.sqrt(variance))


def assemble(
    law: IVModel, solution: Solution, n_points: np.ndarray, all_zero: np.ndarray, fit_offset: bool,
    known_variance: float | None, iterations: int,
) -> BatchFit:  # fmt: skip
    """Return estimates, errors, status and flags of a block of curves from the solver's answer.

    Parameters
    ----------
    law : the conduction law.
    solution : minima in the fitted coordinates, the offset last.
    n_points, all_zero : (curve,) points used; whether every current is zero.
    fit_offset : whether there is an offset.
    known_variance : the variance factor where the sigmas are taken as known.
    iterations : the solver's limit, for the sentence.
    """
    names, n = law.parameter_names, len(law.parameters)
    is_log = np.array([parameter.transform == "log" for parameter in law.parameters])
    variance = solution.variance if known_variance is None else np.full(len(n_points), known_variance)
    enough = n_points > solution.u.shape[1]
    fitted = enough & solution.converged & ~all_zero
    with np.errstate(all="ignore"):
        diagonal = np.einsum("cii->ci", solution.unscaled)
        spread = np.sqrt(diagonal * variance[:, None])
        loose = (spread[:, :n] > UNDETERMINED) & is_log
        determined = (solution.condition < SINGULAR) & np.isfinite(spread).all(1) & np.logical_not(loose.any(1))
        ok = fitted & determined
        kurtosis = n_points * solution.fourth / np.square(solution.square)
        pair, correlation = _closest_pair(solution.unscaled, diagonal)
        heavy = kurtosis > largest_kurtosis(np.arange(n_points.max(initial=0) + 1))[n_points]
        flags = AT_BOUND * solution.at_bound.any(1) + UNIDENTIFIABLE_PAIR * (np.abs(correlation) > CORRELATED)
        flags += ILL_CONDITIONED_COVARIANCE * (solution.condition >= ILL_CONDITIONED) + HEAVY_TAILED * heavy
    status = np.full(len(n_points), OK, dtype=object)
    for row in np.flatnonzero(~ok):
        vague = np.where(loose[row], spread[row, :n], 0.0)
        status[row] = _sentence(int(row), names, solution, n_points, all_zero, vague, iterations)
    unscaled, internal = solution.unscaled, solution.u
    if not ok.all():
        failed = ~ok
        internal = np.where(failed[:, None], np.nan, internal)
        unscaled = np.where(failed[:, None, None], np.nan, unscaled)
        spread = np.where(failed[:, None], np.nan, spread)
        flags = np.where(fitted, flags, 0)
    values = _external(law, internal[:, :n], solution.at_bound[:, :n])
    stderr = np.where(solution.at_bound[:, :n], np.nan, spread[:, :n])
    stderr = np.where(is_log, values * stderr, stderr)
    zero = np.where(ok, 0.0, np.nan)
    return BatchFit(
        names=names, values=values, stderr=stderr, internal=internal[:, :n],
        covariance=unscaled[:, :n, :n] * variance[:, None, None], unscaled=unscaled[:, :n, :n], variance=variance,
        offset=internal[:, -1] if fit_offset else zero,
        offset_stderr=spread[:, -1] if fit_offset else np.full(len(n_points), np.nan),
        cost=solution.cost, rms=np.sqrt(solution.square / np.maximum(n_points, 1)), n_points=n_points,
        n_free=solution.n_free, condition=solution.condition, at_bound=solution.at_bound[:, :n] & ok[:, None],
        flags=flags.astype(np.uint8), pair=pair, correlation=correlation, kurtosis=kurtosis, status=status,
    )  # fmt: skip


def _external(law: IVModel, internal: np.ndarray, at_bound: np.ndarray) -> np.ndarray:
    """Return parameters in SI units; those at a bound are the bound, to the last digit."""
    values = np.empty(internal.shape)
    with np.errstate(over="ignore"):
        for k, parameter in enumerate(law.parameters):
            values[:, k] = np.exp(internal[:, k]) if parameter.transform == "log" else internal[:, k]
            held = np.flatnonzero(at_bound[:, k] & np.isfinite(internal[:, k]))
            if len(held):
                near_lower = np.abs(values[held, k] - parameter.lower) <= np.abs(values[held, k] - parameter.upper)
                values[held, k] = np.where(near_lower, parameter.lower, parameter.upper)
    return values


def _closest_pair(unscaled: np.ndarray, diagonal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pair of parameters (curve, 2) with the largest correlation, and that correlation (0 if undefined)."""
    n, k = diagonal.shape
    pair, largest = np.full((n, 2), -1, dtype=np.int8), np.zeros(n)
    root = np.sqrt(diagonal)
    for i in range(k):
        for j in range(i + 1, k):
            r = unscaled[:, i, j] / (root[:, i] * root[:, j])
            better = np.abs(r) > np.abs(largest)
            largest = np.where(better, r, largest)
            pair[better] = (i, j)
    return pair, np.clip(largest, -1.0, 1.0)


def _sentence(
    row: int, names: tuple[str, ...], solution: Solution, n_points: np.ndarray, all_zero: np.ndarray,
    vague: np.ndarray, iterations: int,
) -> str:  # fmt: skip
    """Say why a curve has no estimate."""
    needed = solution.u.shape[1]
    if n_points[row] <= needed:
        return f"{n_points[row]} usable points, at least {needed + 1} are needed for {needed} parameters"
    if all_zero[row]:
        return "every current is zero"
    if not solution.converged[row]:
        return f"the fit did not converge in {iterations} iterations"
    if not solution.condition[row] < SINGULAR or not vague.any():
        return f"the points do not determine the parameters (condition number {solution.condition[row]:.1g})"
    worst = int(np.argmax(vague))
    return f"the points do not determine {names[worst]}: its standard error is {vague[worst]:.2g} in ln"
