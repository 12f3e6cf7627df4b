"""Functions of a user's own as classifiers and purifiers."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

import models
from tests.models.strangers import SHAPE


def test_a_callable_may_branch_on_tensors(images):
    def brighter(batch):
        for _ in tf.range(3):
            batch = batch + 0.25
        if tf.reduce_mean(batch) > 1.0:
            return batch
        return batch * 0.0

    def logits_of(batch):
        flat = tf.reduce_mean(batch, [1, 2])
        if tf.reduce_all(batch > 0.7):
            return flat
        return -flat

    classifier = models.Classifier.from_callable(
        logits_of, image_shape=SHAPE, num_classes=3, fingerprint="branches"
    )
    means = images.mean((1, 2))
    logits = classifier.predict(images)
    np.testing.assert_allclose(logits, -means, rtol=1e-6)
    behind = classifier.behind(brighter).predict(images)
    np.testing.assert_allclose(behind, means + 0.75, rtol=1e-6)
    # Eagerly as in a graph.
    np.testing.assert_allclose(classifier(tf.constant(images)), logits)


# NumPy's own float64, which an input of a graph would stay.
DOUBLE = np.full(3, 2.0)


@dataclasses.dataclass
class Brightness:
    """Not hashable, as a dataclass is that may change."""

    scale: float

    def __call__(self, batch):
        return self.scale * tf.reduce_mean(batch, [1, 2])


@pytest.mark.parametrize(
    "function",
    [
        lambda batch, scale=DOUBLE: scale * tf.reduce_mean(batch, [1, 2]),
        functools.partial(
            lambda batch, scale: scale * tf.reduce_mean(batch, [1, 2]),
            scale=DOUBLE,
        ),
        Brightness(2.0),
    ],
    ids=["default", "partial", "dataclass"],
)
def test_a_callable_keeps_what_it_has_besides_images(images, function):
    classifier = models.Classifier.from_callable(
        function, image_shape=SHAPE, num_classes=3, fingerprint="bright"
    )
    np.testing.assert_allclose(
        classifier.predict(images), 2.0 * images.mean((1, 2)), rtol=1e-6
    )
