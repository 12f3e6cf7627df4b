"""The fast gradient sign method, on CleverHans."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

from attacks.base import BatchAttack, per_image
from data.checks import check_in_range
from data.randomness import per_image_uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class FGSM(BatchAttack):
    """One step of size epsilon along the sign of the loss's gradient.

    Goodfellow et al. 2014; Eq. 2 of the APE-GAN paper, which uses epsilon 0.3
    on MNIST, 0.1 on CIFAR-10 and 8/255 on ImageNet. With targets, the step
    goes down the target's loss. Labels are the true ones, never guessed.

    Deviation: the result is clipped to [0, 1], which Eq. 2 leaves open.

    Attributes:
        epsilon: Size of the step, in [0, 1].
        epsilon_min: Where given, each image has an epsilon of its own, drawn
            uniformly from [epsilon_min, epsilon] by (seed, index): a set of
            many strengths, to train a purifier that meets them all.
    """

    name = "fgsm"

    epsilon: float = 0.3
    epsilon_min: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_in_range(self.epsilon, 0.0, 1.0, "epsilon")
        if self.epsilon_min is not None:
            check_in_range(self.epsilon_min, 0.0, self.epsilon, "epsilon_min")

    def epsilons(self, indices: tf.Tensor) -> tf.Tensor:
        if self.epsilon_min is None:
            return tf.fill(tf.shape(indices), np.float32(self.epsilon))
        return per_image_uniform(
            self.seed,
            indices,
            low=self.epsilon_min,
            high=self.epsilon,
            stream="epsilon",
        )

    def run(
        self,
        classifier: Any,
        images: tf.Tensor,
        labels: tf.Tensor,
        targets: tf.Tensor,
        starts: tf.Tensor,
        indices: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        adversarial = gradient_sign_step(
            classifier,
            starts,
            labels,
            targets,
            per_image(self.epsilons(indices)),
        )
        return adversarial, tf.ones_like(labels)


def gradient_sign_step(
    classifier: Any,
    images: tf.Tensor,
    labels: tf.Tensor,
    targets: tf.Tensor,
    size: tf.Tensor,
) -> tf.Tensor:
    """Steps up the labels' loss, or down the targets' where there are any.

    CleverHans takes one direction for a whole batch; minus a step along the
    sign is the step the other way, so a signed size serves both.
    """
    targeted = targets >= 0
    signed_size = tf.where(per_image(targeted), -size, size)
    return fast_gradient_method(
        classifier,
        images,
        signed_size,
        np.inf,
        clip_min=0.0,
        clip_max=1.0,
        y=tf.where(targeted, targets, labels),
    )
