"""A whole experiment as a YAML file: device, data and any option of `calib.train`, one a line.

    device: siox-high-resistance
    dataset: mnist
    layers: 784-100-50-10        # or [784, 100, 50, 10]
    array: {rows: 128, columns: 64, adc_bits: 8, adc_range: array}
    energy_weight: 3.0
    average: exponential:0.999

Names may have hyphens, as on the command line. The file is read safely: it holds values, no code. A run.json, which is
YAML too, is read as the experiment that made the run; its device is the copy in the run's folder.
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calib import files
from calib.errors import OptionError

PLACES = {"device": "text", "dataset": "text", "data": "text", "output": "text"}
"""Options besides those of `calib.runs.TrainingOptions`."""
OPTIONS = {
    "layers": "sizes",
    "network": "text",
    "mapping": "text",
    "array": "array",
    "l1": "number",
    "energy_weight": "number",
    "ideal": "truth",
    "epochs": "whole",
    "optimizer": "text",
    "learning_rate": "number",
    "momentum": "number",
    "schedule": "text",
    "warm_up": "number",
    "draws": "whole",
    "variation": "text",
    "scale": "text",
    "bias": "text",
    "hidden_voltage": "number",
    "average": "text",
    "clip_gradient": "number",
    "patience": "whole",
    "batch_size": "whole",
    "input_voltage": "number",
    "extrapolate": "truth",
    "seed": "whole",
    "networks": "whole",
    "validation_every": "whole",
    "validation_repeats": "whole",
}
"""Options of a training and what their values are, in the order in which an experiment is written."""
_EXPECTED = {
    "text": "a text",
    "sizes": "sizes such as 784-25-10 or [784, 25, 10]",
    "array": "a text such as rows=128,columns=64, or lines 'option: value'",
    "number": "a number",
    "whole": "a whole number",
    "truth": "true or false",
}


def sizes(text: str) -> tuple[int, ...]:
    """Return the layer sizes of a text such as '784-25-10'.

    Raises
    ------
    OptionError
        When it is no such text.
    """
    try:
        return tuple(int(part) for part in text.split("-"))
    except ValueError as error:
        raise OptionError(f"layers are '{text}'; expected sizes joined by hyphens, such as 784-25-10") from error


def read(path: str | Path) -> dict[str, Any]:
    """Return the options of an experiment file, or of a run: its folder or its run.json.

    Raises
    ------
    OptionError
        When it cannot be read; with everything in it that cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "run.json"
    given = _content(path)
    if path.name == "run.json" and isinstance(given.get("options"), dict):
        given = of_run(path.parent, given)
    known, result, problems = {**PLACES, **OPTIONS}, {}, []
    for key, value in given.items():
        name = str(key).lstrip("-").replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            problems.append(f"there is no option '{key}'; {f'did you mean {close[0]}?' if close else _listed(known)}")
        elif value is not None:
            read_value = _value(known[name], value)
            if read_value is None:
                problems.append(f"{key} is {value!r}; expected {_EXPECTED[known[name]]}")
            result[name] = read_value
    if problems:
        raise OptionError(f"the experiment '{path}' cannot be used: {'; '.join(problems)}")
    return result


def of_run(folder: str | Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the experiment of a run's record (run.json), all options included."""
    options = record["options"]
    result = {"device": str(Path(folder) / "device.nc"), "dataset": options.get("dataset")}
    return result | {name: options[name] for name in OPTIONS if name in options}


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment with the defaults of all options that `calib.train` does not choose from the data."""
    from calib.training import train

    defaults = {**(train.__kwdefaults__ or {}), **given}
    return {name: defaults[name] for name in (*PLACES, *OPTIONS) if defaults.get(name) not in (None, "")}


def write(path: str | Path, given: Mapping[str, Any]) -> None:
    """Write an experiment file, which `read` understands."""
    import yaml

    lines = []
    for name in (*PLACES, *OPTIONS):
        value = given.get(name)
        if value is None or value in ("", ()):
            continue
        if OPTIONS.get(name) == "sizes":
            value = "-".join(map(str, value))
        lines.append(yaml.safe_dump({name: value}, allow_unicode=True, width=10_000))
    files.write_text(Path(path), "# calib train --experiment FILE -o RUN\n" + "".join(lines))


def _content(path: Path) -> dict[Any, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        given = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(
            f"'{path}' cannot be read as an experiment: {reason}; expected lines 'option: value'"
        ) from error
    if not isinstance(given, dict):
        raise OptionError(f"'{path}' holds {type(given).__name__}; expected lines 'option: value'")
    return given


def _listed(known: Mapping[str, str]) -> str:
    return f"expected {', '.join(known)}"


def _value(kind: str, value: Any) -> Any:
    """Return the value of an option, None when it is no such value."""
    if kind == "truth":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if kind == "whole":
        return value if isinstance(value, int) else None
    if kind == "number":
        return _number(value)
    if kind == "sizes":
        if isinstance(value, str):
            return sizes(value)
        whole = isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        return tuple(value) if whole else None
    if kind == "array" and isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items())
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    try:  # YAML 1.1 reads 1e-4 as text
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None
