"""The CIFAR-10 images and the convolutional network of the paper."""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from calib.errors import ReadError
from calib.vision import ImageData

SHAPE = (3, 32, 32)
HIDDEN_UNITS = 25
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
_FOLDERS = ("", "cifar-10-batches-bin", "cifar-10", "cifar-10/cifar-10-batches-bin")
_RECORD = 1 + 3 * 32 * 32
ABSENT = (
    "CIFAR-10 was left out: its binary version (data_batch_1.bin to data_batch_5.bin and test_batch.bin) is neither in "
    "the folder --data nor in that of CALIB_DATA."
)


def find(data: str | Path | None) -> Path | None:
    """Return the folder with the six binary files, in `data`, that of CALIB_DATA or one below; None without."""
    given = [data, os.environ.get("CALIB_DATA")]
    for place in (Path(item) for item in given if item):
        for below in _FOLDERS:
            if all((place / below / name).is_file() for name in (*TRAIN_FILES, TEST_FILE)):
                return place / below
    return None


def load(folder: Path) -> ImageData:
    """Return the images of the binary version: each record is a label and the red, green and blue planes.

    Raises
    ------
    ReadError
        When a file does not consist of such records.
    """
    digest = hashlib.sha256()
    parts = []
    for name in (*TRAIN_FILES, TEST_FILE):
        content = (folder / name).read_bytes()
        if not content or len(content) % _RECORD:
            raise ReadError(
                f"'{folder / name}' has {len(content)} bytes; expected records of {_RECORD}: a label and 3 x 32 x 32 "
                "values; take the binary version of CIFAR-10"
            )
        digest.update(content)
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _RECORD)
        parts.append((records[:, 1:] / np.float32(255), records[:, 0].astype(np.int64)))
    return ImageData(
        name="cifar-10",
        train_images=np.concatenate([images for images, _ in parts[:-1]]),
        train_labels=np.concatenate([labels for _, labels in parts[:-1]]),
        test_images=parts[-1][0],
        test_labels=parts[-1][1],
        image_shape=SHAPE,
        source="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009: binary version",
        sha256=digest.hexdigest(),
    )


class Features(nn.Module):
    """Digital convolutions of 32, 64 and 64 channels, 3 x 3, ReLU, two 2 x 2 poolings; the last ReLU is capped at 1.

    (batch, 3, 32, 32) -> (batch, 1024) in [0, 1], which the word lines of the next layer take as voltages.
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 32), (32, 64), (64, 64))
        self.kernels = nn.ParameterList(nn.init.xavier_uniform_(torch.empty(n, m, 3, 3)) for m, n in sizes)
        self.biases = nn.ParameterList(torch.zeros(n) for _, n in sizes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of images."""
        for kernel, bias in zip(self.kernels[:2], self.biases[:2], strict=True):
            x = functional.max_pool2d(functional.conv2d(x, kernel, bias).relu(), 2)
        return functional.conv2d(x, self.kernels[2], self.biases[2]).clamp(0, 1).flatten(1)


def network(image_shape: tuple[int, ...], n_classes: int) -> nn.Sequential:
    """Return the network: digital features, then 1024-25-10 whose layers go on devices."""
    assert tuple(image_shape) == SHAPE
    return nn.Sequential(Features(), nn.Linear(1024, HIDDEN_UNITS), nn.Sigmoid(), nn.Linear(HIDDEN_UNITS, n_classes))
