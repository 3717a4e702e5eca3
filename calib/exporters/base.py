"""What an exporter is."""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import xarray as xr

from calib import files

_LONGEST_NAME = 60
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}


class Exporter(ABC):
    """Turns a device model into files of one format.

    A member is final and holds only what is its format's own: `contents` returns text or bytes, writing them is done
    here. They depend on the model's content alone: no time, no path, no random number.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    carries: ClassVar[str]
    """In one line, which characteristics the format expresses."""

    @abstractmethod
    def omits(self, device_model: xr.DataTree) -> list[str]:
        """Return sentences: what of this device model the format cannot express."""

    @abstractmethod
    def contents(self, device_model: xr.DataTree) -> Mapping[str, str | bytes]:
        """Return the files as file name -> text (written as UTF-8) or bytes; each holds the model's identity.

        The identity stands in a binary file as plain ASCII as well, so that any program finds it.
        """

    def write(self, device_model: xr.DataTree, directory: str | Path) -> list[Path]:
        """Write the files into `directory`, each whole or not at all, and return their paths."""
        paths = []
        for file_name, content in self.contents(device_model).items():
            path = Path(directory) / file_name
            if isinstance(content, bytes):
                with files.atomic_write(path) as temporary:
                    temporary.write_bytes(content)
            else:
                files.write_text(path, content)
            paths.append(path)
        return paths

    def file_name(self, device_model: xr.DataTree) -> str:
        """Return the file's name, made from the model's name."""
        return slug(str(device_model.attrs.get("name", ""))) + self.suffix


def slug(name: str) -> str:
    """Return a file name's stem made from any text: lower-case ASCII letters, digits and hyphens, never empty.

    Nothing of the text can leave the folder, hide the file, or be a name that an operating system reserves.
    """
    ascii_text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")[:_LONGEST_NAME].rstrip("-")
    if not stem:
        return "device"
    return f"device-{stem}" if stem in _RESERVED else stem
