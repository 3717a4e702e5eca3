"""Verilog-A modules, compiled by OpenVAF (openvaf-py: currents and derivatives) and VerilogAE (currents)."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calib import open_device
from calib.errors import ModelError, OptionError
from calib.exporters import exporter
from calib.exporters._draws import Choice, drawn
from calib.exporters._population import population
from calib.exporters.verilog_a import module
from calib.iv_models import IVModel, all_names
from tests import simple_devices
from tests.device_trees import full_device, part_of_device
from tests.exporters.circuit_devices import HOSTILE, of_law, three_states, tree_of

LAWS = all_names()
VOLTAGES = (-0.5, -0.31, -0.1, -0.02, 0.01, 0.1, 0.25, 0.4, 0.5)
OPENVAF = pytest.mark.skipif(
    importlib.util.find_spec("openvaf_py") is None, reason="openvaf-py is not installed (pip install openvaf-py)"
)
VERILOGAE = pytest.mark.skipif(
    importlib.util.find_spec("verilogae") is None, reason="verilogae is not installed (pip install verilogae)"
)


def compiled(text: str, folder: Path) -> list[Any]:
    """Return the modules as OpenVAF compiles them."""
    import openvaf_py

    path = folder / "device.va"
    path.write_text(text, encoding="ascii")
    return openvaf_py.compile_va(str(path))


def terminal(unit: Any, series: bool, voltage: float, **parameters: float) -> tuple[float, float]:
    """Return current and dI/dV of a compiled module at its terminal p; an inner node is solved for by Newton."""
    nodes = [node["name"] for node in unit.get_dae_system()["nodes"]]
    inner, share = voltage, 0.5
    for _ in range(100):
        given = {"V(p,n)": voltage, **parameters, "mfactor": 1.0}
        if series:
            inner = share * voltage
            given |= {"V(x,n)": inner, "V(p,x)": voltage - inner}
        residuals, entries = unit.run_init_eval(given)
        jacobian = {(nodes[row], nodes[column]): value for row, column, value, _ in entries}
        current = dict(zip(nodes, (resistive for resistive, _ in residuals), strict=True))
        if not series:
            return current["p"], jacobian["p", "p"]
        step = current["x"] / jacobian["x", "x"] / voltage
        share -= step
        if abs(step) < 1e-15:
            break
    return current["p"], jacobian["p", "p"] - jacobian["p", "x"] * jacobian["x", "p"] / jacobian["x", "x"]


def by_calib(law: IVModel, voltage: float, values: dict[str, np.ndarray]) -> tuple[float, float]:
    """Return current and dI/dV, the latter by automatic differentiation of the law."""
    v = torch.tensor(voltage, dtype=torch.float64, requires_grad=True)
    current = law.current(v, xp=torch, **{name: torch.as_tensor(value) for name, value in values.items()})
    (slope,) = torch.autograd.grad(current, v)
    return float(current.detach()), float(slope)


@OPENVAF
@pytest.mark.parametrize("name", LAWS)
def test_currents_and_derivatives_of_every_law(name: str, tmp_path: Path) -> None:
    """To 1e-9; behind a series resistance not below the rounding of the drop over it."""
    tree = of_law(name)
    found = population(tree)
    (unit,) = compiled(module(tree), tmp_path)
    for g, z in ((5e-7, 0.0), (1.1e-6, 1.5), (2.4e-6, -2.0)):
        deviates = dict.fromkeys(found.deviates, z)
        values = found.parameters(np.array(g), **deviates)
        series = found.law.series
        least = 2e-16 / float(values[series]) if series else 1e-300
        for voltage in VOLTAGES:
            current, slope = terminal(unit, bool(series), voltage, G=g, **deviates)
            expected = by_calib(found.law, voltage, values)
            assert current == pytest.approx(expected[0], rel=1e-9, abs=least)
            assert slope == pytest.approx(expected[1], rel=1e-9, abs=least / abs(voltage))


@OPENVAF
@pytest.mark.parametrize("name", LAWS)
def test_the_derivative_at_zero_voltage_is_finite_and_right(name: str, tmp_path: Path) -> None:
    tree = of_law(name)
    found = population(tree)
    (unit,) = compiled(module(tree), tmp_path)
    expected = float(found.law.slope(np.float64(0.0), xp=np, **found.parameters(np.array(1e-6))))
    tiny = 1e-30 if found.law.series else 0.0  # the solution for the inner node divides by the voltage
    current, slope = terminal(unit, bool(found.law.series), tiny, G=1e-6, **dict.fromkeys(found.deviates, 0.0))
    assert abs(current) < 1e-34
    assert slope == pytest.approx(expected, rel=1e-8, abs=1e-15)


@VERILOGAE
@pytest.mark.parametrize("name", LAWS)
def test_currents_by_a_second_compiler(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VerilogAE evaluates the law's current at the voltage over the law."""
    import verilogae

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = of_law(name)
    found = population(tree)
    path = tmp_path / "device.va"
    path.write_text(module(tree), encoding="ascii")
    function = verilogae.load(str(path)).functions["i_law"]
    law = getattr(found.law, "law", found.law)
    for g, z in ((5e-7, 0.0), (2.4e-6, 1.5)):
        given = {"G": g, **dict.fromkeys(found.deviates, z)}
        values = found.parameters(np.array(g), **dict.fromkeys(found.deviates, z))
        values = {key: value for key, value in values.items() if key in law.parameter_names}
        for voltage in VOLTAGES:
            current = function.eval(
                temperature=300.0, voltages=dict.fromkeys(function.voltages, voltage),
                **{key: given[key] for key in function.parameters},
            )  # fmt: skip
            assert current == pytest.approx(float(law.current(np.float64(voltage), xp=np, **values)), rel=1e-9)


@OPENVAF
def test_a_bundled_model_over_its_range(tmp_path: Path) -> None:
    tree = open_device("synthetic-oxide")
    found = population(tree)
    p = found.shape_law
    assert p is not None
    (unit,) = compiled(module(tree), tmp_path)
    for ln_r in np.linspace(p.ln_r_min - 0.5, p.ln_r_max + 0.5, 7):
        given = {"G": float(np.exp(-ln_r)), "z1": float(ln_r - 13), "spread": 1.0, "zr": float(13 - ln_r)}
        values = found.parameters(np.array(given["G"]), **{key: given[key] for key in ("z1", "spread", "zr")})
        for voltage in np.linspace(-p.v_max, p.v_max, 8):
            current, slope = terminal(unit, False, float(voltage), **given)
            expected = by_calib(found.law, float(voltage), values)
            assert (current, slope) == (pytest.approx(expected[0], rel=1e-9), pytest.approx(expected[1], rel=1e-9))


@OPENVAF
def test_three_states_with_correlated_parameters(tmp_path: Path) -> None:
    tree = tree_of(three_states("schottky"))
    found = population(tree)
    (unit,) = compiled(module(tree), tmp_path)
    for g in (4e-7, 9e-7, 1.3e-6, 2e-6):
        values = found.parameters(np.array(g), z1=1.3, z2=-0.8)
        expected = by_calib(found.law, 0.37, values)
        assert terminal(unit, False, 0.37, G=g, z1=1.3, z2=-0.8) == pytest.approx(expected, rel=1e-9)


@OPENVAF
@pytest.mark.parametrize("options", [{"conductance": 1.5e-6}, {"state": "hrs"}], ids=str)
def test_samples_are_modules_of_the_law(options: dict, tmp_path: Path) -> None:
    tree = simple_devices.everything()
    found = population(tree)
    devices = drawn(tree, found, Choice(seed=3, samples=4, **options))
    text = module(tree, seed=3, samples=4, **options)
    assert text == module(tree, seed=3, samples=4, **options)
    units = {unit.name: unit for unit in compiled(text, tmp_path)}
    assert sorted(units) == [f"calib_test_device_{k}" for k in range(1, 5)]
    for k, (_, _, values) in enumerate(devices, 1):
        given = {f"law_{key}": value for key, value in values.items()}
        declared = units[f"calib_test_device_{k}"].get_param_defaults()
        assert declared == pytest.approx({key.lower(): value for key, value in given.items()}, rel=1e-15)
        current, _ = terminal(units[f"calib_test_device_{k}"], False, 0.4, **given)
        assert current == pytest.approx(float(found.law.current(np.float64(0.4), xp=np, **values)), rel=1e-12)


@OPENVAF
def test_a_hostile_model_does_no_harm(tmp_path: Path) -> None:
    hostile = full_device(name=HOSTILE, citation=HOSTILE, technology='*/ endmodule `define G 1\n`include "x"')
    node = hostile["iv"].to_dataset()
    hostile["iv"] = node.assign_coords(state=['lrs" real x; `x\\', "*/ hrs"])
    ((file, text),) = exporter("verilog-a").contents(hostile).items()
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", file)
    assert text.isascii()
    assert re.findall(r"`\w+", text) == ["`include"]
    (unit,) = compiled(text, tmp_path)
    assert re.fullmatch(r"calib_[a-z0-9_]+", unit.name)
    expected = by_calib(population(hostile).law, 0.3, population(full_device()).parameters(np.array(1e-5)))
    given = dict.fromkeys((p.name for p in population(hostile).inputs[1:]), 0.0)
    assert terminal(unit, False, 0.3, G=1e-5, **given) == pytest.approx(expected, rel=1e-9)


def test_without_a_law_the_module_is_a_resistor_or_none() -> None:
    text = module(simple_devices.range_only("resistors"))
    assert f"parameter real G = {simple_devices.G_ON!r} from (0:inf);" in text
    assert "i_law = law_g*v_law;" in text
    (empty,) = exporter("verilog-a").contents(part_of_device("examples")).values()
    assert all(line.startswith("//") or not line for line in empty.splitlines())
    with pytest.raises(ModelError, match="a circuit needs one of them"):
        module(part_of_device("examples"))
    with pytest.raises(OptionError, match="samples need a conductance"):
        module(full_device(), seed=1)


def test_names_cannot_be_keywords() -> None:
    for name in ("module", "real", "2d oxide", "", "end"):
        assert re.search(r"^module calib_[a-z0-9_]+\(p, n\);$", module(full_device(name=name)), re.MULTILINE)
