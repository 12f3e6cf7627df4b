"""MNIST, from Keras's file mnist.npz."""

from __future__ import annotations

import os
import pathlib
import zipfile

import numpy as np

from data.data_dir import download, find_data_dir, require_file
from data.dataset import Dataset
from data.splits import array_splits, check_validation_count

_KEYS = ("x_train", "y_train", "x_test", "y_test")


def load_mnist(
    data_dir: str | os.PathLike | None = None,
    validation_count: int | None = None,
) -> Dataset:
    """Loads MNIST, 28x28x1: 55,000 train, 5,000 validation, 10,000 test.

    Validation is the last twelfth of the published training images.

    Args:
        data_dir: folder of `mnist.npz`; without it (and without the
            environment's APE_GAN_TF_DATA) Keras's cache is used.
        validation_count: how many training images to hold out instead.

    Raises:
        FileNotFoundError: if a folder is given and the file is not there.
        OSError: if a download fails.
        ValueError: if the file is not what it should be, or
            `validation_count` leaves nothing to train on.
    """
    arrays = _read_arrays(find_data_dir(data_dir))
    x_train, y_train, x_test, y_test = arrays
    held_out = check_validation_count(
        validation_count, len(x_train) // 12, len(x_train)
    )
    return Dataset(
        name="mnist",
        image_shape=(28, 28, 1),
        class_names=tuple("0123456789"),
        splits=array_splits(
            (x_train[..., np.newaxis], y_train),
            (x_test[..., np.newaxis], y_test),
            held_out,
        ),
    )


def _read_arrays(folder: pathlib.Path | None) -> list[np.ndarray]:
    if folder is None:
        import keras

        train, test = download(
            keras.datasets.mnist.load_data, "mnist", "mnist.npz"
        )
        return [*train, *test]
    path = require_file(folder / "mnist.npz", "mnist")
    arrays = _read_file(path)
    for part in ("train", "test"):
        _check_part(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    return [arrays[key] for key in _KEYS]


def _read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        # np.load leaves a file open that it finds to be broken.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            return {key: file[key] for key in _KEYS}
    except KeyError as error:
        raise ValueError(
            f"{path} must hold the arrays {', '.join(_KEYS)}: {error}"
        ) from error
    except (zipfile.BadZipFile, ValueError, EOFError, IndexError) as error:
        raise ValueError(
            f"{path} must be a whole .npz file, but it cannot be read: {error}"
        ) from error


def _check_part(
    path: pathlib.Path, part: str, images: np.ndarray, labels: np.ndarray
) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise ValueError(
            f"{path}: x_{part} must be uint8 [N, 28, 28], "
            f"got {images.dtype} {list(images.shape)}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{path}: y_{part} must be integers [{len(images)}], "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < 10:
        raise ValueError(
            f"{path}: y_{part} must be in [0, 10), "
            f"got values from {labels.min()} to {labels.max()}"
        )
