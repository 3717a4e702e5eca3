"""Thermal activation: how the conductance of a state changes with temperature.

Where conduction is over a barrier, G = G_0 exp(-E_a / k T) (S. Arrhenius, Z. Phys. Chem. 4, 226 (1889),
doi 10.1515/zpch-1889-0416), so that ln G is a straight line against 1 / k T with slope -E_a. The law is fitted at the
temperatures that were measured, per state, and per device where a device was measured at several.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats
from scipy.constants import Boltzmann, elementary_charge

from calib.fitting.conductance import read_at
from calib.fitting.mixed_model import fit_mixed

BOLTZMANN_EV = Boltzmann / elementary_charge
"""k [eV/K]."""
SAME_TEMPERATURE = 2.0
SMALLEST_SPAN = 5.0
"""Temperatures [K] closer than the first are one; a range smaller than the second is one temperature."""
MINIMUM_DEVICES = 3
"""Devices, each at several temperatures, from which on the energy is the mean of the devices' own."""
LINEARITY_LEVEL = 0.01
_NAN = float("nan")


@dataclass(frozen=True)
class Energy:
    """Activation energy [eV] of a state, its standard error, interval and spread, and the test of the straight line.

    `prefactor` is ln(G_0 / S); `devices` and `own` are the devices that give an energy of their own, and those.
    """

    value: float
    stderr: float
    low: float
    high: float
    spread: float
    linearity_p: float
    prefactor: float
    rms: float
    method: str
    devices: np.ndarray
    own: np.ndarray


def activation_node(node: xr.Dataset, warnings: list[str], reference_voltage: float = 0.1) -> xr.Dataset | None:
    """Return the activation node of I-V sweeps or of conductance reads.

    Parameters
    ----------
    node : iv or reads of a Measurement, with the coordinate temperature [K].
    reference_voltage : [V] at which the conductance of sweeps is read; its sign chooses the branch.

    Returns
    -------
    xarray.Dataset or None
        None where one temperature was measured, or none is known.
    """
    if "temperature" not in node.coords or not np.isfinite(node["temperature"].values).any():
        warnings.append("activation: not found, because no temperature is stated")
        return None
    ln_g, device, state, temperature = _values(node, reference_voltage)
    stated = np.unique(node["temperature"].values[np.isfinite(node["temperature"].values)])
    if np.ptp(stated) < SMALLEST_SPAN:
        warnings.append("activation: not found, because one temperature was measured")
        return None
    found: dict[str, tuple[Energy, np.ndarray]] = {}
    for name in dict.fromkeys(state.tolist()):
        here = (state == name) & np.isfinite(ln_g) & np.isfinite(temperature)
        if here.sum() < 3 or np.ptp(temperature[here]) < SMALLEST_SPAN:
            warnings.append(
                f"activation of state '{name}': not found, because it has {int(here.sum())} conductances above the "
                "noise floor at fewer than two temperatures; expected three or more"
            )
            continue
        found[name] = activation_energy(ln_g[here], temperature[here], device[here]), here
    if not found:
        return None
    for name, (energy, _) in found.items():
        if energy.linearity_p < LINEARITY_LEVEL:
            warnings.append(
                f"activation of state '{name}': ln G is not a straight line against 1/T "
                f"(p = {energy.linearity_p:.1g}); {energy.value:.3g} eV is the mean slope over those measured"
            )
    return _node(found, ln_g, device, temperature)


def _values(node: xr.Dataset, reference_voltage: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return ln(G / S), device, state and temperature of every sweep, or of every trace of reads (its median)."""
    if "trace" in node.dims:
        g = node["conductance"].values
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithm = np.log(np.where(g > 0, g, np.nan))
        some = np.isfinite(logarithm).any(1)
        ln_g = np.full(len(g), np.nan)
        ln_g[some] = np.nanmedian(logarithm[some], axis=1)
    else:
        polarity = "negative" if reference_voltage < 0 else "positive"
        node = node.isel(sweep=np.flatnonzero(node["polarity"].values == polarity))
        g, censored = read_at(node, reference_voltage)
        ln_g = np.log(np.where(~censored & (g > 0), g, np.nan))
    names = node["state"].values.astype(str) if "state" in node.coords else np.full(len(ln_g), "")
    names = np.where(names == "", "all", names)
    return ln_g, node["device"].values.astype(str), names, node["temperature"].values.astype(float)


def temperatures(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct temperatures [K], means of those within `SAME_TEMPERATURE`, and which each value is."""
    order = np.argsort(values)
    group = np.empty(len(values), dtype=int)
    group[order] = np.concatenate([[0], np.cumsum(np.diff(values[order]) > SAME_TEMPERATURE)])
    return np.bincount(group, values) / np.bincount(group), group


def activation_energy(ln_g: np.ndarray, temperature: np.ndarray, device: np.ndarray) -> Energy:
    """Return the activation energy from ln G at several temperatures.

    With at least `MINIMUM_DEVICES` devices measured at several temperatures each, it is the mean of the devices' own
    energies with Student's t over devices; else the slope of all values, devices shifted against one another.
    Linearity is tested with a quadratic term in 1 / k T, where there are three temperatures.

    Parameters
    ----------
    ln_g : (n,) ln(G / S).
    temperature : (n,) [K].
    device : (n,) labels.
    """
    levels, group = temperatures(temperature)
    x = 1 / (BOLTZMANN_EV * temperature)
    centre = float(x.mean())
    names, own = _own_energies(ln_g, x, group, device)
    z = np.stack([np.ones_like(x), x - centre], axis=1)
    zero = np.zeros((len(x), 1, 1))
    mixed = fit_mixed(ln_g[:, None], z, zero, device)
    residual = ln_g - z @ mixed.coefficients[0]
    linearity = _NAN
    if len(levels) > 2 and len(x) > 3:
        curved = fit_mixed(ln_g[:, None], np.column_stack([z, np.square(x - centre)]), zero, device)
        last = np.array([0.0, 0.0, 1.0])
        value, stderr, _, _ = curved.estimate(last)
        if stderr > 0:
            linearity = 2 * float(stats.t.sf(abs(value) / stderr, curved.degrees_of_freedom(last)))
    rms = float(np.sqrt(np.mean(np.square(residual))))
    if len(own) >= MINIMUM_DEVICES:
        energy, spread = float(own.mean()), float(own.std(ddof=1))
        stderr = spread / float(np.sqrt(len(own)))
        half = float(stats.t.ppf(0.975, len(own) - 1)) * stderr
        low, high, method = energy - half, energy + half, "mean of the devices' own energies, Student's t over devices"
    else:
        slope, stderr, low, high = mixed.estimate(np.array([0.0, 1.0]))
        energy, low, high, spread = -slope, -high, -low, _NAN
        method = "straight line through all values, devices shifted against one another"
        if len(levels) < 3 and len(x) == len(levels):
            stderr = low = high = _NAN
    prefactor = float(mixed.coefficients[0, 0]) + energy * centre
    return Energy(energy, stderr, low, high, spread, linearity, prefactor, rms, method, names, own)


def _own_energies(
    ln_g: np.ndarray, x: np.ndarray, group: np.ndarray, device: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the devices that were measured at several temperatures, and their energies [eV]."""
    names, own = [], []
    for name in np.unique(device):
        here = device == name
        if len(np.unique(group[here])) < 2:
            continue
        dx = x[here] - x[here].mean()
        names.append(name)
        own.append(-float((dx * ln_g[here]).sum() / np.square(dx).sum()))
    return np.array(names, dtype=str), np.array(own)


def _node(
    found: dict[str, tuple[Energy, np.ndarray]], ln_g: np.ndarray, device: np.ndarray, temperature: np.ndarray
) -> xr.Dataset:
    states = list(found)
    energies = [energy for energy, _ in found.values()]
    used = np.any([here for _, here in found.values()], axis=0)
    levels, group = temperatures(temperature[used])
    median = np.full((len(states), len(levels)), np.nan)
    count = np.zeros(median.shape, dtype=np.int64)
    for row, (_, here) in enumerate(found.values()):
        inside = here[used]
        for column in range(len(levels)):
            part = ln_g[used][inside & (group == column)]
            count[row, column] = len(part)
            median[row, column] = np.exp(np.median(part)) if len(part) else np.nan
    ev, one = {"units": "eV"}, {"units": "1"}
    at = ("state", "temperature")
    return xr.Dataset(
        {
            "activation_energy": ("state", [e.value for e in energies], {**ev, "long_name": "activation energy"}),
            "activation_energy_stderr": ("state", [e.stderr for e in energies], {**ev, "long_name": "standard error"}),
            "activation_energy_bound": (
                ("state", "bound"), [(e.low, e.high) for e in energies], {**ev, "long_name": "95 % interval"}
            ),
            "activation_energy_std": (
                "state", [e.spread for e in energies], {**ev, "long_name": "standard deviation over devices"}
            ),
            "ln_g_prefactor": (
                "state", [e.prefactor for e in energies], {**one, "long_name": "ln(G_0 / S), 1/T extrapolated to 0"}
            ),
            "linearity_p": (
                "state", [e.linearity_p for e in energies],
                {**one, "long_name": "p value of a straight line of ln G against 1/T"},
            ),
            "rms": ("state", [e.rms for e in energies], {**one, "long_name": "residual of ln G about the line, rms"}),
            "g_median": (at, median, {"units": "S", "long_name": "median conductance at a temperature"}),
            "n_at_temperature": (at, count, one),
            "n_values": ("state", [int(here.sum()) for _, here in found.values()], one),
            "n_devices": ("state", [len(np.unique(device[here])) for _, here in found.values()], one),
            "n_temperatures": ("state", (count > 0).sum(1), one),
            "device_energy": (
                "device", np.concatenate([e.own for e in energies]),
                {**ev, "long_name": "activation energy of a device in a state"},
            ),
            "device_state": ("device", np.repeat(states, [len(e.own) for e in energies]).astype(str)),
            "device_name": ("device", np.concatenate([e.devices for e in energies]).astype(str)),
        },
        coords={"state": states, "bound": ["low", "high"],
                "temperature": ("temperature", levels, {"units": "K", "long_name": "temperature"})},
        attrs={
            "method": "; ".join(dict.fromkeys(e.method for e in energies)),
            "statement": "G = G_0 exp(-E_a / kT) in each state; E_a > 0 where the device conducts better when hot",
        },
    )  # fmt: skip
