"""DeepFool: to the nearest boundary of the linearised classifier, repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from attacks.answers import has_nan, logits_of
from attacks.base import Inputs, per_image, refuse_given
from attacks.search import SearchAttack, State, choose_rows, spoil
from data.checks import check_in_range, check_one_of, check_positive_integer

BACKENDS = ("compiled", "foolbox")
# Foolbox's constants: a little beyond the boundary, and no division by zero.
_BEYOND = 1e-4
_TINY = 1e-8
# By what factor a gradient's norm may have grown since it was last taken. On
# target C and MNIST 99 of 100 grow by less than 1.42 in the second step, and
# by less than 1.1 in each later one.
_GROWTH = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepFool(SearchAttack):
    """Small L2 perturbations, untargeted.

    Moosavi-Dezfooli et al. 2016, Algorithm 2 (L2): the logits are taken to be
    linear, the image is moved to the nearest boundary between its label and
    another class, and so again until the class changes.

    Where the paper is silent this is Foolbox's `L2DeepFoolAttack`, which
    `backend="foolbox"` runs itself, as a reference: the candidates are chosen
    once, at the clean image; each move is 1e-4 longer than the distance; and
    the image that is looked at in each step is the clean one with the sum of
    the moves times 1 + overshoot, clipped to [0, 1], where Algorithm 2
    overshoots once, at the end, and does not clip.

    Deviations from Foolbox:

    - After the first step, which takes a gradient for each candidate but the
      label, only candidates that may be nearest get one: those with the least
      |lead| / norm of the gradient, by the norm last taken, until no other
      could be nearer unless its gradient has grown by more than half since.
      Foolbox takes all of them, and a forward pass for each.
    - An image that is not fooled comes back clean.
    - One that a step does not move is given up at once.

    Attributes:
        steps: Moves at most.
        overshoot: How far beyond the boundary, relative to the distance.
        candidates: Classes that are looked at: the label and those with the
            highest logits; all, where there are fewer.
        backend: `compiled`, or `foolbox`, for comparison. Foolbox goes on
            until a whole batch is fooled, and each image is counted the
            gradients that its batch took.
    """

    name: ClassVar[str] = "deepfool"
    distance: ClassVar[str] = "l2"
    is_minimal_norm: ClassVar[bool] = True
    # Images are done after a few, at different times.
    steps_per_round: ClassVar[int] = 2

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10
    backend: str = "compiled"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_integer(self.steps, "steps")
        check_in_range(self.overshoot, 0.0, np.inf, "overshoot")
        check_positive_integer(self.candidates, "candidates")
        if self.candidates < 2:
            raise ValueError(
                "candidates must be at least 2, the label and another class, "
                f"got {self.candidates}"
            )
        check_one_of(self.backend, BACKENDS, "backend")

    def _check(
        self, classifier, images, labels, targets, starts, indices
    ) -> Inputs:
        refuse_given(
            "DeepFool is untargeted and begins at the images",
            targets=targets,
            starts=starts,
        )
        if classifier.num_classes < 2:
            raise ValueError(
                "deepfool needs a classifier of at least 2 classes, got "
                f"{classifier.num_classes}"
            )
        return super()._check(
            classifier, images, labels, targets, starts, indices
        )

    def _craft(
        self, classifier: Any, inputs: Inputs, progress: Callable[[int], None]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if self.backend == "compiled":
            return super()._craft(classifier, inputs, progress)
        # Here, since Foolbox takes long to import and few need it.
        from attacks import foolbox_deepfool

        return foolbox_deepfool.craft(self, classifier, inputs, progress)

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        """Makes the first step, which looks at all candidates.

        Besides the fixed names a state has:

        - `perturbation`, float32 `[B, H, W, C]`: the sum of the moves;
        - `step`, int64 `[B]`: their number;
        - `candidates`, int32 `[B, N]`: the classes but the label;
        - `norms`, float32 `[B, N]`: their gradients' when last taken;
        - `is_open`, bool `[B, N]`: not looked at in this step so far;
        - `nearest`, float32 `[B]`, and `direction`, float32 `[B, H, W, C]`:
          the distance of the nearest boundary of the others, and the way.
        """
        images, labels = inputs.images, inputs.labels
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(images)
            logits = logits_of(classifier, images)
            candidates = self._candidates(logits, labels)
            leads = _leads(logits, labels, candidates)
        gradients = _gradients_of_each(tape, leads, images)
        norms = _norms(gradients)
        distances = tf.abs(leads) / norms
        first = tf.argmin(distances, axis=-1)
        nearest, norm, gradient = (
            tf.gather(of_all, first, batch_dims=1)
            for of_all in (distances, norms, gradients)
        )
        is_wrong = _is_fooled(logits, labels)
        is_broken = _is_broken(logits, gradients, is_wrong)
        return {
            "adversarial": spoil(is_broken, images),
            "perturbation": _move(nearest, gradient / per_image(norm)),
            "step": tf.ones_like(labels),
            "candidates": candidates,
            "norms": norms,
            "is_open": tf.ones_like(leads, tf.bool),
            "nearest": tf.fill(tf.shape(labels), np.float32(np.inf)),
            "direction": tf.zeros_like(images),
            "evaluations": leads.shape[1] * tf.cast(~is_wrong, tf.int64),
            "done": is_wrong | is_broken,
        }

    def advance(self, classifier: Any, inputs: Inputs, state: State) -> State:
        """Looks at one more candidate, and moves the image if that is all.

        So every image costs the same here, wherever it is in its search.
        """
        labels = inputs.labels
        images = self._perturbed(inputs, state)
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = logits_of(classifier, images)
            leads = _leads(logits, labels, state["candidates"])
            chosen = tf.argmin(_lower_bounds(leads, state), axis=-1)
            lead = tf.gather(leads, chosen, batch_dims=1)
        gradient = tape.gradient(
            lead, images, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        is_fooled = _is_fooled(logits, labels)
        is_over = is_fooled | (state["step"] == self.steps)
        is_broken = _is_broken(logits, gradient[:, tf.newaxis], is_over)
        adversarial = choose_rows(is_fooled, images, state["adversarial"])
        moved, is_stuck = _moved(
            _looked_at(state, chosen, lead, gradient), leads
        )
        return {
            **moved,
            "adversarial": spoil(is_broken, adversarial),
            "evaluations": state["evaluations"] + tf.cast(~is_over, tf.int64),
            "done": is_over | is_broken | is_stuck,
        }

    def _candidates(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """int32 `[B, N]`: the classes with the highest logits, no label."""
        classes = logits.shape[-1]
        is_label = tf.one_hot(labels, classes, on_value=True, off_value=False)
        others = tf.where(is_label, np.float32(-np.inf), logits)
        return tf.math.top_k(others, min(self.candidates, classes) - 1).indices

    def _perturbed(self, inputs: Inputs, state: State) -> tf.Tensor:
        change = (1.0 + self.overshoot) * state["perturbation"]
        return tf.clip_by_value(inputs.images + change, 0.0, 1.0)


def _leads(
    logits: tf.Tensor, labels: tf.Tensor, candidates: tf.Tensor
) -> tf.Tensor:
    """float32 `[B, N]`: the candidates' logits less the label's."""
    own = tf.gather(logits, labels, batch_dims=1)
    return tf.gather(logits, candidates, batch_dims=1) - own[:, tf.newaxis]


def _gradients_of_each(
    tape: tf.GradientTape, values: tf.Tensor, images: tf.Tensor
) -> tf.Tensor:
    """float32 `[B, N, H, W, C]`: the gradients of values `[B, N]`.

    In a loop: with nine values, unrolled it takes as long on two cores, in one
    vectorised pass (pfor) a little longer, and with a forward pass of each
    image's nine copies half as long again.
    """
    count = values.shape[1]

    def gradient(number: tf.Tensor) -> tf.Tensor:
        chosen = tf.ones_like(values) * tf.one_hot(number, count)
        return tape.gradient(
            values,
            images,
            output_gradients=chosen,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    gradients = tf.map_fn(
        gradient,
        tf.range(count),
        fn_output_signature=tf.TensorSpec(images.shape, tf.float32),
    )
    return tf.transpose(gradients, [1, 0, 2, 3, 4])


def _lower_bounds(leads: tf.Tensor, state: State) -> tf.Tensor:
    """float32 `[B, N]`: how near the boundaries may be; infinity if known."""
    bounds = tf.abs(leads) / (_GROWTH * state["norms"])
    return tf.where(state["is_open"], bounds, np.float32(np.inf))


def _looked_at(
    state: State, chosen: tf.Tensor, lead: tf.Tensor, gradient: tf.Tensor
) -> State:
    """The state that knows one more candidate's distance."""
    norm = _norms(gradient[:, tf.newaxis])[:, 0]
    distance = tf.abs(lead) / norm
    is_chosen = tf.one_hot(
        chosen, state["norms"].shape[1], on_value=True, off_value=False
    )
    return {
        **state,
        "norms": tf.where(is_chosen, norm[:, tf.newaxis], state["norms"]),
        "is_open": state["is_open"] & ~is_chosen,
        "nearest": tf.minimum(distance, state["nearest"]),
        "direction": choose_rows(
            distance < state["nearest"],
            gradient / per_image(norm),
            state["direction"],
        ),
    }


def _moved(state: State, leads: tf.Tensor) -> tuple[State, tf.Tensor]:
    """Moves the images whose nearest boundary is known.

    Returns:
        The new state, and bool `[B]`: whether the move was none, so that the
        next step would be the same.
    """
    nearest, old = state["nearest"], state["perturbation"]
    bounds = _lower_bounds(leads, state)
    is_known = tf.reduce_all(bounds >= nearest[:, tf.newaxis], axis=-1)
    move = _move(nearest, state["direction"])
    perturbation = choose_rows(is_known, old + move, old)
    is_stuck = is_known & tf.reduce_all(perturbation == old, axis=[1, 2, 3])
    moved = {
        **state,
        "perturbation": perturbation,
        "step": state["step"] + tf.cast(is_known, tf.int64),
        "is_open": state["is_open"] | is_known[:, tf.newaxis],
        "nearest": tf.where(is_known, np.float32(np.inf), nearest),
    }
    return moved, is_stuck


def _move(distance: tf.Tensor, direction: tf.Tensor) -> tf.Tensor:
    return per_image(distance + _BEYOND) * direction


def _norms(gradients: tf.Tensor) -> tf.Tensor:
    """float32 `[B, N]`, of `[B, N, H, W, C]`; above zero."""
    return tf.sqrt(tf.reduce_sum(gradients**2, axis=[2, 3, 4])) + _TINY


def _is_fooled(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.argmax(logits, axis=-1) != labels


def _is_broken(
    logits: tf.Tensor, gradients: tf.Tensor, is_over: tf.Tensor
) -> tf.Tensor:
    """Not finite; gradients of images that are over are not wanted."""
    is_finite = tf.reduce_all(tf.math.is_finite(gradients), axis=[1, 2, 3, 4])
    return has_nan(logits) | ~(is_finite | is_over)
