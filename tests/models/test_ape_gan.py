"""Tests of the networks of Table 6."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from models import ape_gan

SMALL = {
    "ape_gan_m": (28, 28, 1),
    "ape_gan_c": (32, 32, 3),
    "ape_gan_i": (16, 24, 3),
    "purifier_resnet": (9, 7, 2),
}


def random_images(shape, count=3):
    generator = np.random.default_rng(0)
    return generator.random((count, *shape), dtype=np.float32)


@pytest.fixture
def half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


# Kernels are 3 * 3 * inputs * outputs, a batch normalisation has 4 values a
# channel, only the last layer has biases.
@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        (
            "ape_gan_m",
            (28, 28, 1),
            (9 * 1 * 64 + 256)
            + (9 * 64 * 128 + 512)
            + (9 * 128 * 64 + 256)
            + (9 * 64 * 1 + 1),
        ),
        ("ape_gan_m", (28, 28, 1), 149_633),
        ("ape_gan_c", (32, 32, 3), 151_939),
        (
            "ape_gan_i",
            (256, 256, 3),
            (9 * 3 * 64 + 256)
            + (9 * 64 * 128 + 512)
            + (9 * 128 * 256 + 1024)
            + (9 * 256 * 256 + 1024)
            + (9 * 256 * 128 + 512)
            + (9 * 128 * 3 + 3),
        ),
    ],
)
def test_generator_has_the_weights_of_table_6(name, shape, count):
    assert models.generator(name, shape).count_params() == count


# The first layer of m and c has biases instead of batch normalisation.
@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        (
            "ape_gan_m",
            (28, 28, 1),
            (9 * 1 * 64 + 64)
            + (9 * 64 * 128 + 512)
            + (9 * 128 * 256 + 1024)
            + (4 * 4 * 256 + 1),
        ),
        ("ape_gan_c", (32, 32, 3), 376_065),
        (
            "ape_gan_i",
            (32, 32, 3),
            (9 * 3 * 64 + 256)
            + (9 * 64 * 128 + 512)
            + (9 * 128 * 256 + 1024)
            + (9 * 256 * 256 + 1024)
            + (2 * 2 * 256 * 1024 + 4096)
            + (1024 + 1),
        ),
    ],
)
def test_discriminator_has_the_weights_of_table_6(name, shape, count):
    assert models.discriminator(name, shape).count_params() == count


def test_larger_kernels_of_the_released_code():
    model = models.generator("ape_gan_m", (28, 28, 1), kernel_size=5)
    assert model.get_layer("encoder_2").kernel.shape == (5, 5, 64, 128)


def test_layers_come_in_the_order_of_table_6():
    model = models.generator("ape_gan_m", (28, 28, 1))
    assert [layer.name for layer in model.layers] == [
        "images",
        "encoder_1",
        "encoder_1_batch_norm",
        "encoder_1_leaky_relu",
        "encoder_2",
        "encoder_2_batch_norm",
        "encoder_2_leaky_relu",
        "decoder_1",
        "decoder_1_batch_norm",
        "decoder_1_leaky_relu",
        "decoder_2",
        "sigmoid",
    ]
    slopes = [
        layer.negative_slope
        for layer in model.layers
        if isinstance(layer, keras.layers.LeakyReLU)
    ]
    assert slopes == [pytest.approx(0.2)] * 3


def test_decoder_activation_leaves_the_encoder_alone():
    model = models.generator(
        "ape_gan_i", (16, 16, 3), decoder_activation="relu"
    )
    activations = [
        layer.name
        for layer in model.layers
        if isinstance(layer, (keras.layers.ReLU, keras.layers.LeakyReLU))
    ]
    assert activations == [
        "encoder_1_leaky_relu",
        "encoder_2_leaky_relu",
        "encoder_3_leaky_relu",
        "decoder_1_relu",
        "decoder_2_relu",
    ]


# A block is twice 9 * W * W weights and 4 * W values of batch normalisation.
@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (
            {"width": 8, "depth": 2},
            9 * 1 * 8 + 4 * (9 * 8 * 8 + 4 * 8) + 4 * 8 + (9 * 8 * 1 + 1),
        ),
        (
            {"width": 5, "depth": 1, "kernel_size": 5},
            25 * 5 + 2 * (25 * 5 * 5 + 4 * 5) + 4 * 5 + (25 * 5 + 1),
        ),
        (
            {},
            9 * 32 + 8 * (9 * 32 * 32 + 4 * 32) + 4 * 32 + (9 * 32 + 1),
        ),
        # The guess: a layer to 3 classes, and one back without biases.
        (
            {"width": 4, "depth": 1, "classes": 3, "skip": True},
            9 * 4
            + 2 * (9 * 4 * 4 + 4 * 4)
            + 4 * 4
            + (4 * 3 + 3)
            + 3 * 4
            + (9 * 4 + 1),
        ),
        # The first and the last layer have kernels of twice their stride.
        (
            {"width": 4, "depth": 1, "stride": 3},
            36 * 4 + 2 * (9 * 4 * 4 + 4 * 4) + 4 * 4 + (36 * 4 + 1),
        ),
    ],
)
def test_a_residual_purifier_has_the_capacity_asked_for(arguments, count):
    model = models.generator("purifier_resnet", (9, 6, 1), **arguments)
    assert model.count_params() == count


def test_a_stride_makes_the_blocks_work_on_fewer_pixels():
    model = models.generator("purifier_resnet", (8, 12, 3), stride=2, width=5)
    assert model.get_layer("block_1").output.shape == (None, 4, 6, 5)
    assert model.output_shape == (None, 8, 12, 3)


def test_a_level_works_on_fewer_pixels_with_more_channels():
    model = models.generator(
        "purifier_resnet", (8, 12, 3), width=5, depth=2, stride=2, levels=2
    )
    for block, shape in enumerate([(4, 6, 5)] * 2 + [(2, 3, 10)] * 2, start=1):
        assert model.get_layer(f"block_{block}").output.shape[1:] == shape
    # The first layer of a level and the last of all: twice their stride.
    assert model.get_layer("level_2").kernel.shape == (4, 4, 5, 10)
    assert model.get_layer("last").kernel.shape == (8, 8, 3, 10)
    assert model.output_shape == (None, 8, 12, 3)


@pytest.mark.parametrize("stride", [1, 2])
def test_with_a_skip_a_network_begins_at_the_identity(stride):
    model = models.generator(
        "purifier_resnet", (8, 8, 3), stride=stride, skip=True
    )
    images = random_images((8, 8, 3))
    np.testing.assert_array_equal(model.predict(images, verbose=0), images)


def test_with_a_skip_what_is_computed_is_added_and_clipped():
    model = models.generator("purifier_resnet", (8, 8, 3), skip=True, depth=1)
    last = model.get_layer("last")
    kernel, bias = last.get_weights()
    bias[:] = 0.25, -0.25, 0.0
    last.set_weights([kernel, bias])
    images = random_images((8, 8, 3))
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        np.clip(images + bias, 0.0, 1.0),
        atol=1e-7,
    )


def test_what_is_added_depends_on_the_guess_alone():
    model = models.generator(
        "purifier_resnet", (8, 8, 1), classes=3, skip=True, stride=2, seed=0
    )
    guess, last = model.get_layer(models.GUIDE), model.get_layer("last")
    kernel, bias = last.get_weights()
    # It begins at zero, and is drawn here.
    kernel = np.random.default_rng(0).uniform(-1.0, 1.0, kernel.shape)
    last.set_weights([kernel, bias])
    inside = keras.Model(model.input, [guess.output, last.output])
    images = random_images((8, 8, 1))
    logits, before = inside.predict(images, verbose=0)
    assert logits.shape == (3, 3)
    # By hand: softmax, a linear layer, leaky ReLU, the same everywhere.
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    paint = shares @ model.get_layer("paint").get_weights()[0]
    paint = np.where(paint > 0, paint, 0.2 * paint)
    # A pixel inside is of the kernel's four that reach it.
    for row, column in np.ndindex(2, 2):
        reaching = kernel[row::2, column::2].sum((0, 1))
        wanted = paint @ reaching.T
        found = before[:, 2 + (row + 1) % 2, 2 + (column + 1) % 2]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    # Sure of one class, all images get one change.
    kernel, bias = guess.get_weights()
    guess.set_weights([kernel, bias + [99.0, 0.0, 0.0]])
    _, after = inside.predict(images, verbose=0)
    np.testing.assert_allclose(after, after[[0, 0, 0]], atol=1e-6)
    assert np.abs(after - before).max() > 1e-2


def test_a_stride_must_fit_the_image():
    with pytest.raises(ValueError, match="multiples of its total stride 2"):
        models.generator("purifier_resnet", (8, 7, 1), stride=2)
    with pytest.raises(ValueError, match="multiples of its total stride 8"):
        models.generator("purifier_resnet", (8, 12, 1), stride=2, levels=3)


def test_a_residual_block_adds_to_what_it_is_given():
    model = models.generator("purifier_resnet", (8, 8, 1), depth=1, seed=0)
    second = model.get_layer("block_1_conv_2")
    second.set_weights([np.zeros_like(each) for each in second.get_weights()])
    inside = keras.Model(
        model.input,
        [model.get_layer("first").output, model.get_layer("block_1").output],
    )
    before, after = inside(random_images((8, 8, 1)), training=False)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ape_gan_m", {"width": 8}, "width must be None for ape_gan_m, whose"),
        (
            "ape_gan_i",
            {"depth": 2},
            "depth must be None for ape_gan_i, .*got 2",
        ),
        ("purifier_resnet", {"width": 0}, "width must be a positive integer"),
        ("purifier_resnet", {"depth": 1.5}, "depth must be a positive integer"),
        ("purifier_resnet", {"stride": 0}, "stride must be a positive integer"),
        (
            "ape_gan_c",
            {"stride": 1},
            "stride must be None for ape_gan_c, .*got 1",
        ),
        ("purifier_resnet", {"levels": 0}, "levels must be a positive integer"),
        ("ape_gan_m", {"levels": 2}, "levels must be None for ape_gan_m"),
        ("ape_gan_i", {"skip": True}, "skip must be False for ape_gan_i, "),
        ("ape_gan_m", {"classes": 10}, "classes must be None for ape_gan_m"),
        ("purifier_resnet", {"classes": 0}, "classes must be a positive int"),
        ("purifier_resnet", {"classes": 3}, "skip must be True where classes"),
        (
            "purifier_resnet",
            {"skip": True, "output": "tanh"},
            "output must be .* sigmoid, where skip is True .*got 'tanh'",
        ),
    ],
)
def test_capacity_is_that_of_the_residual_purifier(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        models.generator(name, (8, 8, 1), **arguments)


@pytest.mark.parametrize("name", models.GENERATORS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (24, 40, 3), (64, 64, 2)])
def test_generator_keeps_the_shape(name, shape):
    model = models.generator(name, shape)
    assert model.output_shape == (None, *shape)
    assert [each.name for each in model.inputs] == ["images"]
    assert model.name == name


@pytest.mark.parametrize("name", models.GENERATORS)
@pytest.mark.parametrize("output", ape_gan.OUTPUTS)
def test_generator_is_from_unit_range_to_unit_range(name, output):
    shape = SMALL[name]
    model = models.generator(name, shape, output=output, seed=1)
    # Weights far off make the last layer saturate at both ends.
    for weights in model.trainable_weights[-2:]:
        weights.assign(weights * 1e4)
    purified = model(random_images(shape), training=False)
    assert purified.dtype == tf.float32
    assert float(tf.reduce_min(purified)) == pytest.approx(0, abs=1e-6)
    assert float(tf.reduce_max(purified)) == pytest.approx(1, abs=1e-6)
    assert np.all((purified >= 0) & (purified <= 1))


def test_tanh_is_the_network_of_the_released_code_between_two_scalings():
    model = models.generator("ape_gan_m", (8, 8, 1), output="tanh", seed=0)
    images = random_images((8, 8, 1))
    inner = keras.Model(
        model.get_layer("encoder_1").input, model.get_layer("tanh").output
    )
    expected = (inner(images * 2 - 1, training=False) + 1) / 2
    np.testing.assert_allclose(model(images, training=False), expected, 1e-6)


@functools.cache
def network_to_read(build, name):
    """One for the tests that change nothing of it."""
    return build(name, SMALL[name], seed=3)


@pytest.mark.parametrize("build", [models.generator, models.discriminator])
@pytest.mark.parametrize("name", models.GENERATORS)
def test_eager_equals_graph_for_any_batch(build, name):
    shape = SMALL[name]
    model = network_to_read(build, name)
    compiled = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((None, *shape), tf.float32)],
    )
    for count in (1, 5):
        images = random_images(shape, count)
        np.testing.assert_allclose(
            compiled(images), model(images, training=False), atol=1e-5
        )


@pytest.mark.parametrize("build", [models.generator, models.discriminator])
@pytest.mark.parametrize("name", models.GENERATORS)
def test_an_image_does_not_depend_on_its_batch(build, name):
    shape = SMALL[name]
    model = network_to_read(build, name)
    images = random_images(shape, 4)
    together = model(images, training=False)
    alone = model(images[2:3], training=False)
    np.testing.assert_allclose(together[2:3], alone, atol=1e-5)


@pytest.mark.parametrize("build", [models.generator, models.discriminator])
def test_seed_decides_the_weights(build):
    def weights(seed):
        return build("ape_gan_m", (8, 8, 1), seed=seed).get_weights()

    first, again, other = weights(5), weights(5), weights(6)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[0], other[0])


def test_no_seed_gives_other_weights_each_time():
    first, second = (models.generator("ape_gan_m", (8, 8, 1)) for _ in "ab")
    assert not np.array_equal(first.get_weights()[0], second.get_weights()[0])


def test_layers_of_one_shape_start_with_other_weights():
    model = models.discriminator("ape_gan_i", (16, 16, 256), seed=0)
    third, fourth = (
        np.asarray(model.get_layer(name).kernel)
        for name in ("conv_3", "conv_4")
    )
    assert not np.array_equal(third[:, :, :128], fourth[:, :, :128])


def test_discriminator_returns_logits_for_any_size():
    model = models.discriminator("ape_gan_m", (27, 30, 1), seed=0)
    images = random_images((27, 30, 1), 5)
    assert model(images).shape == (5, 1)
    for weights in model.trainable_weights[-2:]:
        weights.assign(weights * 100)
    assert np.abs(model(images, training=False)).max() > 1
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize("build", [models.generator, models.discriminator])
@pytest.mark.parametrize("name", models.GENERATORS)
def test_half_precision_ends_in_float32(half_precision, build, name):
    model = build(name, SMALL[name], seed=0)
    assert model.get_layer(index=1).compute_dtype == "bfloat16"
    assert model(random_images(SMALL[name])).dtype == tf.float32


@pytest.mark.parametrize("build", [models.generator, models.discriminator])
def test_batch_norm_momentum_reaches_every_layer(build):
    model = build("ape_gan_i", (16, 16, 3), batch_norm_momentum=0.9)
    momenta = [
        layer.momentum
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert momenta == [0.9] * 5


@pytest.mark.parametrize("build", [models.generator, models.discriminator])
def test_a_saved_file_gives_the_same_images(build, tmp_path):
    model = build("ape_gan_m", (8, 8, 1), seed=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    images = random_images((8, 8, 1), 5)
    np.testing.assert_allclose(
        again(images, training=False), model(images, training=False), 1e-6
    )


def test_gradients_reach_every_weight_and_the_image():
    model = models.generator("ape_gan_i", (16, 16, 3), seed=0)
    images = tf.constant(random_images((16, 16, 3)))
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(model(images, training=False) ** 2)
    for gradient in tape.gradient(loss, [images, *model.trainable_weights]):
        assert np.any(gradient != 0)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("ape_gan_m", (30, 28, 1), "stride 4, got 30x28.*28x28 or 32x28"),
        ("ape_gan_i", (28, 28, 3), "stride 8, got 28x28.*24x24 or 32x32"),
        ("ape_gan_c", (3, 3, 1), "got 3x3; the nearest that fit: 4x4$"),
    ],
)
def test_a_size_between_strides_is_refused(name, shape, message):
    with pytest.raises(ValueError, match=message):
        models.generator(name, shape)


@pytest.mark.parametrize("build", [models.generator, models.discriminator])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "ape_gan_x"}, "name must be one of ape_gan_c, ape_gan_i"),
        ({"image_shape": (8, 8)}, "image_shape must be .height, width, ch"),
        ({"image_shape": 8}, "image_shape must be .height, width, ch"),
        ({"image_shape": (8, 0, 1)}, "width in image_shape must be a posi"),
        ({"kernel_size": 0}, "kernel_size must be a positive integer"),
        ({"batch_norm_momentum": 1.5}, "batch_norm_momentum must be .* 1.5"),
    ],
)
def test_bad_arguments_are_named(build, arguments, message):
    good = {"name": "ape_gan_m", "image_shape": (8, 8, 1)}
    with pytest.raises(ValueError, match=message):
        build(**(good | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder_activation": "gelu"}, "must be one of leaky_relu, relu"),
        ({"output": "linear"}, "output must be one of sigmoid, tanh"),
    ],
)
def test_unknown_choices_list_the_known(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.generator("ape_gan_m", (8, 8, 1), **arguments)
