"""The main job on the shipped data: raw file -> device model -> card -> networks -> report.

Run as ``python -m calib.quickstart [-o FOLDER]`` (`make quickstart`). Each step prints the command that does the same.
"""

import argparse
import sys
import time
from pathlib import Path

from calib import data_folder
from calib.cli import console, main
from calib.errors import CalibError

CHIPS = 25
L1 = "1e-4"


def quickstart(output: Path, raw: Path | None = None, epochs: int | None = None) -> None:
    """Run every step into `output`, which is replaced step by step; a training that was interrupted goes on.

    Parameters
    ----------
    output : folder.
    raw : measurement file; default: the shipped sweeps.
    epochs : of training; default: those of `calib train`.

    Raises
    ------
    CalibError
        When a step fails or the folder holds runs of something else.
    """
    started = time.monotonic()
    raw = raw or data_folder.datasets_folder() / "oxide-sweeps.csv.gz"
    device = output / "device.nc"
    _step("1. What is in the raw file", "inspect", str(raw))
    _step("2. Fit a device model", "fit", str(raw), "-o", str(device), "--name", "quickstart-oxide")
    _step(
        "3. Device card: data sheet and JSON", "card", str(device), "-o", str(output / "card"), "--format", "html,json"
    )
    training = ["--device", str(device), "--dataset", "digits", "--l1", L1, "--seed", "0"]
    training += [] if epochs is None else ["--epochs", str(epochs)]
    for label, options in (("aware", []), ("ideal", ["--ideal"])):
        folder = output / f"trained-{label}"
        title = "on the device" if label == "aware" else "as if the device were ideal"
        _step(f"4. Train a network {title}", "train", *training, *options, "-o", str(folder), *_resume(folder))
    runs = [str(output / "trained-aware"), str(output / "trained-ideal")]
    results = output / "results.nc"
    evaluation = ["evaluate", *runs, "--device", str(device), "--chips", str(CHIPS), "-o", str(results)]
    _step(f"5. Evaluate both on {CHIPS} chips of the device", *evaluation)
    _step("6. Report", "report", str(results), "-o", str(output / "report.html"))
    _table(results)
    console.text(f"Done in {time.monotonic() - started:.0f} s. Look at:")
    for path, what in (
        (output / "report.html", "error and energy of both networks, chip by chip"),
        (output / "card", "the device's data sheet (html) and JSON"),
        (device, "the device model; 'calib show' prints it"),
        (results, "every chip's numbers (xarray.open_dataset)"),
    ):
        console.text(f"  {path}  {what}")


def _table(path: Path) -> None:
    """Print error and energy of both networks on the device."""
    from calib.evaluation import open_results
    from calib.formatting import format_quantity

    results = open_results(path)
    rows = []
    for network, label in enumerate(("on the device", "as if the device were ideal")):
        chips = results.isel(network=network, device=0)
        low, median, high = (100 * float(chips["error"].quantile(q)) for q in (0.05, 0.5, 0.95))
        energy = format_quantity(float(chips["energy_per_inference"].mean()), "J")
        efficiency = float(chips["efficiency_tops_per_watt"].mean())
        rows.append((label, f"{median:.1f} %", f"{low:.1f} to {high:.1f} %", energy, f"{efficiency:.0f}"))
    columns = ("trained", "median error", f"5 to 95 % of {CHIPS} chips", "energy per inference", "TOPs/W")
    console.text()
    console.table("Both networks on the device", columns, rows)


def _resume(folder: Path) -> list[str]:
    return ["--resume"] if (folder / "run.json").exists() else []


def _step(title: str, *arguments: str) -> None:
    console.text()
    console.text(title)
    console.text(f"$ calib {' '.join(arguments)}")
    code = main(arguments)
    if code:
        raise CalibError(f"the quickstart stopped at '{title}'; the message above says why")


def run(argv: list[str] | None = None) -> int:
    """Command line of the quickstart."""
    parser = argparse.ArgumentParser(prog="calib.quickstart", description="Run calib's main job on its shipped data.")
    parser.add_argument("-o", "--output", type=Path, default=Path("quickstart"), help="folder (default: quickstart)")
    arguments = parser.parse_args(argv)
    try:
        quickstart(arguments.output)
    except CalibError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
