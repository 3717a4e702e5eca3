import math
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgb

from calib import figure_style, figures
from tests.device_trees import full_device, part_of_device


def keys(tree: xr.DataTree) -> list[str]:
    return [key for key, _, _ in figures.device_figures(tree)]


def svg(tree: xr.DataTree, key: str) -> str:
    drawing = next(drawing for name, _, drawing in figures.device_figures(tree) if name == key)
    return figure_style.to_svg(drawing, key, "a description")


def test_every_characteristic_has_its_figure() -> None:
    assert keys(full_device()) == [
        "iv", "parameter-gamma", "resistance", "conductance", "programming", "stuck", "selection",
        "switching-voltages", "endurance", "cycles-marginals", "cycles-memory",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (("examples",), ["iv"]),
        (("iv",), ["iv", "parameter-gamma", "resistance"]),
        (("programming",), ["programming"]),
        (("stuck",), ["stuck"]),
        (("conductance",), ["conductance"]),
    ],
)
def test_what_is_absent_has_no_figure(nodes: tuple[str, ...], expected: list[str]) -> None:
    assert keys(part_of_device(*nodes)) == expected


def test_no_figure_without_stuck_devices_or_tables() -> None:
    tree = part_of_device("stuck", "conductance")
    tree["stuck"] = xr.DataTree(tree["stuck"].to_dataset().isel(stuck_device=[]))
    tree["conductance"] = xr.DataTree(tree["conductance"].to_dataset()[["g_off", "g_on"]])
    assert keys(tree) == []


def test_svg_is_deterministic_readable_and_dateless() -> None:
    first, second = (
        {
            key: figure_style.to_svg(drawing, key, "a description")
            for key, _, drawing in figures.device_figures(full_device())
        }
        for _ in range(2)
    )
    assert first == second
    for text in first.values():
        assert text.startswith("<svg")
        assert "<metadata" not in text
        assert "<title id=" in text
        assert "<text" in text  # text stays text
        assert "Verdana" in text


def test_axes_name_quantity_and_unit() -> None:
    labels = {
        key: (drawing.axes[0].get_xlabel(), drawing.axes[0].get_ylabel())
        for key, _, drawing in figures.device_figures(full_device())
    }
    assert labels["iv"] == ("|V| (V)", "|I| (A)")
    assert labels["resistance"] == ("R (Ω)", "curves below R (%)")
    assert labels["conductance"] == ("read voltage (V)", "conductance (S)")
    assert labels["parameter-gamma"][1] == "gamma (V$^{-1/2}$)"


def test_width_is_that_of_one_column_or_of_two() -> None:
    for key, _, drawing in figures.device_figures(full_device()):
        width = drawing.get_figwidth() * 25.4
        assert width == pytest.approx(85) or (
            key in ("selection", "cycles-marginals") and width == pytest.approx(175)
        ), key


def test_the_band_holds_the_law_and_reaches_the_end_of_the_window() -> None:
    tree = part_of_device("iv")
    drawing = figures.iv_figure(tree)
    assert drawing is not None
    axes = drawing.axes[0]
    law = next(line for line in axes.lines if line.get_label() == "lrs, law")
    band = next(part for part in axes.collections if part.get_label() == "lrs, 90 % band")
    outline = band.get_paths()[0].vertices
    for voltage, current in np.asarray(law.get_xydata())[::10]:
        here = outline[np.isclose(outline[:, 0], voltage), 1]
        assert here.min() < current < here.max()
    assert outline[:, 0].max() == pytest.approx(0.5)


def test_kernel_density_integrates_to_one_and_is_the_one_of_the_model() -> None:
    width = 2e-5
    g = np.linspace(0, 1e-3, 20001)
    density = figures.kernel_density(g, np.array([1e-5, 3e-4]), width)
    assert np.trapezoid(density, g) == pytest.approx(1, rel=1e-4)
    expected = 0.5 * (1 + math.exp(-0.5 * (2 * 3e-4 / width) ** 2)) / (width * math.sqrt(2 * math.pi))
    assert density[np.argmin(abs(g - 3e-4))] == pytest.approx(expected, rel=1e-6)


def test_names_with_dollars_are_not_mathematics() -> None:
    tree = full_device()
    for node in ("iv", "conductance", "programming"):
        tree[node] = xr.DataTree(tree[node].to_dataset().assign_coords(state=["$x", "a$b$_\\"]))
    examples = tree["examples"].to_dataset()
    examples["example_state"] = ("example", ["$x"] * examples.sizes["example"])
    tree["examples"] = xr.DataTree(examples)
    assert "$x, measured" in svg(tree, "iv")


def test_colours_are_told_apart_without_hue() -> None:
    def lightness(colour: str) -> float:
        return float(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)))

    assert abs(lightness(figure_style.COLOURS["lrs"]) - lightness(figure_style.COLOURS["hrs"])) > 0.02
    assert figure_style.MARKERS["lrs"] != figure_style.MARKERS["hrs"]
    assert figure_style.colour_of("level 3") == figure_style.colour_of("level 3")


def test_importing_calib_does_not_import_matplotlib() -> None:
    code = "import sys, calib, calib.exporters, calib.cli.card; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.device_figures(full_device())
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in vars(figures)
