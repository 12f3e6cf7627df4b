"""FAB-T: along a class's boundary, towards the image it started from."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from attacks.answers import has_nan, logits_of
from attacks.balls import NORMS, RUN_STRIDE
from attacks.base import Inputs, per_image, refuse_given
from attacks.box_projection import l2_projection, linf_projection
from attacks.margin import exceeds_rounding, margin
from attacks.search import SearchAttack, State, choose_rows, spoil
from attacks.targets import likeliest_others
from data.checks import check_in_range, check_one_of, check_positive_integer
from data.randomness import per_image_normal, per_image_uniform

_TINY = 1e-8
# The lead to go for, of the largest logit: twice what `exceeds_rounding` asks.
_BEYOND = 2e-5
# The published code's epsilon, which its random starts depend on.
_EPSILONS = {"linf": 0.3, "l2": 1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FABT(SearchAttack):
    """The fast adaptive boundary attack, one target class after another.

    Croce and Hein 2020, "Minimally distorted Adversarial Examples with a Fast
    Adaptive Boundary Attack", in the targeted version of the published
    AutoAttack (FABAttack in fra31/auto-attack), with its parameters, and like
    it without the paper's final search. A step takes the lead of the target's
    logit over the label's to be linear, projects the current point and the
    image onto the hyperplane where it is zero, inside the box, and goes to a
    mean of the two, each of them overshot by eta. The image's weight is that
    of the current point's share in both distances, but at most alpha_max.
    Where the new point is not of the label's class, which need not mean the
    target's, it is remembered if it is the nearest so far, and the search goes
    back to beta times its perturbation.

    Each class among the likeliest of the clean image has its own runs. The
    first begins at the image, others at random, by (seed, index, number of
    the run) alone: half as far away as the published epsilon, which is
    `stop_at` here, or where that is None 0.3 (Linf) or 1 (L2). The shortest
    perturbation of all runs comes back, the clean image if there is none. An
    image that is already wrong comes back as it is.

    Deviations from the published code:

    - It finishes a run before it looks at epsilon, and returns the clean image
      where the perturbation is longer. Here an image is done as soon as one
      is at most `stop_at`, and longer ones come back too: which images are
      broken at that radius is the same, by fewer gradients.
    - The steps end on the hyperplane, where the class would be decided by the
      rounding of logits. So the hyperplane is where the lead is 2e-5 of the
      largest logit, and a point counts as one of another class when it leads
      by half as much.
    - A run whose first step does not move the image, since the gradient is
      zero there, is over.
    - With fewer classes than targets there are fewer targets.
    - Of L2 projections, see `box_projection.l2_projection`.

    Attributes:
        norm: `linf` or `l2`, what is made small.
        steps: Steps, and so gradients, of one run.
        restarts: Runs for each target class.
        target_classes: How many classes, the likeliest first.
        alpha_max: The image's largest weight in the mean, in [0, 1].
        eta: Length of a projection's step, at least 1.
        beta: Length of the perturbation after the way back, in [0, 1].
        stop_at: A perturbation of at most this length, in units of [0, 1],
            ends the image's search; None searches for the shortest.
            AutoAttack's epsilon.
    """

    name: ClassVar[str] = "fab_t"
    is_minimal_norm: ClassVar[bool] = True
    # Where `stop_at` is given, many images are done after a few.
    steps_per_round: ClassVar[int] = 10

    norm: str = "linf"
    steps: int = 100
    restarts: int = 1
    target_classes: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    stop_at: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of(self.norm, NORMS, "norm")
        check_positive_integer(self.steps, "steps")
        check_positive_integer(self.restarts, "restarts")
        check_positive_integer(self.target_classes, "target_classes")
        check_in_range(self.alpha_max, 0.0, 1.0, "alpha_max")
        check_in_range(self.eta, 1.0, np.inf, "eta")
        check_in_range(self.beta, 0.0, 1.0, "beta")
        if self.stop_at is not None:
            check_in_range(self.stop_at, 0.0, np.inf, "stop_at")
        object.__setattr__(self, "distance", self.norm)

    def _check(
        self, classifier, images, labels, targets, starts, indices
    ) -> Inputs:
        refuse_given(
            "fab_t chooses its own targets and begins at the images",
            targets=targets,
            starts=starts,
        )
        if classifier.num_classes < 2:
            raise ValueError(
                "fab_t needs a classifier of at least 2 classes, got "
                f"{classifier.num_classes}"
            )
        return super()._check(
            classifier, images, labels, targets, starts, indices
        )

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        """Chooses the targets.

        Besides the fixed names a state has:

        - `classes`, int32 `[B, N]`: the targets, in their order;
        - `run` and `step`, int64 `[B]`: those before this one;
        - `current`, float32 `[B, H, W, C]`: the iterate;
        - `length`, float32 `[B]`: of the perturbation of `adversarial`, the
          shortest so far; infinite where there is none.
        """
        images, labels = inputs.images, inputs.labels
        logits = logits_of(classifier, images)
        is_broken = has_nan(logits)
        zeros = tf.zeros_like(labels)
        return {
            "adversarial": spoil(is_broken, images),
            "classes": likeliest_others(logits, labels, self.target_classes),
            "run": zeros,
            "step": zeros,
            "current": images,
            "length": tf.fill(tf.shape(labels), np.float32(np.inf)),
            "evaluations": zeros,
            "done": (tf.argmax(logits, axis=-1) != labels) | is_broken,
        }

    def advance(self, classifier: Any, inputs: Inputs, state: State) -> State:
        images, current = inputs.images, state["current"]
        lead, gradient = self._lead(classifier, inputs, state)
        moved = self._moved(images, current, lead, gradient)
        logits = logits_of(classifier, moved)
        is_fooled = exceeds_rounding(
            margin(logits, inputs.labels, inputs.targets), logits
        )
        new = self._keep_shortest(images, state, moved, is_fooled)
        nearer = images + self.beta * (moved - images)
        new["current"] = choose_rows(is_fooled, nearer, moved)
        # From the image itself every other step would be the same.
        is_stuck = tf.reduce_all(
            (current == images) & (moved == images), [1, 2, 3]
        )
        new = self._end_runs(inputs, new, is_stuck)
        is_finite = tf.reduce_all(tf.math.is_finite(gradient), [1, 2, 3])
        is_broken = ~is_finite | has_nan(logits)
        return {
            **new,
            "adversarial": spoil(is_broken, new["adversarial"]),
            "evaluations": state["evaluations"] + 1,
            "done": new["done"] | is_broken,
        }

    def _lead(
        self, classifier: Any, inputs: Inputs, state: State
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The target's lead over the label, less what is asked; its gradient.

        Both are of the current point: float32 `[B]` and `[B, H, W, C]`.
        """
        current = state["current"]
        target = tf.gather(
            state["classes"], state["run"] // self.restarts, batch_dims=1
        )
        with tf.GradientTape() as tape:
            tape.watch(current)
            logits = logits_of(classifier, current)
            own = tf.gather(logits, inputs.labels, batch_dims=1)
            lead = tf.gather(logits, target, batch_dims=1) - own
        gradient = tape.gradient(
            lead, current, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        asked = _BEYOND * tf.reduce_max(tf.abs(logits), axis=-1)
        return lead - asked, gradient

    def _moved(
        self,
        images: tf.Tensor,
        current: tf.Tensor,
        lead: tf.Tensor,
        gradient: tf.Tensor,
    ) -> tf.Tensor:
        """The next iterate, in the box, before any way back."""
        project = linf_projection if self.norm == "linf" else l2_projection
        point, image, normal = map(_flat, (current, images, gradient))
        # Of the same hyperplane, at the image.
        other_lead = lead + tf.reduce_sum(normal * (image - point), axis=-1)
        change = project(point, normal, lead)
        other_change = project(image, normal, other_lead)
        length = tf.maximum(self._lengths(change), _TINY)
        other_length = tf.maximum(self._lengths(other_change), _TINY)
        alpha = tf.minimum(length / (length + other_length), self.alpha_max)
        first = point + self.eta * change
        second = image + self.eta * other_change
        mean = first + alpha[:, tf.newaxis] * (second - first)
        return tf.reshape(tf.clip_by_value(mean, 0.0, 1.0), tf.shape(images))

    def _lengths(self, changes: tf.Tensor) -> tf.Tensor:
        """float32 `[B]`, of changes `[B, D]`."""
        if self.norm == "linf":
            return tf.reduce_max(tf.abs(changes), axis=-1)
        return tf.norm(changes, axis=-1)

    def _keep_shortest(
        self,
        images: tf.Tensor,
        state: State,
        moved: tf.Tensor,
        is_fooled: tf.Tensor,
    ) -> State:
        length = self._lengths(_flat(moved - images))
        is_shorter = is_fooled & (length < state["length"])
        return {
            **state,
            "adversarial": choose_rows(is_shorter, moved, state["adversarial"]),
            "length": tf.where(is_shorter, length, state["length"]),
        }

    def _end_runs(
        self, inputs: Inputs, state: State, is_stuck: tf.Tensor
    ) -> State:
        """Goes on to the next run where one is over, or ends the search."""
        step = state["step"] + 1
        is_last = is_stuck | (step == self.steps)
        run = state["run"] + tf.cast(is_last, tf.int64)
        runs = self.restarts * state["classes"].shape[1]
        is_done = run == runs
        if self.stop_at is not None:
            is_done |= state["length"] <= self.stop_at
        return {
            **state,
            "step": tf.where(is_last, tf.zeros_like(step), step),
            # The last run's target is still looked up when all is over.
            "run": tf.minimum(run, runs - 1),
            "current": self._started(inputs, state["current"], run, is_last),
            "done": is_done,
        }

    def _started(
        self,
        inputs: Inputs,
        current: tf.Tensor,
        run: tf.Tensor,
        is_new: tf.Tensor,
    ) -> tf.Tensor:
        """The iterates, those of new runs at their starts."""
        images = inputs.images
        if self.restarts == 1:
            return choose_rows(is_new, images, current)
        is_random = run % self.restarts > 0

        def starts() -> tf.Tensor:
            return choose_rows(
                is_random, self._random_starts(inputs, run), images
            )

        return tf.cond(
            tf.reduce_any(is_new),
            lambda: choose_rows(is_new, starts(), current),
            lambda: current,
        )

    def _random_starts(self, inputs: Inputs, run: tf.Tensor) -> tf.Tensor:
        """float32 `[B, H, W, C]`: half an epsilon away, clipped to [0, 1]."""
        draw = _uniform if self.norm == "linf" else _normal
        shape = inputs.images.shape[1:]
        draws = draw(self.seed, inputs.indices + run * RUN_STRIDE, shape)
        epsilon = _EPSILONS[self.norm] if self.stop_at is None else self.stop_at
        lengths = per_image(self._lengths(_flat(draws)))
        change = 0.5 * epsilon * tf.math.divide_no_nan(draws, lengths)
        return tf.clip_by_value(inputs.images + change, 0.0, 1.0)


def _uniform(seed: int, indices: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    return per_image_uniform(
        seed, indices, low=-1.0, shape=shape, stream="fab_start"
    )


def _normal(seed: int, indices: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    return per_image_normal(seed, indices, shape, 1.0, stream="fab_start")


def _flat(images: tf.Tensor) -> tf.Tensor:
    """`[B, H, W, C]` -> `[B, D]`."""
    return tf.reshape(images, [-1, images.shape[1:].num_elements()])
