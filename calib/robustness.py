"""How accuracy holds on chips when inputs are attacked or noisy, or time passes; and the yield of good chips."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from calib import __version__, attacks, device_model, files, runs
from calib.crossbar.chips import ChipStack
from calib.crossbar.devices import Devices, generator
from calib.errors import ModelError, OptionError
from calib.fitting.intervals import binomial_interval
from calib.nonidealities.base import Conditions
from calib.runs import Run
from calib.vision import ImageData

SCHEMA = "calib-robustness/1"
KNOWLEDGE = ("chip", "device", "ideal")
NOISES = {"gaussian": attacks.gaussian_noise, "uniform": attacks.uniform_noise}
AGEING = ("compensated", "not compensated")
ATTACKS = ("fgsm", "pgd", "noise", "ageing")
STRENGTHS = {
    "fgsm": (0.0, 0.02, 0.05, 0.1, 0.15, 0.2),
    "pgd": (0.0, 0.2, 0.5, 1.0, 2.0, 5.0),
    "noise": (0.0, 0.05, 0.1, 0.2, 0.3, 0.5),
}
"""Those of attacks span the range of the 2024 study that `robustness` names."""
LABELS = {
    "fgsm": ("largest change of a pixel, eps", "1"),
    "pgd": ("L2 norm of the change, eps", "1"),
    "noise": ("standard deviation (gaussian) or half width (uniform) of the noise", "1"),
    "ageing": ("time since programming", "s"),
}
_IMAGES_AT_ONCE = 1000


@dataclass(frozen=True)
class AttackOptions:
    """How PGD moves (`calib.attacks.pgd_l2`), and of how many chips an attacker who knows the device averages."""

    step: float = 0.2
    steps: int = 10
    random_start: bool = False
    known_chips: int = 8

    def __post_init__(self) -> None:
        if not self.step > 0 or self.steps < 1 or self.known_chips < 1:
            raise OptionError(
                f"{self.steps} steps of {self.step} and {self.known_chips} known chips were asked for; expected at "
                "least 1 step longer than 0, and at least 1 chip"
            )


def robustness(
    run: str | Path | Run,
    device: str | Path | xr.DataTree | None = None,
    *,
    attack: str = "fgsm",
    strengths: Sequence[float] | None = None,
    knows: Sequence[str] = ("chip", "ideal"),
    options: AttackOptions | None = None,
    chips: int = 10,
    images: int | None = None,
    seed: int = 0,
    data: ImageData | None = None,
    data_folder: str | Path | None = None,
    extrapolate: bool = False,
    output: str | Path | None = None,
    progress: Callable[..., Any] | None = None,
) -> xr.Dataset:
    """Measure the accuracy of chips against the strength of an attack or of noise, or against time.

    ========= ======================================= ===============================================================
    attack    strength                                curves
    ========= ======================================= ===============================================================
    fgsm      eps, largest change of a pixel          what the attacker knows: 'chip' the devices of the very chip,
    pgd       eps, L2 norm of the change              'device' the device model and weights (gradients are means over
                                                      other chips), 'ideal' the weights alone, on ideal devices
    noise     sigma, or half the width                'gaussian', 'uniform'
    ageing    time since programming [s]              'compensated' for drift, 'not compensated'
    ========= ======================================= ===============================================================

    The attacker knows the label, and pixels stay within 0 and 1. FGSM with eps up to 0.2, and PGD with 10 steps of L2
    length 0.2 and eps up to 5, on networks of 32 hidden neurons whose devices (G_off = 1e-4 S, G_on = 1e-3 S, k_V = 0.5
    V) are stuck at G_off with 10 or 20 %, are those of 'Nonideality-aware training makes memristive networks more
    robust to adversarial attacks' (2024). Noise of readings is another one in the attack than in the use of the chip.

    Parameters
    ----------
    run : folder of a training run.
    device : device model, or 'ideal'; default: that of the run.
    attack : 'fgsm', 'pgd', 'noise' or 'ageing'.
    strengths : ascending; default: `STRENGTHS`; for 'ageing' as programmed and decades of the measured time.
    knows : what attackers know, of `KNOWLEDGE`.
    options : of attacks.
    chips : chips of each network; the same numbers are the same chips whatever the attack.
    images : how many of the test images, from the first; default: all.
    seed : of chips, noise and random starts.
    data, data_folder, extrapolate : see `calib.evaluate`.
    output : file to write the result to, netCDF-4.
    progress : called with (n=1, text) after each network, curve and strength.

    Returns
    -------
    xarray.Dataset
        `accuracy` (curve, network, chip, strength).

    Raises
    ------
    OptionError
        When an option cannot be used.
    ModelError
        When ageing is asked of a model without retention.
    """
    opened = run if isinstance(run, Run) else runs.open_run(run)
    tree = tree_of(opened, device)
    curves = curves_of(attack, knows)
    wanted = strengths_of(attack, strengths, tree)
    if chips < 1 or (images is not None and images < 1):
        raise OptionError(f"chips is {chips} and images {images}; expected at least 1")
    taken = data if data is not None else opened.data(None, data_folder)
    study = _Study(opened, tree, attack, options or AttackOptions(), range(chips), seed, extrapolate, taken, images)
    accuracy = np.empty((len(curves), opened.options.networks, chips, len(wanted)))
    for network in range(opened.options.networks):
        for row, column, found in study.accuracies(network, curves, wanted):
            accuracy[row, network, :, column] = found
            if progress is not None:
                progress(1, f"network {network} {curves[row]} {wanted[column]:g}")
    result = _dataset(accuracy, curves, wanted, opened, study)
    if output is not None:
        files.write_netcdf(result, output)
    return result


def tree_of(run: Run, device: Any) -> xr.DataTree | None:
    """Return the device model, None for ideal devices."""
    if isinstance(device, str) and device == "ideal":
        return None
    if device is None:
        return run.device
    return device if isinstance(device, xr.DataTree) else device_model.open_device(device)


def curves_of(attack: str, knows: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the curves, see `robustness`."""
    if attack not in ATTACKS:
        raise OptionError(f"the attack is '{attack}'; expected one of {', '.join(ATTACKS)}")
    if attack == "noise":
        return tuple(NOISES)
    if attack == "ageing":
        return AGEING
    wrong = [name for name in knows if name not in KNOWLEDGE]
    if wrong or not knows or len(set(knows)) < len(knows):
        raise OptionError(
            f"what attackers know is {', '.join(knows) or 'empty'}; expected some of {', '.join(KNOWLEDGE)}, each once"
        )
    return tuple(knows)


def strengths_of(attack: str, given: Sequence[float] | None, tree: xr.DataTree | None) -> tuple[float, ...]:
    """Return the strengths given, or the usual ones of the attack."""
    if attack == "ageing" and (tree is None or "retention" not in tree.children):
        name = "ideal" if tree is None else str(tree.attrs.get("name", ""))
        raise ModelError(
            f"the device model '{name}' has no retention (node 'retention'), without which nothing ages; fit it from "
            "reads over time"
        )
    if given is None:
        if attack != "ageing":
            return STRENGTHS[attack]
        assert tree is not None
        ends = (float(tree["retention"].attrs[key]) for key in ("t_first", "t_last"))
        low, high = (np.log10(end) for end in ends)
        return (0.0, *(float(10.0**decade) for decade in range(int(np.ceil(low)), int(np.floor(high)) + 1)))
    values = tuple(float(value) for value in given)
    rising = all(a < b for a, b in itertools.pairwise(values))
    if not values or not all(np.isfinite(values)) or values[0] < 0 or not rising:
        raise OptionError(f"the strengths are {list(values)}; expected ascending numbers of 0 or more")
    return values


class _Study:
    """Chips of a run's networks on images."""

    def __init__(
        self,
        run: Run,
        tree: xr.DataTree | None,
        attack: str,
        options: AttackOptions,
        chips: range,
        seed: int,
        extrapolate: bool,
        data: ImageData,
        images: int | None,
    ) -> None:
        self.run, self.tree, self.attack, self.options = run, tree, attack, options
        self.chips, self.seed, self.extrapolate, self.data = chips, seed, extrapolate, data
        self.images = torch.tensor(data.test_images[:images])
        self.labels = torch.tensor(data.test_labels[:images])
        self.name = "ideal" if tree is None else str(tree.attrs.get("name", "")) or "device"

    def devices(self, conditions: Conditions | None = None) -> Devices:
        """Return the devices, as programmed or after a time."""
        options = self.run.options
        allowed = self.extrapolate or options.extrapolate
        made = Devices.from_model(
            self.run.device if self.tree is None else self.tree,
            input_voltage=options.input_voltage,
            extrapolate=allowed,
            conditions=conditions or Conditions(),
        )
        return made.ideal() if self.tree is None else made

    def accuracies(
        self, network: int, curves: Sequence[str], strengths: Sequence[float]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield positions of a curve and a strength, and the accuracy (chip,)."""
        if self.attack == "ageing":
            for column, time in enumerate(strengths):
                for row, curve in enumerate(curves):
                    devices = self.devices(Conditions(time=time, compensate=curve == "compensated"))
                    stack = ChipStack(self.run.network(network, devices), self.seed, self.chips)
                    yield row, column, self._right(stack, lambda images, labels, start: images)
            return
        devices = self.devices()
        stack = ChipStack(self.run.network(network, devices), self.seed, self.chips)
        for row, curve in enumerate(curves):
            attackers = self._attackers(network, devices, curve)
            for column, strength in enumerate(strengths):
                if len(attackers) == 1:
                    found = self._right(stack, self._change(attackers[0], curve, network, strength))
                else:
                    found = np.concatenate([
                        self._right(own, self._change(own, curve, network, strength)) for own in attackers
                    ])  # fmt: skip
                yield row, column, found

    def _attackers(self, network: int, devices: Devices, curve: str) -> list[Any]:
        """Return the chips whose gradients are taken: for each chip its own, or one set for all; None for noise."""
        if curve in NOISES:
            return [None]
        if curve == "chip":
            module = self.run.network(network, devices)
            return [ChipStack(module, self.seed, [chip]) for chip in self.chips]
        if curve == "ideal":
            return [ChipStack(self.run.network(network, devices.ideal()), self.seed, [0])]
        known = range(self.options.known_chips)
        return [ChipStack(self.run.network(network, devices), f"{self.seed}/attacker", known)]

    def _change(self, attacker: Any, curve: str, network: int, strength: float) -> Callable[..., torch.Tensor]:
        """Return what makes images (batch, feature) of images, labels and the index of the first image."""

        def change(images: torch.Tensor, labels: torch.Tensor, start: int) -> torch.Tensor:
            random = generator(self.seed, "robustness", self.attack, curve, network, start)
            if strength == 0:
                return images
            if attacker is None:
                return NOISES[curve](images, strength, random)

            def model(given: torch.Tensor) -> torch.Tensor:
                return attacker(given, len(self.images) + start)  # other readings than those of the chip's use

            if self.attack == "fgsm":
                return attacks.fgsm(model, images, labels, strength)
            return attacks.pgd_l2(
                model, images, labels, strength, step=self.options.step, steps=self.options.steps,
                generator=random if self.options.random_start else None,
            )  # fmt: skip

        return change

    def _right(self, stack: ChipStack, change: Callable[..., torch.Tensor]) -> np.ndarray:
        """Return the accuracy (chip,) on changed images."""
        right = torch.zeros(stack.count, dtype=torch.int64)
        for start in range(0, len(self.images), _IMAGES_AT_ONCE):
            part = slice(start, start + _IMAGES_AT_ONCE)
            labels = self.labels[part]
            given = change(self.images[part], labels, start)
            with torch.no_grad():
                right += (stack(given, start).argmax(-1) == labels).sum(-1)
        return (right.double() / len(self.images)).numpy()


def _dataset(
    accuracy: np.ndarray, curves: Sequence[str], strengths: Sequence[float], run: Run, study: _Study
) -> xr.Dataset:
    label, unit = LABELS[study.attack]
    options = study.options
    return xr.Dataset(
        {
            "accuracy": (
                ("curve", "network", "chip", "strength"),
                accuracy,
                {"units": "1", "long_name": "fraction of test images classified rightly"},
            )
        },
        coords={
            "curve": list(curves),
            "network": [f"{run.path.resolve().name}/{index}" for index in range(accuracy.shape[1])],
            "chip": np.array(study.chips),
            "strength": ("strength", np.array(strengths), {"units": unit, "long_name": label}),
        },
        attrs={
            "schema": SCHEMA,
            "calib_version": __version__,
            "attack": study.attack,
            "device": study.name,
            "device_hash": "" if study.tree is None else device_model.identity(study.tree),
            "images": len(study.images),
            "options": json.dumps({
                "step": options.step, "steps": options.steps, "random_start": options.random_start,
                "known_chips": options.known_chips, "extrapolate": study.extrapolate,
            }),
            "seed": int(study.seed),
            "data": json.dumps({"name": study.data.name, "sha256": study.data.sha256}, ensure_ascii=False),
            "versions": json.dumps(runs.versions(), sort_keys=True),
            "training": json.dumps(run.record, sort_keys=True, ensure_ascii=False),
        },
    )  # fmt: skip


def yield_above(accuracy: xr.DataArray, threshold: float) -> xr.Dataset:
    """Return the fraction of chips whose accuracy is at least a threshold, with its exact 95 % interval.

    Parameters
    ----------
    accuracy : with the dimension chip, and network where there are several, whose chips are counted together: the
        interval is then that of further chips of the same networks.
    threshold : between 0 and 1.

    Returns
    -------
    xarray.Dataset
        `yield`, `low`, `high` and `chips` over the remaining dimensions (Clopper-Pearson intervals).

    Raises
    ------
    OptionError
        When the threshold is not between 0 and 1.
    """
    if not 0 <= threshold <= 1:
        raise OptionError(f"the accuracy that chips are to have is {threshold}; expected 0 to 1, such as 0.9")
    over = [name for name in ("network", "chip") if name in accuracy.dims]
    count = int(np.prod([accuracy.sizes[name] for name in over]))
    good = (accuracy >= threshold).sum(over)
    ends = np.array([binomial_interval(int(n), count) for n in good.values.ravel()]).reshape(*good.shape, 2)
    return xr.Dataset(
        {
            "yield": good / count,
            "low": good.copy(data=ends[..., 0]),
            "high": good.copy(data=ends[..., 1]),
            "chips": count,
        },
        attrs={"threshold": float(threshold)},
    )
