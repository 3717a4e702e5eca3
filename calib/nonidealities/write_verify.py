"""Programming error of devices that are written and verified."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from scipy.special import ndtr

from calib.errors import OptionError
from calib.nonidealities._quantile_table import QuantileTable, bounded
from calib.nonidealities.base import AS_PROGRAMMED, Conditions, ConductanceNonideality, deviate, interpolate

_ONE_SIGMA = ndtr([-1.0, 1.0])
"""Probabilities of the two quantiles that make a normal distribution."""


class WriteVerify(ConductanceNonideality):
    """A write that is verified leaves G exp(Q(z)) instead of the target G, z ~ N(0, 1), or fails and leaves another G.

    Q is the quantile function of ln(achieved / target) of successful writes, known at some targets and interpolated
    linearly in ln G between them, constant outside: bias and spread together, in the measured form where the model
    has quantiles (then within the target range, which a successful write is in), else lognormal. A write fails with the
    probability 1 - success, interpolated likewise; a failed device has a conductance of the failed writes, whatever
    its target, and no gradient. Drawn once per chip; the share of the variance that lies between devices is drawn
    from the device generator, if one is given.

    Parameters
    ----------
    target : (target,) [S] > 0, all different.
    probability : (quantile,) ascending between 0 and 1, both not included.
    achieved : (target, quantile) [S] > 0 of successful writes.
    success : (target,) probability of success, None where all succeed.
    failed : (target, quantile) [S] > 0 of failed writes; NaN where none failed.
    share : (target,) of the variance between devices, None where it is not known.
    """

    name = "write-verify"
    stage = "program"
    redraw = "chip"
    precedence = 1  # what a write achieves replaces the spread of devices that are not verified

    def __init__(
        self,
        target: Sequence[float],
        probability: Sequence[float] | np.ndarray,
        achieved: np.ndarray,
        success: Sequence[float] | None = None,
        failed: np.ndarray | None = None,
        share: Sequence[float] | None = None,
    ) -> None:
        t = np.asarray(target, dtype=float)
        order = np.argsort(t)
        achieved = np.atleast_2d(np.asarray(achieved, dtype=float))
        if t.ndim != 1 or not len(t) or not (t > 0).all() or not (achieved > 0).all():
            raise OptionError(f"write-verify needs targets > 0 and conductances > 0; found {target}, {achieved}")
        self.target = tuple(t[order].tolist())
        self.probability = np.asarray(probability, dtype=float)
        self.achieved = achieved[order]
        self.success = tuple(np.ones(len(t)) if success is None else np.asarray(success, dtype=float)[order])
        self.share = None if share is None else tuple(np.asarray(share, dtype=float)[order].tolist())
        if not all(0 <= p <= 1 for p in (*self.success, *(self.share or ()))):
            raise OptionError(f"write-verify needs probabilities and shares of 0 to 1; found {success}, {share}")
        self._ln_target = tuple(np.log(self.target).tolist())
        self._error = QuantileTable(self._ln_target, self.probability, np.log(self.achieved / t[order][:, None]))
        self._failed = None
        if min(self.success) < 1:
            if failed is None:
                raise OptionError("write-verify needs the conductances of failed writes where writes fail")
            self._failed = QuantileTable(self._ln_target, self.probability, np.log(_filled(failed)[order]))

    @classmethod
    def from_device(cls, tree: xr.DataTree, conditions: Conditions = AS_PROGRAMMED) -> "WriteVerify | None":
        if "writes" not in tree.children:
            return None
        node = tree["writes"].to_dataset()
        target, sigma = node["target"].values, node["sigma"].values
        known = np.isfinite(sigma) & (target > 0)
        if not known.any():
            return None
        node = node.isel(target=np.flatnonzero(known))
        target, sigma = target[known], sigma[known]
        success, failed = _success(node), None
        probability, ln_achieved = _ONE_SIGMA, _lognormal(target + node["bias"].values, sigma)
        if "achieved_quantile" in node and (node["achieved_quantile"].values > 0).all():
            measured = node["quantile"].values
            with np.errstate(divide="ignore"):
                limits = np.log(node["target_low"].values), np.log(node["target_high"].values)
            probability, ln_achieved = bounded(measured, np.log(node["achieved_quantile"].values), *limits)
            if "failed_quantile" in node and (node["failed_quantile"].values > 0).all(axis=1).any():
                failed = np.log(_filled(node["failed_quantile"].values))
        if failed is None:
            success = np.ones(len(target))  # where failed writes end is not known
        else:
            seen = np.append(ln_achieved, failed)
            limits = np.full(len(target), seen.min()), np.full(len(target), seen.max())
            failed = np.exp(bounded(node["quantile"].values, failed, *limits)[1])
        return cls(target.tolist(), probability, np.exp(ln_achieved), success.tolist(), failed, _share(node))

    @property
    def is_ideal(self) -> bool:
        return min(self.success) == 1 and bool((self.achieved == np.asarray(self.target)[:, None]).all())

    def ideal(self) -> "WriteVerify":
        exact = np.repeat(np.asarray(self.target)[:, None], len(self.probability), axis=1)
        return WriteVerify(self.target, self.probability, exact)

    def describe(self) -> str:
        spread = ", ".join(
            f"{s:.3g} at {t:.3g} S" for s, t in zip(np.sqrt(self._error.means(np.square)), self.target, strict=True)
        )
        failures = f", {100 * (1 - min(self.success)):.3g} % of writes fail at worst" if min(self.success) < 1 else ""
        return f"error of ln G after write and verify {spread}{failures}"

    def conductance(
        self,
        conductance: torch.Tensor,
        generator: torch.Generator,
        device_generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        if not self._error.value.any() and self._failed is None:
            return conductance
        ln_g = torch.log(conductance)
        share = None if self.share is None else interpolate(ln_g, self._ln_target, self.share)
        written = conductance * torch.exp(
            self._error.at(ln_g, deviate(conductance, generator, device_generator, share))
        )
        if self._failed is None:
            return written
        with torch.no_grad():
            uniform = torch.empty_like(conductance, requires_grad=False).uniform_(generator=generator)
            fails = uniform >= interpolate(ln_g, self._ln_target, self.success)
            elsewhere = torch.exp(self._failed.at(ln_g, deviate(conductance, generator)))
        return torch.where(fails, elsewhere, written)


def _lognormal(mean: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return ln of the quantiles at -1 and 1 standard deviations of lognormals of given mean and standard deviation."""
    mean = np.maximum(mean, 1e-3 * sigma)
    width = np.sqrt(np.log1p(np.square(sigma / mean)))
    middle = np.log(mean) - width**2 / 2
    return np.stack([middle - width, middle + width], axis=1)


def _success(node: xr.Dataset) -> np.ndarray:
    """Return the probabilities of success of devices that switch, of all devices where those are not told apart."""
    values = node["success_probability"].values
    if "switching_success_probability" in node:
        own = node["switching_success_probability"].values
        values = np.where(np.isfinite(own), own, values)
    return np.where(np.isfinite(values), values, 1.0)


def _share(node: xr.Dataset) -> list[float] | None:
    if not {"sigma_d2d", "sigma_c2c"} <= set(node):
        return None
    between, within = node["sigma_d2d"].values ** 2, node["sigma_c2c"].values ** 2
    total = between + within
    return (between / total).tolist() if (total > 0).all() else None


def _filled(table: np.ndarray) -> np.ndarray:
    """Return the table with rows that are not known replaced by the nearest one that is."""
    table = np.atleast_2d(np.asarray(table, dtype=float))
    known = np.flatnonzero((table > 0).all(axis=1))
    if not len(known):
        raise OptionError("write-verify needs the conductances of failed writes where writes fail")
    rows = np.arange(len(table))
    return table[known[np.abs(rows[:, None] - known).argmin(axis=1)]]


member = WriteVerify
