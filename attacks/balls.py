"""Balls around images, in Linf or L2: what attacks in them share."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from attacks.base import Attack, Inputs, clip_to_ball, per_image
from attacks.search import choose_rows
from data.checks import check_in_range, check_one_of
from data.randomness import per_image_normal, per_image_uniform

NORMS = ("linf", "l2")
RUN_STRIDE = 2**40  # More than there are images in any data set.


@dataclasses.dataclass(frozen=True, kw_only=True)
class BallAttack(Attack):
    """Base of the attacks that are bound to a ball of either norm.

    Attributes:
        epsilon: Radius of the ball, in units of [0, 1]; for Linf at most 1.
        norm: `linf` or `l2`.
    """

    epsilon: float = 0.3
    norm: str = "linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of(self.norm, NORMS, "norm")
        check_in_range(self.epsilon, 0.0, self.largest_length, "epsilon")
        object.__setattr__(self, "distance", self.norm)

    @property
    def largest_length(self) -> float:
        """The most that a radius or a step can be."""
        return 1.0 if self.norm == "linf" else np.inf

    def epsilons(self, indices: tf.Tensor) -> tf.Tensor:
        """float32 `[B]`: the radius of each image's ball, in `norm`."""
        return tf.fill(tf.shape(indices), np.float32(self.epsilon))

    def constrain(
        self, adversarial: tf.Tensor, images: tf.Tensor, indices: tf.Tensor
    ) -> tf.Tensor:
        if self.norm == "linf":
            return super().constrain(adversarial, images, indices)
        inside = project_l2(adversarial, images, self.epsilon)
        no_linf_ball = tf.fill(tf.shape(indices), np.float32(np.nan))
        return clip_to_ball(inside, images, no_linf_ball)

    def random_inside(self, inputs: Inputs, run: tf.Tensor) -> tf.Tensor:
        """Draws a start for each image: uniform in the ball, then clipped.

        Args:
            inputs: Of B images; their indices are drawn by.
            run: int64 `[B]`, which of an image's runs it is to begin.

        Returns:
            float32 `[B, H, W, C]`, which depends on (seed, index, run) alone.
        """
        draws, shape = _draws(inputs, run), inputs.images.shape[1:]
        if self.norm == "linf":
            return self._start_at(inputs, self._uniform(draws, shape))
        direction = self._normal(draws, shape)
        # The share of the ball's volume that is nearer is uniform.
        share = per_image_uniform(
            self.seed, draws, stream=f"{self.name}_radius"
        )
        distance = self.epsilon * share ** (1.0 / shape.num_elements())
        change = per_image(distance) * direction / l2_norms(direction)
        return self._start_at(inputs, change)

    def random_on_surface(self, inputs: Inputs, run: tf.Tensor) -> tf.Tensor:
        """As `random_inside`, but made as long as the radius, then clipped.

        In Linf that is a draw uniform in the ball, in L2 a Gaussian one.
        """
        draws, shape = _draws(inputs, run), inputs.images.shape[1:]
        if self.norm == "linf":
            change = self._uniform(draws, shape)
            lengths = linf_norms(change)
        else:
            change = self._normal(draws, shape)
            lengths = l2_norms(change)
        return self._start_at(
            inputs, self.epsilon * tf.math.divide_no_nan(change, lengths)
        )

    def _start_at(self, inputs: Inputs, change: tf.Tensor) -> tf.Tensor:
        return self.constrain(
            inputs.images + change, inputs.images, inputs.indices
        )

    def _uniform(self, draws: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
        return per_image_uniform(
            self.seed,
            draws,
            low=-self.epsilon,
            high=self.epsilon,
            shape=shape,
            stream=f"{self.name}_start",
        )

    def _normal(self, draws: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
        return per_image_normal(
            self.seed, draws, shape, 1.0, stream=f"{self.name}_direction"
        )


def _draws(inputs: Inputs, run: tf.Tensor) -> tf.Tensor:
    return inputs.indices + run * RUN_STRIDE


def project_l2(
    images: tf.Tensor, centres: tf.Tensor, radius: float | tf.Tensor
) -> tf.Tensor:
    """The nearest images in the L2 balls; those inside stay as they are."""
    change = images - centres
    norm = l2_norms(change)
    # Adding the shortened change rounds each value by up to 2**-25, and the
    # norm is rounded itself. The ball's promise must hold all the same.
    rounding = 1e-6 * radius + 2.0**-25 * images.shape[1:].num_elements() ** 0.5
    aim = tf.cast(tf.maximum(radius - rounding, 0.0), images.dtype)
    inside = centres + change * tf.math.divide_no_nan(aim, norm)
    return choose_rows(norm[:, 0, 0, 0] > radius, inside, images)


def l2_norms(images: tf.Tensor) -> tf.Tensor:
    """float32 `[B, 1, 1, 1]`: the Euclidean norm of each image."""
    return tf.sqrt(tf.reduce_sum(images**2, [1, 2, 3], keepdims=True))


def steepest(gradient: tf.Tensor, norm: str) -> tf.Tensor:
    """The step of length 1 in `norm` that climbs most; zero where flat."""
    if norm == "linf":
        return tf.sign(gradient)
    # By the largest value first: the square of a small one would be zero.
    scaled = tf.math.divide_no_nan(gradient, linf_norms(gradient))
    return tf.math.divide_no_nan(scaled, l2_norms(scaled))


def linf_norms(images: tf.Tensor) -> tf.Tensor:
    """float32 `[B, 1, 1, 1]`: the largest absolute value of each image."""
    return tf.reduce_max(tf.abs(images), [1, 2, 3], keepdims=True)
