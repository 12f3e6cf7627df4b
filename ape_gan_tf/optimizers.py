"""Optimizers, learning rates and precision of training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from ape_gan_tf.choices import SCHEDULES
from data.checks import check_one_of

# Of the steps of `one_cycle`, and of its rate.
RISE = 0.3
LOWEST_PART = 25.0


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
    """A constant rate, or one that falls to zero along a half cosine.

    Args:
        name: One of `SCHEDULES`. `one_cycle` is that of Smith and Topin 2019:
            it rises in a line for the first three tenths of the steps, from
            a 25th of the rate, and falls along the half cosine for the rest.
        learning_rate: The highest rate.
        total_steps: Steps in all.

    Returns:
        What a Keras optimizer takes for its learning rate.

    Raises:
        ValueError: The name is unknown.
    """
    if check_one_of(name, SCHEDULES, "schedule") == "constant":
        return learning_rate
    rise = round(RISE * total_steps) if name == "one_cycle" else 0
    return keras.optimizers.schedules.CosineDecay(
        learning_rate / LOWEST_PART if rise else learning_rate,
        decay_steps=max(total_steps - rise, 1),
        warmup_target=learning_rate if rise else None,
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
