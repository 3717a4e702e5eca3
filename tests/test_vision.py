"""Image data sets: parsing, splitting, downloading and what damaged files say."""

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from calib import cifar, idx, vision
from calib.cli import main
from calib.errors import CalibError, OptionError, ReadError
from tests.local_mirror import Mirror


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes() + array.astype(np.uint8).tobytes()
    )


def small_set(n_train: int = 6, n_test: int = 4) -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    arrays = []
    for n in (n_train, n_test):
        arrays += [generator.integers(0, 256, (n, 3, 2)), np.arange(n) % 3]
    return arrays


def compressed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def write_set(folder: Path, suffix: str = ".gz", arrays: list[np.ndarray] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in zip(idx.IDX_FILES, arrays or small_set(), strict=True):
        content = idx_bytes(array)
        (folder / f"{stem}{suffix}").write_bytes(compressed(content) if suffix == ".gz" else content)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(cifar, "_cache", lambda: tmp_path / "cache" / "cifar-10")
    monkeypatch.delenv("CALIB_DATA", raising=False)


def serve(mirror: Mirror, folder: str) -> None:
    for stem, array in zip(idx.IDX_FILES, small_set(), strict=True):
        mirror.files[f"/{folder}/{stem}.gz"] = compressed(idx_bytes(array))


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A local mirror 'bad' (empty) and a local mirror 'good', which take the place of MNIST's."""
    server = Mirror()
    serve(server, "good")
    contents = [idx_bytes(array) for array in small_set()]
    local = dataclasses.replace(
        idx.IDX_SETS["mnist"],
        mirrors=(server.address("bad"), server.address("good")),
        md5=tuple(hashlib.md5(compressed(c)).hexdigest() for c in contents),
        sha256=tuple(hashlib.sha256(c).hexdigest() for c in contents),
    )
    monkeypatch.setitem(idx.IDX_SETS, "mnist", local)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.stop()


def test_digits_are_split_once_and_for_all() -> None:
    data = vision.load("digits")
    assert data.train_images.shape == (1438, 64)
    assert data.test_images.shape == (359, 64)
    assert data.image_shape == (8, 8)
    assert (data.n_features, data.n_classes) == (64, 10)
    assert data.train_images.dtype == np.float32
    assert data.train_images.min() == 0
    assert data.train_images.max() == 1
    # Every class gives a fifth of its images, to the nearest one.
    counts = [np.bincount(labels) for labels in (data.train_labels, data.test_labels)]
    assert np.all(np.abs(counts[1] - 0.2 * (counts[0] + counts[1])) <= 0.5)
    assert data.sha256 == "55294539ff4d35f745a3a32fc0715207ffe1aab43e1b130fa5aee2eec9469b5d"
    assert f"seed {vision.SPLIT_SEED}" in data.source


def test_digits_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="read-only"):
        vision.load("digits").train_images[0, 0] = 1


def test_mnist_agrees_with_its_published_checksums(mnist_folder: Path) -> None:
    data = vision.load("mnist", data_folder=mnist_folder)
    assert data.train_images.shape == (60000, 784)
    assert data.test_images.shape == (10000, 784)
    assert data.image_shape == (28, 28)
    # The first labels of the training and the test set, as printed in many introductions to MNIST.
    assert data.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.train_images.mean() == pytest.approx(0.1307, abs=1e-4)  # the mean that MNIST is usually normalised with
    assert data.train_images.std() == pytest.approx(0.3081, abs=1e-4)
    assert "all checksums agree" in data.source


def test_mnist_is_not_taken_for_fashion_mnist(mnist_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReadError, match="those of another data set than fashion-mnist"):
        vision.load("fashion-mnist", data_folder=mnist_folder)
    monkeypatch.setenv("CALIB_DATA", str(mnist_folder))
    assert idx.locate("mnist") == mnist_folder
    assert idx.locate("fashion-mnist") is None


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("below", ["", "mnist"])
def test_local_files_with_other_checksums_are_used_and_said_so(tmp_path: Path, suffix: str, below: str) -> None:
    write_set(tmp_path / below, suffix)
    data = vision.load("mnist", data_folder=tmp_path)
    arrays = small_set()
    assert np.array_equal(data.train_images, arrays[0].reshape(6, 6).astype(np.float32) / np.float32(255))
    assert np.array_equal(data.test_labels, arrays[3])
    assert data.image_shape == (3, 2)
    assert "checksums of train-images-idx3-ubyte" in data.source
    assert "differ" in data.source


def test_environment_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "fashion-mnist")
    monkeypatch.setenv("CALIB_DATA", str(tmp_path))
    assert len(vision.load("fashion-mnist").train_labels) == 6


def test_folder_of_idx_files_is_a_data_set(tmp_path: Path) -> None:
    data = vision.load(write_set(tmp_path / "letters"))
    assert data.name == "letters"
    assert data.train_images.shape == (6, 6)


def test_incomplete_folder_names_what_it_lacks(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ReadError, match=r"lacks t10k-labels-idx1-ubyte\.gz; expected the four IDX files"):
        vision.load("mnist", data_folder=tmp_path)
    with pytest.raises(ReadError, match="nowhere' is no folder"):
        vision.load("mnist", data_folder=tmp_path / "nowhere")


def damage_magic(content: bytes) -> bytes:
    return compressed(b"\x00\x00\x0d\x03" + gzip.decompress(content)[4:])


def damage_size(content: bytes) -> bytes:
    return compressed(gzip.decompress(content)[:-1])


def damage_excess(content: bytes) -> bytes:
    return compressed(gzip.decompress(content) + b"\x00")


def damage_header(content: bytes) -> bytes:
    return compressed(gzip.decompress(content)[:9])


def damage_cut(content: bytes) -> bytes:
    return content[:-20]


def damage_bits(content: bytes) -> bytes:
    return content[:-6] + bytes(6)


def damage_other(content: bytes) -> bytes:
    return b"<html>404</html>"


def damage_nothing_in_it(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_magic, "begins with the bytes '00000d03.*expected '00000803'"),
        (damage_size, "holds 35 values; expected 6 x 3 x 2 = 36"),
        (damage_excess, "holds 37 values; expected 6 x 3 x 2 = 36"),
        (damage_header, "begins with the bytes"),
        (damage_cut, "damaged or cut short"),
        (damage_bits, "damaged or cut short"),
        (damage_other, "damaged or cut short"),
        (damage_nothing_in_it, "begins with the bytes ''"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    path = write_set(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ReadError, match=message) as raised:
        vision.load("mnist", data_folder=tmp_path)
    assert str(path) in str(raised.value)


def test_labels_must_be_as_many_as_images(tmp_path: Path) -> None:
    arrays = small_set()
    arrays[3] = arrays[3][:-1]
    with pytest.raises(ReadError, match=r"t10k-labels-idx1-ubyte\.gz' holds 3 labels; expected 4"):
        vision.load(write_set(tmp_path, arrays=arrays))


def test_train_and_test_images_must_have_one_shape(tmp_path: Path) -> None:
    arrays = small_set()
    arrays[2] = arrays[2][:, :2]
    with pytest.raises(ReadError, match=r"shape \(2, 2\); expected \(3, 2\)"):
        vision.load(write_set(tmp_path, arrays=arrays))


def test_download_tries_the_next_mirror(mirror: Mirror, tmp_path: Path) -> None:
    data = vision.load("mnist")
    assert np.array_equal(data.train_labels, small_set()[1])
    assert "all checksums agree" in data.source
    assert [path.split("/")[1] for path in mirror.asked] == ["bad", "good", "good", "good", "good"]
    assert sorted(path.name for path in (tmp_path / "cache" / "mnist").iterdir()) == sorted(
        f"{stem}.gz" for stem in idx.IDX_FILES
    )
    mirror.asked.clear()
    assert vision.load("mnist").sha256 == data.sha256
    assert mirror.asked == []


def test_download_with_wrong_checksum_goes_on_to_the_next_mirror(mirror: Mirror) -> None:
    serve(mirror, "bad")
    mirror.files["/bad/train-labels-idx1-ubyte.gz"] = compressed(b"something else")
    assert len(vision.load("mnist").train_labels) == 6
    # The images from the first mirror were whole and are not fetched twice.
    assert mirror.asked.count("/good/train-images-idx3-ubyte.gz") == 0


@pytest.mark.parametrize("failure", ["missing", "checksum", "cut", "unreachable"])
def test_download_that_fails_says_what_was_tried(mirror: Mirror, tmp_path: Path, failure: str) -> None:
    if failure == "missing":
        mirror.files.clear()
    elif failure == "checksum":
        mirror.files = dict.fromkeys(mirror.files, b"something else")
    elif failure == "cut":
        mirror.cut = True
    else:
        mirror.stop()
    with pytest.raises(ReadError, match="mnist cannot be downloaded") as raised:
        vision.load("mnist")
    for words in (
        mirror.address("bad"),
        mirror.address("good"),
        "t10k-labels-idx1-ubyte.gz",
        "CALIB_DATA",
        "--data-folder",
    ):
        assert words in str(raised.value)
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))


def test_fetch_into_a_folder_that_load_then_uses(mirror: Mirror, tmp_path: Path) -> None:
    assert idx.fetch("mnist", data_folder=tmp_path / "data") == tmp_path / "data" / "mnist"
    assert "all checksums agree" in vision.load("mnist", data_folder=tmp_path / "data").source


def test_only_known_sets_are_fetched() -> None:
    with pytest.raises(
        OptionError, match="'digits' is not a data set that can be downloaded; expected mnist or fashion-"
    ):
        idx.fetch("digits")
    with pytest.raises(OptionError, match="expected one of mnist, fashion-mnist, cifar-10"):
        vision.fetch("digits")


def test_unknown_set_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"no data set 'minst'; expected one of digits, mnist, fashion-mnist"):
        vision.load("minst")


def test_npz_with_two_parts(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    images = np.linspace(0, 1, 24).reshape(4, 2, 3)
    np.savez(path, train_images=images, train_labels=np.arange(4), test_images=images[:2], test_labels=np.arange(2))
    data = vision.load(path)
    assert data.name == "own"
    assert data.image_shape == (2, 3)
    assert np.array_equal(data.train_images, images.reshape(4, 6).astype(np.float32))
    assert "own.npz" in data.source


def test_npz_with_one_part_is_split(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    images = np.arange(200, dtype=np.uint8).reshape(20, 10)
    np.savez(path, images=images, labels=np.arange(20) % 2)
    data = vision.load(str(path))
    assert np.bincount(data.train_labels).tolist() == [8, 8]
    assert np.bincount(data.test_labels).tolist() == [2, 2]
    together = np.vstack([data.train_images, data.test_images])
    assert np.array_equal(np.sort(together[:, 0]), images[:, 0] / np.float32(255))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((4, 2)), "label": np.arange(4)}, "holds the arrays images, label and lacks train_images"),
        ({"images": np.full((4, 2), 2.0), "labels": np.arange(4)}, "lie between 2.0 and 2.0; expected uint8"),
        ({"images": np.full((4, 2), np.nan), "labels": np.arange(4)}, "without NaN"),
        ({"images": np.zeros((4, 2)), "labels": np.arange(3)}, "expected 4 class numbers"),
        ({"images": np.zeros((4, 2)), "labels": np.arange(4) - 1}, "integers from 0"),
        ({"images": np.zeros((4, 2)), "labels": np.zeros(4)}, "type float64; expected 4 class numbers"),
        ({"images": np.zeros(4), "labels": np.arange(4)}, r"shape \(4,\); expected \(image, ...\)"),
        ({"images": np.zeros((4, 2)), "labels": np.arange(4)}, "leave none for testing"),
        ({"images": np.array([{}, {}]), "labels": np.arange(2)}, "cannot be read as an .npz file of plain arrays"),
    ],
)
def test_npz_that_cannot_be_used(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(CalibError, match=message):
        vision.load(path)


def test_npz_that_is_none(tmp_path: Path) -> None:
    for content in (b"no archive", b"", b"PK\x03\x04 cut"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ReadError, match="cannot be read as an .npz file"):
            vision.load(tmp_path / "bad.npz")
    with pytest.raises(ReadError, match="absent.npz' cannot be read"):
        vision.load(tmp_path / "absent.npz")


def test_npy_array_under_the_name_of_an_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(ReadError, match="cannot be read as an .npz file"):
        vision.load(tmp_path / "one.npz")


def test_data_list(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIB_DATA", str(tmp_path))
    write_set(tmp_path / "mnist")
    assert main(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["digits", "mnist", "fashion-mnist", "cifar-10"]
    assert rows["cifar-10"]["place"] == "not here: calib data fetch cifar-10"
    assert (rows["cifar-10"]["train"], rows["cifar-10"]["image_shape"]) == (50_000, [3, 32, 32])
    assert rows["digits"]["train"] + rows["digits"]["test"] == 1797
    assert rows["mnist"]["place"] == str(tmp_path / "mnist")
    assert rows["fashion-mnist"]["available"] is False
    assert main(["data", "list"]) == 0
    assert "calib data fetch" in capsys.readouterr().out


def test_data_fetch(mirror: Mirror, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["data", "fetch", "mnist", "--data-folder", str(tmp_path / "data")]) == 0
    assert "mnist: 6 + 4 images of 3 x 2" in capsys.readouterr().out
    assert main(["data", "fetch", "digits"]) == 0
    assert "with scikit-learn" in capsys.readouterr().out
    assert main(["data", "fetch", "nothing"]) == 1
    assert "expected one of mnist, fashion-mnist, cifar-10" in capsys.readouterr().err
