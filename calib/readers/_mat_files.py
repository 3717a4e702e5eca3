"""The variables of MATLAB files of every generation as plain data; objects and functions are never run or built."""

import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calib.errors import ReadError
from calib.files import check_hdf5_size

Content = dict[str, Any]
"""Variable names -> arrays of numbers (2 or more dims), texts, lists (cells) and mappings (structs) of these."""

_COMPRESSED = 15
_LARGEST = 1 << 29  # bytes of an unpacked file
_DEEPEST = 12  # structs and cells within each other
_MOST = 20000  # cells of a file
_DAMAGE = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, NotImplementedError,
    RuntimeError, MemoryError, AssertionError, zlib.error, struct.error, EOFError,
)  # fmt: skip


def load(path: Path) -> tuple[Content, list[str]]:
    """Return the variables of a MATLAB file, and the names of those that are no data.

    Raises
    ------
    ReadError
        When the file is damaged, or larger than calib reads.
    """
    try:
        data = path.read_bytes()[:1024]
        if is_hdf5(data):
            return _load_hdf5(path)
        return _load_old(path)
    except _DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ReadError(
            f"'{path.name}' cannot be read as a MATLAB file ({reason}); it is truncated or damaged; copy it again, or "
            "save it with -v7"
        ) from error


def is_hdf5(head: bytes) -> bool:
    """Say whether the first 1024 bytes of a file are those of MATLAB 7.3 or of HDF5."""
    return any(head[offset : offset + 4] == b"\x89HDF" for offset in (0, 512))


def _load_old(path: Path) -> tuple[Content, list[str]]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError, MatReadWarning

    _check_unpacked(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MatReadWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            found = loadmat(str(path), struct_as_record=True, chars_as_strings=True)
        except MatReadError as error:
            raise ValueError(str(error)) from error
    ignored: list[str] = []
    budget = [_MOST]
    names = [name for name in found if not name.startswith("__")]
    content = {name: _plain(found[name], name, ignored, budget) for name in names}
    return {name: value for name, value in content.items() if value is not None}, ignored


def _check_unpacked(path: Path) -> None:
    """Refuse a file whose compressed variables unpack to more than calib reads."""
    data = path.read_bytes()
    order = ">" if data[126:128] == b"MI" else "<"
    position, total = 128, len(data)
    while position + 8 <= len(data):
        kind, size = struct.unpack(f"{order}II", data[position : position + 8])
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            rest = data[position + 8 : position + 8 + size]
            while rest and not unpacker.eof:
                total += len(unpacker.decompress(rest, 1 << 20))
                rest = unpacker.unconsumed_tail
                if total > _LARGEST:
                    raise ReadError(
                        f"'{path.name}' unpacks to more than {_LARGEST >> 20} MB, which calib does not read; "
                        "save voltage and current alone"
                    )
        position += 8 + size


def _plain(value: Any, name: str, ignored: list[str], budget: list[int], depth: int = 0) -> Any:
    """Return a loaded value as plain data; None, and its name in `ignored`, for what is no data."""
    from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque

    budget[0] -= 1
    if depth > _DEEPEST or budget[0] < 0:
        raise ReadError(f"'{name}' nests or divides into more parts than calib reads ({_MOST}); save plain arrays")
    if isinstance(value, MatlabFunction | MatlabObject | MatlabOpaque) or not isinstance(value, np.ndarray):
        ignored.append(name)
        return None
    if value.dtype.names is not None:
        parts = {
            field: [_plain(item, f"{name}.{field}", ignored, budget, depth + 1) for item in value[field].ravel("F")]
            for field in value.dtype.names
        }
        return {field: items[0] if len(items) == 1 else items for field, items in parts.items()}
    if value.dtype.kind == "O":
        items = [_plain(item, name, ignored, budget, depth + 1) for item in value.ravel("F")]
        return [item for item in items if item is not None]
    if value.dtype.kind == "U":
        return str(value.ravel()[0]) if value.size == 1 else [str(item) for item in value.ravel("F")[:_MOST]]
    if value.dtype.kind not in "fiub":
        ignored.append(name)
        return None
    return np.atleast_2d(np.asarray(value, dtype=np.float64))


def _load_hdf5(path: Path) -> tuple[Content, list[str]]:
    import h5py

    check_hdf5_size(path)
    ignored: list[str] = []
    budget = [_MOST]
    with h5py.File(path, "r") as file:
        content = _group(file, "", ignored, budget, 0)
    return content, ignored


def _group(group: Mapping[str, Any], prefix: str, ignored: list[str], budget: list[int], depth: int) -> Content:
    content = {}
    for name in group:
        if not str(name).startswith("#"):
            value = _item(group[name], f"{prefix}{name}", ignored, budget, depth + 1)
            if value is not None:
                content[str(name)] = value
    return content


def _item(item: Any, name: str, ignored: list[str], budget: list[int], depth: int) -> Any:
    import h5py

    budget[0] -= 1
    if depth > _DEEPEST or budget[0] < 0:
        raise ReadError(f"'{name}' nests or divides into more parts than calib reads ({_MOST}); save plain arrays")
    kind = item.attrs.get("MATLAB_class", b"")
    kind = kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)
    if kind == "function_handle" or "MATLAB_object_decode" in item.attrs:
        ignored.append(name)
        return None
    if isinstance(item, h5py.Group):
        return _group(item, f"{name}.", ignored, budget, depth)
    if not isinstance(item, h5py.Dataset) or "MATLAB_empty" in item.attrs or item.shape is None:
        return None
    if item.dtype == h5py.ref_dtype:
        if (item.size or 0) > budget[0]:
            raise ReadError(f"'{name}' has {item.size} cells; calib reads at most {_MOST}; save a matrix instead")
        found = [_item(item.file[link], name, ignored, budget, depth + 1) for link in np.ravel(item[()]) if link]
        return [value for value in found if value is not None]
    if kind == "char":
        return "".join(chr(code) for code in np.ravel(item[()])[:_MOST].astype(np.uint32) if code < 0x110000)
    if item.dtype.kind not in "fiub":
        ignored.append(name)
        return None
    return np.atleast_2d(np.asarray(item[()], dtype=np.float64).T)
