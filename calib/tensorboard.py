"""Training curves for TensorBoard, epoch by epoch, beside the run's own history."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calib.errors import CalibError, OptionError

if TYPE_CHECKING:
    from calib.runs import Run

TAGS = {
    "learning_rate": "learning_rate",
    "train_loss": "train/loss",
    "train_error": "train/error",
    "line_residual": "train/line_residual",
    "validation_loss_median": "validation/loss_median",
    "validation_error_median": "validation/error_median",
    "validation_error_low": "validation/error_low",
    "validation_error_high": "validation/error_high",
}
"""Names of the scalars, by column of the history; any other column keeps its name."""
_SHARD = "events.out.tfevents."


class TensorBoard:
    """Writes a row of the history as scalars, one folder for each network: DIR/network-0 and so on.

    It is what `calib.train(progress=...)` calls. The step is the epoch. Numbers that an epoch has not, such as those of
    the validation between validations, are left out. A folder that has epochs already is continued: nothing is written
    twice, and `catch_up` adds what is missing.

    Parameters
    ----------
    folder : where TensorBoard is told to look (`tensorboard --logdir FOLDER`); made if need be.

    Raises
    ------
    CalibError
        When TensorBoard is not installed; the message names the extra.
    OptionError
        When the folder is a file.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise OptionError(f"'{folder}' is a file; expected a folder for TensorBoard")
        self._make = _writer()
        self._writers: dict[int, Any] = {}
        self._written: dict[int, set[int]] = {}

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(self, network: int, row: Mapping[str, float]) -> None:
        """Write one epoch of a network.

        Parameters
        ----------
        network : its number.
        row : of the history, with 'epoch'.
        """
        epoch = int(row["epoch"])
        if epoch in self._epochs(network):
            return
        if network not in self._writers:
            self._writers[network] = self._make(str(self._place(network)))
        writer = self._writers[network]
        for key, value in row.items():
            if key != "epoch" and math.isfinite(value):
                writer.add_scalar(TAGS.get(key, key), value, epoch)
        writer.flush()
        self._epochs(network).add(epoch)

    def catch_up(self, run: "Run") -> None:
        """Write the epochs of a run's history that are not there yet, as before it is resumed.

        Raises
        ------
        OptionError
            When there are epochs that the run does not have: those of another run.
        """
        for network in range(run.options.networks):
            rows = run.history(network)
            last = max(self._epochs(network), default=0)
            if last > len(rows):
                raise OptionError(
                    f"'{self._place(network)}' holds {last} epochs, but network {network} of '{run.path}' has "
                    f"{len(rows)}; give the folder of this run, or an empty one"
                )
            for row in rows:
                self(network, row)

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _place(self, network: int) -> Path:
        return self.folder / f"network-{network}"

    def _epochs(self, network: int) -> set[int]:
        """Return the epochs that are in the folder of a network."""
        if network not in self._written:
            found = scalars(self._place(network)).values()
            self._written[network] = {step for values in found for step in values}
        return self._written[network]


@contextmanager
def curves(folder: str | Path | None, run: "Run | None" = None) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Give what writes each epoch, as `TensorBoard`, or does nothing where there is no folder.

    Parameters
    ----------
    folder : for TensorBoard, or None.
    run : one that is resumed: its epochs that are not in the folder are written first.

    Raises
    ------
    OptionError
        When the folder holds epochs of another run.
    """
    if folder is None:
        yield lambda network, row: None
        return
    with TensorBoard(folder) as board:
        if run is not None:
            board.catch_up(run)
        elif any(scalars(place) for place in sorted(board.folder.glob("network-*"))):
            raise OptionError(f"'{folder}' holds the curves of an earlier run; give an empty folder, or --resume")
        yield board


def scalars(folder: str | Path) -> dict[str, dict[int, float]]:
    """Return the scalars {name: {step: value}} of all event files in a folder; empty where there are none."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    found: dict[str, dict[int, float]] = {}
    for path in sorted(Path(folder).glob(f"{_SHARD}*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                number = float(tensor_util.make_ndarray(value.tensor)) if value.HasField("tensor") else math.nan
                found.setdefault(value.tag, {})[int(event.step)] = number
    return found


def _writer() -> Any:
    """Return torch's class of writers.

    Raises
    ------
    CalibError
        When TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise CalibError(
            f"TensorBoard cannot be imported ({error}); install it with: pip install 'calib-memristor[tensorboard]', "
            "or leave out --tensorboard"
        ) from error
    return SummaryWriter
