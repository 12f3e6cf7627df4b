"""Tests of gradients through defences that have none, or a random one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import models

SHAPE = (6, 5, 1)
PIXELS = 30
ROUNDING = ["bit_depth", "jpeg"]


GUESS = {"classes": 3, "skip": True, "width": 4, "depth": 1, "seed": 4}


@pytest.fixture
def images():
    return np.random.default_rng(2).random((4, *SHAPE), dtype=np.float32)


@pytest.fixture
def classifier():
    """Logits of two layers, so that the gradient varies with the point."""
    generator = np.random.default_rng(3)
    hidden = generator.normal(size=(PIXELS, 7)).astype(np.float32)
    output = generator.normal(size=(7, 3)).astype(np.float32)

    def logits(images):
        return tf.tanh(tf.reshape(images, (-1, PIXELS)) @ hidden) @ output

    return models.Classifier.from_callable(
        logits, image_shape=SHAPE, num_classes=3, fingerprint="tanh"
    )


def gradient(function, images):
    """Returns that of the sum of the first logits."""
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(function(images)[:, 0])
    return tape.gradient(total, images).numpy()


@pytest.mark.parametrize("name", [*ROUNDING, "median_filter"])
def test_identity_backward_purifies_to_the_same_bits(name, images):
    purifier = models.baseline(name, SHAPE)
    adaptive = models.with_identity_backward(purifier)
    np.testing.assert_array_equal(
        adaptive.predict(images), purifier.predict(images)
    )
    assert adaptive.predict(images[:0]).shape == (0, *SHAPE)
    assert adaptive.name == purifier.name
    assert adaptive.image_shape == SHAPE


@pytest.mark.parametrize("name", [*ROUNDING, "median_filter"])
@pytest.mark.parametrize("compiled", [False, True])
def test_identity_backward_differentiates_at_the_purified_image(
    name, compiled, images, classifier
):
    purifier = models.baseline(name, SHAPE)
    defended = classifier.behind(models.with_identity_backward(purifier))
    function = tf.function(defended.__call__) if compiled else defended
    expected = gradient(classifier, purifier.predict(images))
    np.testing.assert_allclose(
        gradient(function, images), expected, rtol=1e-5, atol=1e-5
    )


def test_a_network_with_weights_can_be_passed_through(classifier):
    images = np.random.default_rng(4).random((4, 8, 8, 1), dtype=np.float32)
    purifier = models.Purifier.from_keras(
        models.generator("ape_gan_m", (8, 8, 1), seed=0)
    )
    adaptive = models.with_identity_backward(purifier)
    tf_images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(tf_images)
        total = tf.reduce_sum(adaptive(tf_images) ** 2)
    np.testing.assert_allclose(
        tape.gradient(total, tf_images),
        2 * purifier.predict(images),
        rtol=1e-5,
        atol=1e-6,
    )
    assert adaptive.trackables == purifier.trackables


def test_adaptive_gradients_keep_the_fingerprint_of_the_defence(classifier):
    purifier = models.baseline("jpeg", SHAPE)
    adaptive = models.with_identity_backward(purifier)
    defended = classifier.behind(purifier)
    assert adaptive.fingerprint == purifier.fingerprint
    assert classifier.behind(adaptive).fingerprint == defended.fingerprint
    averaged = models.averaged(defended, 3)
    assert averaged.fingerprint == defended.fingerprint
    assert averaged.name == defended.name
    assert averaged.base is classifier
    assert averaged.purifier is purifier


def plain_softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_the_average_of_one_answer_is_its_log_softmax(
    samples, images, classifier
):
    averaged = models.averaged(classifier, samples)
    expected = np.log(plain_softmax(classifier.predict(images)))
    for answer in (averaged.predict(images), averaged(tf.constant(images))):
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)
    assert averaged.predict(images[:0]).shape == (0, 3)
    assert averaged.num_classes == 3


def alternating(classifier):
    """A classifier whose answers go round three scales of its logits."""
    calls = tf.Variable(0)

    def logits(images):
        scale = tf.gather([1.0, -2.0, 3.0], calls.assign_add(1) % 3)
        return scale * classifier(images)

    return models.Classifier.from_callable(
        logits, image_shape=SHAPE, num_classes=3, fingerprint="alternating"
    )


def test_the_average_is_the_mean_of_the_probabilities(images, classifier):
    averaged = models.averaged(alternating(classifier), 3)
    logits = classifier.predict(images)
    mean = np.mean([plain_softmax(k * logits) for k in (1, -2, 3)], axis=0)
    for answer in (averaged.predict(images), averaged(tf.constant(images))):
        np.testing.assert_allclose(answer, np.log(mean), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_is_that_of_the_mean(compiled, images, classifier):
    averaged = models.averaged(alternating(classifier), 3)
    function = tf.function(averaged.__call__) if compiled else averaged

    def plain(images):
        logits = classifier(images)
        answers = [tf.nn.softmax(scale * logits) for scale in (1.0, -2.0, 3.0)]
        return tf.math.log(tf.add_n(answers) / 3.0)

    np.testing.assert_allclose(
        gradient(function, images),
        gradient(plain, images),
        rtol=1e-4,
        atol=1e-5,
    )


def test_an_average_of_sure_answers_stays_finite(images, classifier):
    def sure(images):
        return 1e4 * classifier(images)

    averaged = models.averaged(
        models.Classifier.from_callable(
            sure, image_shape=SHAPE, num_classes=3, fingerprint="sure"
        ),
        4,
    )
    logits = 1e4 * classifier.predict(images).astype(np.float64)
    expected = logits - logits.max(1, keepdims=True)
    np.testing.assert_allclose(
        averaged.predict(images), expected, rtol=1e-4, atol=1e-2
    )
    assert np.isfinite(gradient(averaged, images)).all()


def test_more_samples_make_a_random_answer_steadier(images, classifier):
    tf.random.set_seed(5)
    defended = classifier.behind(models.baseline("random_noise", SHAPE))

    def spread(samples):
        averaged = models.averaged(defended, samples)
        answers = [np.exp(averaged.predict(images)) for _ in range(60)]
        return np.std(answers, axis=0).mean()

    # A quarter for 16 times as many; 60 estimates of it leave a tenth open.
    assert spread(16) / spread(1) == pytest.approx(0.25, rel=0.3)


@pytest.mark.parametrize("samples", [0, -1, 2.5, True])
def test_samples_are_a_positive_integer(samples, classifier):
    with pytest.raises(ValueError, match="samples must be a positive integer"):
        models.averaged(classifier, samples)


@pytest.fixture
def guessing(classifier):
    model = models.generator("purifier_resnet", SHAPE, **GUESS)
    return classifier.behind(models.Purifier.from_keras(model))


def test_a_guess_in_place_of_both_is_the_purifiers_own(guessing, images):
    adaptive = models.guess_in_place_of(guessing)
    model = guessing.purifier.keras_model
    inside = keras.Model(model.input, model.get_layer("means").output)
    weights, bias = model.get_layer(models.GUIDE).get_weights()
    wanted = inside.predict(images, verbose=0) @ weights + bias
    np.testing.assert_allclose(adaptive.predict(images), wanted, atol=1e-6)
    assert np.abs(gradient(adaptive, images)).max() > 0.0
    assert adaptive.fingerprint == guessing.fingerprint
    assert adaptive.purifier is guessing.purifier


def test_a_guess_is_needed_among_the_classifiers_classes(classifier, guessing):
    median = models.baseline("median_filter", SHAPE)
    for defended in (classifier, classifier.behind(median)):
        with pytest.raises(
            ValueError, match="guess of its own, got (None|median_filter)"
        ):
            models.guess_in_place_of(defended)
    fewer = models.Classifier.from_callable(
        lambda images: classifier(images)[:, :2],
        image_shape=SHAPE,
        num_classes=2,
        fingerprint="two",
    )
    with pytest.raises(ValueError, match="among the 2 classes .*, got 3"):
        models.guess_in_place_of(fewer.behind(guessing.purifier))
