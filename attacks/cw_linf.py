"""CW-Linf: Carlini and Wagner's attack of least largest change."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from attacks.base import Inputs, per_image
from attacks.carlini_wagner import (
    ABOVE_ZERO,
    RisingConstant,
    attempt,
    box,
    fill_like,
)
from attacks.search import State, choose_rows, spoil
from data.checks import check_in_range

SMALLEST_TAU = 1.0 / 256.0
SOLVED = 1e-4  # A loss below this share of the constant solves a problem.


@dataclasses.dataclass(frozen=True, kw_only=True)
class CWLinf(RisingConstant):
    """Minimises c f_6(x') + sum_i max(|x'_i - x_i| - tau, 0), tau falling.

    Carlini and Wagner 2017, Sec. VI-C, with the constants of their published
    li_attack.py. When the loss is below 1e-4 c and the image is adversarial,
    tau becomes the smaller of tau and the largest change, times
    `decrease_factor`, and the search goes on from there with fresh moments.
    It ends when tau is at most 1/256 or no constant solves the problem.
    Changes are in [0, 1] units. One gradient evaluation is one step of Adam.

    Deviations from the published code:

    - The image that is tested is the one that is kept. There, the loss before
      a step decides and the class after it.
    - Of all solutions the one with the least largest change is returned, not
      the last: the loss leaves room for changes beyond tau.
    - An image that is already adversarial by more than kappa is returned
      unchanged.
    - Success is a margin of more than kappa, and more than rounding, which is
      1e-5 of the largest logit. The published code has no kappa here.

    With `abort_early`, which is off as published, it takes fewer gradients and
    changes a little more; the more, the more `checks_per_run`.

    Attributes:
        decrease_factor: How far tau falls, in (0, 1); near 1 is exacter.
    """

    name = "cw_linf"

    max_iterations: int = 1000
    learning_rate: float = 0.005
    initial_const: float = 1e-5
    checks_per_run: int = 10
    largest_const: float = 20.0
    decrease_factor: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_in_range(
            self.decrease_factor, ABOVE_ZERO, 0.9999, "decrease_factor"
        )

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        state = super().begin(classifier, inputs)
        return {
            **state,
            "tau": fill_like(state["constant"], 1.0),
            "best": fill_like(state["constant"], np.inf),
        }

    def advance(self, classifier: Any, inputs: Inputs, state: State) -> State:
        images, slope = box(state["variable"])
        change = images - inputs.images
        tau = per_image(state["tau"])
        excess = change - tf.clip_by_value(change, -tau, tau)
        constant = state["constant"]
        tried = attempt(classifier, images, inputs, constant, self.kappa)
        gradient = (tf.sign(excess) + tried.gradient) * slope
        loss = constant * tried.loss + _sum(tf.abs(excess))
        is_solved = tried.is_success & (loss < SOLVED * constant)
        largest = tf.reduce_max(tf.abs(change), axis=[1, 2, 3])
        state = self.next_step(state, loss, gradient, is_solved)
        state = self._lower_tau(state, is_solved, largest)
        state = _keep_best(state, is_solved, largest, images)
        return {
            **state,
            "adversarial": spoil(tried.is_broken, state["adversarial"]),
            "done": state["done"] | tried.is_broken,
        }

    def _lower_tau(
        self, state: State, is_solved: tf.Tensor, largest: tf.Tensor
    ) -> State:
        lower = self.decrease_factor * tf.minimum(state["tau"], largest)
        tau = tf.where(is_solved, lower, state["tau"])
        return {
            **state,
            "tau": tau,
            "done": state["done"] | (tau <= SMALLEST_TAU),
        }


def _keep_best(
    state: State, is_solved: tf.Tensor, largest: tf.Tensor, images: tf.Tensor
) -> State:
    is_better = is_solved & (largest < state["best"])
    return {
        **state,
        "adversarial": choose_rows(is_better, images, state["adversarial"]),
        "best": tf.where(is_better, largest, state["best"]),
    }


def _sum(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values, axis=[1, 2, 3])
