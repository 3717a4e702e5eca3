"""`calib fit`: measurement files -> device model."""

import argparse
import functools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calib.cli import console, print_json
from calib.errors import OptionError

name = "fit"
summary = "fit a device model to measurement files"
_FIT_OPTIONS = (
    "reference_voltage", "v_max", "iv_model", "form", "stuck_rule", "holdout", "temperature", "name", "citation",
    "technology",
)  # fmt: skip
_NUMBERS = ("reference_voltage", "v_max", "holdout", "skip_rows")
_NOT_IN_FILES = ("help", "files", "output", "options", "table", "report", "json")
example = "calib fit sweeps.xlsx --columns voltage=0,current=1 --units current=uA -o device.nc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from calib.iv_models import all_names
    from calib.reading_options import add_reading_arguments

    parser.add_argument("files", nargs="+", metavar="FILE", help="measurement files, folders or patterns")
    parser.add_argument("-o", "--output", required=True, metavar="DEVICE.nc", help="the device model to write")
    add_reading_arguments(parser)
    parser.add_argument(
        "--reference-voltage",
        type=float,
        default=0.1,
        metavar="V",
        help="voltage that defines R = V/I; a negative one takes the negative branches (default 0.1)",
    )
    parser.add_argument(
        "--v-max", type=float, metavar="V", help="end of the fitted window (default: what the data support)"
    )
    parser.add_argument(
        "--iv-model", default="auto", choices=["auto", *all_names()], help="conduction law (default auto)"
    )
    parser.add_argument(
        "--form",
        default="anchored",
        choices=["anchored", "paper"],
        help="how parameters are drawn given R (default anchored: I at the reference voltage is exact)",
    )
    parser.add_argument(
        "--stuck-rule",
        default="ratio",
        choices=["ratio", "range"],
        help="stuck devices by on/off ratio (default) or by range in siemens as in Joksas et al. 2022",
    )
    parser.add_argument(
        "--population", metavar="NAME", help="fit this population only (default: each, into its own file)"
    )
    parser.add_argument(
        "--holdout", type=float, default=0.0, metavar="FRACTION",
        help="fraction of the devices to hold out and to validate the model with (default 0)",
    )  # fmt: skip
    parser.add_argument(
        "--options", metavar="FIT.yaml", help="options from a YAML file, or those of a device model (.nc)"
    )
    parser.add_argument(
        "--table", metavar="FITS.csv", help="write the fit of every curve as csv, or as xlsx with every estimate"
    )
    parser.add_argument("--report", metavar="FIT.html", help="write the data sheet of the fitted model")
    parser.add_argument("--name", help="name of the device model")
    parser.add_argument("--citation", help="where the measurements are from")
    parser.add_argument("--technology", default="", help="materials and structure of the device")
    parser.add_argument(
        "--json", action="store_true",
        help="print a list of objects: path, files, population and the keys of 'calib show --json', among them "
        "validation.coverage_90 with mean, low, high",
    )  # fmt: skip
    parser.set_defaults(defaults={a.dest: a.default for a in parser._actions if a.dest not in _NOT_IN_FILES})


def run(args: argparse.Namespace) -> int:
    """Read, fit, save; one file for each population."""
    from calib import calibrate, describe, device_model, reading
    from calib.curve_table import SUFFIXES
    from calib.measurement import notes_of
    from calib.reading_options import options_from

    if args.options:
        _apply_options(args)
    output = _named(args.output, (".nc",), "the device model is written as netCDF")
    table = _named(args.table, SUFFIXES, "the table of fits is written as csv or xlsx") if args.table else None
    report = _named(args.report, (".html",), "the data sheet is written as HTML") if args.report else None
    measurement = reading.read(args.files, **options_from(args))
    for node in measurement.children.values():
        for sentence in notes_of(node, "questions"):
            console.warn(sentence)
    found = calibrate.populations(measurement)
    wanted = found if args.population is None else [args.population]
    options: dict[str, Any] = {key: getattr(args, key) for key in _FIT_OPTIONS}
    if len(wanted) > 1:
        console.note(f"{len(wanted)} populations are not pooled; each is fitted into a file of its own")
    fitted = [(label, calibrate.fit(measurement, population=label, **options)) for label in (wanted or [None])]
    for _, model in fitted:
        _remember_reading(model, options_from(args))
    extras = [
        _extras(model, [path for path in (table, report) if path]) for _, model in fitted
    ]  # before any is written
    written = []
    for (label, model), writers in zip(fitted, extras, strict=True):
        suffix = "" if len(fitted) == 1 else f"-{_slug(str(label))}"
        paths = [_with_suffix(path, suffix) for path in (output, *writers)]
        device_model.save(model, paths[0])
        for path, write in zip(paths[1:], writers.values(), strict=True):
            write(path)
        written.append(
            {"path": str(paths[0]), "files": [str(path) for path in paths], "population": label or "",
             **describe.describe_json(model)}
        )  # fmt: skip
    if args.json:
        print_json(written)
        return 0
    for (_, model), entry in zip(fitted, written, strict=True):
        for section in describe.describe(model):
            console.section(section)
        console.text(f"written: {', '.join(entry['files'])}; next: calib card {entry['path']} -o card")
    return 0


def _named(name: str, suffixes: tuple[str, ...], what: str) -> Path:
    path = Path(name)
    if path.suffix not in suffixes:
        raise OptionError(f"{what}: give a name that ends in {' or '.join(suffixes)}, not '{path.name}'")
    return path


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.stem}{suffix}{path.suffix}")


def _extras(model: Any, paths: list[Path]) -> dict[Path, Callable[[Path], None]]:
    """Return by path what writes the table of fits and the data sheet; what they cannot hold is said here."""
    from calib.curve_table import table_writer
    from calib.exporters import exporter
    from calib.files import write_text

    writers: dict[Path, Callable[[Path], None]] = {}
    for path in paths:
        if path.suffix == ".html":
            text = next(iter(exporter("html").contents(model).values()))
            writers[path] = functools.partial(write_text, text=str(text))
        else:
            writers[path] = table_writer(model, path)
    return writers


def _remember_reading(model: Any, options: dict[str, Any]) -> None:
    """Add the reading options that were given to those of the fit, so that --options DEVICE.nc repeats both."""
    given = {key: value for key, value in options.items() if value}
    stored = json.loads(model.attrs["options"])
    model.attrs["options"] = json.dumps({**given, **stored}, sort_keys=True, ensure_ascii=False, default=str)


def _apply_options(args: argparse.Namespace) -> None:
    """Take options from a YAML file or a device model; what the command line says itself comes first.

    Raises
    ------
    OptionError
        When the file cannot be read, is no mapping, or names an option that there is not.
    """
    given = _options_of(Path(args.options))
    defaults: dict[str, Any] = args.defaults
    unknown = sorted(str(key) for key in given if _destination(key) not in defaults)
    if unknown:
        known = ", ".join(sorted(defaults))
        raise OptionError(f"'{args.options}' names {', '.join(unknown)}; expected options of 'calib fit': {known}")
    for key, value in given.items():
        destination = _destination(key)
        if destination in _NUMBERS and value is not None and not isinstance(value, int | float):
            raise OptionError(f"'{args.options}': {key} is {value!r}; expected a number")
        if getattr(args, destination) == defaults[destination]:
            setattr(args, destination, value)


def _options_of(path: Path) -> dict[Any, Any]:
    import yaml

    from calib import device_model

    if path.suffix == ".nc":
        return dict(device_model.attribute(device_model.open_device(path), "options"))
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(
            f"--options '{path}' cannot be read as YAML: {reason}; expected lines 'option: value'"
        ) from error
    if not isinstance(given, dict):
        raise OptionError(f"--options '{path}' holds {type(given).__name__}; expected lines 'option: value'")
    return given


def _destination(key: object) -> str:
    return str(key).lstrip("-").replace("-", "_")


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.") or "population"


member = sys.modules[__name__]
