import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from ape_gan_tf.optimizers import precision_scope
from models.fused_batch_norm import FusedBatchNormalization, fuse_batch_norm


def normalized(channels=5, size=(6, 4), precision="float32", **keywords):
    """A model of one batch normalisation whose weights are not trivial."""
    with precision_scope(precision):
        images = keras.Input((*size, channels))
        layer = keras.layers.BatchNormalization(name="norm", **keywords)
        model = keras.Model(images, layer(images))
    random = np.random.default_rng(0)
    model.set_weights(
        [random.uniform(0.5, 2, x.shape) for x in model.get_weights()]
    )
    return model


def step(model, images, upstream):
    """Outputs and gradients in training; averages move."""
    images = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = model(images, training=True)
        total = tf.reduce_sum(tf.cast(outputs, "float32") * upstream)
    sources = [images, *(x.value for x in model.trainable_variables)]
    return [outputs, *tape.gradient(total, sources)]


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("float32", 2e-5), ("mixed_bfloat16", 0.03), ("mixed_float16", 4e-3)],
)
@pytest.mark.parametrize("channels", [5, 16])
@pytest.mark.parametrize("is_eager", [False, True])
def test_values_gradients_and_averages_are_keras_s(
    precision, tolerance, channels, is_eager
):
    random = np.random.default_rng(1)
    images = random.normal(0.3, 2, (3, 6, 4, channels)).astype("float32")
    upstream = random.normal(size=images.shape).astype("float32")
    expected_model = normalized(channels, precision=precision, momentum=0.7)
    model = normalized(channels, precision=precision, momentum=0.7)
    fused = fuse_batch_norm(model)
    assert isinstance(fused.layers[-1], FusedBatchNormalization)
    run = step if is_eager else tf.function(step)
    for _ in range(2):
        expected = step(expected_model, images, upstream)
        for found, value in zip(
            run(fused, images, upstream), expected, strict=True
        ):
            assert found.dtype == value.dtype
            scale = np.abs(tf.cast(value, "float32")).max()
            np.testing.assert_allclose(
                tf.cast(found, "float32"),
                tf.cast(value, "float32"),
                atol=tolerance * scale,
            )
    for found, value in zip(
        model.get_weights(), expected_model.get_weights(), strict=True
    ):
        np.testing.assert_allclose(found, value, rtol=1e-5)


def test_one_value_a_channel_has_variance_zero():
    model, expected = normalized(size=(1, 1)), normalized(size=(1, 1))
    images = np.ones((1, 1, 1, 5), "float32")
    found = fuse_batch_norm(model)(images, training=True)
    np.testing.assert_allclose(
        found, expected(images, training=True), atol=1e-5
    )
    for value, other in zip(
        model.get_weights(), expected.get_weights(), strict=True
    ):
        np.testing.assert_allclose(value, other, rtol=1e-6)


def test_outside_training_it_is_keras_s_layer():
    model = normalized()
    images = np.random.default_rng(1).normal(size=(3, 6, 4, 5))
    fused = fuse_batch_norm(model)
    before = model.get_weights()
    expected = model(images, training=False).numpy()
    np.testing.assert_array_equal(fused(images), expected)
    np.testing.assert_array_equal(fused(images, training=False), expected)
    model.get_layer("norm").trainable = False
    np.testing.assert_array_equal(fused(images, training=True), expected)
    for value, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, other)


def test_weights_are_shared_and_counted_once():
    model = models.target("densenet40", (8, 8, 3), 10, seed=0)
    fused = fuse_batch_norm(model)
    assert {id(x) for x in fused.weights} == {id(x) for x in model.weights}
    assert len(fused.trainable_variables) == len(model.trainable_variables)


@pytest.mark.parametrize(
    "keywords",
    [
        {"axis": 1},
        {"scale": False},
        {"center": False},
        {"renorm": True},
        {"synchronized": True},
    ],
)
def test_others_stay(keywords):
    model = normalized(**keywords)
    assert fuse_batch_norm(model) is model


def test_a_masked_one_stays():
    images, mask = keras.Input((6, 4, 5)), keras.Input((6, 4), dtype="bool")
    features = keras.layers.BatchNormalization()(images, mask=mask)
    model = keras.Model([images, mask], features)
    assert fuse_batch_norm(model) is model


def test_constant_features_have_no_negative_variance():
    model = normalized(16, size=(14, 14), epsilon=1e-5)
    images = np.ones((64, 14, 14, 16), "float32") * np.linspace(1, 2, 16)
    outputs = tf.function(fuse_batch_norm(model))(images, training=True)
    assert np.isfinite(outputs).all()
    assert (model.get_layer("norm").moving_variance.numpy() >= 0).all()


def test_a_model_without_any_stays():
    model = models.target("C", (28, 28, 1), 10, seed=0)
    assert fuse_batch_norm(model) is model


def test_a_vector_s_stays():
    features = keras.Input((4,))
    model = keras.Model(features, keras.layers.BatchNormalization()(features))
    assert fuse_batch_norm(model) is model
