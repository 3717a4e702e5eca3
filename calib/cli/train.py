"""`calib train`: device model -> trained networks."""

import argparse
import math
import sys
from typing import Any

from calib import experiment, tensorboard, vision
from calib.cli import console, print_json
from calib.errors import OptionError

name = "train"
summary = "train networks on a device model, drawing new devices at every step"
example = "calib train --device siox-high-resistance --dataset digits -o run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; those that are not given keep the defaults of `calib.train`."""
    parser.argument_default = argparse.SUPPRESS
    for title, add in _GROUPS.items():
        add(parser.add_argument_group(title))


def _add_places(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", default=None, metavar="DEVICE", help="device model: a path or a bundled name")
    group.add_argument("-o", "--output", default=None, metavar="RUN", help="folder of the run")
    group.add_argument(
        "--experiment",
        default=None,
        metavar="FILE.yaml",
        help="any of these options from a YAML file, or those of another run: its folder; what is given here wins",
    )
    group.add_argument(
        "--write-experiment",
        default=None,
        metavar="FILE.yaml",
        help="also write the whole experiment, defaults included, for --experiment",
    )
    group.add_argument("--dataset", default=None, choices=vision.names(), help="image data set (default digits)")
    group.add_argument(
        "--data",
        default=None,
        metavar="PATH",
        help="an .npz file with images and labels, or a folder of IDX files (of --dataset, if given)",
    )


def _add_network(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--layers", metavar="N-N-...", help="layer sizes (default: features-25-classes)")
    group.add_argument(
        "--network",
        metavar="MODULE:FUNCTION",
        help="train the torch module that a function of yours returns; it is called with n_classes and n_features or "
        "image_shape. Importing runs the module's code",
    )
    group.add_argument(
        "--mapping",
        metavar="NAME[:OPTION=VALUE,...]",
        help="weights to conductances: double (default), lowest, average, offset or bit-slicing, with options such as "
        "bit-slicing:slices=4,bits=2 or lowest:clip=3sigma",
    )
    group.add_argument(
        "--array",
        metavar="OPTION=VALUE,...",
        help="the array, such as rows=128,columns=64,word_segment=0.35,dac_bits=8,adc_bits=8,adc_range=array (default: "
        "an ideal one of any size)",
    )
    group.add_argument(
        "--scale",
        choices=["largest", "learned"],
        help="of a layer: its largest weight is at G_on (default), or the scale is trained and rates are in units of "
        "the conductance range",
    )
    group.add_argument(
        "--bias",
        choices=["line", "digital"],
        help="biases are devices on a word line of their own (default), or numbers that are added after the converters",
    )
    group.add_argument("--input-voltage", type=float, metavar="V", help="voltage of x = 1 (default 0.5)")
    group.add_argument(
        "--hidden-voltage",
        type=float,
        metavar="V",
        help="voltage of x = 1 from the second layer on, at most the input voltage (default: the input voltage)",
    )
    group.add_argument(
        "--extrapolate", action="store_true", help="accept an input voltage beyond the validity of the device model"
    )


def _add_loss(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--l1", type=float, help="factor of sum |w| over all weights and biases on devices (default 0)")
    group.add_argument(
        "--energy-weight",
        type=float,
        metavar="LAMBDA",
        help="factor of the power of the drawn devices, relative to that of all at G_on and at the input voltage, in "
        "the loss (default 0)",
    )
    group.add_argument("--ideal", action="store_true", help="train as if devices were ideal, in the same range")
    group.add_argument(
        "--variation",
        choices=["devices", "moments"],
        help="what a step sees of the devices' spread: newly drawn devices (default), or for every image currents "
        "drawn from their mean and variance over the devices",
    )
    group.add_argument("--draws", type=int, help="draws of all devices a step, whose losses are averaged (default 1)")


def _add_optimiser(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--epochs", type=int, help="default: 5000 steps, at least 20 epochs")
    group.add_argument("--optimizer", choices=["adam", "sgd"], help="default adam")
    group.add_argument("--momentum", type=float, help="of sgd (default 0)")
    group.add_argument("--learning-rate", type=float, help="the largest (default 0.01)")
    group.add_argument(
        "--schedule", choices=["constant", "cosine", "one-cycle"], help="of the learning rate (default cosine)"
    )
    group.add_argument(
        "--warm-up", type=float, metavar="FRACTION", help="of the training in which the rate rises from 0 (default 0)"
    )
    group.add_argument("--batch-size", type=int, help="images a step (default 64)")
    group.add_argument(
        "--clip-gradient", type=float, metavar="NORM", help="largest norm of the gradient (default: any)"
    )
    group.add_argument(
        "--average",
        metavar="KIND:NUMBER",
        help="validate and keep an average of the weights: exponential:0.998 (factor a step) or tail:0.25 (of the last "
        "part of the training)",
    )
    group.add_argument(
        "--patience", type=int, metavar="EPOCHS", help="stop so many epochs after the best validation (default: never)"
    )
    group.add_argument("--validation-every", type=int, metavar="EPOCHS", help="default 20; also the first and last")
    group.add_argument("--validation-repeats", type=int, metavar="CHIPS", help="default 20")


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--seed", type=int, help="of everything that is drawn (default 0)")
    group.add_argument("--networks", type=int, help="how many to train (default 1)")
    group.add_argument(
        "--tensorboard",
        default=None,
        metavar="DIR",
        help="also write the training curves of each network for TensorBoard (extra tensorboard)",
    )
    group.add_argument("--resume", action="store_true", default=False, help="continue an interrupted run")
    group.add_argument(
        "--json",
        action="store_true",
        default=False,
        help="print the keys run, device, device_sha256, dataset, options and networks, a list of objects with "
        "network, epochs, best_epoch, validation_error_median and train_loss",
    )  # fmt: skip


_GROUPS = {
    "experiment": _add_places,
    "network and hardware": _add_network,
    "loss": _add_loss,
    "optimiser and validation": _add_optimiser,
    "run": _add_run,
}


def run(args: argparse.Namespace) -> int:
    """Train or resume, and print the validation errors."""
    given = _options(args)
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
    title = f"{record['data']['name']}, {finished.options.architecture}, {record['device']['name']}"
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


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the training; places (device, data, output) that the experiment gives go to `args`."""
    found = experiment.read(args.experiment) if args.experiment else {}
    for key in experiment.PLACES:
        known = found.pop(key, None)
        if getattr(args, key) is None:
            setattr(args, key, known)
    if args.output is None:
        raise OptionError("no folder for the run was given; add -o RUN")
    typed = {key: getattr(args, key) for key in experiment.OPTIONS if hasattr(args, key)}
    if "layers" in typed:
        typed["layers"] = experiment.sizes(typed["layers"])
    if {"layers", "network"} & set(typed):  # they exclude each other
        found = {key: value for key, value in found.items() if key not in ("layers", "network")}
    return {**found, **typed}


def _start(args: argparse.Namespace, given: dict[str, Any]) -> Any:
    from calib.signal_to_noise import spread_warning
    from calib.training import default_epochs, train

    if args.device is None:
        raise OptionError("no device model was given; add --device with a path or a bundled name (calib models list)")
    dataset, folder = _data_source(args)
    data = vision.load(dataset, data_folder=folder)
    epochs = given.get("epochs") or default_epochs(data, given.get("batch_size", 64))
    if args.write_experiment is not None:
        places = {"device": args.device, "dataset": dataset, "data": folder}
        experiment.write(args.write_experiment, experiment.complete({**places, **given, "epochs": epochs}))
    warning = spread_warning(args.device, given.get("input_voltage", 0.5), given.get("extrapolate", False))
    if warning:
        console.warn(warning)
    total = epochs * given.get("networks", 1)
    with console.progress(total, "training") as advance, tensorboard.curves(args.tensorboard) as write:
        return train(
            args.device,
            output=args.output,
            dataset=dataset,
            data_folder=folder,
            progress=_progress(write, advance),
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
    with console.progress(total, "training") as advance, tensorboard.curves(args.tensorboard, opened) as write:
        return resume_run(
            args.output,
            given=given,
            device=device_model.open_device(args.device) if args.device else None,
            data=data,
            data_folder=args.data,
            progress=_progress(write, advance),
        )


def _data_source(args: argparse.Namespace) -> tuple[str, str | None]:
    """Return what `vision.load` is given: a name or a path, and a folder."""
    if args.data is None:
        return args.dataset or "digits", None
    if args.dataset is None:
        return args.data, None
    return args.dataset, args.data


def _progress(write: Any, advance: Any) -> Any:
    """Return what is called after each epoch: it writes the curves, then shows the row."""

    def show(network: int, row: dict[str, float]) -> None:
        write(network, row)
        advance(1, _progress_text(network, row))

    return show


def _progress_text(network: int, row: dict[str, float]) -> str:
    text = f"network {network} epoch {row['epoch']:.0f} loss {row['train_loss']:.4f}"
    residual = row.get("line_residual", math.nan)
    text += "" if math.isnan(residual) else f" residual on lines {residual:.1e}"
    median = row["validation_error_median"]
    if median != median:
        return text
    low, high = (100 * row[f"validation_error_{end}"] for end in ("low", "high"))
    return f"{text} validation error {100 * median:.2f} % ({low:.2f} to {high:.2f})"


def _row(state: Any, index: int) -> dict[str, Any]:
    return {
        "network": index,
        "epochs": state["epoch"],
        "best_epoch": state["best_epoch"],
        "validation_error_median": state["best_error"],
        "train_loss": state["history"][-1]["train_loss"],
    }


member = sys.modules[__name__]
