"""A linear classifier whose gradients are known, and images for it."""

import dataclasses
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import models

GREY, COLOUR = (4, 5, 1), (3, 4, 3)
CLASSES = 3


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@dataclasses.dataclass
class Linear:
    """Softmax regression, computed here in float64.

    The gradient of its cross-entropy is (softmax(x W + b) - onehot(label)) W'.
    """

    shape: tuple = GREY

    def __post_init__(self):
        generator = np.random.default_rng(zlib.crc32(repr(self.shape).encode()))
        self.weights = generator.normal(
            size=(int(np.prod(self.shape)), CLASSES)
        )
        self.weights = self.weights.astype(np.float32)
        self.biases = np.array([0.25, -0.5, 0.125], np.float32)

    def logits(self, images):
        flat = np.reshape(images, (len(images), -1)).astype(np.float64)
        return flat @ self.weights + self.biases

    def losses(self, images, labels):
        chosen = softmax(self.logits(images))[np.arange(len(labels)), labels]
        return -np.log(chosen)

    def gradients(self, images, labels):
        errors = softmax(self.logits(images)) - np.eye(CLASSES)[labels]
        return (errors @ self.weights.T).reshape(images.shape)

    def function(self, images):
        flat = tf.reshape(images, (-1, self.weights.shape[0]))
        return flat @ self.weights + self.biases

    def from_callable(self):
        return models.Classifier.from_callable(
            self.function,
            image_shape=self.shape,
            num_classes=CLASSES,
            fingerprint="linear",
        )

    def from_keras(self):
        inputs = keras.Input(self.shape)
        dense = keras.layers.Dense(CLASSES)
        outputs = dense(keras.layers.Flatten()(inputs))
        dense.set_weights([self.weights, self.biases])
        return models.Classifier.from_keras(keras.Model(inputs, outputs))


@pytest.fixture(scope="session")
def linear():
    return Linear()


@pytest.fixture(scope="session")
def classifier(linear):
    """The linear classifier as the attacks see it."""
    return linear.from_callable()


@pytest.fixture
def nan_where_bright(linear):
    """The linear classifier, but NaN for images above 0.5 everywhere."""
    return models.Classifier.from_callable(
        lambda x: tf.where(
            tf.reduce_min(x, [1, 2, 3])[:, None] > 0.5,
            np.float32(np.nan),
            linear.function(x),
        ),
        image_shape=GREY,
        num_classes=CLASSES,
        fingerprint="broken",
    )


@pytest.fixture(scope="session")
def colour_linear():
    return Linear(COLOUR)


@pytest.fixture(scope="session")
def network():
    """A small network with a curved loss: no two steps see one gradient."""
    inputs = keras.Input((6, 6, 1))
    features = keras.layers.Conv2D(
        4,
        3,
        activation="tanh",
        kernel_initializer=keras.initializers.GlorotUniform(1),
    )(inputs)
    outputs = keras.layers.Dense(
        CLASSES, kernel_initializer=keras.initializers.GlorotUniform(2)
    )(keras.layers.Flatten()(features))
    return models.Classifier.from_keras(keras.Model(inputs, outputs))


def random_batch(shape, count=9):
    generator = np.random.default_rng(3)
    images = generator.random((count, *shape), dtype=np.float32)
    # The box's edges, where clipping shows.
    images[0], images[1] = 0.0, 1.0
    return images, generator.integers(0, CLASSES, count)


@pytest.fixture
def batch():
    """Nine grey images in [0, 1], and labels."""
    return random_batch(GREY)


@pytest.fixture
def make_batch():
    return random_batch
