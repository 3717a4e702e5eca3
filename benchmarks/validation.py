"""Cross-fitted validation of the real measurements: ``python benchmarks/validation.py FOLDER [--seeds 20]``.

Devices are split at random into halves; a model of one half is compared with the other. Printed per data set: the mean
coverage of the 50 and 90 % predictive intervals of the current, the 95 % interval of a perfect model with as many
devices, the coverage of whole curves with the same, the interval score of the 90 % interval relative to that of the
fitted devices' empirical quantiles, and in how many splits a distance is larger than chance.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import calib
from calib import validation
from calib.errors import CalibError

SETS: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    ("ddas04", "ddas04-rram/100devices.xlsx", {}, {"population": "devices"}),
    ("xiao2025", "xiao2025-multilevel/uniformity-data.xlsx", {}, {}),
    ("radway", "radway-1t1r/read_multivolt.tsv", {"columns": "device=0,current=1,voltage=2"}, {}),
    ("radway 100cyc", "radway-1t1r/100cyc.tsv",
     {"columns": "device=0,resistance_lrs=1,resistance_hrs=2,cycle=3"}, {}),
    ("levy-relaxation", "levy-relaxation/relaxdata.min.tsv.gz",
     {"columns": "device=0,time=1,conductance=3,level=5"}, {}),
)  # fmt: skip


def split(measurement: xr.DataTree, population: str | None, seed: int) -> tuple[dict[str, xr.Dataset], ...]:
    """Return the nodes of one population, halved by device."""
    halves: tuple[dict[str, xr.Dataset], ...] = ({}, {})
    for name, dim in (("iv", "sweep"), ("reads", "trace")):
        if name not in measurement.children:
            continue
        node = measurement[name].to_dataset()
        if population is not None:
            node = node.isel({dim: np.flatnonzero(node["population"].values == population)})
        if not node.sizes[dim]:
            continue
        for half, mask in zip(halves, validation.split_devices(node, 0.5, seed), strict=True):
            half[name] = node.isel({dim: np.flatnonzero(mask)})
    return halves


def cross_fit(
    measurement: xr.DataTree, population: str | None, seeds: Sequence[int], **options: Any
) -> list[xr.Dataset]:
    """Return the validation node of each split."""
    found = []
    for seed in seeds:
        kept, held = split(measurement, population, seed)
        half = xr.DataTree.from_dict({f"/{name}": node for name, node in kept.items()})
        half.attrs = dict(measurement.attrs)
        found.append(validation.validate_nodes(calib.fit(half, **options), held, seed, kept))
    return found


def row(name: str, nodes: list[xr.Dataset], seconds: float) -> None:
    """Print one data set's row, and one for each state and each other comparison."""

    def mean(get: Any) -> float:
        return float(np.nanmean([get(node) for node in nodes]))

    bound = np.mean([node["coverage_bound"].sel(level=0.9).values for node in nodes], axis=0)
    half, most = (mean(lambda n, level=level: float(n["coverage"].sel(level=level))) for level in (0.5, 0.9))
    inside = "inside" if bound[0] <= most <= bound[1] else "OUTSIDE"
    ratios = [float(n["interval_score_ratio"].sel(level=0.9)) for n in nodes if "interval_score_ratio" in n]
    ratio = float(np.mean(ratios)) if ratios else float("nan")
    rejected = mean(lambda n: 2 * n.sizes["comparison"] * float(np.minimum(n["ks_p"], n["wasserstein_p"]).min()) < 0.05)
    print(
        f"{name:16s} 50 %: {half:.3f}   90 %: {most:.3f} {inside} {bound[0]:.3f} to {bound[1]:.3f}   "
        f"score ratio {ratio:.3f}   distances beyond chance in {rejected:.0%}   {seconds:.0f} s"
    )
    if "coverage_curve" in nodes[0]:
        for state in map(str, nodes[0]["state"].values):
            here = [n.sel(level=0.9, state=state) for n in nodes if state in n["state"].values]
            low, high = np.mean([h["coverage_curve_bound"].values for h in here], axis=0)
            points, curves = (np.mean([float(h[key]) for h in here]) for key in ("coverage_state", "coverage_curve"))
            print(f"{'':16s}   {state}: points {points:.3f}, whole curves {curves:.3f} ({low:.3f} to {high:.3f})")
    seen: dict[tuple[str, str, str], list[tuple[float, ...]]] = {}
    for node in nodes:
        for k in range(node.sizes["comparison"]):
            quantity, state, at = (str(node[f"comparison_{part}"].values[k]) for part in ("quantity", "state", "at"))
            low, high = node["comparison_coverage_bound"].sel(level=0.9).values[k]
            seen.setdefault((quantity, state, at), []).append((
                float(node["comparison_coverage"].sel(level=0.9).values[k]), low, high, float(node["ks_p"].values[k]),
                float(node["wasserstein_p"].values[k]),
            ))  # fmt: skip
    for (quantity, state, at), values in seen.items():
        covered, low, high, ks, moved = np.mean(values, axis=0)
        print(
            f"{'':16s}   {quantity} {state} {at}: 90 % covers {covered:.3f} ({low:.3f} to {high:.3f}), "
            f"mean p: KS {ks:.2f}, Wasserstein {moved:.2f}"
        )


def main() -> None:
    """Read, split, fit, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="the folder of raw measurements")
    parser.add_argument("--seeds", type=int, default=20, help="number of random splits (default 20)")
    parser.add_argument("--iv-model", default="auto", help="conduction law of the sweeps (default auto, in each half)")
    parser.add_argument("--only", help="name of one data set")
    args = parser.parse_args()
    for name, file, reading, options in SETS:
        if args.only and args.only != name:
            continue
        begin = time.monotonic()
        try:
            measurement = calib.read(args.folder / file, **reading)
            nodes = cross_fit(measurement, options.get("population"), range(args.seeds), iv_model=args.iv_model)
        except CalibError as error:
            print(f"{name:16s} not validated: {error}")
            continue
        row(name, nodes, time.monotonic() - begin)


if __name__ == "__main__":
    main()
