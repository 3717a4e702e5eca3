"""The convolutional network of the paper for CIFAR-10, and what is done to its training images."""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from calib import cifar

HIDDEN_UNITS = 25
SHIFT = 0.1
"""Largest shift of a training image as a fraction of its height and of its width."""
ABSENT = (
    "CIFAR-10 was left out: its binary version (data_batch_1.bin to data_batch_5.bin and test_batch.bin) is neither in "
    "the folder --data nor in that of CALIB_DATA nor downloaded; 'calib data fetch cifar-10' downloads it, and so does "
    "'--only cifar-10'."
)


def find(data: str | Path | None) -> Path | None:
    """Return the folder with the six binary files, in `data`, that of CALIB_DATA or the download cache; or None."""
    if data is not None and (found := cifar.locate(data)) is not None:
        return found
    return cifar.locate()


class Augmentation(nn.Module):
    """Shift and flip each image of a batch (batch, channel, height, width) at random in training; do nothing else.

    An image is shifted by u_y of its height and u_x of its width, u uniform in [-0.1, 0.1], interpolated linearly and
    continued by reflection about its edges; every second one, at random, is then mirrored left to right. The numbers
    are torch's own, which `calib.train` seeds for each epoch: a run that is continued has those of one that never
    stopped.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the images of one step of training, or the images as they are."""
        if not self.training:
            return x
        drawn = torch.rand(len(x), 3, dtype=x.dtype, device=x.device)
        flip = torch.where(drawn[:, 2] < 0.5, -1.0, 1.0)
        shift = 2 * SHIFT * (2 * drawn[:, :2] - 1)  # coordinates of an image run from -1 to 1
        sampled = x.new_zeros(len(x), 2, 3)  # (u, v) = A (x, y, 1): where the value at (x, y) is taken from
        sampled[:, 0, 0], sampled[:, 1, 1] = flip, 1.0
        sampled[:, :, 2] = shift
        grid = functional.affine_grid(sampled, list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


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
    """Return the network: augmentation, digital features, then 1024-25-10 whose layers go on devices."""
    assert tuple(image_shape) == cifar.SHAPE
    return nn.Sequential(
        Augmentation(), Features(), nn.Linear(1024, HIDDEN_UNITS), nn.Sigmoid(), nn.Linear(HIDDEN_UNITS, n_classes)
    )
