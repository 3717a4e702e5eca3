"""Signal to noise of a bit line: how much of its current says the weight, and how much says which chip it is."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import xarray as xr

from calib import device_model
from calib.crossbar import drawing
from calib.crossbar.array import Array
from calib.crossbar.devices import Devices, generator
from calib.effects import Hardware

LEAST = 1.0
"""Signal to noise under which training is warned of."""
_LEVELS, _DRAWS = 33, 1000


@dataclass(frozen=True)
class SignalToNoise:
    """Signal to noise of a bit line, of all effects together and of each alone.

    Attributes
    ----------
    value : of all effects of the devices together; infinite where all devices are alike.
    alone : by effect, the lowest first; those that do not scatter are left out.
    input_voltage : [V] at which devices are read.
    """

    value: float
    alone: dict[str, float]
    input_voltage: float

    @property
    def warning(self) -> str | None:
        """A sentence for whoever trains on the devices, None where the signal is larger than the noise."""
        if self.value >= LEAST:
            return None
        parts = ", ".join(f"{name} {value:.2g}" for name, value in list(self.alone.items())[:3])
        alone = f" (alone: {parts})" if len(self.alone) > 1 else ""
        return (
            f"the spread of the devices drowns the signal: the signal to noise of a bit line whose weights fill the "
            f"range is {self.value:.2g} at {self.input_voltage:g} V{alone}; expect errors far above those of ideal "
            "devices with the usual training; '--mapping lowest --scale learned --learning-rate 0.03 --variation "
            "moments' with more hidden units (--layers) bears much more, and 'calib requirements' says which effect "
            "has to shrink"
        )


def signal_to_noise(devices: Devices, seed: int = 0) -> SignalToNoise:
    """Return the signal to noise of a bit line of devices whose weights are uniform over the range.

    A device that is programmed to the conductance G of a weight w carries I at the input voltage. Over drawn devices
    its variance has two parts, Var I = Var_w E[I | w] + E_w Var[I | w], of which the first is signal and the second,
    fixed with the chip, is noise. With independent devices both add up over the word lines alike, whatever the inputs
    and however long the bit line, and in a difference of two bit lines as well:

        SNR = sqrt(Var_w E[I | w] / E_w Var[I | w]).

    Noise from reading to reading is not counted; it is averaged by reading again. Trained weights, most of them small,
    have less signal and, where the spread is relative, less noise.

    Parameters
    ----------
    devices : of a layer.
    seed : of the devices that are drawn.
    """
    whole = _ratio(devices, seed)
    hardware = Hardware(devices, Array())
    alone = {}
    for effect in hardware.effects if math.isfinite(whole) else ():
        value = _ratio(hardware.alone(effect)[0].devices, seed)
        if math.isfinite(value):
            alone[effect] = value
    ordered = dict(sorted(alone.items(), key=lambda item: item[1]))
    return SignalToNoise(whole, ordered, devices.input_voltage)


@torch.no_grad()
def _ratio(devices: Devices, seed: int) -> float:
    dtype = torch.float64
    weight = (torch.arange(_LEVELS, dtype=dtype) + 0.5) / _LEVELS
    target = devices.g_off + (devices.g_on - devices.g_off) * weight[:, None].repeat(1, _DRAWS)  # (level, draw)
    g = drawing.programmed(
        devices, target, lambda name: generator(seed, name), lambda name: generator(seed, name, "device")
    )
    conduction = devices.conduction
    deviates = conduction.deviates(tuple(g.shape), generator(seed, conduction.name), dtype)
    voltage = torch.full((), devices.input_voltage, dtype=dtype)
    current = conduction.law.current(voltage, xp=torch, **conduction.parameters(g, deviates))
    signal = float(current.mean(1).var(correction=0))
    noise = float(current.var(1, correction=0).mean())
    return math.sqrt(signal / noise) if noise > 1e-24 * signal else math.inf


def spread_warning(
    device: str | Path | xr.DataTree, input_voltage: float = 0.5, extrapolate: bool = False
) -> str | None:
    """Return a sentence for whoever trains on a device model whose spread is larger than its signal, else None.

    Parameters
    ----------
    device : device model: a tree, a path or a bundled name.
    input_voltage, extrapolate : as of `calib.train`.
    """
    tree = device if isinstance(device, xr.DataTree) else device_model.open_device(device)
    return signal_to_noise(Devices.from_model(tree, input_voltage=input_voltage, extrapolate=extrapolate)).warning
