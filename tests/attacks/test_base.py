"""What the one entry point promises for every attack."""

import dataclasses
import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

import attacks
import models

SHAPE = (4, 5, 1)
ZEROS = np.zeros((3, *SHAPE), np.float32)
LABELS = np.array([0, 1, 2])


# What comes out


def test_statistics_are_those_of_the_perturbation(classifier, batch):
    images, labels = batch
    result = attacks.FGSM(epsilon=0.2)(classifier, images, labels)
    change = (result.adversarial.numpy() - images).reshape(9, -1)
    change = change.astype(np.float64)
    np.testing.assert_array_equal(result.l0, (np.abs(change) > 1e-6).sum(-1))
    np.testing.assert_allclose(
        result.l2, np.sqrt((change**2).sum(-1)), rtol=1e-6
    )
    np.testing.assert_allclose(result.linf, np.abs(change).max(-1), rtol=1e-6)
    # Clipping leaves some values alone in the black and the white image.
    assert 0 < result.l0[0] < 20 and 0 < result.l0[1] < 20
    assert {x.dtype for x in (result.l0, result.l2, result.linf)} == {
        tf.float32
    }


def test_untargeted_success_is_another_class(linear, classifier, batch):
    images, _ = batch
    labels = linear.logits(images).argmax(-1)
    result = attacks.FGSM(epsilon=0.02)(classifier, images, labels)
    predicted = linear.logits(result.adversarial).argmax(-1)
    np.testing.assert_array_equal(result.success, predicted != labels)
    assert 0 < np.sum(result.success) < 9
    np.testing.assert_array_equal(result.targets, np.full(9, -1))


def test_targeted_success_is_the_target(linear, classifier, batch):
    images, labels = batch
    targets = (labels + 1) % 3
    result = attacks.FGSM(epsilon=0.02)(
        classifier, images, labels, targets=targets
    )
    predicted = linear.logits(result.adversarial).argmax(-1)
    np.testing.assert_array_equal(result.success, predicted == targets)
    assert 0 < np.sum(result.success) < 9


def test_images_that_are_wrong_before_are_perturbed_all_the_same(
    linear, classifier, batch
):
    images, _ = batch
    wrong = (linear.logits(images).argmax(-1) + 1) % 3
    result = attacks.FGSM(epsilon=0.1)(classifier, images, wrong)
    np.testing.assert_allclose(result.linf, 0.1, atol=1e-6)


@pytest.mark.parametrize(
    ("attack", "evaluations"),
    [
        (attacks.FGSM(), 1),
        (attacks.IterativeGradientSign(), 2),
        (attacks.IterativeGradientSign(steps=5), 5),
    ],
)
def test_gradient_evaluations_are_counted(
    classifier, batch, attack, evaluations
):
    result = attack(classifier, *batch)
    assert result.gradient_evaluations.dtype == tf.int64
    np.testing.assert_array_equal(
        result.gradient_evaluations, np.full(9, evaluations)
    )


def test_tensors_and_lists_are_taken_too(classifier, batch):
    images, labels = batch
    expected = attacks.FGSM()(classifier, images, labels)
    result = attacks.FGSM()(
        classifier,
        tf.constant(images),
        labels.tolist(),
        indices=tf.range(9),
    )
    np.testing.assert_array_equal(result.adversarial, expected.adversarial)


def test_params_leave_out_how_it_is_computed():
    attack = attacks.FGSM(seed=3, batch_size=7, xla=True)
    assert set(attack.params) == {"epsilon", "epsilon_min"}
    assert attack == dataclasses.replace(attack, batch_size=8, xla=False)
    assert attack != dataclasses.replace(attack, seed=4)


def test_xla_gives_the_same(network, make_batch):
    images, labels = make_batch(network.image_shape)
    plain = attacks.FGSM(epsilon_min=0.0)(network, images, labels)
    compiled = attacks.FGSM(epsilon_min=0.0, xla=True)(network, images, labels)
    np.testing.assert_allclose(
        compiled.adversarial, plain.adversarial, atol=1e-6
    )


# The classifier


def test_training_after_an_attack_is_seen_by_the_next(linear, batch):
    images, labels = batch
    classifier = linear.from_keras()
    attack = attacks.FGSM(epsilon=0.1)
    before = attack(classifier, images, labels).adversarial
    dense = classifier.keras_model.layers[-1]
    dense.set_weights([-linear.weights, -linear.biases])
    after = attack(classifier, images, labels).adversarial
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize(
    "attack", [attacks.FGSM(), attacks.IterativeGradientSign()]
)
@pytest.mark.parametrize("is_defended", [False, True])
def test_an_attack_does_not_keep_a_classifier_alive(
    linear, batch, attack, is_defended
):
    classifier = linear.from_keras()
    if is_defended:
        purifier = models.Purifier.from_callable(
            tf.identity, image_shape=SHAPE, fingerprint="none"
        )
        classifier = classifier.behind(purifier)
    attack(classifier, *batch)
    reference = weakref.ref(classifier)
    del classifier
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    "attack", [attacks.FGSM(), attacks.IterativeGradientSign()]
)
def test_logits_that_are_not_finite_name_the_image(linear, batch, attack):
    images, labels = batch
    images = 0.4 * images
    images[4], images[7] = 0.95, 0.97
    broken = models.Classifier.from_callable(
        # The root of a negative number is NaN.
        lambda x: linear.function(tf.sqrt(0.9 - x)),
        image_shape=SHAPE,
        num_classes=3,
        fingerprint="broken",
    )
    with pytest.raises(
        ValueError, match=rf"{attack.name}: .* not finite for 2 .* index 104"
    ):
        attack(broken, images, labels, indices=np.arange(100, 109))


# What goes in


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (ZEROS + 1.1, r"images must be float32 in \[0, 1\], got values .* 1.1"),
        (ZEROS - 0.1, r"images must be .* got values from -0.1"),
        (np.full_like(ZEROS, np.nan), r"images must be .* NaN"),
        (ZEROS.astype(np.uint8), r"images must be .* got dtype uint8"),
        (ZEROS.astype(np.float64), r"images must be .* got dtype float64"),
        (ZEROS[0], r"images must have rank 4 .* got rank 3"),
        (ZEROS[:, :3], r"images must have .*\(4, 5, 1\), got \(3, 5, 1\)"),
        (np.repeat(ZEROS, 3, -1), r"images must have .* got \(4, 5, 3\)"),
        ("a path", "images must be"),
    ],
)
def test_bad_images_are_refused(classifier, images, message):
    with pytest.raises(ValueError, match=message):
        attacks.FGSM()(classifier, images, LABELS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS.astype(np.float32), "labels must be integers, got dtype float"),
        (LABELS + 1, r"labels must be in \[0, 3\), got values from 1 to 3"),
        (LABELS - 1, r"labels must be in \[0, 3\), got values from -1 to 1"),
        (LABELS[:2], "labels must have one entry per image, expected 3, got 2"),
        (np.eye(3, dtype=np.int64), r"labels must have shape \[B\]"),
    ],
)
def test_bad_labels_and_targets_are_refused(classifier, labels, message):
    with pytest.raises(ValueError, match=message):
        attacks.FGSM()(classifier, ZEROS, labels)
    with pytest.raises(ValueError, match=message.replace("labels", "targets")):
        attacks.FGSM()(classifier, ZEROS, LABELS, targets=labels)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (ZEROS + 2.0, r"starts must be float32 in \[0, 1\], got values"),
        (ZEROS[:2], r"starts must have the shape of images, .* got \(2, 4"),
        (ZEROS[:, :2], r"starts must have .*\(4, 5, 1\), got \(2, 5, 1\)"),
    ],
)
def test_bad_starts_are_refused(classifier, starts, message):
    with pytest.raises(ValueError, match=message):
        attacks.FGSM()(classifier, ZEROS, LABELS, starts=starts)


@pytest.mark.parametrize(
    "indices", [[0, 1], [0.0, 1.0, 2.0], [[0, 1, 2]], ["a", "b", "c"]]
)
def test_bad_indices_are_refused(classifier, indices):
    with pytest.raises(
        ValueError, match=r"indices must be integers of shape \[3\], got dtype"
    ):
        attacks.FGSM()(classifier, ZEROS, LABELS, indices=indices)
