"""The probe on gradients that are right, missing, broken or random."""

import numpy as np
import pytest
import tensorflow as tf

import models

SHAPE = (6, 5, 1)
CLEAN = models.GradientProbe(0.0, 0.0, 0.0, False, 0.0)


@pytest.fixture
def images():
    return np.random.default_rng(2).random((6, *SHAPE), dtype=np.float32)


@pytest.fixture
def labels(linear, images):
    return linear.predict(images).argmax(1)


@pytest.fixture
def linear():
    weights = np.random.default_rng(3).normal(size=(30, 3)).astype(np.float32)
    return of(lambda images: tf.reshape(images, (-1, 30)) @ weights)


def of(logits, num_classes=3):
    return models.Classifier.from_callable(
        logits, image_shape=SHAPE, num_classes=num_classes, fingerprint="x"
    )


def behind(linear, function):
    purifier = models.Purifier.from_callable(
        function, image_shape=SHAPE, fingerprint="y"
    )
    return linear.behind(purifier)


def test_nothing_is_found_on_an_honest_network(images, labels, linear):
    found = models.probe_gradients(linear, images, labels)
    assert found == CLEAN
    assert [type(value) for value in found] == [type(x) for x in CLEAN]


def test_nothing_is_found_on_a_trained_kind_of_network(make_model):
    images = np.random.default_rng(1).random((5, 8, 6, 3), dtype=np.float32)
    classifier = models.Classifier.from_keras(make_model())
    found = models.probe_gradients(classifier, images, [0, 1, 2, 3, 0])
    assert found[:4] == CLEAN[:4]


@pytest.mark.parametrize(
    "function",
    [tf.stop_gradient, lambda x: tf.round(x * 7.0) / 7.0, tf.zeros_like],
    ids=["stop_gradient", "rounds", "constant"],
)
def test_a_planted_zero_gradient_is_found(function, images, labels, linear):
    defended = behind(linear, function)
    found = models.probe_gradients(defended, images, labels)
    assert found == CLEAN._replace(zero_share=1.0)


def test_shares_count_images(images, labels, linear):
    """Only images whose first pixel is dark have a gradient."""
    images[:, 0, 0] = 0.25
    images[:2, 0, 0] = 0.75

    def half_stopped(images):
        is_bright = images[:, :1, :1] > 0.5
        return tf.where(is_bright, tf.stop_gradient(images), images)

    found = models.probe_gradients(behind(linear, half_stopped), images, labels)
    assert found == CLEAN._replace(zero_share=2 / 6)


def test_a_saturated_softmax_is_told_from_a_zero_gradient(
    images, labels, linear
):
    sure = of(lambda images: 1e5 * linear(images))
    found = models.probe_gradients(sure, images, labels)
    assert found == CLEAN._replace(saturated_share=1.0)
    # Where the label is wrong the cross-entropy has its steepest gradient.
    wrong = models.probe_gradients(sure, images, (labels + 1) % 3)
    assert wrong == CLEAN


@pytest.mark.parametrize(
    "function",
    [lambda x: tf.sqrt(x), lambda x: tf.where(x > 0, tf.math.log(x), 0.0)],
    ids=["infinite", "NaN"],
)
def test_a_broken_gradient_is_found(function, images, labels, linear):
    images[:3, 2, 2] = 0.0
    found = models.probe_gradients(behind(linear, function), images, labels)
    assert found == CLEAN._replace(non_finite_share=0.5)


def test_random_answers_are_found(images, labels, linear):
    tf.random.set_seed(0)
    defended = linear.behind(models.baseline("random_noise", SHAPE))
    found = models.probe_gradients(defended, images, labels)
    assert found.answers_change
    assert found.largest_answer_change > 0.01
    assert found[:3] == CLEAN[:3]


def flickering(linear, scale):
    """Moves all logits by `scale` of the first from one query to the next."""
    calls = tf.Variable(0)

    def logits(images):
        answers = linear(images)
        count = tf.cast(calls.assign_add(1) % 2, tf.float32)
        return answers * (1.0 + scale * count)

    return of(logits)


@pytest.mark.parametrize(
    ("scale", "changes"), [(1e-6, False), (1e-4, True), (np.inf, True)]
)
def test_rounding_is_no_change(scale, changes, images, labels, linear):
    found = models.probe_gradients(flickering(linear, scale), images, labels)
    assert found.answers_change == changes
    largest = np.abs(linear.predict(images)).max()
    if np.isfinite(scale):
        np.testing.assert_allclose(
            found.largest_answer_change, scale * largest, rtol=0.3
        )
    else:
        assert found.largest_answer_change == np.inf


def test_an_answer_that_stays_nan_has_not_changed(images, labels):
    broken = of(lambda images: tf.fill((tf.shape(images)[0], 3), np.nan))
    found = models.probe_gradients(broken, images, labels)
    assert found[3:] == (False, 0.0)


def test_adaptive_gradients_repair_what_was_found(images, labels, linear):
    purifier = models.baseline("bit_depth", SHAPE)
    defended = linear.behind(purifier)
    assert models.probe_gradients(defended, images, labels).zero_share == 1.0
    repaired = linear.behind(models.with_identity_backward(purifier))
    assert models.probe_gradients(repaired, images, labels) == CLEAN


@pytest.mark.parametrize(
    ("count", "labels", "message"),
    [
        (0, [], "images must hold at least one image, got none"),
        (2, [0], "labels must have one entry per image, expected 2, got 1"),
        (2, [0, 3], r"labels must be in \[0, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(count, labels, message, images, linear):
    with pytest.raises(ValueError, match=message):
        models.probe_gradients(linear, images[:count], labels)
    with pytest.raises(ValueError, match="images must be float32 in"):
        models.probe_gradients(linear, images + 1.0, labels)
