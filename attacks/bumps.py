"""The patches of the L2 Square attack: two bumps of opposite signs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

TILES = 5  # Along the shorter side of an image, in a start.


def eta(side: int) -> np.ndarray:
    """One patch of Andriushchenko et al. 2020, Eq. 2, of L2 norm 1.

    The upper half of the square is a bump, the lower half, which has the row
    in the middle, minus a bump. At a distance of d from its centre, in the
    larger coordinate, a bump has the height 1/(d+1)^2 + 1/(d+2)^2 + ... as far
    as its widest side goes. Both halves have the same norm.

    Args:
        side: Of the square, in pixels.

    Returns:
        float64 `[side, side]`.
    """
    upper = side // 2
    halves = [_bump(upper, side), -_bump(side - upper, side)]
    patch = np.concatenate(halves)
    return patch / np.linalg.norm(patch)


def _bump(height: int, width: int) -> np.ndarray:
    rows = np.abs(np.arange(height) - height // 2)
    columns = np.abs(np.arange(width) - width // 2)
    layers = 1.0 / (np.arange(max(height, width) // 2 + 1) + 1.0) ** 2
    heights = np.cumsum(layers[::-1])[::-1]
    bump = heights[np.maximum(rows[:, np.newaxis], columns)]
    return bump / np.linalg.norm(bump)


def place(
    sides: Sequence[int],
    chosen: tf.Tensor,
    rows: tf.Tensor,
    columns: tf.Tensor,
    is_turned: tf.Tensor,
) -> tf.Tensor:
    """Puts a patch into each image, at a place and of a size of its own.

    Args:
        sides: Those that occur.
        chosen: int32 `[B]`, which of them.
        rows: int32 `[B, H]`, the images' rows as the patch counts them.
        columns: int32 `[B, W]`, likewise.
        is_turned: bool `[B]`, whether the patch is transposed.

    Returns:
        float32 `[B, H, W, 1]`, zero beside the patch.
    """
    largest = max(sides)
    # With zeros around, so that everything beside a patch finds one.
    table = np.zeros([len(sides), largest + 2, largest + 2], np.float32)
    for patch, side in zip(table, sides, strict=True):
        patch[1 : side + 1, 1 : side + 1] = eta(side)
    down = tf.where(is_turned, 1, largest + 2)
    right = tf.where(is_turned, largest + 2, 1)
    rows = down[:, tf.newaxis] * (tf.clip_by_value(rows, -1, largest) + 1)
    columns = tf.clip_by_value(columns, -1, largest) + 1
    columns = right[:, tf.newaxis] * columns
    first = chosen * (largest + 2) ** 2
    where = (first[:, tf.newaxis] + rows)[:, :, tf.newaxis]
    where += columns[:, tf.newaxis, :]
    return tf.gather(table.ravel(), where)[..., tf.newaxis]


def grid_size(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """The side of a start's patches, and how many fit down and across."""
    height, width, _ = image_shape
    side = max(min(height, width) // TILES, 1)
    return side, height // side, width // side


def grid(
    image_shape: Sequence[int], signs: tf.Tensor, is_turned: tf.Tensor
) -> tf.Tensor:
    """Patches side by side, in the middle of the image.

    Args:
        image_shape: `(H, W, C)`.
        signs: float32 `[B, R, S, C]`, of each patch in each channel; R and S
            are of `grid_size`.
        is_turned: bool `[B, R, S]`, whether a patch is transposed.

    Returns:
        float32 `[B, H, W, C]`.
    """
    height, width, channels = image_shape
    side, down, across = grid_size(image_shape)
    patch = tf.constant(eta(side), tf.float32)
    patches = tf.where(
        is_turned[..., tf.newaxis, tf.newaxis], tf.transpose(patch), patch
    )
    tiles = tf.einsum("brsij,brsc->brisjc", patches, signs)
    tiles = tf.reshape(tiles, [-1, down * side, across * side, channels])
    top, left = (height - down * side) // 2, (width - across * side) // 2
    return tf.image.pad_to_bounding_box(tiles, top, left, height, width)


def mix(
    change: tf.Tensor,
    first: tf.Tensor,
    second: tf.Tensor,
    patch: tf.Tensor,
    epsilon: float,
) -> tf.Tensor:
    """Puts a patch into the first square, at the second's cost.

    Andriushchenko et al. 2020, Algorithm 3, lines 4 to 11, without the
    projection.

    Args:
        change: float32 `[B, H, W, C]`, the perturbations.
        first: float32 `[B, H, W, 1]`, 1 within a square, else 0.
        second: Likewise.
        patch: float32 `[B, H, W, C]`, of norm 1 in each channel, zero outside
            the first square.
        epsilon: The perturbations' largest L2 norm.

    Returns:
        float32 `[B, H, W, C]`, whose norm is about epsilon.
    """
    energy = change**2
    both = tf.maximum(first, second)
    unused = tf.maximum(
        epsilon**2 - tf.reduce_sum(energy, [1, 2, 3], keepdims=True), 0.0
    )
    available = tf.sqrt(_sums(energy * both) + unused / change.shape[-1])
    mixed = patch + tf.math.divide_no_nan(
        change * first, tf.sqrt(_sums(energy * first))
    )
    mixed *= tf.math.divide_no_nan(available, tf.sqrt(_sums(mixed**2)))
    return change * (1.0 - both) + mixed


def _sums(images: tf.Tensor) -> tf.Tensor:
    """float32 `[B, 1, 1, C]`: of each channel."""
    return tf.reduce_sum(images, [1, 2], keepdims=True)
