"""Train and evaluate what docs/pareto.md shows, and put its tables there: ``python docs/pareto.py FOLDER MNIST``.

FOLDER holds a front for every row; what it has already is not repeated. All of it takes some 40 minutes of one core.
"""

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import calib
from calib import paired, pareto_front, runs, vision
from calib.crossbar.array import Array
from calib.crossbar.layers import memristive_layers
from calib.effects import IV_SPREAD, Hardware
from calib.evaluation import chip_performance, error_and_energy, network_on
from calib.pareto_figure import pareto_figure
from calib.runs import Run

PAGE = Path(__file__).with_name("pareto.md")
DEVICE = "siox-high-resistance"
TARGET = 530.0
FRONT = (5.0, 10.0, 17.0, 20.0, 25.0, 40.0, 60.0)
HALF_VOLT = {"hidden_voltage": 0.5}
DIGITAL = {**HALF_VOLT, "bias": "digital"}
WAYS = (
    ("front", "hidden layer at 0.1 V, biases on devices", FRONT, {}),
    ("digital", "all at 0.5 V, digital biases", (20.0, 25.0), DIGITAL),
    ("half-volt", "all at 0.5 V, biases on devices", (25.0,), HALF_VOLT),
)
LOOKED_AT = {"front": 20.0, "digital": 20.0, "half-volt": 25.0}
"""Weights of the networks that are looked at more closely, by way."""
CHIPS = 10
BITS = (0, 8, 6, 5, 4)
SHORT = {"epochs": 8}
CHANGES = (
    ("recipe", "the recipe", {}),
    ("half-volt", "hidden layer at 0.5 V", HALF_VOLT),
    ("hidden-0.2", "hidden layer at 0.2 V", {"hidden_voltage": 0.2}),
    ("hidden-0.05", "hidden layer at 0.05 V", {"hidden_voltage": 0.05}),
    ("digital", "hidden layer at 0.5 V, digital biases", DIGITAL),
    ("both", "hidden layer at 0.1 V, digital biases", {"bias": "digital"}),
    ("devices", "drawn devices in place of moments", {"variation": "devices"}),
    ("largest", "largest weight sets the scale (rate 0.01)", {"scale": "largest", "learning_rate": 0.01}),
    ("double", "double mapping in place of lowest", {"mapping": "double"}),
    ("average", "exponential average of the weights, 0.99", {"average": "exponential:0.99"}),
)


def trained(folder: Path, mnist: Path) -> tuple[dict[str, xr.Dataset], dict[str, xr.Dataset]]:
    """Return the fronts, and the fronts of one weight that each change of the recipe has."""

    def front(name: str, weights: tuple[float, ...], **options: Any) -> xr.Dataset:
        def told(n: int, text: str) -> None:
            print(f"\r{name}: {text:<90}", end="", file=sys.stderr, flush=True)

        return calib.pareto(
            DEVICE, output=folder / name, dataset="mnist", data_folder=mnist, weights=weights, progress=told, **options
        )

    fronts = {name: front(name, weights, **options) for name, _, weights, options in WAYS}
    changes = {
        name: front(f"short-{name}", (25.0,), networks=3, chips=10, **{**SHORT, **options})
        for name, _, options in CHANGES
    }
    return fronts, changes


def ways_table(fronts: Mapping[str, xr.Dataset]) -> str:
    """Return a row for every weight of every way."""
    lines = ["| networks | weight | median test error, 95 % interval | mean | TOPs/W | energy |", "|" + "---|" * 6]
    for name, title, _, _ in WAYS:
        for row in pareto_front.rows(fronts[name]):
            lines.append(f"| {title} | {row['weight']:g} | {_numbers(row)} | {1e12 * row['energy_joule']:.1f} pJ |")
    lines += ["| published, aware | | 9.1 % | | 234 | |", "| published, aware + L1 | | 7.1 % | | 381 | |"]
    return "\n".join(lines)


def changes_table(changes: Mapping[str, xr.Dataset]) -> str:
    """Return a row for every change, with the difference from the recipe on the same networks and chips."""
    lines = [
        "| training | median test error, 95 % interval | mean | TOPs/W | difference of the mean error on validation "
        "images, points |",
        "|" + "---|" * 5,
    ]
    base = changes["recipe"]["validation_error"].values[0]
    for name, title, _ in CHANGES:
        (row,) = pareto_front.rows(changes[name])
        found = paired.mean(100 * (changes[name]["validation_error"].values[0] - base))
        difference = "" if name == "recipe" else f"{found.value:+.2f} +- {found.half:.2f}"
        lines.append(f"| {title} | {_numbers(row)} | {difference} |")
    return "\n".join(lines)


def _numbers(row: Mapping[str, Any]) -> str:
    def interval(key: str, digits: int) -> str:
        return f"({row[f'{key}_low']:.{digits}f} to {row[f'{key}_high']:.{digits}f})"

    return (
        f"{row['error_median_percent']:.2f} % {interval('error_median_percent', 2)} | {row['error_mean_percent']:.2f} %"
        f" | {row['efficiency_tops_per_watt']:.0f} {interval('efficiency_tops_per_watt', 0)}"
    )


def runs_of(folder: Path) -> dict[str, Run]:
    """Return the run of each way that what remains and the converters are looked at on."""
    places = {name: pareto_front.folder_of(folder / name, weight) for name, weight in LOOKED_AT.items()}
    return {name: runs.open_run(place) for name, place in places.items()}


def layers_table(found: Mapping[str, Run], mnist: Path) -> str:
    """Return errors with the spread of the law in some layers only: the chips of the front, the first ten."""
    data = vision.load("mnist", data_folder=mnist)
    images, labels = torch.tensor(data.test_images), torch.tensor(data.test_labels)
    spreads = {"both layers": (), "the first layer": (1,), "the second layer": (0,), "no layer": (0, 1)}
    lines = _head("spread of the law in", found)
    for title, without in spreads.items():
        cells = []
        for run in found.values():
            errors = []
            for network in range(run.options.networks):
                model = run.network(network, run.devices())
                layers = memristive_layers(model)
                for index in without:
                    layers[index].devices = Hardware(layers[index].devices, run.array()).without(IV_SPREAD).devices
                errors.append(1 - chip_performance(model, images, labels, seed=0, chips=range(CHIPS)).accuracy)
            values = 100 * np.array(errors)
            cells.append(f"{np.median(values):.2f} %, {values.max():.1f} %")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def converters_table(found: Mapping[str, Run], mnist: Path) -> str:
    """Return errors with ADCs of several resolutions, and the range [A] of each layer's."""
    data = vision.load("mnist", data_folder=mnist)
    sample = torch.tensor(data.train_images[:500])
    lines = _head("ADC", found)
    for bits in BITS:
        cells = []
        for run in found.values():
            array = Array.from_options(f"adc_bits={bits},adc_range=99.9%" if bits else "")
            hardware = Hardware(run.devices(), array)
            error, _ = error_and_energy(run, hardware, data, seed=0, chips=CHIPS, read_time=50e-9)
            cells.append(f"{100 * np.median(error):.2f} %")
        lines.append(f"| {f'{bits} bits' if bits else 'ideal'} | " + " | ".join(cells) + " |")
    cells = []
    for run in found.values():
        hardware = Hardware(run.devices(), Array.from_options("adc_bits=8,adc_range=99.9%"))
        layers = memristive_layers(network_on(run, 0, hardware, sample))
        cells.append(" and ".join(f"{1e9 * float(layer.adc_range.max()):.0f} nA" for layer in layers))
    lines.append("| range of the first and the second layer's ADC | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _head(first: str, found: Mapping[str, Run]) -> list[str]:
    titles = {name: title for name, title, *_ in WAYS}
    return [f"| {first} | " + " | ".join(titles[name] for name in found) + " |", "|---|" + "---|" * len(found)]


def chosen(fronts: Mapping[str, xr.Dataset]) -> str:
    """Return the point of each way that validation names, in a sentence."""
    parts = []
    for name, title, _, _ in WAYS:
        weight = pareto_front.best(fronts[name], TARGET)
        if weight is not None:
            row = next(row for row in pareto_front.rows(fronts[name]) if row["weight"] == weight)
            worst = 100 * float(np.max(fronts[name].sel(weight=weight)["error"]))
            parts.append(
                f"{title}: weight {weight:g}, {row['error_median_percent']:.2f} % at "
                f"{row['efficiency_tops_per_watt']:.0f} TOPs/W, worst chip {worst:.1f} %"
            )
    text = f"Chosen on validation with at least {TARGET:g} TOPs/W there: {'; '.join(parts)}."
    return textwrap.fill(text, 119)


def page(text: str, tables: Mapping[str, str]) -> str:
    """Return the page with its tables replaced."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        assert -1 < text.find(begin) < text.find(end), f"{PAGE.name} has the lines {begin} and {end}"
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    output, mnist_folder = map(Path, sys.argv[1:])
    points, short = trained(output, mnist_folder)
    closer = runs_of(output)
    tables = {
        "front": f"{ways_table(points)}\n\n{chosen(points)}",
        "changes": changes_table(short),
        "layers": layers_table(closer, mnist_folder),
        "converters": converters_table(closer, mnist_folder),
    }
    print("", *tables.values(), sep="\n\n")
    pareto_figure(points["front"]).savefig(PAGE.parent / "images" / "pareto.svg")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
