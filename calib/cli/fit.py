"""`calib fit`: measurement files -> device model."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from calib.cli import console, print_json
from calib.errors import OptionError

name = "fit"
summary = "fit a device model to measurement files"
example = "calib fit sweeps.xlsx --columns voltage=0,current=1 --units current=uA -o device.nc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from calib.iv_models import names
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
    parser.add_argument("--iv-model", default="auto", choices=["auto", *names()], help="conduction law (default auto)")
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
    parser.add_argument("--name", help="name of the device model")
    parser.add_argument("--citation", help="where the measurements are from")
    parser.add_argument("--technology", default="", help="materials and structure of the device")
    parser.add_argument("--json", action="store_true", help="print the written models as JSON")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Read, fit, save; one file for each population."""
    from calib import calibrate, describe, device_model, reading
    from calib.reading_options import options_from

    output = Path(args.output)
    if output.suffix != ".nc":
        raise OptionError(f"the device model is written as netCDF: give a name that ends in .nc, not '{output.name}'")
    measurement = reading.read(args.files, **options_from(args))
    for sentence in _attribute(measurement, "questions"):
        console.warn(sentence)
    found = calibrate.populations(measurement)
    wanted = found if args.population is None else [args.population]
    options: dict[str, Any] = {
        key: getattr(args, key)
        for key in ("reference_voltage", "v_max", "iv_model", "form", "stuck_rule", "temperature", "name", "citation",
                    "technology")
    }  # fmt: skip
    if len(wanted) > 1:
        console.note(f"{len(wanted)} populations are not pooled; each is fitted into a file of its own")
    fitted = [(label, calibrate.fit(measurement, population=label, **options)) for label in (wanted or [None])]
    written = []
    for label, model in fitted:
        path = output if len(fitted) == 1 else output.with_name(f"{output.stem}-{_slug(str(label))}.nc")
        device_model.save(model, path)
        written.append({"path": str(path), "population": label or "", **describe.describe_json(model)})
    if args.json:
        print_json(written)
        return 0
    for (_, model), entry in zip(fitted, written, strict=True):
        for section in describe.describe(model):
            console.section(section)
        console.text(f"written: {entry['path']}; next: calib card {entry['path']} -o card")
    return 0


def _attribute(measurement: Any, key: str) -> list[str]:
    import json

    return json.loads(measurement["iv"].attrs.get(key, "[]")) if "iv" in measurement.children else []


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.") or "population"


member = sys.modules[__name__]
