"""Random changes of training images, determined by seed and step."""

from __future__ import annotations

import tensorflow as tf

from data.randomness import step_key


def shift_images(
    images: tf.Tensor, shift: int, seed: int, step: tf.Tensor
) -> tf.Tensor:
    """Moves each image by up to `shift` pixels each way, filling with zeros.

    Args:
        images: `[B, H, W, C]`.
        shift: the largest displacement, in pixels.
        seed: the run's seed.
        step: int64 scalar; with the seed it determines the displacements.

    Returns:
        `[B, H, W, C]`, the dtype of `images`.
    """
    batch, height, width, _ = images.shape
    corners = tf.random.stateless_uniform(
        [2, batch, 1],
        step_key(seed, "shift", step),
        0,
        2 * shift + 1,
        tf.int32,
        alg="philox",
    )
    margin = [shift, shift]
    padded = tf.pad(images, [[0, 0], margin, margin, [0, 0]])
    return _windows(padded, corners[0], corners[1], height, width)


def flip_images(images: tf.Tensor, seed: int, step: tf.Tensor) -> tf.Tensor:
    """Mirrors every second image or so, chosen by seed and step.

    Args:
        images: `[B, H, W, C]`.
        seed: the run's seed.
        step: int64 scalar.

    Returns:
        `[B, H, W, C]`, the dtype of `images`.
    """
    draws = tf.random.stateless_uniform(
        [images.shape[0], 1, 1, 1], step_key(seed, "flip", step), alg="philox"
    )
    return tf.where(draws < 0.5, images[:, :, ::-1], images)


def crop_pairs(
    clean: tf.Tensor,
    adversarial: tf.Tensor,
    side: int,
    seed: int,
    step: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes a random square out of each pair, the same of both images.

    Args:
        clean: `[B, H, W, C]`.
        adversarial: their twins, of the same shape.
        side: of the squares, at most H and W.
        seed: the run's seed.
        step: int64 scalar; with the seed it determines the squares.

    Returns:
        Two of `[B, side, side, C]`.
    """
    batch, height, width, _ = clean.shape
    rows, columns = (
        tf.random.stateless_uniform(
            [batch, 1],
            step_key(seed, f"crop_{axis}", step),
            0,
            length - side + 1,
            tf.int32,
            alg="philox",
        )
        for axis, length in (("rows", height), ("columns", width))
    )
    return (
        _windows(clean, rows, columns, side, side),
        _windows(adversarial, rows, columns, side, side),
    )


def noise_some(
    clean: tf.Tensor,
    adversarial: tf.Tensor,
    fraction: float,
    variance: float,
    seed: int,
    step: tf.Tensor,
) -> tf.Tensor:
    """Puts Gaussian noise in the place of some adversarial images.

    Args:
        clean: `[B, H, W, C]` in [0, 1].
        adversarial: their twins, of the same shape.
        fraction: the share of images, in [0, 1], that is replaced by the
            clean image plus noise of mean 0, clipped to [0, 1].
        variance: each image's noise has a variance drawn from [0, variance].
        seed: the run's seed.
        step: int64 scalar.

    Returns:
        `[B, H, W, C]`.
    """
    draws = _draw_per_image(2, clean, step_key(seed, "noise_some", step))
    white = tf.random.stateless_normal(
        clean.shape, step_key(seed, "noise", step), alg="philox"
    )
    noisy = clean + tf.sqrt(variance * draws[1]) * white
    return tf.where(
        draws[0] < fraction, tf.clip_by_value(noisy, 0.0, 1.0), adversarial
    )


def sparsify_some(
    clean: tf.Tensor,
    adversarial: tf.Tensor,
    fraction: float,
    density: float,
    seed: int,
    step: tf.Tensor,
) -> tf.Tensor:
    """Makes some perturbations sparse and strong: few pixels, far changed.

    Args:
        clean: `[B, H, W, C]` in [0, 1].
        adversarial: their twins, of the same shape.
        fraction: the share of images, in [0, 1], whose perturbation is kept
            at random positions alone, and made there as large as an image's
            own strength, drawn from [0.5, 1], in the direction that it had.
        density: each image's share of such positions is drawn from
            [0, density].
        seed: the run's seed.
        step: int64 scalar.

    Returns:
        `[B, H, W, C]` in [0, 1].
    """
    batch, height, width, _ = clean.shape
    draws = _draw_per_image(3, clean, step_key(seed, "sparsify_some", step))
    positions = tf.random.stateless_uniform(
        [batch, height, width, 1],
        step_key(seed, "positions", step),
        alg="philox",
    )
    strength = 0.5 + 0.5 * draws[1]
    is_kept = tf.cast(positions < density * draws[2], clean.dtype)
    sparse = clean + is_kept * strength * tf.sign(adversarial - clean)
    return tf.where(
        draws[0] < fraction, tf.clip_by_value(sparse, 0.0, 1.0), adversarial
    )


def _windows(
    images: tf.Tensor,
    rows: tf.Tensor,
    columns: tf.Tensor,
    height: int,
    width: int,
) -> tf.Tensor:
    """A part of each image, from a row and a column `[B, 1]` on."""
    found = tf.gather(images, rows + tf.range(height), axis=1, batch_dims=1)
    return tf.gather(found, columns + tf.range(width), axis=2, batch_dims=1)


def _draw_per_image(count: int, images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Draws `count` numbers in [0, 1) for each image, `[count, B, 1, 1, 1]`."""
    shape = [count, images.shape[0], 1, 1, 1]
    return tf.random.stateless_uniform(shape, key, alg="philox")
