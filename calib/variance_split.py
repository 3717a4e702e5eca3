"""Splitting a variance over networks, device models and chips: crossed random effects with chips nested in them."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from calib.errors import OptionError

LEVEL = 0.95
COMPONENTS = ("chip", "network", "model", "interaction")
_DRAWS = 20_000  # of the pivotal quantities
_NAN = float("nan")


@dataclass(frozen=True)
class Component:
    """A component of variance: the estimate (0 where the unbiased one is negative), that one, and its 95 % interval."""

    variance: float
    unbiased: float
    low: float
    high: float

    @property
    def std(self) -> float:
        """Square root of the variance."""
        return float(np.sqrt(self.variance))


NOT_SEPARATED = Component(_NAN, _NAN, _NAN, _NAN)


def split_variance(values: np.ndarray, seed: int = 0) -> dict[str, Component]:
    """Split the variance of values (network, model, chip).

    The model is y_ijk = mu + a_i + b_j + c_ij + e_ijk with independent normal effects of networks i = 1 ... N, device
    models j = 1 ... M, their interaction, and chips k = 1 ... K of their own in each cell. From the mean squares

        E[MS_network] = s_e + K s_c + K M s_a        E[MS_interaction] = s_e + K s_c
        E[MS_model]   = s_e + K s_c + K N s_b        E[MS_chip]        = s_e

    follow the unbiased estimates of the variances s (S. R. Searle, G. Casella, C. E. McCulloch, Variance Components,
    1992, section 4.3). A negative one is reported as 0; its interval still says how large it may be.

    The interval of the chips is a chi-square's, with degrees of freedom reduced by the kurtosis of the chips' scatter:
    var(s^2) = s^4 (2 / nu + kappa / n). The other intervals are generalised confidence intervals (S. Weerahandi, J. Am.
    Stat. Assoc. 88, 899 (1993), doi 10.1080/01621459.1993.10476355): each mean square is divided by draws of
    chi^2_nu / nu, and the quantiles of the resulting differences are taken, not below 0. Where the estimate is negative
    the upper end is the quantile of the positive differences alone: wider than need be, but never 0.

    Parameters
    ----------
    values : (network, model, chip). With one network, that of networks and the interaction cannot be told: they are
        NaN, and 'model' holds the interaction as well; likewise with one model. With one chip a cell 'chip' is NaN and
        the interaction holds it.
    seed : of the intervals.

    Returns
    -------
    dict
        Of 'chip', 'network', 'model', 'interaction'.

    Raises
    ------
    OptionError
        When the values do not have three dimensions or are not finite.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 3 or not values.size or not np.isfinite(values).all():
        raise OptionError(
            f"the values to split have the shape {values.shape} and {np.isfinite(values).sum()} finite ones; expected "
            "finite values (network, model, chip)"
        )
    networks, models, chips = values.shape
    cell = values.mean(2)
    mean = cell.mean()
    by_network, by_model = cell.mean(1), cell.mean(0)
    rest = cell - by_network[:, None] - by_model[None] + mean
    squares = {
        "chip": (float(np.square(values - cell[..., None]).sum()), networks * models * (chips - 1)),
        "network": (float(chips * models * np.square(by_network - mean).sum()), networks - 1),
        "model": (float(chips * networks * np.square(by_model - mean).sum()), models - 1),
        "interaction": (float(chips * np.square(rest).sum()), (networks - 1) * (models - 1)),
    }
    below = "interaction" if squares["interaction"][1] else "chip"
    random = np.random.default_rng(seed)
    found: dict[str, Component] = {name: NOT_SEPARATED for name in COMPONENTS}
    if squares["chip"][1]:
        found["chip"] = _chips(values - cell[..., None], *squares["chip"])
    counts = {"network": chips * models, "model": chips * networks, "interaction": chips}
    for name, count in counts.items():
        under = "chip" if name == "interaction" else below
        if squares[name][1]:
            found[name] = _difference(squares[name], squares[under], count, random)
    return found


def _chips(deviations: np.ndarray, total: float, freedom: int) -> Component:
    variance = total / freedom
    if variance == 0:
        return Component(0.0, 0.0, 0.0, 0.0)
    kurtosis = float(np.mean(deviations**4) / np.square(np.mean(np.square(deviations))) - 3)
    effective = max(1.0, freedom / (1 + max(kurtosis, 0.0) * freedom / (2 * deviations.size)))
    low, high = effective * variance / stats.chi2.ppf(((1 + LEVEL) / 2, (1 - LEVEL) / 2), effective)
    return Component(variance, variance, float(low), float(high))


def _difference(
    upper: tuple[float, int], lower: tuple[float, int], count: int, random: np.random.Generator
) -> Component:
    """Return (MS_upper - MS_lower) / count; a lower one without degrees of freedom counts as 0."""
    (total, freedom), (total_lower, freedom_lower) = upper, lower
    pivot = total / random.chisquare(freedom, _DRAWS)
    estimate = total / freedom
    if freedom_lower:
        pivot = pivot - total_lower / random.chisquare(freedom_lower, _DRAWS)
        estimate -= total_lower / freedom_lower
    low, high = np.maximum(np.quantile(pivot / count, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)), 0.0)
    possible = pivot[pivot > 0]
    if estimate <= 0 and len(possible):
        high = max(high, np.quantile(possible, (1 + LEVEL) / 2) / count)
    return Component(max(estimate, 0.0) / count, estimate / count, float(low), float(high))
