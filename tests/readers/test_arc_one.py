"""ArC ONE csv of our own making, in the layout that the instrument's software saves."""

import numpy as np
import pytest

import calib
from calib.errors import ReadError
from tests.readers import golden


def test_reads_by_word_and_bit_line() -> None:
    node = golden.read("arc_one.csv")["reads"]
    assert node["device"].values.tolist() == ["3-7", "4-7"]
    assert node["row"].values.tolist() == [3, 4]
    assert node["column"].values.tolist() == [7, 7]
    np.testing.assert_allclose(node["conductance"].values, [[3e-5, 1 / 8e4], [4e-5, np.nan]])
    np.testing.assert_allclose(node["voltage"].values, [[0.5, 0.5], [0.5, np.nan]])


def test_pulses_are_cut_where_the_sign_changes_but_not_where_it_alternates() -> None:
    node = golden.read("arc_one.csv")["pulses"]
    assert node["device"].values.tolist() == ["3-7", "3-7", "4-7"]
    assert node["polarity"].values.tolist() == ["positive", "negative", ""]
    np.testing.assert_allclose(node["amplitude"].values[0, :4], 1.2)
    np.testing.assert_allclose(node["amplitude"].values[2], [1.5, -1.5] * 3)
    np.testing.assert_allclose(1 / node["conductance"].values[0, :4, 0], [9e4, 8e4, 7e4, 6e4])
    np.testing.assert_allclose(node["width"].values[1, :3], 1e-4)
    assert np.isnan(node["conductance"].values[1, 3:]).all()


def test_the_curve_tracer_gives_a_sweep() -> None:
    tree = golden.read("arc_one.csv")
    golden.assert_loop(tree, 1.0)
    assert tree["iv"]["device"].values.tolist() == ["4-7"]
    assert tree["iv"]["row"].values.tolist() == [4]
    assert tree.attrs["instrument"] == "ArC ONE"


def test_two_runs_of_the_curve_tracer_are_two_cycles(tmp_path) -> None:
    lines = (golden.FOLDER / "arc_one.csv").read_text().splitlines()
    traced = [line for line in lines if ",CT_" in line]
    (tmp_path / "a.csv").write_text("\n".join([*lines, *traced]))
    golden.assert_loop(golden.read(tmp_path / "a.csv"), 1.0, 1.0)
    assert set(calib.read(tmp_path / "a.csv")["iv"]["cycle"].values.tolist()) == {0, 1}


def test_tags_keep_the_order_of_all_rows() -> None:
    extra = golden.read("arc_one.csv")["extra"]
    assert extra.sizes == {"record": 33}
    assert extra["Tag"].values[[0, 2, 9]].tolist() == ["S R2 V=0.5", "P", "S R2 V=0.5"]


def test_reads_alone_without_tags(tmp_path) -> None:
    (tmp_path / "a.csv").write_text(
        "Wordline,Bitline,Resistance,Amplitude (V),Pulse width (s)\n1,1,1e4,0.2,0\n1,2,0,0.2,0\n"
    )
    tree = golden.read(tmp_path / "a.csv")
    assert set(tree.children) == {"reads", "extra"}
    np.testing.assert_allclose(tree["reads"]["conductance"].values, [[1e-4], [np.nan]])


def test_what_it_cannot_read_ends_in_one_sentence(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("Wordline,Bitline,Resistance,Pulse width (s)\n1,1,1e4,0\n")
    with pytest.raises(ReadError, match="'a.csv' has the columns .* expected Wordline, Bitline"):
        golden.read(tmp_path / "a.csv")
