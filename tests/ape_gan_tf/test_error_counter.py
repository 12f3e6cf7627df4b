"""Errors are counted right, over any number of batches."""

import numpy as np
import pytest
import tensorflow as tf

import models
from ape_gan_tf.error_counter import ErrorCounter


def count_errors(logits, labels):
    """Feeds logits as the images of a classifier that returns them."""
    classes = logits.shape[1]
    classifier = models.Classifier.from_callable(
        # What cannot be in an image: 2 stands for NaN.
        lambda x: tf.where(x[:, 0, :, 0] > 1.5, np.nan, x[:, 0, :, 0]),
        image_shape=(1, classes, 1),
        num_classes=classes,
        fingerprint="identity",
    )
    counter = ErrorCounter(classifier)
    images = np.nan_to_num(logits, nan=2.0).astype(np.float32)
    images = images[:, None, :, None]
    for start in range(0, len(labels), 7):
        counter.add(
            tf.constant(images[start : start + 7]),
            tf.constant(labels[start : start + 7]),
        )
    return counter


def test_errors_are_the_share_of_wrong_answers():
    generator = np.random.default_rng(7)
    logits = generator.random((50, 12))
    labels = generator.integers(0, 12, 50)
    counter = count_errors(logits, labels)
    order = np.argsort(-logits, axis=-1)
    top_5 = (order[:, :5] == labels[:, None]).any(-1)
    assert counter.error() == pytest.approx(
        100 * np.mean(order[:, 0] != labels)
    )
    assert counter.top5_error() == pytest.approx(100 * np.mean(~top_5))
    counter.reset()
    with pytest.raises(ValueError, match="no images to measure an error on"):
        counter.error()


def test_logits_that_are_nan_are_wrong():
    logits = np.eye(6)[[0, 1, 2, 3]]
    logits[1, 1] = np.nan  # The label's own.
    logits[2, 5] = np.nan  # Another one's, where the argmax is right.
    counter = count_errors(logits, np.array([0, 1, 2, 3]))
    assert counter.error() == 50.0
    assert counter.top5_error() == 50.0


# Gaussian noise
