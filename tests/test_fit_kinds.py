"""What reads, writes and pulses give a device model, alone and beside sweeps."""

import json

import numpy as np
import pytest
import xarray as xr

from calib.calibrate import fit, populations
from calib.errors import OptionError
from tests.pulse_trains import population as trains
from tests.synthetic import HRS, LRS, iv_node, measurement, reads_node


def warnings_of(tree: xr.DataTree) -> str:
    return "; ".join(json.loads(tree.attrs["warnings"]))


def noisy_reads(generator: np.random.Generator, population: str = "") -> xr.Dataset:
    """Eight traces of 200 reads at 20 ms, 1 % noise, each of a level of its own."""
    level = np.geomspace(1e-6, 1e-4, 8)
    g = level[:, None] * (1 + 0.01 * generator.standard_normal((8, 200)))
    node = reads_node(g, level=[f"L{k}" for k in range(8)], device=["d0"] * 8, population=population)
    return node.assign(time=(("trace", "sample"), np.tile(0.02 * np.arange(200), (8, 1)), {"units": "s"}))


def test_trains_of_pulses_give_the_range_that_they_span():
    tree = fit(measurement(pulses=trains(np.random.default_rng(0), devices=12, write=2e-8)))
    assert set(tree.children) == {"pulse", "conductance"}
    assert float(tree["conductance"].g_off) == pytest.approx(1e-6, rel=0.1)  # they run from 1 to 5 uS and back
    assert float(tree["conductance"].g_on) == pytest.approx(5e-6, rel=0.1)
    assert "the law is ohmic" in warnings_of(tree)


def test_normalised_pulses_have_no_range():
    node = trains(np.random.default_rng(0), devices=4)
    node["conductance"].attrs["units"] = "1"
    assert set(fit(measurement(pulses=node)).children) == {"pulse"}


def test_reads_beside_sweeps_add_what_only_they_tell():
    sweeps = iv_node({"lrs": LRS, "hrs": HRS}, devices=12, cycles=3)
    alone = fit(measurement(iv=sweeps))
    both = fit(measurement(iv=sweeps, reads=noisy_reads(np.random.default_rng(1))))
    assert set(both.children) - set(alone.children) == {"levels", "read_noise", "retention"}
    assert float(np.exp(both["read_noise"].ln_noise)) == pytest.approx(0.01, rel=0.1)
    for name in ("iv", "conductance", "programming"):
        xr.testing.assert_identical(both[name].to_dataset(), alone[name].to_dataset())


def test_data_of_no_named_population_belong_to_each():
    sweeps = iv_node({"lrs": LRS, "hrs": HRS}, devices=12, cycles=3)
    named = sweeps.assign_coords(population=("sweep", np.full(sweeps.sizes["sweep"], "wafer 1")))
    found = measurement(iv=named, reads=noisy_reads(np.random.default_rng(1)))
    assert populations(found) == ["wafer 1"]
    assert {"iv", "levels"} <= set(fit(found).children)
    other = measurement(iv=named, reads=noisy_reads(np.random.default_rng(1), population="wafer 2"))
    assert populations(other) == ["wafer 1", "wafer 2"]
    with pytest.raises(OptionError, match="2 populations that are not pooled"):
        fit(other)
    assert "levels" not in fit(other, population="wafer 1").children


def test_what_fails_beside_something_else_is_said():
    one_curve = iv_node({"hrs": HRS}, devices=1, cycles=1)
    tree = fit(measurement(iv=one_curve, reads=noisy_reads(np.random.default_rng(1))))
    assert "levels" in tree.children
    assert "iv: nothing was fitted: 1 curves of 1 device(s)" in warnings_of(tree)
