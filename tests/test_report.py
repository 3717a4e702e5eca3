import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from calib import files, outcomes, report, report_evaluation, report_record, result_figures
from calib.device_model import identity
from calib.errors import ModelError, OptionError
from calib.report_files import open_result
from tests import study_sets
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
    rows = report_evaluation.summary_rows([outcome(chips=1, networks=1)])
    assert rows[0][4:6] == ("unknown", "unknown")


def test_summary_has_the_numbers() -> None:
    found = outcomes.outcomes([results()])
    cells = dict(zip(report_evaluation.SUMMARY_COLUMNS, report_evaluation.summary_rows(found)[3], strict=True))
    item = found[3]
    assert cells["median error"] == f"{100 * np.median(item.error):.2f} %"
    assert cells["energy per inference"].endswith(" pJ")
    assert cells["chips"] == "2 x 6"
    ratio = np.median(item.error) / np.median(found[2].error)
    assert float(cells["error / ideally trained"]) == pytest.approx(ratio, rel=0.01)
    assert report_evaluation.summary_rows(found)[2][8] == "reference"


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
    line = report_record.commands([open_result(results())], "report.html")[0]
    assert line.startswith("calib train --device oxide -o standard --dataset digits --layers 64-10-10")
    assert "--learning-rate 0.003" in line
    assert line.endswith("--validation-repeats 5 --ideal")


def test_commands_are_what_the_command_line_takes() -> None:
    import shlex

    from calib.cli import build_parser

    parser = build_parser()
    for line in report_record.commands([open_result(results())], "report.html"):
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
    drawn = result_figures.distribution_figures(found)
    assert [key for key, _, _ in drawn] == ["error", "energy", "power"]
    for drawing in (*(drawing for _, _, drawing in drawn), result_figures.training_figure(found)):
        assert drawing is not None
        assert drawing.get_figwidth() * 25.4 == pytest.approx(175)
        assert drawing.axes[0].get_xlabel()


def test_no_training_figure_without_a_history() -> None:
    dataset = results().drop_vars(["validation_error_median", "validation_error_low", "validation_error_high"])
    assert result_figures.training_figure(outcomes.outcomes([dataset])) is None


def whole_report(tmp_path: Path, *studies: xr.Dataset, names: tuple[str, ...] = (), **options: object) -> str:
    """Write studies to files and return the text of their report."""
    paths = []
    for number, study in enumerate(studies):
        name = names[number] if names else f"{study.attrs.get('schema', '').split('/')[0]}-{number}.nc"
        files.write_netcdf(study, tmp_path / name)
        paths.append(tmp_path / name)
    page = report.report(paths, tmp_path / "report.html", **options)  # type: ignore[arg-type]
    return page.read_text(encoding="utf-8")


def words(text: str) -> str:
    return " ".join(" ".join(parsed(text).text).split())


def headings(text: str) -> list[str]:
    return re.findall(r'<h2 id="([^"]+)"', text)


EVERY_STUDY = (
    results(), study_sets.budget(), study_sets.requirements(), study_sets.uncertainty(), study_sets.robustness(),
    study_sets.robustness("ageing"),
)  # fmt: skip


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return whole_report(tmp_path_factory.mktemp("mixed"), *EVERY_STUDY, yield_above=0.9)


def test_every_kind_of_result_has_its_chapter(mixed: str) -> None:
    assert headings(mixed) == [
        "evaluation", "training", "matrix", "budget", "requirements", "uncertainty", "robustness", "options", "repeat",
        "provenance",
    ]  # fmt: skip


def test_the_chapters_say_what_was_found(mixed: str) -> None:
    text = words(mixed)
    for wanted in (
        "Stuck devices cost 3.1", "I-V nonlinearity 0.6", "read noise has no cost that can be told from 0",
        "All effects together cost",
        "The loss stays under 1 point with stuck devices up to 0.0170 (95 % 0.0150 to 0.0200) and read noise up to "
        "more than 1.00", "the device has more than that of stuck devices (0.0500)",
        "measure 36 more devices (stuck devices)", "not known about the device",
        "FGSM with eps = 0.2 brings the median accuracy from 95.0 % to 55.0 % (attacker knows the chip) and 85.0 %",
        "The median accuracy is 95.0 % as programmed; after 1 d it is 85.0 % compensated and 45.0 % not compensated",
        "chips of 90 % or more", "Networks of the lowest median error: aware on oxide",
        "standard: the lowest median validation error",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_a_page_of_every_kind_is_well_formed_and_accessible(mixed: str) -> None:
    checker = parsed(mixed)
    assert checker.problems == []
    assert ("html", "lang", "en") in checker.attributes
    ids = [value for _, key, value in checker.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag in checker.sequence if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    count = checker.sequence.count
    assert count("figure") == count("figcaption") == count("svg") == mixed.count('role="img"')
    assert count("table") == count("caption")
    assert all(value in ("col", "row") for tag, key, value in checker.attributes if tag == "th" and key == "scope")
    assert count("th") == sum(tag == "th" and key == "scope" for tag, key, _ in checker.attributes)
    used = [value[1:] for tag, key, value in checker.attributes if tag == "a" and value.startswith("#")]
    assert used
    assert set(used) <= set(ids)


def test_nothing_is_fetched_and_print_and_phones_are_thought_of(mixed: str) -> None:
    assert not parsed(mixed).tags & {"script", "link", "img", "iframe", "object"}
    assert not re.findall(r"url\((?!#)|@import|(?:src|href)=\"(?!#|https://doi\.org/)", mixed)
    assert "@media print" in mixed
    assert "@media (max-width: 520px)" in mixed
    tables = mixed.count("<table") - mixed.count('<table class="facts">')
    assert mixed.count('<div class="scroll') == tables


def test_the_commands_of_every_kind_are_what_the_command_line_takes() -> None:
    import shlex

    from calib.cli import build_parser

    lines = report_record.commands([open_result(study) for study in EVERY_STUDY], "report.html")
    found = [build_parser().parse_args(shlex.split(line)[1:]) for line in lines]
    assert [each.command for each in found] == [
        "train", "train", "evaluate", "budget", "requirements", "uncertainty", "robustness", "robustness", "report",
    ]  # fmt: skip
    assert (found[3].time, found[3].array, found[3].chips) == (3600.0, "rows=64", 8)
    assert (found[4].loss, found[4].alone, found[4].effect) == (1.0, True, ["stuck devices", "read noise"])
    assert (found[5].models, found[5].characteristics, found[5].check) == (5, True, False)
    assert (found[6].knows, found[6].strengths, found[6].images) == (["chip", "ideal"], "0,0.1,0.2", 90)
    assert found[7].attack == "ageing"


def test_the_array_of_the_run_need_not_be_said_again() -> None:
    study = study_sets.budget()
    record = json.loads(study.attrs["training"])
    record["options"]["array"] = "rows=64"
    (line,) = [
        line
        for line in report_record.commands([open_result(study.assign_attrs(training=json.dumps(record)))], "r.html")
        if line.startswith("calib budget")
    ]
    assert "--array" not in line
    (line,) = [line for line in report_record.commands([open_result(study)], "r.html") if "budget" in line.split()[1]]
    assert "--array rows=64" in line
    options = {**json.loads(study.attrs["options"]), "array": "rows=64"}  # not what calib writes
    strange = open_result(study.assign_attrs(options=json.dumps(options)))
    assert any("--array rows=64" in line for line in report_record.commands([strange], "r.html"))


def test_a_budget_alone_has_no_empty_chapters_and_says_that_curves_are_missing(tmp_path: Path) -> None:
    text = whole_report(tmp_path, study_sets.budget())
    assert headings(text) == ["training", "budget", "options", "repeat", "provenance"]
    assert "The history of aware is neither in the files of results nor in a folder of that name" in words(text)
    assert "calib budget aware --device oxide" in text


def test_a_run_folder_beside_the_file_gives_curves_device_and_options(tmp_path: Path) -> None:
    from calib.training import train
    from tests.simple_devices import blobs, range_only

    run = train(range_only(), output=tmp_path / "aware", dataset=blobs(features=6), layers=(6, 3), epochs=2,
                batch_size=50, validation_repeats=1)  # fmt: skip
    sha256 = identity(run.device)
    study = study_sets.budget(device=str(run.device.attrs["name"]), sha256=sha256)
    study = study.isel(network=[0]).assign_attrs(training=json.dumps(run.record))
    text = whole_report(tmp_path, study)
    assert headings(text) == ["training", "budget", "devices", "options", "repeat", "provenance"]
    assert f"identity <code>{sha256}</code>" in text
    assert "calib train --device" in text
    assert "is neither in the files" not in text
    (tmp_path / "aware").rename(tmp_path / "moved")
    with pytest.raises(OptionError, match="'.*moved' is none of those .*aware"):
        report.report(tmp_path / "calib-budget-0.nc", tmp_path / "again.html", runs=[tmp_path / "moved"])


def test_another_run_of_the_same_name_is_not_taken(tmp_path: Path) -> None:
    from calib.training import train
    from tests.simple_devices import blobs, range_only

    train(range_only(), output=tmp_path / "aware", dataset=blobs(features=6), layers=(6, 3), epochs=1, batch_size=50,
          validation_repeats=1)  # fmt: skip
    text = whole_report(tmp_path, study_sets.robustness())
    assert "The history of aware is neither" in words(text)


def test_several_files_of_a_kind_are_told_apart(tmp_path: Path) -> None:
    text = whole_report(tmp_path, study_sets.budget("first"), study_sets.budget("second", "other", seed=2))
    assert headings(text).count("budget") == 1
    assert "<h3>first on oxide</h3>" in text
    assert "<h3>second on other</h3>" in text
    assert parsed(text).problems == []
    ids = [value for _, key, value in parsed(text).attributes if key == "id"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("schema", "message"),
    [("", "no attribute 'schema'"), ("else/1", "schema 'else/1'"), ("calib-device-model/1", "give it with --device")],
)
def test_foreign_files_are_refused(tmp_path: Path, schema: str, message: str) -> None:
    with pytest.raises(ModelError, match=f"is no results file: .*{message}"):
        whole_report(tmp_path, xr.Dataset({"x": 1}, attrs={"schema": schema} if schema else {}))
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("study", EVERY_STUDY[1:5], ids=lambda study: study.attrs["schema"])
def test_damaged_studies_are_refused_with_what_is_wrong(tmp_path: Path, study: xr.Dataset) -> None:
    damaged = study.copy()
    damaged.attrs["options"] = "{"
    with pytest.raises(ModelError, match="attribute 'options' is missing or no JSON; make it again"):
        whole_report(tmp_path, damaged)
    name = {"calib-budget/1": "error", "calib-requirements/1": "loss", "calib-uncertainty/1": "variance"}
    with pytest.raises(ModelError, match=r"missing|of nothing"):
        whole_report(tmp_path, study.drop_vars(name.get(study.attrs["schema"], "accuracy")))
    damaged = study.assign_attrs(training="[{}]")
    with pytest.raises(ModelError, match="the record of a training lacks 'options'"):
        whole_report(tmp_path, damaged)


def test_markup_in_studies_does_no_harm(tmp_path: Path) -> None:
    hostile = "<img src=x>$a$"
    study = study_sets.budget(run=hostile, device=hostile)
    study = study.assign_coords(effect=[hostile, *study["effect"].values[1:]])
    text = whole_report(tmp_path, study, study_sets.uncertainty(run=hostile), study_sets.robustness(device=hostile))
    assert parsed(text).problems == []
    assert "img" not in parsed(text).tags


def test_the_matrix_marks_the_lowest_of_each_device_and_bears_gaps() -> None:
    found = [item for item in outcomes.outcomes([results()]) if (item.label, item.device) != ("aware", "ideal")]
    drawing = result_figures.matrix_figure(found)
    assert [text.get_text() for text in drawing.axes[0].texts] == [
        f"{100 * np.median(item.error):.1f} %" for item in (found[0], *found[1:])
    ]


def test_the_command_writes_and_lists_the_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from calib.cli import main

    for name, study in (("results.nc", results()), ("budget.nc", study_sets.budget())):
        files.write_netcdf(study, tmp_path / name)
    paths = [str(tmp_path / name) for name in ("results.nc", "budget.nc")]
    assert main(["report", *paths, "-o", str(tmp_path / "r.html"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == [
        {"file": "results.nc", "kind": "evaluation"}, {"file": "budget.nc", "kind": "budget"},
    ]  # fmt: skip
    assert len(found["summary"]) == 4


def test_energies_of_conversions_and_programming_are_listed_where_known() -> None:
    from calib.report_evaluation import evaluation_chapters

    data = results(runs=("aware",))
    assert len(evaluation_chapters(outcomes.outcomes([data]), [data])[0].parts[0].tables) == 1
    cells = ("network", "device")
    data["energy_periphery"] = (cells, [[2e-12, 2e-12]] * 2)
    data["energy_programming"] = (cells, [[np.nan, 3e-9]] * 2)
    data["energy_programming_bound"] = ((*cells, "bound"), [[[np.nan, np.nan], [2e-9, 4e-9]]] * 2)
    table = evaluation_chapters(outcomes.outcomes([data]), [data])[0].parts[0].tables[1]
    assert table.rows[:2] == [
        ("aware/0", "ideal", "2.00 pJ", "unknown"), ("aware/0", "oxide", "2.00 pJ", "3.00 nJ (2.00 to 4.00 nJ)"),
    ]  # fmt: skip
