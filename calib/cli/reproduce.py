"""`calib reproduce`: published results, obtained again."""

import argparse
import sys

from calib.cli import console, print_json

name = "reproduce"
summary = "obtain published results again and set ours beside them"
example = "calib reproduce joksas2022 -o reproduction --quick"

PAPERS = ("joksas2022",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("paper", choices=PAPERS, help="Joksas et al., Adv. Sci. 9, 2105784 (2022)")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="DIR",
        help="folder for networks, results.nc, table.csv, report.html and figures; one that was begun is continued",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one network, 10 draws and 15 epochs with Adam instead of the paper's 5, "
        "25 and 1000 with SGD"
    )  # fmt: skip
    parser.add_argument(
        "--redraw",
        choices=["batch", "chip", "both"],
        default="both",
        help="draw devices for every 100 test images, as published, once a chip, or both side by side (default)",
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="folder with MNIST and, if wanted, CIFAR-10; or an .npz file to try the chain",
    )
    parser.add_argument("--networks", type=int, help="trained for each training (default 5)")
    parser.add_argument("--epochs", type=int, help="of each training (default 1000)")
    parser.add_argument("--chips", type=int, help="draws of devices for each network and set-up (default 25)")
    parser.add_argument(
        "--jobs",
        type=int,
        help="trainings side by side, each on one thread (default: the processor's cores, at most 4)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    parser.add_argument(
        "--only",
        metavar="EXPERIMENT,...",
        help="siox, stuck-off, stuck-on, lognormal, validation, ta-hfo2, covariance, cifar-10, matrix (default: all; "
        "CIFAR-10 is downloaded only where it is named here)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print an object with the keys output, protocol and rows, a list of objects with the keys experiment, "
        "training, setup, redraw, error_median, error_median_low and error_median_high (95 %% interval), error_low and "
        "error_high (5 and 95 %% of the draws), efficiency_tops_per_watt, energy_per_inference_joule, "
        "published_error_low, published_error_high, published_efficiency_tops_per_watt, error_difference (null where "
        "nothing was published), calibrated, assumed",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the experiments and print the tables."""
    from calib.reproduction.report import lead, notes, section
    from calib.reproduction.results import plain_rows, rows
    from calib.reproduction.runner import amount, reproduce
    from calib.reproduction.settings import settings
    from calib.reproduction.side_by_side import usual_jobs

    chosen = settings(quick=args.quick, networks=args.networks, epochs=args.epochs, chips=args.chips, seed=args.seed)
    jobs = usual_jobs() if args.jobs is None else args.jobs
    only = [part.strip() for part in args.only.split(",")] if args.only else None
    try:
        with console.progress(amount(chosen, args.redraw, only, args.data), "reproducing") as advance:
            found = reproduce(
                args.output, settings=chosen, redraw=args.redraw, data=args.data, only=only, jobs=jobs, progress=advance
            )
    except KeyboardInterrupt:
        console.note("whole epochs and evaluations are kept; give the same command again to continue")
        raise
    experiments = found.attrs["experiments"].split(",")
    listed = rows(found, experiments)
    if args.json:
        print_json({"output": args.output, "protocol": found.attrs["protocol"], "rows": plain_rows(listed)})
        return 0
    for experiment in experiments:
        if experiment != "matrix":
            console.section(section(found, listed, experiment))
    for sentence in notes(found):
        console.text(sentence)
    console.text(f"{lead(found, listed)}.")
    console.text(f"written: {args.output}/report.html, table.csv, results.nc, figures")
    return 0


member = sys.modules[__name__]
