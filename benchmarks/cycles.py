"""States per second of the generative switching model: ``python benchmarks/cycles.py [--threads 2]``.

A state is one cycle of one device: all four features (two resistances, two switching voltages), with memory of one
cycle, device effects and quantile tables. Wall time and processor time are both given: on a machine that is shared
the second says what two free cores would do.
"""

import argparse
import statistics
import time

import numpy as np
import xarray as xr

from calib.cycle_sampling import sample_cycles, score_grid

FEATURES = ("ln_r_hrs", "ln_r_lrs", "v_set", "v_reset")


def model(order: int, features: int, classes: int = 1) -> xr.Dataset:
    """Return a cycles node with made-up numbers: skewed tables, memory, correlation and device effects."""
    names = list(FEATURES[:features])
    one = np.eye(features)
    score = score_grid()
    tables = np.stack(
        [np.stack([12 + k + score + 0.05 * score**3 + j for k in range(features)]) for j in range(classes)]
    )
    mixed = 0.2 * np.ones((features, features)) + 0.8 * one
    ff = ("feature", "feature_other")
    return xr.Dataset(
        {
            "memory": (("lag", *ff), np.stack([0.4 * one / (k + 1) for k in range(max(order, 1))])),
            "innovation": (ff, 0.5 * mixed),
            "between": (ff, 0.4 * mixed),
            "table": (("class", "feature", "grid"), tables),
            "class_weight": ("class", np.full(classes, 1 / classes)),
        },
        coords={"feature": names, "feature_other": names},
        attrs={"order": order},
    )


def main() -> None:
    """Print states per second for a few models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--devices", type=int, default=65536)
    parser.add_argument("--cycles", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    states = arguments.devices * arguments.cycles
    print(f"{arguments.devices} devices x {arguments.cycles} cycles, {arguments.threads} threads, median of "
          f"{arguments.repeats}")  # fmt: skip
    print(f"{'model':<44}{'states/s (wall)':>18}{'per processor second':>22}")
    for order, features, classes in ((1, 4, 1), (1, 4, 2), (0, 4, 1), (3, 4, 1), (1, 2, 1)):
        node = model(order, features, classes)
        wall, busy = [], []
        for repeat in range(arguments.repeats + 1):
            start, cpu = time.perf_counter(), time.process_time()
            sample_cycles(node, arguments.devices, arguments.cycles, np.random.default_rng(repeat),
                          threads=arguments.threads)  # fmt: skip
            if repeat:
                wall.append(time.perf_counter() - start)
                busy.append(time.process_time() - cpu)
        name = f"{features} features, memory {order}, {classes} class{'es' if classes > 1 else ''}"
        rates = states / statistics.median(wall), states / statistics.median(busy)
        print(f"{name:<44}{rates[0]:>18.3g}{rates[1]:>22.3g}")


if __name__ == "__main__":
    main()
