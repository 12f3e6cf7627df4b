"""CIFAR-10, from the files of its published binary format."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from data.data_dir import download, find_data_dir, require_file
from data.dataset import Dataset
from data.splits import array_splits, check_validation_count

_FOLDER = "cifar-10-batches-bin"
_TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST_FILES = ("test_batch.bin",)
_CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_FILE_RECORDS = 10_000
# A record is the label's byte, then the red, the green and the blue plane.
_RECORD_BYTES = 1 + 3 * 32 * 32


def load_cifar10(
    data_dir: str | os.PathLike | None = None,
    validation_count: int | None = None,
) -> Dataset:
    """Loads CIFAR-10, 32x32x3: 45,000 train, 5,000 validation, 10,000 test.

    Validation is the last tenth of the published training images.

    Args:
        data_dir: folder of `cifar-10-batches-bin/`; without it (and without
            the environment's APE_GAN_TF_DATA) Keras's cache is used.
        validation_count: how many training images to hold out instead.

    Raises:
        FileNotFoundError: if a folder is given and a file is not there.
        OSError: if a download fails.
        ValueError: if a file is not what it should be, or `validation_count`
            leaves nothing to train on.
    """
    train, test = _read_arrays(find_data_dir(data_dir))
    held_out = check_validation_count(
        validation_count, len(train[0]) // 10, len(train[0])
    )
    return Dataset(
        name="cifar10",
        image_shape=(32, 32, 3),
        class_names=_CLASS_NAMES,
        splits=array_splits(train, test, held_out),
    )


def _read_arrays(
    folder: pathlib.Path | None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    if folder is None:
        import keras

        parts = download(
            keras.datasets.cifar10.load_data, "cifar10", f"{_FOLDER}/*.bin"
        )
        return [(images, labels[:, 0]) for images, labels in parts]
    return [
        _read_files([folder / _FOLDER / name for name in names])
        for names in (_TRAIN_FILES, _TEST_FILES)
    ]


def _read_files(paths: list[pathlib.Path]) -> tuple[np.ndarray, np.ndarray]:
    for path in paths:
        _check_size(require_file(path, "cifar10"))
    images = np.empty((len(paths), _FILE_RECORDS, 32, 32, 3), np.uint8)
    labels = np.empty((len(paths), _FILE_RECORDS), np.uint8)
    for number, path in enumerate(paths):
        images[number], labels[number] = _read_file(path)
    return images.reshape(-1, 32, 32, 3), labels.reshape(-1)


def _check_size(path: pathlib.Path) -> None:
    expected, found = _FILE_RECORDS * _RECORD_BYTES, path.stat().st_size
    if found != expected:
        raise ValueError(
            f"{path} must have {expected} bytes, {_FILE_RECORDS} records of "
            f"{_RECORD_BYTES}, got {found}"
        )


def _read_file(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    records = np.fromfile(path, np.uint8).reshape(-1, _RECORD_BYTES)
    labels = records[:, 0]
    if labels.max() >= len(_CLASS_NAMES):
        raise ValueError(
            f"{path}: labels must be in [0, {len(_CLASS_NAMES)}), "
            f"got {labels.max()} in record {int(labels.argmax())}"
        )
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
