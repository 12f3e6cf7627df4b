"""What the three attacks of Carlini and Wagner share.

Carlini and Wagner 2017 (arXiv 1608.04644) minimise a distance plus a constant
times f_6, which is 0 where the attack has won (Sec. V-A), over a variable w
with x = (tanh(w) + 1) / 2, which no step can take out of the box (Sec. V-B).
Constants and the order of events are those of their published code,
nn_robust_attacks, whose images in [-0.5, 0.5] are as wide as ours.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from attacks.base import Inputs, per_image
from attacks.margin import exceeds_rounding, margin
from attacks.search import State, choose_rows, spoil
from attacks.targets import TargetedAttack
from data.checks import check_in_range, check_positive_integer

ABOVE_ZERO = float(np.finfo(np.float32).tiny)
SHRINK = 0.999999  # So that black and white have a finite arctanh.
FARTHEST = math.atanh(SHRINK)


CHECKS_AS_PUBLISHED = 10
ENOUGH_STEPS = 25  # Between two checks, that Adam's ups and downs even out.
ENOUGH_PROGRESS = 0.9999

_DECAY_1, _DECAY_2, _ADAM_EPSILON = 0.9, 0.999, 1e-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class CarliniWagner(TargetedAttack):
    """Base of CW-L2, CW-Linf and CW-L0.

    Attributes:
        kappa: The lead, in logits, that an adversarial image must have.
        max_iterations: Adam's steps with one constant, at most.
        learning_rate: Adam's.
        initial_const: The first constant to multiply f_6 with.
        checks_per_run: How often `abort_early` looks at the loss during
            `max_iterations` steps, but for runs so short that fewer than 25
            steps would lie between two checks: there every 25 steps, or ten
            times if that is more often. The published code looks ten times.
    """

    is_minimal_norm = True

    kappa: float = 0.0
    max_iterations: int = 1000
    learning_rate: float = 0.01
    initial_const: float = 0.001
    checks_per_run: int = 40
    steps_per_round: ClassVar[int] = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        check_in_range(self.kappa, 0.0, math.inf, "kappa")
        check_positive_integer(self.max_iterations, "max_iterations")
        check_in_range(
            self.learning_rate, ABOVE_ZERO, math.inf, "learning_rate"
        )
        check_in_range(
            self.initial_const, ABOVE_ZERO, math.inf, "initial_const"
        )
        check_positive_integer(self.checks_per_run, "checks_per_run")

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        logits = classifier(inputs.images)
        lead = margin(logits, inputs.labels, inputs.targets) - self.kappa
        is_broken = ~_all_finite(logits)
        variable = to_tanh_space(inputs.starts)
        return {
            "adversarial": spoil(is_broken, inputs.images),
            "evaluations": tf.zeros_like(inputs.labels),
            "done": is_broken | (lead > 0.0),
            "constant": fill_like(lead, self.initial_const),
            "variable": variable,
            "first": tf.zeros_like(variable),
            "second": tf.zeros_like(variable),
            "updates": tf.zeros_like(inputs.labels),
        }

    def check_progress(
        self, step: tf.Tensor, loss: tf.Tensor, previous: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Whether a run is stuck, at those of its steps that are checked.

        Args:
            step: int64 `[B]`, steps of the run before this one.
            loss: float32 `[B]`, before this step.
            previous: float32 `[B]`, the loss at the last check, or infinity.

        Returns:
            bool `[B]`, true where the loss at a check has not fallen to
            0.9999 of the previous one, and float32 `[B]`, the new previous
            loss.
        """
        is_check = step % self._steps_between_checks() == 0
        is_stuck = is_check & (loss > ENOUGH_PROGRESS * previous)
        return is_stuck, tf.where(is_check, loss, previous)

    def _steps_between_checks(self) -> int:
        wanted = self.max_iterations // self.checks_per_run
        as_published = self.max_iterations // CHECKS_AS_PUBLISHED
        return max(1, wanted, min(ENOUGH_STEPS, as_published))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RisingConstant(CarliniWagner):
    """Base of CW-Linf and CW-L0, which solve ever harder problems in turn.

    A problem begins where the last one was solved and with the constant that
    solved it; the constant rises when its steps are used up.

    Deviation from the published code: its `abort_early` ends a problem when
    it is solved, as is always done here (its False compares a step with a
    constant, and never succeeds). Ours is that of CW-L2, on in CW-L0 alone.

    Attributes:
        largest_const: Constants from here on are not tried.
        const_factor: What the constant is multiplied with.
        reduce_const: Halve the constant when a problem is solved.
        abort_early: Raise the constant when, between two checks, the loss has
            not fallen to 0.9999 of what it was. Cheaper, but some
            problems then count as unsolved that patience would solve.
    """

    largest_const: float = 20.0
    const_factor: float = 2.0
    reduce_const: bool = False
    abort_early: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_in_range(
            self.largest_const, self.initial_const, math.inf, "largest_const"
        )
        check_in_range(self.const_factor, 1.01, math.inf, "const_factor")
        check_boolean(self.reduce_const, "reduce_const")
        check_boolean(self.abort_early, "abort_early")

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        state = super().begin(classifier, inputs)
        return {
            **state,
            "iteration": tf.zeros_like(inputs.labels),
            "previous": fill_like(state["constant"], np.inf),
        }

    def next_step(
        self,
        state: State,
        loss: tf.Tensor,
        gradient: tf.Tensor,
        is_solved: tf.Tensor,
    ) -> State:
        """Moves on: by Adam, or afresh from here where the problem is solved.

        As in the published code, a new constant keeps w and Adam's moments;
        only a new problem resets the moments.
        """
        moved = adam(state, gradient, self.learning_rate)
        # What a round trip through the image does to w: out of the flat ends.
        here = tf.clip_by_value(state["variable"], -FARTHEST, FARTHEST)
        fresh = {
            "variable": here,
            "first": tf.zeros_like(here),
            "second": tf.zeros_like(here),
            "updates": tf.zeros_like(state["updates"]),
        }
        iteration = tf.where(is_solved, np.int64(0), state["iteration"] + 1)
        is_used_up = iteration == self.max_iterations
        previous = state["previous"]
        if self.abort_early:
            is_stuck, previous = self.check_progress(
                state["iteration"], loss, previous
            )
            is_used_up |= is_stuck & ~is_solved
        is_new = is_solved | is_used_up
        constant = self._next_constant(state, is_solved, is_used_up)
        return {
            **state,
            **{x: choose_rows(is_solved, fresh[x], moved[x]) for x in fresh},
            "iteration": tf.where(is_used_up, np.int64(0), iteration),
            "previous": tf.where(is_new, np.float32(np.inf), previous),
            "constant": constant,
            "evaluations": state["evaluations"] + 1,
            "done": state["done"] | (constant >= self.largest_const),
        }

    def _next_constant(
        self, state: State, is_solved: tf.Tensor, is_used_up: tf.Tensor
    ) -> tf.Tensor:
        constant = state["constant"]
        raised = tf.where(is_used_up, constant * self.const_factor, constant)
        if self.reduce_const:
            return tf.where(is_solved, constant / 2.0, raised)
        return raised


class Attempt(NamedTuple):
    """What the classifier makes of images that are tried.

    Attributes:
        loss: float32 `[B]`, f_6: max(kappa + surplus - margin, 0).
        gradient: float32 `[B, H, W, C]`, of constant times f_6 by the image.
        is_success: bool `[B]`, whether the margin exceeds kappa.
        is_broken: bool `[B]`, whether logits or gradient are not finite.
    """

    loss: tf.Tensor
    gradient: tf.Tensor
    is_success: tf.Tensor
    is_broken: tf.Tensor


def attempt(
    classifier: Any,
    images: tf.Tensor,
    inputs: Inputs,
    constants: tf.Tensor,
    kappa: float,
    surplus: float = 0.0,
) -> Attempt:
    """One gradient evaluation of the classifier's part of the loss."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        logits = classifier(images)
        lead = margin(logits, inputs.labels, inputs.targets) - kappa
        loss = tf.nn.relu(surplus - lead)
    gradient = tape.gradient(
        loss,
        images,
        output_gradients=constants,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    # A sum is finite only if all that is summed is.
    is_finite = tf.math.is_finite(tf.reduce_sum(gradient, axis=[1, 2, 3]))
    return Attempt(
        loss,
        gradient,
        exceeds_rounding(lead, logits),
        ~(is_finite & _all_finite(logits)),
    )


def to_tanh_space(images: tf.Tensor) -> tf.Tensor:
    """The w of images in [0, 1], which it first shrinks by 1e-6."""
    return tf.atanh(SHRINK * (2.0 * images - 1.0))


def box(variable: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The images in [0, 1] of a w, and their derivatives by it."""
    tanh = tf.tanh(variable)
    return 0.5 * tanh + 0.5, 0.5 - 0.5 * tf.square(tanh)


def adam(state: State, gradient: tf.Tensor, learning_rate: float) -> State:
    """A step of Adam (Kingma and Ba 2015), each image at its own count.

    In the form of their Sec. 2's last paragraph, which adds epsilon before
    the correction of the bias, as the published code's optimizer does.
    """
    updates = state["updates"] + 1
    count = tf.cast(updates, tf.float32)
    first = _DECAY_1 * state["first"] + (1.0 - _DECAY_1) * gradient
    second = _DECAY_2 * state["second"] + (1.0 - _DECAY_2) * tf.square(gradient)
    rate = (
        learning_rate
        * tf.sqrt(_one_less_power(_DECAY_2, count))
        / _one_less_power(_DECAY_1, count)
    )
    step = per_image(rate) * first / (tf.sqrt(second) + _ADAM_EPSILON)
    return {
        "variable": state["variable"] - step,
        "first": first,
        "second": second,
        "updates": updates,
    }


def fill_like(tensor: tf.Tensor, value: float) -> tf.Tensor:
    """A float32 tensor of one value and another's shape."""
    return tf.fill(tf.shape(tensor), np.float32(value))


def check_boolean(value: bool, argument: str) -> bool:
    """Returns `value` if it is True or False.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{argument} must be True or False, got {value!r}")
    return value


def _one_less_power(base: float, exponent: tf.Tensor) -> tf.Tensor:
    """1 - base ** exponent, exact where the power is nearly 1."""
    return -tf.math.expm1(math.log(base) * exponent)


def _all_finite(logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(logits), axis=-1)
