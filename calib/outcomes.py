"""What results say: one outcome for each training run and each device model that it was evaluated on.

The unit of every interval is the chip: 5 to 95 % of the chips is what single arrays will do, and the interval of the
median is that of a bootstrap over trained networks and, within each, over chips.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from calib.errors import ModelError

RESAMPLES = 2000
SEED = 20220502
HISTORY = ("train_error", "validation_error_median", "validation_error_low", "validation_error_high")


@dataclass(frozen=True, eq=False)
class Outcome:
    """A training run's networks on one device model.

    Attributes
    ----------
    label : name of the run.
    device : name of the device model on which it was evaluated, or 'ideal'.
    record : what the run was asked for (options, device, data, versions).
    error : (network, chip) fraction of test images classified wrongly.
    energy : (network, chip) [J] per inference.
    efficiency : (network, chip) [1e12 s^-1 W^-1].
    power : (network, chip, layer) [W].
    clipped : (network, chip) number of devices outside of what the device model was fitted to.
    history : name -> (network, epoch).
    """

    label: str
    device: str
    record: dict[str, Any]
    error: np.ndarray
    energy: np.ndarray
    efficiency: np.ndarray
    power: np.ndarray
    clipped: np.ndarray
    history: dict[str, np.ndarray]

    @property
    def ideal(self) -> bool:
        """Whether the networks were trained as if devices were ideal."""
        return bool(self.record["options"].get("ideal", False))

    @property
    def trained_on(self) -> str:
        """Name of the device model that the networks were trained on, in words."""
        name = str(self.record["device"]["name"])
        return f"ideal devices (range of {name})" if self.ideal else name

    @property
    def chips(self) -> int:
        """Number of chips over all networks."""
        return self.error.size

    @property
    def mean_efficiency(self) -> float:
        """Efficiency at the mean power over all chips [1e12 s^-1 W^-1]."""
        return float(1.0 / np.mean(1.0 / self.efficiency))


def outcomes(results: Sequence[xr.Dataset]) -> list[Outcome]:
    """Return the outcomes of several results, device by device; equal labels are numbered.

    Raises
    ------
    ModelError
        When the networks of a results file are not those that its record of training lists.
    """
    found: list[Outcome] = []
    for number, dataset in enumerate(results):
        part = [item for run, place, record in _runs(dataset) for item in _of_run(dataset, run, place, record)]
        taken = {(item.label, item.device) for item in found}
        clash = any((item.label, item.device) in taken for item in part)
        found += [replace(item, label=f"{item.label} ({number + 1})") for item in part] if clash else part
    order = list(dict.fromkeys(item.device for item in found))
    return sorted(found, key=lambda item: order.index(item.device))


def _runs(dataset: xr.Dataset) -> list[tuple[str, np.ndarray, dict[str, Any]]]:
    """Return (label, positions of its networks, record) of each run of a results file."""
    names = dataset["network"].values.astype(str)
    records = json.loads(dataset.attrs["training"])
    counts = [int(record["options"]["networks"]) for record in records]
    if sum(counts) != len(names):
        raise ModelError(
            f"the results hold {len(names)} networks but their record of training lists {sum(counts)}; "
            "make them again with 'calib evaluate'"
        )
    ends = np.cumsum(counts)
    return [
        (str(names[end - count]).rpartition("/")[0] or str(names[end - count]), np.arange(end - count, end), record)
        for end, count, record in zip(ends, counts, records, strict=True)
    ]


def _of_run(dataset: xr.Dataset, label: str, place: np.ndarray, record: dict[str, Any]) -> list[Outcome]:
    part = dataset.isel(network=place)
    history = {key: part[key].values for key in HISTORY if key in part}
    return [
        Outcome(
            label=label,
            device=str(device),
            record=record,
            error=part["error"].sel(device=device).values,
            energy=part["energy_per_inference"].sel(device=device).values,
            efficiency=part["efficiency_tops_per_watt"].sel(device=device).values,
            power=part["power_layer"].sel(device=device).values,
            clipped=part["clipped"].sel(device=device).values.sum(axis=-1),
            history=history,
        )
        for device in part["device"].values
    ]


def reference_of(outcome: Outcome, among: Sequence[Outcome]) -> Outcome | None:
    """Return the ideally trained networks on the same device, with the same data and layers; None if there are none."""
    if outcome.ideal:
        return None
    alike = [
        other
        for other in among
        if other.ideal
        and other.device == outcome.device
        and other.record["options"].get("layers") == outcome.record["options"].get("layers")
        and other.record["data"].get("name") == outcome.record["data"].get("name")
    ]
    return min(alike, key=lambda other: float(np.median(other.error))) if alike else None


def chip_range(values: np.ndarray) -> tuple[float, float]:
    """Return the 5 and 95 % quantiles over all chips."""
    low, high = np.quantile(values, (0.05, 0.95))
    return float(low), float(high)


def median_interval(values: np.ndarray, seed: int = SEED) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median over chips.

    Networks are drawn with replacement, then chips within each of them, `RESAMPLES` times (B. Efron, R. J. Tibshirani,
    An Introduction to the Bootstrap, 1993, chapters 8 and 13); the chips of one network are more alike than those of
    different networks. NaN where there is one chip only.

    Parameters
    ----------
    values : (network, chip).
    """
    networks, chips = values.shape
    if chips < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    rows = generator.integers(networks, size=(RESAMPLES, networks, 1))
    columns = generator.integers(chips, size=(RESAMPLES, networks, chips))
    medians = np.median(values[rows, columns].reshape(RESAMPLES, -1), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(low), float(high)


def summary_json(results: Sequence[xr.Dataset]) -> list[dict[str, Any]]:
    """Return the summary as plain values; the keys are listed by `calib report --help`."""
    found = outcomes(results)
    rows = []
    for item in found:
        low, high = chip_range(item.error)
        median_low, median_high = median_interval(item.error)
        reference = reference_of(item, found)
        median = float(np.median(item.error))
        rows.append({
            "run": item.label,
            "trained_on": item.trained_on,
            "device": item.device,
            "error_median": median,
            "error_median_low": median_low,
            "error_median_high": median_high,
            "error_low": low,
            "error_high": high,
            "energy_per_inference_joule": float(item.energy.mean()),
            "efficiency_tops_per_watt": item.mean_efficiency,
            "error_over_ideally_trained": math.nan if reference is None else median / float(np.median(reference.error)),
            "networks": item.error.shape[0],
            "chips": item.error.shape[1],
        })  # fmt: skip
    return rows
