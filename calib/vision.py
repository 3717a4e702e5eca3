"""Image data sets that networks are trained on: digits, MNIST, Fashion-MNIST, CIFAR-10, IDX files and .npz files.

Images are float32 in [0, 1] and flattened, shape (image, feature), because an input x becomes the word-line voltage
k_V x. Sets that are not digits are looked for in this order: the folder that was given, the folder of the environment
variable CALIB_DATA, the download cache, and the mirrors of the set, with checksums. Nothing is unpickled.
"""

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calib import cifar, idx
from calib.errors import OptionError, ReadError
from calib.files import sha256_of

SPLIT_SEED = 20220105
TEST_FRACTION = 0.2
DIGITS_TITLE = "scikit-learn's copy of the UCI Optical Recognition of Handwritten Digits (doi 10.24432/C50P49)"
DIGITS_LICENCE = "CC BY 4.0"


@dataclass(frozen=True)
class ImageData:
    """Images and labels for training and for testing.

    Attributes
    ----------
    name : name of the set.
    train_images, test_images : float32 in [0, 1], shape (image, feature).
    train_labels, test_labels : int64 class numbers from 0, shape (image,).
    image_shape : shape of one image, whose product is the number of features.
    source : one sentence on where the images come from and whether their checksums agree.
    sha256 : of the content: the shapes and the little-endian bytes of the four arrays.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    image_shape: tuple[int, ...]
    source: str
    sha256: str

    @property
    def n_features(self) -> int:
        """Number of inputs that a network needs."""
        return int(self.train_images.shape[1])

    @property
    def n_classes(self) -> int:
        """Number of outputs that a network needs."""
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1


def names() -> list[str]:
    """Return the names of the data sets that `load` knows."""
    return ["digits", *idx.IDX_SETS, cifar.NAME]


def load(name: str | Path, *, data_folder: str | Path | None = None) -> ImageData:
    """Return the images and labels of a data set.

    Parameters
    ----------
    name : one of `names()`; or the path of an ``.npz`` file with the arrays ``images`` and ``labels`` (a fifth of each
        class becomes the test set) or ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``
        (uint8, or floating point in [0, 1]); or a folder with the four IDX files of another set.
    data_folder : folder with the files of a named set (the four IDX files, .gz or not; the six binary files of
        CIFAR-10), or with a folder of the set's name that holds them; nothing is downloaded then.

    Raises
    ------
    OptionError
        When there is no such data set.
    ReadError
        When a file is missing, damaged, or cannot be downloaded.
    """
    if name == "digits":
        return _digits()
    if name in idx.IDX_SETS:
        return _idx_set(str(name), data_folder)
    if name == cifar.NAME:
        return _cifar(data_folder)
    path = Path(name)
    if path.is_dir():
        folder = path.resolve().name
        return _from_idx_arrays(folder, idx.read_set(path)[0], f"IDX files of the folder '{folder}'")
    if path.suffix == ".npz":
        return _from_npz(path)
    raise OptionError(
        f"there is no data set '{name}'; expected one of {', '.join(names())}, the path of an .npz file with images "
        "and labels, or a folder of IDX files"
    )


def locate(name: str, data_folder: str | Path | None = None) -> Path | None:
    """Return the folder of a named set's files on this machine, None where they are not or the set needs none."""
    if name == cifar.NAME:
        return cifar.locate(data_folder)
    return idx.locate(name, data_folder) if name in idx.IDX_SETS else None


def fetch(name: str, *, data_folder: str | Path | None = None) -> Path:
    """Download the files of a named set where they are not there yet, and return their folder.

    Parameters
    ----------
    name : one of `names()` but 'digits', which comes with scikit-learn.
    data_folder : the files go to the folder of the set's name in this folder; by default to the download cache.

    Raises
    ------
    OptionError
        When that set cannot be downloaded.
    ReadError
        When no address gives all files with their checksums.
    """
    if name == cifar.NAME:
        return cifar.fetch(data_folder)
    if name not in idx.IDX_SETS:
        known = ", ".join(set_name for set_name in names() if set_name != "digits")
        raise OptionError(f"'{name}' is not a data set that can be downloaded; expected one of {known}")
    return idx.fetch(name, data_folder=data_folder)


def _digits() -> ImageData:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    source = f"{DIGITS_TITLE}, {DIGITS_LICENCE}; {_split_sentence()}"
    return _build("digits", _split(np.asarray(images) / 16, np.asarray(labels)), (8, 8), source)


def _idx_set(name: str, data_folder: str | Path | None) -> ImageData:
    image_set = idx.IDX_SETS[name]
    folder = idx.locate(name, data_folder)
    if folder is None and data_folder is None:
        folder = idx.fetch(name)
    if folder is None:
        idx.require_all(Path(str(data_folder)))
        raise ReadError(
            f"the files in '{data_folder}' are those of another data set than {name}; give the folder of {name}, or "
            f"one that holds a folder '{name}'"
        )
    arrays, checksums = idx.read_set(folder, image_set)
    source = f"{image_set.title}, {image_set.licence}, from the folder '{folder.resolve().name}'; {checksums}"
    return _from_idx_arrays(name, arrays, source)


def _cifar(data_folder: str | Path | None) -> ImageData:
    folder = cifar.locate(data_folder)
    if folder is None and data_folder is not None:
        raise ReadError(
            f"'{data_folder}' lacks the files {', '.join(cifar.FILES)} of {cifar.NAME}, in itself and in a folder "
            f"'{cifar.NAME}' or 'cifar-10-batches-bin'; expected the binary version, which 'calib data fetch "
            f"{cifar.NAME}' downloads"
        )
    folder = folder or cifar.fetch()
    (train_images, train_labels, test_images, test_labels), checksums = cifar.read(folder)
    source = f"{cifar.TITLE}, licence: {cifar.LICENCE}, from the folder '{folder.resolve().name}'; {checksums}"
    scaled = (_scaled(train_images, cifar.NAME), train_labels, _scaled(test_images, cifar.NAME), test_labels)
    return _build(cifar.NAME, scaled, cifar.SHAPE, source)


def _from_idx_arrays(name: str, arrays: list[np.ndarray], source: str) -> ImageData:
    train_images, train_labels, test_images, test_labels = arrays
    scaled = (_scaled(train_images, name), train_labels, _scaled(test_images, name), test_labels)
    return _build(name, scaled, train_images.shape[1:], source)


def _from_npz(path: Path) -> ImageData:
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: np.asarray(file[key]) for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise ReadError(f"'{path}' cannot be read as an .npz file of plain arrays: {error}") from error
    parts = [("train_images", "train_labels"), ("test_images", "test_labels")]
    if "images" in arrays and "labels" in arrays:
        parts = [("images", "labels")]
    elif missing := [key for pair in parts for key in pair if key not in arrays]:
        raise ReadError(
            f"'{path}' holds the arrays {', '.join(arrays) or '(none)'} and lacks {', '.join(missing)}; expected "
            "images and labels, or train_images, train_labels, test_images and test_labels"
        )
    checked = [_checked_pair(arrays[images], arrays[labels], f"{images} of '{path}'") for images, labels in parts]
    shapes = [arrays[images].shape[1:] for images, _ in parts]
    if len(set(shapes)) > 1:
        raise ReadError(
            f"the images of '{path}' have the shapes {shapes[0]} (train) and {shapes[1]} (test); expected one"
        )
    source = f"arrays of the file '{path.name}' (SHA-256 {sha256_of(path)})"
    if len(checked) == 1:
        return _build(path.stem, _split(*checked[0]), shapes[0], f"{source}; {_split_sentence()}")
    return _build(path.stem, (*checked[0], *checked[1]), shapes[0], source)


def _checked_pair(images: np.ndarray, labels: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    if images.ndim < 2 or 0 in images.shape:
        raise ReadError(f"{what} have the shape {images.shape}; expected (image, ...) with at least one feature")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ReadError(
            f"the labels beside {what} have the shape {labels.shape} and type {labels.dtype}; expected {len(images)} "
            "class numbers: integers from 0"
        )
    return _scaled(images, what), labels


def _scaled(images: np.ndarray, what: str) -> np.ndarray:
    """Return images as float32 in [0, 1], shape (image, feature)."""
    if images.dtype == np.uint8:
        return images.reshape(len(images), -1) / np.float32(255)
    if images.dtype.kind != "f" or not (np.min(images) >= 0 and np.max(images) <= 1):
        raise ReadError(
            f"{what} are of type {images.dtype} and lie between {images.min()} and {images.max()}; expected uint8, or "
            "floating point in [0, 1] without NaN"
        )
    return images.reshape(len(images), -1).astype(np.float32)


def _split(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Put a fifth of every class into the test set; the order of the images is kept."""
    random = np.random.RandomState(SPLIT_SEED)  # its stream is the same in every version of numpy
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        test[members[: round(TEST_FRACTION * len(members))]] = True
    if not test.any():
        raise ReadError(
            f"{len(labels)} images in {len(np.unique(labels))} classes leave none for testing; expected at least 3 of "
            "one class, or separate test_images and test_labels"
        )
    return images[~test], labels[~test], images[test], labels[test]


def _split_sentence() -> str:
    return f"a fixed {TEST_FRACTION:.0%} of every class, drawn with seed {SPLIT_SEED}, is the test set"


def _build(name: str, arrays: tuple[np.ndarray, ...], image_shape: tuple[int, ...], source: str) -> ImageData:
    digest = hashlib.sha256(repr((image_shape, *(array.shape for array in arrays))).encode())
    fixed = []
    for array, dtype in zip(arrays, ("<f4", "<i8", "<f4", "<i8"), strict=True):
        fixed.append(np.ascontiguousarray(array, dtype=dtype))
        digest.update(fixed[-1].data)
        fixed[-1].setflags(write=False)
    return ImageData(name, fixed[0], fixed[1], fixed[2], fixed[3], tuple(image_shape), source, digest.hexdigest())
