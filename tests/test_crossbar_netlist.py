"""Netlists of programmed crossbars: ngspice against the solver of arrays with line resistance."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from calib.crossbar.line_resistance import Lines, transfer_matrix
from calib.crossbar.nonlinear_lines import Settings, joint_solution, preconditioner
from calib.crossbar_netlist import write_crossbar
from calib.errors import CalibError, OptionError
from calib.exporters._draws import programmed
from calib.exporters._population import population
from tests import simple_devices
from tests.exporters.circuit_devices import HOSTILE, NGSPICE, of_law

LINES = {
    "all": Lines(100, 200, 30, 4),
    "strong": Lines(1e4, 2e4, 30, 4),
    "both ends": Lines(100, 200, 30, 4, both_ends=True),
    "segments": Lines(100, 200),
    "words": Lines(100, 0, 30),
    "bits": Lines(0, 200, 0, 4),
    "ends": Lines(0, 0, 30, 4, both_ends=True),
    "none": Lines(),
}


def targets(*shape: int, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).uniform(*np.log([5e-7, 2.5e-6]), shape))


def inputs(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n)


def by_ngspice(path: Path) -> np.ndarray:
    done = subprocess.run(
        ["ngspice", "-b", path.name], cwd=path.parent, capture_output=True, text=True, timeout=120, check=False
    )
    found = re.findall(r"^i\(vout(\d+)\) = (\S+)$", done.stdout, re.MULTILINE)
    assert [int(k) for k, _ in found] == list(range(len(found))), done.stdout + done.stderr
    return np.array([float(value) for _, value in found])


def by_calib(tree: xr.DataTree, parameters: dict[str, np.ndarray], voltage: np.ndarray, lines: Lines) -> np.ndarray:
    law = population(tree).law
    values = [torch.as_tensor(np.ascontiguousarray(parameters[name])) for name in law.parameter_names]
    v = torch.as_tensor(voltage)[:, None]
    factors = preconditioner(law, law.parameter_names, values, v, lines)
    settings = Settings(tolerance=1e-13, iterations=60)
    return joint_solution(factors, law, law.parameter_names, values, v, settings)[1][0].numpy()


@NGSPICE
@pytest.mark.parametrize("lines", LINES.values(), ids=list(LINES))
def test_a_drawn_chip_is_the_solvers(lines: Lines, tmp_path: Path) -> None:
    tree = simple_devices.everything()
    g, v = targets(8, 8), inputs(8)
    path = write_crossbar(tmp_path / "array.cir", g, tree, lines, voltages=v, seed=5)
    devices = programmed(tree, population(tree), g, np.random.default_rng(5))
    assert devices.stuck.any()
    expected = by_calib(tree, devices.parameters, v, lines)
    np.testing.assert_allclose(by_ngspice(path), expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@NGSPICE
@pytest.mark.parametrize("law", ["hyperbolic-sine", "schottky", "diode", "direct-tunnelling", "poole-frenkel+series"])
def test_typical_devices_of_other_laws(law: str, tmp_path: Path) -> None:
    tree, lines, v = of_law(law), Lines(1e3, 2e3, 300, 40), inputs(5)
    g = targets(5, 3)
    path = write_crossbar(tmp_path / "array.cir", g, tree, lines, voltages=v)
    expected = by_calib(tree, population(tree).parameters(g), v, lines)
    np.testing.assert_allclose(by_ngspice(path), expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@NGSPICE
def test_resistors_are_the_transfer_matrix(tmp_path: Path) -> None:
    lines, v, g = Lines(500, 300, 20, 10), inputs(6), targets(6, 4)
    path = write_crossbar(tmp_path / "a.cir", g, simple_devices.range_only(), lines, voltages=v)
    expected = v @ transfer_matrix(torch.as_tensor(g), lines).numpy()
    np.testing.assert_allclose(by_ngspice(path), expected, rtol=1e-9, atol=1e-20)


@NGSPICE
def test_inputs_as_parameters(tmp_path: Path) -> None:
    """The netlist without voltages, its parameters set by hand, is the one with voltages."""
    tree, g, v = simple_devices.device(), targets(4, 3), inputs(4)
    path = write_crossbar(tmp_path / "free.cir", g, tree, Lines(100, 100))
    text = path.read_text()
    for i, value in enumerate(v):
        assert text.count(f".param vin{i}=0\n") == 1
        text = text.replace(f".param vin{i}=0\n", f".param vin{i}={float(value)!r}\n")
    path.write_text(text)
    fixed = write_crossbar(tmp_path / "fixed.cir", g, tree, Lines(100, 100), voltages=v)
    np.testing.assert_allclose(by_ngspice(path), by_ngspice(fixed), rtol=1e-12)


@NGSPICE
def test_devices_drawn_elsewhere(tmp_path: Path) -> None:
    tree, lines, v, g = simple_devices.device(), Lines(1e3, 1e3), inputs(4), targets(4, 3)
    values = population(tree).parameters(g, z1=np.random.default_rng(2).standard_normal(g.shape))
    path = write_crossbar(tmp_path / "a.cir", g, tree, lines, voltages=v, parameters=values)
    expected = by_calib(tree, values, v, lines)
    np.testing.assert_allclose(by_ngspice(path), expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@NGSPICE
def test_a_hostile_name_does_no_harm(tmp_path: Path) -> None:
    tree, v, g = simple_devices.device(name=HOSTILE), inputs(3), targets(3, 2)
    path = write_crossbar(tmp_path / "a.cir", g, tree, voltages=v)
    expected = population(tree).law.current(v[:, None], xp=np, **population(tree).parameters(g)).sum(0)
    np.testing.assert_allclose(by_ngspice(path), expected, rtol=1e-9)
    assert [p.name for p in tmp_path.iterdir()] == ["a.cir"]


def test_the_same_chip_is_the_same_file(tmp_path: Path) -> None:
    tree, g = simple_devices.everything(), targets(7, 5)

    def written(**options: object) -> bytes:
        return write_crossbar(tmp_path / "a.cir", g, tree, Lines(1, 1), **options).read_bytes()  # type: ignore[arg-type]

    assert written(seed=1) == written(seed=1)
    assert written(seed=1) != written(seed=2)
    assert written() == written()
    assert written(seed=1, spread=False, stuck=False) != written(seed=1)
    assert b".control" not in written(syntax="ltspice")
    assert written(syntax="ltspice").isascii()


def test_every_device_and_segment_is_there(tmp_path: Path) -> None:
    path = write_crossbar(tmp_path / "a.cir", targets(9, 4), simple_devices.device(), Lines(1, 2, 3, 4, True))
    text = path.read_text()
    counts = {"X": 36, "Rw": 9 * 3, "Rb": 8 * 4, "Rdrive": 9, "Rback": 9, "Rsense": 4, "Vin": 9, "Vout": 4}
    for start, count in counts.items():
        assert len(re.findall(rf"^{start}\d", text, re.MULTILINE)) == count


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conductance": np.ones(3)}, r"shape \(3,\); expected \(word_line, bit_line\)"),
        ({"conductance": np.array([[1e-6, -1e-6], [np.nan, 1e-6]])}, "2 of 4 conductances are not positive"),
        ({"voltages": [0.1]}, r"the voltages have shape \(1,\); expected \(2,\)"),
        ({"voltages": [0.1, np.inf]}, "some voltages are not finite"),
        ({"seed": -1}, "the seed is -1"),
        ({"seed": 1, "parameters": {"c": 1.0, "gamma": 1.0}}, "both a seed and parameters"),
        ({"parameters": {"g": 1.0}}, "the parameters are g; expected those of the law: c, gamma"),
        ({"parameters": {"c": np.ones(3), "gamma": 1.0}}, r"'c' has shape \(3,\); expected numbers, \(2, 2\)"),
        ({"parameters": {"c": 1e-6, "gamma": np.nan}}, "some values of the parameter 'gamma' are not finite"),
        ({"syntax": "spectre"}, "there is no SPICE syntax 'spectre'"),
    ],
)
def test_bad_input(change: dict, message: str, tmp_path: Path) -> None:
    given = {"conductance": np.full((2, 2), 1e-6), **change}
    with pytest.raises(OptionError, match=message):
        write_crossbar(tmp_path / "a.cir", given.pop("conductance"), simple_devices.device(), **given)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibError, match="cannot write"):
        write_crossbar(tmp_path / "file" / "a.cir", np.full((2, 2), 1e-6), simple_devices.device())
