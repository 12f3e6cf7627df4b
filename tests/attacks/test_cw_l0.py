"""CW-L0 against counting, and its rule of which pixels to freeze."""

import numpy as np
import pytest
import tensorflow as tf

import models
from attacks.cw_l0 import CWL0, least_important, pixels_changed

SEARCH = {
    "max_iterations": 150,
    "initial_const": 0.1,
    "largest_const": 50.0,
    "learning_rate": 0.05,
}


class TwoClasses:
    """A linear classifier that only several pixels together can turn."""

    def __init__(self, shape):
        generator = np.random.default_rng(5)
        self.shape = shape
        self.normal = generator.normal(size=shape).astype(np.float32)
        noise = generator.random((6, *shape), dtype=np.float32)
        self.images = 0.4 + 0.2 * noise
        # At grey the first class leads by two fifths of what can be undone.
        reach = 0.5 * np.abs(self.normal).sum()
        self.bias = np.float32(0.4 * reach - 0.5 * self.normal.sum())

    def lead(self, images):
        products = images.astype(np.float64) * self.normal
        return products.sum((1, 2, 3)) + self.bias

    def fewest_pixels(self):
        """It is best to move the strongest pixels all the way."""
        toward_0 = self.normal * self.images
        gains = np.maximum(toward_0, toward_0 - self.normal).sum(-1)
        gains = np.sort(gains.reshape(len(gains), -1), axis=-1)[:, ::-1]
        needed = self.lead(self.images)[:, np.newaxis]
        return 1 + np.sum(np.cumsum(gains, -1) <= needed, axis=-1)

    def classifier(self):
        def logits(images):
            lead = tf.reduce_sum(images * self.normal, [1, 2, 3]) + self.bias
            return tf.stack([lead, tf.zeros_like(lead)], -1)

        return models.Classifier.from_callable(
            logits, image_shape=self.shape, num_classes=2, fingerprint="two"
        )

    def attacked(self, attack):
        labels = np.zeros(len(self.images), int)
        return attack(self.classifier(), self.images, labels)


SHAPES = pytest.mark.parametrize("shape", [(4, 5, 1), (4, 4, 3)])


@SHAPES
def test_it_changes_about_as_few_pixels_as_it_must(shape):
    problem = TwoClasses(shape)
    result = problem.attacked(CWL0(**SEARCH))
    assert result.success.numpy().all()
    assert (problem.lead(result.adversarial.numpy()) < 0).all()
    counts = pixels_changed(result.adversarial, problem.images).numpy()
    fewest = problem.fewest_pixels()
    assert fewest.min() > 2
    # The order of freezing is a good guess, not a search over all sets; of
    # colours that change in opposite directions it sees too little.
    more = 1 if shape[-1] == 1 else 2
    assert (counts >= fewest).all() and (counts <= fewest + more).all()


@SHAPES
def test_what_is_frozen_is_exactly_clean(shape):
    problem = TwoClasses(shape)
    result = problem.attacked(CWL0(**SEARCH))
    change = result.adversarial.numpy() != problem.images
    # Whole pixels: where one channel has moved, the others may have too.
    pixels = change.any(-1)
    np.testing.assert_array_equal(
        pixels.sum((1, 2)),
        pixels_changed(result.adversarial, problem.images),
    )
    assert change.sum() > 0.8 * shape[-1] * pixels.sum()


def plain_least_important(is_free, change, gradient):
    """The rule in words, for one image."""
    changed = np.sum(np.any(np.abs(change) >= 1e-4, axis=-1))
    scores = np.abs(change.sum(-1)) * np.abs(gradient).sum(-1)
    chosen = np.zeros(is_free.shape, bool)
    for place in np.argsort(scores, axis=None, kind="stable"):
        place = np.unravel_index(place, scores.shape)
        if not is_free[place]:
            continue
        chosen[place] = True
        if scores[place] > 0.01 or chosen.sum() >= 0.3 * np.sqrt(changed):
            break
    return chosen


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_pixels_are_frozen_by_the_published_rule(channels, scale, share):
    generator = np.random.default_rng(2)
    shape = (7, 11, 13, channels)
    change = scale * generator.normal(size=shape).astype(np.float32)
    # Many without any change, which share a score of 0.
    change *= generator.random((7, 11, 13, 1)) < 0.7
    gradient = scale * generator.normal(size=shape).astype(np.float32)
    is_free = generator.random((7, 11, 13, 1)) < share
    chosen = least_important(
        tf.constant(is_free),
        tf.constant(change, tf.float32),
        tf.constant(gradient, tf.float32),
    ).numpy()
    expected = [
        plain_least_important(*row)[..., None]
        for row in zip(is_free[..., 0], change, gradient, strict=True)
    ]
    np.testing.assert_array_equal(chosen, expected)


def test_pixels_are_counted_whatever_their_channels_do():
    images = np.full((2, 3, 3, 3), 0.5, np.float32)
    adversarial = images.copy()
    adversarial[0, 0, 0] = 0.6
    adversarial[0, 1, 2, 1] += 1e-5
    adversarial[1, 2, 2, 0] += 5e-7  # Rounding, not a change.
    counts = pixels_changed(adversarial, images)
    assert counts.dtype == tf.int64
    np.testing.assert_array_equal(counts, [2, 0])
    np.testing.assert_array_equal(
        pixels_changed(tf.constant(adversarial), tf.constant(images)), [2, 0]
    )


def test_the_search_costs_its_steps():
    problem = TwoClasses((4, 5, 1))
    patient = CWL0(**SEARCH, abort_early=False)
    evaluations = problem.attacked(patient).gradient_evaluations
    # From 0.1 to 25.6 by 2: nine constants of 150 steps failed in all, and
    # each of the up to 20 successes took some steps more.
    assert (evaluations.numpy() > 9 * 150).all()
    assert (evaluations.numpy() < 11 * 150).all()


def test_it_ends_when_no_pixel_is_left_to_change(linear, classifier):
    # So near to the border that one pixel is enough, whichever it is.
    images = np.full((1, 4, 5, 1), 0.5, np.float32)
    logits = linear.logits(images)[0]
    other, label = np.argsort(logits)[1:]
    normal = linear.weights[:, other] - linear.weights[:, label]
    step = (logits[label] - logits[other] - 1e-3) / (normal @ normal)
    images = (images + step * normal.reshape(images.shape)).astype(np.float32)
    result = CWL0(target=None, **SEARCH)(classifier, images, [label])
    assert result.success.numpy()[0]
    assert pixels_changed(result.adversarial, images).numpy()[0] == 1
    # Not all nine constants' steps, which would be in vain.
    assert result.gradient_evaluations.numpy()[0] < 9 * 150
