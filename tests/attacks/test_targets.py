"""The classes that targeted attacks are sent to."""

import dataclasses

import numpy as np
import pytest

from attacks.targets import TargetedAttack

IMAGES = np.zeros((600, 4, 5, 1), np.float32)
LABELS = np.arange(600) % 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named(TargetedAttack):
    """Never run: only its targets are looked at."""

    name = "named"

    def begin(self, classifier, inputs):
        return {}

    def advance(self, classifier, inputs, state):
        return state


def choose(classifier, attack, images=IMAGES, labels=LABELS, indices=None):
    indices = np.arange(len(labels)) if indices is None else indices
    return attack._check(
        classifier, images, labels, None, None, indices
    ).targets.numpy()


def test_random_targets_are_all_classes_but_the_label(classifier):
    targets = choose(classifier, Named(seed=1))
    assert (targets != LABELS).all()
    offsets = (targets - LABELS) % 3
    # Binomial: 600 draws have a standard deviation of 0.02.
    assert (offsets == 1).mean() == pytest.approx(0.5, abs=0.08)


def test_random_targets_depend_on_seed_and_index_alone(classifier):
    whole = choose(classifier, Named(seed=1))
    part = choose(
        classifier,
        Named(seed=1),
        IMAGES[:5],
        LABELS[200:205],
        np.arange(200, 205),
    )
    np.testing.assert_array_equal(part, whole[200:205])
    assert (choose(classifier, Named(seed=2)) != whole).any()


def test_the_next_class_comes_after_the_label(classifier):
    targets = choose(classifier, Named(target="next"))
    np.testing.assert_array_equal(targets, (LABELS + 1) % 3)


def test_the_least_likely_class_has_the_lowest_logit(
    linear, classifier, make_batch
):
    images, labels = make_batch((4, 5, 1), 40)
    targets = choose(classifier, Named(target="least_likely"), images, labels)
    logits = linear.logits(images)
    logits[np.arange(40), labels] = np.inf
    np.testing.assert_array_equal(targets, logits.argmin(-1))


def test_no_target_is_untargeted(classifier):
    targets = choose(classifier, Named(target=None))
    np.testing.assert_array_equal(targets, np.full(600, -1))


def test_all_targets_are_for_the_driver(classifier):
    with pytest.raises(ValueError, match="attack_all_targets"):
        choose(classifier, Named(target="all"))


def test_an_unknown_target_lists_the_known_ones():
    with pytest.raises(ValueError, match="target must be .* 'randon'.*random"):
        Named(target="randon")
