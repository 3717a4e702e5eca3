"""Tiles, reading with converters, options."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.crossbar.array import OPTIONS, Array, Tile
from calib.crossbar.converters import Adc, Dac
from calib.crossbar.line_resistance import Lines, transfer_matrix
from calib.crossbar.mapping import mapping
from calib.errors import OptionError

FULL = Array(
    rows=128,
    columns=64,
    lines=Lines(0.35, 0.32, 10.0, 5.0, both_ends=True),
    dac=Dac(8),
    adc=Adc(6, "array", differential=False),
    input_mode="offset",
)


@given(
    word_lines=st.integers(1, 60),
    bit_lines=st.integers(1, 30),
    groups=st.sampled_from([1, 2, 4, 8]),
    rows=st.none() | st.integers(1, 40),
    columns=st.none() | st.integers(8, 40),
)
@settings(max_examples=80, deadline=None)
def test_tiles_hold_every_device_once(
    word_lines: int, bit_lines: int, groups: int, rows: int | None, columns: int | None
) -> None:
    array = Array(rows, columns)
    tiles = array.tiles(word_lines, bit_lines, groups)
    held = np.zeros((groups, word_lines, bit_lines), int)
    for tile in tiles:
        held[:, tile.rows, tile.outputs] += 1
        assert tile.used[0] <= tile.shape[0] == (rows or word_lines)
        assert tile.used[1] <= tile.shape[1] == (columns or bit_lines * groups)
        group, word_line, bit_line = np.meshgrid(
            np.arange(groups), np.arange(word_lines)[tile.rows], np.arange(bit_lines)[tile.outputs], indexing="ij"
        )
        row, column = tile.position(group, word_line, bit_line)
        assert row.min() == tile.first_row
        assert row.max() == tile.shape[0] - 1  # beside the sense amplifiers
        assert column.min() == 0
        assert column.max() == tile.used[1] - 1
        assert len(set(zip(row.ravel(), column.ravel(), strict=True))) == math.prod(tile.used)
        starts = tile.position(0, tile.rows.start, np.arange(bit_lines)[tile.outputs])[1]
        assert (starts % groups == 0).all()  # the groups of an output side by side
    assert (held == 1).all()
    assert [tile.index for tile in tiles] == list(range(len(tiles)))
    assert len(tiles) == (tiles[-1].row_block + 1) * (tiles[-1].column_block + 1)
    used = groups * word_lines * bit_lines
    expected = used / sum(math.prod(tile.shape) for tile in tiles)
    assert array.utilisation(word_lines, bit_lines, groups) == pytest.approx(expected)


def test_tiles_by_hand() -> None:
    tiles = Array(128, 64).tiles(785, 25)
    assert [(t.rows.start, t.rows.stop) for t in tiles] == [(128 * k, min(128 * k + 128, 785)) for k in range(7)]
    assert all(t.outputs == slice(0, 25) for t in tiles)
    assert len(set(tiles)) == 7
    assert tiles[-1].used == (17, 50)
    assert tiles[-1].first_row == 111
    assert Array(128, 64).utilisation(785, 25) == pytest.approx(785 * 50 / (7 * 128 * 64))
    odd = Array(10, 7).tiles(10, 7)  # three pairs fit, one column is left
    assert [(t.outputs.start, t.outputs.stop) for t in odd] == [(0, 3), (3, 6), (6, 7)]
    assert [len(Array().tiles(785, 25)), Array().utilisation(785, 25)] == [1, 1.0]
    assert Array().tiles(785, 25)[0].shape == (785, 50)


def test_columns_of_a_tile() -> None:
    g = torch.arange(2 * 5 * 4, dtype=torch.float64).reshape(2, 5, 4)
    tile = Array(3, 4).tiles(5, 4)[3]  # the second block of both
    assert (tile.rows, tile.outputs) == (slice(3, 5), slice(2, 4))
    held = tile.take(g)
    assert held.shape == (2, 4)
    for group in range(2):
        for word_line in (3, 4):
            for bit_line in (2, 3):
                row, column = tile.position(group, word_line, bit_line)
                assert held[row - tile.first_row, column] == g[group, word_line, bit_line]
    assert torch.equal(tile.split(held), g[:, 3:5, 2:4].transpose(0, 1))
    assert tile.take(torch.stack((g, 2 * g))).shape == (2, 2, 4)


@pytest.mark.parametrize("name", ["double", "average", "offset", "bit-slicing:slices=2,bits=2"])
@pytest.mark.parametrize(("rows", "columns"), [(None, None), (5, 8), (3, None), (None, 4), (100, 100)])
def test_ideal_tiles_add_up_to_the_product(name: str, rows: int | None, columns: int | None) -> None:
    m = mapping(name)
    stream = torch.Generator().manual_seed(0)
    w = torch.randn(m.weight_shape(12, 7), generator=stream, dtype=torch.float64)
    m.project(w)
    g, k_g = m.conductances(w, 1.0, 4.0)
    voltage = torch.rand((6, 13), generator=stream, dtype=torch.float64)
    array = Array(rows, columns)
    currents = torch.zeros((6, m.groups, m.bit_lines(7)), dtype=torch.float64)
    for tile in array.tiles(13, m.bit_lines(7), m.groups):
        out = voltage[:, tile.rows] @ tile.take(g)
        currents[..., tile.outputs] += tile.split(out)
    stands_for = m.weights(g, 1.0, k_g)
    torch.testing.assert_close(array.read(currents, m) / k_g, voltage @ m.to_signed(stands_for))


def test_reading_with_a_differential_converter() -> None:
    m, array = mapping("bit-slicing:slices=2,bits=2"), Array(adc=Adc(4, 1.0))
    currents = torch.rand((5, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = currents[:, 0] - currents[:, 1], currents[:, 2] - currents[:, 3]
    expected = array.adc.quantise(first) + 4 * array.adc.quantise(second)  # type: ignore[union-attr]
    torch.testing.assert_close(array.read(currents, m), expected)
    torch.testing.assert_close(array.converted(currents, m), torch.stack((first, second), 1))


def test_reading_every_bit_line() -> None:
    m, array = mapping("offset"), Array(adc=Adc(4, 1.0, differential=False))
    currents = torch.rand((5, 1, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes = (currents * 15).round() / 15
    torch.testing.assert_close(array.read(currents, m), 2 * (codes[:, 0, :-1] - codes[:, 0, -1:]))
    assert torch.equal(array.converted(currents, m), currents)


def test_range_given_when_reading() -> None:
    m, array = mapping("lowest"), Array(adc=Adc(5))
    currents = torch.rand((5, 2, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = array.adc.calibrate(array.converted(currents, m))  # type: ignore[union-attr]
    found = array.read(currents, m, scale)
    exact = currents[:, 0] - currents[:, 1]
    assert float((found - exact).abs().max()) <= float(scale) / 15 / 2 * (1 + 1e-9)


@pytest.mark.parametrize("adc", [None, Adc(), Adc(differential=False)])
def test_ideal_reading_is_the_combination(adc: Adc | None) -> None:
    m = mapping("bit-slicing:slices=3,bits=2")
    currents = torch.rand((5, 6, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(Array(adc=adc).read(currents, m), m.combine(currents))


def test_converters_know_the_signs_of_what_they_convert() -> None:
    voltage = Array(dac=Dac(8), adc=Adc(8, differential=False), input_mode="voltage")
    assert voltage.dac == Dac(8, signed=True)
    assert voltage.adc == Adc(8, differential=False, signed=True)
    back = replace(voltage, input_mode="two-phase")
    assert back.dac == Dac(8)
    assert back.adc == Adc(8, differential=False, signed=False)
    assert Array(adc=Adc(8), input_mode="voltage").adc == Adc(8)
    with pytest.raises(OptionError, match="the DAC of signed values has 1 bits"):
        Array(dac=Dac(1), input_mode="voltage")


def test_effects() -> None:
    assert Array(128, 64).ideal
    assert Array(adc=Adc(), dac=Dac()).ideal
    assert FULL.effects == ("line resistance", "drivers", "DAC", "ADC")
    for effect in FULL.effects:
        assert FULL.only(effect).effects == (effect,)
        assert set(FULL.without(effect).effects) == set(FULL.effects) - {effect}
        assert (FULL.without(effect).rows, FULL.without(effect).columns) == (128, 64)
    assert FULL.without(*FULL.effects).ideal
    assert FULL.only().ideal
    assert FULL.only(*FULL.effects) == FULL
    with pytest.raises(OptionError, match="an array has no effect 'noise'; expected one of line resistance, drivers"):
        FULL.without("noise")
    with pytest.raises(OptionError, match="no effect 'noise'"):
        FULL.only("noise")


@pytest.mark.parametrize(
    "array",
    [
        Array(),
        FULL,
        Array(64, input_mode="voltage"),
        Array(adc=Adc(5, quantile=0.999), dac=Dac(3)),
        Array(adc=Adc(5, 1.3e-6, differential=False, quantile=1.0)),
        Array(lines=Lines(word_segment=1.0)),
    ],
)
def test_options_round_trip(array: Array) -> None:
    options = array.to_options()
    assert set(options) <= set(OPTIONS)
    assert Array.from_options(options) == array
    assert Array.from_options(",".join(f"{k}={v}" for k, v in options.items())) == array
    assert Array.from_options(array) is array


@given(share=st.floats(0.001, 1.0))
@settings(max_examples=50, deadline=None)
def test_shares_round_trip(share: float) -> None:
    array = Array(adc=Adc(5, quantile=share))
    assert Array.from_options(array.to_options()) == array


def test_options() -> None:
    text = "rows=128, columns=64, word-segment=0.35, bit_segment=0.32, dac_bits=8, adc_bits=6, adc_range=99.9%"
    expected = Array(128, 64, Lines(0.35, 0.32), Dac(8), Adc(6, quantile=0.999))
    assert Array.from_options(text) == expected
    given = {"rows": 128.0, "columns": None, "both_ends": True, "adc_bits": 6, "adc_range": "array"}
    assert Array.from_options(given) == Array(128, lines=Lines(both_ends=True), adc=Adc(6, "array"))
    assert Array.from_options("adc_bits=4,adc_range=2e-6,adc_mode=single-ended").adc == Adc(4, 2e-6, False)
    assert Array.from_options("adc_bits=4,adc_range=calibrated").adc == Adc(4)
    assert Array.from_options(None) == Array.from_options("") == Array()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "rows=ten,colums=5",
            "rows is 'ten'; expected a whole number; there is no option 'colums'; did you mean columns",
        ),
        ("rows=1.5", "rows is '1.5'; expected a whole number"),
        ("rows=inf", "rows is 'inf'; expected a whole number"),
        ("rows=0", "an array has 0 rows; expected a whole number from 1"),
        ("rows", "the array was given 'rows'; expected option=value"),
        ("rows=1,rows=2", "given 'rows' twice"),
        ("temperature=3", "there is no option 'temperature'; expected rows, columns"),
        ("both_ends=maybe", "both_ends is 'maybe'; expected true or false"),
        ("driver=-1", "the resistance driver of the lines is -1.0 Ohm"),
        ("driver=low", "driver is 'low'; expected a resistance in Ohm"),
        ("adc_range=array", "give adc_bits too"),
        ("adc_bits=8,adc_range=most", "adc_range is 'most'; expected a current in A"),
        ("adc_bits=8,adc_range=x%", "adc_range is 'x%'; expected a current in A"),
        ("adc_bits=8,adc_range=120%", "a share of 1.2 of the currents"),
        ("adc_bits=8,adc_mode=both", "adc_mode is 'both'; expected differential or single-ended"),
        ("input_mode=ac", "input_mode is 'ac'; expected two-phase, voltage, offset"),
        ({"rows": True}, "rows is 'True'; expected a whole number"),
    ],
)
def test_bad_options(given: str | dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Array.from_options(given)


def test_bad_arrays() -> None:
    with pytest.raises(OptionError, match="there is no input mode 'ac'; expected one of two-phase, voltage, offset"):
        Array(input_mode="ac")
    with pytest.raises(OptionError, match="an array has 2.5 columns"):
        Array(columns=2.5)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="3 columns cannot hold the 8 bit lines of one output side by side"):
        Array(columns=3).tiles(10, 10, mapping("bit-slicing").groups)


def test_description() -> None:
    text = "; ".join(FULL.describe())
    for part in (
        "128 word lines and 64 bit lines",
        "0.35 Ohm (word)",
        "0.32 Ohm (bit)",
        "drivers of 10 Ohm",
        "both ends",
        "inputs of 8 bits",
        "6 bits, converted of every bit line",
        "largest current",
        "signed inputs: offset",
    ):
        assert part in text
    assert Array().describe() == ["one array of any size", "signed inputs: two-phase"]
    assert "any number of bit lines" in Array(rows=5).describe()[0]
    assert "holding 99 % of the currents" in "".join(Array(adc=Adc(4, quantile=0.99)).describe())
    assert "range 1e-06 A" in "".join(Array(adc=Adc(4, 1e-6)).describe())


def test_a_tile_that_is_not_full_behaves_as_one_of_the_used_size() -> None:
    """Empty rows before and empty columns after the devices change no current."""
    lines = Lines(0.5, 0.4, 20.0, 10.0)
    tile: Tile = Array(8, 6, lines).tiles(5, 2)[0]
    stream = torch.Generator().manual_seed(0)
    g = 1e-4 + 1e-3 * torch.rand((2, 5, 2), generator=stream, dtype=torch.float64)
    voltage = torch.rand((3, 5), generator=stream, dtype=torch.float64)
    whole, applied = torch.zeros(tile.shape, dtype=torch.float64), torch.zeros((3, 8), dtype=torch.float64)
    whole[tile.first_row :, : tile.used[1]] = tile.take(g)
    applied[:, tile.first_row :] = voltage
    expected = applied @ transfer_matrix(whole, lines)
    found = voltage @ transfer_matrix(tile.take(g), lines)
    torch.testing.assert_close(found, expected[:, : tile.used[1]], rtol=1e-10, atol=0)
    assert float(expected[:, tile.used[1] :].abs().max()) < 1e-18
