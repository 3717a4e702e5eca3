"""Bipolar loops of devices whose switching voltages and resistances are known."""

import numpy as np
import xarray as xr

from tests.synthetic import iv_dataset

STEP = 0.05
END = {"set": 2.0, "reset": 1.6}


def loop(
    operation: str, event: float, ln_r: tuple[float, float], width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return |V|, and |I| on the way up and on the way down, of a device that switches at `event` (inf: never).

    `width` = 0 is a jump between two points; else the change of ln I is a logistic of that width in V. Both states are
    ohmic with the given ln R, (high, low).
    """
    v = np.arange(STEP, END[operation] + STEP / 2, STEP)
    high, low = ln_r
    before, after = (high, low) if operation == "set" else (low, high)
    if not np.isfinite(event):
        done = np.zeros_like(v)
    elif width == 0:
        done = (v >= event - 1e-9).astype(float)
    else:
        done = 1 / (1 + np.exp(-(v - event) / width))
    up = v * np.exp(-(before + (after - before) * done))
    down = v * np.exp(-(after if np.isfinite(event) else before))
    return v, up, down


def loops_node(
    v_set: np.ndarray, v_reset: np.ndarray, ln_r_hrs: np.ndarray, ln_r_lrs: np.ndarray, width: float = 0.0,
    row: np.ndarray | None = None, column: np.ndarray | None = None,
) -> xr.Dataset:  # fmt: skip
    """Return an iv node of set (positive) and reset (negative) loops; all arguments are (device, cycle)."""
    names = ("device", "cycle", "operation", "direction", "polarity", "state", "voltage", "current", "switching")
    rows: dict[str, list] = {name: [] for name in names}
    n_points = len(np.arange(STEP, END["set"] + STEP / 2, STEP))
    for device, cycle in np.ndindex(v_set.shape):
        for operation, sign in (("set", 1.0), ("reset", -1.0)):
            event = float((v_set if operation == "set" else v_reset)[device, cycle])
            pair = (float(ln_r_hrs[device, cycle]), float(ln_r_lrs[device, cycle]))
            v, up, down = loop(operation, event, pair, width)
            for direction, current in (("up", up), ("down", down)):
                x, y = (v, current) if direction == "up" else (v[::-1], current[::-1])
                pad = np.full(n_points - len(v), np.nan)
                rows["voltage"].append(np.concatenate([sign * x, pad]))
                rows["current"].append(np.concatenate([sign * y, pad]))
                rows["device"].append(f"d{device:03d}")
                rows["cycle"].append(cycle)
                rows["operation"].append(operation)
                rows["direction"].append(direction)
                rows["polarity"].append("positive" if sign > 0 else "negative")
                rows["state"].append("hrs" if (direction == "up") == (operation == "set") else "lrs")
                seen = v[v >= event - 1e-9] if np.isfinite(event) else v[:0]
                found = direction == "up" and width == 0 and len(seen)
                rows["switching"].append(sign * seen[0] if found else np.nan)
    voltage, current, switching = (np.array(rows.pop(name)) for name in ("voltage", "current", "switching"))
    node = iv_dataset(voltage, current, **{name: np.array(values) for name, values in rows.items()})
    node = node.assign_coords(switching_voltage=("sweep", switching, {"units": "V", "long_name": "switching voltage"}))
    for name, values in (("row", row), ("column", column)):
        if values is not None:
            index = np.array([int(d[1:]) for d in node["device"].values])
            node = node.assign_coords({name: ("sweep", values[index], {"units": "1", "long_name": name})})
    return node


def loops_of(n_devices: int, n_cycles: int, seed: int = 0, **options) -> xr.Dataset:
    """Return loops with set voltages about 1.0 V and reset voltages about 0.8 V, devices and cycles apart."""
    rng = np.random.default_rng(seed)
    shape = (n_devices, n_cycles)

    def about(mean: float, d2d: float, c2c: float) -> np.ndarray:
        return mean + d2d * rng.standard_normal((n_devices, 1)) + c2c * rng.standard_normal(shape)

    return loops_node(about(1.0, 0.08, 0.06), about(0.8, 0.05, 0.05), about(13.0, 0.4, 0.3), about(9.0, 0.1, 0.1),
                      **options)  # fmt: skip
