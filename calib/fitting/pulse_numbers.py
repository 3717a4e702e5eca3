"""Numbers of trains of pulses that were fitted: nonlinearity, steps, noise, states, each with a standard error."""

from dataclasses import dataclass

import numpy as np

from calib.fitting.pulse_fit import TrainFits, fit_law
from calib.fitting.pulse_trains import Train, Trains, joined
from calib.pulse_laws import LAWS
from calib.pulse_laws import NEUROSIM_LABEL as NEUROSIM_LABEL

LEVEL_Z = 1.6448536269514722
"""Standard deviations from a level to the border of its neighbour at 5 % error on that side."""
GRID = np.linspace(0, 1, 401)
_STANDSTILL = 1e-4  # median slope of f under which half of the train does not move: no number of states

QUANTITIES = {
    "g_start": ("G", "conductance at the train's first reading"),
    "g_end": ("G", "conductance at the train's last reading"),
    "shape": ("1", "shape parameter of the law"),
    "nonlinearity": ("1", "largest deviation from a straight line, share of the change"),
    "neurosim_label": ("1", "NeuroSim's nonlinearity label"),
    "step_mid": ("G", "change per pulse at mid-range"),
    "write_noise": ("G", "write noise of one step, standard deviation"),
    "write_noise_relative": ("1", "write noise of one step over the mean step"),
    "noise_growth": ("1", "power of the step with which the noise grows"),
    "transient_noise": ("G", "noise of a reading that does not persist, standard deviation"),
    "memory": ("1", "steps after which write noise has faded to 1/e"),
    "n_states": ("1", "number of states: range over median step"),
    "n_distinguishable": ("1", "levels that the noise of one step and one reading allows"),
}
"""Numbers of every train: unit (G stands for the unit of the conductance) and meaning."""


@dataclass
class Numbers:
    """Numbers of every fitted train.

    Attributes
    ----------
    trains, flat : the trains, and their readings one after another.
    law : (train,) name of the law taken.
    fits : every law's fits.
    values, errors : (train,) by name of `QUANTITIES`, and standard errors.
    curves : (train, grid) f of the law taken on `GRID`.
    """

    trains: list[Train]
    flat: Trains
    law: np.ndarray
    fits: dict[str, TrainFits]
    values: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    curves: np.ndarray

    def of(self, name: str, axis: int = 0) -> np.ndarray:
        """Return an array of TrainFits, whose trains lie along `axis`, each train from its own law."""
        result = np.moveaxis(np.zeros_like(getattr(self.fits[str(self.law[0])], name)), axis, 0)
        for law in np.unique(self.law):
            here = self.law == law
            result[here] = np.moveaxis(getattr(self.fits[str(law)], name), axis, 0)[here]
        return np.moveaxis(result, 0, axis)

    @property
    def v(self) -> np.ndarray:
        """Shape of the noise variance (reading,), each train from its own law."""
        return self._by_reading({name: fit.variance_shape for name, fit in self.fits.items()})

    def smooth(self) -> np.ndarray:
        """Return the law's conductance (reading,) of every train."""
        owner = self.flat.owner
        curves = {name: fit.law.f(self.flat.x, fit.u[owner]) for name, fit in self.fits.items()}
        return self.of("start")[owner] + self.of("change")[owner] * self._by_reading(curves)

    def _by_reading(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        law = self.law[self.flat.owner]
        return np.select([law == name for name in arrays], list(arrays.values()))


def numbers_of(trains: list[Train], warnings: list[str]) -> Numbers:
    """Fit every law to every train, take one law for each direction, and derive the numbers of every train."""
    flat = joined(trains)
    fits = {name: fit_law(law, flat) for name, law in LAWS.items()}
    polarity = np.array([train.polarity for train in trains])
    law = np.full(len(trains), "", dtype="<U20")
    for name in np.unique(polarity):
        here = polarity == name
        law[here] = min(fits, key=lambda key: float(fits[key].aicc[here].sum()))
    numbers = Numbers(trains, flat, law, fits, {}, {}, np.empty((len(trains), len(GRID))))
    _derive(numbers)
    _say_bounds(numbers, warnings)
    return numbers


def _say_bounds(numbers: Numbers, warnings: list[str]) -> None:
    n = len(numbers.trains)
    for name in np.unique(numbers.law):
        count = int(numbers.fits[str(name)].shape_at_bound[numbers.law == name].sum())
        if count:
            warnings.append(
                f"pulse response: the shape parameter of the {name} law lies at the end of its range in {count} of {n} "
                "trains; it has no standard error there and the law may not suit them"
            )
    merged = int(numbers.of("write_noise_at_bound").sum())
    if merged:
        warnings.append(
            f"pulse response: in {merged} of {n} trains either write noise or transient noise is too small to be "
            "told from zero and is given as zero; several reads after each pulse would tell them apart"
        )


def _derive(numbers: Numbers) -> None:
    """Fill in the numbers of `QUANTITIES` with standard errors by propagation of the fit's covariance."""
    change, u = numbers.of("change"), numbers.of("u")
    covariance = numbers.of("covariance")
    of_u = np.sqrt(covariance[:, 2, 2])
    at_bound = numbers.of("shape_at_bound")
    of_u = np.where(at_bound, np.nan, of_u)
    steps = np.array([len(train.pulse) - 1.0 for train in numbers.trains])
    pulses = np.array([train.pulse[-1] for train in numbers.trains])
    forms = _forms(numbers, u)
    numbers.curves[:] = forms["curve"]
    h = 1e-4
    slopes = {
        key: (_forms(numbers, u + h)[key] - _forms(numbers, u - h)[key]) / (2 * h)
        for key in ("nonlinearity", "mid", "median")
    }
    values, errors = numbers.values, numbers.errors
    ends, ends_stderr = numbers.of("ends", 1), numbers.of("ends_stderr", 1)
    values["g_start"], values["g_end"] = ends
    errors["g_start"], errors["g_end"] = ends_stderr
    shaped = np.array([LAWS[name].bounds[1] > LAWS[name].bounds[0] for name in numbers.law])
    values["shape"] = np.where(shaped, _by_law(numbers, "shape", u), np.nan)
    errors["shape"] = np.abs(_by_law(numbers, "shape_slope", u)) * np.where(shaped, of_u, np.nan)
    _neurosim(numbers)
    curved = np.abs(slopes["nonlinearity"]) * of_u
    label, label_error = values["neurosim_label"], errors["neurosim_label"]
    values["nonlinearity"] = np.where(shaped, forms["nonlinearity"], NEUROSIM_LABEL * label)
    errors["nonlinearity"] = np.where(shaped, curved, NEUROSIM_LABEL * label_error)
    values["step_mid"] = change * forms["mid"] / pulses
    gradient = np.stack([forms["mid"], change * slopes["mid"]], axis=1) / pulses[:, None]
    variance = np.einsum("ti,tij,tj->t", gradient, covariance[:, 1:, 1:], gradient)
    errors["step_mid"] = np.where(at_bound, np.nan, np.sqrt(variance))
    typical = np.where(forms["median"] > _STANDSTILL, forms["median"], np.nan)
    values["n_states"] = steps / typical
    error = values["n_states"] * np.abs(slopes["median"]) * of_u / forms["median"]
    errors["n_states"] = np.where(shaped, error, np.nan)
    _derive_noise(numbers, change, steps, forms)


def _by_law(numbers: Numbers, name: str, u: np.ndarray) -> np.ndarray:
    return np.array([float(getattr(LAWS[law], name)(u[k])) for k, law in enumerate(numbers.law)])


def _forms(numbers: Numbers, u: np.ndarray) -> dict[str, np.ndarray]:
    """Return the curve f on the grid, its signed deviation from linear, and its slopes at mid-range and median."""
    curve = np.stack([LAWS[law].f(GRID, u[k]) for k, law in enumerate(numbers.law)])
    return {"curve": curve, "nonlinearity": deviation(curve), "mid": _slope_at(curve, 0.5), "median": _median(curve)}


def deviation(curve: np.ndarray) -> np.ndarray:
    """Return the largest deviation (train,) of curves (train, grid) from x, with its sign; 0 to 1 in size."""
    difference = curve - GRID
    index = np.abs(difference).argmax(axis=1)
    return difference[np.arange(len(curve)), index]


def _slope_at(curve: np.ndarray, level: float) -> np.ndarray:
    """Return df/dx where f passes a level."""
    slope = np.gradient(curve, GRID, axis=1)
    return np.array([np.interp(level, f, s) for f, s in zip(curve, slope, strict=True)])


def _median(curve: np.ndarray) -> np.ndarray:
    return np.median(np.diff(curve, axis=1), axis=1) * (len(GRID) - 1)


def _neurosim(numbers: Numbers) -> None:
    """Add NeuroSim's label: the deviation from linear of the soft-bounds law over `NEUROSIM_LABEL`."""
    fit = numbers.fits["soft-bounds"]

    def label(u: np.ndarray) -> np.ndarray:
        return deviation(fit.law.f(GRID, u[:, None])) / NEUROSIM_LABEL

    h = 1e-4
    slope = (label(fit.u + h) - label(fit.u - h)) / (2 * h)
    numbers.values["neurosim_label"] = np.where(fit.shape_at_bound, np.nan, label(fit.u))
    numbers.errors["neurosim_label"] = np.where(
        fit.shape_at_bound, np.nan, np.abs(slope) * np.sqrt(fit.covariance[:, 2, 2])
    )


def _derive_noise(numbers: Numbers, change: np.ndarray, steps: np.ndarray, forms: dict[str, np.ndarray]) -> None:
    values, errors = numbers.values, numbers.errors
    write, other = numbers.of("write_noise"), numbers.of("other_noise")
    write_log, other_log = numbers.of("write_noise_log_stderr"), numbers.of("other_noise_log_stderr")
    step = np.abs(change) / steps
    values["write_noise"], errors["write_noise"] = write, write * write_log
    values["write_noise_relative"], errors["write_noise_relative"] = write / step, write / step * write_log
    values["transient_noise"], errors["transient_noise"] = other, other * other_log
    values["noise_growth"], errors["noise_growth"] = numbers.of("growth"), np.full(len(step), np.nan)
    memory = numbers.of("memory")
    values["memory"] = np.where(np.isfinite(memory) & (write > 0), memory, np.nan)
    errors["memory"] = np.full(len(step), np.nan)
    slope = np.abs(np.diff(forms["curve"], axis=1)) * (len(GRID) - 1)
    v = (slope / slope.mean(axis=1, keepdims=True) + 1e-4) ** (2 * numbers.of("growth")[:, None])
    v /= v.mean(axis=1, keepdims=True)
    sigma = np.sqrt((write**2 + other**2)[:, None] * np.maximum(v, 1e-12))
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = 1 + np.abs(change) * (np.abs(slope) / (2 * LEVEL_Z * sigma)).mean(axis=1)
        share = write**2 / (write**2 + other**2)
    log_error = np.hypot(share * np.nan_to_num(write_log), (1 - share) * np.nan_to_num(other_log))
    values["n_distinguishable"] = np.where(np.isfinite(levels), levels, np.nan)
    errors["n_distinguishable"] = np.where(np.isfinite(levels), (levels - 1) * log_error, np.nan)
