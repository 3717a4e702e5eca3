"""`calib train`: device model -> trained networks."""

import argparse
import sys
from typing import Any

from calib import vision
from calib.cli import console, print_json
from calib.errors import OptionError

name = "train"
summary = "train networks on a device model, drawing new devices at every step"
example = "calib train --device siox-high-resistance --dataset digits -o run"

_OPTIONS = (
    "mapping",
    "l1",
    "ideal",
    "epochs",
    "optimizer",
    "learning_rate",
    "schedule",
    "batch_size",
    "input_voltage",
    "extrapolate",
    "seed",
    "networks",
    "validation_every",
    "validation_repeats",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; those that are not given keep the defaults of `calib.train`."""
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("--device", default=None, metavar="DEVICE", help="device model: a path or a bundled name")
    parser.add_argument("-o", "--output", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--dataset", default=None, choices=vision.names(), help="image data set (default digits)")
    parser.add_argument(
        "--data",
        default=None,
        metavar="PATH",
        help="an .npz file with images and labels, or a folder of IDX files (of --dataset, if given)",
    )
    parser.add_argument("--layers", metavar="N-N-...", help="layer sizes (default: features-25-classes)")
    parser.add_argument(
        "--mapping", choices=["double", "lowest", "average"], help="weights to conductances (default double)"
    )
    parser.add_argument("--l1", type=float, help="factor of sum |w| over all weights and biases (default 0)")
    parser.add_argument("--ideal", action="store_true", help="train as if devices were ideal, in the same range")
    parser.add_argument("--epochs", type=int, help="default: 5000 steps, at least 20 epochs")
    parser.add_argument("--optimizer", choices=["adam", "sgd"], help="default adam")
    parser.add_argument("--learning-rate", type=float, help="at the start (default 0.01)")
    parser.add_argument("--schedule", choices=["constant", "cosine"], help="of the learning rate (default cosine)")
    parser.add_argument("--batch-size", type=int, help="images a step (default 64)")
    parser.add_argument("--input-voltage", type=float, metavar="V", help="voltage of x = 1 (default 0.5)")
    parser.add_argument(
        "--extrapolate", action="store_true", help="accept an input voltage beyond the validity of the device model"
    )
    parser.add_argument("--seed", type=int, help="of everything that is drawn (default 0)")
    parser.add_argument("--networks", type=int, help="how many to train (default 1)")
    parser.add_argument("--validation-every", type=int, metavar="EPOCHS", help="default 20; also the first and last")
    parser.add_argument("--validation-repeats", type=int, metavar="CHIPS", help="default 20")
    parser.add_argument("--resume", action="store_true", default=False, help="continue an interrupted run")
    parser.add_argument(
        "--json",
        action="store_true",
        default=False,
        help="print the keys run, device, device_sha256, dataset, options and networks, a list of objects with "
        "network, epochs, best_epoch, validation_error_median and train_loss",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train or resume, and print the validation errors."""
    given: dict[str, Any] = {key: getattr(args, key) for key in _OPTIONS if hasattr(args, key)}
    if hasattr(args, "layers"):
        given["layers"] = _sizes(args.layers)
    try:
        finished = _resume(args, given) if args.resume else _start(args, given)
    except KeyboardInterrupt:
        console.note(f"whole epochs are kept; continue with: calib train --resume -o {args.output}")
        raise
    rows = [_row(finished.checkpoint(index), index) for index in range(finished.options.networks)]
    record = finished.record
    if args.json:
        shown = {
            "run": str(finished.path),
            "device": record["device"]["name"],
            "device_sha256": record["device"]["sha256"],
            "dataset": record["data"]["name"],
            "options": record["options"],
            "networks": rows,
        }
        print_json(shown)
        return 0
    title = f"{record['data']['name']}, {'-'.join(map(str, finished.options.layers))}, {record['device']['name']}"
    columns = ("network", "epochs", "best epoch", "validation error, median", "training loss")
    console.table(
        title,
        columns,
        [
            (r["network"], r["epochs"], r["best_epoch"], f"{100 * r['validation_error_median']:.2f} %",
             f"{r['train_loss']:.4f}")
            for r in rows
        ],
    )  # fmt: skip
    console.text(f"written: {finished.path}; next: calib evaluate {args.output}")
    return 0


def _start(args: argparse.Namespace, given: dict[str, Any]) -> Any:
    from calib.training import default_epochs, train

    if args.device is None:
        raise OptionError("no device model was given; add --device with a path or a bundled name (calib models list)")
    dataset, folder = _data_source(args)
    data = vision.load(dataset, data_folder=folder)
    epochs = given.get("epochs") or default_epochs(data, given.get("batch_size", 64))
    with console.progress(epochs * given.get("networks", 1), "training") as advance:
        return train(
            args.device,
            output=args.output,
            dataset=dataset,
            data_folder=folder,
            progress=lambda network, row: advance(1, _progress_text(network, row)),
            **given,
        )


def _resume(args: argparse.Namespace, given: dict[str, Any]) -> Any:
    from calib import device_model, runs
    from calib.training import resume_run

    opened = runs.open_run(args.output)
    data = None
    if args.dataset is not None or (args.data is not None and opened.options.dataset is None):
        dataset, folder = _data_source(args)
        data = vision.load(dataset, data_folder=folder)
    options = opened.options
    states = [opened.checkpoint(index) for index in range(options.networks)]
    total = sum(options.epochs - (state["epoch"] if state else 0) for state in states)
    with console.progress(total, "training") as advance:
        return resume_run(
            args.output,
            given=given,
            device=device_model.open_device(args.device) if args.device else None,
            data=data,
            data_folder=args.data,
            progress=lambda network, row: advance(1, _progress_text(network, row)),
        )


def _data_source(args: argparse.Namespace) -> tuple[str, str | None]:
    """Return what `vision.load` is given: a name or a path, and a folder."""
    if args.data is None:
        return args.dataset or "digits", None
    if args.dataset is None:
        return args.data, None
    return args.dataset, args.data


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("-"))
    except ValueError as error:
        raise OptionError(f"--layers is '{text}'; expected sizes joined by hyphens, such as 784-25-10") from error


def _progress_text(network: int, row: dict[str, float]) -> str:
    text = f"network {network} epoch {row['epoch']:.0f} loss {row['train_loss']:.4f}"
    median = row["validation_error_median"]
    return text if median != median else f"{text} validation error {100 * median:.2f} %"


def _row(state: Any, index: int) -> dict[str, Any]:
    return {
        "network": index,
        "epochs": state["epoch"],
        "best_epoch": state["best_epoch"],
        "validation_error_median": state["best_error"],
        "train_loss": state["history"][-1]["train_loss"],
    }


member = sys.modules[__name__]
