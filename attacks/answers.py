"""What several attacks ask of a classifier's answers."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from attacks.base import NO_TARGET


def logits_of(classifier: Any, images: tf.Tensor) -> tf.Tensor:
    """float32 `[B, K]`, K known even if a stranger's model does not say it."""
    return tf.ensure_shape(classifier(images), [None, classifier.num_classes])


def has_nan(logits: tf.Tensor) -> tf.Tensor:
    """bool `[B]`."""
    return tf.reduce_any(tf.math.is_nan(logits), axis=-1)


def fooled(
    logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    """bool `[B]`: whether the argmax is the target, or not the label.

    Args:
        logits: float32 `[B, K]`.
        labels: int64 `[B]`.
        targets: int64 `[B]`, -1 where untargeted.
    """
    predicted = tf.argmax(logits, axis=-1)
    return tf.where(
        targets == NO_TARGET, predicted != labels, predicted == targets
    )
