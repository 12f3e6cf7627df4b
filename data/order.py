"""The order in which a training run sees the images of a split."""

from __future__ import annotations

import tensorflow as tf

from data.checks import check_positive_integer
from data.randomness import permutation


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Returns how many full batches `count` images make.

    Raises:
        ValueError: if they do not make one.
    """
    check_positive_integer(batch_size, "batch_size")
    if batch_size > count:
        raise ValueError(
            f"batch_size must be at most the number of images, {count}, "
            f"got {batch_size}"
        )
    return count // batch_size


def check_steps(start_step: int, total_steps: int) -> None:
    """Raises ValueError unless 0 <= start_step <= total_steps."""
    if not 0 <= start_step <= total_steps:
        raise ValueError(
            f"start_step must be in [0, total_steps = {total_steps}], "
            f"got {start_step}"
        )


def shuffled_positions(
    count: int,
    batch_size: int,
    *,
    seed: int,
    start_step: int,
    total_steps: int,
) -> tf.data.Dataset:
    """Returns the positions of each step's batch, int64 `[batch_size]`.

    Each epoch is a permutation that seed and epoch alone determine, less what
    does not fill a batch: starting at `start_step` gives what a run from the
    beginning would see there.
    """
    per_epoch = steps_per_epoch(count, batch_size)
    check_steps(start_step, total_steps)

    def batches_of(epoch: int) -> tf.Tensor:
        order = permutation(seed, "order", epoch, count)
        return order[: per_epoch * batch_size].reshape(per_epoch, batch_size)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        batches = tf.numpy_function(batches_of, [epoch], tf.int64)
        return tf.data.Dataset.from_tensor_slices(
            tf.ensure_shape(batches, [per_epoch, batch_size])
        )

    epochs = tf.data.Dataset.range(
        start_step // per_epoch, total_steps // per_epoch + 1
    )
    batches = epochs.flat_map(epoch_batches).skip(start_step % per_epoch)
    return batches.take(total_steps - start_step)
