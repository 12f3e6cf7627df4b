"""Tests of the wrapper around any purifier."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from data import files
from models import saved_model

SHAPE = (8, 8, 1)


@pytest.fixture
def generator():
    return models.generator("ape_gan_m", SHAPE, seed=0)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, *SHAPE), dtype=np.float32)


def export(path, purifier, classes=None):
    """Writes a purifier as a server wants it, with or without `classify`."""

    def purify(images):
        valid = tf.reduce_all(tf.math.is_finite(images), axis=(1, 2, 3))
        return {"valid": valid, "purified": purifier(images)}

    endpoints = {"serving_default": purify, "purify": purify}
    if classes is not None:
        kernel = tf.Variable(tf.ones((64, classes)))

        def classify(images):
            logits = tf.reshape(purifier(images), (-1, 64)) @ kernel
            return {**purify(images), "logits": logits}

        endpoints["classify"] = classify
    spec = saved_model.images_spec(purifier.image_shape)
    with files.written_whole(path) as partial:
        saved_model.save(
            partial,
            {
                name: saved_model.Endpoint(function, spec)
                for name, function in endpoints.items()
            },
            identity=purifier.identity,
            name=purifier.name,
            trackables=purifier.trackables,
        )


def test_images_are_those_of_the_generator(generator, images):
    purifier = models.Purifier.from_keras(generator)
    expected = generator(images, training=False)
    purified = purifier(tf.constant(images))
    np.testing.assert_allclose(purified, expected, atol=1e-6)
    for batch_size in (2, 128):
        purified = purifier.predict(images, batch_size=batch_size)
        np.testing.assert_allclose(purified, expected, atol=1e-6)
    assert purified.dtype == np.float32
    assert purifier.predict(images[:0]).shape == (0, *SHAPE)
    assert purifier.image_shape == SHAPE
    assert purifier.name == "ape_gan_m"
    assert purifier.keras_model is generator


def test_purifier_is_differentiable(generator, images):
    purifier = models.Purifier.from_keras(generator)
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(purifier(images) ** 2)
    assert np.abs(tape.gradient(loss, images)).max() > 0


def test_predict_checks_its_images(generator, images):
    purifier = models.Purifier.from_keras(generator)
    with pytest.raises(ValueError, match="images must be float32 in"):
        purifier.predict(images + 1)


@pytest.mark.parametrize("classes", [None, 3])
def test_every_form_loads_as_the_same(generator, images, tmp_path, classes):
    purifier = models.Purifier.from_keras(generator)
    generator.save(tmp_path / "purifier.keras")
    for version in ("2", "10"):
        export(tmp_path / "purifier" / version, purifier, classes)
    for path in (
        tmp_path,
        tmp_path / "purifier.keras",
        tmp_path / "purifier",
        tmp_path / "purifier" / "2",
    ):
        again = models.Purifier.load(path)
        assert again.fingerprint == purifier.fingerprint
        assert again.name == "ape_gan_m"
        from_saved_model = path.name in ("purifier", "2")
        assert (again.keras_model is None) == from_saved_model
        np.testing.assert_allclose(
            again.predict(images), purifier.predict(images), atol=1e-6
        )


def test_newest_version_wins(generator, tmp_path):
    newer = models.Purifier.from_keras(
        models.generator("ape_gan_m", SHAPE, seed=9)
    )
    export(tmp_path / "9", models.Purifier.from_keras(generator))
    export(tmp_path / "10", newer)
    assert models.Purifier.load(tmp_path).fingerprint == newer.fingerprint


def test_an_endpoint_can_be_named(generator, images, tmp_path):
    purifier = models.Purifier.from_keras(generator)
    export(tmp_path / "1", purifier, classes=3)
    again = models.Purifier.load(tmp_path, endpoint="classify")
    np.testing.assert_allclose(
        again.predict(images), purifier.predict(images), atol=1e-6
    )
    classifier = models.Classifier.load(tmp_path, endpoint="classify")
    assert classifier.num_classes == 3
    with pytest.raises(ValueError, match="no signature x; its signatures: "):
        models.Purifier.load(tmp_path, endpoint="x")


def test_a_purifier_is_no_classifier(generator, tmp_path):
    export(tmp_path / "1", models.Purifier.from_keras(generator))
    with pytest.raises(
        ValueError, match=r"one called logits, got \['purified', 'valid'\]"
    ):
        models.Classifier.load(tmp_path)


def test_fingerprint_follows_weights_and_architecture(generator):
    def of(**options):
        return models.Purifier.from_keras(
            models.generator("ape_gan_m", SHAPE, **options)
        ).fingerprint

    assert of(seed=0) == models.Purifier.from_keras(generator).fingerprint
    others = {
        of(seed=0),
        of(seed=1),
        of(seed=0, decoder_activation="relu"),
        of(seed=0, output="tanh"),
    }
    assert len(others) == 4


def test_a_model_of_any_size_needs_an_image_shape(images):
    inputs = keras.Input((None, None, 1))
    outputs = keras.layers.Conv2D(1, 3, padding="same")(inputs)
    model = keras.Model(inputs, keras.ops.sigmoid(outputs))
    with pytest.raises(ValueError, match="image shape open"):
        models.Purifier.from_keras(model)
    purifier = models.Purifier.from_keras(model, image_shape=SHAPE)
    np.testing.assert_allclose(
        purifier.predict(images), model(images), atol=1e-6
    )


def keras_function(function):
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, function(inputs), name="odd")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[:, 1:], r"odd must return images of the shape .* got \("),
        (lambda x: x * 2, r"odd must return images in \[0, 1\], got values"),
        (lambda x: x - 0.1, r"odd must return images in \[0, 1\], got"),
        (lambda x: keras.ops.log(x - 1), "got values from nan"),
        (lambda x: [x, x], "one input and one output, got 1 and 2"),
    ],
)
def test_what_is_no_purifier_is_refused(function, message):
    with pytest.raises(ValueError, match=message):
        models.Purifier.from_keras(keras_function(function))


def test_another_shape_is_refused(generator):
    with pytest.raises(ValueError, match=r"must be \(8, 8, 1\), .* \(4, 4, 1"):
        models.Purifier.from_keras(generator, image_shape=(4, 4, 1))


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model at .*nowhere"):
        models.Purifier.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="looked for purifier.keras"):
        models.Purifier.load(tmp_path)


def test_a_callable_is_a_purifier(images):
    purifier = models.Purifier.from_callable(
        lambda x: 1 - x, image_shape=SHAPE, fingerprint="negative"
    )
    assert purifier.fingerprint == "negative"
    np.testing.assert_allclose(purifier.predict(images), 1 - images)
