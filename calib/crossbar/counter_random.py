"""Random deviates that follow from counters: the same for (key, image, line, stream) whatever else is drawn.

A generator gives numbers in the order in which they are asked for, so that the noise of an image would depend on the
batch that it is in. Here a deviate is a function of its place. The function is SplitMix64 (G. L. Steele, D. Lea,
C. H. Flood, OOPSLA 2014, doi 10.1145/2660193.2660195), the n-th output of which is mix(seed + n gamma), with the
mixing function of D. Stafford (mix 13), applied once for each counter: the output for one counter is the seed of the
next. All arithmetic is that of 64-bit integers modulo 2^64, elementwise, so that results are equal on every machine
and device and under `torch.func.vmap`.
"""

import math

import torch


def _signed(value: int) -> int:
    """Return the signed 64-bit integer of the same bits."""
    return value - 2**64 if value >= 2**63 else value


_UNSIGNED_GAMMA = 0x9E3779B97F4A7C15
_GAMMA = _signed(_UNSIGNED_GAMMA)
_FACTORS = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_LOW_32 = 0xFFFFFFFF


def _shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Return x moved right by `bits`, zeros coming in (torch moves the sign in)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shifted(x, 30)) * _FACTORS[0]
    x = (x ^ _shifted(x, 27)) * _FACTORS[1]
    return x ^ _shifted(x, 31)


def random_bits(key: torch.Tensor, image: torch.Tensor, line: torch.Tensor, stream: int = 0) -> torch.Tensor:
    """Return 64 random bits (int64) of each broadcast place.

    Parameters
    ----------
    key, image, line : int64 tensors that broadcast; the key of a chip, the index of an input, of a line or a device.
    stream : tells apart what is drawn at the same place.
    """
    step = _signed((stream + 1) * _UNSIGNED_GAMMA % 2**64)
    seed = _mix(_mix(key + _GAMMA) + step)
    return _mix(_mix(seed + (image + 1) * _GAMMA) + (line + 1) * _GAMMA)


def uniform(
    key: torch.Tensor, image: torch.Tensor, line: torch.Tensor, stream: int = 0, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Return deviates that are uniform between 0 and 1, both not included, of each broadcast place."""
    bits = 52 if dtype == torch.float64 else 23  # with the half that is added, exact
    return (_shifted(random_bits(key, image, line, stream), 64 - bits).to(dtype) + 0.5) * 2.0**-bits


def normal(
    key: torch.Tensor, image: torch.Tensor, line: torch.Tensor, stream: int = 0, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Return standard normal deviates of each broadcast place, none beyond 6.8.

    By the transform of G. E. P. Box and M. E. Muller, Ann. Math. Stat. 29, 610 (1958), doi 10.1214/aoms/1177706645,
    from the two halves of the bits.
    """
    bits = random_bits(key, image, line, stream)
    radius = ((_shifted(bits, 32)).to(dtype) + 0.5) * 2.0**-32
    angle = ((bits & _LOW_32).to(dtype) + 0.5) * (2 * math.pi * 2.0**-32)
    return torch.sqrt(-2 * torch.log(radius)) * torch.cos(angle)
