"""calib simulate: every layout is read back by calib fit, and the estimates agree with the model."""

import functools
import json

import numpy as np
import pytest
import xarray as xr

import calib
from calib import calibrate, characteristics, device_model, simulation
from calib.cli import main
from calib.fitting.pulse import pulse_node
from tests import pulse_trains
from tests.synthetic import device_nodes

WIDER = 1.7
"""Half-widths of a 95 % interval up to that of 99.9 %: many estimates are compared at once."""
MODELS = {
    "sweeps": "sweeps.nc", "reads": "sweeps.nc", "pulses": "pulses.nc", "writes": "levy-write-verify",
    "retention": "levy-relaxation", "noise": "xiao2025-multilevel",
}  # fmt: skip
COMPARED = {
    "sweeps": {"iv": 3}, "reads": {"programming": 3}, "pulses": {"pulse": 8}, "writes": {"writes": 12},
    "retention": {"retention": 3}, "noise": {"read_noise": 2},
}  # fmt: skip
"""For each experiment the characteristic that is compared, and the fewest estimates of it."""
LEFT_OUT = ("devices beyond", "spread of the trains", "NeuroSim", "within +-", "time until", "dispersion", "telegraph",
            "levels that the noise allows", "write noise", "transient noise", "grows with the step", "extrapolated",
            "one read to the next", "per write", "symmetry point", "fraction", "nu, spread of devices")  # fmt: skip
"""What follows from a law of relaxation or of noise that a simulation simplifies, mixtures over G, and quotients."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    seed = device_model.build(device_nodes(), name="truth")
    truth = calibrate.fit(simulation.simulate(seed, 16, 2, 1, noise=0.01, points=10), iv_model="poole-frenkel")
    for name in set(truth.children) - {"iv", "conductance", "programming", "stuck"}:
        del truth[name]
    device_model.save(truth, folder / "sweeps.nc")
    node = pulse_node(pulse_trains.population(np.random.default_rng(3), 12, write=1e-8, other=4e-9), [])
    assert node is not None
    device_model.save(device_model.build({"pulse": node}, name="pulsed"), folder / "pulses.nc")
    return folder


def where(models, experiment: str) -> str:
    name = MODELS[experiment]
    return str(models / name) if name.endswith(".nc") else name


@pytest.fixture(scope="module")
def truths(models):
    return functools.cache(lambda experiment: device_model.open_device(where(models, experiment)))


CASES = [(experiment, layout) for experiment, group in simulation.LAYOUTS.items() for layout in group]


@pytest.mark.parametrize(("experiment", "layout"), CASES, ids=[f"{e}-{style.name}" for e, style in CASES])
def test_calib_fit_finds_the_model_again(models, truths, tmp_path, capsys, experiment, layout):
    """The first layout by the commands, the others by the functions that these call."""
    output = tmp_path / ("raw" if layout.single else f"raw{layout.suffix}")
    devices = {"sweeps": 6, "reads": 20, "pulses": 6, "writes": 300, "retention": 80, "noise": 8}[experiment]
    cycles = 2 if experiment in ("sweeps", "reads") else 1
    options = {"sweeps": {"noise": 0.01, "points": 10}, "noise": {"points": 120}}.get(experiment, {})
    truth = truths(experiment)
    law = "poole-frenkel" if experiment == "sweeps" else None
    if layout is simulation.LAYOUTS[experiment][0]:
        arguments = ["--experiment", experiment, "--devices", str(devices), "--cycles", str(cycles), "--seed", "2"]
        arguments += [text for key, value in options.items() for text in (f"--{key}", str(value))]
        assert main(["simulate", where(models, experiment), "-o", str(output), *arguments]) == 0
        assert f"next: calib fit {output}" in capsys.readouterr().out
        arguments = ["--iv-model", law] if law else []
        assert main(["fit", str(output), "-o", str(tmp_path / "fitted.nc"), *arguments, "--json"]) == 0
        fitted = device_model.open_device(tmp_path / "fitted.nc")
    else:
        simulation.simulate_file(truth, output, layout.name, devices, cycles, 2, experiment=experiment, **options)
        fitted = calibrate.fit(calib.read(output), **({"iv_model": law} if law else {}))
    for name, fewest in COMPARED[experiment].items():
        compared, off = compare(truth, fitted, name)
        assert compared >= fewest
        assert not off


def compare(truth: xr.DataTree, fitted: xr.DataTree, name: str) -> tuple[int, list[str]]:
    """Return how many estimates of a characteristic have an interval, and those whose interval misses the truth."""
    known = {(item.label, item.state): item for item in characteristics.estimates(truth) if item.characteristic == name}
    compared, off = 0, []
    for item in characteristics.estimates(fitted):
        other = known.get((item.label, item.state))
        if item.characteristic != name or other is None or any(text in item.label for text in LEFT_OUT):
            continue
        if not np.isfinite([item.low, item.high, item.value, other.value]).all() or item.low == item.high:
            continue
        compared += 1
        low, high = item.value - WIDER * (item.value - item.low), item.value + WIDER * (item.high - item.value)
        if not low <= other.value <= high:
            off.append(f"{item.label} {item.state}: {other.value:.4g}, fitted {item.value:.4g} "
                       f"[{item.low:.4g}, {item.high:.4g}]")  # fmt: skip
    return compared, off


def test_the_same_seed_gives_the_same_file(models, tmp_path):
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        arguments = ["--devices", "3", "--cycles", "2", "--seed", seed]
        assert main(["simulate", where(models, "sweeps"), "-o", str(tmp_path / name), *arguments]) == 0
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_json_says_what_was_written(models, tmp_path, capsys):
    arguments = ["--layout", "labview", "--devices", "2", "--cycles", "1", "--json"]
    assert main(["simulate", where(models, "sweeps"), "-o", str(tmp_path / "raw"), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "experiment": "sweeps", "layout": "labview", "devices": 2, "cycles": 1, "seed": 0,
        "files": [str(tmp_path / "raw" / f"S{k}.lvm") for k in (1, 2)],
    }  # fmt: skip


def test_the_list_says_what_the_model_holds(models, capsys):
    assert main(["simulate", where(models, "pulses"), "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["experiment"] for row in rows if row["possible"]} == {"pulses"}
    assert len(rows) == sum(map(len, simulation.LAYOUTS.values()))
    assert main(["simulate", where(models, "pulses"), "--list"]) == 0
    assert "keysight-easyexpert" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "-o PATH"),
        (["-o", "x.csv", "--experiment", "pulses"], "holds no trains of pulses"),
        (["-o", "x.csv", "--layout", "xls"], "there is no layout 'xls' of sweeps"),
        (["-o", "x.csv", "--devices", "0"], "devices is 0; expected at least 1"),
        (["-o", "x.csv", "--noise", "nan"], "--noise is not a finite number"),
        (["-o", "x.csv", "--experiment", "reads", "--points", "9"], "points is no option of reads"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(models, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", where(models, "sweeps"), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
