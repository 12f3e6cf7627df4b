"""Which class a targeted attack is to reach."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeGuard

import numpy as np
import tensorflow as tf

from attacks.base import NO_TARGET, Attack, default_batch_size, pieces
from attacks.search import SearchAttack
from data.checks import check_one_of
from data.randomness import per_image_integers

ALL = "all"
TARGETS = ("random", "next", "least_likely", ALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetedAttack(SearchAttack):
    """Base of the attacks that are targeted unless told otherwise.

    Attributes:
        target: `random`: any class but the label, by (seed, index); `next`:
            the label plus one; `least_likely`: the class with the lowest
            logit that is not the label; `all`: see `attacks.all_targets`;
            None: untargeted. Targets that are given come before it.
    """

    target: str | None = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            check_one_of(self.target, TARGETS, "target")

    def choose_targets(
        self,
        classifier: Any,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
    ) -> tf.Tensor:
        classes = classifier.num_classes
        if self.target is None:
            return tf.fill(tf.shape(labels), tf.constant(NO_TARGET, tf.int64))
        if classes < 2:
            raise ValueError(
                "a targeted attack needs a classifier of at least 2 classes, "
                f"got {classes}"
            )
        if self.target == "next":
            return (labels + 1) % classes
        if self.target == "random":
            offsets = per_image_integers(
                self.seed, indices, 1, classes, stream="targets"
            )
            return (labels + offsets) % classes
        if self.target == "least_likely":
            return _least_likely(self, classifier, images, labels)
        raise ValueError(
            "target=all is several attacks on each image: call "
            "attacks.attack_all_targets, or craft"
        )


def wants_all_targets(attack: Attack) -> TypeGuard[TargetedAttack]:
    """Whether it is for `attack_all_targets`."""
    return isinstance(attack, TargetedAttack) and attack.target == ALL


def likeliest_others(
    logits: tf.Tensor, labels: tf.Tensor, count: int
) -> tf.Tensor:
    """The classes of the highest logits but the label's, highest first.

    Args:
        logits: float32 `[B, K]`, K known.
        labels: int64 `[B]`.
        count: How many classes; all others, if there are fewer.

    Returns:
        int32 `[B, min(count, K - 1)]`.
    """
    classes = logits.shape[-1]
    is_label = tf.one_hot(labels, classes, on_value=True, off_value=False)
    others = tf.where(is_label, np.float32(-np.inf), logits)
    return tf.math.top_k(others, min(count, classes - 1)).indices


def _least_likely(
    attack: TargetedAttack,
    classifier: Any,
    images: tf.Tensor,
    labels: tf.Tensor,
) -> tf.Tensor:
    image = tf.TensorSpec([None, *classifier.image_shape], tf.float32)
    function = attack._compiled(
        classifier,
        _least_likely_batch,
        [image, tf.TensorSpec([None], tf.int64)],
    )
    size = default_batch_size(classifier.image_shape)
    return tf.concat(
        [function(*piece) for piece in pieces((images, labels), size)], 0
    )


def _least_likely_batch(
    classifier: Any, images: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    logits = classifier(images)
    is_label = tf.one_hot(
        labels, logits.shape[-1], on_value=True, off_value=False
    )
    return tf.argmin(tf.where(is_label, np.float32(np.inf), logits), axis=-1)
