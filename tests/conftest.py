"""Fixtures that all tests share, and settings that must be in place before numpy, torch or matplotlib are imported."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from calib.runs import Run

# Workers of pytest-xdist share the cores: one thread each. torch and the BLAS libraries read this on their import.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ["MPLBACKEND"] = "Agg"
os.environ.pop("CALIB_DATA", None)

settings.register_profile("calib", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("calib")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def measurements() -> Path:
    """The folder of raw measurements of real devices."""
    return _shared("measurements")


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder with the four files of MNIST."""
    return _shared("mnist")


def _shared(name: str) -> Path:
    folder = ROOT.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"the folder ../shared/{name} is not beside this checkout")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch use one thread: small networks gain nothing from more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def ideal_run(tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """Two networks for `blobs(n_train=120, n_test=90)`, trained as if the device were ideal; read only."""
    from tests.simple_devices import blobs, device, trained

    return trained(
        tmp_path_factory.mktemp("runs"), device(), blobs(n_train=120, n_test=90), epochs=12, ideal=True, batch_size=20,
        learning_rate=0.05,
    )  # fmt: skip
