"""Requirements: how large an effect may be for the loss of accuracy to stay under a number of points.

Each effect is scaled over a range on the same chips. The loss is the error with the effect less the error without it;
the smallest loss that never decreases with the effect is fitted to the points (isotonic regression), and where it
crosses the number that is allowed is the requirement.

=================== ============================================== ===============================================
effect              what is scaled                                 where the device model has none
=================== ============================================== ===============================================
stuck devices       probability                                    stuck at G_off
programming spread  sigma of ln R, the same at every R, lognormal  the same
I-V nonlinearity    factor of the law's nonlinear parameter        left out
read noise          standard deviation of I / I of a reading       normal, the same for every device
line resistance     of a segment of word and bit lines [Ohm]       the same
=================== ============================================== ===============================================

The nonlinear parameter is gamma of Poole-Frenkel, kappa of the hyperbolic sine (I = g sinh(sqrt(kappa) V) /
sqrt(kappa), of which the exponent is the square root), ln(n / 2) of the power law (n - 2 where n itself is the normal
one) and all coefficients of a polynomial: 0 is a resistor, 1 is the device that was measured, R = V_ref / I(V_ref) and
its relative spread stay.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import isotonic_regression

from calib import __version__, device_model, evaluation, files, paired, runs
from calib.budget import hardware_of
from calib.crossbar.array import Array
from calib.effects import NONLINEARITY, READ_NOISE, STAGES, Hardware
from calib.energy import READ_TIME
from calib.errors import ModelError, OptionError
from calib.formatting import format_number, format_quantity
from calib.nonidealities.base import Conditions
from calib.nonidealities.iv import IV
from calib.nonidealities.lognormal import Lognormal
from calib.nonidealities.read_noise import ReadNoise
from calib.nonidealities.stuck import Stuck
from calib.runs import Run
from calib.vision import ImageData

SCHEMA = "calib-requirements/1"
STUCK, SPREAD, LINES = STAGES["stuck"], STAGES["program"], "line resistance"
RESAMPLES = 1000
_TAIL = 0.01  # of the resamples may cost less than is allowed at the largest size
_REFINED = 4  # points between the two that hold the crossing
Progress = Callable[..., None]
ErrorOf = Callable[[Hardware, str], np.ndarray]


@dataclass(frozen=True)
class Scale:
    """An effect that can be scaled.

    Attributes
    ----------
    name : of the effect.
    quantity : what its size is, in words.
    unit : of the size.
    sizes : ascending sizes that are tried, all > 0.
    at : gives the hardware with the effect of a size, from the hardware without it.
    present : size that the device has, NaN where it is not one number.
    """

    name: str
    quantity: str
    unit: str
    sizes: tuple[float, ...]
    at: Callable[[Hardware, float], Hardware]
    present: float


def requirements(
    run: str | Path | Run,
    device: str | Path | xr.DataTree | None = None,
    *,
    loss: float = 1.0,
    effects: Sequence[str] | None = None,
    alone: bool = False,
    chips: int = 25,
    seed: int = 0,
    array: str | Array | None = None,
    extrapolate: bool = False,
    data: ImageData | None = None,
    data_folder: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Find for each effect the size at which it costs a number of percentage points of accuracy.

    The crossing of the isotonic fit of the mean loss is interpolated linearly between two sizes (in the logarithm of
    the size where both are positive). Its interval is a bootstrap over networks and, crossed with them, over chips
    (95 %, percentiles); with one network it is for that network. A crossing beyond the largest size is infinite.

    Parameters
    ----------
    run : folder of trained networks.
    device : device model; default: the one that the networks were trained on.
    loss : percentage points of accuracy that an effect may cost.
    effects : names of effects to scale, see `calib.requirements`; default: all but line resistance where the I-V law is
        nonlinear, because it takes long there.
    alone : whether the other effects of the device are left out, instead of being as they are.
    chips : of each network.
    seed : of the chips and of the bootstrap.
    array, extrapolate, data, data_folder : as in `calib.evaluation.evaluate`.
    output : file to write to, netCDF-4.
    progress : called with (n=1, text) after each network and size.

    Returns
    -------
    xarray.Dataset
        Dimensions effect, size (padded with NaN), network, chip and bound: size_value, loss (fractions of images, mean)
        with loss_bound and loss_isotonic, crossing with crossing_bound, present.

    Raises
    ------
    OptionError
        When an effect cannot be scaled, or the loss is not positive.
    """
    if not 0 < loss < 100:
        raise OptionError(f"the loss is {loss} points; expected more than 0 and less than 100")
    evaluation.check_numbers(chips, READ_TIME)
    opened, tree, whole = hardware_of(run, device, Conditions(), array, extrapolate)
    scales = _chosen(_scales(whole), effects, whole)
    images = data if data is not None else opened.data(None, data_folder)

    def error_of(hardware: Hardware, text: str) -> np.ndarray:
        def advance(network: int) -> None:
            if progress is not None:
                progress(1, f"{text}, network {network}")

        found = evaluation.error_and_energy(
            opened, hardware, images, seed=seed, chips=chips, read_time=READ_TIME, advance=advance
        )
        return found[0]

    curves = []
    for scale in scales:
        base = whole.only([]) if alone else whole.without(scale.name) if scale.name in whole.effects else whole
        curves.append(_curve(scale, base, error_of, loss / 100, seed))
    found = _dataset(scales, curves, loss / 100, seed)
    found.attrs = {
        "schema": SCHEMA,
        "calib_version": __version__,
        "run": opened.path.name,
        "device": whole.devices.name,
        "device_sha256": device_model.identity(tree),
        "allowed_loss": loss / 100,
        "seed": int(seed),
        "options": json.dumps(
            {"chips": chips, "alone": alone, "array": whole.array.to_options(), "extrapolate": extrapolate},
            sort_keys=True,
        ),
        "data": json.dumps({"name": images.name, "sha256": images.sha256}, sort_keys=True),
        "versions": json.dumps(runs.versions(), sort_keys=True),
        "training": json.dumps(opened.record, sort_keys=True, ensure_ascii=False),
        "protocol": f"Loss against the same chips without the effect, {opened.options.networks} network(s) and {chips} "
        f"chips; the other effects are {'left out' if alone else 'as the device and the array have them'}. Crossing of "
        "the isotonic fit, with the 95 % interval of a bootstrap over networks and chips.",
    }  # fmt: skip
    if output is not None:
        files.write_netcdf(found, output)
    return found


def most_steps(
    run: str | Path | Run,
    device: str | Path | xr.DataTree | None = None,
    effects: Sequence[str] | None = None,
    array: str | Array | None = None,
    extrapolate: bool = False,
) -> int:
    """Return how many times `requirements` reports progress at most."""
    opened, _, whole = hardware_of(run, device, Conditions(), array, extrapolate)
    scales = _chosen(_scales(whole), effects, whole)
    return opened.options.networks * sum(1 + len(scale.sizes) + _REFINED for scale in scales)


def _scales(whole: Hardware) -> list[Scale]:
    devices = whole.devices
    now = {member.stage: member for member in devices.stages}
    stuck = now.get("stuck")
    known = stuck if isinstance(stuck, Stuck) and stuck.values else Stuck(0.0, (devices.g_off,))
    program = now.get("program")
    sigma = program.sigma if isinstance(program, Lognormal) else ((float("nan"),) if program is not None else (0.0,))
    middle = float(1 / np.sqrt(devices.g_off * devices.g_on))
    level = devices.read.level if isinstance(devices.read, ReadNoise) else 0.0
    lines = whole.array.lines

    def stuck_at(base: Hardware, size: float) -> Hardware:
        return base.with_member(Stuck(size, known.values, known.bandwidth))

    def spread_of(base: Hardware, size: float) -> Hardware:
        return base.with_member(Lognormal((middle,), (size,)))

    def noise_of(base: Hardware, size: float) -> Hardware:
        return base.with_read_noise(ReadNoise(size))

    def lines_of(base: Hardware, size: float) -> Hardware:
        changed = replace(base.array.lines, word_segment=size, bit_segment=size)
        return Hardware(base.devices, replace(base.array, lines=changed))

    usual = 1 / devices.g_on
    found = [
        Scale(STUCK, "probability", "1", _decades(1e-3, 1.0, 9), stuck_at, known.probability),
        Scale(SPREAD, "sigma of ln R", "1", _decades(0.03, 3.0, 8), spread_of, float(np.mean(sigma))),
        Scale(READ_NOISE, "standard deviation of I / I", "1", _decades(0.01, 3.0, 8), noise_of, level),
        Scale(LINES, "of a segment", "ohm", _decades(1e-6 * usual, 0.1 * usual, 8), lines_of,
              lines.word_segment if lines.word_segment == lines.bit_segment else float("nan")),
    ]  # fmt: skip
    law = devices.conduction
    if isinstance(law, IV) and law.anchored and law.law.name in _NONLINEAR:

        def nonlinear(base: Hardware, size: float) -> Hardware:
            return base.with_conduction(scaled_law(law, size))

        found.insert(2, Scale(NONLINEARITY, _NONLINEAR[law.law.name], "1", _decades(0.1, 4.0, 7), nonlinear, 1.0))
    return found


def _decades(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(float(size) for size in np.geomspace(low, high, count))


_NONLINEAR = {
    "poole-frenkel": "factor of gamma",
    "hyperbolic-sine": "factor of the curvature kappa",
    "power-law": "factor of the nonlinearity",
    "polynomial": "factor of the coefficients",
}


def scaled_law(conduction: IV, factor: float) -> IV:
    """Return an anchored law whose nonlinear shape parameters are multiplied by a factor > 0, R kept.

    With t the transformed parameter and s its value for a resistor: t -> s + f (t - s), its covariance scaled by f^2,
    s = 0, for the power law ln 2 or 2. Where t is the logarithm of a parameter that is 0 for a resistor, t -> t + ln f.

    Raises
    ------
    OptionError
        When the law is not anchored, or 0 does not make it ohmic.
    """
    population = conduction.population
    if not conduction.anchored or conduction.law.name not in _NONLINEAR:
        raise OptionError(
            f"the I-V law '{conduction.law.name}' ({population.form}) cannot be scaled to a resistor; expected an "
            f"anchored law, one of {', '.join(_NONLINEAR)}"
        )
    intercept, slope = population.intercept.copy(), population.slope.copy()
    size = np.ones(len(population.parameters))
    for name in conduction.law.shape:
        k = population.parameters.index(name)
        if name == conduction.law.series:
            continue
        power, logarithm = conduction.law.name == "power-law", population.transforms[k] == "log"
        if logarithm and not power:
            intercept[:, k] += np.log(factor)
            continue
        resistor = (np.log(2.0) if logarithm else 2.0) if power else 0.0
        intercept[:, k] = resistor + factor * (intercept[:, k] - resistor)
        slope[:, k] *= factor
        size[k] = factor
    covariance = population.covariance * size[:, None] * size
    return IV(replace(population, intercept=intercept, slope=slope, covariance=covariance))


def _chosen(known: list[Scale], names: Sequence[str] | None, whole: Hardware) -> list[Scale]:
    if names is None:
        nonlinear = bool(whole.devices.conduction.law.shape)
        return [scale for scale in known if not (nonlinear and scale.name == LINES)]
    by_name = {scale.name: scale for scale in known}
    for name in names:
        if name not in by_name:
            raise OptionError(f"the effect '{name}' cannot be scaled here; expected some of {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(names)]


@dataclass(frozen=True)
class _Curve:
    """Sizes (size,), the first 0, and the loss (size, network, chip) at each."""

    sizes: np.ndarray
    losses: np.ndarray


def _curve(
    scale: Scale, base: Hardware, error_of: Callable[[Hardware, str], np.ndarray], allowed: float, seed: int
) -> _Curve:
    """Evaluate the sizes up to the first that surely costs more than is allowed, and some about the crossing."""
    without = error_of(base, f"without {scale.name}")
    losses: dict[float, np.ndarray] = {0.0: np.zeros_like(without)}

    def add(size: float) -> None:
        losses[size] = error_of(scale.at(base, size), f"{scale.name} {size:.3g}") - without

    for size in scale.sizes:
        add(size)
        if np.quantile(_resampled(losses[size][None], seed)[:, 0], _TAIL) > allowed:
            break
    sizes = np.array(sorted(losses))
    rising = _isotonic(np.stack([losses[size].mean() for size in sizes]))
    above = np.flatnonzero(rising > allowed)
    if len(above):
        low, high = sizes[above[0] - 1], sizes[above[0]]
        start = low if low > 0 else high / 100
        inner = np.geomspace(start, high, _REFINED + 2)
        for size in inner[1:-1]:
            add(float(size))
    sizes = np.array(sorted(losses))
    return _Curve(sizes, np.stack([losses[size] for size in sizes]))


def _isotonic(losses: np.ndarray) -> np.ndarray:
    return isotonic_regression(losses).x


def crossing(sizes: np.ndarray, losses: np.ndarray, allowed: float) -> float:
    """Return the size at which the isotonic fit of losses (size,), 0 at the first size 0, crosses the one allowed.

    Infinite where it stays below.
    """
    fitted = np.maximum(_isotonic(losses), 0.0)
    above = np.flatnonzero(fitted > allowed)
    if not len(above):
        return float("inf")
    k = int(above[0])
    share = float((allowed - fitted[k - 1]) / (fitted[k] - fitted[k - 1]))
    low, high = float(sizes[k - 1]), float(sizes[k])
    return low * (high / low) ** share if low > 0 else share * high


def _resampled(losses: np.ndarray, seed: int) -> np.ndarray:
    """Return means (resample, size) of losses (size, network, chip), networks and chips drawn with replacement."""
    generator = np.random.default_rng(seed)
    _, networks, chips = losses.shape
    rows = generator.multinomial(networks, np.full(networks, 1 / networks), RESAMPLES) / networks
    columns = generator.multinomial(chips, np.full(chips, 1 / chips), RESAMPLES) / chips
    return np.einsum("rn,snc,rc->rs", rows, losses, columns, optimize=True)


def _interval(curve: _Curve, allowed: float, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the crossing; NaN where one chip tells nothing of its spread."""
    if curve.losses[0].size < 2:
        return float("nan"), float("nan")
    found = [crossing(curve.sizes, losses, allowed) for losses in _resampled(curve.losses, seed)]
    low, high = np.quantile(found, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def _dataset(scales: list[Scale], curves: list[_Curve], allowed: float, seed: int) -> xr.Dataset:
    most = max(len(curve.sizes) for curve in curves)
    count = len(scales)
    size_value, mean, fitted = (np.full((count, most), np.nan) for _ in range(3))
    bound = np.full((count, most, 2), np.nan)
    found, found_bound = np.full(count, np.nan), np.full((count, 2), np.nan)
    for k, curve in enumerate(curves):
        n = len(curve.sizes)
        means = [paired.mean(each) for each in curve.losses]
        size_value[k, :n], mean[k, :n] = curve.sizes, [m.value for m in means]
        bound[k, :n] = [[m.low, m.high] for m in means]
        fitted[k, :n] = np.maximum(_isotonic(mean[k, :n]), 0.0)
        found[k] = crossing(curve.sizes, mean[k, :n], allowed)
        found_bound[k] = _interval(curve, allowed, seed)
    text = "in the unit of the effect"
    return xr.Dataset(
        {
            "size_value": (("effect", "size"), size_value, {"long_name": f"size of the effect, {text}"}),
            "loss": (("effect", "size"), mean, {"units": "1", "long_name": "mean loss of accuracy"}),
            "loss_bound": (
                ("effect", "size", "bound"),
                bound,
                {"units": "1", "long_name": "95 % interval"},
            ),
            "loss_isotonic": (("effect", "size"), fitted, {"units": "1", "long_name": "isotonic fit of the loss"}),
            "crossing": (("effect",), found, {"long_name": f"size at which the loss is the one allowed, {text}"}),
            "crossing_bound": (("effect", "bound"), found_bound, {"long_name": "95 % interval of the crossing"}),
            "present": (("effect",), [s.present for s in scales], {"long_name": f"size that the device has, {text}"}),
            "quantity": (("effect",), [s.quantity for s in scales]),
            "unit": (("effect",), [s.unit for s in scales]),
        },
        coords={"effect": [s.name for s in scales], "bound": ["low", "high"]},
    )


def open_requirements(path: str | Path) -> xr.Dataset:
    """Open a file of requirements and check it.

    Raises
    ------
    ModelError
        When it is damaged or holds no requirements.
    """
    found = files.open_netcdf(path, "file of requirements", "make it again with 'calib requirements'").to_dataset()
    schema = found.attrs.get("schema", "")
    if schema != SCHEMA or "crossing_bound" not in found:
        raise ModelError(f"'{path}' holds no requirements: found schema '{schema}', expected '{SCHEMA}'")
    return found


def rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """Return the requirements as plain values; the keys are those of the JSON output."""
    result = []
    for effect in found["effect"].values:
        one = found.sel(effect=effect)
        result.append({
            "effect": str(effect),
            "quantity": str(one["quantity"].values),
            "unit": str(one["unit"].values),
            "at_most": float(one["crossing"]),
            "at_most_low": float(one["crossing_bound"][0]),
            "at_most_high": float(one["crossing_bound"][1]),
            "largest_tried": float(one["size_value"].max()),
            "present": float(one["present"]),
        })  # fmt: skip
    return result


def shown(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return requirement, interval and present size of a row, in words."""

    def text(value: float) -> str:
        if value != value:
            return ""
        if np.isinf(value):
            return f"more than {text(row['largest_tried'])}"
        return format_quantity(value, "ohm") if row["unit"] == "ohm" else format_number(value)

    low, high = text(row["at_most_low"]), text(row["at_most_high"])
    interval = low if low == high else f"{low} to {high}"
    return text(row["at_most"]), interval, text(row["present"])
