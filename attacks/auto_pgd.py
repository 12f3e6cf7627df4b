"""Auto-PGD: projected gradient steps that choose their own length."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from attacks.answers import has_nan, logits_of
from attacks.balls import BallAttack, steepest
from attacks.base import Inputs, per_image, refuse_given
from attacks.margin import exceeds_rounding, margin
from attacks.search import SearchAttack, State, choose_rows, spoil
from data.checks import check_positive_integer

_MOMENTUM = 0.25  # The weight of the last move; 1 - alpha in the paper.
_LEAST_SHARE = 0.75  # Of a window's steps, that must climb; rho in the paper.
# As shares of all steps: the first window, by how much each is shorter than
# the one before, and the shortest.
_FIRST_WINDOW, _SHORTENING, _SHORTEST_WINDOW = 0.22, 0.03, 0.06


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoPGD(BallAttack, SearchAttack):
    """Base of the attacks by APGD, untargeted, that differ in their loss.

    Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an
    ensemble of diverse parameter-free attacks", Sec. 3, Algorithm 1, with
    the values of their published code (`autopgd_base.py` of their AutoAttack):
    from a random point of length epsilon, steps up the loss, at first 2 epsilon
    long, with a momentum of 0.25. At checkpoints the step is halved, and the
    search goes back to the best point, if at most 75 % of the steps since the
    last one climbed, or if there was nothing better since and the step was not
    halved there. The first window has 22 % of the steps, each other 3 % less
    than the one before, at least 6 %. A gradient of zero is no step.

    Random starts depend on (seed, index, number of the run) alone. Given
    `starts`, moved into the ball, take the place of the first run's. An image
    that is wrong already comes back as it is.

    Where the paper and its code differ this is the code: window lengths are
    rounded down, "at most" 75 % is not "less than", and there is no going back
    at the first checkpoint for want of something better.

    Deviations from the code:

    - An image is done in the step in which it is fooled, and not by a lead
      that rounding can make.
    - One that is not fooled comes back as the iterate of the highest loss,
      where the code gives back the clean one.
    - In the first window the first iterate's loss is compared with the
      start's, as in the paper; the code compares it with zero.
    - A faint gradient has a direction in L2 all the same; the code adds 1e-12
      to its norm.

    Attributes:
        steps: Steps of one run, which takes one gradient more.
        restarts: Runs from different starts, at most.
    """

    # Images fall after few steps or many.
    steps_per_round: ClassVar[int] = 5

    steps: int = 100
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_integer(self.steps, "steps")
        check_positive_integer(self.restarts, "restarts")

    @abc.abstractmethod
    def _loss(
        self, logits: tf.Tensor, labels: tf.Tensor, state: State
    ) -> tf.Tensor:
        """float32 `[B]`, to climb."""

    def _runs(self, state: State) -> int:
        """How many runs an image has at most."""
        return self.restarts

    def _choices(self, logits: tf.Tensor, labels: tf.Tensor) -> State:
        """What the loss needs to know of the clean images, as rows."""
        return {}

    def _check(
        self, classifier, images, labels, targets, starts, indices
    ) -> Inputs:
        refuse_given(f"{self.name} is untargeted", targets=targets)
        inputs = super()._check(
            classifier, images, labels, targets, starts, indices
        )
        if starts is not None:
            return inputs
        first = tf.zeros_like(inputs.indices)
        return inputs._replace(starts=self.random_on_surface(inputs, first))

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        """Looks at the clean images; nothing is known of the starts yet.

        Besides the fixed names a state has those of `_choices`, and:

        - `loss`, float32 `[B]`: that of `adversarial`, the best of all runs;
        - `run`, int64 `[B]`: those before this one;
        - those of a run, see `_begun`.
        """
        logits = logits_of(classifier, inputs.images)
        is_broken = has_nan(logits)
        start = self.constrain(inputs.starts, inputs.images, inputs.indices)
        zeros = tf.zeros_like(inputs.labels)
        return {
            "adversarial": spoil(is_broken, inputs.images),
            "loss": tf.fill(tf.shape(zeros), np.float32(-np.inf)),
            "run": zeros,
            "evaluations": zeros,
            "done": is_broken | (tf.argmax(logits, axis=-1) != inputs.labels),
            **self._choices(logits, inputs.labels),
            **self._begun(start, zeros),
        }

    def _begun(self, start: tf.Tensor, zeros: tf.Tensor) -> State:
        """The state of a run before its first step.

        - `current` and `previous`, float32 `[B, H, W, C]`: the last iterates;
        - `step`, int64 `[B]`: the steps to `current`;
        - `step_size`, float32 `[B]`;
        - `last_loss`, float32 `[B]`: of the iterate last looked at;
        - `best` and `best_gradient`, float32 `[B, H, W, C]`, and `best_loss`,
          float32 `[B]`: of the iterate of the highest loss;
        - `climbs`, int64 `[B]`: since the last checkpoint;
        - `checked_loss`, float32 `[B]`, and `was_halved`, bool `[B]`:
          `best_loss` and the decision at the last checkpoint;
        - `checkpoint` and `window`, int64 `[B]`: the step of the next
          checkpoint, and its distance from the last one.
        """
        shape = tf.shape(zeros)
        lowest = tf.fill(shape, np.float32(-np.inf))
        window = tf.fill(shape, tf.constant(self._share(_FIRST_WINDOW)))
        return {
            "current": start,
            "previous": start,
            "step": zeros,
            "step_size": tf.fill(shape, np.float32(2.0 * self.epsilon)),
            "last_loss": -lowest,  # So that the start is no climb.
            "best": start,
            "best_gradient": tf.zeros_like(start),
            "best_loss": lowest,
            "climbs": zeros,
            "checked_loss": lowest,
            "was_halved": tf.ones_like(zeros, tf.bool),
            "checkpoint": window,
            "window": window,
        }

    def _share(self, share: float) -> np.int64:
        """That share of the steps, at least one."""
        return np.int64(max(int(share * self.steps), 1))

    def advance(self, classifier: Any, inputs: Inputs, state: State) -> State:
        """Looks at the current iterates and moves on."""
        current, labels = state["current"], inputs.labels
        with tf.GradientTape() as tape:
            tape.watch(current)
            logits = logits_of(classifier, current)
            loss = self._loss(logits, labels, state)
        gradient = tape.gradient(
            loss, current, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        lead = margin(logits, labels, inputs.targets)
        is_fooled = exceeds_rounding(lead, logits)
        is_finite = tf.reduce_all(tf.math.is_finite(gradient), [1, 2, 3])
        is_broken = ~is_finite | has_nan(logits)
        seen = _seen(state, loss, gradient, is_fooled)
        moved = self._moved(inputs, *self._checked(seen, gradient))
        ends = state["step"] == self.steps
        is_over = is_fooled | (ends & (state["run"] + 1 == self._runs(state)))
        new = self._next_run(inputs, moved, ends & ~is_over)
        return {
            **new,
            "adversarial": spoil(is_broken, new["adversarial"]),
            "evaluations": state["evaluations"] + 1,
            "done": is_over | is_broken,
        }

    def _checked(
        self, state: State, gradient: tf.Tensor
    ) -> tuple[State, tf.Tensor]:
        """Halves steps where a checkpoint says so; the gradient to go by."""
        window, best_loss = state["window"], state["best_loss"]
        is_checkpoint = state["step"] == state["checkpoint"]
        least = _LEAST_SHARE * tf.cast(window, tf.float32)
        climbs_little = tf.cast(state["climbs"], tf.float32) <= least
        is_stuck = ~state["was_halved"] & (state["checked_loss"] >= best_loss)
        is_halved = is_checkpoint & (climbs_little | is_stuck)
        size = state["step_size"]
        next_window = tf.where(
            is_checkpoint,
            tf.maximum(
                window - self._share(_SHORTENING), self._share(_SHORTEST_WINDOW)
            ),
            window,
        )
        checked = {
            **state,
            "current": choose_rows(is_halved, state["best"], state["current"]),
            "step_size": tf.where(is_halved, size / 2.0, size),
            "climbs": tf.where(
                is_checkpoint, tf.zeros_like(window), state["climbs"]
            ),
            "checked_loss": tf.where(
                is_checkpoint, best_loss, state["checked_loss"]
            ),
            "was_halved": tf.where(
                is_checkpoint, is_halved, state["was_halved"]
            ),
            "checkpoint": tf.where(
                is_checkpoint,
                state["checkpoint"] + next_window,
                state["checkpoint"],
            ),
            "window": next_window,
        }
        return checked, choose_rows(is_halved, state["best_gradient"], gradient)

    def _moved(
        self, inputs: Inputs, state: State, gradient: tf.Tensor
    ) -> State:
        current = state["current"]
        momentum = tf.where(state["step"] == 0, 0.0, np.float32(_MOMENTUM))
        step = per_image(state["step_size"]) * steepest(gradient, self.norm)
        aim = self.constrain(current + step, inputs.images, inputs.indices)
        change = per_image(1.0 - momentum) * (aim - current)
        change += per_image(momentum) * (current - state["previous"])
        return {
            **state,
            "current": self.constrain(
                current + change, inputs.images, inputs.indices
            ),
            "previous": current,
            "step": state["step"] + 1,
        }

    def _next_run(
        self, inputs: Inputs, state: State, begins: tf.Tensor
    ) -> State:
        """Begins a run where one has ended that was not the last."""
        if self._runs(state) == 1:
            return state
        run = state["run"] + tf.cast(begins, tf.int64)

        def begin() -> State:
            start = self.random_on_surface(inputs, run)
            fresh = {**self._begun(start, tf.zeros_like(run)), "run": run}
            return {
                name: choose_rows(begins, fresh.get(name, old), old)
                for name, old in state.items()
            }

        return tf.cond(tf.reduce_any(begins), begin, lambda: state)


def _seen(
    state: State, loss: tf.Tensor, gradient: tf.Tensor, is_fooled: tf.Tensor
) -> State:
    """Remembers the current iterates where they are the best so far."""
    current = state["current"]
    is_best = loss > state["best_loss"]
    # Of all runs; and what fools is taken, whatever its loss.
    is_wanted = is_fooled | (loss > state["loss"])
    climbs = tf.cast(loss > state["last_loss"], tf.int64)
    return {
        **state,
        "adversarial": choose_rows(is_wanted, current, state["adversarial"]),
        "loss": tf.where(is_wanted, loss, state["loss"]),
        "last_loss": loss,
        "best": choose_rows(is_best, current, state["best"]),
        "best_gradient": choose_rows(is_best, gradient, state["best_gradient"]),
        "best_loss": tf.where(is_best, loss, state["best_loss"]),
        "climbs": state["climbs"] + climbs,
    }
