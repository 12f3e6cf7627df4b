"""The box-constrained L-BFGS attack."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from attacks.base import NO_TARGET, Inputs, default_batch_size
from attacks.box_lbfgs import choose, direction, dot, is_enough, shorter
from attacks.margin import exceeds_rounding, margin
from attacks.search import State
from attacks.targets import TargetedAttack
from data.checks import check_in_range, check_positive_integer

_STATE_BYTES = 2**27  # Of a batch, by default; working memory is a few times.
_TOLERANCE = np.float32(1e-5)
_SMALLEST_SIZE = np.float32(1e-4)
_CLOSE = np.float32(1.02)
_LEAST_CONSTANT, _LARGEST_CONSTANT = np.float32(1e-20), np.float32(1e20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LBFGS(TargetedAttack):
    """The nearest image at which a weighted loss is least.

    Szegedy et al. 2013, "Intriguing properties of neural networks", Sec. 4.1;
    Eq. 1 of the APE-GAN paper. For a constant c > 0 a box-constrained L-BFGS
    minimises, over images x' in [0, 1],

        ||x' - x||_2^2 + c * J(x', target), J the cross-entropy.

    That is Eq. 1 divided by its lambda = 1 / c, which weighs the distance
    there, as the constant of Szegedy et al. does. The larger c, the further
    the minimiser goes, so the search is for the smallest c, the largest
    lambda, whose minimiser is adversarial. It begins at `initial_constant`,
    goes up by tens until a minimiser is adversarial, or down by tens until
    one is not, and then halves the bracket on a logarithmic scale until
    `search_steps` minimisations are spent or the bracket's ends are within
    2 % of each other.

    Untargeted, J is -log(1 - p_label), the cross-entropy of all other classes
    together; minus the label's cross-entropy would have no gradient where the
    classifier is sure. It mostly leads to the runner-up, which need not be
    the nearest class.

    Deviations:
    - Szegedy et al. write |r| where Eq. 1 has the squared norm, which is
      taken here, and "the minimum c" for what is their largest. Both leave
      the line search open.
    - Each minimisation begins where the last one ended, with its memory, as
      the minimisers of two constants are close; the first at the image.
    - Of all adversarial images that were evaluated the nearest is returned;
      it may have come on the way to a minimiser.
    - An image counts as adversarial if its logit leads by more than rounding,
      which is 1e-5 of the largest logit.
    - A minimisation also ends when a step gains less than 1e-5 of the
      objective, which float32 hardly tells from nothing.

    Attributes:
        iterations: The most steps of one minimisation.
        search_steps: The most minimisations, one for each c.
        initial_constant: The first c, in [1e-10, 1e10].
        memory: How many steps the approximation of the Hessian is made of.
    """

    name = "lbfgs"
    distance = "l2"
    is_minimal_norm = True

    iterations: int = 150
    search_steps: int = 10
    initial_constant: float = 0.01
    memory: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_integer(self.iterations, "iterations")
        check_positive_integer(self.search_steps, "search_steps")
        check_in_range(self.initial_constant, 1e-10, 1e10, "initial_constant")
        check_positive_integer(self.memory, "memory")

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        points = _flat(inputs.starts)
        at_start = _evaluate(classifier, inputs, points)
        logits = classifier(inputs.images)
        is_over = _is_wanted(logits, inputs.labels, inputs.targets)
        zeros = tf.zeros_like(at_start.loss)
        memory = tf.zeros([tf.shape(points)[0], self.memory, points.shape[1]])
        integers = tf.zeros_like(inputs.labels)
        state = {
            "adversarial": inputs.images,
            "distance": zeros + np.inf,
            "evaluations": integers + tf.cast(~is_over, tf.int64),
            "done": is_over,
            "constant": zeros + self.initial_constant,
            "lower": zeros,
            "upper": zeros + np.inf,
            "searches": integers,
            "iterations": integers,
            "points": points,
            "loss": at_start.loss,
            "loss_gradient": at_start.gradient,
            "is_adversarial": at_start.is_adversarial,
            "step_size": zeros + 1.0,
            "steps": memory,
            "changes": memory,
        }
        kept = _keep_smallest(inputs, state, points, at_start)
        return {
            name: choose(is_over, state[name], kept[name]) for name in state
        }

    def advance(self, classifier: Any, inputs: Inputs, state: State) -> State:
        trial = _trial(inputs, state)
        at_trial = _evaluate(classifier, inputs, trial)
        state = _keep_smallest(inputs, state, trial, at_trial)
        state, is_converged = _step(inputs, state, trial, at_trial)
        is_converged |= state["iterations"] >= self.iterations
        state = _next_constant(state, is_converged)
        is_spent = state["searches"] >= self.search_steps
        is_close = state["upper"] <= _CLOSE * state["lower"]
        return {
            **state,
            "evaluations": state["evaluations"] + 1,
            "done": state["done"] | is_spent | is_close,
        }

    def _room(self, image_shape: Sequence[int]) -> int:
        # A state is as large as its memory of steps and changes.
        state_bytes = 4 * math.prod(image_shape) * (2 * self.memory + 6)
        default = default_batch_size(image_shape)
        fitting = max(1, _STATE_BYTES // state_bytes)
        return self.batch_size or min(default, fitting)


class _Evaluation(NamedTuple):
    """Of images `[B, D]`: the loss `[B]`, its gradient, and two flags `[B]`."""

    loss: tf.Tensor
    gradient: tf.Tensor
    is_adversarial: tf.Tensor
    is_finite: tf.Tensor


def _evaluate(
    classifier: Any, inputs: Inputs, points: tf.Tensor
) -> _Evaluation:
    with tf.GradientTape() as tape:
        tape.watch(points)
        logits = classifier(_images(inputs, points))
        loss = _loss(logits, inputs.labels, inputs.targets)
    gradient = tape.gradient(
        loss, points, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    finite = tf.math.is_finite(tf.concat([logits, gradient], axis=-1))
    lead = margin(logits, inputs.labels, inputs.targets)
    return _Evaluation(
        loss,
        gradient,
        exceeds_rounding(lead, logits),
        tf.reduce_all(finite, axis=-1),
    )


def _wanted(
    logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    """bool `[B, K]`: the target, or all classes but the label."""
    is_targeted = targets != NO_TARGET
    chosen = tf.where(is_targeted, targets, labels)
    mask = tf.one_hot(chosen, logits.shape[-1], on_value=True, off_value=False)
    return mask == is_targeted[:, tf.newaxis]


def _is_wanted(
    logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    wanted = _wanted(logits, labels, targets)
    return tf.gather(wanted, tf.argmax(logits, axis=-1), batch_dims=1)


def _loss(
    logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    """Minus the logarithm of the wanted classes' probability, `[B]`.

    Written with a softplus it loses no digits where that is nearly 1.
    """
    wanted = _wanted(logits, labels, targets)
    nothing = np.float32(-np.inf)
    return tf.nn.softplus(
        tf.reduce_logsumexp(tf.where(wanted, nothing, logits), axis=-1)
        - tf.reduce_logsumexp(tf.where(wanted, logits, nothing), axis=-1)
    )


def _objective(
    inputs: Inputs,
    constant: tf.Tensor,
    points: tf.Tensor,
    loss: tf.Tensor,
    loss_gradient: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """What is minimised, `[B]`, and its gradient."""
    change = points - _flat(inputs.images)
    values = dot(change, change) + constant * loss
    return values, 2.0 * change + constant[:, tf.newaxis] * loss_gradient


def _here(inputs: Inputs, state: State) -> tuple[tf.Tensor, tf.Tensor]:
    return _objective(
        inputs,
        state["constant"],
        state["points"],
        state["loss"],
        state["loss_gradient"],
    )


def _trial(inputs: Inputs, state: State) -> tf.Tensor:
    """The next points to evaluate, float32 `[B, D]`."""
    points, steps = state["points"], state["steps"]
    _, gradient = _here(inputs, state)
    # Only the loss's share of a change depends on the constant, so the memory
    # outlives the constant.
    constant = state["constant"][:, tf.newaxis, tf.newaxis]
    changes = 2.0 * steps + constant * state["changes"]
    along = direction(points, gradient, steps, changes)
    moved = points + state["step_size"][:, tf.newaxis] * along
    return tf.clip_by_value(moved, 0.0, 1.0)


def _keep_smallest(
    inputs: Inputs, state: State, points: tf.Tensor, found: _Evaluation
) -> State:
    change = points - _flat(inputs.images)
    distance = dot(change, change)
    is_better = found.is_adversarial & (distance < state["distance"])
    images = _images(inputs, points)
    adversarial = choose(is_better, images, state["adversarial"])
    return {
        **state,
        "adversarial": choose(found.is_finite, adversarial, np.nan * images),
        "distance": tf.where(is_better, distance, state["distance"]),
        "done": state["done"] | ~found.is_finite,
    }


def _step(
    inputs: Inputs, state: State, trial: tf.Tensor, found: _Evaluation
) -> tuple[State, tf.Tensor]:
    """Goes to the trial points or shortens the step; bool `[B]`: at the end."""
    values, gradient = _here(inputs, state)
    trial_values, _ = _objective(
        inputs, state["constant"], trial, found.loss, found.gradient
    )
    step = trial - state["points"]
    slopes = dot(gradient, step)
    is_taken = is_enough(values, trial_values, slopes)
    size = shorter(state["step_size"], values, trial_values, slopes)
    is_flat = values - trial_values <= _TOLERANCE * tf.abs(values)
    moved = {
        "points": trial,
        "loss": found.loss,
        "loss_gradient": found.gradient,
        "is_adversarial": found.is_adversarial,
        "iterations": state["iterations"] + 1,
        "steps": _push(state["steps"], step),
        "changes": _push(
            state["changes"], found.gradient - state["loss_gradient"]
        ),
    }
    state = {
        **state,
        **{name: choose(is_taken, moved[name], state[name]) for name in moved},
        "step_size": tf.where(is_taken, 1.0, size),
    }
    return state, tf.where(is_taken, is_flat, size < _SMALLEST_SIZE)


def _push(memory: tf.Tensor, latest: tf.Tensor) -> tf.Tensor:
    return tf.concat([memory[:, 1:], latest[:, tf.newaxis]], axis=1)


def _next_constant(state: State, is_converged: tf.Tensor) -> State:
    """Narrows the bracket of images that are at a minimum, and goes on."""
    constant = state["constant"]
    is_upper = is_converged & state["is_adversarial"]
    is_lower = is_converged & ~state["is_adversarial"]
    upper = tf.where(is_upper, constant, state["upper"])
    lower = tf.where(is_lower, constant, state["lower"])
    following = tf.where(
        tf.math.is_inf(upper),
        10.0 * constant,
        tf.where(lower == 0.0, 0.1 * constant, tf.sqrt(lower) * tf.sqrt(upper)),
    )
    following = tf.clip_by_value(following, _LEAST_CONSTANT, _LARGEST_CONSTANT)
    return {
        **state,
        "constant": tf.where(is_converged, following, constant),
        "upper": upper,
        "lower": lower,
        "searches": state["searches"] + tf.cast(is_converged, tf.int64),
        "iterations": state["iterations"] * tf.cast(~is_converged, tf.int64),
        "step_size": tf.where(is_converged, 1.0, state["step_size"]),
    }


def _flat(images: tf.Tensor) -> tf.Tensor:
    return tf.reshape(images, [-1, math.prod(images.shape[1:])])


def _images(inputs: Inputs, points: tf.Tensor) -> tf.Tensor:
    # The shape is static but for the batch, as some classifiers need it.
    return tf.reshape(points, [-1, *inputs.images.shape[1:]])
