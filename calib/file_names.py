"""Labels that stand in the names of files: device, cycle, level, place and temperature, by a regular expression."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calib.errors import OptionError, ReadError
from calib.measurement import Measurement, attributes_of, notes_of, with_notes
from calib.measurement_contract import NODES, PLACE
from calib.statements import kelvin

GROUPS = ("device", "cycle", "level", "row", "column", "die", "wafer", "temperature")
_NUMBERS = ("cycle", "row", "column")


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern whose named groups are among `GROUPS`.

    Raises
    ------
    OptionError
        When it is no regular expression, has no named group, or one of another name.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise OptionError(f"--pattern '{pattern}' is no regular expression: {error}") from error
    unknown = [name for name in expression.groupindex if name not in GROUPS]
    if unknown or not expression.groupindex:
        found = f"the group '{unknown[0]}'" if unknown else "no named group"
        raise OptionError(
            f"--pattern '{pattern}' has {found}; expected groups among {', '.join(GROUPS)}, for example "
            r"'run_(?P<device>[A-Z]\d+)_(?P<cycle>\d+)'"
        )
    return expression


def labels_in_names(paths: Sequence[Path], pattern: str) -> list[dict[str, Any]]:
    """Return what the pattern finds in the name of each file; cycles that begin at 1 or later count from 0.

    Raises
    ------
    ReadError
        When the pattern is not found in the name of a file, or finds words where a number belongs.
    """
    expression = compiled(pattern)
    result: list[dict[str, Any]] = []
    for path in paths:
        match = expression.search(path.name)
        if match is None:
            raise ReadError(
                f"--pattern '{pattern}' is not found in the file name '{path.name}'; give one that fits every file"
            )
        labels: dict[str, Any] = {key: value for key, value in match.groupdict().items() if value}
        for key in _NUMBERS:
            if key in labels and not re.fullmatch(r"-?\d{1,15}", labels[key]):
                raise ReadError(
                    f"--pattern '{pattern}' finds the {key} '{labels[key]}' in the file name '{path.name}'; expected a "
                    "whole number"
                )
            if key in labels:
                labels[key] = int(labels[key])
        if "temperature" in labels:
            labels["temperature"] = kelvin(labels["temperature"])
        place = [str(labels[key]) for key in ("wafer", "die", "row", "column") if key in labels]
        if place and {"row", "column"} & set(labels):
            labels.setdefault("device", "-".join(place))
        result.append(labels)
    cycles = [labels["cycle"] for labels in result if "cycle" in labels]
    for labels in result:
        if "cycle" in labels and min(cycles) >= 1:
            labels["cycle"] -= 1
    return result


def apply(tree: Measurement, labels: dict[str, Any], name: str) -> Measurement:
    """Return a Measurement of one file with the labels of its name.

    A file that holds several devices keeps them apart: theirs are put behind the name's. A level is the level of
    reads, and the state of sweeps and writes.

    Raises
    ------
    ReadError
        When the file holds several cycles itself.
    """
    for node_name, child in tree.children.items():
        if node_name == "extra":
            continue
        node = child.to_dataset(inherit=False)
        dim = NODES[node_name].dims[0]
        size = node.sizes[dim]
        given = dict(labels)
        if "level" in given and "level" not in node.coords:
            given["state" if "state" in node.coords else "population"] = given.pop("level")
        if "cycle" in given and len(np.unique(node["cycle"].values)) > 1 and node_name == "iv":
            raise ReadError(
                f"--pattern gives the cycle of '{name}', but the file holds several; leave the group cycle out"
            )
        if "device" in given and len(np.unique(node["device"].values)) > 1:
            given["device"] = np.char.add(f"{given['device']}-", node["device"].values.astype(str))
        for key, value in given.items():
            kind = {**NODES[node_name].labels, **PLACE}[key]
            dtype = {"U": str, "i": np.int64, "f": np.float64}[kind]
            values = np.broadcast_to(np.asarray(value, dtype=dtype), (size,)).copy()
            node = node.assign_coords({key: ((dim,), values, attributes_of(key))})
        stated = ", ".join(f"{key} {value}" for key, value in labels.items())
        child.dataset = with_notes(node, [*notes_of(node), f"from the file name '{name}': {stated}"])
    return tree
