"""Training noise tuned by Bayesian optimisation, against training on the device itself.

Whoever does not know a device can train with noise that resembles none of its effects and tune it, as in 'Improving the
robustness of analog deep neural networks through a Bayes-optimized noise injection approach' (Commun. Eng. 2, 2023, doi
10.1038/s44172-023-00074-3). Here noise is a lognormal spread of the conductances (sigma of ln R) and devices that drop
to G_off with some probability, both drawn anew at every step. A trial trains on devices with this noise and linear
currents, and its value is the median error on chips of the true device over images that are kept for it; optuna chooses
the trials. Test images are used once: for the best noise, for no noise, and for training on the device model.

The study is a file. Called again with the same folder, the search goes on where it was, to the same result.
"""

import argparse
import hashlib
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import xarray as xr
from example_output import images_of, parser, percent, trained, write
from optuna.storages.journal import JournalFileBackend
from stated_device import stated_device

import calib
from calib.figure_style import figure
from calib.vision import ImageData

HELD = 0.2  # of the training images


def main(arguments: list[str] | None = None) -> int:
    """Search, train, write."""
    args = _arguments(arguments)
    data = images_of(args)
    device = calib.open_device(args.device)
    study = search(device, data, args)
    best = study.best_trial
    rows = [
        _row("none", None, device, data, args, noisy(device, 0.0, 0.0), ideal=True),
        _row("tuned", best.params, device, data, args, noisy(device, **best.params)),
        _row("the device model", None, device, data, args, device),
    ]
    return write(args, data, rows, _figure(study), _sentence(rows, args))


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--device", default="synthetic-crossbar", help="the true device (default synthetic-crossbar)")
    made.add_argument("--sampler", choices=["tpe", "gp"], default="tpe", help="how optuna chooses (default tpe)")
    made.add_argument("--trials", type=int, help="of the search (default 20)")
    made.add_argument("--epochs", type=int, help="of a trial (default 4)")
    made.add_argument("--final-epochs", type=int, help="of the trainings that are compared (default 10)")
    made.add_argument("--images", type=int, help="training images of the search (default 12000)")
    made.add_argument("--networks", type=int, help="trained in the comparison (default 2)")
    made.add_argument("--chips", type=int, help="chips of each network (default 25)")
    args = made.parse_args(arguments)
    usual = (3, 10, 10, 800, 1, 3) if args.quick else (20, 4, 10, 12000, 2, 25)
    names = ("trials", "epochs", "final_epochs", "images", "networks", "chips")
    for name, value in zip(names, usual, strict=True):
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    return args


def search(device: xr.DataTree, data: ImageData, args: argparse.Namespace) -> optuna.Study:
    """Return the study with as many trials as were asked for; those in its file are not done again."""
    kept, study = _for_the_search(data, args), _study(args)
    while len(_complete(study)) < args.trials:
        _trial(study, device, kept, args)
    return study


def noisy(device: xr.DataTree, spread: float, dropped: float) -> xr.DataTree:
    """Return devices of the same conductance range that have the training noise instead of their own effects."""
    node = device["conductance"].to_dataset()
    sigma = (spread, spread) if spread else None
    return stated_device("training noise", float(node["g_off"]), float(node["g_on"]), sigma=sigma, stuck=dropped)


def _for_the_search(data: ImageData, args: argparse.Namespace) -> ImageData:
    """Return images whose test set is a part of the training set."""
    chosen = np.random.default_rng(args.seed).permutation(len(data.train_images))[: args.images]
    held = round(HELD * len(chosen))
    first, second = np.sort(chosen[held:]), np.sort(chosen[:held])
    return ImageData(
        name=f"{data.name}, for the search",
        train_images=data.train_images[first],
        train_labels=data.train_labels[first],
        test_images=data.train_images[second],
        test_labels=data.train_labels[second],
        image_shape=data.image_shape,
        source=data.source,
        sha256=hashlib.sha256(data.sha256.encode() + chosen.tobytes()).hexdigest(),
    )


def _study(args: argparse.Namespace) -> optuna.Study:
    optuna.logging.set_verbosity(logging.WARNING)
    args.output.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(args.output / "study.log")))
    said = [args.device, args.sampler, args.data, args.quick, args.epochs, args.images, args.chips, args.seed]
    name = hashlib.sha256(repr(said).encode()).hexdigest()[:12]  # other options are another study
    return optuna.create_study(study_name=name, storage=storage, direction="minimize", load_if_exists=True)


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))


def _trial(study: optuna.Study, device: xr.DataTree, data: ImageData, args: argparse.Namespace) -> None:
    """Do one trial, whose random numbers follow from the number of those before it."""
    for left in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(left.number, state=optuna.trial.TrialState.FAIL)  # of a search that was interrupted
    number = len(_complete(study))
    seed = args.seed + number
    study.sampler = (
        optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
        if args.sampler == "tpe"
        else optuna.samplers.GPSampler(seed=seed, n_startup_trials=5)
    )
    trial = study.ask()
    noise = {"spread": trial.suggest_float("spread", 0.0, 1.0), "dropped": trial.suggest_float("dropped", 0.0, 0.4)}
    with tempfile.TemporaryDirectory() as folder:
        run = calib.train(
            noisy(device, **noise), output=Path(folder) / "run", dataset=data, mapping="double", epochs=args.epochs,
            seed=args.seed, validation_every=args.epochs, validation_repeats=1,
        )  # fmt: skip
        found = calib.evaluate(run, device, chips=args.chips, data=data, seed=args.seed + 1)
    study.tell(trial, float(found["error"].median()))


def _row(
    label: str,
    noise: dict[str, float] | None,
    device: xr.DataTree,
    data: ImageData,
    args: argparse.Namespace,
    tree: xr.DataTree,
    ideal: bool = False,
) -> dict[str, Any]:
    folder = args.output / label.replace(" ", "-")
    run = trained(tree, folder, data, ideal=ideal, mapping="double", epochs=args.final_epochs, seed=args.seed,
                  networks=args.networks, validation_every=5, validation_repeats=5)  # fmt: skip
    error = calib.evaluate(run, device, chips=args.chips, data=data, seed=args.seed)["error"]
    shown = {key: round(value, 3) for key, value in (noise or {}).items()}
    return {"training noise": label, "spread": "", "dropped": "", **shown, **percent(error)}


def _sentence(rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    none, tuned, aware = rows
    return (
        f"Median error on {args.device}: {none['error (%)']:.2f} % without training noise, {tuned['error (%)']:.2f} % "
        f"with the noise found in {args.trials} trials (sigma {tuned['spread']:g}, {100 * tuned['dropped']:.0f} % "
        f"dropped), {aware['error (%)']:.2f} % after training on the device model."
    )


def _figure(study: optuna.Study) -> Any:
    trials = _complete(study)
    with figure() as drawing:
        axes = drawing.subplots()
        points = axes.scatter(
            [trial.params["spread"] for trial in trials],
            [100 * trial.params["dropped"] for trial in trials],
            c=[100 * float(trial.value or 0.0) for trial in trials],
            cmap="viridis", s=18,
        )  # fmt: skip
        best = study.best_trial.params
        axes.plot([best["spread"]], [100 * best["dropped"]], "o", ms=9, mfc="none", mec="#D55E00")
        axes.set_xlabel("sigma of ln R in training")
        axes.set_ylabel("dropped in training (%)")
        drawing.colorbar(points, ax=axes, label="error on the device (%)")
    return drawing


if __name__ == "__main__":
    raise SystemExit(main())
