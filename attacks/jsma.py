"""The Jacobian-based saliency map attack: a few values, changed a lot."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from attacks.base import Inputs, per_image
from attacks.salient_pairs import most_salient_pair
from attacks.search import State
from attacks.targets import TargetedAttack
from data.checks import check_in_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class JSMA(TargetedAttack):
    """Changes the most salient pair of values until the target is reached.

    Papernot et al. 2016, "The Limitations of Deep Learning in Adversarial
    Settings", Algorithms 2 and 3; Sec. 2.1.5 of the APE-GAN paper. With
    alpha = dZ_t/dx and beta = the sum of dZ_j/dx over the other classes j, a
    step looks among all pairs p < q for the one that maximises
    -(alpha_p + alpha_q) * (beta_p + beta_q) where the first sum is positive
    and the second negative, and adds theta to both values. A negative theta
    takes values away, with both signs reversed. The attack ends at success,
    when there is no such pair, or after floor(D * gamma / 2) pairs of an
    image's D values. A failure returns the last image.

    The search through the pairs is exact up to 3,072 values an image, see
    `salient_pairs.most_salient_pair`, which also says how it is pruned above.
    A step takes two input gradients, of Z_t and of the sum of all Z: beta is
    their difference, so the whole Jacobian is not needed.

    Deviations: Z are the logits (Carlini and Wagner 2017 call this JSMA-Z).
    The outputs of a softmax add up to 1, so that beta would be -alpha, and
    the second condition would say the same as the first. Values that are at
    the bound from the start are no candidates, as they could not change; the
    paper removes a value when it has reached the bound. Of equal pairs, the
    first in row-major order is taken.

    Attributes:
        theta: What a step adds to a value, in [-1, 1] and not 0.
        gamma: The largest share of an image's values to change, in [0, 1].
    """

    name = "jsma"
    distance = "l0"
    is_minimal_norm = True
    # Most images take few steps, and do not wait for the others.
    steps_per_round: ClassVar[int] = 5

    theta: float = 1.0
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is None:
            raise ValueError(
                "target must not be None: jsma is a targeted attack, its "
                "saliency map is that of a target class"
            )
        check_in_range(self.theta, -1.0, 1.0, "theta")
        check_in_range(self.gamma, 0.0, 1.0, "gamma")
        if self.theta == 0.0:
            raise ValueError("theta must not be 0, nothing would change")

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        no_pairs = tf.zeros_like(inputs.labels)
        return {
            "adversarial": inputs.starts,
            "evaluations": no_pairs,
            "pairs": no_pairs,
            "done": no_pairs >= self._most_pairs(inputs.images.shape[1:]),
        }

    def advance(self, classifier: Any, inputs: Inputs, state: State) -> State:
        images = state["adversarial"]
        logits, alpha, beta = _saliency_terms(
            classifier, images, inputs.targets
        )
        is_finite = _are_finite(logits, alpha, beta)
        is_reached = tf.argmax(logits, axis=-1) == inputs.targets
        goes_on = is_finite & ~is_reached
        changed, is_found = self._change(images, alpha, beta, goes_on)
        pairs = state["pairs"] + tf.cast(is_found, tf.int64)
        at_limit = pairs >= self._most_pairs(images.shape[1:])
        return {
            "adversarial": tf.where(per_image(is_finite), changed, np.nan),
            # Of an image that is there already, only the logits were needed.
            "evaluations": state["evaluations"]
            + 2 * tf.cast(~is_reached, tf.int64),
            "pairs": pairs,
            "done": ~is_found | at_limit,
        }

    def _most_pairs(self, image_shape: Sequence[int]) -> int:
        # 0.58 * 100 is a little less than 58 in floating point.
        return math.floor(self.gamma * math.prod(image_shape) / 2 + 1e-9)

    def _change(
        self,
        images: tf.Tensor,
        alpha: tf.Tensor,
        beta: tf.Tensor,
        goes_on: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The images after a step, and whether there was a pair to change."""
        flat = tf.reshape(images, [-1, alpha.shape[-1]])
        sign = np.float32(np.sign(self.theta))
        can_change = flat < 1.0 if sign > 0 else flat > 0.0
        first, second, is_found = most_salient_pair(
            sign * alpha, -sign * beta, can_change & goes_on[:, tf.newaxis]
        )
        size = alpha.shape[-1]
        step = tf.one_hot(first, size) + tf.one_hot(second, size)
        changed = tf.clip_by_value(flat + self.theta * step, 0.0, 1.0)
        changed = tf.where(is_found[:, tf.newaxis], changed, flat)
        return tf.reshape(changed, [-1, *images.shape[1:]]), is_found


def _saliency_terms(
    classifier: Any, images: tf.Tensor, targets: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Logits `[B, K]`, and alpha and beta, `[B, D]`."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        logits = classifier(images)
        of_target = tf.gather(logits, targets, batch_dims=1)
        of_all = tf.reduce_sum(logits, axis=-1)
    shape = [-1, math.prod(images.shape[1:])]
    alpha = tf.reshape(_gradient(tape, of_target, images), shape)
    total = tf.reshape(_gradient(tape, of_all, images), shape)
    return logits, alpha, total - alpha


def _gradient(
    tape: tf.GradientTape, values: tf.Tensor, images: tf.Tensor
) -> tf.Tensor:
    return tape.gradient(
        values, images, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )


def _are_finite(*tensors: tf.Tensor) -> tf.Tensor:
    """bool `[B]`, of tensors `[B, ...]` of rank 2."""
    finite = [tf.reduce_all(tf.math.is_finite(x), axis=-1) for x in tensors]
    return tf.reduce_all(tf.stack(finite), axis=0)
