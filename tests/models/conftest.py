"""Small models and images that several test modules use."""

import keras
import numpy as np
import pytest

SHAPE = (8, 6, 3)


@pytest.fixture
def images():
    """Seven images, float32 in [0, 1]."""
    generator = np.random.default_rng(1)
    return generator.random((7, *SHAPE), dtype=np.float32)


@pytest.fixture
def make_model():
    """Builds a small classifier with batch normalisation and dropout."""

    def make(activation="linear", seed=0, shape=SHAPE, num_classes=4):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input(shape, name="pixels")
        features = keras.layers.Conv2D(5, 3, name="conv")(inputs)
        features = keras.layers.BatchNormalization(name="norm")(features)
        features = keras.layers.GlobalAveragePooling2D(name="pool")(features)
        features = keras.layers.Dropout(0.5, name="dropout")(features)
        outputs = keras.layers.Dense(
            num_classes, activation=activation, name="dense"
        )(features)
        return keras.Model(inputs, outputs, name="small")

    return make
