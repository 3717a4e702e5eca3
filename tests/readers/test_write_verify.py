"""Write-verify logs, made here: with names, in ohm and in siemens, and without names."""

import numpy as np
import pytest

import calib
from calib import measurement as m
from calib.errors import ReadError

COLUMNS = "device=0,n_read=1,n_set=2,n_reset=3,resistance=4,resistance_low=6,resistance_high=7,success=8"
TABBED = "".join(
    "\t".join(f"{x:.3f}" for x in row) + "\r\n"
    for row in [
        (700, 3, 1, 2, 5800, 0, 5770, 6010, 1, 0, 0),
        (701, 1, 0, 1, 4300, 0, 0, 5000, 1, 0, 0),
        (702, 9, 4, 5, 310e3, 0, 80e3, 1e10, 1, 0, 0),
        (700, 12, 6, 6, 0, 0, 8510, 9310, 0, 0, 0),
    ]
)


def test_tabs_without_names(tmp_path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(TABBED)
    tree = calib.read(path, columns=COLUMNS)
    node = tree["writes"].to_dataset()
    assert node["device"].values.tolist() == ["700", "701", "702", "700"]
    assert node["cycle"].values.tolist() == [0, 0, 0, 1]
    assert node["target_low"].values == pytest.approx([1 / 6010, 1 / 5000, 0, 1 / 9310])
    assert node["target_high"].values == pytest.approx([1 / 5770, np.inf, 1 / 80e3, 1 / 8510])
    assert node["achieved"].values[:3] == pytest.approx([1 / 5800, 1 / 4300, 1 / 310e3])
    assert np.isnan(node["achieved"].values[3])
    assert node["success"].values.tolist() == [1, 1, 1, 0]
    assert node["n_reset"].values.tolist() == [2, 1, 5, 6]
    notes = " ".join(m.notes_of(tree["writes"]))
    for part in ("change places", "1 target ranges are open at low conductance and 1 at high", "1 achieved resist"):
        assert part in notes
    assert set(tree["extra"].data_vars) == {"column_5", "column_9", "column_10"}


@pytest.mark.parametrize(
    "header",
    [
        "address,target r min (kohm),target r max (kohm),final r (kohm),success,attempts",
        "cell;R_low (kohm);R_high (kohm);R (kohm);pass;tries",
        "# device\ttarget low (kohm)\ttarget high (kohm)\tachieved (kohm)\tok\tn attempts",
    ],
)
def test_named_columns_in_kiloohm(tmp_path, header) -> None:
    separator = next(s for s in "\t;," if s in header)
    path = tmp_path / "log.txt"
    path.write_text(header + "\n" + "\n".join(separator.join(r) for r in (["A1", "1", "2", "1.5", "1", "7"],) * 4))
    tree = calib.read(path)
    assert "write-verify" in tree.attrs["sources"]
    node = tree["writes"]
    assert (node["target_low"].values[0], node["target_high"].values[0]) == pytest.approx((5e-4, 1e-3))
    assert node["achieved"].values[0] == pytest.approx(1 / 1500)
    assert node["attempts"].values.tolist() == [7] * 4
    assert node["cycle"].values.tolist() == [0, 1, 2, 3]


def test_siemens_and_words_for_success(tmp_path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "device,row,column,level,target low (uS),target high (uS),conductance (uS),success\n"
        "A,1,2,3,10,12,11,yes\nB,1,3,3,12,10,15,FAILED\nC,2,3,1,,12,11,maybe\n"
    )
    node = calib.read(path)["writes"]
    assert node["target_high"].values == pytest.approx([12e-6] * 3)
    assert node["target_low"].values[1] == pytest.approx(10e-6)
    assert node["success"].values.tolist() == [1, 0, -1]
    assert node["state"].values.tolist() == ["3", "3", "1"]
    assert node["column"].values.tolist() == [2, 3, 3]
    assert any("1 target ranges have their upper end first" in note for note in m.notes_of(node))


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (
            TABBED,
            "device=0,success=8",
            "found no header and 11 columns .* expected a target range .*--columns device=0",
        ),
        (TABBED, COLUMNS.replace("=8", "=88"), "has no such column"),
        (TABBED, COLUMNS.replace("resistance=4", "resistance=5"), "column of achieved values holds no numbers"),
        (TABBED, COLUMNS + ",colour=9", "'colour' is no kind of column"),
        ("no numbers\nat all\n", COLUMNS, "holds no rows of numbers"),
    ],
)
def test_bad_input(tmp_path, text, columns, message) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ReadError, match=message):
        calib.read(tmp_path / "log.csv", columns=columns)


def test_a_log_of_8192_cells(measurements) -> None:
    node = calib.read(measurements / "levy-write-verify" / "fppv-4wl-eval-chip1-8-7-20.csv", columns=COLUMNS)["writes"]
    assert node.sizes == {"write": 32772}
    assert len(np.unique(node["device"].values)) == 8193
    assert set(node["cycle"].values) == {0, 1, 2, 3}
    assert int(node["success"].values.sum()) == 32772 - 1260
    assert int(np.isinf(node["target_high"].values).sum()) == int((node["target_low"].values == 0).sum()) == 8193
    inside = (node["achieved"].values >= node["target_low"].values) & (
        node["achieved"].values <= node["target_high"].values
    )
    assert inside[(node["success"].values == 1) & np.isfinite(node["achieved"].values)].mean() > 0.9
