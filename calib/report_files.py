"""What a report is made of: files of results, recognised by their schema, and the run folders beside them."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from calib import files
from calib.errors import ModelError, OptionError

if TYPE_CHECKING:
    from calib.runs import Run


@dataclass(frozen=True)
class Kind:
    """A kind of result: its name, the command that makes it, and what it must hold beside what its opener checks.

    Attributes
    ----------
    variables : name -> dimensions.
    options : keys of the JSON attribute 'options'.
    attributes : names of other attributes.
    """

    name: str
    command: str
    variables: dict[str, tuple[str, ...]]
    options: tuple[str, ...]
    attributes: tuple[str, ...]


_CHIPS = ("network", "chip")
_SPLIT = ("quantity", "component")
KINDS = {
    "calib-results/1": Kind("evaluation", "calib evaluate", {}, ("chips", "redraw", "read_time"), ("seed",)),
    "calib-budget/1": Kind(
        "budget", "calib budget",
        {"error": _CHIPS, "ideal_error": _CHIPS, "energy": _CHIPS, "cost_removed_bound": ("effect", "bound"),
         "cost_alone_bound": ("effect", "bound")},
        ("chips", "read_time"), ("run", "device", "device_sha256", "seed", "protocol"),
    ),
    "calib-requirements/1": Kind(
        "requirements", "calib requirements",
        {"crossing": ("effect",), "loss": ("effect", "size"), "loss_bound": ("effect", "size", "bound"),
         "quantity": ("effect",), "unit": ("effect",), "present": ("effect",)},
        ("chips", "alone"), ("run", "device", "device_sha256", "seed", "allowed_loss", "protocol"),
    ),
    "calib-uncertainty/1": Kind(
        "uncertainty", "calib uncertainty",
        {"error": ("network", "model", "chip"), "energy_per_inference": ("network", "model", "chip"),
         "variance": _SPLIT, "variance_low": _SPLIT, "variance_high": _SPLIT, "nominal": ("quantity", "network")},
        ("models", "chips", "read_time"), ("device", "device_hash", "seed"),
    ),
    "calib-robustness/1": Kind(
        "robustness", "calib robustness",
        {"accuracy": ("curve", "network", "chip", "strength")},
        ("step", "steps", "random_start", "known_chips"), ("attack", "device", "device_hash", "images", "seed"),
    ),
}  # fmt: skip
"""Kinds of results by schema."""
_ELSEWHERE = {
    "calib-device-model/1": "a device model; give it with --device",
    "calib-measurement/1": "a measurement; 'calib inspect' shows it",
    "calib-reproduction-results/1": "of 'calib reproduce', which writes a report of its own beside it",
}


@dataclass(frozen=True, eq=False)
class ResultFile:
    """Results of one kind.

    Attributes
    ----------
    kind : what they are, and how they are made.
    data : their content.
    name : of the file, '' for what was not read from one.
    sha256 : of the file.
    folder : where the file is; None without one.
    written : when the file was last changed, UTC; '' without one.
    """

    kind: Kind
    data: xr.Dataset
    name: str = ""
    sha256: str = ""
    folder: Path | None = None
    written: str = ""

    @property
    def title(self) -> str:
        """What an error calls it."""
        return f"'{self.name}'" if self.name else f"the {self.kind.name}"

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """Record of the training of each run, by the name of its folder."""
        records, names = json.loads(self.data.attrs["training"]), self.labels
        listed = records if isinstance(records, list) else [records]
        return dict(zip(names, listed, strict=True))

    @property
    def labels(self) -> list[str]:
        """Names of the run folders whose networks were used."""
        if "run" in self.data.attrs:
            return [str(self.data.attrs["run"])]
        names = [str(name) for name in self.data["network"].values]
        return list(dict.fromkeys(name.rpartition("/")[0] or name for name in names))

    @property
    def options(self) -> dict[str, Any]:
        """What was asked for."""
        return json.loads(self.data.attrs["options"])

    @property
    def devices(self) -> dict[str, str]:
        """Hashes of the device models by name; several hashes of one name are separated by a space."""
        attrs = self.data.attrs
        if self.kind.name == "evaluation":
            return json.loads(attrs.get("device_hashes", "{}"))
        sha256 = str(attrs.get("device_sha256", attrs.get("device_hash", "")))
        return {str(attrs["device"]): sha256} if sha256 else {}


def open_result(item: str | Path | xr.Dataset) -> ResultFile:
    """Open a file of results of any kind and check it.

    Raises
    ------
    ModelError
        When it is damaged, or none of calib's results.
    """
    if isinstance(item, xr.Dataset):
        return _checked(ResultFile(_kind(item, "the data set"), item))
    path = Path(item)
    data = files.open_netcdf(path, "file of results", "make it again").to_dataset()
    kind = _kind(data, f"'{path}'")
    opener = _opener(kind.name)
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return _checked(ResultFile(kind, data if opener is None else opener(path), path.name, files.sha256_of(path),
                               path.resolve().parent, f"{changed:%Y-%m-%d %H:%M} UTC"))  # fmt: skip


def open_results(items: Sequence[str | Path | xr.Dataset] | str | Path | xr.Dataset) -> list[ResultFile]:
    """Open files of results.

    Raises
    ------
    OptionError
        When there are none.
    """
    listed = [items] if isinstance(items, str | Path | xr.Dataset) else list(items)
    if not listed:
        raise OptionError("no results were given; give files that 'calib evaluate' or 'calib budget' made")
    return [open_result(item) for item in listed]


def _kind(data: xr.Dataset, title: str) -> Kind:
    schema = str(data.attrs.get("schema", ""))
    if schema in KINDS:
        return KINDS[schema]
    found = _ELSEWHERE.get(schema, f"found schema '{schema}'" if schema else "found no attribute 'schema'")
    commands = ", ".join(kind.command for kind in KINDS.values())
    raise ModelError(f"{title} is no results file: {found}; expected what one of these writes: {commands}")


def _opener(name: str) -> Callable[[Path], xr.Dataset] | None:
    """Return what opens and checks a kind of results, None for kinds that are checked here alone."""
    from calib import budget, requirements, results

    return {"evaluation": results.open_results, "budget": budget.open_budget,
            "requirements": requirements.open_requirements}.get(name)  # fmt: skip


def _checked(file: ResultFile) -> ResultFile:
    """Return a file whose content is as its kind says.

    Raises
    ------
    ModelError
        Naming everything that is not.
    """
    data, kind = file.data, file.kind
    problems = [
        f"variable '{name}' has dimensions {data[name].dims if name in data else 'of nothing'}, expected {dims}"
        for name, dims in kind.variables.items()
        if name not in data or data[name].dims != dims
    ]
    problems += [f"attribute '{name}' is missing" for name in kind.attributes if name not in data.attrs]
    problems += _json_problems(file, "options", kind.options)
    problems = problems or _record_problems(file)
    if problems:
        raise ModelError(
            f"{file.title} does not hold what '{kind.command}' writes: {'; '.join(problems)}; make it again"
        )
    return file


def _json_problems(file: ResultFile, name: str, keys: Iterable[str] = ()) -> list[str]:
    try:
        value = json.loads(file.data.attrs[name])
    except (KeyError, TypeError, ValueError):
        return [f"attribute '{name}' is missing or no JSON"]
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    return [f"'{', '.join(missing)}' missing in the attribute '{name}'"] if missing else []


def _record_problems(file: ResultFile) -> list[str]:
    """Return what is wrong with the record of the training."""
    found = _json_problems(file, "training")
    if found:
        return found
    records = json.loads(file.data.attrs["training"])
    listed = records if isinstance(records, list) else [records]
    for record in listed:
        try:
            _ = int(record["options"]["networks"]), record["device"]["name"], record["device"]["sha256"], record["data"]
        except (KeyError, TypeError, ValueError) as error:
            return [f"the record of a training lacks {error}"]
    count, names = sum(int(record["options"]["networks"]) for record in listed), file.data.sizes.get("network")
    if names not in (None, count):  # requirements are of all networks together
        return [f"it holds {names} networks but its record of training lists {count}"]
    if len(listed) != len(file.labels):
        return [f"it names {len(file.labels)} runs but its record of training lists {len(listed)}"]
    return []


def run_folders(opened: Sequence[ResultFile], given: Sequence[str | Path] = ()) -> "dict[str, Run]":
    """Return the run folders that results were made from, by name: those given, and those that lie beside the files.

    A folder beside a file is taken where its record is the one in the file.

    Raises
    ------
    OptionError
        When a folder that is given is none of those that the results were made from.
    ModelError
        When such a folder is damaged.
    """
    from calib.runs import open_run

    records: dict[str, dict[str, Any] | None] = {}
    for file in opened:
        for label in file.labels:
            records[label] = file.records.get(label) or records.get(label)
    found = {}
    for path in map(Path, given):
        run = open_run(path)
        name = path.resolve().name
        if name not in records or (records[name] or run.record) != run.record:
            raise OptionError(
                f"the run '{path}' is none of those that the results were made from ({', '.join(records)}); leave it "
                "out"
            )
        found[name] = run
    for label, record in records.items():
        for folder in dict.fromkeys(file.folder for file in opened if file.folder is not None and label in file.labels):
            path = folder / label
            here = _record(path) if path.name == label else None
            if label not in found and here is not None and here == (record or here):
                found[label] = open_run(path)
    return found


def _record(path: Path) -> dict[str, Any] | None:
    """Return the content of run.json of a folder, None where there is none."""
    try:
        return json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
