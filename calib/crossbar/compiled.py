"""Compiled loops (`calib.crossbar.kernels`), where numba is installed.

Numba is optional: without it, on a GPU, inside of `torch.func` transforms and with NUMBA_DISABLE_JIT=1, the same
numbers come from torch, in `calib.crossbar.exponential` and `calib.crossbar.encoding`, and agree to rounding.
"""

import functools
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch

from calib.crossbar.functions import transforms_active

_DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


@functools.cache
def _loops() -> ModuleType | None:
    try:
        import numba

        if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
            return None
        from calib.crossbar import kernels
    except ImportError:  # not there, or not for this numpy
        return None
    return kernels


def usable(*tensors: torch.Tensor) -> bool:
    """Say whether compiled loops can be used for `tensors`."""
    for tensor in tensors:
        if tensor.device.type != "cpu" or tensor.dtype not in _DTYPES:
            return False
    return not transforms_active() and _loops() is not None


def loops() -> ModuleType:
    """Return the compiled loops, which are there if they are usable."""
    found = _loops()
    assert found is not None
    return found


def numbers(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's numbers as a contiguous array, in the same memory if it is contiguous."""
    return tensor.detach().contiguous().numpy()


class Constants:
    """Arrays of numbers that compiled loops are given, in the precision of the tensors."""

    def __init__(self, *arrays: Sequence[float]) -> None:
        self._arrays = arrays
        self._cast: dict[torch.dtype, tuple[np.ndarray, ...]] = {}

    def of(self, dtype: torch.dtype) -> tuple[np.ndarray, ...]:
        """Return the arrays in one precision."""
        if dtype not in self._cast:
            self._cast[dtype] = tuple(np.array(values, _DTYPES[dtype]) for values in self._arrays)
        return self._cast[dtype]
