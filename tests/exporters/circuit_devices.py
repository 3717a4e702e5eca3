"""Device models of every conduction law for the tests of circuits, and currents by ngspice."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from calib import device_model
from calib.device_model import ShapeLaw
from tests.iv_models.law_devices import population as law_population

ONE = {"units": "1"}
NGSPICE = pytest.mark.skipif(
    shutil.which("ngspice") is None, reason="ngspice is not installed (Debian package ngspice)"
)
EXACT = ".options reltol=1e-12 abstol=1e-24 vntol=1e-16 gmin=1e-24 itl1=500"
HOSTILE = (
    '".include /etc/passwd\n.control\nshell touch pwned\n.endc\n+ R9 0 1 1\n*/ `include "none.vams" // endmodule\\\n'
    "{1/0} $(x) \u6e2c\u5b9a \u202e\x07; .end"
)


def of_law(name: str, **options: object) -> xr.DataTree:
    """Return a device model of one conduction law."""
    return tree_of(law_population(name, **options), name=f"law {name}")  # type: ignore[arg-type]


def tree_of(p: ShapeLaw, *, name: str = "made", **nodes: xr.Dataset) -> xr.DataTree:
    """Return a device model with this population law, its states named s0, s1 ... from low to high resistance."""
    n = len(p.centres)
    node = xr.Dataset(
        {
            "transform": (("state", "parameter"), np.array([p.transforms] * n, dtype=object)),
            "intercept": (("state", "parameter"), p.intercept, ONE),
            "slope": (("state", "parameter"), p.slope, ONE),
            "covariance": (("state", "parameter", "parameter_other"), p.covariance, ONE),
            "ln_r_quantile": (("state", "quantile"), np.stack([p.centres - 0.3, p.centres + 0.3], 1), ONE),
            "ln_r_mean": ("state", p.centres, ONE),
            "ln_r_std": ("state", [0.3] * n, ONE),
            "ln_r_min": ("state", [p.ln_r_min] * n, ONE),
            "ln_r_max": ("state", [p.ln_r_max] * n, ONE),
            "n_curves": ("state", [40] * n),
            "n_devices": ("state", [10] * n),
        },
        coords={"state": [f"s{k}" for k in range(n)], "parameter": list(p.parameters),
                "parameter_other": list(p.parameters), "quantile": [0.0, 1.0]},
        attrs={"iv_model": p.iv_model, "form": p.form, "reference_voltage": p.reference_voltage, "v_min": 0.005,
               "v_max": p.v_max},
    )  # fmt: skip
    return device_model.build({"iv": node, **nodes}, name=name)


def three_states(name: str = "schottky") -> ShapeLaw:
    """Return a law of three states whose lines, spreads and correlations differ."""
    p = law_population(name)
    deviation = np.sqrt(np.diagonal(p.covariance[0]))
    shift = np.array([-0.3, 0.1, 0.4])[:, None] * deviation
    turn = np.ones(len(deviation))
    turn[1] = -1.0
    factor = np.array([1.0, 2.5, 0.5])[:, None, None]
    covariance = factor * np.stack([p.covariance[0], p.covariance[0] * np.outer(turn, turn), p.covariance[0]])
    return ShapeLaw(
        iv_model=name, form="anchored", reference_voltage=p.reference_voltage, parameters=p.parameters,
        transforms=p.transforms, centres=p.centres[0] + np.array([-0.6, -0.1, 0.5]), intercept=p.intercept + shift,
        slope=np.repeat(p.slope, 3, axis=0), covariance=covariance, ln_r_min=p.ln_r_min, ln_r_max=p.ln_r_max,
        v_min=0.0, v_max=p.v_max,
    )  # fmt: skip


def by_ngspice(
    library: str, devices: list[str], folder: Path, v_max: float, points: int = 20, compatible: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Sweep devices, written as 'subcircuit parameters', together from -v_max to v_max.

    Returns
    -------
    voltage (point,) and current (point, device).
    """
    circuit = ["V1 in 0 0", *(f"VM{k} in a{k} 0\nX{k} a{k} 0 {device}" for k, device in enumerate(devices)), EXACT]
    outputs = " ".join(f"i(vm{k})" for k in range(len(devices)))
    table = run_ngspice(library, circuit, f"dc v1 {-v_max!r} {v_max!r} {v_max / points!r}", outputs, folder, compatible)
    return table[:, 0], table[:, 1:]


def run_ngspice(
    library: str, circuit: list[str], analysis: str, outputs: str, folder: Path, compatible: str = ""
) -> np.ndarray:
    """Return the table (point, 1 + output) of an analysis; its first column is what is swept."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "device.lib").write_text(library, encoding="ascii")
    if compatible:
        (folder / ".spiceinit").write_text(f"set ngbehavior={compatible}\n")
    control = [
        ".control",
        "set wr_singlescale",
        "set numdgt=15",
        analysis,
        f"wrdata out.txt {outputs}",
        ".endc",
        ".end",
    ]
    (folder / "test.cir").write_text("\n".join(["* test", ".include device.lib", *circuit, *control]) + "\n")
    done = subprocess.run(
        ["ngspice", "-b", "test.cir"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    if not (folder / "out.txt").is_file():
        raise AssertionError(done.stdout + done.stderr)
    return np.loadtxt(folder / "out.txt", ndmin=2)
