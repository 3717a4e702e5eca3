"""What the summary says about crossbars, tiles and digital parts."""

import pytest
import torch
from torch import nn

from calib import nn as memristive
from tests.simple_devices import everything, range_only


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 8)
        self.convolution = nn.Conv1d(8, 8, 3, groups=4)
        self.norm = nn.BatchNorm1d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)
        self.skipped = nn.MultiheadAttention(8, 2)
        self.rnn = nn.GRU(8, 5, bias=False)
        self.activation = nn.ReLU()
        self.mixed = nn.Bilinear(5, 5, 3)
        self.out = nn.Linear(300, 40)
        self.scale = nn.Parameter(torch.ones(2, 3))


ARRAY = memristive.Array(rows=128, columns=64)


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    network = memristive.convert(Model(), everything(), array=ARRAY, exclude="skipped")
    return {row["name"]: row for row in memristive.summary(network)}


def test_every_crossbar_has_a_row(rows) -> None:
    crossbars = {name: row for name, row in rows.items() if row["place"] == "memristive"}
    assert set(crossbars) == {
        *(f"convolution.crossbars.{k}" for k in range(4)),
        *(f"attention.{part}_projection" for part in ("q", "k", "v", "out")),
        "rnn.cells.0.input_crossbar",
        "rnn.cells.0.hidden_crossbar",
        "out",
    }
    assert {row["layer"]: row["kind"] for row in crossbars.values()} == {
        "convolution": "MemristiveConv1d",
        "attention": "MemristiveMultiheadAttention",
        "rnn": "MemristiveGRU",
        "out": "MemristiveLinear",
    }
    assert crossbars["rnn.cells.0.hidden_crossbar"]["digital"] == "gates and states"
    assert crossbars["out"]["digital"] is None


def test_sizes_and_utilisation_of_tiles(rows) -> None:
    row = rows["out"]
    assert (row["word_lines"], row["bit_lines"], row["outputs"], row["groups"]) == (301, 80, 40, 2)
    assert (row["devices"], row["synapses"], row["parameters"]) == (301 * 80, 301 * 40, 301 * 80)
    assert (row["tiles"], row["tile_rows"], row["tile_columns"]) == (3 * 2, 128, 64)
    assert row["utilisation"] == pytest.approx(301 * 80 / (6 * 128 * 64))
    assert (row["bias"], row["input_mode"], row["input_range"]) == ("line", "two-phase", 1.0)
    assert rows["rnn.cells.0.input_crossbar"]["bias"] is None
    assert rows["rnn.cells.0.input_crossbar"]["word_lines"] == 8
    assert row["device"] == "test device"
    assert len(row["effects"]) == 3
    assert 0 < row["interpolation_error"] < 1e-2
    assert row["array"][0] == "tiles of 128 word lines and 64 bit lines"


def test_an_array_without_limit_is_full() -> None:
    (row,) = memristive.summary(memristive.convert(nn.Linear(8, 4), range_only(), mapping="offset", bias="digital"))
    assert (row["name"], row["layer"], row["tiles"], row["utilisation"]) == ("", "", 1, 1.0)
    assert (row["word_lines"], row["bit_lines"], row["devices"], row["bias"]) == (8, 5, 40, "digital")
    assert row["parameters"] == 8 * 4 + 4


def test_what_stays_digital_says_why(rows) -> None:
    digital = {n: (r["kind"], r["parameters"], r["reason"]) for n, r in rows.items() if r["place"] == "digital"}
    attention = 4 * 64 + 4 * 8
    assert digital == {
        "": ("Model", 6, "weights that its own code uses"),
        "embedding": ("Embedding", 48, "looks rows up, no product"),
        "norm": ("BatchNorm1d", 16, "scales by statistics of its input"),
        "attention": ("MemristiveMultiheadAttention", 16, "weights that its own code uses"),
        "skipped": ("MultiheadAttention", attention, "was left out of the conversion"),
        "activation": ("ReLU", 0, "no weights"),
        "mixed": ("Bilinear", 78, "multiplies two inputs with each other"),
    }


def test_nothing_is_counted_twice_or_left_out(rows) -> None:
    network = memristive.convert(Model(), everything(), array=ARRAY, exclude="skipped")
    assert sum(row["parameters"] for row in rows.values()) == sum(p.numel() for p in network.parameters())


def test_the_table_can_be_read() -> None:
    network = memristive.convert(Model(), everything(), array=ARRAY, exclude="skipped")
    text = memristive.summary_text(network)
    lines = text.splitlines()
    assert lines[0].split()[:3] == ["name", "kind", "crossbars"]
    (line,) = [line for line in lines if line.startswith("convolution")]
    assert line.split()[:6] == ["convolution", "MemristiveConv1d", "4", "7", "x", "4"]
    (line,) = [line for line in lines if line.startswith("out ")]
    assert "301 x 80" in line
    assert "6 of 128 x 64" in line
    assert "49.0 %" in line
    assert sum("Digital:" in line for line in lines) == 1
    assert any("softmax" in line for line in lines)
    assert max(len(line) for line in lines) < 200


def test_a_network_that_is_not_converted_is_all_digital() -> None:
    rows = memristive.summary(nn.Sequential(nn.Linear(2, 2), nn.ConvTranspose1d(2, 2, 2), nn.PReLU()))
    assert [row["reason"] for row in rows] == [
        "was left out of the conversion", "a transposed convolution has no memristive form", "nonlinear",
    ]  # fmt: skip
    assert memristive.summary_text(nn.Sequential(nn.ReLU())).startswith("no memristive layers")


def test_notes_are_printed() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight, network[1].bias = network[0].weight, network[0].bias
    text = memristive.summary_text(memristive.convert(network, range_only()))
    assert "1: shares its weights with '0', on a crossbar of its own" in text.splitlines()
