"""CIFAR-10 in its binary version: where it is, how it is fetched, what is in it.

The version is an archive of six files of records of 3073 bytes: a class number, then the red, the green and the blue
plane of 32 x 32 values. It is looked for in the folder that was given, the folder of the environment variable
CALIB_DATA and the download cache; then its addresses are tried in order. Only the six files are taken out of the
archive, by name, and nothing is unpickled.
"""

import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from calib import files
from calib.errors import ReadError

NAME = "cifar-10"
SHAPE = (3, 32, 32)
N_TRAIN, N_TEST = 50_000, 10_000
TITLE = "CIFAR-10 small colour pictures (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009)"
LICENCE = "none stated"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
FILES = (*TRAIN_FILES, TEST_FILE)
_FOLDERS = (NAME, f"{NAME}/cifar-10-batches-bin", "cifar-10-batches-bin", "")
_RECORD = 1 + 3 * 32 * 32
_LARGEST = 2**25  # bytes of a file in the archive; the published ones have 30,730,000


@dataclass(frozen=True)
class Archive:
    """An archive, its addresses and the SHA-256 of the archive and of its files, in the order of FILES."""

    name: str
    addresses: tuple[str, ...]
    sha256: str
    files_sha256: tuple[str, ...]


ARCHIVE = Archive(
    name="cifar-10-binary.tar.gz",
    addresses=(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
    ),
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    files_sha256=(
        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    ),
)


def locate(data_folder: str | Path | None = None) -> Path | None:
    """Return the folder in which the six files lie on this machine, or None.

    Parameters
    ----------
    data_folder : where to look, here or in a folder 'cifar-10' or 'cifar-10-batches-bin'; by default in the folder of
        the environment variable CALIB_DATA and in the download cache.
    """
    if data_folder is not None:
        return _find_in(Path(data_folder))
    shared = os.environ.get("CALIB_DATA")
    return (_find_in(Path(shared)) if shared else None) or _find_in(_cache())


def fetch(data_folder: str | Path | None = None) -> Path:
    """Download and unpack the six files where they are not there yet, and return their folder.

    Parameters
    ----------
    data_folder : the files go to the folder 'cifar-10' in this folder; by default to the download cache.

    Raises
    ------
    ReadError
        When no address gives the archive with its checksum.
    """
    folder = _cache() if data_folder is None else Path(data_folder) / NAME
    return _find_in(folder) or _download(folder)


def read(folder: Path) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], str]:
    """Return images (image, 3072) as uint8 and labels for training, then for testing; a sentence on the checksums.

    Raises
    ------
    ReadError
        When a file is missing, or does not consist of whole records of classes 0 to 9.
    """
    parts, different = [], []
    for name, published in zip(FILES, ARCHIVE.files_sha256, strict=True):
        parts.append(_records(folder / name))
        if files.sha256_of(folder / name) != published:
            different.append(name)
    train = np.concatenate(parts[:-1])
    said = "all checksums agree with the published files"
    if different:
        said = f"the checksums of {', '.join(different)} differ from those of the published files"
    return (train[:, 1:], train[:, 0], parts[-1][:, 1:], parts[-1][:, 0]), said


def _records(path: Path) -> np.ndarray:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReadError(f"'{path}' cannot be read: {error.strerror or error}") from error
    if not content or len(content) % _RECORD:
        raise ReadError(
            f"'{path}' has {len(content)} bytes; expected records of {_RECORD}: a label and 3 x 32 x 32 values; take "
            "the binary version of CIFAR-10"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _RECORD)
    if records[:, 0].max() > 9:
        raise ReadError(
            f"'{path}' holds the class {records[:, 0].max()}; expected 0 to 9; take the binary version of CIFAR-10"
        )
    return records


def _find_in(folder: Path) -> Path | None:
    places = (folder / below for below in _FOLDERS)
    return next((place for place in places if all((place / name).is_file() for name in FILES)), None)


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("calib")) / NAME


def _download(folder: Path) -> Path:
    """Fetch the archive from the first address that gives it, take its files out and delete it."""
    import pooch
    from urllib3.exceptions import HTTPError

    pooch.get_logger().setLevel("ERROR")
    tried = []
    for address in ARCHIVE.addresses:
        try:
            found = pooch.retrieve(address, known_hash=f"sha256:{ARCHIVE.sha256}", fname=ARCHIVE.name, path=folder)
        except (OSError, ValueError, HTTPError) as error:  # not reached or not found; wrong checksum; cut short
            tried.append(f"{address} ({' '.join(str(error).split())[:200]})")
        else:
            unpack(Path(found), folder)
            Path(found).unlink()
            return folder
    raise ReadError(
        f"{NAME} cannot be downloaded to '{folder}'; tried {'; '.join(tried)}. Get {ARCHIVE.name} by other means, "
        "unpack it and name its folder: data_folder=..., --data-folder, or the environment variable CALIB_DATA"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Write the six files of an archive into a folder, whatever else and whatever paths the archive has.

    Raises
    ------
    ReadError
        When the archive is damaged or lacks one of them.
    """
    try:
        missing = set(FILES)
        for name, content in _members(archive):
            if name in missing:
                with files.atomic_write(folder / name) as path:
                    path.write_bytes(content)
                missing.remove(name)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ReadError(f"'{archive}' cannot be unpacked ({error}); delete it and fetch it again") from error
    if missing:
        raise ReadError(f"'{archive}' lacks {', '.join(sorted(missing))}; expected the binary version of CIFAR-10")


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name without folder and content of the regular files of the data set; links and others are passed over."""
    with tarfile.open(archive, "r:gz") as opened:
        for member in opened:
            name = PurePosixPath(member.name).name
            if name in FILES and member.isreg() and member.size <= _LARGEST:
                content = opened.extractfile(member)
                assert content is not None, "a regular file has content"
                yield name, content.read()
