"""Classifiers from strangers' SavedModels."""

import numpy as np
import pytest
import tensorflow as tf

import models
from tests.models.strangers import (
    SHAPE,
    Linear,
    flat,
    gradient,
    image_spec,
    save_function,
)


def test_an_exported_keras_model(make_model, tmp_path, images):
    model = make_model()
    model.export(tmp_path / "stranger", verbose=False)
    classifier = models.Classifier.load(tmp_path / "stranger")
    assert classifier.image_shape == SHAPE
    assert classifier.name == "stranger"
    for count in (7, 1):
        np.testing.assert_allclose(
            classifier.predict(images[:count]),
            model(images[:count], training=False),
            atol=1e-6,
        )
    expected = gradient(lambda x: model(x, training=False), images)
    np.testing.assert_allclose(gradient(classifier, images), expected, 1e-4)


def test_a_saved_model_has_the_weights_of_the_keras_model(make_model, tmp_path):
    model = make_model()
    model.export(tmp_path / "m", verbose=False)
    stranger = models.Classifier.load(tmp_path / "m")
    ours = models.Classifier.from_keras(model)

    def digests(classifier):
        weights = classifier._network.weights()
        return models.fingerprint.of_weights(weights), len(weights)

    assert digests(stranger) == digests(ours)
    assert digests(ours)[1] == 8


def test_a_module(tmp_path, images):
    module = Linear()
    tf.saved_model.save(module, str(tmp_path / "m"))
    classifier = models.Classifier.load(tmp_path / "m")
    np.testing.assert_allclose(
        classifier.predict(images), module(images), atol=1e-5
    )
    expected = np.broadcast_to(
        module.weights[:, 1].numpy().reshape(SHAPE), images.shape
    )
    np.testing.assert_allclose(gradient(classifier, images), expected, 1e-5)


def test_endpoints_are_preferred_in_order(tmp_path):
    module = tf.Module()

    def add(name, classes):
        function = tf.function(
            lambda x: {"out": flat(x, classes)}, input_signature=[image_spec()]
        )
        setattr(module, name, function)
        return function

    signatures = {}
    for name, classes in [("other", 2), ("serve", 3), ("serving_default", 4)]:
        signatures[name] = add(name, classes)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
    load = models.Classifier.load
    assert load(tmp_path / "m").num_classes == 4
    assert load(tmp_path / "m", endpoint="other").num_classes == 2
    with pytest.raises(
        ValueError, match=r"no signature o; its signatures: .*serve\(x: float"
    ):
        load(tmp_path / "m", endpoint="o")


def test_the_output_called_logits_is_taken(tmp_path, images):
    save_function(
        tmp_path / "m",
        lambda x: {"logits": flat(x), "features": x},
        image_spec(),
    )
    classifier = models.Classifier.load(tmp_path / "m")
    np.testing.assert_array_equal(classifier.predict(images), flat(images))


def test_half_precision_input_is_cast(tmp_path, images):
    save_function(tmp_path / "m", flat, image_spec(tf.float16))
    classifier = models.Classifier.load(tmp_path / "m")
    logits = classifier(tf.constant(images))
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, flat(images), atol=1e-3)


@pytest.mark.parametrize(
    ("function", "specs", "message"),
    [
        (
            lambda x: {"a": flat(x), "b": flat(x)},
            [image_spec()],
            r"one output or one called logits, got \['a', 'b'\]; its sig",
        ),
        (
            lambda x, y: flat(x) + flat(y),
            [image_spec(), tf.TensorSpec((None, *SHAPE), tf.float32, "y")],
            "must have one input, .*got 2; its signatures: serving_default",
        ),
        (
            lambda x: flat(tf.cast(x, tf.float32)),
            [image_spec(tf.uint8)],
            "got uint8: a cast to integers has no gradient",
        ),
        (flat, [image_spec(shape=(3, *SHAPE))], "a free batch dimension"),
        (
            lambda x: x,
            [image_spec(shape=(None, 7))],
            r"shape \[B, H, W, C\], got \(None, 7\)",
        ),
    ],
)
def test_signatures_that_do_not_fit_are_refused(
    tmp_path, function, specs, message
):
    save_function(tmp_path / "m", function, *specs)
    with pytest.raises(ValueError, match=message):
        models.Classifier.load(tmp_path / "m")


def test_a_saved_model_without_signatures_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
    with pytest.raises(
        ValueError, match="no signature logits or serving_default or serve; it"
    ):
        models.Classifier.load(tmp_path / "m")
