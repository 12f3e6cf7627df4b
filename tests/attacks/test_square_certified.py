"""The Square attack on linear classifiers, whose nearest boundary is known."""

import numpy as np
import pytest

from attacks.square import Square


def certified_radii(linear, images, labels, norm):
    """Below which no perturbation changes the class, box or no box."""
    logits = linear.logits(images)
    rows = np.arange(len(labels))
    radii = np.full(len(labels), np.inf)
    dual = 1 if norm == "linf" else 2
    weights = linear.weights.astype(np.float64)
    for other in range(logits.shape[1]):
        lead = logits[rows, labels] - logits[:, other]
        slope = weights[:, labels] - weights[:, [other]]
        length = np.linalg.norm(slope, dual, axis=0)
        is_other = labels != other
        radii[is_other] = np.minimum(
            radii[is_other], lead[is_other] / length[is_other]
        )
    return radii


# A search by squares can end before the best corner of the ball, and never
# goes the way that is best in L2.
@pytest.mark.parametrize(("norm", "enough"), [("linf", 1.5), ("l2", 4.0)])
@pytest.mark.parametrize("is_grey", [True, False])
def test_it_breaks_what_can_be_broken_and_nothing_else(
    linear, colour_linear, norm, enough, is_grey
):
    linear = linear if is_grey else colour_linear
    generator = np.random.default_rng(0)
    # Far from the box's edges, which would make the radii larger.
    images = generator.uniform(0.35, 0.65, (60, *linear.shape))
    images = images.astype(np.float32)
    labels = linear.logits(images).argmax(-1)
    radii = certified_radii(linear, images, labels, norm)
    middle = np.median(radii)
    for epsilon in (middle, enough * middle):
        attack = Square(norm=norm, epsilon=epsilon, queries=400)
        result = attack(linear.from_callable(), images, labels)
        predicted = linear.logits(result.adversarial).argmax(-1)
        np.testing.assert_array_equal(result.success, predicted != labels)
        success = result.success.numpy()
        assert not success[radii > epsilon].any()
        assert success[radii < epsilon / enough].all()
        np.testing.assert_array_equal(result.gradient_evaluations, 0)
