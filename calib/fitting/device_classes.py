"""Outlier devices: a Gaussian mixture of the devices' means, in which the error of each mean is known."""

from dataclasses import dataclass

import numpy as np

MINIMUM_DEVICES = 40
MAXIMUM_COMPONENTS = 3
CLEAR = 0.9
"""Components become classes of devices when those assigned to each belong to it with this probability, on average."""
OUTLIER_SHARE = 0.3
"""Classes of fewer than this part of the devices are called outliers."""
_ITERATIONS = 200
_GAIN = 0.01  # of the log likelihood, far under what the criterion tells apart


@dataclass(frozen=True)
class Classes:
    """Classes of devices.

    Attributes
    ----------
    which : (device,) class of each device, 0 the largest.
    n_components : number of components with the smallest criterion.
    bic : (component count,) criterion of one, two, ... components.
    reason : why the devices are one class or several.
    """

    which: np.ndarray
    n_components: int
    bic: np.ndarray
    reason: str


def find_classes(means: np.ndarray, within: np.ndarray, minimum_rows: int, counts: np.ndarray) -> Classes:
    """Group devices by their means.

    Components are fitted to the means by expectation maximisation with each mean's own error covariance taken off
    (J. Bovy, D. W. Hogg, S. T. Roweis, Annals of Applied Statistics 5, 1657 (2011), doi 10.1214/10-AOAS439); their
    number is the one of the smallest Bayesian information criterion. They are taken for classes only where they are
    clearly apart: a skewed distribution is also fitted by several components, but its devices belong to none clearly.

    Parameters
    ----------
    means : (device, feature).
    within : (feature, feature) covariance of the cycles of a device; that of a mean's error is within / counts.
    minimum_rows : least number of cycles of a class.
    counts : (device,) number of cycles.
    """
    n_devices, size = means.shape
    one = np.zeros(n_devices, dtype=np.int64)
    if n_devices < MINIMUM_DEVICES:
        return Classes(
            one, 1, np.zeros(0), f"fewer than {MINIMUM_DEVICES} devices: classes of devices were not looked for"
        )
    middle = np.median(means, axis=0)
    scale = 1.4826 * np.median(np.abs(means - middle), axis=0)
    scale = np.where(scale > 0, scale, np.maximum(means.std(axis=0), 1e-12))
    x = (means - middle) / scale
    sizes, kind = np.unique(counts, return_inverse=True)
    noise = within / np.outer(scale, scale) / sizes[:, None, None]  # (kind, feature, feature)
    criteria, parts = [], []
    for k in range(1, MAXIMUM_COMPONENTS + 1):
        value, belongs = max((_fit(x, noise, kind, start) for start in _starts(x, k)), key=lambda found: found[0])
        free = k * (1 + size + size * (size + 1) // 2) - 1
        criteria.append(free * np.log(n_devices) - 2 * value)
        parts.append(belongs)
    best = int(np.argmin(criteria)) + 1
    bic = np.array(criteria)
    if best == 1:
        return Classes(one, 1, bic, "the devices' means are one normal cloud (BIC)")
    belongs = parts[best - 1]
    which = belongs.argmax(axis=1)
    sure = [float(belongs[which == k, k].mean()) if (which == k).any() else 0.0 for k in range(best)]
    size_of = [int(counts[which == k].sum()) for k in range(best)]
    if min(sure) < CLEAR or min(size_of) < minimum_rows:
        return Classes(
            one, best, bic,
            f"{best} normal components describe the devices' means best (BIC), but they overlap or are too small to be "
            "classes of devices",
        )  # fmt: skip
    order = np.argsort([-np.sum(which == k) for k in range(best)], kind="stable")
    which = np.argsort(order)[which]
    sizes_of = [int((which == k).sum()) for k in range(best)]
    listed = ", ".join(f"{size}{' (outliers)' if size < OUTLIER_SHARE * n_devices else ''}" for size in sizes_of)
    return Classes(which, best, bic, f"the devices fall into {best} classes of {listed} devices (BIC)")


def _starts(x: np.ndarray, k: int) -> list[np.ndarray]:
    """Return starting memberships (device, component): all, by distance from the middle, and along each feature."""
    n = len(x)
    if k == 1:
        return [np.ones((n, 1))]
    keys = [np.sqrt(np.square(x).sum(axis=1)), *x.T]
    found = []
    for key in keys:
        for share in (0.05, 0.2) if k == 2 else (0.1,):
            for tail in (key, -key):
                cuts = np.quantile(tail, [1 - share * (k - 1 - j) for j in range(k - 1)])
                member = np.searchsorted(cuts, tail, side="right")
                found.append(0.02 / k + 0.98 * np.eye(k)[np.minimum(member, k - 1)])
    return found


def _fit(x: np.ndarray, noise: np.ndarray, kind: np.ndarray, belongs: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the log likelihood and the memberships at the end of the expectation maximisation.

    `noise` is (kind, feature, feature), and `kind` says which of them each device has.
    """
    n, size = x.shape
    k = belongs.shape[1]
    floor = 0.05**2 * np.eye(size)
    weight = belongs.mean(axis=0)
    centre = np.einsum("nk,nf->kf", belongs, x) / belongs.sum(axis=0)[:, None]
    spread = np.stack([_weighted(x - centre[j], belongs[:, j]) + floor for j in range(k)])
    last = -np.inf
    for _ in range(_ITERATIONS):
        logs, shifts, rests = [], [], []
        for j in range(k):
            total = spread[j] + noise
            inverse = np.linalg.inv(total)
            difference = x - centre[j]
            solved = np.einsum("nij,nj->ni", inverse[kind], difference)
            quadratic = np.einsum("ni,ni->n", difference, solved)
            determinant = np.linalg.slogdet(total)[1][kind]
            logs.append(np.log(max(weight[j], 1e-300)) - 0.5 * (size * np.log(2 * np.pi) + determinant + quadratic))
            shifts.append(solved @ spread[j])
            rests.append(spread[j] - spread[j] @ inverse @ spread[j])
        log = np.stack(logs, axis=1)
        top = log.max(axis=1, keepdims=True)
        total_log = top[:, 0] + np.log(np.exp(log - top).sum(axis=1))
        belongs = np.exp(log - total_log[:, None])
        value = float(total_log.sum())
        if value - last < _GAIN:
            break
        last = value
        weight = belongs.mean(axis=0)
        for j in range(k):
            each = belongs[:, j] / max(belongs[:, j].sum(), 1e-12)
            found = centre[j] + shifts[j]  # the true mean, given the measured one
            centre[j] = each @ found
            spread[j] = (
                _weighted(found - centre[j], each)
                + np.einsum("k,kij->ij", np.bincount(kind, each, len(noise)), rests[j])
                + floor / n
            )
    return value, belongs


def _weighted(difference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.einsum("n,ni,nj->ij", weight, difference, difference) / max(weight.sum(), 1e-12)
