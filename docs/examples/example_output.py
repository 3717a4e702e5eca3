"""What the examples of related systems have in common: options, images, trained networks and written files."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

import calib
from calib import figure_files, files, runs, vision
from calib.runs import Run
from calib.vision import ImageData

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def parser(description: str | None, *, dataset: str = "mnist") -> argparse.ArgumentParser:
    """Return a parser with the options that all examples have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder for everything written")
    made.add_argument("--quick", action="store_true", help="handwritten digits and small numbers: seconds")
    made.add_argument("--data", default=None, metavar="NAME", help=f"images (default {dataset}; with --quick digits)")
    made.add_argument("--data-folder", metavar="DIR", help="where the files of the images are (default: CALIB_DATA)")
    made.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    made.set_defaults(dataset=dataset)
    return made


def images_of(args: argparse.Namespace) -> ImageData:
    """Return the images that were asked for."""
    return vision.load(args.data or ("digits" if args.quick else args.dataset), data_folder=args.data_folder)


def trained(device: str | xr.DataTree, folder: Path, data: ImageData, **options: Any) -> Run:
    """Train networks, or go on with a run that was begun in the folder."""
    begun = (folder / "run.json").exists()
    return calib.train(device, output=folder, dataset=data, resume=begun, **options)


def percent(errors: Any) -> dict[str, float]:
    """Return median and the 5 and 95 % quantiles of errors, in per cent."""
    low, median, high = (100 * float(np.quantile(np.asarray(errors), q)) for q in (0.05, 0.5, 0.95))
    return {"error (%)": round(median, 3), "5 % of chips": round(low, 3), "95 % of chips": round(high, 3)}


def write(
    args: argparse.Namespace,
    data: ImageData | Sequence[ImageData],
    rows: list[dict[str, Any]],
    figure: "Figure",
    sentence: str,
) -> int:
    """Write table.csv, table.json (with options, versions and images) and figure.svg, and print table and result."""
    folder = args.output
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [",".join(_cell(row.get(key, "")) for key in columns) for row in rows]
    files.write_text(folder / "table.csv", "\n".join([",".join(map(_cell, columns)), *lines]) + "\n")
    options = {key: value for key, value in vars(args).items() if key not in ("output", "data_folder", "dataset")}
    sets = [data] if isinstance(data, ImageData) else data
    record = {
        "result": sentence,
        "rows": rows,
        "options": options,
        "images": [{"name": item.name, "source": item.source, "sha256": item.sha256} for item in sets],
        "versions": runs.versions(),
    }
    files.write_text(folder / "table.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    figure_files.write(figure, folder / "figure.svg")
    widths = [max(len(_shown(row.get(key, ""))) for row in [dict.fromkeys([key], key), *rows]) for key in columns]
    for row in [{key: key for key in columns}, *rows]:
        print("  ".join(_shown(row.get(key, "")).ljust(width) for key, width in zip(columns, widths, strict=True)))
    print(f"\n{sentence}")
    return 0


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text
