"""Sums of overlapping patches, as products of polynomials.

A convolution's gradient by its input adds the kernel at every output, times
that output: along one axis, output r and entry p of the kernel meet at place
r + p. So do the coefficients of two polynomials that are multiplied. Toom and
Cook take the values of both at as many points as the product has coefficients,
multiply them there and interpolate (Lavin and Gray 2016, "Fast Algorithms for
Convolutional Neural Networks", use the same): for 5x5 outputs and a kernel of
3x3 that takes 49 products of matrices in the place of 225.

Rounding grows with the number of points: in float32 to some 3e-6 of the
result's norm at seven, where the plain sum has 2e-7.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# Then infinity. Of all triples of small fractions behind the first three, one
# of those that round least.
_POINTS = (0.0, 1.0, -1.0, 0.5, -0.5, -3.0)


def smallest_batch(output: Sequence[int], kernel: Sequence[int]) -> int | None:
    """From how many images on `multiply` pays.

    That is, where it takes less than half of the plain multiplications: images
    share the kernel's values.

    Args:
        output: The shape `[h, w, F]` of an image's.
        kernel: The shape `[F, p, q, S]`.

    Returns:
        None if it never does.
    """
    height, width, filters = output
    _, rows, columns, channels = kernel
    counts = (height + rows - 1, width + columns - 1)
    if max(counts) > len(_POINTS) + 1:
        return None
    points, places = counts[0] * counts[1], height * width
    plain = places * rows * columns * filters * channels
    image = filters * channels + places * filters + points * channels
    saved = plain - 2 * points * image
    if saved <= 0:
        return None
    shared = rows * columns * filters * channels
    return 2 * points * shared // saved + 1


def multiply(outputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Adds the kernel at every output, times that output.

    Args:
        outputs: `[B, h, w, F]`, with h and w known.
        kernel: `[F, p, q, S]`, such that h + p and w + q are at most 8.

    Returns:
        `[B, h + p - 1, w + q - 1, S]`.
    """
    rows = _matrices(outputs.shape[1], kernel.shape[1])
    columns = _matrices(outputs.shape[2], kernel.shape[2])
    values, factors, interpolation = zip(rows, columns, strict=True)
    products = tf.matmul(
        _along_both(values, tf.transpose(outputs, [1, 2, 0, 3])),
        _along_both(factors, tf.transpose(kernel, [1, 2, 0, 3])),
    )
    total = _along_both(interpolation, products)
    return tf.transpose(total, [2, 0, 1, 3])


def _matrices(
    first: int, second: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From coefficients of two to values, and from a product's back."""
    count = first + second - 1
    return (
        _evaluation(count, first),
        _evaluation(count, second),
        np.linalg.inv(_evaluation(count, count)),
    )


def _evaluation(points: int, coefficients: int) -> np.ndarray:
    """`[points, coefficients]`; at infinity only the last one counts."""
    powers = np.vander(_POINTS[: points - 1], coefficients, increasing=True)
    return np.vstack([powers, np.eye(coefficients)[-1:]])


def _along_both(
    matrices: tuple[np.ndarray, np.ndarray], values: tf.Tensor
) -> tf.Tensor:
    """A matrix along each of the first two axes of `[h, w, n, m]`."""
    first, second = (tf.constant(each, values.dtype) for each in matrices)
    moved = tf.tensordot(first, values, 1)
    height, width, *rest = moved.shape.as_list()
    moved = tf.matmul(second, tf.reshape(moved, [height, width, -1]))
    shape = [height, second.shape[0], tf.shape(values)[2], rest[-1]]
    return tf.reshape(moved, shape)
