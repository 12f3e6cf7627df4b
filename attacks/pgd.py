"""Projected gradient descent: many steps in a ball, from random starts."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from attacks.base import NO_TARGET, Inputs, clip_to_ball, per_image
from attacks.search import SearchAttack, State, choose_rows, spoil
from data.checks import check_in_range, check_one_of, check_positive_integer
from data.randomness import per_image_normal, per_image_uniform

NORMS = ("linf", "l2")
_RESTART_STRIDE = 2**40  # More than there are images in any data set.


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD(SearchAttack):
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
        epsilon: Radius of the ball, in units of [0, 1]; for Linf at most 1.
        alpha: Size of one step, likewise.
        steps: Steps, and so gradients, of one restart.
        restarts: Runs from different starts, at most.
        norm: `linf` or `l2`.
        random_start: Whether to begin at random; else at the image.
    """

    name: ClassVar[str] = "pgd"
    # Restarts end when a round does, at the default number of steps.
    steps_per_round: ClassVar[int] = 10

    epsilon: float = 0.3
    alpha: float = 0.01
    steps: int = 40
    restarts: int = 1
    norm: str = "linf"
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of(self.norm, NORMS, "norm")
        largest = 1.0 if self.norm == "linf" else np.inf
        check_in_range(self.epsilon, 0.0, largest, "epsilon")
        check_in_range(self.alpha, 0.0, largest, "alpha")
        check_positive_integer(self.steps, "steps")
        check_positive_integer(self.restarts, "restarts")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                "restarts must be 1 without random_start, since all would be "
                f"the same, got {self.restarts}"
            )
        object.__setattr__(self, "distance", self.norm)

    def epsilons(self, indices: tf.Tensor) -> tf.Tensor:
        """float32 `[B]`: the radius of each image's ball, in `norm`."""
        return tf.fill(tf.shape(indices), np.float32(self.epsilon))

    def constrain(
        self, adversarial: tf.Tensor, images: tf.Tensor, indices: tf.Tensor
    ) -> tf.Tensor:
        if self.norm == "linf":
            return super().constrain(adversarial, images, indices)
        inside = _project_l2(adversarial, images, self.epsilon)
        no_linf_ball = tf.fill(tf.shape(indices), np.float32(np.nan))
        return clip_to_ball(inside, images, no_linf_ball)

    def _check(
        self, classifier, images, labels, targets, starts, indices
    ) -> Inputs:
        inputs = super()._check(
            classifier, images, labels, targets, starts, indices
        )
        if starts is None and self.random_start:
            first = tf.zeros_like(inputs.indices)
            return inputs._replace(starts=self._random_starts(inputs, first))
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
            current + self._step(gradient), inputs.images, inputs.indices
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
        return _spoil(new, ~is_finite | _has_nan(logits))

    def _step(self, gradient: tf.Tensor) -> tf.Tensor:
        if self.norm == "linf":
            return self.alpha * tf.sign(gradient)
        # By the largest value first: the square of a small one would be zero.
        largest = tf.reduce_max(tf.abs(gradient), [1, 2, 3], keepdims=True)
        scaled = tf.math.divide_no_nan(gradient, largest)
        return self.alpha * tf.math.divide_no_nan(scaled, _l2(scaled))

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
        ended = _spoil(ended, _has_nan(logits))
        return {
            name: choose_rows(is_last, ended[name], old)
            for name, old in state.items()
        }

    def _next_starts(
        self, inputs: Inputs, state: State, restart: tf.Tensor
    ) -> tf.Tensor:
        if self.restarts == 1:
            return state["current"]
        return self._random_starts(inputs, restart)

    def _random_starts(self, inputs: Inputs, restart: tf.Tensor) -> tf.Tensor:
        """float32 `[B, H, W, C]`: uniform in the ball, clipped to [0, 1]."""
        draws = inputs.indices + restart * _RESTART_STRIDE
        shape = inputs.images.shape[1:]
        change = (_uniform_linf if self.norm == "linf" else _uniform_l2)(
            self.seed, draws, shape, self.epsilon
        )
        return self.constrain(
            inputs.images + change, inputs.images, inputs.indices
        )


def _uniform_linf(
    seed: int, draws: tf.Tensor, shape: tf.TensorShape, radius: float
) -> tf.Tensor:
    return per_image_uniform(
        seed, draws, low=-radius, high=radius, shape=shape, stream="pgd_start"
    )


def _uniform_l2(
    seed: int, draws: tf.Tensor, shape: tf.TensorShape, radius: float
) -> tf.Tensor:
    direction = per_image_normal(
        seed, draws, shape, 1.0, stream="pgd_direction"
    )
    # The share of the ball's volume that is nearer is uniform.
    share = per_image_uniform(seed, draws, stream="pgd_radius")
    distance = radius * share ** (1.0 / shape.num_elements())
    return per_image(distance) * direction / _l2(direction)


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
    is_fooled = _is_fooled(logits, inputs)
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


def _is_fooled(logits: tf.Tensor, inputs: Inputs) -> tf.Tensor:
    predicted = tf.argmax(logits, axis=-1)
    return tf.where(
        inputs.targets == NO_TARGET,
        predicted != inputs.labels,
        predicted == inputs.targets,
    )


def _has_nan(logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(tf.math.is_nan(logits), axis=-1)


def _spoil(state: State, is_broken: tf.Tensor) -> State:
    return {
        **state,
        "adversarial": spoil(is_broken, state["adversarial"]),
        "done": state["done"] | is_broken,
    }


def _project_l2(
    images: tf.Tensor, centres: tf.Tensor, radius: float
) -> tf.Tensor:
    """The nearest images in the L2 balls; those inside stay as they are."""
    change = images - centres
    norm = _l2(change)
    # Adding the shortened change rounds each value by up to 2**-25, and the
    # norm is rounded itself. The ball's promise must hold all the same.
    rounding = 1e-6 * radius + 2.0**-25 * images.shape[1:].num_elements() ** 0.5
    aim = max(radius - rounding, 0.0)
    inside = centres + change * tf.math.divide_no_nan(aim, norm)
    return choose_rows(norm[:, 0, 0, 0] > radius, inside, images)


def _l2(images: tf.Tensor) -> tf.Tensor:
    """float32 `[B, 1, 1, 1]`: the Euclidean norm of each image."""
    return tf.sqrt(tf.reduce_sum(images**2, [1, 2, 3], keepdims=True))
