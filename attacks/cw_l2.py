"""CW-L2: Carlini and Wagner's attack of least Euclidean distance."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from attacks.base import Inputs
from attacks.carlini_wagner import (
    Attempt,
    CarliniWagner,
    adam,
    attempt,
    box,
    check_boolean,
    fill_like,
    to_tanh_space,
)
from attacks.search import State, choose_rows, spoil
from data.checks import check_positive_integer

NO_UPPER_BOUND = 1e10
REPEAT_FROM = 10  # Searches; from here on the last one repeats the best.


@dataclasses.dataclass(frozen=True, kw_only=True)
class CWL2(CarliniWagner):
    """Minimises ||x' - x||_2^2 + c f_6(x') by Adam and a search for c.

    Carlini and Wagner 2017, Sec. VI-A (there the L2 attack), with the
    constants of their published l2_attack.py. A run of Adam starts at the
    image with fresh moments, and once there is an adversarial image, at the
    nearest so far. c is multiplied by 10 until a run meets one, then the
    bracket of c is halved after each run. The nearest adversarial image of
    all runs is returned. Distances are L2 in [0, 1] units. With 10 runs or
    more the last repeats the smallest c that succeeded.

    Each image goes its own way: its run, its c and its end depend on no other
    image. One gradient evaluation is one step of Adam.

    Deviations from the published code:

    - All its runs start at the image (`warm_start=False`). Where c is halved,
      most of a run only finds the last one's result again: to start there
      takes half the gradients and comes out as near (docs/attacks.md).
    - It aborts a run early, at one of ten checks, on the loss's sum over the
      batch; here each image stops for itself, at one of 40 (`checks_per_run`),
      which halves the gradients again. A loss counts as progress from
      infinity, not from 1e6, before the first check, and the image tried last
      in an aborted run counts.
    - An image that is already adversarial by more than kappa is returned
      unchanged, without a search.
    - Success is a margin of more than kappa, and more than rounding, which is
      1e-5 of the largest logit. Untargeted, the published code takes kappa
      from the label's logit, which makes success easier, not harder.

    Attributes:
        binary_search_steps: Runs, each with a constant of its own.
        abort_early: End a run when, between two checks, its loss has not
            fallen to 0.9999 of what it was.
        warm_start: Start a run at the nearest adversarial image so far, where
            there is one, and not at the image.
    """

    name = "cw_l2"
    distance = "l2"

    max_iterations: int = 10000
    learning_rate: float = 0.01
    initial_const: float = 0.001
    binary_search_steps: int = 9
    abort_early: bool = True
    warm_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_integer(self.binary_search_steps, "binary_search_steps")
        check_boolean(self.abort_early, "abort_early")
        check_boolean(self.warm_start, "warm_start")

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        state = super().begin(classifier, inputs)
        # Not the image itself: the way to w and back rounds, and Adam would
        # take the difference for something to undo.
        reference, _ = box(to_tanh_space(inputs.images))
        infinity = fill_like(state["constant"], np.inf)
        return {
            **state,
            "start": state["variable"],
            "reference": reference,
            "best": infinity,
            "previous": infinity,
            "lower": tf.zeros_like(infinity),
            "upper": fill_like(infinity, NO_UPPER_BOUND),
            "is_found": tf.zeros_like(state["done"]),
            "runs": tf.zeros_like(inputs.labels),
        }

    def advance(self, classifier: Any, inputs: Inputs, state: State) -> State:
        images, slope = box(state["variable"])
        change = images - state["reference"]
        distance = tf.reduce_sum(tf.square(change), axis=[1, 2, 3])
        tried = attempt(
            classifier, images, inputs, state["constant"], self.kappa
        )
        gradient = (2.0 * change + tried.gradient) * slope
        loss = distance + state["constant"] * tried.loss
        moved = adam(state, gradient, self.learning_rate)
        state = self._keep_best(state, images, distance, tried)
        return self._end_runs({**state, **moved}, loss)

    def _keep_best(
        self,
        state: State,
        images: tf.Tensor,
        distance: tf.Tensor,
        tried: Attempt,
    ) -> State:
        """What the images that were just tried, those of w, have brought."""
        is_better = tried.is_success & (distance < state["best"])
        adversarial = choose_rows(is_better, images, state["adversarial"])
        start, is_found = state["start"], tried.is_success
        if self.warm_start:
            start = choose_rows(is_better, state["variable"], start)
            # The start is one itself, so that says nothing about c.
            is_found = is_better
        return {
            **state,
            "adversarial": spoil(tried.is_broken, adversarial),
            "start": start,
            "best": tf.where(is_better, distance, state["best"]),
            "is_found": state["is_found"] | is_found,
            "evaluations": state["evaluations"] + 1,
            "done": state["done"] | tried.is_broken,
        }

    def _end_runs(self, state: State, loss: tf.Tensor) -> State:
        """Where a run is over, sets up the next one or is done."""
        is_over = state["updates"] == self.max_iterations
        previous = state["previous"]
        if self.abort_early:
            is_stuck, previous = self.check_progress(
                state["updates"] - 1, loss, previous
            )
            is_over |= is_stuck
        if self.warm_start:
            # Adam's first steps lead away from a start that is nearly best:
            # its loss is nothing to compare with.
            is_warm = (state["updates"] == 1) & (state["best"] < np.inf)
            previous = tf.where(is_warm, np.float32(np.inf), previous)
        runs = state["runs"] + tf.cast(is_over, tf.int64)
        fresh = {
            **self._next_constants(state, runs),
            "variable": state["start"],
            "first": tf.zeros_like(state["first"]),
            "second": tf.zeros_like(state["second"]),
            "updates": tf.zeros_like(runs),
            "is_found": tf.zeros_like(is_over),
            "previous": fill_like(previous, np.inf),
        }
        state = {**state, "previous": previous}
        return {
            **state,
            **{x: choose_rows(is_over, fresh[x], state[x]) for x in fresh},
            "runs": runs,
            "done": state["done"] | (runs == self.binary_search_steps),
        }

    def _next_constants(self, state: State, runs: tf.Tensor) -> State:
        bounds = bisect(
            state["constant"], state["lower"], state["upper"], state["is_found"]
        )
        if self.binary_search_steps >= REPEAT_FROM:
            is_last = runs == self.binary_search_steps - 1
            bounds["constant"] = tf.where(
                is_last, bounds["upper"], bounds["constant"]
            )
        return bounds


def bisect(
    constant: tf.Tensor,
    lower: tf.Tensor,
    upper: tf.Tensor,
    is_found: tf.Tensor,
) -> State:
    """The next constant and its bounds, after a run with or without success.

    Args:
        constant: float32 `[B]`, what the run was made with.
        lower: float32 `[B]`, the largest constant that failed, 0 at first.
        upper: float32 `[B]`, the smallest that succeeded, 1e10 at first.
        is_found: bool `[B]`, whether the run succeeded.

    Returns:
        The new `constant`, `lower` and `upper`.
    """
    lower = tf.where(is_found, lower, tf.maximum(lower, constant))
    upper = tf.where(is_found, tf.minimum(upper, constant), upper)
    middle = 0.5 * (lower + upper)
    return {
        "constant": tf.where(upper < NO_UPPER_BOUND, middle, 10.0 * constant),
        "lower": lower,
        "upper": upper,
    }
