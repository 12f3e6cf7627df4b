"""Counts the errors of a classifier over batches."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import models


class ErrorCounter:
    """Counts how often a classifier's argmax is not the label.

    Args:
        classifier: Maps images to logits; NaN logits count as wrong.
    """

    def __init__(self, classifier: models.Classifier) -> None:
        self._count = 0
        self._wrong = tf.Variable([0, 0], dtype=tf.int64, trainable=False)
        shape = [None, *classifier.image_shape]

        def add(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            wrong = _wrong_top_1_and_5(classifier(images), labels)
            counts = tf.reduce_sum(tf.cast(wrong, tf.int64), axis=-1)
            self._wrong.assign_add(counts)
            return wrong[0]

        self._add = tf.function(
            add,
            autograph=False,
            input_signature=[
                tf.TensorSpec(shape, tf.float32),
                tf.TensorSpec([None], tf.int64),
            ],
        )

    def reset(self) -> None:
        """Starts again from zero."""
        self._count = 0
        self._wrong.assign([0, 0])

    def add(self, images: tf.Tensor, labels: tf.Tensor) -> np.ndarray:
        """Counts one batch; returns bool `[B]`, which are wrong (top-1)."""
        self._count += int(labels.shape[0])
        return self._add(images, labels).numpy()

    def error(self) -> float:
        """Top-1 error in percent of all images so far."""
        return self._percent(0)

    def top5_error(self) -> float:
        """Top-5 error in percent of all images so far."""
        return self._percent(1)

    def _percent(self, column: int) -> float:
        if not self._count:
            raise ValueError("there are no images to measure an error on")
        return 100.0 * int(self._wrong[column]) / self._count


def _wrong_top_1_and_5(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    broken = tf.reduce_any(tf.math.is_nan(logits), axis=-1)
    top_1 = tf.argmax(logits, -1) != labels
    top_5 = ~tf.math.in_top_k(labels, logits, k=min(5, logits.shape[-1]))
    return tf.stack([top_1 | broken, top_5 | broken])
