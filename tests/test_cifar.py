"""CIFAR-10: its binary version, its download from a local server, and what the paper does to its training images."""

import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from calib import cifar, vision
from calib.cli import main
from calib.errors import ReadError
from calib.reproduction.cifar import SHIFT, Augmentation, find
from calib.training import train
from tests.local_mirror import Mirror

pytestmark = pytest.mark.usefixtures("one_thread")


def contents() -> dict[str, bytes]:
    """Ten images of brightnesses that tell their classes, in each of the six files."""
    labels = np.arange(10, dtype=np.uint8)
    made = {}
    for number, name in enumerate(cifar.FILES):
        pixels = np.repeat(25 * labels[:, None] + number, 3072, axis=1).astype(np.uint8)
        made[name] = np.concatenate([labels[:, None], pixels], axis=1).tobytes()
    return made


def archive(members: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for info in extra or []:
            opened.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def published() -> bytes:
    return archive({f"cifar-10-batches-bin/{name}": content for name, content in contents().items()})


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "_cache", lambda: tmp_path / "cache" / "cifar-10")
    monkeypatch.delenv("CALIB_DATA", raising=False)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A local server whose folder 'bad' is empty and whose folder 'good' has the archive."""
    server = Mirror()
    content = published()
    server.files["/good/c.tar.gz"] = content
    local = dataclasses.replace(
        cifar.ARCHIVE,
        addresses=(server.address("bad") + "c.tar.gz", server.address("good") + "c.tar.gz"),
        sha256=hashlib.sha256(content).hexdigest(),
        files_sha256=tuple(hashlib.sha256(one).hexdigest() for one in contents().values()),
    )
    monkeypatch.setattr(cifar, "ARCHIVE", local)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.stop()


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in contents().items():
        (folder / name).write_bytes(content)
    return folder


def test_the_archive_is_the_published_one() -> None:
    # SHA-256 of cifar-10-binary.tar.gz, whose MD5 the authors state as c32a1d4ab5d03f1284b67883e8d87530.
    assert cifar.ARCHIVE.sha256.startswith("c4a38c50a1bc5f3a")
    assert all(address.endswith(cifar.ARCHIVE.name) for address in cifar.ARCHIVE.addresses)
    assert len(set(cifar.ARCHIVE.files_sha256)) == len(cifar.FILES) == 6


@pytest.mark.parametrize("below", ["", "cifar-10", "cifar-10-batches-bin", "cifar-10/cifar-10-batches-bin"])
def test_files_of_a_folder(tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "data" / below)
    data = vision.load("cifar-10", data_folder=tmp_path / "data")
    assert data.train_images.shape == (50, 3072)
    assert data.test_images.shape == (10, 3072)
    assert data.image_shape == (3, 32, 32)
    np.testing.assert_allclose(data.test_images[:, -1], (25 * data.test_labels + 5) / 255, rtol=1e-6)
    assert data.train_labels.tolist() == 5 * list(range(10))
    assert "checksums of data_batch_1.bin" in data.source
    monkeypatch.setenv("CALIB_DATA", str(tmp_path / "data"))
    assert vision.locate("cifar-10") == find(None) == find(tmp_path / "elsewhere") == folder
    assert vision.load("cifar-10").sha256 == data.sha256


def test_planes_are_red_green_and_blue() -> None:
    one = np.zeros((1, 3073), dtype=np.uint8)
    one[0, 1 + 1024 + 32 * 4 + 7] = 255  # green, line 4, column 7
    image = torch.tensor(one[0, 1:]).unflatten(0, cifar.SHAPE)
    assert image.nonzero().tolist() == [[1, 4, 7]]


def test_download_tries_the_next_address_and_keeps_the_six_files(mirror: Mirror, tmp_path: Path) -> None:
    data = vision.load("cifar-10")
    assert "all checksums agree" in data.source
    assert mirror.asked == ["/bad/c.tar.gz", "/good/c.tar.gz"]
    assert sorted(path.name for path in (tmp_path / "cache" / "cifar-10").iterdir()) == sorted(cifar.FILES)
    mirror.asked.clear()
    assert vision.load("cifar-10").sha256 == data.sha256
    assert mirror.asked == []


@pytest.mark.parametrize("failure", ["missing", "checksum", "cut", "unreachable"])
def test_download_that_fails_says_what_was_tried(mirror: Mirror, tmp_path: Path, failure: str) -> None:
    if failure == "missing":
        mirror.files.clear()
    elif failure == "checksum":
        mirror.files["/good/c.tar.gz"] = archive({"cifar-10-batches-bin/test_batch.bin": b"another"})
    elif failure == "cut":
        mirror.cut = True
    else:
        mirror.stop()
    with pytest.raises(ReadError, match="cifar-10 cannot be downloaded") as raised:
        vision.load("cifar-10")
    for words in (*cifar.ARCHIVE.addresses, "cifar-10-binary.tar.gz", "CALIB_DATA"):
        assert words in str(raised.value)
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))


def test_data_fetch(mirror: Mirror, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["data", "fetch", "cifar-10", "--data-folder", str(tmp_path / "data")]) == 0
    assert "cifar-10: 50 + 10 images of 3 x 32 x 32" in capsys.readouterr().out
    assert cifar.locate(tmp_path / "data") == tmp_path / "data" / "cifar-10"
    assert main(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["cifar-10"]["available"] is False


def test_unpacking_writes_nothing_but_the_six_files(tmp_path: Path) -> None:
    link = tarfile.TarInfo("data_batch_1.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    huge = tarfile.TarInfo("data_batch_2.bin")  # a regular file whose size is beyond that of the data set
    members = {"../../outside.bin": b"1", "/absolute.bin": b"2"}
    members |= {f"../../{name}": content for name, content in contents().items()}
    path = tmp_path / "a" / "b" / "c.tar.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(archive(members, [link, huge]))
    (tmp_path / "a" / "b" / "c").mkdir()
    cifar.unpack(path, tmp_path / "a" / "b" / "c")
    written = {one.relative_to(tmp_path).as_posix() for one in tmp_path.rglob("*") if one.is_file()}
    assert written == {"a/b/c.tar.gz", *(f"a/b/c/{name}" for name in cifar.FILES)}
    assert not (tmp_path / "a" / "b" / "c" / "data_batch_1.bin").is_symlink()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (published()[:-200], "cannot be unpacked"),
        (b"no archive", "cannot be unpacked"),
        (archive({"cifar-10-batches-bin/test_batch.bin": b"1"}), r"lacks data_batch_1\.bin, .*data_batch_5\.bin;"),
    ],
)
def test_archive_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "c.tar.gz").write_bytes(content)
    with pytest.raises(ReadError, match=message):
        cifar.unpack(tmp_path / "c.tar.gz", tmp_path)


def test_damaged_or_absent_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "cifar-10")
    (folder / cifar.TEST_FILE).write_bytes(b"\0" * 3074)
    with pytest.raises(ReadError, match="has 3074 bytes; expected records of 3073"):
        vision.load("cifar-10", data_folder=tmp_path)
    (folder / cifar.TEST_FILE).write_bytes(b"\x0a" * 3073)
    with pytest.raises(ReadError, match=r"test_batch.bin' holds the class 10; expected 0 to 9"):
        vision.load("cifar-10", data_folder=tmp_path)
    (folder / cifar.TEST_FILE).unlink()
    with pytest.raises(ReadError, match=r"lacks the files data_batch_1\.bin, .*'calib data fetch cifar-10' downloads"):
        vision.load("cifar-10", data_folder=tmp_path)


def ramps(count: int) -> torch.Tensor:
    """Images that rise by 1 a pixel from left to right (first channel) and from top to bottom (second)."""
    line = torch.arange(32.0)
    return torch.stack([line.expand(32, 32), line[:, None].expand(32, 32)]).expand(count, 2, 32, 32).contiguous()


def test_augmentation_shifts_and_flips() -> None:
    torch.manual_seed(5)
    module, images = Augmentation(), ramps(1500)
    assert module.eval()(images) is images
    found = module.train()(images)
    across, down = found[:, 0], found[:, 1]
    middle = slice(8, 24)  # away from edges, where reflection bends the ramps
    slope = across[:, 16, 17] - across[:, 16, 16]
    flipped = slope < 0
    torch.testing.assert_close(slope.abs(), torch.ones(1500), atol=1e-3, rtol=0)
    assert float(flipped.float().mean()) == pytest.approx(0.5, abs=4 * 0.5 / 1500**0.5)
    mirrored = torch.where(flipped[:, None, None], across.flip(-1), across)
    shifts = torch.stack([mirrored - images[:, 0], down - images[:, 1]])[:, :, middle, middle]
    assert float(shifts.std((2, 3)).max()) < 1e-3  # the same for all pixels of an image
    shift = shifts.mean((2, 3)) / 32
    assert float(shift.abs().max()) <= SHIFT + 1e-6
    for one in shift:  # uniform in [-0.1, 0.1]
        assert float(one.mean()) == pytest.approx(0, abs=4 * SHIFT / 3**0.5 / 1500**0.5)
        assert float(one.std()) == pytest.approx(SHIFT / 3**0.5, rel=0.05)
    assert abs(float(torch.corrcoef(shift)[0, 1])) < 4 / 1500**0.5
    assert float(found.min()) >= 0  # reflected about the edges, not filled
    assert float(found.max()) <= 31 + 1e-3


def test_an_interrupted_training_has_the_images_of_a_whole_one(tmp_path: Path) -> None:
    write(tmp_path / "cifar-10")
    options = {
        "dataset": "cifar-10", "data_folder": tmp_path, "network": "calib.reproduction.cifar:network", "epochs": 2,
        "ideal": True, "batch_size": 10,
    }  # fmt: skip

    def stop(network: int, row: dict[str, float]) -> None:
        raise KeyboardInterrupt

    whole = train("siox-high-resistance", output=tmp_path / "whole", **options).checkpoint(0)
    with pytest.raises(KeyboardInterrupt):
        train("siox-high-resistance", output=tmp_path / "parts", **options, progress=stop)
    parts = train("siox-high-resistance", output=tmp_path / "parts", **options, resume=True).checkpoint(0)
    assert whole is not None
    assert parts is not None
    for name, value in whole["network"].items():
        torch.testing.assert_close(parts["network"][name], value, rtol=0, atol=0)
    losses = [row["train_loss"] for row in whole["history"]]
    assert losses == [row["train_loss"] for row in parts["history"]]
