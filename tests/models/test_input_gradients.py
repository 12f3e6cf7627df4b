import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from models import input_gradients, polynomial_products
from models.input_gradients import (
    accelerate,
    convolve,
    deconvolve,
    input_gradient,
)

CASES = [
    # size, kernel, channels, filters, stride, padding
    ((14, 14), (6, 6), 3, 5, 2, "VALID"),
    ((5, 5), (5, 5), 4, 3, 1, "VALID"),
    ((7, 6), (7, 6), 2, 3, 2, "VALID"),
    ((9, 8), (4, 5), 3, 2, 2, "SAME"),
    ((9, 11), (3, 2), 2, 4, 3, "VALID"),
    ((10, 10), (3, 3), 1, 2, 4, "SAME"),
    ((6, 6), (5, 5), 2, 3, 1, "SAME"),
    ((8, 8), (2, 2), 2, 3, 3, "VALID"),
    ((1, 1), (1, 1), 2, 3, 1, "VALID"),
]


@pytest.mark.parametrize(
    "size, side, channels, filters, stride, padding", CASES
)
def test_it_is_the_gradient_that_tensorflow_takes(
    size, side, channels, filters, stride, padding
):
    generator = np.random.default_rng(0)
    images = tf.constant(generator.normal(size=(3, *size, channels)))
    kernel = tf.constant(generator.normal(size=(*side, channels, filters)))
    outputs = tf.nn.conv2d(images, kernel, stride, padding)
    upstream = tf.constant(generator.normal(size=outputs.shape))
    expected = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(images),
        filter=kernel,
        out_backprop=upstream,
        strides=[1, stride, stride, 1],
        padding=padding,
    )
    found = input_gradient(upstream, kernel, size, stride, padding)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("batch", [0, 11, 12, 16])
def test_a_large_batch_has_the_same_gradient(batch):
    generator = np.random.default_rng(0)
    upstream = tf.constant(generator.normal(size=(batch, 5, 5, 128)))
    kernel = tf.constant(generator.normal(size=(6, 6, 64, 128)))
    # In blocks of 2x2.
    blocks = (128, 3, 3, 256)
    assert polynomial_products.smallest_batch((5, 5, 128), blocks) == 12
    expected = tf.nn.conv2d_transpose(
        upstream, kernel, [batch, 14, 14, 64], 2, "VALID"
    )

    @tf.function(input_signature=[tf.TensorSpec([None, 5, 5, 128], tf.float64)])
    def of_any_batch(upstream):
        return input_gradient(upstream, kernel, (14, 14), 2, "VALID")

    found = input_gradient(upstream, kernel, (14, 14), 2, "VALID")
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(of_any_batch(upstream), expected, 1e-9, 1e-9)


@pytest.mark.parametrize("batch, multiplies", [(11, False), (12, True)])
def test_an_unknown_batch_takes_what_pays(batch, multiplies):
    generator = np.random.default_rng(0)
    upstream = tf.constant(generator.normal(size=(batch, 5, 5, 128)), "float32")
    kernel = tf.constant(generator.normal(size=(6, 6, 64, 128)), "float32")

    @tf.function(input_signature=[tf.TensorSpec([None, 5, 5, 128])])
    def of_any_batch(upstream):
        return input_gradient(upstream, kernel, (14, 14), 2, "VALID")

    expected = tf.nn.conv2d_transpose(
        upstream, kernel, [batch, 14, 14, 64], 2, "VALID"
    )
    error = tf.norm(of_any_batch(upstream) - expected) / tf.norm(expected)
    # The two ways round differently: to 3e-6 and to 2e-7.
    assert bool(error > 1e-6) is multiplies
    assert error < 1e-5


def test_values_and_the_gradient_by_the_kernel_are_tensorflow_s():
    generator = np.random.default_rng(1)
    images = tf.constant(generator.normal(size=(2, 7, 7, 3)))
    kernel = tf.constant(generator.normal(size=(4, 4, 3, 2)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([images, kernel])
        ours = convolve(images, kernel, 2, "SAME")
        theirs = tf.nn.conv2d(images, kernel, 2, "SAME")
        losses = [tf.reduce_sum(x**3) for x in (ours, theirs)]
    np.testing.assert_array_equal(ours, theirs)
    for variable in (images, kernel):
        ours, theirs = (tape.gradient(x, variable) for x in losses)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize(
    "size, side, channels, filters, stride, padding", CASES
)
def test_a_deconvolution_and_its_gradients_are_tensorflow_s(
    size, side, channels, filters, stride, padding
):
    generator = np.random.default_rng(4)
    kernel = tf.constant(generator.normal(size=(*side, channels, filters)))
    whole = tf.zeros((3, *size, channels), tf.float64)
    shape = tf.nn.conv2d(whole, kernel, stride, padding).shape
    images = tf.constant(generator.normal(size=shape))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([images, kernel])
        ours = deconvolve(images, kernel, size, stride, padding)
        theirs = tf.nn.conv2d_transpose(
            images, kernel, whole.shape, stride, padding
        )
        losses = [tf.reduce_sum(x**3) for x in (ours, theirs)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    for variable in (images, kernel):
        ours, theirs = (tape.gradient(x, variable) for x in losses)
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)


def _logits_and_gradient(function, images):
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = function(images)
        loss = tf.reduce_sum(tf.square(logits))
    return logits.numpy(), tape.gradient(loss, images).numpy()


def check_values_and_gradients(quick, model, images):
    ours = _logits_and_gradient(tf.function(quick), images)
    theirs = _logits_and_gradient(model, images)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def target_c():
    return models.target("C", (28, 28, 1), 10, seed=3)


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(2)
    return tf.constant(generator.random((4, 28, 28, 1), dtype=np.float32))


def test_target_c_has_the_same_logits_and_gradients(target_c, images):
    quick = accelerate(target_c)
    assert quick is not target_c
    kinds = [type(x).__name__ for x in quick.layers]
    assert kinds.count("MatrixGradientConv2D") == 3
    check_values_and_gradients(quick, target_c, images)


def test_weights_are_shared(images):
    model = models.target("C", (28, 28, 1), 10, seed=4)
    quick = accelerate(model)
    model.set_weights([np.zeros_like(x) for x in model.get_weights()])
    np.testing.assert_array_equal(quick(images), np.zeros((4, 10)))


def test_the_classifier_s_own_model_is_the_one_that_was_given(target_c):
    layers = list(target_c.layers)
    classifier = models.Classifier.from_keras(target_c)
    assert classifier.keras_model is target_c
    assert target_c.layers == layers
    assert not any(
        isinstance(x, input_gradients.MatrixGradientConv2D) for x in layers
    )


@pytest.mark.parametrize(
    "target, channels, exchanged",
    [("A", 1, ["conv_1"]), ("D", 3, ["conv_1"]), ("densenet40", 3, [])],
)
def test_a_first_convolution_of_many_filters_is_exchanged(
    target, channels, exchanged
):
    model = models.target(target, (28, 28, channels), 10, seed=3)
    quick = accelerate(model)
    found = [
        layer.name
        for layer in quick.layers
        if isinstance(layer, input_gradients.MatrixGradientConv2D)
    ]
    assert found == exchanged
    pixels = np.random.default_rng(5).random((3, 28, 28, channels))
    pixels = tf.constant(pixels, tf.float32)
    check_values_and_gradients(quick, model, pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("output", ["sigmoid", "tanh"])
def test_a_purifier_s_last_deconvolution_is_exchanged(channels, output):
    model = models.generator(
        "ape_gan_m", (12, 12, channels), output=output, seed=6
    )
    quick = accelerate(model)
    kinds = {layer.name: type(layer).__name__ for layer in quick.layers}
    assert kinds["decoder_2"] == "MatrixConv2DTranspose"
    assert kinds["decoder_1"] == "Conv2DTranspose"
    assert kinds["encoder_1"] == "MatrixGradientConv2D"
    pixels = np.random.default_rng(7).random((3, 12, 12, channels))
    pixels = tf.constant(pixels, tf.float32)
    check_values_and_gradients(quick, model, pixels)


def _small(*layers):
    return keras.Sequential([keras.Input((8, 8, 2)), *layers])


DILATED = keras.layers.Conv2DTranspose(1, 3, dilation_rate=2)
PADDED = keras.layers.Conv2DTranspose(1, 3, strides=2, output_padding=1)


class Subclass(keras.Model):
    def call(self, images):
        return images


@pytest.mark.parametrize(
    "model",
    [
        _small(keras.layers.Conv2D(3, 3)),
        _small(keras.layers.Conv2D(4, 8, groups=2)),
        _small(keras.layers.Conv2D(3, 4, dilation_rate=2)),
        _small(keras.layers.Conv2D(3, 8, strides=(1, 2))),
        _small(keras.layers.Conv2D(3, 8, dtype="mixed_bfloat16")),
        _small(keras.layers.DepthwiseConv2D(8)),
        _small(keras.layers.Conv2D(32, 3, dtype="mixed_bfloat16")),
        _small(keras.layers.Conv2DTranspose(9, 8, padding="same")),
        _small(keras.layers.Conv2D(16, 1), DILATED),
        _small(keras.layers.Conv2D(16, 1), PADDED),
        _small(_small(keras.layers.Conv2D(3, 8))),
        Subclass(),
    ],
)
def test_other_models_stay_as_they_are(model):
    assert accelerate(model) is model


def test_a_compiled_model_needs_nothing_of_what_it_is_compiled_with(images):
    model = _small(keras.layers.Conv2D(3, 8), keras.layers.Flatten())
    model.compile(loss=lambda labels, outputs: outputs)
    pixels = images[:, :8, :8]
    pixels = tf.concat([pixels, pixels], -1)
    np.testing.assert_allclose(accelerate(model)(pixels), model(pixels))


def test_a_layer_that_is_called_twice_is_called_twice(images):
    shared = keras.layers.Conv2D(3, 8, activation="relu", use_bias=False)
    pixels = keras.Input((8, 8, 1))
    outputs = shared(pixels) + shared(1.0 - pixels)
    model = keras.Model(pixels, outputs)
    pixels = images[:, :8, :8]
    quick = accelerate(model)
    assert quick is not model
    ours = _logits_and_gradient(quick, pixels)
    theirs = _logits_and_gradient(model, pixels)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_a_deconvolution_has_the_size_of_each_call():
    shared = keras.layers.Conv2DTranspose(1, 4, strides=2, padding="same")
    keras.Model((small := keras.Input((6, 6, 16))), shared(small))
    pixels = keras.Input((8, 8, 16))
    halves = keras.layers.MaxPooling2D()(pixels)
    twice = keras.layers.UpSampling2D()(shared(halves))
    model = keras.Model(pixels, shared(pixels) + twice)
    quick = accelerate(model)
    assert quick is not model
    values = tf.random.stateless_normal((2, 8, 8, 16), (0, 1))
    assert quick(values).shape == (2, 16, 16, 1)
    np.testing.assert_allclose(quick(values), model(values), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_float32_model_stays_so_whatever_the_policy_is_later(policy):
    model = models.generator("ape_gan_m", (12, 12, 1), seed=8)
    pixels = tf.random.stateless_uniform((2, 12, 12, 1), (0, 1))
    try:
        keras.config.set_dtype_policy(policy)
        quick = accelerate(model)
    finally:
        keras.config.set_dtype_policy("float32")
    assert quick is not model
    np.testing.assert_allclose(quick(pixels), model(pixels), atol=1e-6)
