"""Best, average and worst of all wrong classes."""

import dataclasses
import weakref

import numpy as np
import pytest
import tensorflow as tf

import attacks
import models
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
        # Of failures the first, wherever they got to.
        hardest = max(runs, key=lambda run: run[1] if run[0] else np.inf)
        assert bool(cases.worst.success[i]) == hardest[0]
        assert int(cases.worst.targets[i]) == hardest[2]
        assert float(cases.worst.l2[i]) == pytest.approx(hardest[1])
    # Both branches, and the farthest is now the first and now the second.
    assert not np.all(cases.worst.success)
    farthest = [
        max(runs, key=lambda run: run[1]) == runs[0]
        for runs in one_by_one
        if all(run[0] for run in runs)
    ]
    assert 0 < sum(farthest) < len(farthest)


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


# Of many classes


@pytest.fixture(scope="module")
def many():
    """A linear classifier of eight classes."""
    weights = np.random.default_rng(6).normal(size=(20, 8)).astype(np.float32)
    return models.Classifier.from_callable(
        lambda images: tf.reshape(images, (-1, 20)) @ weights,
        image_shape=(4, 5, 1),
        num_classes=8,
        fingerprint="eight",
    )


def test_cases_are_those_of_all_results_side_by_side(many, batch):
    images, labels = batch
    cases = attacks.attack_all_targets(Leap(seed=3), many, images, labels)
    runs = [
        Leap()(many, images, labels, targets=(labels + offset) % 8)
        for offset in range(1, 8)
    ]
    side_by_side = attacks.AttackResult(
        *[np.stack(column) for column in zip(*runs, strict=True)]
    )
    difficulty = np.where(side_by_side.success, side_by_side.l2, np.inf)
    drawn = Leap(seed=3)(many, images, labels).targets.numpy()
    chosen = {
        "best": difficulty.argmin(0),
        "average": (drawn - labels) % 8 - 1,
        "worst": difficulty.argmax(0),
    }
    for name, choice in chosen.items():
        for field in attacks.AttackResult._fields:
            expected = getattr(side_by_side, field)[choice, range(len(labels))]
            if field == "gradient_evaluations" and name != "average":
                expected = side_by_side.gradient_evaluations.sum(0)
            found = getattr(getattr(cases, name), field)
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert 0 < side_by_side.success.mean() < 1
    assert len({*chosen["best"]}) > 2 and len({*chosen["worst"]}) > 2


def test_an_image_is_done_when_its_last_class_is(many, batch):
    reports = []
    attacks.attack_all_targets(
        Leap(batch_size=4), many, *batch, progress=reports.append
    )
    # Three batches for each class; in all but the last they are signs of life.
    assert reports == [0] * 18 + [4, 4, 1]


def test_no_more_results_are_kept_for_more_classes(many, batch):
    made, kept = [], []

    class Watched(Leap):
        def _judge(self, *arguments):
            result, is_finite = super()._judge(*arguments)
            made.append(weakref.ref(result.adversarial))
            return result, is_finite

    def count(done):
        kept.append(sum(each() is not None for each in made))

    attacks.attack_all_targets(Watched(), many, *batch, progress=count)
    assert len(kept) == 7
    # The first one stands for all cases at the start.
    assert max(kept) == 1
