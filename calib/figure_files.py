"""Figures in files."""

from pathlib import Path
from typing import TYPE_CHECKING

from calib import files
from calib.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".svg", ".pdf", ".png")
_DPI = 300


def check(path: str | Path | None) -> None:
    """Raise an error where the name of a figure's file ends in no known format.

    Raises
    ------
    OptionError
        When it does not.
    """
    if path is not None and Path(path).suffix.lower() not in FORMATS:
        raise OptionError(f"the figure is to be '{path}'; expected a name that ends in {', '.join(FORMATS)}")


def write(drawing: "Figure", path: str | Path) -> None:
    """Write a figure, atomically, in the format that the name ends in; equal figures give equal files."""
    check(path)
    kind = Path(path).suffix.lower()
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}[kind]
    with files.atomic_write(path) as temporary:
        drawing.savefig(temporary, format=kind[1:], dpi=_DPI, metadata=metadata)
