"""Nonlinear devices behind resistive lines: against ngspice, Kirchhoff's laws, limits; gradients."""

import shutil
import subprocess

import numpy as np
import pytest
import torch

from calib.crossbar.line_resistance import Factors, Lines, currents
from calib.crossbar.nonlinear_lines import Convergence, nonlinear_currents
from calib.errors import FitError


def poole_frenkel(x: torch.Tensor, c: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    return c * x * torch.exp(gamma * torch.sqrt(x.abs() + 1e-300))


def sinh(x: torch.Tensor, g: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    return g * torch.sinh(alpha * x) / alpha


def devices(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(*shape, generator=generator, dtype=torch.float64) * 1e-4 + 1e-6
    return scale, 0.5 + 2 * torch.rand(*shape, generator=generator, dtype=torch.float64)


def inputs(*shape: int, seed: int = 1) -> torch.Tensor:
    return 0.5 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_linear_devices_take_the_linear_solution():
    g, _ = devices(6, 5)
    lines = Lines(100, 200, 30, 4)
    found = nonlinear_currents(inputs(3, 6), lambda x, g: g * x, (g,), lines)
    torch.testing.assert_close(found, currents(inputs(3, 6), g, lines), rtol=1e-12, atol=0)


@pytest.mark.parametrize("law", [poole_frenkel, sinh])
@pytest.mark.parametrize("resistance", [1.0, 1e3, 1e5])
@pytest.mark.parametrize("both_ends", [False, True])
def test_the_joint_solution_obeys_kirchhoffs_laws(law, resistance, both_ends):
    """The devices' currents, put into the linear network of the lines alone, give back the devices' voltages."""
    parameters = devices(2, 6, 5)
    v = inputs(2, 3, 6)
    lines = Lines(resistance, 2 * resistance, 10.0, 5.0, both_ends)
    found = nonlinear_currents(v, law, parameters, lines, tolerance=1e-13)
    factors = Factors(torch.full((2, 6, 5), 1e-12, dtype=torch.float64), lines)  # the lines, nearly without devices
    x = factors.respond(v, None)[0]
    p = [value.unsqueeze(-3) for value in parameters]
    middle = Factors(parameters[0] * 2, lines)
    for _ in range(4000):  # a plain iteration of its own, slow and sure
        x_new = middle.respond(v, law(x, *p) - middle.g.unsqueeze(-3) * x)[0]
        done = float((x_new - x).abs().max()) < 1e-15
        x = x + 0.7 * (x_new - x)
        if done:
            break
    back, out = factors.respond(v, law(x, *p) - 1e-12 * x)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(found, out, rtol=1e-9, atol=0)


def test_lines_without_resistance_are_the_sum_of_the_devices():
    c, gamma = devices(6, 5)
    v = inputs(3, 6)
    expected = poole_frenkel(v.unsqueeze(-1), c, gamma).sum(1)
    torch.testing.assert_close(nonlinear_currents(v, poole_frenkel, (c, gamma), Lines()), expected, rtol=1e-12, atol=0)


def test_gradients():
    c, gamma = devices(5, 4)
    scaled = (1e4 * c).requires_grad_()  # of order one, for the check's absolute tolerance
    lines = Lines(0.01, 0.02, 0.03, 0.004)

    def run(v, c, gamma):
        return nonlinear_currents(v, poole_frenkel, (c, gamma), lines, tolerance=1e-14)

    assert torch.autograd.gradcheck(run, (inputs(3, 5).requires_grad_(), scaled, gamma.requires_grad_()))


def test_the_convergence_is_reported_and_a_failure_says_what_was_reached():
    parameters = devices(6, 5)
    report = Convergence()
    nonlinear_currents(inputs(3, 6), poole_frenkel, parameters, Lines(10, 10), report=report)
    assert 1 < report.iterations < 20
    assert report.residual < 1e-8
    with pytest.raises(FitError, match="did not converge in 2 iterations: voltages still change by"):
        nonlinear_currents(inputs(3, 6), poole_frenkel, parameters, Lines(1e4, 1e4), iterations=2)


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed (Debian package ngspice)")
@pytest.mark.parametrize("size", [(1, 1), (4, 3), (16, 16)], ids=str)
@pytest.mark.parametrize("lines", [Lines(100, 200, 30, 4), Lines(1e3, 1e3)], ids=str)
def test_agrees_with_ngspice(size, lines, tmp_path):
    c, gamma = devices(*size)
    v = inputs(1, size[0])
    found = nonlinear_currents(v, poole_frenkel, (c, gamma), lines, tolerance=1e-13)[0]
    expected = by_ngspice(v[0].numpy(), c.numpy(), gamma.numpy(), lines, tmp_path)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6 * expected.max())


def by_ngspice(v: np.ndarray, c: np.ndarray, gamma: np.ndarray, lines: Lines, folder) -> np.ndarray:
    m, n = c.shape
    netlist = ["array", *(f"V{i} s{i} 0 {x:.17g}" for i, x in enumerate(v))]
    netlist += [f"RS{i} s{i} w{i}_0 {lines.driver + lines.word_segment:.17g}" for i in range(m)]
    netlist += [f"RW{i}_{j} w{i}_{j - 1} w{i}_{j} {lines.word_segment:.17g}" for i in range(m) for j in range(1, n)]
    netlist += [f"RB{i}_{j} b{i - 1}_{j} b{i}_{j} {lines.bit_segment:.17g}" for i in range(1, m) for j in range(n)]
    netlist += [f"RO{j} b{m - 1}_{j} o{j} {lines.bit_segment + lines.sense:.17g}\nVO{j} o{j} 0 0" for j in range(n)]
    for i in range(m):
        for j in range(n):
            x = f"V(w{i}_{j},b{i}_{j})"
            law = f"{c[i, j]:.17g}*{x}*exp({gamma[i, j]:.17g}*sqrt(abs({x})))"
            netlist.append(f"BD{i}_{j} w{i}_{j} b{i}_{j} I={law}")
    netlist += [".options reltol=1e-10 abstol=1e-18 vntol=1e-14 itl1=1000 gmin=1e-18", ".control", "op",
                "set numdgt=15", *(f"print i(vo{j})" for j in range(n)), ".endc", ".end"]  # fmt: skip
    (folder / "array.cir").write_text("\n".join(netlist) + "\n")
    done = subprocess.run(
        ["ngspice", "-b", "array.cir"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    found = dict(line.split(" = ") for line in done.stdout.splitlines() if line.startswith("i(vo"))
    return np.array([float(found[f"i(vo{j})"]) for j in range(n)])
