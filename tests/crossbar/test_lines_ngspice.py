"""Arrays behind resistive lines against ngspice, an independent circuit simulator."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from calib.crossbar.line_currents import tile_currents, tile_currents_nonlinear
from calib.crossbar.line_resistance import Lines
from calib.iv_models import IVModel, iv_model

pytestmark = pytest.mark.skipif(
    shutil.which("ngspice") is None, reason="ngspice is not installed (Debian package ngspice)"
)

LINES = [
    Lines(100, 200, 30, 4), Lines(1e3, 1e3, both_ends=True), Lines(100, 200, 30, 4, both_ends=True), Lines(0, 500),
    Lines(500, 0, 20), Lines(0, 500, 100, both_ends=True), Lines(0, 0, 300, 200),
]  # fmt: skip
SIZES = [(1, 1), (4, 3), (3, 7), (16, 16)]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("lines", LINES, ids=str)
def test_linear_devices(size, lines, tmp_path):
    g, v = 1e-4 * draw(*size) + 1e-6, draw(1, size[0], seed=1) - 0.3
    found = tile_currents(v, g, lines)[0].numpy()
    expected = simulated(v[0].numpy(), iv_model("ohmic"), {"g": g.numpy()}, lines, tmp_path)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("lines", LINES, ids=str)
def test_poole_frenkel(size, lines, tmp_path):
    p = {"c": 1e-4 * draw(*size) + 1e-6, "gamma": 0.5 + 3 * draw(*size, seed=2)}
    assert deviation("poole-frenkel", p, lines, tmp_path) < 1e-6


@pytest.mark.parametrize("lines", [LINES[0], LINES[2]], ids=str)  # its Newton steps overflow the sinh with 1 kOhm
def test_other_laws(lines, tmp_path):
    size = (6, 5)
    p = {"g": 1e-4 * draw(*size), "kappa": 20 * draw(*size, seed=2) + 1}
    assert deviation("hyperbolic-sine", p, lines, tmp_path) < 1e-6
    p = {"i_s": 1e-6 * draw(*size), "v_f": 0.2 + 0.1 * draw(*size, seed=2), "n": 1 + draw(*size, seed=3)}
    assert deviation("diode", p, lines, tmp_path) < 1e-6


def deviation(name: str, parameters: dict[str, torch.Tensor], lines: Lines, folder: Path) -> float:
    """Return the largest difference of an output from ngspice's, as a share of the largest output."""
    law = iv_model(name)
    v = 0.5 * draw(1, len(parameters[law.scale]), seed=1)
    found, convergence = tile_currents_nonlinear(v, parameters, law, lines, 1e-12)
    convergence.check(1e-12)
    expected = simulated(v[0].numpy(), law, {k: p.numpy() for k, p in parameters.items()}, lines, folder)
    return float(np.abs(found[0].numpy() - expected).max() / np.abs(expected).max())


def simulated(v: np.ndarray, law: IVModel, parameters: dict[str, np.ndarray], lines: Lines, folder: Path) -> np.ndarray:
    """Return the outputs as ngspice has them; where a resistance is zero, there is none in the netlist."""
    m, n = next(iter(parameters.values())).shape
    netlist = ["array", *(f"V{i} s{i} 0 {x:.17g}" for i, x in enumerate(v))]

    def join(name: str, a: str, b: str, resistance: float) -> None:
        netlist.append(f"R{name} {a} {b} {resistance:.17g}" if resistance else f"V{name} {a} {b} 0")

    for i in range(m):
        join(f"S{i}", f"s{i}", f"w{i}_0", lines.driver + lines.word_segment)
        if lines.both_ends and n > 1 and (lines.word_segment or lines.driver):
            join(f"E{i}", f"s{i}", f"w{i}_{n - 1}", lines.driver + lines.word_segment)
        elif lines.both_ends and (lines.word_segment or lines.driver):
            join(f"E{i}", f"s{i}", f"w{i}_0", lines.driver + lines.word_segment)
        for j in range(1, n):
            join(f"W{i}_{j}", f"w{i}_{j - 1}", f"w{i}_{j}", lines.word_segment)
    for j in range(n):
        for i in range(1, m):
            join(f"B{i}_{j}", f"b{i - 1}_{j}", f"b{i}_{j}", lines.bit_segment)
        join(f"O{j}", f"b{m - 1}_{j}", f"o{j}", lines.bit_segment + lines.sense)
        netlist.append(f"VM{j} o{j} 0 0")
    for i in range(m):
        for j in range(n):
            text = law.expression.replace("V", f"V(w{i}_{j},b{i}_{j})")
            for name in sorted(parameters, key=len, reverse=True):
                text = _put(text, name, float(parameters[name][i, j]))
            netlist.append(f"BD{i}_{j} w{i}_{j} b{i}_{j} I={text}")
    netlist += [".options reltol=1e-10 abstol=1e-18 vntol=1e-14 itl1=1000 gmin=1e-18", ".control", "op",
                "set numdgt=15", *(f"print i(vm{j})" for j in range(n)), ".endc", ".end"]  # fmt: skip
    (folder / "array.cir").write_text("\n".join(netlist) + "\n")
    done = subprocess.run(
        ["ngspice", "-b", "array.cir"], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )
    found = dict(line.split(" = ") for line in done.stdout.splitlines() if line.startswith("i(vm"))
    assert len(found) == n, done.stdout + done.stderr
    return np.array([float(found[f"i(vm{j})"]) for j in range(n)])


def _put(text: str, name: str, value: float) -> str:
    """Put a number in the place of a parameter's name, which may be a part of other names."""
    return re.sub(rf"(?<![\w.]){name}(?![\w(])", f"({value:.17g})", text)
