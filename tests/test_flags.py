"""Flags: their rules in the notes, how each is switched off, clipped ranges, events and the sense of loops."""

import numpy as np
import pytest

import calib
from calib import measurement as m
from calib.cli import main
from calib.errors import OptionError
from calib.sweeps import SweepRules, split
from calib.sweeps.events import clipped

RAMP = np.concatenate([np.linspace(0, 2, 41), np.linspace(1.95, -2, 80), np.linspace(-1.95, 0, 40)])


def device(scale: float = 1.0, noise: int = 0) -> np.ndarray:
    """Set at +1.5 V to a compliance of 50 uA, reset at -1.5 V; noise of 0.1 nA."""
    high, current = False, []
    for v in RAMP.tolist():
        high = (high or v >= 1.5) and v > -1.5
        current.append(min(v * scale * (1e-4 if high else 1e-6), 5e-5))
    return np.array(current) + np.random.default_rng(noise).normal(0, 1e-10, len(RAMP))


def measured(*currents: np.ndarray, rules: SweepRules | None = None, voltage: np.ndarray = RAMP):
    traces = [m.Trace(voltage, current, f"D{k}") for k, current in enumerate(currents)]
    tree = split(m.build({"iv": m.iv_node(traces)}, [{"name": "x", "sha256": "", "reader": "", "why": ""}]), rules)
    m.check(tree)
    return tree["iv"].to_dataset(inherit=False)


def all_flags() -> list[np.ndarray]:
    currents = [device(noise=k) for k in range(4)]
    currents[0][20] *= 5  # a spike
    return currents


def counts(node) -> dict[str, int]:
    return {name: int(((node["flag"].values & bit) != 0).sum()) for name, bit in m.FLAGS.items()}


def test_every_flag_that_is_set_states_its_rule_and_its_numbers() -> None:
    node = measured(*all_flags())
    found = {name: count for name, count in counts(node).items() if count}
    assert {"compliance", "spike", "below_floor", "switching"} <= set(found)
    notes = m.notes_of(node)
    for name, count in found.items():
        (note,) = [note for note in notes if note.startswith(f"flag {name}, {count} points: ")]
        assert f"--no-flag {name}" in note
        assert any(character.isdigit() for character in note.split("points: ")[1].split("(--no")[0])


@pytest.mark.parametrize("name", ["compliance", "spike", "below_floor", "switching"])
def test_each_flag_can_be_switched_off(name) -> None:
    node = measured(*all_flags(), rules=SweepRules(no_flags=(name,)))
    assert counts(node)[name] == 0
    assert f"switched off: the flags {name}" in m.notes_of(node)
    assert sum(counts(node).values()) > 0


def test_the_rules_that_change_the_current_can_be_switched_off() -> None:
    current = np.abs(device())
    assert counts(measured(current))["sign_restored"] > 0
    node = measured(current, rules=SweepRules(no_flags=("sign_restored",)))
    assert counts(node)["sign_restored"] == 0
    assert np.nanmin(node["current"].values) >= 0
    reads = [1e-5 * RAMP + 2e-6 for _ in range(4)]
    assert set(measured(*reads)["offset"].values.round(12)) == {2e-6}
    assert set(measured(*reads, rules=SweepRules(no_flags=("offset",)))["offset"].values) == {0.0}


def test_duplicates_and_an_unknown_flag() -> None:
    voltage = np.repeat(RAMP, 2)
    assert counts(measured(np.repeat(device(), 2), voltage=voltage))["duplicate"] > 100
    rules = SweepRules(no_flags=("duplicate",))
    assert counts(measured(np.repeat(device(), 2), voltage=voltage, rules=rules))["duplicate"] == 0
    with pytest.raises(OptionError, match="--no-flag spikes: there is no such flag; known are compliance, spike"):
        SweepRules(no_flags=("spikes",))


def test_a_clipped_range_within_a_sweep_is_saturated() -> None:
    current = device(scale=2.0)
    clip = np.where((RAMP < 0) & (current < -1e-4), -1e-4, current)
    node = measured(clip)
    marked = (node["flag"].values & m.FLAGS["saturated"]) != 0
    assert marked.sum() > 10
    assert np.all(node["current"].values[marked] == -1e-4)
    assert not counts(measured(clip, rules=SweepRules(no_flags=("saturated",))))["saturated"]


def test_equal_currents_at_one_voltage_are_not_clipped() -> None:
    voltage, current = np.array([[0, 1, 1, 1, 1.0]]), np.array([[0, 2, 2, 2, 2.0]])
    assert not clipped(voltage, current, SweepRules()).any()
    assert clipped(np.array([[0, 1, 2, 3, 4.0]]), current, SweepRules())[0].tolist() == [False] + [True] * 4
    assert not clipped(voltage, 0 * current, SweepRules()).any()


def test_switching_voltages_are_a_coordinate() -> None:
    node = measured(device(), device(noise=1))
    voltage = node["switching_voltage"]
    assert voltage.attrs["units"] == "V"
    expected = {("set", "up"): 1.5, ("reset", "up"): -1.5}
    for k in range(node.sizes["sweep"]):
        key = (str(node["operation"].values[k]), str(node["direction"].values[k]))
        if key in expected:
            assert voltage.values[k] == pytest.approx(expected[key], abs=0.051)
        else:
            assert np.isnan(voltage.values[k])
    notes = "\n".join(m.notes_of(node))
    assert "2 set events, median 1.5 V" in notes
    assert "2 reset events, median -1.5 V" in notes
    off = measured(device(), rules=SweepRules(no_flags=("switching",)))
    assert np.isnan(off["switching_voltage"].values).all()


def test_the_sense_of_the_loops_is_stated() -> None:
    notes = "\n".join(m.notes_of(measured(device())))
    assert "hysteresis at positive voltage: 1 of 1 loops are counter-clockwise: |I| is larger on the way back" in notes
    assert "hysteresis at negative voltage: 1 of 1 loops are clockwise: |I| is smaller on the way back" in notes


def test_the_option_of_the_command_line_and_of_read(tmp_path, capsys) -> None:
    path = tmp_path / "a.csv"
    path.write_text("V,I\n" + "".join(f"{v!r},{i!r}\n" for v, i in zip(RAMP.tolist(), device().tolist(), strict=True)))
    assert main(["inspect", str(path), "--no-flag", "switching", "--no-flag", "compliance"]) == 0
    out = capsys.readouterr().out
    assert "flag switching" not in out
    assert "switched off: the flags switching, compliance" in " ".join(out.split())
    assert "flag switching" in "\n".join(m.notes_of(calib.read(path)["iv"]))
    assert "flag switching" not in "\n".join(m.notes_of(calib.read(path, no_flag=["switching"])["iv"]))


def test_switching_voltages_survive_saving(tmp_path) -> None:
    tree = split(m.build({"iv": m.iv_node([m.Trace(RAMP, device(), "A")])}, []))
    m.save(tree, tmp_path / "a.nc")
    assert m.open_measurement(tmp_path / "a.nc").identical(tree)


def test_a_spike_before_the_set_event_is_not_taken_for_it() -> None:
    current = device()
    current[20] *= 5
    node = measured(current)
    up = node.isel(sweep=(node["operation"].values == "set") & (node["direction"].values == "up"))
    assert up["switching_voltage"].values.tolist() == [pytest.approx(1.5, abs=0.051)]
    assert (up["flag"].values[0, 20] & m.FLAGS["spike"]) != 0
