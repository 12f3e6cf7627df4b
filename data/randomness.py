"""Random choices that depend on a seed and a position, never on their order."""

from __future__ import annotations

import functools
import hashlib
import math
import numbers
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf


def stream_seed(seed: int, stream: str | int) -> int:
    """Returns the 63-bit seed of one use (`stream`) of a run's seed.

    Uses of the same seed under different names are independent.

    Raises:
        ValueError: if the seed is not an integer.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise ValueError(f"seed must be an integer, got {seed!r}")
    digest = hashlib.sha256(f"{int(seed)}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def permutation(
    seed: int, stream: str | int, epoch: int, count: int
) -> np.ndarray:
    """Returns the order of `count` things in an epoch, int64 `[count]`."""
    generator = np.random.default_rng([stream_seed(seed, stream), int(epoch)])
    return generator.permutation(count).astype(np.int64)


def step_key(seed: int, stream: str | int, step: tf.Tensor) -> tf.Tensor:
    """Returns the key of one step for `tf.random.stateless_*`, int64 `[2]`."""
    return tf.stack([stream_seed(seed, stream), tf.cast(step, tf.int64)])


def per_image_uniform(
    seed: int,
    indices: tf.Tensor,
    *,
    low: float = 0.0,
    high: float = 1.0,
    shape: Sequence[int] = (),
    stream: str | int = "uniform",
) -> tf.Tensor:
    """Draws uniform numbers in [low, high) for each image.

    An image's numbers depend on the seed, the stream and its index alone: not
    on the batch that it comes in, nor on device or compiler.

    Args:
        seed: the run's seed.
        indices: integer `[B]`, positions of the images in their split.
        low: lower bound.
        high: upper bound.
        shape: shape of the numbers of one image.
        stream: name of the use, so that two uses of a seed are independent.

    Returns:
        float32 `[B, *shape]`.
    """
    scale = tf.constant([low, high - low], tf.float32)
    return _per_image(_uniform, seed, stream, indices, scale, shape)


def per_image_normal(
    seed: int,
    indices: tf.Tensor,
    shape: Sequence[int],
    stddev: float,
    *,
    stream: str | int = "normal",
) -> tf.Tensor:
    """Draws normal numbers of mean 0 for each image, see per_image_uniform.

    Returns:
        float32 `[B, *shape]`.
    """
    scale = tf.constant(stddev, tf.float32)
    return _per_image(_normal, seed, stream, indices, scale, shape)


def per_image_integers(
    seed: int,
    indices: tf.Tensor,
    low: int,
    high: int,
    *,
    shape: Sequence[int] = (),
    stream: str | int = "integers",
) -> tf.Tensor:
    """Draws integers in [low, high) for each image, see per_image_uniform.

    Returns:
        int64 `[B, *shape]`.

    Raises:
        ValueError: if the range is empty, or too wide for 32 random bits to
            fill evenly.
    """
    if not 0 < high - low <= 2**16:
        raise ValueError(
            f"high must be in ({low}, {low + 2**16}], above low, got {high}"
        )
    scale = tf.constant([low, high - low], tf.int64)
    return _per_image(_integers, seed, stream, indices, scale, shape)


Draw = Callable[[tf.Tensor, tf.Tensor, tuple[int, ...]], tf.Tensor]


def _uniform(
    key: tf.Tensor, scale: tf.Tensor, shape: tuple[int, ...]
) -> tf.Tensor:
    return scale[0] + scale[1] * _fraction(_bits(key, shape))


def _normal(
    key: tf.Tensor, scale: tf.Tensor, shape: tuple[int, ...]
) -> tf.Tensor:
    # Box and Muller's transform; 1 - u is never 0 and has a logarithm.
    first, second = tf.unstack(_fraction(_bits(key, (2, *shape))))
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - first))
    return scale * radius * tf.cos(2.0 * math.pi * second)


def _integers(
    key: tf.Tensor, scale: tf.Tensor, shape: tuple[int, ...]
) -> tf.Tensor:
    return scale[0] + tf.cast(_bits(key, shape), tf.int64) % scale[1]


def _per_image(
    draw: Draw,
    seed: int,
    stream: str | int,
    indices: tf.Tensor,
    scale: tf.Tensor,
    shape: Sequence[int],
) -> tf.Tensor:
    base = tf.constant(stream_seed(seed, stream), tf.int64)
    indices = tf.cast(tf.convert_to_tensor(indices), tf.int64)
    sides = tuple(int(side) for side in shape)
    return _compiled(draw, sides)(base, indices, scale)


def _map_images(
    draw: Draw,
    shape: tuple[int, ...],
    base: tf.Tensor,
    indices: tf.Tensor,
    scale: tf.Tensor,
) -> tf.Tensor:
    """Calls `draw` with each image's key.

    One image at a time: in a batch, vectorised logarithms and cosines round
    differently from place to place.
    """
    return tf.map_fn(
        lambda index: draw(tf.stack([base, index]), scale, shape),
        indices,
        fn_output_signature=tf.TensorSpec(shape, scale.dtype),
    )


@functools.cache
def _compiled(draw: Draw, shape: tuple[int, ...]) -> Callable[..., tf.Tensor]:
    """The same compiled: eagerly, an image costs a hundred calls from Python.

    A partial for each: TensorFlow counts the traces of one piece of code, and
    would warn of the fifth shape's.
    """
    return tf.function(
        functools.partial(_map_images, draw, shape),
        autograph=False,
        reduce_retracing=True,
    )


def _bits(key: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Returns 32 random bits for each number, uint32 of `shape`.

    TensorFlow's own random floats differ under XLA; their bits do not.
    """
    return tf.random.stateless_uniform(
        shape, key, None, None, tf.uint32, alg="philox"
    )


def _fraction(bits: tf.Tensor) -> tf.Tensor:
    """Makes float32 in [0, 1) of the upper 24 bits, which it holds exactly."""
    upper = tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32))
    return tf.cast(tf.cast(upper, tf.int32), tf.float32) * 2.0**-24
