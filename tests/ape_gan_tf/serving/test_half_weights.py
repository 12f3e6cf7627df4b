"""Weights stored in float16, computed with in float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import ape_gan_tf
import models
from ape_gan_tf.serving import saved_model
from ape_gan_tf.serving.half_weights import HalfWeights

SHAPE = (8, 8, 1)


@pytest.fixture
def purifier():
    generator = models.generator("ape_gan_m", SHAPE)
    # Nothing may be as it was built: batch normalisation's averages too.
    random = np.random.default_rng(3)
    generator.set_weights(
        [
            x + random.uniform(-0.05, 0.05, x.shape)
            for x in generator.get_weights()
        ]
    )
    return models.Purifier.from_keras(generator)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, *SHAPE), np.float32)


def rounded(purifier):
    """The same purifier, its weights rounded by NumPy."""
    model = keras.models.clone_model(purifier.keras_model)
    model.set_weights(
        [
            x.astype(np.float16).astype(np.float32)
            for x in purifier.keras_model.get_weights()
        ]
    )
    return models.Purifier.from_keras(model)


def test_it_computes_with_rounded_weights(purifier, images):
    found = HalfWeights(purifier)(tf.constant(images))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, rounded(purifier)(images), atol=1e-6)
    assert np.abs(found - purifier(images)).max() > 1e-6


def test_the_model_keeps_its_own_weights(purifier):
    before = purifier.fingerprint
    HalfWeights(purifier)
    assert purifier.fingerprint == before


def test_the_file_is_half_as_large(purifier, images, tmp_path):
    sizes = {}
    for dtype in ("float32", "float16"):
        path = saved_model.export(
            purifier, tmp_path / dtype, weights_dtype=dtype
        )
        data = path / "variables" / "variables.data-00000-of-00001"
        sizes[dtype] = data.stat().st_size
    assert sizes["float16"] < 0.55 * sizes["float32"]
    served = models.Purifier.load(tmp_path / "float16")
    np.testing.assert_allclose(
        served.predict(images), rounded(purifier).predict(images), atol=1e-6
    )


def test_a_weight_that_float16_cannot_hold_is_refused(purifier):
    kernel = purifier.keras_model.trainable_variables[0]
    kernel.assign(tf.fill(kernel.shape, 7e4))
    with pytest.raises(ValueError, match=r"reaches to 65,504, .* up to 7e\+04"):
        HalfWeights(purifier)


def test_the_state_of_a_random_layer_is_not_rounded(images):
    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Dropout(0.5)(keras.layers.Rescaling(0.5)(inputs))
    purifier = models.Purifier.from_keras(keras.Model(inputs, outputs))
    half = HalfWeights(purifier)
    assert [x.dtype.is_integer for x in half.others] == [True]
    np.testing.assert_allclose(half(images), 0.5 * images, atol=1e-7)


def test_a_saved_model_cannot_be_rounded(tmp_path):
    purifier = ape_gan_tf.load_pretrained("ape_gan_m")
    path = saved_model.export(purifier, tmp_path / "purifier")
    loaded = models.Purifier.load(path)
    with pytest.raises(ValueError, match="needs a Keras model, but ape_gan_m"):
        saved_model.export(
            loaded, tmp_path / "purifier", version=2, weights_dtype="float16"
        )
    assert not (tmp_path / "purifier" / "2").exists()
