"""APGD's two losses in AutoAttack: cross-entropy, and the targeted DLR."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from attacks.auto_pgd import AutoPGD
from attacks.base import Inputs
from attacks.search import State
from attacks.targets import likeliest_others
from data.checks import check_positive_integer

LEAST_CLASSES_OF_DLR = 4
_TINY = 1e-12  # In the published code: no division by zero.


@dataclasses.dataclass(frozen=True, kw_only=True)
class APGDCE(AutoPGD):
    """Climbs the label's cross-entropy by APGD; see `AutoPGD`.

    Croce and Hein 2020; the first attack of AutoAttack. A classifier whose
    softmax saturates has next to no gradient of it: see `APGDT`.
    """

    name: ClassVar[str] = "apgd_ce"

    def _loss(
        self, logits: tf.Tensor, labels: tf.Tensor, state: State
    ) -> tf.Tensor:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class APGDT(AutoPGD):
    """Climbs the targeted DLR loss by APGD, one target after the other.

    Croce and Hein 2020, Sec. 4 and Eq. (7), the difference of logits ratio

        -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2)

    of the label's logit z_y and the target's z_t, divided by a difference of
    the first, third and fourth highest, so that the logits' scale does not
    matter. As in the standard version of AutoAttack the targets are the most
    likely classes but the label, in the order of the clean image's logits,
    each in `restarts` runs of its own; any wrong class is success, not only
    the target. See `AutoPGD`, whose loss, when runs are compared, is this.

    Attributes:
        target_classes: How many targets; all wrong classes, if there are
            fewer.
    """

    name: ClassVar[str] = "apgd_t"

    target_classes: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_integer(self.target_classes, "target_classes")

    def _check(
        self, classifier, images, labels, targets, starts, indices
    ) -> Inputs:
        if classifier.num_classes < LEAST_CLASSES_OF_DLR:
            raise ValueError(
                "apgd_t needs a classifier of at least 4 classes, since its "
                "loss has the fourth highest logit, got "
                f"{classifier.num_classes}; use apgd_ce or fab_t"
            )
        return super()._check(
            classifier, images, labels, targets, starts, indices
        )

    def _choices(self, logits: tf.Tensor, labels: tf.Tensor) -> State:
        """`candidates`, int32 `[B, N]`: the targets in their order."""
        candidates = likeliest_others(logits, labels, self.target_classes)
        return {"candidates": candidates}

    def _runs(self, state: State) -> int:
        return self.restarts * state["candidates"].shape[1]

    def _loss(
        self, logits: tf.Tensor, labels: tf.Tensor, state: State
    ) -> tf.Tensor:
        number = state["run"] // self.restarts
        target = tf.gather(state["candidates"], number, batch_dims=1)
        lead = tf.gather(logits, target, batch_dims=1) - tf.gather(
            logits, labels, batch_dims=1
        )
        highest = tf.math.top_k(logits, LEAST_CLASSES_OF_DLR).values
        first, third, fourth = highest[:, 0], highest[:, 2], highest[:, 3]
        return lead / (first - (third + fourth) / 2.0 + _TINY)
