"""What a Measurement holds, in numbers: for `calib inspect`."""

import json
from collections import Counter
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from calib.formatting import format_interval, format_quantity, plural
from calib.measurement import FLAGS, Measurement, notes_of


def describe(tree: Measurement) -> dict[str, Any]:
    """Return what a Measurement holds.

    Returns
    -------
    dict
        ``sources``: list of {name, sha256, reader, why}. ``questions``, ``notes``: lists of sentences. ``nodes``: by
        node a list with one dict per population:

        - every node: ``population``, ``devices`` (number), ``temperature`` [K] (None when unknown or not one);
        - iv: ``cycles``, ``branches``, ``points`` (numbers), ``branches_by_label`` ({'set hrs positive up': number}),
          ``voltage``, ``current`` ([lowest, highest], V and A), ``compliance`` ({polarity: A}), ``noise_floor``,
          ``offset``, ``offset_stderr`` [A] (medians; None when not found), ``flags`` ({flag: points});
        - reads: ``traces``, ``samples``, ``levels`` (numbers), ``states`` (list), ``conductance`` ([lowest, highest],
          S), ``voltage``, ``time`` where known;
        - writes: ``writes``, ``targets`` (numbers), ``success`` (numbers of 1, 0 and unknown), ``achieved`` ([lowest,
          highest], S), ``attempts`` ([lowest, highest], None when not stated);
        - pulses: ``sequences``, ``pulses``, ``reads`` (numbers; the pulses of all sequences), ``polarities``
          ({polarity: sequences}), ``conductance`` ([lowest, highest]) and its ``unit``, ``amplitude``, ``width``,
          ``read_voltage`` ([lowest, highest] where known);
        - writes, pulses, extra: ``sizes`` ({dimension: number}), and for extra ``columns``.
    """
    nodes = {name: child.to_dataset(inherit=False) for name, child in tree.children.items()}
    sentences = {
        key: list(dict.fromkeys(s for node in nodes.values() for s in notes_of(node, key)))
        for key in ("questions", "notes")
    }
    return {
        "sources": json.loads(tree.attrs["sources"]),
        **sentences,
        "nodes": {name: [_part(name, part) for part in _populations(node)] for name, node in nodes.items()},
    }


def rows(node: str, found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the table that people read of one population in `describe`."""
    if node == "iv":
        return _iv_rows(found)
    if node == "reads":
        return _read_rows(found)
    if node == "writes":
        return _write_rows(found)
    if node == "pulses":
        return _pulse_rows(found)
    sizes = ", ".join(f"{count} {dim}" for dim, count in found["sizes"].items())
    columns = [("columns", ", ".join(found["columns"]))] if "columns" in found else []
    return [("sizes", sizes), *columns]


def _populations(node: xr.Dataset) -> list[xr.Dataset]:
    if "population" not in node.coords:
        return [node]
    dim = str(node["population"].dims[0])
    labels = node["population"].values
    return [node.isel({dim: labels == label}) for label in dict.fromkeys(labels.tolist())]


def _part(name: str, node: xr.Dataset) -> dict[str, Any]:
    if name == "extra":
        return {"population": "", "sizes": _sizes(node), "columns": [str(key) for key in node.data_vars]}
    found: dict[str, Any] = {
        "population": str(node["population"].values[0]),
        "devices": len(np.unique(node["device"].values)),
        "temperature": _one(node["temperature"].values),
    }
    if name == "iv":
        return found | _iv(node)
    if name == "reads":
        return found | _reads(node)
    return found | {"sizes": _sizes(node)} | (_writes(node) if name == "writes" else _pulses(node))


def sentence(node: str, found: dict[str, Any]) -> str:
    """Return in a few words how much of a kind of experiment `describe` found."""
    if node == "extra":
        return f"extra: {len(found['columns'])} columns"
    counts = {
        "iv": ("cycle", "branch", "point"),
        "reads": ("trace", "sample"),
        "writes": ("write", "target"),
        "pulses": ("sequence", "pulse"),
    }[node]
    plurals = {"branch": "branches"}
    listed = [("device", found["devices"]), *((word, found[plurals.get(word, f"{word}s")]) for word in counts)]
    texts = [f"{count} {word if count == 1 else plurals.get(word, f'{word}s')}" for word, count in listed]
    return f"{node}: {', '.join(texts)}"


def _iv(node: xr.Dataset) -> dict[str, Any]:
    voltage, current, flag = (node[key].values for key in ("voltage", "current", "flag"))
    texts = zip(*(node[key].values.tolist() for key in ("operation", "state", "polarity", "direction")), strict=True)
    cycles = set(zip(node["device"].values.tolist(), node["cycle"].values.tolist(), strict=True))
    return {
        "cycles": len(cycles),
        "branches": node.sizes["sweep"],
        "points": int(np.isfinite(voltage).sum()),
        "branches_by_label": dict(Counter(" ".join(filter(None, labels)) for labels in texts)),
        "voltage": _range(voltage),
        "current": _range(current),
        "compliance": {
            sign: _median(node["compliance"].values[node["polarity"].values == sign])
            for sign in ("positive", "negative")
        },
        "noise_floor": _median(node["noise_floor"].values),
        "offset": _median(node["offset"].values),
        "offset_stderr": _median(node["offset_stderr"].values),
        "flags": {key: count for key, bit in FLAGS.items() if (count := int(((flag & bit) != 0).sum()))},
    }


def _reads(node: xr.Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {
        "traces": node.sizes["trace"],
        "samples": int(np.isfinite(node["conductance"].values).sum()),
        "levels": len({level for level in node["level"].values.tolist() if level}),
        "states": sorted({state for state in node["state"].values.tolist() if state}),
        "conductance": _range(node["conductance"].values),
    }
    return found | {key: _range(node[key].values) for key in ("voltage", "time") if key in node}


def _writes(node: xr.Dataset) -> dict[str, Any]:
    ranges = np.stack([node["target_low"].values, node["target_high"].values], axis=1)
    found: dict[str, Any] = {
        "writes": node.sizes["write"],
        "targets": len(np.unique(ranges, axis=0)),
        "achieved": _range(node["achieved"].values),
        "success": None,
        "attempts": None,
    }
    if "success" in node:
        success = node["success"].values
        found["success"] = [int((success == 1).sum()), int((success == 0).sum()), int((success < 0).sum())]
    if "attempts" in node and (node["attempts"].values >= 0).any():
        attempts = node["attempts"].values
        found["attempts"] = [int(attempts[attempts >= 0].min()), int(attempts.max())]
    return found


def _pulses(node: xr.Dataset) -> dict[str, Any]:
    conductance = node["conductance"].values
    found: dict[str, Any] = {
        "sequences": node.sizes["sequence"],
        "pulses": int(np.isfinite(conductance).any(axis=2).sum()),
        "reads": int(np.isfinite(conductance).sum()),
        "polarities": dict(Counter(node["polarity"].values.tolist())),
        "conductance": _range(conductance),
        "unit": str(node["conductance"].attrs["units"]),
    }
    return found | {key: _range(node[key].values) for key in ("amplitude", "width", "read_voltage") if key in node}


def _write_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    result = [
        ("devices", str(found["devices"])),
        ("writes", str(found["writes"])),
        ("target ranges", str(found["targets"])),
        ("achieved", format_interval(found["achieved"][0], found["achieved"][1], "S")),
        ("temperature", _kelvin(found)),
    ]
    if found["success"]:
        yes, no, unknown = found["success"]
        result.insert(3, ("success", f"{yes} of {yes + no}" + (f", {unknown} not stated" if unknown else "")))
    if found["attempts"]:
        result.insert(4, ("attempts", f"{found['attempts'][0]} to {found['attempts'][1]}"))
    return result


def _pulse_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    polarities = [f"{count} {label or 'of no stated polarity'}" for label, count in found["polarities"].items()]
    unit = found["unit"]
    result = [
        ("devices", str(found["devices"])),
        ("sequences", f"{found['sequences']} ({', '.join(polarities)})"),
        ("pulses", str(found["pulses"])),
        ("readings", str(found["reads"])),
        (
            "conductance",
            format_interval(found["conductance"][0], found["conductance"][1], unit)
            + (" (normalised)" if unit == "1" else ""),
        ),
    ]
    for key, of in (("amplitude", "V"), ("width", "s"), ("read_voltage", "V")):
        if key in found:
            result.append((key.replace("_", " "), format_interval(found[key][0], found[key][1], of)))
    return [*result, ("temperature", _kelvin(found))]


def _iv_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    labels = sorted(found["branches_by_label"].items())
    compliance = [f"{format_quantity(v, 'A')} ({sign})" for sign, v in found["compliance"].items() if v is not None]
    result = [
        ("devices", str(found["devices"])),
        ("cycles", str(found["cycles"])),
        ("branches", str(found["branches"])),
        *((f"  {label}", str(count)) for label, count in labels),
        ("points", str(found["points"])),
        ("voltage", format_interval(found["voltage"][0], found["voltage"][1], "V")),
        ("current", format_interval(found["current"][0], found["current"][1], "A")),
        ("compliance", ", ".join(compliance) or "none found or stated"),
        ("temperature", _kelvin(found)),
        ("noise floor", _quantity(found["noise_floor"], "A")),
    ]
    if found["offset"]:
        result.append(("current offset", format_quantity(found["offset"], "A", found["offset_stderr"] or np.nan)))
    flags = [(f"  {key}", plural(count, "point")) for key, count in found["flags"].items()]
    return [*result, ("flags", "" if flags else "none"), *flags]


def _read_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    result = [
        ("devices", str(found["devices"])),
        ("traces", str(found["traces"])),
        ("samples", str(found["samples"])),
        ("levels", str(found["levels"] or "not stated")),
        ("states", ", ".join(found["states"]) or "not stated"),
        ("conductance", format_interval(found["conductance"][0], found["conductance"][1], "S")),
        ("temperature", _kelvin(found)),
    ]
    for key, unit in (("voltage", "V"), ("time", "s")):
        if key in found:
            low, high = found[key]
            result.append((key, format_interval(low, high, unit)))
    return result


def _sizes(node: xr.Dataset) -> dict[str, int]:
    return {str(dim): size for dim, size in node.sizes.items()}


def _range(values: NDArray[np.float64]) -> list[float]:
    finite = values[np.isfinite(values)]
    return [float(finite.min()), float(finite.max())] if len(finite) else [np.nan, np.nan]


def _median(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def _one(values: NDArray[np.float64]) -> float | None:
    return float(values[0]) if len(values) and np.isfinite(values).all() and np.ptp(values) == 0 else None


def _kelvin(found: dict[str, Any]) -> str:
    return "unknown" if found["temperature"] is None else f"{found['temperature']:.6g} K"


def _quantity(value: float | None, unit: str) -> str:
    return "unknown" if value is None else format_quantity(value, unit)
