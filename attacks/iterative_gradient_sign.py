"""The iterative gradient sign (basic iterative) method, on CleverHans."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from attacks.base import BatchAttack, clip_to_ball
from attacks.fgsm import gradient_sign_step
from data.checks import check_in_range, check_positive_integer


@dataclasses.dataclass(frozen=True, kw_only=True)
class IterativeGradientSign(BatchAttack):
    """FGSM in N steps of size alpha, clipped to the epsilon ball after each.

    Kurakin et al. 2016; Eq. 3 of the APE-GAN paper, with its Clip. The paper
    runs N = 2 steps (Table 9) and gives alpha but no epsilon.

    The steps are CleverHans's; its own `basic_iterative_method` unrolls them
    in Python, here they run in one compiled loop. `starts` begins elsewhere
    in the ball.

    Attributes:
        epsilon: Radius of the Linf ball, in [0, 1].
        alpha: Size of one step; None is epsilon / steps, the smallest that can
            reach the ball's edge.
        steps: N.
    """

    name = "iterative_gradient_sign"

    epsilon: float = 0.3
    alpha: float | None = None
    steps: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_in_range(self.epsilon, 0.0, 1.0, "epsilon")
        check_positive_integer(self.steps, "steps")
        alpha = self.epsilon / self.steps if self.alpha is None else self.alpha
        check_in_range(alpha, 0.0, 1.0, "alpha")
        object.__setattr__(self, "alpha", alpha)

    def epsilons(self, indices: tf.Tensor) -> tf.Tensor:
        return tf.fill(tf.shape(indices), np.float32(self.epsilon))

    def run(
        self,
        classifier: Any,
        images: tf.Tensor,
        labels: tf.Tensor,
        targets: tf.Tensor,
        starts: tf.Tensor,
        indices: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        radius = self.epsilons(indices)

        def step(done: tf.Tensor, adversarial: tf.Tensor) -> Any:
            moved = gradient_sign_step(
                classifier, adversarial, labels, targets, self.alpha
            )
            return done + 1, clip_to_ball(moved, images, radius)

        _, adversarial = tf.while_loop(
            lambda done, _: done < self.steps,
            step,
            (0, clip_to_ball(starts, images, radius)),
        )
        return adversarial, tf.fill(
            tf.shape(labels), tf.constant(self.steps, tf.int64)
        )
