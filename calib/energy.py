"""Power, energy and efficiency of inference from the devices' currents.

As in Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784: only the power dissipated in the
devices, P = sum |V| |I|, counts; converters and other periphery are not included.
"""

from collections.abc import Iterable

from torch import nn

from calib.crossbar.layers import memristive_layers

READ_TIME = 50e-9
"""Duration of one read [s]."""


def synapses(module_or_sizes: "nn.Module | Iterable[tuple[int, int]]") -> int:
    """Return N = sum over layers of (n_in + 1) n_out, of a network or of pairs (n_in, n_out)."""
    if isinstance(module_or_sizes, nn.Module):
        module_or_sizes = [(layer.in_features, layer.out_features) for layer in memristive_layers(module_or_sizes)]
    return sum((n_in + 1) * n_out for n_in, n_out in module_or_sizes)


def energy_per_inference(power, read_time: float = READ_TIME):
    """Return sum(P) t_read [J] of the layers' powers (..., layer) [W]."""
    return power.sum(-1) * read_time


def efficiency(power, synapses: int, read_time: float = READ_TIME):
    """Return 2 N / (t_read sum(P)) [1e12 operations per second and watt] of the layers' powers (..., layer) [W]."""
    return 2e-12 * synapses / (read_time * power.sum(-1))
