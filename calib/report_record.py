"""What is needed to repeat results: the command lines, the options of the training, and where every number is from."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from calib.report_files import ResultFile

_FLAGS = {"ideal": "--ideal", "extrapolate": "--extrapolate"}
_OPTION_ORDER = (
    "network", "mapping", "array", "l1", "energy_weight", "epochs", "optimizer", "momentum", "learning_rate",
    "schedule", "warm_up", "batch_size", "draws", "average", "clip_gradient", "patience", "scale", "variation",
    "bias", "input_voltage", "hidden_voltage", "seed", "networks", "validation_every",
    "validation_repeats",
)  # fmt: skip
_UNSAID = {
    "energy_weight": 0.0,
    "momentum": 0.0,
    "warm_up": 0.0,
    "draws": 1,
    "scale": "largest",
    "variation": "devices",
    "bias": "line",
}
"""Values that need not be said."""
_ELSEWHERE = {"dataset", "layers", *_FLAGS}
Record = Mapping[str, Any]


def records_of(opened: Sequence[ResultFile], folders: Mapping[str, Any] = {}) -> dict[str, Record]:
    """Return the record of the training of each run by name, from the files or from run folders beside them."""
    found: dict[str, Record] = {}
    for file in opened:
        for label in file.labels:
            record = file.records.get(label) or (folders[label].record if label in folders else None)
            if record is not None:
                found.setdefault(label, record)
    return found


def commands(opened: Sequence[ResultFile], file: str, records: Mapping[str, Record] | None = None) -> list[str]:
    """Return the command lines that train, evaluate and report again; devices stand by their names."""
    known = records_of(opened) if records is None else records
    lines = {_train_command(label, record): None for label, record in known.items()}
    for one in opened:
        parts = [*_STUDIES[one.kind.name](one), *(["--extrapolate"] if one.options.get("extrapolate") else [])]
        lines[shlex.join(["calib", one.kind.name if one.kind.name != "evaluation" else "evaluate", *parts,
                          "-o", _name(one)])] = None  # fmt: skip
    lines[shlex.join(["calib", "report", *(_name(one) for one in opened), "-o", file])] = None
    return list(lines)


def _name(file: ResultFile) -> str:
    return file.name or {"evaluation": "results.nc"}.get(file.kind.name, f"{file.kind.name}.nc")


def _evaluate(file: ResultFile) -> list[str]:
    parts, asked = file.labels, file.options
    for device in dict.fromkeys(str(name).split(", ")[0] for name in file.data["device"].values):
        parts += ["--device", device]
    parts += ["--chips", str(asked["chips"]), "--redraw", str(asked["redraw"]), *_seed(file)]
    parts += ["--read-time", f"{asked['read_time']:g}", *_conditions(asked)]
    return [*parts, *(["--roles"] if "power_role" in file.data else [])]


def _budget(file: ResultFile) -> list[str]:
    asked = file.options
    parts = [*file.labels, "--device", str(file.data.attrs["device"]), "--chips", str(asked["chips"]), *_seed(file)]
    return [*parts, "--read-time", f"{asked['read_time']:g}", *_conditions(_without_own_array(file))]


def _requirements(file: ResultFile) -> list[str]:
    asked = file.options
    parts = [*file.labels, "--device", str(file.data.attrs["device"]), "--chips", str(asked["chips"]), *_seed(file)]
    parts += ["--loss", f"{100 * float(file.data.attrs['allowed_loss']):g}"]
    for effect in file.data["effect"].values:
        parts += ["--effect", str(effect)]
    return [*parts, *(["--alone"] if asked["alone"] else []), *_conditions(_without_own_array(file))]


def _without_own_array(file: ResultFile) -> dict[str, Any]:
    """Return what was asked for, without the array where it is that of the run, which need not be said."""
    from calib.crossbar.array import Array

    asked, (record,) = file.options, file.records.values()
    if not isinstance(asked.get("array"), dict):
        return asked
    own = Array.from_options(str(record["options"].get("array", "")))
    same = Array.from_options(",".join(f"{key}={value}" for key, value in asked["array"].items())) == own
    return {**asked, "array": None} if same else asked


def _uncertainty(file: ResultFile) -> list[str]:
    asked = file.options
    parts = [*file.labels, "--device", str(file.data.attrs["device"]), "--models", str(asked["models"])]
    parts += ["--chips", str(asked["chips"]), *_seed(file), "--read-time", f"{asked['read_time']:g}"]
    parts += ["--characteristics"] if "characteristic" in file.data.dims else []
    return [*parts, *(["--check"] if "check_ratio" in file.data else [])]


def _robustness(file: ResultFile) -> list[str]:
    data, asked = file.data, file.options
    attack = str(data.attrs["attack"])
    strengths = ",".join(f"{strength:g}" for strength in data["strength"].values)
    parts = [*file.labels, "--device", str(data.attrs["device"]), "--attack", attack, "--strengths", strengths]
    if attack in ("fgsm", "pgd"):
        for curve in data["curve"].values:
            parts += ["--knows", str(curve)]
        parts += ["--known-chips", str(asked["known_chips"])]
    if attack == "pgd":
        parts += ["--step", f"{asked['step']:g}", "--steps", str(asked["steps"])]
        parts += ["--random-start"] if asked["random_start"] else []
    chips = ["--chips", str(data.sizes["chip"]), "--images", str(int(data.attrs["images"]))]
    return [*parts, *chips, *_seed(file)]


_STUDIES = {
    "evaluation": _evaluate,
    "budget": _budget,
    "requirements": _requirements,
    "uncertainty": _uncertainty,
    "robustness": _robustness,
}


def _seed(file: ResultFile) -> list[str]:
    return ["--seed", str(int(file.data.attrs["seed"]))]


def _conditions(asked: dict[str, Any]) -> list[str]:
    """Return the options that say what happened to the devices and on which array they are."""
    times = asked.get("time") or [0]
    parts = [
        part for time in (times if isinstance(times, list) else [times]) if time for part in ("--time", f"{time:g}")
    ]
    for key in ("reads", "temperature"):
        parts += [f"--{key}", f"{asked[key]:g}"] if asked.get(key) else []
    for key in ("array", "periphery"):
        value = asked.get(key)
        text = ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value
        parts += [f"--{key}", str(text)] if text else []
    pulses = asked.get("programming")
    if pulses is not None:
        parts += ["--programming", *([",".join(f"{k}={v:g}" for k, v in pulses.items())] if pulses else [])]
    return [*parts, *(["--compensate"] if asked.get("compensate") else [])]


def _train_command(label: str, record: Record) -> str:
    options = record["options"]
    parts = ["calib", "train", "--device", str(record["device"]["name"]), "-o", label]
    named = options.get("dataset")
    parts += ["--dataset", str(named)] if named else ["--data", str(record["data"]["name"])]
    parts += ["--layers", shown(options["layers"])] if options.get("layers") else []
    later = [key for key in options if key not in _OPTION_ORDER and key not in _ELSEWHERE]
    for key in (*_OPTION_ORDER, *later):
        value, flag = options.get(key), f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            parts += [flag] if value else []
        elif value not in (None, "") and value != _UNSAID.get(key, 0.0 if key in later else None):
            parts += [flag, shown(value)]
    return shlex.join([*parts, *(flag for key, flag in _FLAGS.items() if options.get(key))])


def option_rows(records: Mapping[str, Record]) -> list[tuple[str, ...]]:
    """Return the options of every run, one row for each that was given; those that differ come first."""
    keys = sorted({key for record in records.values() for key in record["options"]})
    rows = [
        (key.replace("_", " "), *(shown(record["options"].get(key)) for record in records.values())) for key in keys
    ]
    return sorted((row for row in rows if any(row[1:])), key=lambda row: len(set(row[1:])) == 1)


def shown(value: Any) -> str:
    """Return the value of an option in words."""
    if isinstance(value, list | tuple):
        return "-".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def provenance(opened: Sequence[ResultFile], records: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Return where the numbers come from as (key, value): files, seeds, devices, runs, images and versions."""
    rows: list[tuple[str, str]] = []
    for file in opened:
        if file.name:
            rows.append((file.kind.name, f"{file.name}, sha256 {file.sha256}, written {file.written}"))
        seed = int(file.data.attrs["seed"])
        rows.append((f"seed of the chips{f' of {file.name}' if len(opened) > 1 and file.name else ''}", str(seed)))
        rows += [(f"device {device}", f"sha256 {value}") for device, value in file.devices.items() if value]
    for label, record in records.items():
        rows.append((f"run {label}", f"seed {record['options'].get('seed')}, device {record['device']['sha256']}"))
        images = record["data"]
        rows.append((f"images of {label}", f"{images.get('name', '')}, sha256 {images.get('sha256', '')}"))
    for file in opened:
        versions = json.loads(file.data.attrs.get("versions", "{}"))
        rows.append(("versions", ", ".join(f"{key} {value}" for key, value in versions.items())))
    return list(dict.fromkeys(row for row in rows if row[1]))
