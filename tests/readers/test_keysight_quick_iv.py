"""Quick IV csv files of our own making, in the software's layout."""

import numpy as np
import pytest

from calib.errors import ReadError
from tests.readers import golden

NAMES = "Item,Smu1.Time[1][1],Smu1.V[1][1],Smu1.I[1][1],Smu1.R[1][1],"


def test_two_channels_and_two_repeats() -> None:
    tree = golden.read("quick_iv.csv")
    golden.assert_loop(tree, 1.0, 2.0)
    assert golden.questions(tree) == []
    np.testing.assert_allclose(tree["iv"]["time"].values[1], 0.02 * np.arange(17) + 2e-3)
    assert {"Smu1_R", "Smu2_V", "Smu2_I", "Smu2_Time"} <= set(tree["extra"].data_vars)
    assert tree["extra"]["Smu1_R"].attrs["units"] == "ohm"


def test_one_channel(tmp_path) -> None:
    rows = [f"{n + 1},{n},{v},{i},0," for n, (v, i) in enumerate(zip(golden.VOLTAGE, golden.CURRENT, strict=True))]
    (tmp_path / "a.csv").write_text("\n".join([NAMES, *rows]))
    golden.assert_loop(golden.read(tmp_path / "a.csv"), 1.0)


def test_repeats_of_unequal_length(tmp_path) -> None:
    rows = [f"{n},{v},1e-6,{v if n < 3 else ''},{'2e-6' if n < 3 else ''}," for n, v in enumerate(range(5))]
    (tmp_path / "a.csv").write_text("\n".join(["Item,Smu1.V[1][1],Smu1.I[1][1],Smu1.V[2][1],Smu1.I[2][1],", *rows]))
    assert [len(v) for v, _ in golden.sweeps(golden.read(tmp_path / "a.csv"))] == [5, 3]


def test_a_held_second_channel_is_asked_about(tmp_path) -> None:
    rows = [f"{n},{n / 10},{n * 1e-6},1.5,0," for n in range(5)]
    (tmp_path / "a.csv").write_text("\n".join(["Item,Smu1.V[1][1],Smu1.I[1][1],Smu2.V[1][1],Smu2.I[1][1],", *rows]))
    (question,) = golden.questions(golden.read(tmp_path / "a.csv"))
    assert "not a two-terminal sweep" in question


def test_a_header_without_numbers_ends_in_one_sentence(tmp_path) -> None:
    (tmp_path / "a.csv").write_text(NAMES + "\n")
    with pytest.raises(ReadError, match="'a.csv' holds no rows of numbers"):
        golden.read(tmp_path / "a.csv")
