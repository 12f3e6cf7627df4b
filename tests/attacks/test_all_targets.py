"""Best, average and worst of all wrong classes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import attacks
from attacks.targets import TargetedAttack


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leap(TargetedAttack):
    """One step of 0.1 along the target's logit; index 2 goes nowhere."""

    name = "leap"
    distance = "l2"

    def begin(self, classifier, inputs):
        return {
            "adversarial": inputs.images,
            "evaluations": tf.zeros_like(inputs.labels),
            "done": tf.zeros_like(inputs.labels, tf.bool),
        }

    def advance(self, classifier, inputs, state):
        images = inputs.images
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = classifier(images)
            wanted = tf.gather(logits, inputs.targets, batch_dims=1)
        size = tf.where(inputs.indices == 2, 0.0, 0.1)
        # The larger the target's number, the longer the step.
        size *= tf.cast(inputs.targets + 1, tf.float32)
        step = tf.reshape(size, [-1, 1, 1, 1]) * tape.gradient(wanted, images)
        return {
            "adversarial": images + step,
            "evaluations": state["evaluations"] + 1 + inputs.targets,
            "done": tf.ones_like(state["done"]),
        }


@pytest.fixture
def cases(classifier, batch):
    images, labels = batch
    return attacks.attack_all_targets(Leap(seed=3), classifier, images, labels)


@pytest.fixture
def one_by_one(classifier, batch):
    """[B][offset - 1] -> (success, l2, target, evaluations)."""
    images, labels = batch
    runs = [
        Leap()(classifier, images, labels, targets=(labels + offset) % 3)
        for offset in (1, 2)
    ]
    columns = [
        np.stack([np.asarray(getattr(run, name)) for run in runs], 1)
        for name in ("success", "l2", "targets", "gradient_evaluations")
    ]
    return [list(zip(*row, strict=True)) for row in zip(*columns, strict=True)]


def test_the_best_case_is_the_nearest_success(cases, one_by_one):
    for i, runs in enumerate(one_by_one):
        successes = [run for run in runs if run[0]]
        assert bool(cases.best.success[i]) == bool(successes)
        if successes:
            nearest = min(successes, key=lambda run: run[1])
            assert int(cases.best.targets[i]) == nearest[2]
            assert float(cases.best.l2[i]) == pytest.approx(nearest[1])
    assert any(bool(success) for success in cases.best.success)


def test_the_worst_case_is_a_failure_or_the_farthest(cases, one_by_one):
    for i, runs in enumerate(one_by_one):
        hardest = max(runs, key=lambda run: (not run[0], run[1]))
        assert bool(cases.worst.success[i]) == all(run[0] for run in runs)
        if all(run[0] for run in runs):
            assert int(cases.worst.targets[i]) == hardest[2]
    assert not all(bool(success) for success in cases.worst.success)


def test_the_average_case_is_that_of_random_targets(classifier, batch, cases):
    random = Leap(seed=3, target="random")(classifier, *batch)
    np.testing.assert_array_equal(cases.average.targets, random.targets)
    np.testing.assert_allclose(cases.average.l2, random.l2, rtol=1e-6)
    np.testing.assert_array_equal(
        cases.average.gradient_evaluations, random.gradient_evaluations
    )


def test_best_and_worst_cost_all_targets(cases, one_by_one):
    totals = [sum(run[3] for run in runs) for runs in one_by_one]
    np.testing.assert_array_equal(cases.best.gradient_evaluations, totals)
    np.testing.assert_array_equal(cases.worst.gradient_evaluations, totals)
