"""Export formats of a device model: one file per format.

A card carries the model's identity and no time, so that equal device models give equal files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calib import plugins
from calib.errors import OptionError

if TYPE_CHECKING:
    import xarray as xr

    from calib.exporters.base import Exporter

__all__ = ["carries", "export", "exporter", "listing", "names", "wanted"]


def names() -> list[str]:
    """Return the names of the export formats."""
    return plugins.names(__name__)


def exporter(name: str) -> "Exporter":
    """Return the exporter called `name`.

    Raises
    ------
    OptionError
        When there is no such format; the message lists those that there are.
    """
    return plugins.load(__name__, name, ("suffix", "carries", "omits", "contents", "write"))


def carries() -> dict[str, str]:
    """Return in one line what each format carries."""
    return {name: exporter(name).carries for name in names()}


def listing(device_model: "xr.DataTree | str | Path | None" = None) -> list[dict[str, Any]]:
    """Return what each format carries, as `calib card --list` prints it.

    Parameters
    ----------
    device_model : a device model, its file, or the name of a bundled one; None lists the formats alone.

    Returns
    -------
    list of dict
        format, suffix, carries (a line), and omits: sentences on what of this device model the format leaves out, None
        without a device model.
    """
    tree = None if device_model is None else _opened(device_model)
    found = []
    for name in names():
        member = exporter(name)
        omits = None if tree is None else member.omits(tree)
        found.append({"format": name, "suffix": member.suffix, "carries": member.carries, "omits": omits})
    return found


def wanted(formats: str | Sequence[str]) -> list[str]:
    """Return the formats of 'all', 'html,json' or a list, each once, in the order given.

    Raises
    ------
    OptionError
        When one is unknown, or none is given.
    """
    known = names()
    asked = formats.split(",") if isinstance(formats, str) else list(formats)
    asked = [name.strip() for name in asked if name.strip()]
    if "all" in asked:
        return known
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        found = f"'{', '.join(unknown)}'" if unknown else "nothing"
        raise OptionError(f"--format is {found}; expected all, or some of {', '.join(known)} separated by commas")
    return list(dict.fromkeys(asked))


def export(
    device_model: "xr.DataTree | str | Path", directory: str | Path, formats: str | Sequence[str] = "all"
) -> list[Path]:
    """Write a device model's cards into a folder and return their paths.

    Parameters
    ----------
    device_model : a device model, its file, or the name of a bundled one.
    directory : made if there is none; files of the same name are replaced.
    formats : 'all', one format, or several (a list, or separated by commas).

    Raises
    ------
    OptionError
        When a format is unknown.
    CalibError
        When the model cannot be opened or the folder cannot be written to.
    """
    chosen = [exporter(name) for name in wanted(formats)]
    tree = _opened(device_model)
    return [path for member in chosen for path in member.write(tree, directory)]


def _opened(device_model: "xr.DataTree | str | Path") -> "xr.DataTree":
    """Return a checked device model."""
    from calib.device_model import check, open_device

    if isinstance(device_model, str | Path):
        return open_device(device_model)
    check(device_model)
    return device_model
