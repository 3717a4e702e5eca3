"""Tables of target conductances of whole networks, and a chip that is programmed with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from calib import nn as memristive
from calib.crossbar.targets import bit_lines, outputs, read_targets, voltages
from calib.errors import OptionError
from tests.simple_devices import range_only


@pytest.mark.parametrize("bias", ["line", "digital"])
def test_a_chip_programmed_with_the_files_gives_the_outputs(bias: str, tmp_path: Path) -> None:
    """Plain numpy with the conductances of the csv files, ideal devices: layer by layer the network's outputs."""
    network = nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)).double()
    array = memristive.Array(rows=4, columns=6)
    x = torch.rand(7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    converted = memristive.convert(network, range_only(), array=array, bias=bias, calibrate=x)
    paths = memristive.write_programming_targets(converted, tmp_path)
    assert [path.name for path in paths] == ["0-0.csv", "1-2.csv"]
    value = x.numpy()
    for index, path in enumerate(paths):
        table = read_targets(path)
        applied = voltages(table, value)
        currents = {}
        for tile, part in table.groupby("tile"):
            for column, devices in part.groupby("column"):
                lines = devices["word_line"].to_numpy(int)
                currents[tile, column] = applied[:, lines] @ devices["conductance"].to_numpy(float)
        value = outputs(table, stacked(currents, table))
        value = 1 / (1 + np.exp(-value)) if index == 0 else value
    np.testing.assert_allclose(value, converted(x).detach().numpy(), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(value, network(x).detach().numpy(), rtol=1e-6, atol=1e-7)


def stacked(currents: dict, table) -> np.ndarray:
    """Return currents in the order of the table's bit lines."""
    return np.stack([currents[row.tile, row.column] for row in bit_lines(table).itertuples()], axis=-1)


def test_levels_of_the_device_model_stand_beside_the_targets() -> None:
    layer = memristive.convert(nn.Linear(3, 2), "xiao2025-multilevel", input_voltage=0.1)
    (table,) = memristive.programming_targets(layer).values()
    assert {"level", "level_conductance"} <= set(table.columns)
    spacing = np.abs(table["level_conductance"] / table["conductance"] - 1)
    assert float(spacing.median()) < 0.2


def test_a_network_without_memristive_layers_is_refused() -> None:
    with pytest.raises(OptionError, match="has no memristive layer"):
        memristive.programming_targets(nn.Sigmoid())
