"""Tables of target conductances: a chip programmed from the table alone computes the layer's outputs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from calib.crossbar import targets
from calib.crossbar.array import Array
from calib.crossbar.mapping import BitSlicing, Mapping, mapping
from calib.crossbar.targets import bit_lines, outputs, programming_targets, read_targets, voltages, write_targets
from calib.errors import CalibError, OptionError, ReadError
from tests.simple_devices import G_OFF, G_ON

K_V = 0.5
ARRAYS = [Array(), Array(5, 8), Array(4, None), Array(None, 5), Array(64, 64)]
NAMES = ["double", "lowest", "average", "offset", "bit-slicing:slices=2,bits=2", "average:clip=1sigma"]


def layer(name: str, bias: bool = True) -> tuple[Mapping, torch.Tensor, torch.Tensor, float]:
    """Return a mapping, signed weights, conductances and k_G of a layer of 11 inputs and 6 outputs."""
    m = mapping(name)
    w = torch.randn(m.weight_shape(11, 6, bias), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    m.project(w)
    g, k_g = m.conductances(w, G_OFF, G_ON)
    signed = m.quantised(w) if isinstance(m, BitSlicing) else m.to_signed(m.clipped(w))
    return m, signed, g, float(k_g)


def inputs(scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(0).uniform(-1, 1, (9, 11))


def chip(path: Path, x: np.ndarray) -> np.ndarray:
    """Compute the outputs from the file alone, with nothing of calib."""
    head = [
        line[2:].split(" = ", 1) for line in path.read_text().splitlines() if line.startswith("# ") and " = " in line
    ]
    a = {key: json.loads(value) for key, value in head if key.isidentifier() and key not in ("y_o", "V")}
    table = pd.read_csv(path, comment="#")
    v = a["input_voltage"] * x / a["input_range"]
    if a["bias_voltage"] is not None:
        v = np.hstack((v, np.full((len(v), 1), a["bias_voltage"])))
    y = np.zeros((len(x), a["outputs"]))
    for _, tile in table.groupby("tile"):
        array, rows = np.zeros((a["tile_rows"], a["tile_columns"])), np.zeros((len(x), a["tile_rows"]))
        array[tile["row"], tile["column"]] = tile["conductance [S]"]
        rows[:, tile["row"]] = v[:, tile["word_line"]]
        currents = rows @ array
        for (column, output, factor), _ in tile.groupby(["column", "output", "factor"]):
            y[:, slice(None) if output == -1 else [output]] += factor * currents[:, [column]]
    y *= a["input_range"] / (a["input_voltage"] * a["k_g"])
    return y + (0 if a["bias"] is None else np.array(a["bias"]))


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.rows}x{a.columns}")
@pytest.mark.parametrize("name", NAMES)
def test_a_chip_of_the_table_computes_the_layer(name: str, array: Array, tmp_path: Path) -> None:
    m, signed, g, k_g = layer(name)
    table = programming_targets("fc1", g, m, array, k_g=k_g, input_voltage=K_V, bias_voltage=K_V)
    write_targets(table, tmp_path / "fc1.csv")
    x = inputs()
    expected = np.hstack((x, np.ones((9, 1)))) @ signed.numpy()
    np.testing.assert_allclose(chip(tmp_path / "fc1.csv", x), expected, rtol=1e-9, atol=1e-9)


def test_input_range_and_digital_bias(tmp_path: Path) -> None:
    m, signed, g, k_g = layer("offset", bias=False)
    bias = torch.arange(6.0)
    table = programming_targets(
        "fc2", g, m, Array(4, 3), k_g=k_g, input_voltage=0.2, input_range=3.0, bias=bias.requires_grad_(True)
    )
    write_targets(table, tmp_path / "fc2.csv")
    x = inputs(3.0)
    expected = x @ signed.numpy() + np.arange(6.0)
    np.testing.assert_allclose(chip(tmp_path / "fc2.csv", x), expected, rtol=1e-9, atol=1e-9)
    assert float(np.abs(voltages(table, x)).max()) <= 0.2


@pytest.mark.parametrize("name", NAMES)
def test_read_currents_become_outputs(name: str, tmp_path: Path) -> None:
    m, signed, g, k_g = layer(name)
    table = programming_targets("fc1", g, m, Array(5, 8), k_g=k_g, input_voltage=K_V, bias_voltage=K_V)
    write_targets(table, tmp_path / "t.csv")
    back = read_targets(tmp_path / "t.csv")
    x = inputs()
    v = voltages(back, x)
    lines = bit_lines(back)
    currents = np.zeros((9, len(lines)))
    for index, line in lines.iterrows():
        devices = back[(back["tile"] == line["tile"]) & (back["column"] == line["column"])]
        currents[:, int(index)] = v[:, devices["word_line"]] @ devices["conductance"].to_numpy()  # type: ignore[call-overload]
    expected = np.hstack((x, np.ones((9, 1)))) @ signed.numpy()
    np.testing.assert_allclose(outputs(back, currents), expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(OptionError, match=f"the layer 'fc1' has {len(lines)} bit lines, and 3 currents were given"):
        outputs(back, currents[:, :3])


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.rows}x{a.columns}")
def test_every_device_has_a_place_of_its_own(array: Array) -> None:
    m, _, g, k_g = layer("double")
    table = programming_targets("fc1", g, m, array, k_g=k_g, input_voltage=K_V)
    assert len(table) == g.numel()
    assert not table.duplicated(["tile", "row", "column"]).any()
    assert not table.duplicated(["group", "word_line", "output"]).any()
    where = table["group"].to_numpy(), table["word_line"].to_numpy(), table["output"].to_numpy()
    np.testing.assert_array_equal(g.numpy()[where], table["conductance"].to_numpy())
    assert table["row"].max() < table.attrs["tile_rows"]
    assert table["column"].max() < table.attrs["tile_columns"]
    assert table.attrs["tiles"] == table["tile"].nunique() == len(array.tiles(12, 6))
    pairs = table.groupby(["tile", "word_line", "output"])["column"]
    assert (pairs.max() - pairs.min() == 1).all()
    assert table["tile"].is_monotonic_increasing


def test_the_reference_column() -> None:
    m, _, g, k_g = layer("offset")
    table = programming_targets("fc1", g, m, Array(), k_g=k_g, input_voltage=K_V)
    reference = table[table["output"] == targets.REFERENCE]
    assert len(reference) == 12
    assert (reference["column"] == 6).all()
    assert (reference["factor"] == -2).all()
    np.testing.assert_allclose(reference["conductance"], (G_OFF + G_ON) / 2)
    assert (table.loc[table["output"] >= 0, "factor"] == 2).all()
    assert table.attrs["outputs"] == 6


def test_levels() -> None:
    m, _, g, k_g = layer("average")
    levels = np.linspace(G_OFF, G_ON, 9)
    table = programming_targets("fc1", g, m, Array(), k_g=k_g, input_voltage=K_V, levels=levels[::-1].tolist())
    distance = np.abs(table["conductance"].to_numpy()[:, None] - levels)
    np.testing.assert_array_equal(table["level"], distance.argmin(1))
    np.testing.assert_array_equal(table["level_conductance"], levels[distance.argmin(1)])


def test_the_levels_of_slices_are_met() -> None:
    m, _, g, k_g = layer("bit-slicing:slices=2,bits=2")
    assert isinstance(m, BitSlicing)
    table = programming_targets("fc1", g, m, Array(), k_g=k_g, input_voltage=K_V, levels=m.levels(G_OFF, G_ON))
    np.testing.assert_allclose(table["level_conductance"], table["conductance"], rtol=1e-12)
    assert set(table["level"]) == {0, 1, 2, 3}


def test_written_tables_are_read_back_unchanged(tmp_path: Path) -> None:
    m, _, g, k_g = layer("bit-slicing:slices=2,bits=2")
    table = programming_targets(
        'a "layer", # 1', g, m, Array(5, 8), k_g=k_g, input_voltage=K_V, bias_voltage=K_V, levels=[G_OFF, G_ON]
    )
    path = tmp_path / "new" / "targets.csv"
    write_targets(table, path)
    back = read_targets(path)
    pd.testing.assert_frame_equal(back, table, check_exact=True)
    assert back.attrs == table.attrs
    text = path.read_text()
    assert "tile,row,column,word_line,output,group,factor,conductance [S],level,level_conductance [S]\n" in text
    assert "# k_g = " in text
    write_targets(back, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()
    assert sorted(p.name for p in path.parent.iterdir()) == ["targets.csv"]


def test_float32_layers() -> None:
    m, _, g, k_g = layer("lowest")
    table = programming_targets("fc1", g.float().requires_grad_(True), m, Array(), k_g=k_g, input_voltage=K_V)
    assert table["conductance"].dtype == np.float64
    plain = programming_targets("fc1", g.numpy(), m, Array(), k_g=k_g, input_voltage=K_V)
    np.testing.assert_allclose(table["conductance"], plain["conductance"], rtol=1e-6)


def test_inputs_of_another_size() -> None:
    m, _, g, k_g = layer("lowest")
    table = programming_targets("fc1", g, m, Array(), k_g=k_g, input_voltage=K_V, bias_voltage=K_V)
    with pytest.raises(OptionError, match="the layer 'fc1' has 11 inputs, and was given 12"):
        voltages(table, np.zeros((2, 12)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conductance": torch.ones(4, 3, 2)}, r"the shape \(4, 3, 2\); expected \(2, word_line, bit_line\)"),
        ({"conductance": -torch.ones(2, 3, 2)}, "conductances lie between -1 and -1 S; expected 0 or more"),
        ({"conductance": torch.full((2, 3, 2), torch.nan)}, "lie between nan and nan S"),
        ({"k_g": 0.0, "input_range": -1.0}, "k_g is 0; expected more than 0; input_range is -1"),
        ({"input_voltage": float("inf")}, "input_voltage is inf"),
        ({"levels": []}, r"levels \[\] cannot be programmed"),
        ({"levels": [-1.0, 2.0]}, "cannot be programmed; expected conductances in S"),
        ({"array": Array(columns=1)}, "1 columns cannot hold the 2 bit lines"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    m, _, g, k_g = layer("lowest")
    given = {"conductance": g, "mapping": m, "array": Array(), "k_g": k_g, "input_voltage": K_V} | change
    with pytest.raises(OptionError, match=message):
        programming_targets("fc1", **given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "is no table of target conductances: it lacks tile, row"),
        ("", "cannot be read as a table of target conductances"),
        ("# k_g = {\na\n1\n", "cannot be read as a table of target conductances"),
        ("tile,row,column,word_line,output,group,factor,conductance [S]\n", "it lacks k_g, input_voltage"),
        ("{whole}0,0,0,0,0,0,1.0,\n", "holds something that is no number"),
        ("{whole}0,0,0.5,0,0,0,1.0,1e-6\n", "holds something that is no number"),
    ],
)
def test_files_that_are_no_tables(text: str, message: str, tmp_path: Path) -> None:
    m, _, g, k_g = layer("lowest")
    write_targets(programming_targets("fc1", g, m, Array(), k_g=k_g, input_voltage=K_V), tmp_path / "whole.csv")
    (tmp_path / "t.csv").write_text(text.replace("{whole}", (tmp_path / "whole.csv").read_text()))
    with pytest.raises(ReadError, match=message):
        read_targets(tmp_path / "t.csv")
    with pytest.raises(ReadError, match="cannot be read"):
        read_targets(tmp_path / "absent.csv")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    m, _, g, k_g = layer("lowest")
    table = programming_targets("fc1", g, m, Array(), k_g=k_g, input_voltage=K_V)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CalibError, match="it is a folder; give a file name"):
        write_targets(table, tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
