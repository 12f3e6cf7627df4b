"""Tests of the digests that tell networks apart."""

import hashlib

import keras
import numpy as np
import tensorflow as tf

import models
from models import fingerprint


def test_weights_digest_is_the_sha256_that_its_definition_says():
    array = np.array([[1.0, 2.0]], np.float32)
    contents = hashlib.sha256(array.tobytes()).hexdigest()
    one = hashlib.sha256(f"float32\n(1, 2)\n{contents}".encode()).hexdigest()
    expected = hashlib.sha256(one.encode()).hexdigest()
    assert fingerprint.of_weights([array]) == expected


def test_weights_digest_ignores_order_and_nothing_else():
    one = np.arange(6, dtype=np.float32)
    two = np.zeros((), np.float32)
    digest = fingerprint.of_weights([one, two])
    assert fingerprint.of_weights([two, one]) == digest
    others = [
        [one],
        [one, two, two],
        [one.reshape(2, 3), two],
        [one.reshape(3, 2).T.reshape(6), two],
        [one, two.reshape(1)],
        [one.view(np.int32), two],
        [np.nextafter(one, 9), two],
    ]
    digests = {fingerprint.of_weights(other) for other in others}
    assert len(digests | {digest}) == len(others) + 1


def test_a_transposed_array_counts_by_its_values():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert fingerprint.of_weights([array.T]) == fingerprint.of_weights(
        [array.T.copy()]
    )


def test_architecture_survives_a_file_and_compiling(make_model, tmp_path):
    candidates = [
        make_model("softmax"),
        models.generator("ape_gan_m", (8, 8, 1), output="tanh"),
        models.target("A", (28, 28, 1), 10, seed=1),
        keras.Sequential(
            [keras.Input((4, 4, 1)), keras.layers.Flatten()], name="nested"
        ),
        keras.Sequential([make_model(), keras.layers.ReLU()]),
    ]
    for index, model in enumerate(candidates):
        before = fingerprint.of_keras_architecture(model)
        path = tmp_path / f"{index}.keras"
        model.save(path)
        again = keras.models.load_model(path)
        again.compile("adam", "mse")
        again.trainable = False
        assert fingerprint.of_keras_architecture(again) == before


def test_architecture_sees_a_changed_layer(make_model):
    digests = {
        fingerprint.of_keras_architecture(make_model(activation))
        for activation in ("linear", "softmax", "relu")
    }
    assert len(digests) == 3


def test_a_subclass_without_a_configuration_counts_by_its_name():
    class Plain(keras.Model):
        def __init__(self, something):
            super().__init__()
            self.something = something

        def call(self, inputs):
            return inputs

    digest = fingerprint.of_keras_architecture(Plain(tf.constant(1.0)))
    assert digest == fingerprint.of_keras_architecture(Plain(tf.constant(2.0)))
