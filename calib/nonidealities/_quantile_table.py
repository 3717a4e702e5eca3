"""Distributions that change along a variable, given by quantiles."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from calib.errors import OptionError
from calib.nonidealities.base import Z_MAX

_N_MOMENTS = 20_001


class QuantileTable:
    """Quantile functions Q_k(z) at knots x_k, as functions of a normal deviate z, and Q(z; x) between them.

    Q_k is linear between the normal scores z = Phi^-1(p) of the given probabilities and goes on with its outermost
    slopes beyond them; Q is interpolated linearly in x, constant outside: between two knots the distribution is the
    one whose quantiles lie between theirs.

    Parameters
    ----------
    x : (knot,) ascending.
    probability : (knot, quantile) or (quantile,) ascending between 0 and 1, both not included.
    value : (knot, quantile) not descending.

    Raises
    ------
    OptionError
        When the table has another form.
    """

    def __init__(self, x: Sequence[float], probability: np.ndarray, value: np.ndarray) -> None:
        self.x = tuple(map(float, x))
        self.value = np.atleast_2d(np.asarray(value, dtype=float))
        self.probability = np.broadcast_to(np.asarray(probability, dtype=float), self.value.shape)
        right = (
            len(self.x) == len(self.value) > 0
            and (np.diff(self.x) > 0).all()
            and self.value.shape[1] > 1
            and np.isfinite(self.value).all()
            and (np.diff(self.value, axis=1) >= 0).all()
            and (np.diff(self.probability, axis=1) > 0).all()
            and self.probability.min() > 0
            and self.probability.max() < 1
        )
        if not right:
            raise OptionError(
                "a table of quantiles needs ascending knots, for each at least two ascending probabilities between 0 "
                f"and 1, and values that do not descend; found knots {self.x}, probabilities "
                f"{self.probability.tolist()}, values {self.value.tolist()}"
            )
        self._z = ndtri(self.probability)
        self._slope = np.diff(self.value, axis=1) / np.diff(self._z, axis=1)
        self._intercept = self.value[:, :-1] - self._slope * self._z[:, :-1]

    def at(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return Q(z; x), same shape as both, differentiable by x."""
        rows = [self._row(k, z) for k in range(len(self.x))]
        total = rows[0]
        for k in range(len(rows) - 1):
            low, high = self.x[k : k + 2]
            total = total + (rows[k + 1] - rows[k]) * ((x - low) / (high - low)).clamp(0.0, 1.0)
        return total

    def _row(self, k: int, z: torch.Tensor) -> torch.Tensor:
        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(values.copy(), dtype=z.dtype, device=z.device)

        segment = torch.bucketize(z, tensor(self._z[k, 1:-1]))
        return tensor(self._intercept[k])[segment] + tensor(self._slope[k])[segment] * z

    def means(self, function=lambda q: q) -> np.ndarray:
        """Return (knot,) the mean of function(Q_k(z)), z ~ N(0, 1) clipped as deviates are."""
        edges = np.linspace(-Z_MAX, Z_MAX, _N_MOMENTS)
        z = (edges[1:] + edges[:-1]) / 2
        weight = np.diff(ndtr(edges))
        weight[[0, -1]] += ndtr(-Z_MAX)
        segment = [np.searchsorted(row[1:-1], z) for row in self._z]
        rows = zip(self._intercept, self._slope, segment, strict=True)
        return np.array([weight @ function(a[s] + b[s] * z) for a, b, s in rows])


def bounded(
    probability: np.ndarray, value: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and values with one more quantile at either end, at -+ `Z_MAX`, held to `low` and `high`.

    Parameters
    ----------
    probability : (quantile,).
    value : (knot, quantile) in the coordinate in which they are interpolated.
    low, high : (knot,) what no value is beyond; infinite where nothing is known.
    """
    z = ndtri(probability)
    slope = np.diff(value, axis=1) / np.diff(z)
    first = np.minimum(np.maximum(value[:, 0] + slope[:, 0] * (-Z_MAX - z[0]), low), value[:, 0])
    last = np.maximum(np.minimum(value[:, -1] + slope[:, -1] * (Z_MAX - z[-1]), high), value[:, -1])
    ends = ndtr([-Z_MAX, Z_MAX])
    return np.concatenate([ends[:1], probability, ends[1:]]), np.column_stack([first, value, last])
