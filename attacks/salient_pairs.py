"""The pair of values that a saliency map prefers, without all D x D pairs.

A pair's saliency grows with both of its sums. So another element that is at
least as good in both coordinates makes no worse a pair with the same partner,
and an element with two such others never has to be tried: one of the two is
not the partner. Only the rest, the 2-skyband, is; it has about 2 ln D elements
where the coordinates are independent. Rounding keeps the order of sums and of
products, so the result is exact in float32 too.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

EXACT_SIZE = 3072  # Values of an image of CIFAR-10.
PRUNED_MEMBERS = 1024
_LOWEST = np.float32(-np.inf)


def most_salient_pair(
    rise: tf.Tensor, fall: tf.Tensor, is_allowed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds p < q that maximise (rise_p + rise_q) * (fall_p + fall_q).

    Both sums must be positive. Of equal pairs the first in row-major order
    wins, p before q. The result is that of a search through all pairs, in
    float32. Above `EXACT_SIZE` values an image, though, at most
    `PRUNED_MEMBERS` elements of the skyband are tried with all others, those
    of the largest `rise`; natural images have a few dozen such elements.

    Memory is a few times that of `rise`. The time grows with the largest
    skyband in the batch.

    Args:
        rise: float32 `[B, D]`, D static; finite, as all products must be.
        fall: float32 `[B, D]`, likewise.
        is_allowed: bool `[B, D]`: elements that a pair may be made of.

    Returns:
        p and q, int64 `[B]`, and bool `[B]`: whether there is such a pair,
        with a product that float32 tells from 0.
    """
    rise = tf.where(is_allowed, rise, _LOWEST)
    fall = tf.where(is_allowed, fall, _LOWEST)
    best = _best_with_any_partner(rise, fall)
    # Both elements of the best pair have its saliency: the first is p. Only
    # in a pruned search may its best partner come before it.
    one = tf.argmax(best, axis=-1)
    other = tf.argmax(_with_partner(rise, fall, one), axis=-1)
    is_found = tf.reduce_max(best, axis=-1) > 0.0
    return tf.minimum(one, other), tf.maximum(one, other), is_found


def _best_with_any_partner(rise: tf.Tensor, fall: tf.Tensor) -> tf.Tensor:
    """float32 `[B, D]`: each element's saliency with its best partner.

    Partners are the skyband, by falling `rise`: once two have been visited
    whose `fall` is as large as an element's, it is dominated twice.
    """
    size = rise.shape[-1]

    def visit(waiting, largest_falls, best):
        partner = tf.argmax(waiting, axis=-1)
        best = tf.maximum(best, _with_partner(rise, fall, partner))
        falls = tf.concat([largest_falls, _at(fall, partner)], axis=-1)
        largest_falls = tf.math.top_k(falls, 2).values
        is_visited = tf.one_hot(partner, size, True, False)
        is_over = is_visited | (fall <= largest_falls[:, 1:])
        return tf.where(is_over, _LOWEST, waiting), largest_falls, best

    none_yet = tf.fill([tf.shape(rise)[0], 2], _LOWEST)
    return tf.while_loop(
        lambda waiting, *_: tf.reduce_max(waiting) > _LOWEST,
        visit,
        (rise, none_yet, tf.zeros_like(rise)),
        maximum_iterations=size if size <= EXACT_SIZE else PRUNED_MEMBERS,
    )[-1]


def _with_partner(
    rise: tf.Tensor, fall: tf.Tensor, partner: tf.Tensor
) -> tf.Tensor:
    """float32 `[B, D]`: each element's saliency with one partner, or 0."""
    # No element is its own partner.
    bar = tf.one_hot(partner, rise.shape[-1], _LOWEST, np.float32(0.0))
    rises = tf.nn.relu(rise + _at(rise, partner) + bar)
    return rises * tf.nn.relu(fall + _at(fall, partner))


def _at(values: tf.Tensor, element: tf.Tensor) -> tf.Tensor:
    return tf.gather(values, element[:, tf.newaxis], batch_dims=1)
