"""AutoAttack: which of its attacks is run on what, and what comes of it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import models
from attacks.auto_attack import AutoAttack

GREY = (4, 5, 1)
CLASSES = 5
each_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Short(AutoAttack):
    """The same four attacks, but short ones."""

    def attack_list(self):
        apgd_ce, apgd_t, fab_t, square = super().attack_list()
        return (
            dataclasses.replace(apgd_ce, steps=30),
            dataclasses.replace(apgd_t, steps=30),
            dataclasses.replace(fab_t, steps=30),
            dataclasses.replace(square, queries=100),
        )


def weights_of(classes):
    generator = np.random.default_rng(classes)
    return generator.normal(size=(20, classes)).astype(np.float32)


def linear_classifier(classes):
    weights = weights_of(classes)
    return models.Classifier.from_callable(
        lambda x: tf.reshape(x - 0.5, (-1, 20)) @ weights,
        image_shape=GREY,
        num_classes=classes,
        fingerprint="linear",
    )


def linear_logits(images, classes):
    flat = np.reshape(images, (len(images), 20)).astype(np.float64)
    return (flat - 0.5) @ weights_of(classes)


def distances_of(images, classes, norm):
    """How far the nearest boundary is, box apart, and the classes."""
    weights = weights_of(classes)
    logits = linear_logits(images, classes)
    dual = 1 if norm == "linf" else 2
    labels = logits.argmax(-1)
    distances = np.full(len(images), np.inf)
    for i, label in enumerate(labels):
        for other in set(range(classes)) - {label}:
            slope = np.linalg.norm(weights[:, label] - weights[:, other], dual)
            gap = logits[i, label] - logits[i, other]
            distances[i] = min(distances[i], gap / slope)
    return distances, labels


@pytest.fixture(scope="module")
def three_defences():
    """A linear classifier that dark, grey and bright images see otherwise.

    Dark ones plainly, grey ones with a softmax that saturates, bright ones
    without any gradient.
    """
    weights = weights_of(CLASSES)

    def function(images):
        logits = tf.reshape(images - 0.5, (-1, 20)) @ weights
        level = tf.reduce_mean(images, [1, 2, 3])[:, tf.newaxis]
        masked = tf.where(level < 0.6, 1e6 * logits, tf.stop_gradient(logits))
        return tf.where(level < 0.4, logits, masked)

    return models.Classifier.from_callable(
        function, image_shape=GREY, num_classes=CLASSES, fingerprint="three"
    )


def levels(count):
    """Dark, grey and bright images, none of them at random near a boundary."""
    generator = np.random.default_rng(4)
    noise = 0.2 * generator.random((400, *GREY), dtype=np.float32) - 0.1
    images = noise + np.tile([0.2, 0.5, 0.8, 0.8], 100)[:, None, None, None]
    images = images.astype(np.float32)
    distances, labels = distances_of(images, CLASSES, "linf")
    chosen = [
        np.flatnonzero((np.arange(400) % 4 == kind) & (distances > 0.01))
        for kind in range(3)
    ]
    places = np.concatenate([rows[:count] for rows in chosen])
    return images[places], labels[places]


def broken_by(attack, classifier, images, labels):
    """The place in the list of the attack that each image falls to."""
    found = np.full(len(images), -1)
    for number, part in enumerate(attack.attack_list()):
        left = np.flatnonzero(found < 0)
        result = part(classifier, images[left], labels[left], indices=left)
        sizes = np.asarray(getattr(result, attack.norm))
        is_inside = sizes <= attack.epsilon + 1e-6
        found[left[result.success & is_inside]] = number
    return found


def test_its_attacks_are_those_of_the_standard_version():
    attack = AutoAttack(epsilon=0.5, norm="l2", seed=3, batch_size=7, xla=True)
    parts = attack.attack_list()
    assert [part.name for part in parts] == [
        "apgd_ce",
        "apgd_t",
        "fab_t",
        "square",
    ]
    ball = {"epsilon": 0.5, "norm": "l2"}
    runs = {"steps": 100, "restarts": 1}
    assert parts[0].params == {**ball, **runs}
    assert parts[1].params == {**ball, **runs, "target_classes": 9}
    fab_t = {"norm": "l2", "stop_at": 0.5, **runs, "target_classes": 9}
    assert parts[2].params.items() >= fab_t.items()
    square = {**ball, "queries": 5000, "restarts": 1}
    assert parts[3].params.items() >= square.items()
    for part in parts:
        assert (part.seed, part.batch_size, part.xla) == (3, 7, True)
    assert attack.params == ball and attack.distance == "l2"


def test_each_attack_sees_what_those_before_it_left_standing(three_defences):
    images, labels = levels(8)
    classifier = three_defences
    attack = Short(epsilon=0.2, seed=1)
    broken = broken_by(attack, classifier, images, labels)
    assert (broken[:8] == 0).all()
    # A random start alone may be enough.
    assert set(broken[8:16]) <= {0, 1} and (broken[8:16] == 1).sum() > 3
    assert (broken[16:] != 1).all() and (broken[16:] == 3).sum() > 3
    result = attack(classifier, images, labels)
    np.testing.assert_array_equal(result.success, broken >= 0)
    evaluations = np.zeros(24, np.int64)
    for number, part in enumerate(attack.attack_list()):
        left = np.flatnonzero((broken < 0) | (broken >= number))
        expected = part(classifier, images[left], labels[left], indices=left)
        evaluations[left] += expected.gradient_evaluations.numpy()
        fallen = broken[left] == number
        np.testing.assert_array_equal(
            result.adversarial.numpy()[left[fallen]],
            expected.adversarial.numpy()[fallen],
        )
    np.testing.assert_array_equal(result.gradient_evaluations, evaluations)


@each_norm
def test_a_linear_classifier_falls_at_the_distance_of_its_boundary(norm):
    generator = np.random.default_rng(8)
    images = generator.uniform(0.3, 0.7, (30, *GREY)).astype(np.float32)
    distances, labels = distances_of(images, CLASSES, norm)
    epsilon = float(np.median(distances))
    assert epsilon < 0.3  # So the box is in nobody's way.
    attack = Short(epsilon=epsilon, norm=norm)
    result = attack(linear_classifier(CLASSES), images, labels)
    success = result.success.numpy()
    within, beyond = distances < 0.999 * epsilon, distances > 1.001 * epsilon
    assert within.sum() > 10 and beyond.sum() > 10
    assert success[within].all() and not success[beyond].any()
    change = np.reshape(result.adversarial - images, (30, 20))
    order = np.inf if norm == "linf" else 2
    sizes = np.linalg.norm(change.astype(np.float64), order, axis=1)
    # FAB-T's, which are beyond the ball, are not taken.
    assert (sizes <= epsilon + 1e-6).all()
    assert (sizes[within] >= distances[within] - 1e-6).all()


def test_results_depend_on_neither_batch_nor_order(three_defences):
    images, labels = levels(4)
    classifier, order = three_defences, np.arange(12)[::-1]
    whole = Short(epsilon=0.2, seed=1)(classifier, images, labels)
    parts = Short(epsilon=0.2, seed=1, batch_size=5)(
        classifier, images[order], labels[order], indices=order
    )
    for found, expected in zip(parts, whole, strict=True):
        np.testing.assert_allclose(
            np.asarray(found)[order], expected, atol=1e-5
        )


def test_the_whole_of_it_breaks_what_is_easy(network, make_batch):
    with pytest.warns(UserWarning, match="leaves apgd_t out"):
        result = AutoAttack(epsilon=0.9)(
            network, *make_batch(network.image_shape)
        )
    assert result.success.numpy().all()


def test_with_few_classes_the_targeted_loss_is_left_out():
    generator = np.random.default_rng(8)
    images = generator.uniform(0.3, 0.7, (12, *GREY)).astype(np.float32)
    distances, labels = distances_of(images, 3, "linf")
    epsilon = float(np.median(distances))
    with pytest.warns(
        UserWarning, match="apgd_t out, which needs 4 .* classifier has 3"
    ):
        result = Short(epsilon=epsilon)(linear_classifier(3), images, labels)
    is_clear = np.abs(distances - epsilon) > 1e-3 * epsilon
    assert is_clear.sum() > 10
    np.testing.assert_array_equal(
        result.success.numpy()[is_clear], (distances < epsilon)[is_clear]
    )


def test_progress_adds_up_and_shows_that_work_goes_on(three_defences):
    images, labels = levels(4)
    reports = []
    attack = Short(epsilon=0.2, seed=1, batch_size=5)
    result = attack(three_defences, images, labels, progress=reports.append)
    assert sum(reports) == 12 and 0 in reports
    assert min(reports) == 0 and result.success.numpy().any()


def test_starts_are_those_of_the_first_attack(three_defences):
    images, labels = levels(4)
    # What fools already, if it is looked at.
    starts = np.array(images)
    classifier = three_defences
    attack = Short(epsilon=0.2, seed=1)
    found = attack(classifier, images, labels)
    success = found.success.numpy()
    starts[success] = found.adversarial.numpy()[success]
    result = attack(classifier, images, labels, starts=starts)
    np.testing.assert_array_equal(
        result.gradient_evaluations.numpy()[success], 1
    )
    np.testing.assert_array_equal(
        result.adversarial.numpy()[success], starts[success]
    )


def test_images_that_are_wrong_already_come_back(three_defences):
    images, labels = levels(2)
    labels = (labels + 1) % CLASSES
    result = AutoAttack()(three_defences, images, labels)
    np.testing.assert_array_equal(result.adversarial, images)
    np.testing.assert_array_equal(result.gradient_evaluations, 0)
    assert result.success.numpy().all()


def test_no_images_are_no_work(three_defences):
    empty = np.zeros((0, *GREY), np.float32)
    result = AutoAttack()(three_defences, empty, [])
    assert [len(field) for field in result] == [0] * 7


def test_logits_that_are_not_finite_are_an_error():
    broken = models.Classifier.from_callable(
        lambda x: tf.reshape(tf.math.log(x - 0.5), (-1, 20))[:, :CLASSES],
        image_shape=GREY,
        num_classes=CLASSES,
        fingerprint="broken",
    )
    images = np.full((2, *GREY), 0.9, np.float32)
    images[1] = 0.4
    with pytest.raises(ValueError, match="apgd_ce: .* for 1 .* index 1"):
        AutoAttack(epsilon=0.1)(broken, images, [0, 0])


def test_targets_are_refused(three_defences):
    images, labels = levels(1)
    with pytest.raises(ValueError, match="since auto_attack is untargeted"):
        AutoAttack()(three_defences, images, labels, targets=labels)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"norm": "l1"}, "norm must be one of l2, linf, got 'l1'"),
        ({"epsilon": 1.5}, r"epsilon must be .*\[0.0, 1.0\], got 1.5"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        AutoAttack(**params)
