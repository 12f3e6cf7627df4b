"""Projected gradient descent: many steps in a ball, from random starts."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from attacks.answers import fooled, has_nan
from attacks.balls import BallAttack, steepest
from attacks.base import NO_TARGET, Inputs
from attacks.search import SearchAttack, State, choose_rows, spoil
from data.checks import check_in_range, check_positive_integer


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD(BallAttack, SearchAttack):
    """Steps up the cross-entropy, projected onto a ball around the image.

    Madry et al. 2018, Sec. 2.1, with the values of their MNIST model (Sec. 5;
    the released code's config): epsilon 0.3, alpha 0.01, 40 steps, a start
    uniform in the ball. A step is alpha along the gradient's sign (Linf), or
    along the gradient divided by its L2 norm (L2); then the image is projected
    onto the ball and clipped to [0, 1]. A gradient of zero is no step. With
    targets, the steps go down the target's cross-entropy.

    Random starts depend on (seed, index, number of the restart) alone. Given
    `starts` take the place of the first ones.

    Deviations: a restart in which an iterate fools the classifier is the
    image's last, where Madry et al. run all of them and take the worst case;
    and not the last iterate comes back, but the one of the highest loss (of
    the target's lowest), among those that fool the classifier if any does.

    Attributes:
        alpha: Size of one step, in units of [0, 1]; for Linf at most 1.
        steps: Steps, and so gradients, of one restart.
        restarts: Runs from different starts, at most.
        random_start: Whether to begin at random; else at the image.
    """

    name: ClassVar[str] = "pgd"
    # Restarts end when a round does, at the default number of steps.
    steps_per_round: ClassVar[int] = 10

    alpha: float = 0.01
    steps: int = 40
    restarts: int = 1
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_in_range(self.alpha, 0.0, self.largest_length, "alpha")
        check_positive_integer(self.steps, "steps")
        check_positive_integer(self.restarts, "restarts")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                "restarts must be 1 without random_start, since all would be "
                f"the same, got {self.restarts}"
            )

    def _check(
        self, classifier, images, labels, targets, starts, indices
    ) -> Inputs:
        inputs = super()._check(
            classifier, images, labels, targets, starts, indices
        )
        if starts is None and self.random_start:
            first = tf.zeros_like(inputs.indices)
            return inputs._replace(starts=self.random_inside(inputs, first))
        return inputs

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        """Nothing is known of the starts yet.

        Besides the fixed names a state has:

        - `current`, float32 `[B, H, W, C]`: the iterate;
        - `step` and `restart`, int64 `[B]`: those before this one;
        - `gain`, float32 `[B]`, and `is_fooled`, bool `[B]`: the loss to
          climb, and the success, of `adversarial`, the best iterate so far.
        """
        start = self.constrain(inputs.starts, inputs.images, inputs.indices)
        zeros = tf.zeros_like(inputs.labels)
        return {
            "adversarial": start,
            "gain": tf.fill(tf.shape(zeros), np.float32(-np.inf)),
            "is_fooled": tf.zeros_like(zeros, tf.bool),
            "current": start,
            "step": zeros,
            "restart": zeros,
            "evaluations": zeros,
            "done": tf.zeros_like(zeros, tf.bool),
        }

    def advance(self, classifier: Any, inputs: Inputs, state: State) -> State:
        current = state["current"]
        with tf.GradientTape() as tape:
            tape.watch(current)
            logits = classifier(current)
            gain = _gain(logits, inputs)
        gradient = tape.gradient(
            gain, current, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        moved = self.constrain(
            current + self.alpha * steepest(gradient, self.norm),
            inputs.images,
            inputs.indices,
        )
        new = {
            **_keep_better(inputs, state, logits, gain),
            "current": moved,
            "step": state["step"] + 1,
            "evaluations": state["evaluations"] + 1,
        }
        is_last = new["step"] == self.steps
        new = tf.cond(
            tf.reduce_any(is_last),
            lambda: self._end_restart(classifier, inputs, new, is_last),
            lambda: new,
        )
        is_finite = tf.reduce_all(tf.math.is_finite(gradient), [1, 2, 3])
        return _spoil(new, ~is_finite | has_nan(logits))

    def _end_restart(
        self,
        classifier: Any,
        inputs: Inputs,
        state: State,
        is_last: tf.Tensor,
    ) -> State:
        """Judges the last iterates, and begins again where none has fooled."""
        logits = classifier(state["current"])
        judged = _keep_better(inputs, state, logits, _gain(logits, inputs))
        restart = state["restart"] + 1
        is_over = judged["is_fooled"] | (restart == self.restarts)
        ended = {
            **judged,
            "current": self._next_starts(inputs, state, restart),
            "step": tf.zeros_like(restart),
            "restart": restart,
            "done": is_over,
        }
        ended = _spoil(ended, has_nan(logits))
        return {
            name: choose_rows(is_last, ended[name], old)
            for name, old in state.items()
        }

    def _next_starts(
        self, inputs: Inputs, state: State, restart: tf.Tensor
    ) -> tf.Tensor:
        if self.restarts == 1:
            return state["current"]
        return self.random_inside(inputs, restart)


def _gain(logits: tf.Tensor, inputs: Inputs) -> tf.Tensor:
    """float32 `[B]`, to climb: the label's loss, or less the target's."""
    is_targeted = inputs.targets != NO_TARGET
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.where(is_targeted, inputs.targets, inputs.labels), logits
    )
    return tf.where(is_targeted, -loss, loss)


def _keep_better(
    inputs: Inputs, state: State, logits: tf.Tensor, gain: tf.Tensor
) -> State:
    """Remembers the current iterate where it is the best so far."""
    is_fooled = fooled(logits, inputs.labels, inputs.targets)
    is_better = tf.where(
        is_fooled == state["is_fooled"], gain > state["gain"], is_fooled
    )
    return {
        **state,
        "adversarial": choose_rows(
            is_better, state["current"], state["adversarial"]
        ),
        "gain": tf.where(is_better, gain, state["gain"]),
        "is_fooled": is_fooled | state["is_fooled"],
    }


def _spoil(state: State, is_broken: tf.Tensor) -> State:
    return {
        **state,
        "adversarial": spoil(is_broken, state["adversarial"]),
        "done": state["done"] | is_broken,
    }
