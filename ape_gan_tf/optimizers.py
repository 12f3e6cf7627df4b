"""Optimizers, learning rates and precision of training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from ape_gan_tf.choices import SCHEDULES
from data.checks import check_one_of


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
    """A constant rate, or one that falls to zero along a half cosine."""
    if check_one_of(name, SCHEDULES, "schedule") == "constant":
        return learning_rate
    return keras.optimizers.schedules.CosineDecay(
        learning_rate, decay_steps=max(total_steps, 1)
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
