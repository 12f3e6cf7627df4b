"""Rounds, compaction and refilling, on a search whose course is known."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf

from attacks.search import SearchAttack


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountDown(SearchAttack):
    """Takes `label * 5 + 1` steps and adds 0.01 to the image in each."""

    name = "count_down"
    steps_per_round: ClassVar[int] = 4

    def begin(self, classifier, inputs):
        return {
            "adversarial": inputs.images,
            "evaluations": tf.zeros_like(inputs.labels),
            "left": inputs.labels * 5 + 1,
            "done": tf.zeros_like(inputs.labels, tf.bool),
        }

    def advance(self, classifier, inputs, state):
        return {
            "adversarial": state["adversarial"] + 0.01,
            "evaluations": state["evaluations"] + 1,
            "left": state["left"] - 1,
            "done": state["left"] <= 1,
        }


@pytest.fixture
def images():
    generator = np.random.default_rng(5)
    # Away from the upper edge, so that nothing is clipped.
    return 0.5 * generator.random((13, 4, 5, 1), dtype=np.float32)


LABELS = np.array([0, 2, 1, 2, 0, 0, 1, 2, 1, 1, 0, 2, 0])
STEPS = LABELS * 5 + 1


@pytest.mark.parametrize("batch_size", [None, 1, 2, 4, 5, 12, 13, 100])
@pytest.mark.parametrize("xla", [False, True])
def test_each_image_takes_its_own_steps(classifier, images, batch_size, xla):
    attack = CountDown(batch_size=batch_size, xla=xla)
    result = attack(classifier, images, LABELS)
    np.testing.assert_array_equal(result.gradient_evaluations, STEPS)
    np.testing.assert_allclose(
        result.adversarial,
        images + 0.01 * STEPS[:, None, None, None],
        atol=1e-6,
    )


def test_progress_adds_up(classifier, images):
    reports = []
    CountDown(batch_size=4)(classifier, images, LABELS, progress=reports.append)
    assert sum(reports) == 13
    # Among the first four one is done after a round of four steps.
    assert reports[0] == 1


@pytest.mark.parametrize("xla", [False, True])
def test_no_images_are_no_work(classifier, xla):
    attack = CountDown(xla=xla)
    result = attack(classifier, np.zeros((0, 4, 5, 1), np.float32), [])
    assert result.adversarial.shape == (0, 4, 5, 1)


def test_under_xla_there_are_few_numbers_of_rows(classifier, images):
    """It compiles anew for each."""
    seen = set()

    class Watched(CountDown):
        def _compiled(self, classifier, method, specs):
            function = super()._compiled(classifier, method, specs)

            def run(rows, *others):
                if not others:  # Else it is the judgement of all images.
                    seen.add((method.__name__, len(rows["labels"])))
                return function(rows, *others)

            return run

    Watched(batch_size=5, xla=True)(classifier, images, LABELS)
    methods, counts = map(set, zip(*seen, strict=True))
    assert methods == {"_begin_rows", "_round"}
    assert counts <= {1, 2, 4, 8}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broken(CountDown):
    name = "broken"

    def advance(self, classifier, inputs, state):
        state = super().advance(classifier, inputs, state)
        is_bad = tf.reshape(inputs.labels == 1, [-1, 1, 1, 1])
        broken = tf.where(is_bad, np.float32(np.nan), state["adversarial"])
        return {**state, "adversarial": broken}


def test_a_row_of_nan_is_an_error(classifier, images):
    with pytest.raises(ValueError, match="not finite for 4 .* index 2"):
        Broken()(classifier, images, LABELS)
