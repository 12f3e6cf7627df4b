"""CW-Linf against linear programmes, and its course."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

import models
from attacks.base import Inputs
from attacks.cw_linf import CWLinf

SEARCH = {"max_iterations": 200, "initial_const": 0.02, "largest_const": 1.0}


@pytest.fixture(scope="module")
def images(linear):
    """Greyish images, the surest of many: they need changes well in the box."""
    generator = np.random.default_rng(8)
    noise = generator.random((60, 4, 5, 1), dtype=np.float32)
    images = 0.3 + 0.4 * noise
    labels = linear.logits(images).argmax(-1)
    needed = distances_linf(linear, images, labels).min(-1)
    return images[np.argsort(needed)[-6:]]


def distances_linf(linear, images, labels):
    """How far the hyperplane between the label and each class is."""
    logits = linear.logits(images)
    normals = linear.weights.T[np.newaxis] - linear.weights.T[labels][:, None]
    gaps = logits[np.arange(len(labels)), labels][:, None] - logits
    sizes = np.abs(normals).sum(-1)
    return np.where(sizes > 0, gaps / np.maximum(sizes, 1e-9), np.inf)


def least_linf_targeted(linear, image, target):
    """The least t with |change| <= t and the target ahead, in the box."""
    flat = image.ravel().astype(np.float64)
    size = len(flat)
    others = [k for k in range(3) if k != target]
    normals = (linear.weights[:, [target]] - linear.weights[:, others]).T
    lead = linear.logits(image[None])[0]
    lead = lead[target] - lead[others]
    ones = np.ones((size, 1))
    found = optimize.linprog(
        np.eye(size + 1)[-1],
        A_ub=np.block(
            [
                [np.eye(size), -ones],
                [-np.eye(size), -ones],
                [-normals, np.zeros((2, 1))],
            ]
        ),
        b_ub=np.concatenate([np.zeros(2 * size), lead]),
        bounds=[*zip(-flat, 1 - flat, strict=True), (0, 1)],
    )
    assert found.success
    return found.fun


def test_untargeted_it_comes_within_three_percent_of_the_least(
    linear, classifier, images
):
    labels = linear.logits(images).argmax(-1)
    attack = CWLinf(target=None, decrease_factor=0.98, **SEARCH)
    result = attack(classifier, images, labels)
    assert result.success.numpy().all()
    # It follows the best other class, which need not be the nearest.
    reached = linear.logits(result.adversarial).argmax(-1)
    distances = distances_linf(linear, images, labels)
    assert (reached == distances.argmin(-1)).sum() > 3
    ratio = result.linf / distances[np.arange(6), reached]
    assert ratio.numpy().min() > 0.999 and ratio.numpy().max() < 1.03


def test_targeted_it_comes_within_three_percent_of_the_least(
    linear, classifier, images
):
    labels = linear.logits(images).argmax(-1)
    result = CWLinf(decrease_factor=0.98, **SEARCH)(classifier, images, labels)
    assert result.success.numpy().all()
    expected = [
        least_linf_targeted(linear, image, target)
        for image, target in zip(images, result.targets.numpy(), strict=True)
    ]
    ratio = result.linf / np.array(expected)
    assert ratio.numpy().min() > 0.999 and ratio.numpy().max() < 1.03


def course(attack, classifier, image, label):
    """The states of one image, before each step and at the end."""
    inputs = Inputs(
        tf.constant(image),
        tf.constant([label], tf.int64),
        tf.constant([-1], tf.int64),
        tf.constant(image),
        tf.constant([0], tf.int64),
    )
    advance = tf.function(
        lambda state: attack.advance(classifier, inputs, state)
    )
    states = [attack.begin(classifier, inputs)]
    while not states[-1]["done"].numpy()[0]:
        states.append(advance(states[-1]))
    return states


def column(states, name):
    return np.array([state[name].numpy()[0] for state in states])


@pytest.mark.parametrize("reduce_const", [False, True])
def test_tau_falls_when_it_is_solved_and_the_constant_rises_when_it_is_not(
    linear, classifier, images, reduce_const
):
    image = images[:1]
    label = linear.logits(image).argmax()
    attack = CWLinf(
        target=None,
        max_iterations=30,
        initial_const=0.01,
        learning_rate=0.1,
        largest_const=0.1,
        reduce_const=reduce_const,
    )
    states = course(attack, classifier, image, label)
    tau, constant = column(states, "tau"), column(states, "constant")
    is_solved = tau[1:] < tau[:-1]
    assert is_solved.sum() > 2 and (tau[1:] <= tau[:-1]).all()
    # A new problem: fresh moments, and the steps are counted anew.
    fresh = np.flatnonzero(is_solved) + 1
    assert (column(states, "updates")[fresh] == 0).all()
    assert (column(states, "iteration")[fresh] == 0).all()
    factors = constant[1:] / constant[:-1]
    expected = np.where(is_solved, 0.5 if reduce_const else 1.0, 1.0)
    is_used_up = ~is_solved & (column(states, "iteration")[1:] == 0)
    expected[is_used_up] = 2.0
    np.testing.assert_allclose(factors, expected)
    # Adam goes on from one constant to the next.
    assert (column(states, "updates")[1:][is_used_up] > 0).all()
    # 30 steps each with 0.01, 0.02, 0.04 and 0.08, once nothing helps.
    assert constant[-1] >= 0.1 > constant[-2]
    assert (
        len(states) - 1
        == states[-1]["evaluations"].numpy()[0]
        == (attack(classifier, image, [label]).gradient_evaluations.numpy()[0])
    )


def test_each_tau_is_the_largest_change_times_the_factor(
    linear, classifier, images
):
    image = images[:1]
    label = linear.logits(image).argmax()
    attack = CWLinf(target=None, learning_rate=0.1, **SEARCH)
    states = course(attack, classifier, image, label)
    tau = column(states, "tau")
    assert tau[0] == 1.0
    for before, after in zip(states, states[1:], strict=False):
        largest = np.abs(after["adversarial"].numpy() - image).max()
        if after["tau"] < before["tau"]:
            expected = 0.9 * min(float(before["tau"][0]), largest)
            np.testing.assert_allclose(after["tau"], [expected], rtol=1e-5)
            label_after = linear.logits(after["adversarial"]).argmax()
            assert label_after != label


def test_it_stops_at_one_step_of_an_eight_bit_image():
    # One value decides at once: no change is too small.
    classifier = models.Classifier.from_callable(
        lambda images: tf.stack(
            [
                1e4 * (images[:, 0, 0, 0] - 0.5),
                tf.zeros_like(images[:, 0, 0, 0]),
            ],
            -1,
        ),
        image_shape=(4, 5, 1),
        num_classes=2,
        fingerprint="steep",
    )
    image = np.full((1, 4, 5, 1), 0.50001, np.float32)
    result = CWLinf(target=None)(classifier, image, [0])
    assert result.success.numpy()[0]
    assert result.linf.numpy()[0] <= 1 / 256
    assert result.gradient_evaluations.numpy()[0] < 20


def test_the_solution_with_the_least_change_is_returned(
    linear, classifier, images
):
    image = images[:1]
    label = linear.logits(image).argmax()
    attack = CWLinf(target=None, learning_rate=0.1, **SEARCH)
    states = course(attack, classifier, image, label)
    sizes = [
        np.abs(state["adversarial"].numpy() - image).max() for state in states
    ]
    found = [size for size in sizes if size > 0]
    assert found == sorted(found, reverse=True)
    result = attack(classifier, image, [label])
    np.testing.assert_allclose(result.linf, [found[-1]], rtol=1e-3)
