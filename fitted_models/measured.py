"""Device models fitted to published measurements: ``python fitted_models/measured.py FOLDER`` from the project's root.

FOLDER holds the measurements as their authors published them, a folder for each source. The models hold what was fitted
and where the data are from; no measured curve is in them.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from calib import calibrate, device_model, reading


@dataclass(frozen=True)
class Source:
    """A published measurement and how it is read and fitted.

    Attributes
    ----------
    folder, files : where the files lie under the folder of measurements.
    technology, citation, license : of the model.
    reading, fitting : options of `calib.read` and `calib.fit`, as the command line spells them.
    """

    folder: str
    files: tuple[str, ...]
    technology: str
    citation: str
    license: str
    reading: dict[str, Any] = field(default_factory=dict)
    fitting: dict[str, Any] = field(default_factory=dict)

    def command(self, name: str) -> str:
        """Return the command that makes the model."""
        options = {**self.reading, **self.fitting}
        given = [f"--{key.replace('_', '-')} {value!r}" if " " in str(value) else f"--{key.replace('_', '-')} {value}"
                 for key, value in options.items()]  # fmt: skip
        files = " ".join(f"{self.folder}/{file}" for file in self.files)
        return " ".join(["calib fit", files, *given, f"--name {name} -o {name}.nc"])


def _github(repository: str, commit: str, paper: str = "") -> str:
    return f"{paper + '; ' if paper else ''}data: https://github.com/{repository}, commit {commit[:12]}"


_RADWAY = _github("robert-radway/NI-RRAM-Python", "6bceb458a6d4b190cb6839781eef922553c95f07")
_LOG = "device=0,n_read=1,n_set=2,n_reset=3,resistance=4,resistance_low=6,resistance_high=7,success=8"
SOURCES: dict[str, Source] = {
    "ddas04-rram": Source(
        "ddas04-rram", ("100devices.xlsx",), "RRAM, 0.4 um, 100 devices (material not stated)",
        _github("ddas-04/RRAM_Raw_data", "35df86ee046b2c80b79de5eee8ecec423419533b"), "none stated",
        fitting={"population": "devices"},
    ),
    "xiao2025-multilevel": Source(
        "xiao2025-multilevel", ("uniformity-data.xlsx", "32-levels-retention.xlsx"),
        "bipolar resistive-switching cells with over 512 levels (material not stated with the data)",
        _github("joksas/mnn-cam", "636001ed7bc67e7f9109815d73430db62e16704f",
                "Ultra-fast non-volatile resistive switching devices with over 512 distinct and stable levels (2025)"),
        "GPL-3.0", fitting={"reference_voltage": -0.5},
    ),
    "radway-1t1r-multivolt": Source(
        "radway-1t1r", ("read_multivolt.tsv",), "1T1R foundry RRAM, 64k-cell test chip", _RADWAY, "MIT",
        reading={"columns": "device=0,current=1,voltage=2"},
    ),
    "radway-1t1r-cycles": Source(
        "radway-1t1r", ("100cyc.tsv",), "1T1R foundry RRAM, 64k-cell test chip", _RADWAY, "MIT",
        reading={"columns": "device=0,resistance_lrs=1,resistance_hrs=2,cycle=3"},
    ),
    "levy-write-verify": Source(
        "levy-write-verify", ("fppv-4wl-eval-chip1-8-7-20.csv",), "1T1R RRAM array, 2-bit write and verify",
        _github("akashlevy/RRAM-RADAR-Tuning", "5038af308a4bf0d8ca233f9699f31019d6580985",
                "doi 10.1109/TED.2021.3097975"),
        "none stated", reading={"columns": _LOG},
    ),
    "levy-relaxation": Source(
        "levy-relaxation", ("relaxdata.min.tsv.gz",), "RRAM, technology C of three foundries",
        _github("akashlevy/RRAM-Relaxation-Master-Model", "ca0cfff655a7392dc8955585f7345303b3cffde8"), "MIT",
        reading={"columns": "device=0,time=1,resistance=2,conductance=3,level=5"},
    ),
    "wang-yflash": Source(
        "wang-yflash", ("data_device2device_prog_erase.txt",), "Y-Flash floating-gate memristor, 180 nm CMOS",
        _github("wangweifcc/memristive_dbn_yflash", "fa79ffd5f75a54d72903fbcf746a20bae3d559b5"), "CC BY-NC-SA 4.0",
    ),
    "gong-reram": Source(
        "gong-reram", ("gong_et_al.csv",), "ReRAM (Gong et al.), conductance normalised",
        _github("IBM/aihwkit", "4545f11b5214c5e3c6b9d293053bbf8baf74e110"), "MIT",
        reading={"columns": "potentiation=0,depression=1"},
    ),
    "elgeresy-tio2": Source(
        "elgeresy-tio2-drift", ("*_proc.csv",), "TiO2 memristors",
        _github("sdpenguin/memristor-neuromorphic-model", "c7c359fb9fb7c3e06b381df3f5dedfe089f1f567",
                "arXiv 2407.04718"),
        "none stated",
    ),
}  # fmt: skip


def build(name: str, measurements: Path) -> xr.DataTree:
    """Read and fit a source, and leave out of the model what was measured."""
    source = SOURCES[name]
    paths = sorted(path for file in source.files for path in (measurements / source.folder).glob(file))
    tree = calibrate.fit(
        reading.read(paths, **source.reading), name=name, technology=source.technology, citation=source.citation,
        **source.fitting,
    )  # fmt: skip
    nodes = {
        str(key): node.to_dataset().drop_dims("example", errors="ignore")
        for key, node in tree.children.items()
        if key != "examples"
    }
    bare = xr.DataTree.from_dict({f"/{key}": node for key, node in nodes.items()})
    options = {**json.loads(tree.attrs["options"]), **source.reading, "command": source.command(name)}
    bare.attrs = {
        **tree.attrs, "license": source.license, "options": json.dumps(options, sort_keys=True, ensure_ascii=False)
    }  # fmt: skip
    device_model.check(bare)
    return bare


def main() -> None:
    """Write the models beside this script."""
    parser = argparse.ArgumentParser(description="Rebuild the device models of published measurements.")
    parser.add_argument("measurements", type=Path, help="folder of the published measurements")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--only", nargs="+", choices=list(SOURCES), default=list(SOURCES), help="models to build")
    arguments = parser.parse_args()
    for name in arguments.only:
        model = build(name, arguments.measurements)
        device_model.save(model, arguments.output / f"{name}.nc")
        print(f"{name}.nc  {device_model.identity(model)[:16]}")


if __name__ == "__main__":
    main()
