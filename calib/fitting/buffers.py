"""Arrays that are used again: fresh large ones cost more, in page faults, than what is computed in them."""

import math
import threading

import numpy as np


class _Local(threading.local):
    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}


_local = _Local()


def scratch(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of float64 with any content; the next call with this name, in this thread, takes it back."""
    size = math.prod(shape)
    array = _local.arrays.get(name)
    if array is None or array.size < size:
        array = _local.arrays[name] = np.empty(size)
    return array[:size].reshape(shape)
