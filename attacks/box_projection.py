"""The way from a point in the box [0, 1] to a hyperplane, inside the box."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_LARGEST = np.finfo(np.float32).max


def linf_projection(
    points: tf.Tensor, normals: tf.Tensor, excesses: tf.Tensor
) -> tf.Tensor:
    """The smallest changes in Linf that take points to hyperplanes.

    Croce and Hein 2020, the box-constrained projection of FAB, for p =
    infinity: of all z in [0, 1]^D with normal . z = offset, one that is
    nearest. Each value goes the way that lessens the excess, all by the same
    length, but none beyond its bound. Where the hyperplane does not meet the
    box, all values go to their bounds. Values whose part of the normal is zero
    stay.

    Deviation from the published code, which sorts and sums: the common length
    is found by Newton's method, which ends at the same length. A normal and
    its excess are first divided by the normal's largest value, which changes
    no hyperplane, so that the scale of logits plays no part.

    Args:
        points: float32 `[B, D]` in [0, 1].
        normals: float32 `[B, D]`.
        excesses: float32 `[B]`, normal . point - offset.

    Returns:
        float32 `[B, D]`: the changes, to be added to the points.
    """
    normals, excesses = _scaled(normals, excesses)
    return _changes(points, normals, excesses, tf.ones_like(normals))


def l2_projection(
    points: tf.Tensor, normals: tf.Tensor, excesses: tf.Tensor
) -> tf.Tensor:
    """The smallest changes in L2 that take points to hyperplanes.

    As `linf_projection`, for p = 2: each value goes by a multiple of its part
    of the normal, the same multiple for all, but not beyond its bound.

    Deviation from the published code: there values whose part of the normal
    is less than 1e-8, whatever the others are, stay.

    Args:
        points: float32 `[B, D]` in [0, 1].
        normals: float32 `[B, D]`.
        excesses: float32 `[B]`, normal . point - offset.

    Returns:
        float32 `[B, D]`: the changes, to be added to the points.
    """
    normals, excesses = _scaled(normals, excesses)
    return _changes(points, normals, excesses, tf.abs(normals))


def _scaled(
    normals: tf.Tensor, excesses: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The same hyperplanes by normals whose largest value is 1, or all 0."""
    largest = tf.reduce_max(tf.abs(normals), axis=-1)
    return (
        tf.math.divide_no_nan(normals, largest[:, tf.newaxis]),
        tf.math.divide_no_nan(excesses, largest),
    )


def _changes(
    points: tf.Tensor, normals: tf.Tensor, excesses: tf.Tensor, rates: tf.Tensor
) -> tf.Tensor:
    """The changes when a value goes by its rate times one multiplier."""
    upwards = -tf.sign(normals) * tf.sign(excesses)[:, tf.newaxis]
    rooms = tf.where(upwards > 0.0, 1.0 - points, points)
    weights = tf.abs(normals)
    multipliers = _multipliers(weights, rates, rooms, tf.abs(excesses))
    return upwards * tf.minimum(multipliers[:, tf.newaxis] * rates, rooms)


def _multipliers(
    weights: tf.Tensor, rates: tf.Tensor, rooms: tf.Tensor, wanted: tf.Tensor
) -> tf.Tensor:
    """The m for which sum(weights * min(m * rates, rooms)) is as wanted.

    The sum is a concave function of m, made of straight pieces. Newton's
    method from 0 never passes the solution, and it is over when a step brings
    no other value to its bound: after a handful.

    Returns:
        float32 `[B]`; a huge number where not even all rooms are enough.
    """
    capacities, slopes = weights * rooms, weights * rates

    def step(
        multipliers: tf.Tensor, has_moved: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        is_full = multipliers[:, tf.newaxis] * rates >= rooms
        left = wanted - tf.reduce_sum(tf.where(is_full, capacities, 0.0), -1)
        slope = tf.reduce_sum(tf.where(is_full, 0.0, slopes), -1)
        # Infinite where all values are full.
        roots = tf.where(left > 0.0, left / slope, 0.0)
        new = tf.maximum(multipliers, tf.minimum(roots, _LARGEST))
        return new, tf.reduce_any(new > multipliers)

    multipliers, _ = tf.while_loop(
        lambda multipliers, has_moved: has_moved,
        step,
        (tf.zeros_like(wanted), tf.constant(True)),
    )
    return multipliers
