"""Files are written whole or not at all."""

import errno
import hashlib
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from calib import data_folder, device_model, files
from calib.errors import CalibError
from calib.files import atomic_write, sha256_of, write_text


def test_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "card.json"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".json"
        temporary.write_text("content", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "content"
    assert os.listdir(path.parent) == ["card.json"]


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text("old", encoding="utf-8")

    def interrupted() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["card.json"]


def test_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    with (
        pytest.raises(CalibError, match=r"cannot write '.*card\.json': No space left on device; nothing was changed"),
        atomic_write(path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(CalibError, match="it is a folder; give a file name"):
        write_text(tmp_path, "text")


def test_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CalibError, match="cannot write"):
        write_text(tmp_path / "file" / "card.json", "text")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CalibError, match="Permission denied"):
        write_text(tmp_path / "card.json", "text")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "card.json", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "card.json").stat().st_mode) == 0o640


def test_text_is_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "kΩ\nµA\n")
    assert (tmp_path / "a.txt").read_bytes() == "kΩ\nµA\n".encode()


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "a.bin").write_bytes(content)
    assert sha256_of(tmp_path / "a.bin") == hashlib.sha256(content).hexdigest()


def test_a_file_on_which_the_library_would_not_end_is_stopped(tmp_path, monkeypatch):
    """Damage that makes libhdf5 loop or crash ends the child process that looks first, not this one."""
    path = tmp_path / "device.nc"
    path.write_bytes(data_folder.bundled_model_path("ta-hfo2").read_bytes())
    files.probe_hdf5(path)  # a good file passes
    monkeypatch.setattr(files, "_walk_hdf5", lambda _: [None for _ in iter(int, 1)])  # without end
    with pytest.raises(OSError, match=r"reading it does not end \(1 s\)"):
        files.probe_hdf5(path, seconds=1)
    monkeypatch.setattr(files, "_walk_hdf5", lambda _: time.sleep(60))
    monkeypatch.setattr(files, "_PATIENCE", 1)
    with pytest.raises(OSError, match=r"reading it does not end \(1 s\)"):
        files.probe_hdf5(path, seconds=1)
    monkeypatch.setattr(files, "_walk_hdf5", lambda _: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(OSError, match="crashes the HDF5 library"):
        files.probe_hdf5(path)
    with pytest.raises(CalibError, match=r"device\.nc' cannot be read as a device model: reading it crashes"):
        device_model.open_device(path)
