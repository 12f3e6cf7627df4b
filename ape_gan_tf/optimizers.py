"""Optimizers, learning rates and precision of training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from ape_gan_tf.choices import SCHEDULES
from data.checks import check_one_of

# The share of one cycle's steps in which it rises, and what part of the rate it
# begins at.
_RISE = 0.3
_FIRST_RATE = 25.0


@contextlib.contextmanager
def precision_scope(precision: str) -> Iterator[None]:
    """Layers made inside compute in `precision`; Keras's default is kept."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def learning_rate_schedule(
    name: str, learning_rate: float, total_steps: int
) -> Any:
    """The learning rate over the steps of a training.

    Args:
        name: One of `SCHEDULES`: `constant`; `cosine` falls to zero along a
            half cosine; `one_cycle`, after Smith and Topin 2019, rises in a
            line for the first three tenths of the steps, from a 25th of the
            rate, and then falls in that way. The two numbers are PyTorch's;
            momentum is not cycled.
        learning_rate: The highest rate.
        total_steps: Steps in all.

    Returns:
        What a Keras optimizer takes for its learning rate.

    Raises:
        ValueError: The name is unknown.
    """
    if check_one_of(name, SCHEDULES, "schedule") == "constant":
        return learning_rate
    rise = round(_RISE * total_steps) if name == "one_cycle" else 0
    if not rise:
        return keras.optimizers.schedules.CosineDecay(
            learning_rate, decay_steps=max(total_steps, 1)
        )
    return keras.optimizers.schedules.CosineDecay(
        learning_rate / _FIRST_RATE,
        decay_steps=max(total_steps - rise, 1),
        warmup_target=learning_rate,
        warmup_steps=rise,
    )


def prepare(
    optimizer: keras.Optimizer, variables: list[Any], precision: str
) -> keras.Optimizer:
    """Builds an optimizer; under mixed float16 it scales the loss as well.

    It must be built before a checkpoint tracks it, or its slots are not
    restored.
    """
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer
