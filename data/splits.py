"""A split of a dataset: where its images come from, and which are held out."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
import tensorflow as tf

SPLITS = ("train", "validation", "test")


class Split(Protocol):
    """Images and labels that can be had by their positions."""

    @property
    def count(self) -> int:
        """Number of images."""

    def load(
        self, positions: tf.data.Dataset, batch_size: int
    ) -> tf.data.Dataset:
        """Turns batches of positions into batches of images.

        Args:
            positions: int64 vectors, each of `batch_size` positions save the
                last, which may be shorter.
            batch_size: the length of the vectors.

        Returns:
            dicts of `images` (float32 NHWC in [0, 1]), `labels` and `index`
            (int64).
        """


@dataclasses.dataclass(frozen=True)
class ArraySplit:
    """Images that fit in memory, as uint8.

    Attributes:
        images: uint8 `[N, H, W, C]`.
        labels: int64 `[N]`.
    """

    images: tf.Tensor
    labels: tf.Tensor

    @classmethod
    def from_arrays(cls, images: np.ndarray, labels: np.ndarray) -> ArraySplit:
        """Takes uint8 NHWC images and integer labels of any width."""
        # The input pipeline runs on the CPU: on a GPU the images would have
        # to come back for every batch.
        with tf.device("CPU:0"):
            return cls(
                tf.constant(images, tf.uint8), tf.constant(labels, tf.int64)
            )

    @property
    def count(self) -> int:
        return len(self.labels)

    def load(
        self, positions: tf.data.Dataset, batch_size: int
    ) -> tf.data.Dataset:
        del batch_size  # The vectors of positions have it.

        def gather(index: tf.Tensor) -> dict[str, tf.Tensor]:
            pixels = tf.gather(self.images, index)
            return {
                "images": tf.cast(pixels, tf.float32) / 255.0,
                "labels": tf.gather(self.labels, index),
                "index": index,
            }

        return positions.map(gather, num_parallel_calls=tf.data.AUTOTUNE)


def check_validation_count(
    validation_count: int | None, default: int, count: int
) -> int:
    """Returns how many of `count` training images are held out.

    Raises:
        ValueError: if that would leave none to train on.
    """
    held_out = default if validation_count is None else validation_count
    if not 0 <= held_out < count:
        raise ValueError(
            f"validation_count must be in [0, {count}), the number of "
            f"published training images, got {held_out}"
        )
    return held_out


def array_splits(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    validation_count: int,
) -> dict[str, Split]:
    """Holds the last `validation_count` training images out.

    Args:
        train: uint8 NHWC images and integer labels.
        test: the same.
        validation_count: how many to hold out.
    """
    images, labels = train
    kept = len(images) - validation_count
    return {
        "train": ArraySplit.from_arrays(images[:kept], labels[:kept]),
        "validation": ArraySplit.from_arrays(images[kept:], labels[kept:]),
        "test": ArraySplit.from_arrays(*test),
    }
