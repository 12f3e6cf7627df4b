"""A targeted attack on each wrong class: best, average and worst case."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from attacks.base import AttackResult
from attacks.targets import TargetedAttack
from data.checks import check_labels


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
        progress: Called with the number of images that were finished since.

    Returns:
        `AllTargets`. The gradient evaluations of `best` and `worst` are those
        for all targets together, those of `average` for its own.

    Raises:
        ValueError: See `Attack`.
    """
    random = dataclasses.replace(attack, target="random")
    classes = classifier.num_classes
    labels = check_labels(labels, classes, len(images))
    results = [
        random(
            classifier,
            images,
            labels,
            targets=(labels + offset) % classes,
            indices=indices,
        )
        for offset in range(1, classes)
    ]
    if indices is None:
        indices = np.arange(len(images))
    drawn = random.choose_targets(
        classifier, images, labels, tf.constant(indices, tf.int64)
    )
    if progress is not None:
        progress(len(images))
    return _cases(results, attack.distance, ((drawn - labels) % classes) - 1)


def _cases(
    results: list[AttackResult], distance: str, drawn: tf.Tensor
) -> AllTargets:
    """Picks one result for each image and case; `drawn` says the average's."""
    stacked = AttackResult(
        *[tf.stack(column, axis=1) for column in zip(*results, strict=True)]
    )
    difficulty = tf.where(
        stacked.success, getattr(stacked, distance), np.float32(np.inf)
    )
    total = tf.reduce_sum(stacked.gradient_evaluations, axis=1)

    def pick(choice: tf.Tensor) -> AttackResult:
        return AttackResult(
            *[tf.gather(column, choice, batch_dims=1) for column in stacked]
        )

    return AllTargets(
        best=pick(tf.argmin(difficulty, axis=1))._replace(
            gradient_evaluations=total
        ),
        average=pick(drawn),
        worst=pick(tf.argmax(difficulty, axis=1))._replace(
            gradient_evaluations=total
        ),
    )
