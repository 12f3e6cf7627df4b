"""Trains APE-GAN (Sec. 3.2, 4.1.3): the purifier and its discriminator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import data
import models
from ape_gan_tf import losses, optimizers
from ape_gan_tf.choices import PRECISIONS, SCHEDULES
from ape_gan_tf.training_loop import LoopSettings, TrainingLoop
from ape_gan_tf.workdir import claim
from data import AdversarialSet
from data.augmentation import noise_some, sparsify_some
from data.checks import (
    check_in_range,
    check_one_of,
    check_positive_integer,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PurifierConfig:
    """All that decides what a purifier becomes; the defaults are the paper's.

    Attributes:
        generator: `ape_gan_m`, `ape_gan_c` or `ape_gan_i` (Table 6).
        epochs: Passes over the adversarial set; the last batch of each is
            dropped where it is not full.
        batch_size: 64 in the paper (16 on ImageNet).
        learning_rate: Of both optimizers (Adam), 2e-4 in the paper.
        adam_beta1: Not given in the paper; 0.5 in the released code.
        schedule: `constant`, or `cosine` decay to zero.
        content_loss: `mse` (Eq. 13) or `root_mse` (released code).
        content_weight: xi_1 of Eq. 12.
        adversarial_weight: xi_2 of Eq. 12.
        generator_steps: Generator steps an iteration; two in Sec. 4.1.3.
        kernel_size: 3 in Table 6, 5 in the released code.
        decoder_activation: `leaky_relu`, or `relu` as in the released code.
        output: `sigmoid`, or `tanh` on [-1, 1] as in the released code; the
            content loss is taken in the output's own range.
        batch_norm_momentum: Of the moving averages used outside training.
        training_noise_fraction: Share of the pairs, drawn anew in each step,
            whose adversarial image gives way to the clean one with Gaussian
            noise, clipped to [0, 1]; the paper has none.
        training_noise_variance: The variance of an image's noise is drawn
            from [0, training_noise_variance].
        training_sparse_fraction: Share of the pairs, drawn anew in each step,
            whose perturbation is kept at random positions alone and made
            strong there; the paper has none. It needs no other attack.
        training_sparse_density: The share of such positions in an image is
            drawn from [0, training_sparse_density].
        precision: `float32`, `mixed_bfloat16` or `mixed_float16`.
        seed: Of the initial weights and of the order of the data.
    """

    generator: str = "ape_gan_m"
    epochs: int = 2
    batch_size: int = 64
    learning_rate: float = 2e-4
    adam_beta1: float = 0.9
    schedule: str = "constant"
    content_loss: str = "mse"
    content_weight: float = 0.7
    adversarial_weight: float = 0.3
    generator_steps: int = 2
    kernel_size: int = 3
    decoder_activation: str = "leaky_relu"
    output: str = "sigmoid"
    batch_norm_momentum: float = 0.99
    training_noise_fraction: float = 0.0
    training_noise_variance: float = 0.05
    training_sparse_fraction: float = 0.0
    training_sparse_density: float = 0.1
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_one_of(self.generator, models.GENERATORS, "generator")
        check_one_of(self.content_loss, losses.CONTENT_LOSSES, "content_loss")
        check_one_of(self.schedule, SCHEDULES, "schedule")
        check_one_of(self.precision, PRECISIONS, "precision")
        for name in ("epochs", "batch_size", "generator_steps"):
            check_positive_integer(getattr(self, name), name)
        check_in_range(self.learning_rate, 0.0, 10.0, "learning_rate")
        # At 1 Adam divides by zero.
        check_in_range(self.adam_beta1, 0.0, 0.9999, "adam_beta1")
        for name in ("content_weight", "adversarial_weight"):
            check_in_range(getattr(self, name), 0.0, 1e6, name)
        for name in (
            "training_noise_fraction",
            "training_noise_variance",
            "training_sparse_fraction",
            "training_sparse_density",
        ):
            check_in_range(getattr(self, name), 0.0, 1.0, name)

    def build_generator(self, image_shape: tuple[int, int, int]) -> keras.Model:
        """The purifier's network, with freshly drawn weights."""
        return models.generator(
            self.generator,
            image_shape,
            kernel_size=self.kernel_size,
            decoder_activation=self.decoder_activation,
            output=self.output,
            batch_norm_momentum=self.batch_norm_momentum,
            seed=2 * self.seed,
        )

    def build_discriminator(
        self, image_shape: tuple[int, int, int]
    ) -> keras.Model:
        return models.discriminator(
            self.generator,
            image_shape,
            kernel_size=self.kernel_size,
            batch_norm_momentum=self.batch_norm_momentum,
            seed=2 * self.seed + 1,
        )


class PurifierTrainer:
    """One discriminator step, then two generator steps, on the same batch.

    Args:
        config: What to train.
        image_shape: (height, width, channels).
        total_steps: Iterations in all, over which the learning rate decays.

    Attributes:
        generator: Keras model, images -> images in [0, 1].
        discriminator: Keras model, images -> logits of being clean.
    """

    loss_names: tuple[str, ...] = (
        "discriminator_loss",
        "generator_loss",
        "content_loss",
        "adversarial_loss",
    )

    def __init__(
        self,
        config: PurifierConfig,
        image_shape: tuple[int, int, int],
        total_steps: int,
    ) -> None:
        self._config = config
        self._image_shape = image_shape
        # Content is compared in the generator's own range: [-1, 1] of tanh.
        self._range_width = 2.0 if config.output == "tanh" else 1.0
        with optimizers.precision_scope(config.precision):
            self.generator = config.build_generator(image_shape)
            self.discriminator = config.build_discriminator(image_shape)
        self._g_optimizer = self._optimizer(
            self.generator.trainable_variables,
            total_steps * config.generator_steps,
        )
        self._d_optimizer = self._optimizer(
            self.discriminator.trainable_variables, total_steps
        )

    def _optimizer(self, variables: list[Any], steps: int) -> keras.Optimizer:
        config = self._config
        adam = keras.optimizers.Adam(
            optimizers.learning_rate_schedule(
                config.schedule, config.learning_rate, steps
            ),
            beta_1=config.adam_beta1,
        )
        return optimizers.prepare(adam, variables, config.precision)

    def purifier(self) -> models.Purifier:
        """The purifier as trained so far: a float32 copy of the generator."""
        with optimizers.precision_scope("float32"):
            copy = self._config.build_generator(self._image_shape)
        copy.set_weights(self.generator.get_weights())
        return models.Purifier.from_keras(copy)

    @property
    def _g_variables(self) -> list[tf.Variable]:
        return [each.value for each in self.generator.trainable_variables]

    @property
    def _d_variables(self) -> list[tf.Variable]:
        return [each.value for each in self.discriminator.trainable_variables]

    def trackables(self) -> dict[str, Any]:
        """Both networks and both optimizers, for a checkpoint."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "g_optimizer": self._g_optimizer,
            "d_optimizer": self._d_optimizer,
        }

    def train_step(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """One iteration of Sec. 4.1.3; the losses are in `loss_names` order.

        Args:
            batch: `images` (clean) and `adversarial`, float32 `[B, H, W, C]`.
        """
        clean, adversarial = batch["images"], batch["adversarial"]
        d_loss = self._discriminator_step(clean, adversarial)
        for _ in range(self._config.generator_steps):
            g_losses = self._generator_step(clean, adversarial)
        return (d_loss, *g_losses)

    def _discriminator_step(
        self, clean: tf.Tensor, adversarial: tf.Tensor
    ) -> tf.Tensor:
        purified = self.generator(adversarial, training=True)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._d_variables)
            d_loss = losses.discriminator_loss(
                self.discriminator(clean, training=True),
                self.discriminator(purified, training=True),
            )
            scaled = self._d_optimizer.scale_loss(d_loss)
        self._d_optimizer.apply(
            tape.gradient(scaled, self._d_variables),
            self.discriminator.trainable_variables,
        )
        return d_loss

    def _generator_step(
        self, clean: tf.Tensor, adversarial: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        config = self._config
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._g_variables)
            purified = self.generator(adversarial, training=True)
            content = losses.content_loss(
                config.content_loss,
                self._range_width * clean,
                self._range_width * purified,
            )
            fooling = losses.adversarial_loss(
                self.discriminator(purified, training=True)
            )
            g_loss = losses.generator_loss(
                content,
                fooling,
                content_weight=config.content_weight,
                adversarial_weight=config.adversarial_weight,
            )
            scaled = self._g_optimizer.scale_loss(g_loss)
        self._g_optimizer.apply(
            tape.gradient(scaled, self._g_variables),
            self.generator.trainable_variables,
        )
        return g_loss, content, fooling


def train_purifier(
    config: PurifierConfig,
    adversarial_set: AdversarialSet,
    directory: Path,
    settings: LoopSettings,
    *,
    limit: int | None = None,
    on_checkpoint: Callable[[int, models.Purifier], None] | None = None,
) -> models.Purifier:
    """Trains a purifier on an adversarial set, from the last checkpoint on.

    Args:
        config: What to train.
        adversarial_set: Pairs of clean and adversarial images.
        directory: For checkpoints; one that belongs to another `config` or
            set is refused.
        settings: How to run.
        limit: Train on the first `limit` pairs only.
        on_checkpoint: Called with the step and the purifier so far.

    Returns:
        The trained purifier, in float32 whatever the training's precision.

    Raises:
        ValueError: The directory holds another run's checkpoints.
        NonFiniteLossError: A loss became NaN or infinite.
    """
    shape = adversarial_set.image_shape
    whole = adversarial_set.count
    count = min(limit or whole, whole)
    steps_per_epoch = data.steps_per_epoch(count, config.batch_size)
    total_steps = config.epochs * steps_per_epoch
    claim(
        directory / "config.json",
        {
            **dataclasses.asdict(config),
            "training_pairs": count,
            "training_set": _origin(adversarial_set),
        },
    )
    trainer = PurifierTrainer(config, shape, total_steps)
    loop = TrainingLoop(trainer, directory, settings)

    def report(step: int) -> None:
        if on_checkpoint is not None:
            on_checkpoint(step, trainer.purifier())

    def batches(start: int) -> tf.data.Dataset:
        return _augmented(
            config,
            adversarial_set.training_batches(
                config.batch_size,
                seed=config.seed,
                start_step=start,
                total_steps=total_steps,
                limit=limit,
            ),
            start,
        )

    loop.run(batches, total_steps, report)
    return trainer.purifier()


def _augmented(
    config: PurifierConfig, batches: tf.data.Dataset, start: int
) -> tf.data.Dataset:
    """Makes some of the pairs sparse ones, and some noisy ones."""
    noise, sparse = (
        config.training_noise_fraction,
        config.training_sparse_fraction,
    )
    if noise == sparse == 0.0:
        return batches

    def change(step: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict:
        clean, adversarial = batch["images"], batch["adversarial"]
        if sparse:
            adversarial = sparsify_some(
                clean,
                adversarial,
                sparse,
                config.training_sparse_density,
                config.seed,
                step,
            )
        if noise:
            adversarial = noise_some(
                clean,
                adversarial,
                noise,
                config.training_noise_variance,
                config.seed,
                step,
            )
        return {**batch, "adversarial": adversarial}

    numbered = batches.enumerate(start)
    return numbered.map(change, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _origin(adversarial_set: AdversarialSet) -> dict[str, Any]:
    """What the pairs are; versions of packages may change in between."""
    origin = dataclasses.asdict(adversarial_set.provenance)
    del origin["package_versions"]
    return origin
