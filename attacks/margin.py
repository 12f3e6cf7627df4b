"""How far a classifier is from being fooled."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from attacks.base import NO_TARGET

_ROUNDING = 1e-5


def margin(
    logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    """By how much the attacker has won, in logits: positive is success.

    Untargeted, the best other logit less the label's; targeted, the target's
    less the best other: minus what Carlini and Wagner 2017 call f (Sec. V-A,
    f_6) before it is cut off at -kappa.

    Args:
        logits: float32 `[B, K]`.
        labels: int64 `[B]`.
        targets: int64 `[B]`, -1 where untargeted.

    Returns:
        float32 `[B]`.
    """
    is_targeted = targets != NO_TARGET
    chosen = tf.where(is_targeted, targets, labels)
    mask = tf.one_hot(chosen, logits.shape[-1], on_value=True, off_value=False)
    own = tf.gather(logits, chosen, batch_dims=1)
    others = tf.where(mask, np.float32(-np.inf), logits)
    lead = own - tf.reduce_max(others, axis=-1)
    return tf.where(is_targeted, lead, -lead)


def exceeds_rounding(lead: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """bool `[B]`: whether a lead of the attacker's will outlast a recount.

    In a batch of another size logits are rounded otherwise. A lead of less
    than 1e-5 of the largest logit may be none when the result is judged.

    Args:
        lead: float32 `[B]`, of `margin`.
        logits: float32 `[B, K]`, which it comes from.
    """
    return lead > _ROUNDING * tf.reduce_max(tf.abs(logits), axis=-1)
