"""CW-L0: Carlini and Wagner's attack that changes the fewest pixels."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from attacks.base import L0_TOLERANCE, Inputs
from attacks.carlini_wagner import (
    RisingConstant,
    attempt,
    box,
    to_tanh_space,
)
from attacks.search import State, choose_rows, spoil

SURPLUS = 0.01  # Margin beyond kappa that f_6 asks for, as published.
SOLVED = 1e-4  # f_6 below this solves a problem.
CHANGED = 1e-4  # A pixel that changed by less counts as equal.
IMPORTANT = 0.01  # Of pixels with a larger score one a time is frozen.
SHARE = 0.3  # Of the root of the changed pixels: how many to freeze at most.


@dataclasses.dataclass(frozen=True, kw_only=True)
class CWL0(RisingConstant):
    """Freezes the pixels that matter least until no attack is left.

    Carlini and Wagner 2017, Sec. VI-B, with the constants of their published
    l0_attack.py. Adam minimises c f_6(x') + ||x' - x||_2^2 over the pixels
    that may still change, with a margin of 0.01 more than kappa, until f_6 is
    below 1e-4. Then pixels (all channels of a position together) are frozen
    at their clean values, those with the smallest |sum of changes| times sum
    of |the loss's gradient| first: up to 0.3 times the root of the number of
    changed pixels, and none after one whose score exceeds 0.01. The search
    goes on from there with fresh moments, and ends when no constant helps.
    The last success is returned: its frozen pixels are exactly the clean
    ones. `pixels_changed` counts the others. One gradient evaluation is one
    step of Adam.

    Deviations from the published code:

    - The gradient that pixels are chosen by is that by the image, as in the
      paper. The code's is that by w, which is nearly 0 at black and white, so
      that pixels which are changed most are frozen first, and more of them
      are changed in the end.
    - An image that is already adversarial by more than kappa is returned
      unchanged, and one without a pixel left to change is done at once.
    - The margin must exceed kappa by more than rounding, too, which is 1e-5
      of the largest logit.
    - Of pixels with equal scores the first is frozen first.
    - `abort_early`, which the code does not have: the constants that fail cost
      most of the attack, and seldom need all their steps. It looks 40 times
      (`checks_per_run`).
    - `independent_channels`, which the code advises against, is not offered.
    """

    name = "cw_l0"
    distance = "l0"

    max_iterations: int = 1000
    learning_rate: float = 0.01
    initial_const: float = 0.001
    largest_const: float = 2e6
    abort_early: bool = True

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        state = super().begin(classifier, inputs)
        reference, _ = box(to_tanh_space(inputs.images))
        return {
            **state,
            "reference": reference,
            "is_free": tf.ones_like(inputs.images[..., :1], tf.bool),
        }

    def advance(self, classifier: Any, inputs: Inputs, state: State) -> State:
        images, slope = box(state["variable"])
        images = tf.where(state["is_free"], images, inputs.images)
        change = images - state["reference"]
        tried = attempt(
            classifier,
            images,
            inputs,
            state["constant"],
            self.kappa,
            surplus=SURPLUS,
        )
        gradient = tf.where(
            state["is_free"], 2.0 * change + tried.gradient, np.float32(0.0)
        )
        is_solved = tried.is_success & (tried.loss < SOLVED)
        distance = tf.reduce_sum(tf.square(change), axis=[1, 2, 3])
        loss = distance + state["constant"] * tried.loss
        state = self.next_step(state, loss, gradient * slope, is_solved)
        state = _keep(state, is_solved, images)
        state = _freeze(state, is_solved, images - inputs.images, gradient)
        return {
            **state,
            "adversarial": spoil(tried.is_broken, state["adversarial"]),
            "done": state["done"] | tried.is_broken,
        }


def pixels_changed(adversarial: Any, images: Any) -> tf.Tensor:
    """How many pixels differ: positions, whatever their channels do.

    Args:
        adversarial: float32 `[B, H, W, C]`.
        images: float32 `[B, H, W, C]`, clean.

    Returns:
        int64 `[B]`: positions at which a channel differs by more than 1e-6.
    """
    change = tf.abs(tf.subtract(adversarial, images))
    return _count_positions(change > L0_TOLERANCE)


def _keep(state: State, is_solved: tf.Tensor, images: tf.Tensor) -> State:
    adversarial = choose_rows(is_solved, images, state["adversarial"])
    return {**state, "adversarial": adversarial}


def _freeze(
    state: State,
    is_solved: tf.Tensor,
    change: tf.Tensor,
    gradient: tf.Tensor,
) -> State:
    """Takes pixels from images that are solved; one without any is done."""
    is_free = state["is_free"]
    is_free = tf.cond(  # Finding the pixels is costly, and mostly idle.
        tf.reduce_any(is_solved),
        lambda: choose_rows(
            is_solved,
            is_free & ~least_important(is_free, change, gradient),
            is_free,
        ),
        lambda: is_free,
    )
    is_any_free = tf.reduce_any(is_free, axis=[1, 2, 3])
    return {
        **state,
        "is_free": is_free,
        "done": state["done"] | ~is_any_free,
    }


def least_important(
    is_free: tf.Tensor, change: tf.Tensor, gradient: tf.Tensor
) -> tf.Tensor:
    """Which pixels to freeze next.

    Args:
        is_free: bool `[B, H, W, 1]`, pixels that are not frozen yet.
        change: float32 `[B, H, W, C]`, from the clean images.
        gradient: float32 `[B, H, W, C]`, of the loss by the image.

    Returns:
        bool `[B, H, W, 1]`, at least one pixel of each image that has any.
    """
    height, width, _ = is_free.shape[1:]
    flat = [tf.shape(change)[0], height * width]
    scores = tf.abs(tf.reduce_sum(change, -1)) * tf.reduce_sum(
        tf.abs(gradient), -1
    )
    scores = tf.where(is_free[..., 0], scores, np.float32(np.inf))
    most = max(1, math.ceil(SHARE * math.sqrt(height * width)))
    smallest, places = tf.math.top_k(-tf.reshape(scores, flat), most)
    smallest = -smallest
    changed = tf.cast(_count_positions(tf.abs(change) >= CHANGED), tf.float32)
    rank = tf.range(most, dtype=tf.float32)
    is_allowed = rank < SHARE * tf.sqrt(changed)[:, tf.newaxis]
    is_before_important = smallest[:, :-1] <= IMPORTANT
    goes_on = is_allowed[:, 1:] & is_before_important
    is_first = tf.ones_like(is_allowed[:, :1])
    chosen = tf.concat([is_first, goes_on], 1) & tf.math.is_finite(smallest)
    return tf.reshape(_mark(places, chosen, flat), tf.shape(is_free))


def _mark(places: tf.Tensor, chosen: tf.Tensor, shape: list[Any]) -> tf.Tensor:
    """bool of `shape`: true at the places of each row that are chosen."""
    rows = tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis], tf.shape(places))
    marks = tf.scatter_nd(
        tf.stack([rows, places], -1), tf.cast(chosen, tf.int32), shape
    )
    return marks > 0


def _count_positions(is_different: tf.Tensor) -> tf.Tensor:
    positions = tf.reduce_any(is_different, axis=-1)
    return tf.reduce_sum(tf.cast(positions, tf.int64), axis=[1, 2])
