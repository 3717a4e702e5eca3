"""What each kind of experiment beside sweeps gives a device model: reads, write logs and pulse trains."""

import numpy as np
import xarray as xr

from calib.errors import FitError
from calib.fit_options import FitOptions
from calib.fitting import activation, conductance, cycles, levels, pulse, read_noise, retention, switching, writes
from calib.fitting.reads import reads_nodes


def nodes_of_reads(
    reads: xr.Dataset, options: FitOptions, warnings: list[str], *, sweeps: bool
) -> dict[str, xr.Dataset]:
    """Fit what conductance reads support.

    Parameters
    ----------
    reads : node of a Measurement.
    warnings : sentences are appended.
    sweeps : whether there are sweeps too, which then give the conductance range, the programming spread and the stuck
        devices.
    """
    nodes: dict[str, xr.Dataset] = {}
    if not sweeps:
        try:
            nodes |= reads_nodes(
                reads, reference_voltage=options.reference_voltage, stuck_rule=options.stuck_rule, warnings=warnings
            )
        except FitError as error:
            warnings.append(f"conductance range, programming spread and stuck devices: not found: {error}")
    found = {
        "levels": levels.levels_node(reads, warnings),
        "retention": retention.retention_node(reads, warnings, options.temperature),
        "read_noise": read_noise.read_noise_node(reads, warnings),
    }
    return nodes | {name: node for name, node in found.items() if node is not None}


def nodes_of_cycles(
    iv: xr.Dataset | None, reads: xr.Dataset | None, options: FitOptions, warnings: list[str]
) -> dict[str, xr.Dataset]:
    """Fit what sweeps or reads over cycles and temperatures support.

    Switching voltages and endurance, the generative model of the cycles, and the activation energy.
    """
    voltage = options.reference_voltage
    measured = iv if iv is not None else reads
    if options.temperature is not None:  # one for all
        measured = None
    found = {
        "activation": None if measured is None else activation.activation_node(measured, warnings, voltage),
        "switching": switching.switching_node(iv, warnings, reads=reads, reference_voltage=voltage),
        "cycles": cycles.cycles_node(iv, warnings, reads=reads, reference_voltage=voltage),
    }
    return {name: node for name, node in found.items() if node is not None}


def nodes_of_writes(log: xr.Dataset, options: FitOptions, warnings: list[str]) -> dict[str, xr.Dataset]:
    """Fit what a log of writes and their verification supports; devices that never switched make the stuck node."""
    found = {
        "writes": writes.writes_node(log, warnings),
        "stuck": writes.stuck_of_writes(log, options.stuck_rule, warnings),
    }
    nodes = {name: node for name, node in found.items() if node is not None}
    if nodes:
        devices, low, high, _ = writes.switching_extremes(log)
        dead = nodes["stuck"]["stuck_device"].values if "stuck" in nodes else []
        live = ~np.isin(devices, dead)
        nodes |= _range(low[live], high[live], "writes achieved", warnings)
    return nodes


def nodes_of_pulses(pulses: xr.Dataset, warnings: list[str]) -> dict[str, xr.Dataset]:
    """Fit the response to trains of pulses, and the range that they span where it is known in siemens."""
    node = pulse.pulse_node(pulses, warnings)
    if node is None:
        return {}
    if str(pulses["conductance"].attrs.get("units")) != "S":
        return {"pulse": node}
    g = pulses["conductance"].mean("read").values
    labels, index = np.unique(pulses["device"].values.astype(str), return_inverse=True)
    low, high = np.full(len(labels), np.inf), np.zeros(len(labels))
    owner, positive = np.broadcast_to(index[:, None], g.shape), g > 0
    np.minimum.at(low, owner[positive], g[positive])
    np.maximum.at(high, owner[positive], g[positive])
    seen = high > 0
    return {"pulse": node, **_range(low[seen], high[seen], "pulses reached", warnings)}


def _range(low: np.ndarray, high: np.ndarray, by: str, warnings: list[str]) -> dict[str, xr.Dataset]:
    """Return the conductance node of devices' extremes; nothing where they do not differ."""
    if not len(low) or not np.median(low) < np.median(high) or not np.median(low) > 0:
        return {}
    warnings.append("I-V law: not found, because no sweeps were measured; the law is ohmic")
    rule = f"medians over devices of the smallest and largest conductance that {by}"
    node = xr.Dataset(conductance.range_of(low, high), coords={"bound": ["low", "high"]}, attrs={"rule": rule})
    return {"conductance": node}
