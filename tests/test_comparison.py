"""Runs and device models side by side: what is paired, whether intervals hold, tables and files."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import calib
from calib import comparison, comparison_tables, files, paired
from calib.cli import main
from calib.comparison import compare
from calib.comparison_means import difference, holm, probability
from calib.device_model import identity, save
from calib.errors import ModelError, OptionError
from tests import study_sets
from tests.exporters.test_html import parsed
from tests.result_sets import results
from tests.simple_devices import range_only


def made(generator: np.random.Generator, *, networks: bool, chips: bool, n: int = 3, c: int = 8) -> np.ndarray:
    """Return two sides (2, network, chip) of equal means, with effects of networks and chips that they may share."""
    of_network, of_chip = generator.normal(0, 1, (2, n, 1)), generator.normal(0, 1, (2, 1, c))
    if networks:
        of_network[1] = of_network[0]
    if chips:
        of_chip[1] = of_chip[0]
    return of_network + of_chip + generator.normal(0, 0.5, (2, n, c))


@pytest.mark.parametrize("networks", [False, True])
@pytest.mark.parametrize("chips", [False, True])
def test_intervals_cover_the_truth(networks: bool, chips: bool) -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        a, b = made(generator, networks=networks, chips=chips)
        found = difference(a, b, networks=networks, chips=chips)
        covered += abs(found.value) <= found.half
    assert covered >= 0.95 * 400 - 3 * math.sqrt(400 * 0.95 * 0.05)


def test_what_is_shared_drops_out() -> None:
    generator = np.random.default_rng(8)
    a, b = made(generator, networks=True, chips=True, n=6, c=20)
    halves = {(n, c): difference(a, b, networks=n, chips=c).half for n in (True, False) for c in (True, False)}
    assert halves[True, True] < 0.5 * min(halves[True, False], halves[False, True])
    assert max(halves[True, False], halves[False, True]) < halves[False, False]


def test_all_shared_is_the_paired_mean() -> None:
    a, b = made(np.random.default_rng(9), networks=True, chips=True)
    assert difference(a, b, networks=True, chips=True) == paired.mean(b - a)


def test_one_network_with_nothing_shared_is_welch() -> None:
    generator = np.random.default_rng(10)
    a, b = generator.normal(0, 1, (1, 6)), generator.normal(1, 3, (1, 11))
    found = difference(a, b, networks=False, chips=False)
    welch: Any = stats.ttest_ind(b[0], a[0], equal_var=False)
    assert found.freedom == pytest.approx(welch.df)
    assert found.half == pytest.approx(float(np.diff(welch.confidence_interval()).item()) / 2)
    assert probability(found) == pytest.approx(welch.pvalue)


def test_longer_sides_are_cut_to_the_chips_that_are_shared() -> None:
    a, b = made(np.random.default_rng(11), networks=True, chips=True)
    assert difference(a[:, :5], b, networks=True, chips=True) == paired.mean(b[:, :5] - a[:, :5])


def test_single_chips_tell_nothing_and_equal_ones_do_not_differ() -> None:
    one = difference(np.array([[0.1]]), np.array([[0.2, 0.3]]), networks=False, chips=False)
    assert math.isnan(one.half)
    assert math.isnan(probability(one))
    same = difference(np.full((2, 4), 0.1), np.full((2, 4), 0.1), networks=False, chips=False)
    assert (same.value, same.half, probability(same)) == (0, 0, 1)


def test_holm_by_hand() -> None:
    assert holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_runs_of_one_file_share_chips_and_not_networks() -> None:
    found = compare([results()])
    assert [run.label for run in found.runs] == [
        "standard on ideal", "standard on oxide", "aware on ideal", "aware on oxide",
    ]  # fmt: skip
    (one,) = found.differences
    assert (one.a, one.b) == ("standard on oxide", "aware on oxide")
    assert one.how == "networks of separate trainings, chip by chip (with the same devices drawn)"
    a, b = (found.runs[k].outcome.error for k in (1, 3))
    assert one.error == difference(a, b, networks=False, chips=True)
    assert one.told("error", 0.05)
    assert not one.told("energy", 0.05)
    assert "aware on oxide has" in comparison_tables.sentences(found)[0]
    assert "points less error than standard on oxide." in comparison_tables.sentences(found)[0]


def test_the_loss_is_against_the_same_networks_on_ideal_devices() -> None:
    found = {run.label: run for run in compare([results()]).runs}
    ideal, real = found["aware on ideal"].outcome.error, found["aware on oxide"].outcome.error
    assert found["aware on oxide"].loss == paired.mean(real - ideal.mean(1, keepdims=True))
    assert math.isnan(found["aware on ideal"].loss.value)
    alone = compare([results(devices=("oxide", "other"))])
    assert all(math.isnan(run.loss.value) for run in alone.runs)


def test_the_same_networks_on_two_devices_are_paired_in_full() -> None:
    (one,) = compare([results(runs=("aware",), devices=("oxide", "other"))]).differences
    assert one.how == "the same networks, chip by chip (of the same random numbers)"


def test_chips_of_other_seeds_are_not_paired() -> None:
    other = results(runs=("aware",), seed=5).assign_attrs(seed=4)
    found = compare([results(runs=("aware",)), other], all_pairs=True)
    (one,) = found.differences
    assert (one.a, one.b) == ("aware on oxide", "aware (2) on oxide")
    assert one.how == "the same networks, chips of separate draws"
    assert found.runs[1].outcome is not found.runs[3].outcome


def test_against_and_all_pairs() -> None:
    three = results(runs=("standard", "aware", "third"))
    assert len(compare([three]).differences) == 2
    assert len(compare([three], all_pairs=True).differences) == 3
    found = compare([three], against="third on oxide").differences
    assert [one.a for one in found] == ["third on oxide"] * 2
    with pytest.raises(OptionError, match="there is no 'fourth' to compare with; expected one of standard on ideal"):
        compare([three], against="fourth")
    with pytest.raises(OptionError, match="leave out one of the two options"):
        compare([three], against="third on oxide", all_pairs=True)


def test_unequal_conditions_are_warned_about() -> None:
    other = results(runs=("other",), networks=1)
    other.attrs["options"] = json.dumps({"chips": 6, "redraw": "batch", "read_time": 1e-7})
    texts = " ".join(compare([results(), other]).warnings)
    assert "different read times" in texts
    assert "different ways of drawing devices" in texts
    assert "a single network was trained for other on ideal, other on oxide" in texts
    assert not compare([results()]).warnings


def test_devices_are_compared_estimate_by_estimate() -> None:
    found = compare(["siox-high-resistance", "siox-low-resistance"])
    assert not found.runs
    (table, diff) = comparison_tables.sections(found)
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["conductance of the off state"][0].startswith("525 nS")
    assert cells["I-V law"] == ("Poole-Frenkel emission",) * 2
    assert diff.title == "siox-low-resistance (b) against siox-high-resistance (a)"
    assert repr(found.model_diffs[0]) == repr(calib.diff("siox-high-resistance", "siox-low-resistance"))


def test_devices_of_the_results_are_shown_once() -> None:
    tree = calib.open_device("siox-high-resistance")
    name = str(tree.attrs["name"])
    found = compare([results(devices=("ideal", name), hashes={name: identity(tree)}), tree])
    assert [identity(each) for each in found.devices] == [identity(tree)]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    files.write_netcdf(study_sets.budget(), tmp_path / "budget.nc")
    with pytest.raises(ModelError, match="'budget.nc' holds budget; expected results of 'calib evaluate' or a device"):
        compare([tmp_path / "budget.nc"])
    files.write_netcdf(xr.Dataset({"x": 1}), tmp_path / "x.nc")
    with pytest.raises(ModelError, match="x.nc' is no results file"):
        compare([tmp_path / "x.nc", "siox-high-resistance"])
    with pytest.raises(OptionError, match=r"one thing to compare \(siox-high-resistance\)"):
        compare(["siox-high-resistance"])
    with pytest.raises(OptionError, match=r"ends in .html, .csv, .json"):
        compare([results()], output=tmp_path / "x.txt")
    with pytest.raises(OptionError, match="level is 2"):
        compare([results()], level=2)
    with pytest.raises(ModelError, match="no-such-device"):
        compare(["no-such-device", results()])


def test_the_page_is_well_formed_and_harmless(tmp_path: Path) -> None:
    hostile = results(runs=("<img src=x>$a$", "b & c"), devices=("ideal", '"><b>'))
    compare([hostile, "siox-high-resistance", "siox-low-resistance"], output=tmp_path / "compare.html")
    text = (tmp_path / "compare.html").read_text(encoding="utf-8")
    checker = parsed(text)
    assert checker.problems == []
    assert not checker.tags & {"img", "b", "script", "link"}
    assert checker.sequence.count("table") == checker.sequence.count("caption")
    ids = [value for _, key, value in checker.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    assert str(tmp_path) not in text


def test_csv_has_one_number_a_line_and_no_formulas(tmp_path: Path) -> None:
    compare([results(runs=("=1+1", "aware")), range_only()], output=tmp_path / "compare.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "compare.csv").read_text(encoding="utf-8"))))
    assert {row["kind"] for row in rows} == {"run", "difference", "device"}
    assert rows[0]["subject"] == "'=1+1 on ideal"
    loss = next(row for row in rows if (row["subject"], row["quantity"]) == ("aware on oxide", "loss_against_ideal"))
    assert float(loss["low"]) < float(loss["value"]) < float(loss["high"])
    assert all(row["value"] == "" or math.isfinite(float(row["value"])) for row in rows)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_netcdf(results(), tmp_path / "results.nc")
    save(range_only(), tmp_path / "device.nc")
    arguments = ["compare", str(tmp_path / "results.nc"), str(tmp_path / "device.nc")]
    assert main([*arguments, "-o", str(tmp_path / "c.json")]) == 0
    text = capsys.readouterr().out
    assert "points less error than standard on oxide." in text
    assert "G_on / G_off" in text
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert found["schema"] == "calib-compare/1"
    assert found["runs"][0]["loss_points"] is None
    assert found["differences"][0]["error_told"] is True
    assert main(["compare", str(tmp_path / "device.nc")]) == 1
    assert "there is one thing to compare" in capsys.readouterr().err


def test_python_has_the_same_function() -> None:
    assert calib.compare is comparison.compare
