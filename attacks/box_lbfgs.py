"""Limited-memory BFGS inside the box [0, 1], for many points at once.

Each point of a batch has a memory of its own. As in Bertsekas 1982,
"Projected Newton Methods for Optimization Problems with Simple Constraints",
the variables that the gradient holds at a bound take no part in the
quasi-Newton direction, and what lies along it is projected onto the box. The
direction comes from the compact form of Byrd, Nocedal and Schnabel 1994,
"Representations of quasi-Newton matrices and their use in limited memory
methods", Theorem 2.2: a few products for the whole batch instead of a
recursion.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# The share of the decrease that the gradient promises, to accept a step.
_ENOUGH = np.float32(1e-4)
# Sums in float32 that differ by this share may be equal.
_ROUNDING = np.float32(1e-6)
# With less curvature than this a step would throw the direction off.
_LEAST_CURVATURE = np.float32(1e-4)


def direction(
    points: tf.Tensor,
    gradients: tf.Tensor,
    steps: tf.Tensor,
    changes: tf.Tensor,
) -> tf.Tensor:
    """Directions of descent, 0 in the variables that are held at a bound.

    Args:
        points: float32 `[B, D]` in [0, 1].
        gradients: float32 `[B, D]`, at the points.
        steps: float32 `[B, M, D]`, between earlier points, the latest last; 0
            where there were fewer.
        changes: float32 `[B, M, D]`, of the gradient in each step.

    Returns:
        float32 `[B, D]`.
    """
    is_held = ((points <= 0.0) & (gradients > 0.0)) | (
        (points >= 1.0) & (gradients < 0.0)
    )
    free = tf.cast(~is_held, tf.float32)
    descent = -free * gradients
    among_free = free[:, tf.newaxis]
    newton = _inverse_hessian_times(
        descent, among_free * steps, among_free * changes
    )
    # Rounding may spoil it, and it compares as false where it overflowed.
    is_descent = dot(newton, gradients) < 0.0
    return choose(is_descent, newton, descent)


def is_enough(
    values: tf.Tensor, trial_values: tf.Tensor, slopes: tf.Tensor
) -> tf.Tensor:
    """Armijo's condition along the projected direction, bool `[B]`.

    Args:
        values: float32 `[B]`, where the step begins.
        trial_values: float32 `[B]`, where it ends.
        slopes: float32 `[B]`, the gradient times the step after projection.

    Returns:
        Whether the value falls enough, or as far as float32 can tell.
    """
    return trial_values <= values + _ENOUGH * slopes + _ROUNDING * tf.abs(
        values
    )


def shorter(
    sizes: tf.Tensor,
    values: tf.Tensor,
    trial_values: tf.Tensor,
    slopes: tf.Tensor,
) -> tf.Tensor:
    """The next size to try after a step that was too long, float32 `[B]`.

    A parabola through what is known, within a tenth and a half of the last.
    """
    rise = trial_values - values - slopes
    return sizes * tf.clip_by_value(-slopes / (2.0 * rise), 0.1, 0.5)


def dot(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(one * other, axis=-1)


def choose(condition: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Rows of `one` where the condition `[B]` holds, else of `other`."""
    shape = [-1] + [1] * (other.shape.rank - 1)
    return tf.where(tf.reshape(condition, shape), one, other)


def _inverse_hessian_times(
    vectors: tf.Tensor, steps: tf.Tensor, changes: tf.Tensor
) -> tf.Tensor:
    """Byrd, Nocedal and Schnabel's product, without pairs of no curvature."""
    products = tf.matmul(steps, changes, transpose_b=True)
    curvature = tf.linalg.diag_part(products)
    is_good = curvature > _LEAST_CURVATURE * dot(steps, steps)
    good = tf.cast(is_good, tf.float32)[:, :, tf.newaxis]
    steps, changes = good * steps, good * changes
    triangle = tf.linalg.set_diag(
        good * tf.linalg.band_part(products, 0, -1),
        tf.where(is_good, curvature, 1.0),
    )
    scale = _scale(curvature, dot(changes, changes), is_good)
    columns = vectors[:, :, tf.newaxis]
    first = tf.linalg.triangular_solve(
        triangle, tf.matmul(steps, columns), lower=False
    )
    along_changes = scale * (
        tf.matmul(changes, first, transpose_a=True) - columns
    )
    second = tf.linalg.triangular_solve(
        triangle,
        curvature[:, :, tf.newaxis] * first + tf.matmul(changes, along_changes),
        lower=False,
        adjoint=True,
    )
    product = tf.matmul(steps, second, transpose_a=True) - along_changes
    return product[:, :, 0]


def _scale(
    curvature: tf.Tensor, sizes: tf.Tensor, is_good: tf.Tensor
) -> tf.Tensor:
    """float32 `[B, 1, 1]`: the inverse Hessian along the last good step."""
    last = tf.reduce_max(
        tf.where(is_good, tf.range(curvature.shape[1]), 0), axis=-1
    )
    ratios = tf.where(is_good, curvature / sizes, 1.0)
    scale = tf.gather(ratios, last, batch_dims=1)
    return scale[:, tf.newaxis, tf.newaxis]
