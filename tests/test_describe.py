import json
import math

import numpy as np
import pytest
import xarray as xr

from calib import characteristics, describe
from calib.cli import print_json
from calib.device_model import identity
from tests.device_trees import full_device, part_of_device


def sections(tree: xr.DataTree) -> dict[str, describe.Section]:
    return {section.title: section for section in describe.describe(tree)}


def with_node(name: str, **variables: object) -> xr.DataTree:
    tree = full_device()
    tree[name] = xr.DataTree(tree[name].to_dataset().assign(variables))
    return tree


def row(section: describe.Section, first: str) -> dict[str, str]:
    return next(dict(zip(section.columns, cells, strict=True)) for cells in section.rows if cells[0] == first)


def test_all_sections_in_order_and_every_row_as_wide_as_its_columns() -> None:
    found = describe.describe(full_device())
    assert [section.title for section in found] == [
        "Model", "I-V law: low-resistance state (lrs)", "I-V law: high-resistance state (hrs)", "Resistance",
        "Conductance range", "Conductance as measured", "Programming spread (sigma of ln R)", "Stuck devices",
        "Choice of the law: low-resistance state (lrs)", "Choice of the law: high-resistance state (hrs)",
        "Difference from the best law, poole-frenkel", "How far the curves bend", "Switching voltages",
        "Distribution of the switching voltages", "Yield", "Endurance", "Switching from cycle to cycle", "Marginals",
        "Correlations of the normal scores", "Warnings", "Not in this model",
    ]  # fmt: skip
    for section in found:
        assert all(len(cells) == len(section.columns) for cells in section.rows)
        assert all(isinstance(cell, str) for cells in section.rows for cell in cells)


def test_model_section_names_law_voltages_and_sources() -> None:
    text = dict(sections(full_device())["Model"].rows)
    assert text["I-V law"] == "Poole-Frenkel emission, I = c*V*exp(gamma*sqrt(abs(V)))"
    assert text["reference voltage"].startswith("0.1 V")
    assert text["valid for"] == "|V| 0.02 to 0.5 V"
    assert text["temperature"] == "293.15 K"
    assert "sweeps.csv" in text["source"]


def test_law_section_gives_lines_with_errors_and_derived_quantities() -> None:
    tree = full_device()
    section = sections(tree)["I-V law: low-resistance state (lrs)"]
    gamma = row(section, "gamma")
    iv = tree["iv"].to_dataset().sel(state="lrs", parameter="gamma")
    slope, error = (float(part) for part in gamma["slope per ln R"].split(" +- "))
    assert slope == pytest.approx(float(iv["slope"]), abs=error)
    assert gamma["unit"] == "V^-1/2"
    assert any(note.startswith("d_eps = ") for note in section.notes)
    assert any("residual" in note and "curves of 12 devices" in note for note in section.notes)


def test_typical_parameters_give_the_median_resistance() -> None:
    tree = full_device()
    node = tree["iv"].to_dataset()
    ln_r = characteristics.quantile(node, "hrs", 0.5)
    values = characteristics.typical_parameters(tree, "hrs", ln_r)
    current = values["c"] * 0.1 * math.exp(values["gamma"] * math.sqrt(0.1))
    assert 0.1 / current == pytest.approx(math.exp(ln_r), rel=1e-12)


def test_failed_curves_are_said() -> None:
    tree = full_device()
    status = tree["iv"]["curve_status"].values.astype("U40").copy()
    status[0] = "too few points"
    tree = with_node("iv", curve_status=("curve", status))
    state = str(tree["iv"]["curve_state"].values[0])
    notes = sections(tree)[f"I-V law: {describe.state_name(state)}"].notes
    assert "1 of 36 curves could not be fitted (first: too few points)" in notes


def test_unknown_errors_intervals_and_sample_sizes_are_said() -> None:
    tree = part_of_device("iv", "conductance")
    iv = (
        tree["iv"].to_dataset().drop_vars(["intercept_stderr", "slope_stderr", "ln_r_mean_stderr", "covariance_stderr"])
    )
    iv = iv.assign(n_curves=("state", [0, 0]), n_devices=("state", [0, 0]))
    del iv.attrs["temperature"]
    tree["iv"] = xr.DataTree(iv)
    conductance = tree["conductance"].to_dataset().drop_vars(["g_on_bound", "median"])
    conductance["g_off_bound"] = ("bound", [np.nan, np.nan], {"units": "S"})
    tree["conductance"] = xr.DataTree(conductance)
    found = sections(tree)
    assert row(found["Resistance"], "low-resistance state (lrs)")["sample"] == "sample size not stated"
    assert row(found["Conductance range"], "off state, G_off")["95 % interval"] == "unknown"
    assert row(found["Conductance range"], "on state, G_on")["95 % interval"] == "unknown"
    assert dict(found["Model"].rows)["temperature"] == "not known"
    assert "+-" not in row(found["I-V law: low-resistance state (lrs)"], "gamma")["slope per ln R"]
    assert "Conductance as measured" not in found


def test_components_that_are_not_separated() -> None:
    tree = with_node("programming", sigma_d2d=("state", [np.nan, 0.3], {"units": "1"}))
    found = row(sections(tree)["Programming spread (sigma of ln R)"], "low-resistance state (lrs)")
    assert found["device to device"] == "not separated"


def test_stuck_section() -> None:
    rows = dict(sections(full_device())["Stuck devices"].rows)
    assert rows["probability"] == "8.33 %"
    assert rows["exact 95 % interval"] == "0.211 to 38.5 %"
    assert rows["stuck devices"] == "1 of 12"
    assert rows["stuck near"] == "on 1"
    assert rows["by the other rule"] == "1 of 12"


def test_an_assumed_density_is_marked() -> None:
    tree = full_device()
    tree["stuck"].attrs["assumed"] = 1
    assert any("assumption" in note for note in sections(tree)["Stuck devices"].notes)
    estimate = next(e for e in characteristics.estimates(tree) if e.characteristic == "stuck")
    assert "assumption" in estimate.validity


@pytest.mark.parametrize("nodes", [("iv",), ("conductance",), ("programming",), ("stuck",), ("examples",)])
def test_what_is_absent_is_listed(nodes: tuple[str, ...]) -> None:
    listed = [cells[0] for cells in sections(part_of_device(*nodes))["Not in this model"].rows]
    words = {"iv": "I-V law", "conductance": "conductance range", "stuck": "stuck devices",
             "programming": "programming spread"}  # fmt: skip
    for node, word in words.items():
        assert (word in listed) == (node not in nodes)
    assert "retention" in listed


def test_estimates_cover_each_state_with_intervals_about_the_value() -> None:
    tree = full_device()
    found = characteristics.estimates(tree)
    keys = [(e.characteristic, e.state, e.quantity) for e in found]
    assert len(keys) == len(set(keys))
    assert {e.state for e in found} == {"", "lrs", "hrs", "set"}
    for e in found:
        assert e.label
        assert e.method
        if math.isfinite(e.low) and math.isfinite(e.high):
            assert e.low <= e.value <= e.high
            assert e.interval


def test_intervals_of_estimates_are_those_of_the_node() -> None:
    node = full_device()["programming"].to_dataset()
    found = {(e.state, e.quantity): e for e in characteristics.estimates(full_device())}
    sigma = found["hrs", "sigma"]
    assert [sigma.low, sigma.high] == node["sigma_bound"].sel(state="hrs").values.tolist()


def test_json_has_the_documented_keys(capsys: pytest.CaptureFixture[str]) -> None:
    from calib.cli.show import JSON_KEYS

    tree = full_device()
    print_json(describe.describe_json(tree))
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "schema", "name", "technology", "citation", "license", "identity", "calib_version", "created", "law",
        "estimates", "conductance_table", "validation", "absent", "options", "warnings", "assumptions", "sources",
    }  # fmt: skip
    for key in [*found, *found["law"], *found["estimates"][0], *found["conductance_table"][0]]:
        assert key in JSON_KEYS, key
    assert found["identity"] == identity(tree)
    assert found["law"]["v_max"] == 0.5
    assert found["conductance_table"][0]["n"] == 36


def test_json_of_a_model_without_a_law() -> None:
    found = describe.describe_json(part_of_device("stuck"))
    assert found["law"] is None
    assert found["conductance_table"] == []
