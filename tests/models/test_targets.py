"""Tests of all target classifiers, and of the layers of Table 5."""

import functools

import keras
import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf

import models

SHAPES = {
    "A": (12, 10, 1),
    "B": (16, 18, 1),
    "C": (28, 27, 1),
    "D": (16, 16, 3),
    "densenet40": (4, 5, 3),
    "resnet18": (8, 9, 1),
}


def random_images(shape, count=3):
    generator = np.random.default_rng(0)
    return generator.random((count, *shape), dtype=np.float32)


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        # 28 - 2 - 2 = 24, pooled 12: 12 * 12 * 64 values.
        (
            "A",
            (28, 28, 1),
            (9 * 1 + 1) * 32
            + (9 * 32 + 1) * 64
            + (12 * 12 * 64 + 1) * 128
            + (128 + 1) * 10,
        ),
        # 28 -> 24, pooled 12 -> 8, pooled 4: 4 * 4 * 64 values.
        (
            "B",
            (28, 28, 1),
            (9 * 1 + 1) * 32
            + (9 * 32 + 1) * 32
            + (9 * 32 + 1) * 64
            + (9 * 64 + 1) * 64
            + (4 * 4 * 64 + 1) * 200
            + (200 + 1) * 200
            + (200 + 1) * 10,
        ),
        # 28 -> 14 (SAME), (14 - 6) // 2 + 1 = 5, 5 - 5 + 1 = 1.
        (
            "C",
            (28, 28, 1),
            (64 * 1 + 1) * 64
            + (36 * 64 + 1) * 128
            + (25 * 128 + 1) * 128
            + (128 + 1) * 10,
        ),
        # 32 -> 28, pooled 14 -> 10, pooled 5: 5 * 5 * 128 values.
        (
            "D",
            (32, 32, 3),
            (9 * 3 + 1) * 64
            + (9 * 64 + 1) * 64
            + (9 * 64 + 1) * 128
            + (9 * 128 + 1) * 128
            + (5 * 5 * 128 + 1) * 256
            + (256 + 1) * 256
            + (256 + 1) * 10,
        ),
        ("A", (28, 28, 1), 1_199_882),
        ("B", (28, 28, 1), 312_202),
        ("C", (28, 28, 1), 710_218),
        ("D", (32, 32, 3), 1_147_978),
    ],
)
def test_target_has_the_weights_of_table_5(name, shape, count):
    model = models.target(name, shape, 10)
    assert model.count_params() == count
    assert model.output_shape == (None, 10)
    assert [each.name for each in model.inputs] == ["images"]


def test_only_a_has_dropout():
    rates = {
        name: [
            layer.rate
            for layer in models.target(name, SHAPES[name], 10).layers
            if isinstance(layer, keras.layers.Dropout)
        ]
        for name in models.TARGETS
    }
    assert rates.pop("A") == [0.25, 0.5]
    assert not any(rates.values())


@pytest.mark.parametrize("name", models.TARGETS)
def test_target_ends_in_logits(name):
    last = models.target(name, SHAPES[name], 7).layers[-1]
    assert last.activation is keras.activations.linear
    assert last.units == 7


@functools.cache
def network_to_read(name):
    """One for the tests that change nothing of it."""
    return models.target(name, SHAPES[name], 10, seed=0)


@pytest.mark.parametrize("name", models.TARGETS)
def test_eager_equals_graph_for_any_batch(name):
    model = network_to_read(name)
    compiled = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((None, *SHAPES[name]), tf.float32)],
    )
    for count in (1, 5):
        images = random_images(SHAPES[name], count)
        np.testing.assert_allclose(
            compiled(images), model(images, training=False), atol=1e-5
        )


@pytest.mark.parametrize("name", models.TARGETS)
def test_an_image_does_not_depend_on_its_batch(name):
    model = network_to_read(name)
    images = random_images(SHAPES[name])
    np.testing.assert_allclose(
        model(images, training=False)[1:2],
        model(images[1:2], training=False),
        rtol=1e-5,
        atol=1e-5,
    )


def test_seed_decides_weights_and_dropout():
    def outcome(seed):
        model = models.target("A", SHAPES["A"], 10, seed=seed)
        return model(random_images(SHAPES["A"]), training=True).numpy()

    np.testing.assert_allclose(outcome(4), outcome(4), rtol=1e-5)
    assert not np.allclose(outcome(4), outcome(5))


@pytest.mark.parametrize(
    ("name", "first"),
    [("C", "conv_1"), ("densenet40", "stem"), ("resnet18", "stem_conv")],
)
def test_half_precision_ends_in_float32(name, first):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = models.target(name, SHAPES[name], 10, seed=0)
    finally:
        keras.config.set_dtype_policy(before)
    assert model.get_layer(first).compute_dtype == "bfloat16"
    for training in (False, True):
        logits = model(random_images(SHAPES[name]), training=training)
        assert logits.dtype == tf.float32
        assert np.isfinite(logits).all()


@pytest.mark.parametrize("name", models.TARGETS)
def test_seed_decides_every_weight_that_is_drawn(name):
    def kernels(seed):
        model = models.target(name, SHAPES[name], 10, seed=seed)
        return [x.numpy() for x in model.weights if x.path.endswith("kernel")]

    first, again, other = kernels(4), kernels(4), kernels(5)
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert (one != three).any()
    # Nor are two layers of one shape alike.
    assert len({one.tobytes() for one in first}) == len(first)


@pytest.mark.parametrize("name", ["densenet40", "resnet18"])
def test_a_keras_file_of_a_normalised_network_is_the_same(tmp_path, name):
    model = models.target(name, SHAPES[name], 10, seed=0)
    images = random_images(SHAPES[name], 5)
    # Moves the moving averages, which the file must hold too.
    model(images, training=True)
    classifier = models.Classifier.from_keras(model)
    model.save(tmp_path / "classifier.keras")
    loaded = models.Classifier.load(tmp_path)
    assert loaded.fingerprint == classifier.fingerprint
    np.testing.assert_array_equal(loaded(images), classifier(images))


@pytest.mark.parametrize("name", ["densenet40", "resnet18"])
def test_gradient_is_the_slope_of_the_logits(name):
    model = network_to_read(name)
    classifier = models.Classifier.from_keras(model)
    images = tf.constant(random_images(SHAPES[name], 1))
    with tf.GradientTape() as tape:
        tape.watch(images)
        logit = classifier(images)[0, 3]
    gradient = tape.gradient(logit, images)
    # Central differences along the gradient itself.
    step = 1e-3 * gradient / tf.norm(gradient)
    ahead, behind = (classifier(images + x)[0, 3] for x in (step, -step))
    np.testing.assert_allclose(
        (ahead - behind) / 2e-3, tf.norm(gradient), rtol=0.02
    )


@pytest.mark.parametrize("name", ["densenet40", "resnet18"])
def test_a_few_steps_on_digits_lower_the_loss(name):
    scans = sklearn.datasets.load_digits()
    images = (scans.images[:16, ..., None] / 16.0).astype(np.float32)
    labels = tf.constant(scans.target[:16])
    model = models.target(name, (8, 8, 1), 10, seed=0)
    optimizer = keras.optimizers.Adam(1e-3)

    losses = []
    for _ in range(4):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels, model(images, training=True)
                )
            )
        losses.append(float(loss))
        optimizer.apply(
            tape.gradient(loss, model.trainable_variables),
            model.trainable_variables,
        )
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        ("A", 6),
        ("B", 16),
        ("C", 27),
        ("D", 16),
        ("densenet40", 4),
        ("resnet18", 8),
    ],
)
def test_the_smallest_size_fits_and_the_next_does_not(name, smallest):
    model = models.target(name, (smallest, smallest, 1), 3)
    images = random_images((smallest, smallest, 1), 2)
    assert model(images, training=False).shape == (2, 3)
    too_small = (smallest, smallest - 1, 1)
    with pytest.raises(
        ValueError,
        match=f"at least {smallest}x{smallest} for target {name}, "
        f"got {smallest}x{smallest - 1}",
    ):
        models.target(name, too_small, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "E"},
            "name must be one of A, B, C, D, densenet40, resnet18, got 'E'",
        ),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"num_classes": 2.5}, "num_classes must be a positive integer"),
        ({"image_shape": (28, 28)}, "image_shape must be .height, width"),
        ({"image_shape": (28, 28, -1)}, "channels in image_shape must be"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    good = {"name": "C", "image_shape": (28, 28, 1), "num_classes": 10}
    with pytest.raises(ValueError, match=message):
        models.target(**(good | arguments))
