"""Discrete levels, spread and line resistance on MNIST and Fashion-MNIST.

After 'Ultra-fast non-volatile resistive switching devices with over 512 distinct and stable levels for memory and
neuromorphic computing' (M. Xiao et al., Adv. Funct. Mater. 35 (29), 2025): networks that were trained in software are
mapped to pairs of devices that take 32 to 526 levels, in tiles of 128 x 64 devices whose word and bit lines have 0.35
and 0.32 Ohm a segment. The 32 levels and the spread of R between 25 devices are those of the bundled model
xiao2025-multilevel, fitted to the published measurements; larger numbers of levels are placed evenly over the same
range, in G or in ln R. Last comes what the published simulations leave out: the measured I-V curves.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from example_output import images_of, parser, percent, trained, write
from stated_device import stated_device

import calib
from calib import vision
from calib.errors import CalibError
from calib.evaluation import chip_performance
from calib.figure_style import CYCLE, figure
from calib.nn import Array, Devices
from calib.nonidealities.base import Nonideality
from calib.nonidealities.iv import IV
from calib.nonidealities.lognormal import Lognormal
from calib.nonidealities.quantise import Quantise
from calib.runs import Run
from calib.vision import ImageData

DEVICE = "xiao2025-multilevel"
LEVELS = (32, 128, 303, 370, 526)
LINES = "rows=128,columns=64,word_segment=0.35,bit_segment=0.32"
EFFECTS = ("levels", "levels, lines", "levels, spread", "levels, spread, lines", "levels, I-V curves")


def main(arguments: list[str] | None = None) -> int:
    """Train in software, map, write."""
    args = _arguments(arguments)
    fitted = calib.open_device(DEVICE)
    measured = Quantise.from_device(fitted)
    assert measured is not None
    low, high = measured.levels[0], measured.levels[-1]
    tree = stated_device("levels", low, high, source=f"lowest and highest level of {DEVICE}")
    bench = Bench(args, tree, Lognormal.from_device(fitted), IV.from_device(fitted))
    sets, rows, skipped = [], [], ""
    for name in args.sets:
        try:
            data = images_of(args) if args.quick or args.data else vision.load(name, data_folder=args.data_folder)
        except CalibError as error:
            skipped += f" {name} is skipped: {error}."
            continue
        sets.append(data)
        run = trained(tree, args.output / data.name, data, ideal=True, mapping="lowest", networks=args.networks,
                      epochs=args.epochs, seed=args.seed, validation_every=5)  # fmt: skip
        rows.append(bench.row(run, data, "ideal", None, "none"))
        for spacing, levels in _level_sets(args, measured, low, high):
            rows += [bench.row(run, data, spacing, levels, effects) for effects in EFFECTS]
    if not sets:
        raise CalibError(f"there are no images.{skipped}")
    return write(args, sets, rows, _figure(rows), _sentence(rows) + skipped)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--networks", type=int, help="trained networks (default 3)")
    made.add_argument("--chips", type=int, help="chips of each network where devices vary (default 10)")
    made.add_argument("--epochs", type=int, help="of training (default 10)")
    made.add_argument("--images", type=int, help="first test images, all by default")
    args = made.parse_args(arguments)
    usual = (1, 2, 20) if args.quick else (3, 10, 10)
    for name, value in zip(("networks", "chips", "epochs"), usual, strict=True):
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    args.sets = ["digits"] if args.quick else [args.data] if args.data else ["mnist", "fashion-mnist"]
    args.levels = LEVELS[:1] if args.quick else LEVELS
    return args


def _level_sets(args: argparse.Namespace, measured: Quantise, low: float, high: float) -> list[tuple[str, Quantise]]:
    even = [
        (f"even in {spacing}", Quantise.even(count, low, high, spacing))
        for spacing in ("G", "ln R")
        for count in args.levels
    ]
    return [("measured", measured), *even]


@dataclass(frozen=True)
class Bench:
    """Networks are mapped to devices of a conductance range, with some effects."""

    args: argparse.Namespace
    range_only: xr.DataTree
    spread: Nonideality | None
    curves: Nonideality | None

    def row(self, run: Run, data: ImageData, spacing: str, levels: Quantise | None, effects: str) -> dict[str, Any]:
        """Return the errors of all networks of a run."""
        args, chosen = self.args, {part.strip() for part in effects.split(",")}
        varies = {"spread", "I-V curves"} & chosen
        members = [levels, self.spread if "spread" in chosen else None, self.curves if "I-V curves" in chosen else None]
        devices = Devices.from_model(self.range_only, effects=[member for member in members if member is not None])
        array = Array.from_options(LINES if "lines" in chosen else None)
        images = torch.tensor(data.test_images[: args.images]), torch.tensor(data.test_labels[: args.images])
        errors = []
        for index in range(run.options.networks):
            network, chips = run.network(index, devices, array), range(args.chips if varies else 1)
            errors.append(1 - chip_performance(network, *images, seed=args.seed, chips=chips, power=False).accuracy)
        return {
            "images": data.name, "levels": len(levels.levels) if levels else "any", "spaced": spacing,
            "effects": effects, **percent(np.stack(errors)),
        }  # fmt: skip


def _sentence(rows: list[dict[str, Any]]) -> str:
    parts = []
    for images in dict.fromkeys(row["images"] for row in rows):
        own = [row for row in rows if row["images"] == images]
        found = {row["effects"]: row["error (%)"] for row in own if row["spaced"] in ("ideal", "measured")}
        most = max((row for row in own if row["spaced"] == "even in G"), key=lambda row: row["levels"])["levels"]
        many = {row["effects"]: row["error (%)"] for row in own
                if row["spaced"] == "even in G" and row["levels"] == most}  # fmt: skip
        parts.append(
            f"{images}: {found['none']:.2f} % in software; {found['levels']:.2f} % with the 32 measured levels, "
            f"{many['levels']:.2f} % with {most} even ones, {many['levels, lines']:.2f} % with line resistance, "
            f"{many['levels, spread']:.2f} % with the spread between devices, {many['levels, I-V curves']:.2f} % with "
            "the measured I-V curves."
        )
    return "Median errors, " + " ".join(parts)


def _figure(rows: list[dict[str, Any]]) -> Any:
    names = list(dict.fromkeys(row["images"] for row in rows))
    with figure(110.0 * len(names), 75.0) as drawing:
        for axes, name in zip(np.atleast_1d(drawing.subplots(1, len(names))), names, strict=True):
            own = [row for row in rows if row["images"] == name]
            counts = ["measured", *(f"{row['levels']}" for row in own
                                       if (row["spaced"], row["effects"]) == ("even in G", "levels"))]  # fmt: skip
            axes.axhline(own[0]["error (%)"], color="#1A1A1A", ls=":", label="in software")
            for index, effects in enumerate(EFFECTS):
                chosen = {spaced: [row["error (%)"] for row in own if (row["spaced"], row["effects"])
                          == (spaced, effects)] for spaced in ("measured", "even in G", "even in ln R")}  # fmt: skip
                at = range(1, len(counts))
                axes.plot([0], chosen["measured"], "D", color=CYCLE[index])
                axes.plot(at, chosen["even in G"], "o-", color=CYCLE[index], label=effects)
                axes.plot(at, chosen["even in ln R"], "s--", color=CYCLE[index], lw=0.8, mfc="none")
            axes.set_xticks(range(len(counts)), counts)
            axes.set_xlabel(f"levels, even in G (line) or in ln R (dashes); {name}")
            axes.set_ylabel("error (%)")
            axes.set_ylim(bottom=0)
            axes.locator_params(axis="y", nbins=6, integer=True)
        drawing.legend(*drawing.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return drawing


if __name__ == "__main__":
    raise SystemExit(main())
