"""JSMA against a plain implementation, and at its edges."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import models
from attacks.jsma import JSMA
from tests.attacks.plain_jsma import plain_jsma

CLASSES = 3


def of_weights(weights, shape):
    """A linear classifier: its Jacobian is the same everywhere."""

    def logits(images):
        return tf.reshape(images, (-1, weights.shape[0])) @ weights

    return models.Classifier.from_callable(
        logits,
        image_shape=shape,
        num_classes=weights.shape[1],
        fingerprint="weights",
    )


def plain(classifier, images, targets, theta=1.0, gamma=0.1):
    """The plain implementation, image by image."""

    logits = tf.function(classifier)

    @tf.function
    def jacobian(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = classifier(images)
        return tape.batch_jacobian(logits, images)

    def gradients_of(image):
        return jacobian(image[None])[0].numpy()

    def logits_of(image):
        return logits(image[None])[0].numpy()

    attack = functools.partial(
        plain_jsma, gradients_of, logits_of, theta=theta, gamma=gamma
    )
    return np.stack(
        [attack(*pair) for pair in zip(images, targets, strict=True)]
    )


@pytest.mark.parametrize("theta", [1.0, 0.3, -1.0, -0.25])
def test_a_network_is_attacked_as_the_plain_way_does(
    network, make_batch, theta
):
    images, labels = make_batch((6, 6, 1), 24)
    attack = JSMA(theta=theta, gamma=0.5, batch_size=5)
    result = attack(network, images, labels)
    np.testing.assert_array_equal(
        result.adversarial,
        plain(network, images, result.targets.numpy(), theta, 0.5),
    )
    assert 0 < np.mean(result.success) < 1


@pytest.mark.parametrize("shape", [(4, 5, 1), (3, 3, 3)])
@pytest.mark.parametrize("theta", [1.0, -0.5])
def test_ties_go_to_the_first_pair(make_batch, shape, theta):
    """Weights of few values make many pairs equally good."""
    generator = np.random.default_rng(4)
    size = int(np.prod(shape))
    weights = np.float32(generator.integers(-1, 2, (size, CLASSES)))
    classifier = of_weights(weights, shape)
    images, labels = make_batch(shape, 24)
    # Halves keep the sums exact; some values are at the box's edges.
    images = np.round(images * 2) / 2
    result = JSMA(theta=theta, gamma=0.6)(classifier, images, labels)
    np.testing.assert_array_equal(
        result.adversarial,
        plain(classifier, images, result.targets.numpy(), theta, 0.6),
    )
    assert 0 < np.mean(result.success) < 1


def test_saliency_is_weighed_by_both_terms():
    """Four values, one pair: worked out by hand."""
    # alpha = [1, 3, 2, 3], the sum of the others [-4, 1, -2, -2].
    weights = np.float32([[1, -4], [3, 1], [2, -2], [3, -2]])
    classifier = of_weights(weights, (2, 2, 1))
    images = np.zeros((1, 2, 2, 1), np.float32)
    result = JSMA(gamma=0.5)(
        tilted(classifier, [-100.0, 0.0]), images, [1], targets=[0]
    )
    # 4 * 6 = 24 of (0, 3) is more than 3 * 6 of (0, 2) and 5 * 4 of (2, 3).
    np.testing.assert_array_equal(
        result.adversarial[0, ..., 0], [[1, 0], [0, 1]]
    )
    assert not result.success[0]
    assert result.l0[0] == 2


def tilted(classifier, biases):
    return models.Classifier.from_callable(
        lambda images: classifier(images) + biases,
        image_shape=classifier.image_shape,
        num_classes=classifier.num_classes,
        fingerprint="tilted",
    )


@pytest.mark.parametrize(
    ("gamma", "pairs"), [(0.0, 0), (0.09, 0), (0.1, 1), (0.19, 1), (0.7, 7)]
)
def test_gamma_limits_the_values_that_change(gamma, pairs):
    """20 values that all help, and a target that is out of reach."""
    weights = np.float32([[1, -1]] * 20)
    classifier = tilted(of_weights(weights, (4, 5, 1)), [-100.0, 0.0])
    images = np.full((2, 4, 5, 1), 0.5, np.float32)
    result = JSMA(gamma=gamma)(classifier, images, [1, 1])
    np.testing.assert_array_equal(result.l0, [2 * pairs] * 2)
    np.testing.assert_array_equal(result.gradient_evaluations, [2 * pairs] * 2)
    assert not result.success.numpy().any()
    # The first in row-major order, as all are equal.
    changed = result.adversarial.numpy().reshape(2, 20) == 1.0
    np.testing.assert_array_equal(changed, [np.arange(20) < 2 * pairs] * 2)


def test_it_ends_when_no_pair_is_left():
    """Values 0 and 1 help, 2 does not; one is at its bound already."""
    weights = np.float32([[1, -1], [1, -1], [-9, 9], [1, -1]])
    classifier = tilted(of_weights(weights, (2, 2, 1)), [-100.0, 0.0])
    images = np.float32([0.5, 0.5, 0.5, 1.0]).reshape(1, 2, 2, 1)
    result = JSMA(gamma=1.0)(classifier, images, [1])
    np.testing.assert_array_equal(
        result.adversarial[0, ..., 0], [[1, 1], [0.5, 1]]
    )
    # The second look finds nothing.
    assert result.gradient_evaluations[0] == 4


def test_an_image_that_is_the_target_stays(linear, classifier, make_batch):
    images, _ = make_batch((4, 5, 1), 12)
    targets = linear.logits(images).argmax(-1)
    result = JSMA()(classifier, images, (targets + 1) % 3, targets=targets)
    np.testing.assert_array_equal(result.adversarial, images)
    np.testing.assert_array_equal(result.gradient_evaluations, [0] * 12)
    assert result.success.numpy().all()


def test_a_constant_classifier_leaves_the_image():
    classifier = of_weights(np.zeros((20, 3), np.float32), (4, 5, 1))
    images = np.full((3, 4, 5, 1), 0.5, np.float32)
    result = JSMA()(classifier, images, [0, 0, 0], targets=[1, 2, 1])
    np.testing.assert_array_equal(result.adversarial, images)
    assert not result.success.numpy().any()


def test_gradients_that_are_not_finite_are_an_error(linear, make_batch):
    def logits(images):
        # Infinite slope at 0, where only the last images have a value.
        return linear.function(images) + tf.sqrt(images[:, :1, 0, 0])

    classifier = models.Classifier.from_callable(
        logits, image_shape=(4, 5, 1), num_classes=3, fingerprint="root"
    )
    images = make_batch((4, 5, 1), 9)[0] * 0.5 + 0.25
    images[[4, 7], 0, 0, 0] = 0.0
    labels = linear.logits(images).argmax(-1)
    indices = np.arange(100, 109)
    with pytest.raises(ValueError, match="jsma: .* 2 image.*index 104"):
        JSMA()(classifier, images, labels, indices=indices)


def test_logits_that_are_not_finite_are_an_error(linear, make_batch):
    def logits(images):
        broken = tf.where(images[:, :1, 0, 0] == 0.125, np.nan, 0.0)
        return linear.function(images) + broken

    classifier = models.Classifier.from_callable(
        logits, image_shape=(4, 5, 1), num_classes=3, fingerprint="broken"
    )
    images, labels = make_batch((4, 5, 1), 9)
    images[3, 0, 0, 0] = 0.125
    with pytest.raises(ValueError, match="jsma: .* 1 image.*index 3"):
        JSMA()(classifier, images, labels)


def test_batch_size_and_xla_do_not_matter(network, make_batch):
    images, labels = make_batch((6, 6, 1), 10)
    whole = JSMA(gamma=0.4)(network, images, labels)
    for attack in (JSMA(gamma=0.4, batch_size=3), JSMA(gamma=0.4, xla=True)):
        result = attack(network, images, labels)
        np.testing.assert_array_equal(result.adversarial, whole.adversarial)
        np.testing.assert_array_equal(
            result.gradient_evaluations, whole.gradient_evaluations
        )


def test_targets_follow_seed_and_index(classifier, batch):
    images, labels = batch
    one = JSMA(seed=1)(classifier, images, labels, indices=np.arange(50, 59))
    part = JSMA(seed=1)(
        classifier, images[4:], labels[4:], indices=np.arange(54, 59)
    )
    np.testing.assert_array_equal(one.targets[4:], part.targets)
    np.testing.assert_array_equal(one.adversarial[4:], part.adversarial)
    assert (one.targets.numpy() != labels).all()


def test_colour_values_change_one_by_one(colour_linear, make_batch):
    images, labels = make_batch((3, 4, 3), 9)
    classifier = colour_linear.from_callable()
    result = JSMA(gamma=0.3)(classifier, images, labels)
    np.testing.assert_array_equal(
        result.adversarial,
        plain(classifier, images, result.targets.numpy(), 1.0, 0.3),
    )
    assert result.adversarial.numpy().max() <= 1.0


def test_it_sees_through_a_purifier(network, make_batch):
    purifier = models.Purifier.from_callable(
        lambda images: 0.25 + 0.5 * images**2,
        image_shape=(6, 6, 1),
        fingerprint="curve",
    )
    defended = network.behind(purifier)
    images, labels = make_batch((6, 6, 1), 9)
    result = JSMA(gamma=0.5)(defended, images, labels)
    np.testing.assert_array_equal(
        result.adversarial,
        plain(defended, images, result.targets.numpy(), 1.0, 0.5),
    )


def test_it_begins_where_it_is_told(network, make_batch):
    images, labels = make_batch((6, 6, 1), 9)
    starts = images[::-1].copy()
    result = JSMA(gamma=0.4)(network, images, labels, starts=starts)
    np.testing.assert_array_equal(
        result.adversarial,
        plain(network, starts, result.targets.numpy(), 1.0, 0.4),
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"target": None}, "target must not be None: jsma is a targeted"),
        ({"theta": 0.0}, "theta must not be 0"),
        ({"theta": 1.5}, r"theta must be a number in \[-1.0, 1.0\], got 1.5"),
        ({"gamma": -0.1}, r"gamma must be a number in \[0.0, 1.0\]"),
        ({"target": "nearest"}, "target must be one of all, least_likely"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        JSMA(**params)


def test_a_target_that_is_the_label_is_refused(classifier, batch):
    images, labels = batch
    with pytest.raises(ValueError, match="targets must not be the labels"):
        JSMA()(classifier, images, labels, targets=labels)
