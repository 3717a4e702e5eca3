# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""Build aihwkit configurations of a measured device from the data file that lies beside this module.

inference_config() for trained networks: programming, stuck devices, drift, read noise;
training_config() for training on the devices: their response to pulses.
"""

import json
from pathlib import Path

import numpy as np
import torch
from aihwkit.inference.converter.conductance import SinglePairConductanceConverter
from aihwkit.inference.noise.base import BaseNoiseModel
from aihwkit.simulator import configs

DATA_FILE = ""
DATA = json.loads(Path(__file__).with_name(DATA_FILE).read_text(encoding="utf-8"))


def _table(at, x, y):
    """Return y, linear between the points x and constant outside, at a tensor of values."""
    values = np.interp(at.detach().cpu().numpy(), x, y)
    return torch.as_tensor(values, dtype=at.dtype, device=at.device)


class MeasuredNoise(BaseNoiseModel):
    """Noise of the measured device. A part that the data lack is None and does nothing."""

    def __init__(self, data=DATA):
        if data["conductance"] is None:
            raise ValueError("the device model states no conductance range, which conductances are mapped to")
        converter = SinglePairConductanceConverter(
            g_max=data["conductance"]["g_on"] * 1e6, g_min=data["conductance"]["g_off"] * 1e6
        )
        super().__init__(converter)
        self.data = data

    @torch.no_grad()
    def apply_programming_noise_to_conductance(self, g_target):
        """R becomes R exp(sigma z - sigma^2 / 2), sigma linear in R; some devices are stuck. In microsiemens."""
        g = g_target.clone()
        part = self.data["programming"]
        if part is not None:
            sigma = _table(1e6 / g, part["resistance"], part["sigma"])
            g = g * torch.exp(sigma * (sigma / 2 - torch.randn_like(g).clamp(-4, 4)))
        part = self.data["stuck"]
        if part is not None:
            values = torch.tensor(part["values"], dtype=g.dtype, device=g.device)
            drawn = values[torch.randint(len(values), g.shape, device=g.device)]
            drawn = (drawn + part["bandwidth"] * torch.randn_like(g)).abs() * 1e6
            g = torch.where(torch.rand_like(g) < part["probability"], drawn, g)
        return g

    @torch.no_grad()
    def generate_drift_coefficients(self, g_target):
        """The exponent nu of every device: normal, mean and standard deviation linear in ln G."""
        part = self.data["drift"]
        if part is None:
            return torch.zeros_like(g_target)
        ln_g, x = torch.log(g_target * 1e-6), np.log(part["conductance"])
        mean, std = _table(ln_g, x, part["exponent_mean"]), _table(ln_g, x, part["exponent_std"])
        return mean + std * torch.randn_like(g_target)

    @torch.no_grad()
    def apply_drift_noise_to_conductance(self, g_prog, drift_noise_param, t_inference):
        """G (t / t0)^-nu from the time t0 on, and one read."""
        g = g_prog
        part = self.data["drift"]
        if part is not None:
            g = g * max(t_inference / part["reference_time"], 1.0) ** -drift_noise_param
        part = self.data["read_noise"]
        if part is not None:
            ratio = (g * 1e-6).clamp(min=1e-15) / part["reference_conductance"]
            relative = part["relative"] * ratio ** part["exponent"]
            relative = relative * torch.exp(part["spread"] * torch.randn_like(g))
            g = g * (1 + relative * torch.randn_like(g))
        return g.clamp(min=0.0)


def inference_config(**options):
    """Return an InferenceRPUConfig with the device's noise; options as of aihwkit's class.

    aihwkit applies noise when `program_analog_weights` and `drift_analog_weights` are called.
    """
    return configs.InferenceRPUConfig(noise_model=MeasuredNoise(), **options)


def training_config(**options):
    """Return a SingleRPUConfig whose devices answer to pulses as the measured ones do."""
    device = DATA["pulsed_device"]
    if device is None:
        raise ValueError("the device model has no pulse response in both directions")
    return configs.SingleRPUConfig(device=getattr(configs, device["class"])(**device["parameters"]), **options)
