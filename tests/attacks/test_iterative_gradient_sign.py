"""The iterative gradient sign method: its values and its promises."""

import numpy as np
import pytest
from cleverhans.tf2.attacks.basic_iterative_method import (
    basic_iterative_method,
)

import attacks


def by_hand(linear, images, labels, epsilon, alpha, steps, sign=1.0):
    """Eq. 3 of the paper, a step at a time."""
    adversarial = images.astype(np.float64)
    for _ in range(steps):
        gradients = linear.gradients(adversarial, labels)
        adversarial = adversarial + sign * alpha * np.sign(gradients)
        adversarial = np.clip(adversarial, images - epsilon, images + epsilon)
        adversarial = np.clip(adversarial, 0.0, 1.0)
    return adversarial


CASES = [(0.2, 0.2, 1), (0.2, 0.1, 2), (0.2, 0.07, 5), (0.1, 0.3, 3)]


@pytest.mark.parametrize(("epsilon", "alpha", "steps"), CASES)
def test_it_equals_a_loop_by_hand(
    linear, classifier, batch, epsilon, alpha, steps
):
    images, labels = batch
    attack = attacks.IterativeGradientSign(
        epsilon=epsilon, alpha=alpha, steps=steps
    )
    result = attack(classifier, images, labels)
    expected = by_hand(linear, images, labels, epsilon, alpha, steps)
    np.testing.assert_allclose(result.adversarial, expected, atol=1e-6)


def test_a_targeted_run_goes_down_the_targets_loss(linear, classifier, batch):
    images, labels = batch
    targets = (labels + 2) % 3
    attack = attacks.IterativeGradientSign(epsilon=0.2, alpha=0.07, steps=4)
    result = attack(classifier, images, labels, targets=targets)
    expected = by_hand(linear, images, targets, 0.2, 0.07, 4, sign=-1.0)
    np.testing.assert_allclose(result.adversarial, expected, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_it_equals_cleverhans(network, make_batch, steps):
    images, labels = make_batch(network.image_shape)
    # Its own default raises on ragged arrays.
    expected = basic_iterative_method(
        network,
        images,
        0.2,
        0.06,
        steps,
        np.inf,
        clip_min=0.0,
        clip_max=1.0,
        y=labels,
        sanity_checks=False,
    )
    attack = attacks.IterativeGradientSign(epsilon=0.2, alpha=0.06, steps=steps)
    result = attack(network, images, labels)
    np.testing.assert_allclose(result.adversarial, expected, atol=1e-6)


def test_one_whole_step_is_fgsm(network, make_batch):
    images, labels = make_batch(network.image_shape)
    one_step = attacks.IterativeGradientSign(epsilon=0.15, steps=1)
    assert one_step.alpha == 0.15
    np.testing.assert_array_equal(
        one_step(network, images, labels).adversarial,
        attacks.FGSM(epsilon=0.15)(network, images, labels).adversarial,
    )


def test_the_default_alpha_just_reaches_the_edge():
    assert attacks.IterativeGradientSign(epsilon=0.3, steps=4).alpha == 0.075
    assert attacks.IterativeGradientSign().params == {
        "epsilon": 0.3,
        "alpha": 0.15,
        "steps": 2,
    }


def test_it_begins_at_its_starts(linear, classifier, batch):
    images, labels = batch
    starts = np.clip(images + 0.05, 0.0, 1.0)
    attack = attacks.IterativeGradientSign(epsilon=0.2, alpha=0.02, steps=1)
    result = attack(classifier, images, labels, starts=starts)
    gradients = linear.gradients(starts, labels)
    expected = np.clip(starts + 0.02 * np.sign(gradients), 0.0, 1.0)
    np.testing.assert_allclose(result.adversarial, expected, atol=1e-6)


def test_a_start_outside_the_ball_is_brought_into_it(linear, classifier, batch):
    images, labels = batch
    attack = attacks.IterativeGradientSign(epsilon=0.1, alpha=0.0, steps=1)
    result = attack(classifier, images, labels, starts=1.0 - images)
    expected = np.clip(1.0 - images, images - 0.1, images + 0.1)
    np.testing.assert_allclose(result.adversarial, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"steps": 0}, "steps must be a positive integer, got 0"),
        ({"steps": 2.0}, "steps must be a positive integer, got 2.0"),
        ({"alpha": -0.1}, r"alpha must be a number in \[0.0, 1.0\], got -0.1"),
        ({"epsilon": 2.0}, r"epsilon must be .* got 2.0"),
        ({"epsilon": None}, r"epsilon must be .* got None"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        attacks.IterativeGradientSign(**params)
