"""What the estimates of a characteristic must hold to."""

import numpy as np

from calib.characteristics.base import Estimate


def check_estimates(found: list[Estimate]) -> None:
    """Every estimate is a number inside its interval, with a sample size, and has a key of its own."""
    keys = [(estimate.state, estimate.quantity) for estimate in found]
    assert len(keys) == len(set(keys))
    for estimate in found:
        assert np.isfinite(estimate.value)
        assert estimate.label
        assert estimate.n
        assert estimate.method
        assert not estimate.low > estimate.value
        assert not estimate.high < estimate.value
