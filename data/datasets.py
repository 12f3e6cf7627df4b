"""The datasets by name."""

from __future__ import annotations

import os

from data.checks import check_one_of
from data.cifar10 import load_cifar10
from data.dataset import Dataset
from data.digits import load_digits
from data.image_folder import load_image_folder
from data.mnist import load_mnist

DATASETS = ("cifar10", "digits", "image_folder", "mnist")


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_dir: str | os.PathLike | None = None,
    image_size: int = 256,
    image_channels: int = 3,
    validation_count: int | None = None,
) -> Dataset:
    """Loads a dataset.

    Args:
        name: one of `DATASETS`.
        data_dir: folder of the datasets' files, else the environment's
            APE_GAN_TF_DATA, else Keras's cache. `digits` needs none.
        image_dir: for `image_folder`: the folder of train/ and val/, else
            `imagenet` in `data_dir`.
        image_size: for `image_folder`: side of the square images.
        image_channels: for `image_folder`: 1 for grey images, 3 for coloured
            ones.
        validation_count: how many of the published training images to hold
            out as the validation split; 0 for none.

    Raises:
        FileNotFoundError: naming the file or folder that is not there.
        OSError: if a download fails.
        ValueError: if an argument or a file is not what it should be.
    """
    check_one_of(name, DATASETS, "dataset")
    if name == "digits":
        return load_digits(validation_count)
    if name == "mnist":
        return load_mnist(data_dir, validation_count)
    if name == "cifar10":
        return load_cifar10(data_dir, validation_count)
    return load_image_folder(
        data_dir, image_dir, image_size, image_channels, validation_count
    )
