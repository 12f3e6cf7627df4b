"""A targeted attack on each wrong class: best, average and worst case."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from attacks.base import AttackResult
from attacks.search import choose_rows
from attacks.targets import TargetedAttack


class AllTargets(NamedTuple):
    """One result for each case, of the same B images.

    Attributes:
        best: The target that was easiest: among those that were reached, the
            one at the smallest distance.
        average: A target drawn at random among the wrong classes, as
            `target=random` draws it.
        worst: The hardest: one that was not reached, else the one at the
            largest distance.
    """

    best: AttackResult
    average: AttackResult
    worst: AttackResult


def attack_all_targets(
    attack: TargetedAttack,
    classifier: Any,
    images: Any,
    labels: Any,
    *,
    indices: Any = None,
    progress: Callable[[int], None] | None = None,
) -> AllTargets:
    """Attacks each image once for each wrong class.

    Carlini and Wagner 2017, Sec. VI: of all targets they report the least
    difficult, a random one and the most difficult. Difficulty is the distance
    that the attack makes small (`attack.distance`).

    Args:
        attack: A targeted attack; its own `target` plays no part.
        classifier: See `Attack`; so are `images`, `labels` and `indices`.
        images: float32 `[B, H, W, C]` in [0, 1].
        labels: Integers `[B]`.
        indices: Integers `[B]`.
        progress: Called now and then with the number of images that were
            finished since: once each, in the last class's run.

    Returns:
        `AllTargets`. The gradient evaluations of `best` and `worst` are those
        for all targets together, those of `average` for its own.

    Raises:
        ValueError: See `Attack`.
    """
    random = dataclasses.replace(attack, target="random")
    classes = classifier.num_classes
    inputs = random._check(classifier, images, labels, None, None, indices)

    def run(offset: int) -> AttackResult:
        return random(
            classifier,
            inputs.images,
            inputs.labels,
            targets=(inputs.labels + offset) % classes,
            indices=inputs.indices,
            progress=_progress_of_run(progress, offset == classes - 1),
        )

    first = run(1)
    cases = AllTargets(first, first, first)
    for offset in range(2, classes):
        cases = _updated(cases, run(offset), attack.distance, inputs.targets)
    return cases


def _progress_of_run(
    progress: Callable[[int], None] | None, is_last: bool
) -> Callable[[int], None] | None:
    """In all runs but the last no image is done, but the work goes on."""
    if progress is None or is_last:
        return progress
    return lambda count: progress(0)


def _updated(
    cases: AllTargets, result: AttackResult, distance: str, drawn: tf.Tensor
) -> AllTargets:
    """The cases with one more target; `drawn` are the targets of average.

    Results of earlier targets are let go, or memory would grow with classes.
    """
    difficulty = _difficulty(result, distance)
    is_best = difficulty < _difficulty(cases.best, distance)
    is_worst = difficulty > _difficulty(cases.worst, distance)
    total = cases.best.gradient_evaluations + result.gradient_evaluations
    return AllTargets(
        best=_choose(is_best, result, cases.best)._replace(
            gradient_evaluations=total
        ),
        average=_choose(result.targets == drawn, result, cases.average),
        worst=_choose(is_worst, result, cases.worst)._replace(
            gradient_evaluations=total
        ),
    )


def _difficulty(result: AttackResult, distance: str) -> tf.Tensor:
    """float32 `[B]`: infinite where the target was not reached."""
    return tf.where(
        result.success, getattr(result, distance), np.float32(np.inf)
    )


def _choose(
    condition: tf.Tensor, yes: AttackResult, no: AttackResult
) -> AttackResult:
    return AttackResult(
        *[choose_rows(condition, *pair) for pair in zip(yes, no, strict=True)]
    )
