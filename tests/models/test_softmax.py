"""Classifiers that return probabilities."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from tests.models.strangers import (
    SHAPE,
    gradient,
)


def make_softmax_models(make_model):
    head = keras.Sequential(
        [keras.Input((4,)), keras.layers.Softmax()], name="head"
    )
    inputs = keras.Input(SHAPE)
    return {
        "dense": make_model("softmax"),
        "layer": keras.Sequential([make_model(), keras.layers.Softmax()]),
        "activation": keras.Sequential(
            [
                keras.Input(SHAPE),
                keras.layers.Flatten(),
                keras.layers.Dense(4),
                keras.layers.Activation("softmax"),
            ]
        ),
        "functional": keras.Model(
            inputs, keras.layers.Softmax()(make_model()(inputs))
        ),
        "nested": keras.Sequential(
            [
                keras.Input(SHAPE),
                keras.layers.Rescaling(2.0),
                make_model("softmax"),
            ]
        ),
        "nested_layer": keras.Sequential(
            [keras.Input(SHAPE), make_model(), head]
        ),
        "unbuilt": keras.Sequential(
            [keras.layers.Flatten(), keras.layers.Dense(4, "softmax")]
        ),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "dense",
        "layer",
        "activation",
        "functional",
        "nested",
        "nested_layer",
        "unbuilt",
    ],
)
@pytest.mark.parametrize("output", [None, "logits", "probabilities"])
def test_softmax_is_stripped_from_a_copy(make_model, images, kind, output):
    model = make_softmax_models(make_model)[kind]
    before = model(images, training=False).numpy()
    classifier = models.Classifier.from_keras(
        model, output=output, image_shape=SHAPE
    )
    logits = classifier.predict(images)
    assert logits.min() < 0
    np.testing.assert_allclose(tf.nn.softmax(logits), before, atol=1e-6)
    np.testing.assert_array_equal(model(images, training=False), before)


def test_logits_behind_a_saturated_softmax_keep_their_gradient(
    make_model, images
):
    model = make_model("softmax")
    kernel, bias = model.get_layer("dense").get_weights()
    model.get_layer("dense").set_weights([kernel, bias + [200, 0, 0, 0]])
    assert np.all(gradient(lambda x: model(x, training=False), images) == 0)
    classifier = models.Classifier.from_keras(model)
    assert np.abs(gradient(classifier, images)).max() > 1e-3


def make_unstrippable():
    """A model that ends in an operation, not in a layer."""
    inputs = keras.Input(SHAPE)
    logits = keras.layers.Dense(4)(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.ops.softmax(logits), name="sealed")


def test_probabilities_that_cannot_be_stripped_become_logarithms(
    images, tmp_path
):
    model = make_unstrippable()
    with pytest.warns(UserWarning, match="saturates and masks gradients"):
        classifier = models.Classifier.from_keras(model, output="probabilities")
    expected = np.log(model(images, training=False))
    np.testing.assert_allclose(classifier.predict(images), expected, atol=1e-6)
    classifier.save(tmp_path / "c")
    for endpoint in (None, "logits"):
        again = models.Classifier.load(tmp_path / "c", endpoint=endpoint)
        assert again.fingerprint == classifier.fingerprint
        np.testing.assert_allclose(again.predict(images), expected, atol=1e-6)


def test_a_probability_of_zero_is_clipped(images):
    classifier_of = models.Classifier.from_keras
    model = make_unstrippable()
    weights, bias = model.get_weights()
    model.set_weights([weights, bias + [500, 0, 0, 0]])
    with pytest.warns(UserWarning, match="probabilities"):
        classifier = classifier_of(model, output="probabilities")
    logits = classifier.predict(images)
    np.testing.assert_allclose(logits[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(logits[:, 1:], np.log(1e-7), atol=1e-4)


@pytest.mark.parametrize("output", [None, "logits"])
def test_probabilities_are_recognised(output):
    with pytest.raises(
        ValueError, match="looks like .*classifier_output=probabilities"
    ):
        models.Classifier.from_keras(make_unstrippable(), output=output)


def test_logits_are_recognised(make_model):
    with pytest.raises(ValueError, match="must be probabilities, got values"):
        models.Classifier.from_keras(make_model(), output="probabilities")


def test_a_saved_model_of_probabilities(tmp_path, images):
    make_unstrippable().export(tmp_path / "m", verbose=False)
    with pytest.raises(ValueError, match="classifier_output=probabilities"):
        models.Classifier.load(tmp_path / "m")
    with pytest.warns(UserWarning, match="probabilities"):
        classifier = models.Classifier.load(
            tmp_path / "m", output="probabilities"
        )
    assert classifier.predict(images).max() <= 0


@pytest.mark.parametrize("method", ["load", "from_keras"])
def test_unknown_output_lists_the_known(method, make_model, tmp_path):
    given = {"load": tmp_path, "from_keras": make_model("softmax")}[method]
    with pytest.raises(ValueError, match="output must be one of logits, prob"):
        getattr(models.Classifier, method)(given, output="logit")
