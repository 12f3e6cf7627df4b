"""The digits dataset: scikit-learn's bundled 8x8 scans, enlarged to 28x28.

It needs no download. The 1,797 scans are put in a fixed random order; the last
400 are the test split, and 200 of the others are held out for validation.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from data.dataset import Dataset
from data.splits import array_splits, check_validation_count

_TEST_COUNT = 400
_VALIDATION_COUNT = 200
_SIDE = 28


def load_digits(validation_count: int | None = None) -> Dataset:
    """Loads the digits, 28x28x1: 1,197 train, 200 validation, 400 test.

    Args:
        validation_count: how many training images to hold out.

    Raises:
        ValueError: if `validation_count` leaves nothing to train on.
    """
    images, labels = _shuffled_scans()
    train = images[:-_TEST_COUNT], labels[:-_TEST_COUNT]
    test = images[-_TEST_COUNT:], labels[-_TEST_COUNT:]
    held_out = check_validation_count(
        validation_count, _VALIDATION_COUNT, len(train[0])
    )
    return Dataset(
        name="digits",
        image_shape=(_SIDE, _SIDE, 1),
        class_names=tuple("0123456789"),
        splits=array_splits(train, test, held_out),
    )


def _shuffled_scans() -> tuple[np.ndarray, np.ndarray]:
    # scikit-learn takes a second to import: only digits should pay for it.
    import sklearn.datasets

    scans = sklearn.datasets.load_digits()
    # The published order has long runs of one writer.
    order = np.random.RandomState(0).permutation(len(scans.target))
    return _enlarge(scans.images[order]), scans.target[order]


def _enlarge(scans: np.ndarray) -> np.ndarray:
    """Makes uint8 `[N, 28, 28, 1]` of `[N, 8, 8]` scans in 0 .. 16."""
    with tf.device("CPU:0"):
        scans = tf.constant(scans[..., np.newaxis] / 16.0, tf.float32)
        pixels = tf.image.resize(scans, (_SIDE, _SIDE), method="bilinear")
        return tf.cast(tf.round(255.0 * pixels), tf.uint8).numpy()
