import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from calib import files, outcomes, report, result_figures
from calib.device_model import identity
from calib.errors import ModelError, OptionError
from tests.device_trees import full_device
from tests.exporters.test_html import parsed
from tests.result_sets import results


@pytest.fixture
def results_file(tmp_path: Path) -> Path:
    path = tmp_path / "results.nc"
    files.write_netcdf(results(), path)
    return path


def outcome(device: str = "oxide", label: str = "aware", **options: object) -> outcomes.Outcome:
    found = outcomes.outcomes([results(**options)])  # type: ignore[arg-type]
    return next(item for item in found if (item.device, item.label) == (device, label))


def test_one_outcome_for_each_run_and_device() -> None:
    found = outcomes.outcomes([results()])
    assert [(item.device, item.label) for item in found] == [
        ("ideal", "standard"), ("ideal", "aware"), ("oxide", "standard"), ("oxide", "aware"),
    ]  # fmt: skip
    assert found[0].ideal
    assert not found[1].ideal
    assert found[0].error.shape == (2, 6)
    assert found[0].power.shape == (2, 6, 2)


def test_several_results_are_joined_and_equal_names_told_apart() -> None:
    found = outcomes.outcomes([results(runs=("standard",)), results(runs=("aware",)), results(runs=("aware",), seed=9)])
    assert [item.label for item in found if item.device == "oxide"] == ["standard", "aware", "aware (3)"]


def test_the_reference_is_the_ideally_trained_network_on_the_same_device() -> None:
    found = outcomes.outcomes([results()])
    aware = next(item for item in found if (item.device, item.label) == ("oxide", "aware"))
    reference = outcomes.reference_of(aware, found)
    assert reference is not None
    assert (reference.device, reference.label) == ("oxide", "standard")
    assert outcomes.reference_of(reference, found) is None
    assert outcomes.reference_of(aware, [aware]) is None


def test_mean_efficiency_is_that_at_the_mean_power() -> None:
    item = outcome()
    mean_power = item.power.sum(-1).mean()
    assert item.mean_efficiency == pytest.approx(2e-12 * 760 / (50e-9 * mean_power), rel=1e-12)


def test_bootstrap_interval_covers_the_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        low, high = outcomes.median_interval(generator.normal(0.0, 1.0, (1, 41)))
        covered += low <= 0.0 <= high
    assert 88 <= covered <= 100  # binomial (100, 0.95) has a standard deviation of 2.2


def test_bootstrap_interval_grows_with_the_spread_between_networks() -> None:
    generator = np.random.default_rng(6)
    chips = generator.normal(0.0, 0.1, (5, 40))
    shifted = chips + np.array([-1.0, -0.5, 0.0, 0.5, 1.0])[:, None]
    alike, apart = (np.diff(outcomes.median_interval(values))[0] for values in (chips, shifted))
    assert apart > 5 * alike


def test_one_chip_has_no_interval() -> None:
    assert np.isnan(outcomes.median_interval(np.array([[0.1]]))).all()
    rows = report.summary_rows([outcome(chips=1, networks=1)])
    assert rows[0][4:6] == ("unknown", "unknown")


def test_summary_has_the_numbers() -> None:
    found = outcomes.outcomes([results()])
    cells = dict(zip(report.SUMMARY_COLUMNS, report.summary_rows(found)[3], strict=True))
    item = found[3]
    assert cells["median error"] == f"{100 * np.median(item.error):.2f} %"
    assert cells["energy per inference"].endswith(" pJ")
    assert cells["chips"] == "2 x 6"
    ratio = np.median(item.error) / np.median(found[2].error)
    assert float(cells["error / ideally trained"]) == pytest.approx(ratio, rel=0.01)
    assert report.summary_rows(found)[2][8] == "reference"


def test_the_page_is_well_formed_self_contained_and_repeatable(results_file: Path, tmp_path: Path) -> None:
    path = report.report(results_file, tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    checker = parsed(text)
    assert checker.problems == []
    assert not checker.tags & {"script", "link", "img", "iframe"}
    links = [value for _, key, value in checker.attributes if key in ("href", "xlink:href", "src")]
    assert all(value.startswith(("#", "https://doi.org/")) for value in links)
    ids = [value for _, key, value in checker.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    report.report([results_file], tmp_path / "again" / "report.html")
    assert (tmp_path / "again" / "report.html").read_text(encoding="utf-8") == text
    assert str(tmp_path) not in text


def test_the_page_says_where_the_numbers_come_from(results_file: Path, tmp_path: Path) -> None:
    text = " ".join(parsed(report.report(results_file, tmp_path / "r.html").read_text(encoding="utf-8")).text)
    for wanted in (
        "Each chip keeps its devices", "torch 2.13.0", files.sha256_of(results_file), "b" * 64, "seed of the chips",
        "lowest median error on nonideal devices",
        "calib evaluate standard aware --device ideal --device oxide --chips 6",
        "calib report results.nc -o r.html",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_the_training_command_states_every_option() -> None:
    line = report.commands([results()], ["results.nc"], "report.html")[0]
    assert line.startswith("calib train --device oxide -o standard --dataset digits --layers 64-10-10")
    assert "--learning-rate 0.003" in line
    assert line.endswith("--validation-repeats 5 --ideal")


def test_commands_are_what_the_command_line_takes() -> None:
    import shlex

    from calib.cli import build_parser

    parser = build_parser()
    for line in report.commands([results()], ["results.nc"], "report.html"):
        assert parser.parse_args(shlex.split(line)[1:]).command in ("train", "evaluate", "report")


def test_devices_outside_of_their_range_are_warned_about(tmp_path: Path) -> None:
    dataset = results()
    dataset["clipped"][:, 1] = 2.0
    text = report.report(dataset, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "aware on oxide: 4.00 devices a chip (mean) lie outside" in text
    assert "aware on ideal: " not in text


def test_an_excerpt_of_the_device_is_shown(tmp_path: Path) -> None:
    tree = full_device()
    dataset = results(hashes={"oxide": identity(tree)})
    text = report.report(dataset, tmp_path / "r.html", devices=[tree]).read_text(encoding="utf-8")
    assert "Test oxide 12" in text
    assert identity(tree) in text
    assert parsed(text).problems == []


def test_a_device_that_was_not_evaluated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'Test oxide 12' .* is not one that the results were evaluated on"):
        report.report(results(), tmp_path / "r.html", devices=[full_device()])
    assert not list(tmp_path.iterdir())


def test_names_with_markup_do_no_harm(tmp_path: Path) -> None:
    dataset = results(runs=("<img src=x>$a$", "b & c"), devices=("ideal", '"><b>'))
    dataset.attrs["protocol"] = "<b>protocol</b>"
    checker = parsed(report.report(dataset, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert checker.problems == []
    assert not checker.tags & {"img", "b"}


def test_no_results_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no results were given"):
        report.report([], tmp_path / "r.html")
    other = tmp_path / "other.nc"
    files.write_netcdf(xr.Dataset({"x": 1}), other)
    with pytest.raises(ModelError, match="other.nc' is no results file"):
        report.report(other, tmp_path / "r.html")


def test_a_record_that_does_not_match_its_networks_is_refused() -> None:
    dataset = results()
    dataset.attrs["training"] = json.dumps(json.loads(dataset.attrs["training"])[:1])
    with pytest.raises(ModelError, match="hold 4 networks but their record of training lists 2"):
        outcomes.outcomes([dataset])


def test_a_run_has_one_colour_in_all_figures_and_ideal_its_own() -> None:
    found = outcomes.outcomes([results(runs=("standard", "aware", "third"))])
    colours = result_figures.run_colours(found)
    assert len(set(colours.values())) == 3
    assert colours["standard"] == result_figures.COLOURS["ideal"]


def test_figures_of_results() -> None:
    found = outcomes.outcomes([results()])
    drawn = result_figures.result_figures(found)
    assert [key for key, _, _ in drawn] == ["error", "energy", "power", "training"]
    for _, _, drawing in drawn:
        assert drawing.get_figwidth() * 25.4 == pytest.approx(175)
        assert drawing.axes[0].get_xlabel()


def test_no_training_figure_without_a_history() -> None:
    dataset = results().drop_vars(["validation_error_median", "validation_error_low", "validation_error_high"])
    assert result_figures.training_figure(outcomes.outcomes([dataset])) is None
