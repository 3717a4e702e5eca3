"""Files are written whole or not at all, and identified by their content."""

import contextlib
import faulthandler
import hashlib
import math
import os
import re
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calib.errors import CalibError, ModelError, ReadError


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it once the block has ended without an error.

    Raises
    ------
    CalibError
        When the folder does not exist or cannot be written to, or the disk is full; nothing is left behind.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise CalibError(f"cannot write '{path}': it is a folder; give a file name")
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        reason = error.strerror or str(error)
        raise CalibError(
            f"cannot write '{path}': {reason}; nothing was changed; give another place with -o, or make room"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stem_of(path: Path) -> str:
    """Return the name of a file without its suffix, and without the suffix before `.gz`; a number is no suffix."""
    return re.sub(r"(?:\.[A-Za-z][A-Za-z0-9]{0,5})?(?:\.gz)?$", "", path.name) or path.name


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_netcdf(tree: Any, path: str | Path) -> None:
    """Write an `xarray.DataTree` or `xarray.Dataset` to `path` as netCDF-4, atomically."""
    with atomic_write(path) as temporary:
        tree.to_netcdf(temporary, engine="h5netcdf")


def open_netcdf(path: str | Path, kind: str, remedy: str) -> Any:
    """Read a whole netCDF-4 file into an `xarray.DataTree`.

    Parameters
    ----------
    path : the file.
    kind : what it should be, for the error's sentence.
    remedy : what to do when it is damaged.

    Raises
    ------
    ModelError
        When the file cannot be read, is damaged, or is no netCDF-4 file.
    """
    import h5py
    import xarray as xr

    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(8)
        if head != b"\x89HDF\r\n\x1a\n":
            raise ModelError(f"'{path}' is no netCDF-4 file: it starts with {head!r}; expected a {kind} of calib (.nc)")
        probe_hdf5(path)
        with h5py.File(path, "r"):  # names a truncated file before xarray wraps the error
            pass
        with xr.open_datatree(path, engine="h5netcdf", decode_timedelta=False, decode_times=False) as tree:
            return tree.load()
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"'{path}' cannot be read as a {kind}: {reason}; the file is damaged; {remedy}") from error


_PATIENCE = 30


def probe_hdf5(path: str | Path, seconds: int = 10) -> None:
    """Walk through an HDF5 file in a child process first.

    On some damaged files libhdf5 loops without end or crashes, and nothing in the same process could stop that; a child
    can be stopped. It reads every attribute and the arrays up to 64 MB. Where processes cannot fork, nothing is done.

    Raises
    ------
    OSError
        When the child took more than `seconds` of processor time or 30 times as long in all, or crashed. Other damage
        is left to whoever reads the file.
    """
    if not hasattr(os, "fork"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of this process: the child uses none of them
        child = os.fork()
    if child == 0:
        faulthandler.disable()
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # not by the clock: a busy machine is no damage
        signal.alarm(_PATIENCE * seconds)
        with contextlib.suppress(BaseException):
            _walk_hdf5(path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        stalled = os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGALRM)
        raise OSError(f"reading it does not end ({seconds} s)" if stalled else "reading it crashes the HDF5 library")


def _walk_hdf5(path: str | Path) -> None:
    import h5py

    def look(_: str, item: Any) -> None:
        with contextlib.suppress(Exception):
            list(item.attrs.items())
        with contextlib.suppress(Exception):
            if isinstance(item, h5py.Dataset) and item.nbytes <= 1 << 26:
                item[()]

    with h5py.File(path, "r") as file:
        look("/", file)
        file.visititems(look)


def check_hdf5_size(path: str | Path, largest: int = 1 << 29) -> None:
    """Refuse an HDF5 file whose arrays are larger, unpacked, than `largest` bytes, before any of them is read.

    Raises
    ------
    ReadError
        With the array and its size.
    OSError, RuntimeError, KeyError, ValueError
        When the file is damaged.
    """
    import h5py

    total = 0

    def add(name: str, item: Any) -> None:
        nonlocal total
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            total += math.prod(map(int, item.shape)) * item.dtype.itemsize
            if total > largest:
                shape = " x ".join(map(str, item.shape))
                raise ReadError(
                    f"'{Path(path).name}' holds more numbers than calib reads ({largest >> 20} MB): "
                    f"'{name}' alone has {shape}; save fewer in one file"
                )

    probe_hdf5(path)
    with h5py.File(path, "r") as file:
        file.visititems(add)
