"""Sets of IDX files (MNIST and those of its layout): where they are, what is in them, how they are fetched.

A set is four files: images and labels for training and for testing, compressed (.gz) or not. It is looked for in the
folder that was given, the folder of the environment variable CALIB_DATA and the download cache; then its mirrors are
tried in order, with a checksum for every file.
"""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calib.errors import OptionError, ReadError

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_N_DIMS = (3, 1, 3, 1)


@dataclass(frozen=True)
class IdxSet:
    """A set of four IDX files, its mirrors and the checksums of its files.

    Attributes
    ----------
    mirrors : addresses to which a file's name and '.gz' are appended, in the order in which they are tried.
    md5 : of the published .gz files, in the order of IDX_FILES.
    sha256 : of the uncompressed files; None where it is not known.
    """

    name: str
    title: str
    licence: str
    mirrors: tuple[str, ...]
    md5: tuple[str, str, str, str]
    sha256: tuple[str | None, str | None, str | None, str | None]
    n_train: int = 60000
    n_test: int = 10000
    image_shape: tuple[int, int] = (28, 28)


IDX_SETS: dict[str, IdxSet] = {
    "mnist": IdxSet(
        name="mnist",
        title="MNIST handwritten digits (LeCun, Cortes and Burges; doi 10.1109/5.726791)",
        licence="CC BY-SA 3.0 as commonly given",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        md5=(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": IdxSet(
        name="fashion-mnist",
        title="Fashion-MNIST pictures of clothing (Xiao, Rasul and Vollgraf; arXiv:1708.07747)",
        licence="MIT",
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        md5=(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        sha256=(
            None,
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            None,
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
}


def locate(name: str, data_folder: str | Path | None = None) -> Path | None:
    """Return the folder in which the files of a set lie on this machine, or None.

    Parameters
    ----------
    name : one of IDX_SETS.
    data_folder : where to look, here or in a folder of the set's name; by default in the folder of the environment
        variable CALIB_DATA and in the download cache.
    """
    if data_folder is not None:
        return _find_in(Path(data_folder), name)
    shared = os.environ.get("CALIB_DATA")
    if shared and (found := _find_in(Path(shared), name)) is not None:
        return found
    cache = _cache(name)
    return cache if all(files_of(cache)) else None


def fetch(name: str, *, data_folder: str | Path | None = None) -> Path:
    """Download the files of a set where they are not there yet, and return their folder.

    Parameters
    ----------
    name : 'mnist' or 'fashion-mnist'.
    data_folder : the files go to the folder of the set's name in this folder; by default to the download cache.

    Raises
    ------
    OptionError
        When that set cannot be downloaded.
    ReadError
        When no mirror gives all files with their checksums.
    """
    if name not in IDX_SETS:
        raise OptionError(f"'{name}' is not a data set that can be downloaded; expected {' or '.join(IDX_SETS)}")
    return _download(IDX_SETS[name], _cache(name) if data_folder is None else Path(data_folder) / name)


def read_set(folder: Path, image_set: IdxSet | None = None) -> tuple[list[np.ndarray], str]:
    """Return the four arrays of a folder (uint8), and a sentence on their checksums ('' without `image_set`).

    Raises
    ------
    ReadError
        When a file is missing or damaged, or the files do not belong together.
    """
    require_all(folder)
    paths = [path for path in files_of(folder) if path is not None]
    arrays, different = [], []
    for i, (path, n_dims) in enumerate(zip(paths, _N_DIMS, strict=True)):
        content = _content(path)
        arrays.append(_parse(path, content, n_dims))
        if image_set is not None and not _is_published(path, content, image_set.md5[i], image_set.sha256[i]):
            different.append(path.name)
    for images, labels in ((0, 1), (2, 3)):
        if len(arrays[images]) != len(arrays[labels]):
            raise ReadError(
                f"'{paths[labels]}' holds {len(arrays[labels])} labels; expected {len(arrays[images])}, one for each "
                "image"
            )
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise ReadError(
            f"the images of '{paths[2]}' have the shape {arrays[2].shape[1:]}; expected {arrays[0].shape[1:]}, that of "
            f"the images of '{paths[0]}'"
        )
    if image_set is None:
        return arrays, ""
    if different:
        return arrays, f"the checksums of {', '.join(different)} differ from those of the published files"
    return arrays, "all checksums agree with the published files"


def read_idx(path: str | Path, n_dims: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, compressed (.gz) or not.

    The format: two zero bytes, the type 0x08, the number of dimensions, each dimension as a big-endian 32-bit
    integer, then the values (http://yann.lecun.com/exdb/mnist/).

    Raises
    ------
    ReadError
        When the file is not such a file, is damaged, or holds fewer or more values than its header says.
    """
    path = Path(path)
    return _parse(path, _content(path), n_dims)


def files_of(folder: Path) -> list[Path | None]:
    """Return the four files of a folder, None where one is missing."""
    candidates = ([folder / f"{stem}.gz", folder / stem, folder / stem.replace("-idx", ".idx")] for stem in IDX_FILES)
    return [next((path for path in paths if path.is_file()), None) for paths in candidates]


def require_all(folder: Path) -> None:
    """Raise a ReadError that names the files which `folder` lacks, if any."""
    missing = [f"{stem}.gz" for stem, path in zip(IDX_FILES, files_of(folder), strict=True) if path is None]
    if missing:
        what = f"lacks {', '.join(missing)}" if folder.is_dir() else "is no folder"
        raise ReadError(f"'{folder}' {what}; expected the four IDX files of a data set (with or without .gz)")


def _parse(path: Path, content: bytes, n_dims: int) -> np.ndarray:
    magic, start = bytes((0, 0, 8, n_dims)), 4 + 4 * n_dims
    if content[:4] != magic or len(content) < start:
        raise ReadError(
            f"'{path}' begins with the bytes '{content[:start].hex()}'; expected '{magic.hex()}' (an IDX file of "
            f"unsigned bytes, {n_dims} dimension{'s' * (n_dims > 1)}) and 4 bytes for each dimension"
        )
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], dtype=">u4"))
    expected = int(np.prod(shape, dtype=object))
    if len(content) - start != expected or expected == 0:
        raise ReadError(
            f"'{path}' holds {len(content) - start} values; expected {' x '.join(map(str, shape))} = {expected}, as "
            "its header says (and at least one); fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ReadError(
            f"'{path}' is damaged or cut short ({error}); expected a whole .gz file; fetch it again"
        ) from error
    except OSError as error:
        raise ReadError(f"'{path}' cannot be read: {error.strerror or error}") from error


def _is_published(path: Path, content: bytes, md5: str, sha256: str | None) -> bool:
    """Say whether a file is the published one: by its content where that is known, else by its compressed bytes."""
    if sha256 is not None:
        return hashlib.sha256(content).hexdigest() == sha256
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5


def _find_in(folder: Path, name: str) -> Path | None:
    """Return the set's own folder inside `folder`, else `folder` unless its files are known to be another set's."""
    if all(files_of(folder / name)):
        return folder / name
    files = files_of(folder)
    if files[1] is None or not all(files):
        return None
    others = {other.sha256[1] for other in IDX_SETS.values() if other.name != name}
    return None if hashlib.sha256(_content(files[1])).hexdigest() in others else folder


def _cache(name: str) -> Path:
    import pooch

    return Path(pooch.os_cache("calib")) / name


def _download(image_set: IdxSet, folder: Path) -> Path:
    """Fetch the four files from the first mirror that gives them all; whole files that are there already are kept."""
    import pooch
    from urllib3.exceptions import HTTPError

    pooch.get_logger().setLevel("ERROR")
    tried = []
    for mirror in image_set.mirrors:
        try:
            for stem, md5 in zip(IDX_FILES, image_set.md5, strict=True):
                pooch.retrieve(f"{mirror}{stem}.gz", known_hash=f"md5:{md5}", fname=f"{stem}.gz", path=folder)
        except (OSError, ValueError, HTTPError) as error:  # not reached or not found; wrong checksum; cut short
            tried.append(f"{mirror} ({' '.join(str(error).split())[:200]})")
        else:
            return folder
    raise ReadError(
        f"{image_set.name} cannot be downloaded to '{folder}'; tried {'; '.join(tried)}. Get the files "
        f"{', '.join(f'{stem}.gz' for stem in IDX_FILES)} by other means and name their folder: data_folder=..., "
        "--data-folder, or the environment variable CALIB_DATA"
    )
