"""SPICE cards: ngspice against calib, for every law and every bundled model; samples, states, hostile names."""

import functools
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from calib import data_folder, open_device
from calib.errors import ModelError, OptionError
from calib.exporters import exporter
from calib.exporters._draws import Choice, drawn
from calib.exporters._population import population
from calib.exporters.spice import subcircuit
from calib.iv_models import all_names
from calib.nonidealities.iv import IV
from calib.nonidealities.lognormal import Lognormal
from tests import simple_devices
from tests.device_trees import full_device, part_of_device
from tests.exporters.circuit_devices import (
    EXACT,
    HOSTILE,
    NGSPICE,
    by_ngspice,
    of_law,
    run_ngspice,
    three_states,
    tree_of,
)
from tests.iv_models.law_devices import population as law_population

LAWS = all_names()
BUNDLED = ["ddas04-rram", "radway-1t1r-multivolt", "siox-high-resistance", "siox-low-resistance", "synthetic-oxide",
           "xiao2025-multilevel"]  # fmt: skip
G, Z = (5e-7, 1.1e-6, 2.4e-6), (0.0, 1.5, -2.0)


@functools.cache
def bundled(name: str) -> xr.DataTree:
    return open_device(name)


def subcircuit_name(name: str) -> str:
    return "calib_" + re.sub(r"[^a-z0-9]+", "_", name.lower())


def assert_currents(current: np.ndarray, expected: np.ndarray, voltage: np.ndarray, series: np.ndarray | float) -> None:
    """Equal to 1e-9, or to how a simulator rounds the voltage over a series resistance, 0.2 fV / r."""
    least = 2e-16 / np.where(np.asarray(series) > 0, series, np.inf) + 1e-23
    size = np.broadcast_to(np.abs(voltage)[:, None] >= 1e-3, current.shape)
    difference = np.abs(current - expected)
    assert (difference <= 1e-9 * np.abs(expected) + least)[size].all()


@NGSPICE
@pytest.mark.parametrize("syntax", ["ngspice", "ltspice"])
@pytest.mark.parametrize("name", LAWS)
def test_every_law_is_calibs(name: str, syntax, tmp_path: Path) -> None:
    """Three conductances, each with three deviates; LTspice's text runs in ngspice's mode for it."""
    tree = of_law(name)
    found = population(tree)
    conductance, deviate = np.repeat(G, len(Z)), np.tile(Z, len(G))
    devices = [
        f"{subcircuit_name(f'law {name}')} G={g!r} " + " ".join(f"{key}={z!r}" for key in found.deviates)
        for g, z in zip(conductance.tolist(), deviate.tolist(), strict=True)
    ]
    library = subcircuit(tree, syntax=syntax)
    voltage, current = by_ngspice(library, devices, tmp_path, 0.5, compatible="lt" if syntax == "ltspice" else "")
    values = found.parameters(conductance, **dict.fromkeys(found.deviates, deviate))
    expected = found.law.current(voltage[:, None], xp=np, **values)
    assert_currents(current, expected, voltage, values[found.law.series] if found.law.series else 0.0)


@NGSPICE
@pytest.mark.parametrize("name", LAWS)
def test_the_slope_is_finite_at_zero_voltage_and_right(name: str, tmp_path: Path) -> None:
    """An ac analysis takes the derivatives that ngspice's Newton iteration takes."""
    tree = of_law(name)
    found = population(tree)
    library = subcircuit(tree, 1e-6)
    values = found.parameters(np.array(1e-6))
    for bias in (0.0, -0.35, 0.4):
        circuit = [f"V1 in 0 dc {bias!r} ac 1", f"X1 in 0 {subcircuit_name(f'law {name}')}", EXACT]
        table = run_ngspice(library, circuit, "ac lin 1 1 1", "i(v1)", tmp_path / str(bias))
        slope = float(found.law.slope(np.float64(bias), xp=np, **values))
        assert -table[0, 1] == pytest.approx(slope, rel=1e-8, abs=1e-15)


@NGSPICE
@pytest.mark.parametrize("name", LAWS)
def test_the_anchor_is_exact(name: str, tmp_path: Path) -> None:
    tree = of_law(name)
    found = population(tree)
    devices = [f"{subcircuit_name(f'law {name}')} G={g!r} " + " ".join(f"{key}=3" for key in found.deviates) for g in G]
    v_ref = found.shape_law.reference_voltage if found.shape_law else 0.1
    voltage, current = by_ngspice(subcircuit(tree), devices, tmp_path, v_ref, points=1)
    np.testing.assert_allclose(current[-1] / voltage[-1], G, rtol=1e-11)


def test_all_bundled_models_with_a_law_are_tested() -> None:
    with_law = []
    for name in data_folder.bundled_model_names():
        with h5py.File(data_folder.bundled_model_path(name)) as file:
            with_law += [name] if "iv" in file else []
    assert sorted(BUNDLED) == sorted(with_law)


@NGSPICE
@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models(name: str, tmp_path: Path) -> None:
    """The card's typical devices, and devices over the range of G with deviates and programming spread."""
    tree = bundled(name)
    found, model = population(tree), subcircuit_name(name)
    card = next(text for file, text in exporter("spice").contents(tree).items() if "ngspice" in file)
    p = found.shape_law
    assert p is not None
    typical = np.array([g for _, g in found.typical])
    conductance = np.exp(-np.linspace(p.ln_r_min - 0.3, p.ln_r_max + 0.3, 9))
    given = {key: np.linspace(-5.0, 3.0, 9) for key in found.deviates}
    if found.has_spread:
        given |= {"spread": np.full(9, 1.0), "zr": np.linspace(2.0, -1.0, 9)}
    devices = [f"{model}_{state}" for state, _ in found.typical]
    devices += [
        f"{model} G={g!r} " + " ".join(f"{key}={value[k].item()!r}" for key, value in given.items())
        for k, g in enumerate(conductance.tolist())
    ]
    voltage, current = by_ngspice(card, devices, tmp_path, p.v_max, points=30)
    first, rest = found.parameters(typical), found.parameters(conductance, **given)
    values = {key: np.concatenate([first[key], rest[key]]) for key in first}
    assert_currents(current, found.law.current(voltage[:, None], xp=np, **values), voltage, 0.0)


@pytest.mark.parametrize("tree", [*BUNDLED, "two states", "three states"])
def test_the_population_is_that_of_training(tree: str) -> None:
    """Against calib.nonidealities.iv, for laws with one deviate, with the same one."""
    if tree == "two states":
        model = simple_devices.device(iv=simple_devices.iv_node(two_states=True))
    else:
        model = tree_of(three_states("poole-frenkel")) if tree == "three states" else bundled(tree)
    found, law = population(model), IV.from_device(model)
    assert law is not None
    p = law.population
    g = np.exp(-np.linspace(p.ln_r_min - 0.5, p.ln_r_max + 0.5, 41))
    z = np.linspace(-5, 5, 41)
    deviates = torch.as_tensor(np.stack([z] * max(len(found.deviates), 1)))
    expected = law.parameters(torch.as_tensor(g), deviates)
    values = found.parameters(g, **dict.fromkeys(found.deviates, z))
    roots = law._roots[:, 0, 0] if len(found.deviates) else np.ones(1)
    assert (roots >= 0).all() or len(roots) > 1  # an eigenvector's sign is free
    for name, value in values.items():
        np.testing.assert_allclose(value, np.broadcast_to(expected[name].numpy(), g.shape), rtol=1e-12)


@pytest.mark.parametrize("name", ["schottky", "space-charge-limited", "diode+series"])
def test_correlated_parameters_have_the_blended_covariance(name: str) -> None:
    """The t's derivatives by the deviates are a root of the covariance that `ShapeLaw.at` interpolates."""
    p = three_states(name)
    found = population(tree_of(p))
    ln_r = np.linspace(p.ln_r_min + 0.01, p.ln_r_max - 0.01, 17)
    shape = [p.parameters.index(key) for key in found.law.shape]

    def t(**deviates: float) -> np.ndarray:
        values = found.parameters(np.exp(-ln_r), **deviates)
        columns = [
            np.log(values[p.parameters[k]]) if p.transforms[k] == "log" else values[p.parameters[k]] for k in shape
        ]
        return np.stack(columns, axis=-1)

    mean, covariance = p.at(ln_r)
    np.testing.assert_allclose(t(), mean[:, shape], rtol=1e-12, atol=1e-12)
    step = 1e-3
    root = np.stack([(t(**{key: step}) - t()) / step for key in found.deviates], axis=-1)
    expected = covariance[:, shape][:, :, shape]
    scale = np.sqrt(np.diagonal(expected, axis1=1, axis2=2))
    correlation = root @ np.swapaxes(root, 1, 2) / scale[:, :, None] / scale[:, None, :]
    np.testing.assert_allclose(correlation, expected / scale[:, :, None] / scale[:, None, :], atol=1e-8)


def test_a_singular_covariance_needs_fewer_deviates() -> None:
    p = law_population("schottky")
    deviation = np.array([0.1, 0.5, -0.3])
    tree = tree_of(p.__class__(**{**vars(p), "covariance": np.outer(deviation, deviation)[None]}))
    assert population(tree).deviates == ("z1",)


def test_programming_spread_is_that_of_training() -> None:
    tree = simple_devices.everything()
    found, law = population(tree), Lognormal.from_device(tree)
    assert law is not None
    g = np.geomspace(1e-7, 1e-5, 30)
    sigma = np.broadcast_to(np.asarray(law.spread(torch.as_tensor(1 / g))), g.shape)
    reached = found.conductance(g, spread=1.0, zr=np.linspace(-6, 6, 30))
    z = np.clip(np.linspace(-6, 6, 30), -4, 4)
    np.testing.assert_allclose(reached, g * np.exp(sigma * (sigma / 2 - z)), rtol=1e-12)
    np.testing.assert_array_equal(found.conductance(g, spread=0.0, zr=3.0), g)


@NGSPICE
@pytest.mark.parametrize("options", [{"conductance": 1.5e-6}, {"state": "hrs"}], ids=str)
def test_samples(options: dict, tmp_path: Path) -> None:
    tree = simple_devices.everything()
    found = population(tree)
    devices = drawn(tree, found, Choice(seed=3, samples=12, **options))
    library = subcircuit(tree, seed=3, samples=12, **options)
    assert library == subcircuit(tree, seed=3, samples=12, **options)
    assert library != subcircuit(tree, seed=4, samples=12, **options)
    assert library.count(", stuck\n") == devices.stuck.sum() > 0
    voltage, current = by_ngspice(library, [f"calib_test_device_{k}" for k in range(1, 13)], tmp_path, 0.5)
    assert_currents(current, found.law.current(voltage[:, None], xp=np, **devices.parameters), voltage, 0.0)
    at_reference = found.law.current(np.float64(0.1), xp=np, **devices.parameters)
    np.testing.assert_allclose(at_reference / 0.1, devices.conductance, rtol=1e-12)


def test_samples_follow_the_models_distributions() -> None:
    """100 000 devices: the errors allowed are five standard errors of each statistic."""
    tree, n, target = simple_devices.everything(), 100_000, 1.5e-6
    found = population(tree)
    choice = Choice(conductance=target, seed=1, samples=n)
    devices = drawn(tree, found, choice)
    assert devices.stuck.mean() == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / n))
    live = ~devices.stuck
    sigma = float(np.interp(1 / target, [1 / simple_devices.G_ON, 1 / simple_devices.G_OFF], [0.2, 0.4]))
    ln_r = -np.log(devices.conductance[live])
    assert ln_r.std() == pytest.approx(sigma, rel=5 / np.sqrt(2 * n))
    assert np.exp(ln_r).mean() == pytest.approx(1 / target, rel=5 * sigma / np.sqrt(n))
    residual = np.log(devices.parameters["gamma"][live]) - 0.05 * np.clip(ln_r, *simple_devices.LN_R)
    assert residual.mean() == pytest.approx(0.0, abs=5 * 0.28 / np.sqrt(n))
    assert residual.std() == pytest.approx(0.28, rel=5 / np.sqrt(2 * n))
    plain = drawn(tree, found, Choice(conductance=target, seed=1, samples=n, spread=False, stuck=False))
    np.testing.assert_array_equal(plain.conductance, target)
    assert not plain.stuck.any()


@NGSPICE
def test_a_hostile_model_does_no_harm(tmp_path: Path) -> None:
    """Names and citations with directives: ngspice runs the card, computes the same, and touches nothing."""
    plain = full_device()
    hostile = full_device(name=HOSTILE, citation=HOSTILE, technology=HOSTILE, license=".end\n.include x")
    state = {"lrs": ".control lrs\n+", "hrs": "*/ hrs }"}
    node = hostile["iv"].to_dataset()
    hostile["iv"] = node.assign_coords(state=[state[str(s)] for s in node["state"].values])
    found = population(hostile)
    for file, card in exporter("spice").contents(hostile).items():
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", file)
        assert card.isascii()
        assert all(line[:2] in ("* ", "*", "+ ") or re.match(r"\.(subckt|param|ends|func) |[XBR]\w* ", line)
                   for line in card.splitlines())  # fmt: skip
    card = next(text for file, text in exporter("spice").contents(hostile).items() if "ngspice" in file)
    names = re.findall(r"^\.subckt (\S+) p n", card, re.MULTILINE)
    assert [n for n in names if n.endswith(("control_lrs", "hrs"))]
    assert all(re.fullmatch(r"calib_\w+", n) for n in names)
    base = next(n for n in names if not n.endswith(("_law", "control_lrs", "_hrs")))
    voltage, current = by_ngspice(card, [f"{base} G=1e-5"], tmp_path, 0.5)
    expected = found.law.current(voltage, xp=np, **population(plain).parameters(np.array(1e-5)))
    assert_currents(current, expected[:, None], voltage, 0.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["device.lib", "out.txt", "test.cir"]


@NGSPICE
def test_without_a_law_the_device_is_a_resistor(tmp_path: Path) -> None:
    tree = simple_devices.range_only("resistors", programming=simple_devices.programming_node())
    card = next(text for file, text in exporter("spice").contents(tree).items() if "ngspice" in file)
    assert "the model has no I-V law" in card
    voltage, current = by_ngspice(card, ["calib_resistors_lrs", "calib_resistors G=1e-6"], tmp_path, 0.5)
    np.testing.assert_allclose(current, voltage[:, None] * [simple_devices.G_ON, 1e-6], rtol=1e-12, atol=1e-24)
    devices = drawn(tree, population(tree), Choice(state="hrs", seed=0, samples=2000))
    assert np.log(devices.conductance).std() == pytest.approx(0.4, rel=5 / np.sqrt(4000))


def test_a_model_without_any_conductance_says_so() -> None:
    tree = part_of_device("examples")
    for text in exporter("spice").contents(tree).values():
        assert "the device itself: the model has no I-V law" in text
        assert all(line.startswith("*") for line in text.splitlines())
    with pytest.raises(ModelError, match="has no I-V law, conductance range or programming spread"):
        subcircuit(tree)


def test_the_papers_form_draws_the_scale_too() -> None:
    tree = of_law("poole-frenkel", form="paper")
    found = population(tree)
    assert found.deviates == ("z1", "z2")
    p = law_population("poole-frenkel", form="paper")
    values = found.parameters(np.array(1e-6))
    np.testing.assert_allclose(np.log(values["c"]), p.intercept[0, 0] + p.slope[0, 0] * -np.log(1e-6), rtol=1e-12)
    assert "the paper's form" in subcircuit(tree)


@NGSPICE
def test_the_papers_form_in_ngspice(tmp_path: Path) -> None:
    tree = of_law("schottky", form="paper")
    found = population(tree)
    devices = [f"calib_law_schottky G={g!r} z1=0.7 z2=-1.2 z3=0.4" for g in G]
    voltage, current = by_ngspice(subcircuit(tree), devices, tmp_path, 0.5)
    values = found.parameters(np.array(G), z1=0.7, z2=-1.2, z3=0.4)
    assert_currents(current, found.law.current(voltage[:, None], xp=np, **values), voltage, 0.0)


def test_the_card_states_what_a_reader_needs() -> None:
    card = subcircuit(bundled("synthetic-oxide"))
    for text in ("identity: ", "units: SI", "valid for: |V| 0.05 to 1.05 V", "extrapolated", "left out: ", "use: X1"):
        assert text in card
    assert max(len(line) for line in card.splitlines()) <= 100
    assert card.isascii()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conductance": 1e-6, "state": "lrs"}, "expected one of them"),
        ({"conductance": 0.0}, "conductance is 0.0 S; expected a positive number"),
        ({"conductance": float("nan")}, "expected a positive number"),
        ({"state": "mrs"}, "there is no state 'mrs'; the model has lrs, hrs"),
        ({"samples": 3}, "3 samples need a seed"),
        ({"conductance": 1e-6, "seed": 1, "samples": 0}, "samples is 0; expected 1 to"),
        ({"conductance": 1e-6, "seed": -1}, "the seed is -1"),
        ({"seed": 1}, "samples need a conductance, or a state, one of lrs, hrs"),
        ({"syntax": "hspice"}, "there is no SPICE syntax 'hspice'; choose one of ngspice, ltspice"),
    ],
)
def test_options_that_cannot_be_used(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        subcircuit(full_device(), **options)


def test_a_state_called_law_has_a_subcircuit_of_its_own() -> None:
    tree = full_device()
    node = tree["iv"].to_dataset()
    tree["iv"] = node.assign_coords(state=["law" if state == "lrs" else state for state in node["state"].values])
    for card in exporter("spice").contents(tree).values():
        names = re.findall(r"^\.subckt (\S+) p n", card, re.MULTILINE)
        assert len(set(names)) == len(names) == 4
