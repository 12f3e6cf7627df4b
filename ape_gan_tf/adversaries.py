"""Adversarial images made inside a training step, on the weights of then."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ape_gan_tf.shares import parse_shares, split_rows
from attacks.balls import NORMS, l2_norms, project_l2, steepest
from attacks.base import clip_to_ball, per_image
from data.checks import (
    check_in_range,
    check_one_of,
    check_positive_integer,
)
from data.randomness import step_key

Images = Callable[[tf.Tensor], tf.Tensor]
ImageLoss = Callable[[tf.Tensor], tf.Tensor]

ADVERSARIES = ("stored", "online", "white_box", "content", "guide")
NEED_CLASSIFIER = frozenset({"online", "white_box"})
STARTS = ("clean", "random", "stored")
# One step from a random start does best a little past the ball's edge (Wong
# et al. 2020, Sec. 4.1); several go 2.5 times its radius in all (Madry et al.
# 2018, released code).
_LONGEST_STEP, _WAY = 1.25, 2.5
# Of the loss while crafting: a step does not depend on it, but in float16 the
# gradient of a confident answer would be zero without it.
_LOSS_SCALE = 128.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crafting:
    """Projected gradient descent in a ball, as a training step does it.

    Every random choice depends on the seed and the step alone, but that XLA
    draws other numbers from them than TensorFlow does without it. Parts of a
    batch that are crafted differently, and are equally large, have the same.

    Attributes:
        epsilon: Radius of the ball, in units of [0, 1]; for Linf at most 1.
        norm: `linf` or `l2`.
        steps: Steps, and so gradients.
        step_size: Of one step, where the radius is epsilon, and in proportion
            where it is not (yet); None is 2.5 times epsilon over the steps, at
            most 1.25 times epsilon.
        warmup: Over this share of the training, epsilon and with it the
            step's size grow from zero, linearly.
        starts: Mixture of `clean`, `random` and `stored`: where the search
            begins: at the image, at a random point of the ball, or at the
            oblivious adversarial image of the training set, put into the ball.
        seed: Of the random starts.
    """

    epsilon: float = 0.3
    norm: str = "linf"
    steps: int = 7
    step_size: float | None = None
    warmup: float = 0.0
    starts: str = "clean,random,stored"
    seed: int = 0

    def __post_init__(self) -> None:
        check_one_of(self.norm, NORMS, "adversary_norm")
        largest = 1.0 if self.norm == "linf" else 1e6
        check_in_range(self.epsilon, 0.0, largest, "adversary_epsilon")
        check_positive_integer(self.steps, "adversary_steps")
        if self.step_size is not None:
            check_in_range(self.step_size, 0.0, largest, "adversary_step_size")
        check_in_range(self.warmup, 0.0, 1.0, "adversary_warmup")
        self.shares_of_starts()

    def shares_of_starts(self) -> dict[str, float]:
        """The share of each kind of start."""
        return parse_shares(self.starts, STARTS, "adversary_starts")

    @property
    def relative_step(self) -> float:
        """The size of a step, in radii."""
        if self.step_size is None:
            return min(_LONGEST_STEP, _WAY / self.steps)
        return self.step_size / self.epsilon if self.epsilon else 0.0

    def radius(self, step: tf.Tensor, total_steps: int) -> tf.Tensor:
        """float32 scalar: epsilon at a step, counted from 0."""
        done = (tf.cast(step, tf.float32) + 1.0) / max(
            self.warmup * total_steps, 1.0
        )
        return self.epsilon * tf.minimum(done, 1.0)

    def first_images(
        self,
        clean: tf.Tensor,
        stored: tf.Tensor,
        step: tf.Tensor,
        radius: tf.Tensor,
    ) -> tf.Tensor:
        """Where the searches of a batch begin, inside the ball and the box.

        Args:
            clean: float32 `[B, H, W, C]`.
            stored: Their oblivious adversarial twins.
            step: int64 scalar.
            radius: float32 scalar; in Linf also `[B]`, each image's own.
        """
        radii = per_image(_radii(radius, clean))
        kinds: dict[str, Callable[[slice], tf.Tensor]] = {
            "clean": lambda rows: clean[rows],
            "stored": lambda rows: stored[rows],
            "random": lambda rows: (
                clean[rows]
                + radii[rows] * self._random_change(clean[rows], step)
            ),
        }
        rows = split_rows(
            clean.shape[0], self.shares_of_starts(), "adversary_starts"
        )
        starts = [kinds[name](rows[name]) for name in rows]
        return self.project(tf.concat(starts, 0), clean, radius)

    def _random_change(self, images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Uniform in the ball of radius 1, clipped nowhere."""
        key = step_key(self.seed, "adversary_start", step)
        if self.norm == "linf":
            return tf.random.stateless_uniform(
                images.shape, key, -1.0, 1.0, alg="philox"
            )
        direction = tf.random.stateless_normal(images.shape, key, alg="philox")
        share = tf.random.stateless_uniform(
            [images.shape[0], 1, 1, 1],
            step_key(self.seed, "adversary_radius", step),
            alg="philox",
        )
        length = share ** (1.0 / images.shape[1:].num_elements())
        return length * tf.math.divide_no_nan(direction, l2_norms(direction))

    def project(
        self, images: tf.Tensor, clean: tf.Tensor, radius: tf.Tensor
    ) -> tf.Tensor:
        """Puts images into the ball around the clean ones, and the box."""
        if self.norm == "l2":
            images = project_l2(images, clean, radius)
            return tf.clip_by_value(images, 0.0, 1.0)
        return clip_to_ball(images, clean, _radii(radius, clean))

    def move(
        self,
        images: tf.Tensor,
        gradient: tf.Tensor,
        clean: tf.Tensor,
        radius: tf.Tensor,
    ) -> tf.Tensor:
        """One step up a loss, of its gradient with respect to the images.

        Where the gradient is not finite, as in float16 that overflows, an
        image stays as it is.
        """
        gradient = tf.where(
            tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient)
        )
        size = self.relative_step * per_image(_radii(radius, clean))
        step = size * steepest(gradient, self.norm)
        return self.project(images + step, clean, radius)

    def craft(
        self,
        loss: ImageLoss,
        clean: tf.Tensor,
        starts: tf.Tensor,
        radius: tf.Tensor,
    ) -> tf.Tensor:
        """Climbs a loss from `starts`.

        Args:
            loss: float32 `[B]` of images `[B, H, W, C]`, differentiable.
            clean: float32 `[B, H, W, C]`, the centres of the balls.
            starts: Of `first_images`.
            radius: float32 scalar; in Linf also `[B]`, each image's own.

        Returns:
            float32 `[B, H, W, C]`, the last images, not the worst: training
            needs no proof.
        """
        images = starts
        for _ in range(self.steps):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                value = _LOSS_SCALE * loss(images)
            gradient = tape.gradient(value, images)
            images = self.move(images, gradient, clean, radius)
        return tf.stop_gradient(images)


class BatchAdversary:
    """Makes the adversarial images of a batch, some rows of each kind.

    Args:
        rows: Of `split_rows`: which rows are whose.
        crafting: How those that are not stored are crafted.
        total_steps: Of the training, for the warm-up.
        purify: The purifier, in inference mode. In training mode an image's
            gradient would depend on what else is in the batch, and the
            purifier would learn to withstand an attack on another network
            than the one that it becomes. Method `free` does see the batch:
            its gradient is the update's own.
        classifier: The frozen one, or None where no row needs it.
        guess: The logits of the generator's own guess, in inference mode;
            called where a row needs them.
        is_free: Whether the white-box rows are left at their starts, since
            the training moves them.
    """

    def __init__(
        self,
        rows: dict[str, slice],
        crafting: Crafting,
        total_steps: int,
        purify: Images,
        classifier: Any,
        guess: Images,
        is_free: bool,
    ) -> None:
        self._rows = rows
        self._crafting = crafting
        self._total_steps = total_steps
        self._purify = purify
        self._classifier = classifier
        self._guess = guess
        self._is_free = is_free

    def __call__(
        self, batch: dict[str, tf.Tensor], labels: tf.Tensor | None
    ) -> tf.Tensor:
        """float32 `[B, H, W, C]`: one image for each clean one.

        Args:
            batch: `images`, `adversarial` (the stored ones) and, if any row
                is crafted, `step`.
            labels: int64 `[B]`, to lead away from.
        """
        makers = {
            "stored": self._stored,
            "online": self._online,
            "white_box": self._white_box,
            "content": self._content,
            "guide": self._guide,
        }
        parts = [
            makers[name](
                {
                    "images": batch["images"][rows],
                    "adversarial": batch["adversarial"][rows],
                    "step": batch.get("step"),
                },
                None if labels is None else labels[rows],
            )
            for name, rows in self._rows.items()
        ]
        return tf.concat(parts, 0)

    def move(
        self,
        batch: dict[str, tf.Tensor],
        adversarial: tf.Tensor,
        gradient: tf.Tensor,
    ) -> tf.Tensor:
        """The images with the white-box ones a step along a gradient."""
        rows = self._rows["white_box"]
        parts = {name: adversarial[part] for name, part in self._rows.items()}
        parts["white_box"] = self._crafting.move(
            adversarial[rows],
            gradient[rows],
            batch["images"][rows],
            self._radius(batch),
        )
        return tf.concat(list(parts.values()), 0)

    def _radius(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return self._crafting.radius(batch["step"], self._total_steps)

    def _stored(
        self, batch: dict[str, tf.Tensor], labels: tf.Tensor
    ) -> tf.Tensor:
        return batch["adversarial"]

    def _online(
        self, batch: dict[str, tf.Tensor], labels: tf.Tensor
    ) -> tf.Tensor:
        return self._crafted(
            batch,
            lambda images: cross_entropies(labels, self._classifier(images)),
        )

    def _white_box(
        self, batch: dict[str, tf.Tensor], labels: tf.Tensor
    ) -> tf.Tensor:
        if self._is_free:
            return self._starts(batch)
        return self._crafted(
            batch,
            lambda images: cross_entropies(
                labels, self._classifier(self._purify(images))
            ),
        )

    def _content(
        self, batch: dict[str, tf.Tensor], labels: tf.Tensor
    ) -> tf.Tensor:
        clean = batch["images"]
        return self._crafted(
            batch,
            lambda images: tf.reduce_sum(
                tf.math.squared_difference(clean, self._purify(images)),
                [1, 2, 3],
            ),
        )

    def _guide(
        self, batch: dict[str, tf.Tensor], labels: tf.Tensor
    ) -> tf.Tensor:
        return self._crafted(
            batch, lambda images: cross_entropies(labels, self._guess(images))
        )

    def _starts(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return self._crafting.first_images(
            batch["images"],
            batch["adversarial"],
            batch["step"],
            self._radius(batch),
        )

    def _crafted(
        self, batch: dict[str, tf.Tensor], loss: ImageLoss
    ) -> tf.Tensor:
        return self._crafting.craft(
            loss, batch["images"], self._starts(batch), self._radius(batch)
        )


def cross_entropies(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """float32 `[B]`: each image's, what an adversary climbs."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def _radii(radius: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """float32 `[B]`: one for each image."""
    return tf.broadcast_to(radius, [images.shape[0]])
