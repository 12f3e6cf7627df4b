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
from ape_gan_tf.adversaries import BatchAdversary
from ape_gan_tf.initial_weights import take_weights
from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.training_loop import LoopSettings, TrainingLoop
from ape_gan_tf.training_pairs import augmented
from ape_gan_tf.weight_average import WeightAverage
from ape_gan_tf.workdir import claim
from data import AdversarialSet
from models.fused_batch_norm import fuse_batch_norm


class PurifierTrainer:
    """One discriminator step, then the generator's steps, on the same batch.

    Without an adversarial loss there is no discriminator.

    Args:
        config: What to train.
        image_shape: (height, width, channels) of the purifier's images.
        total_steps: Iterations in all, over which the learning rate decays.
        classifier: The target, which stays as it is; only where
            `config.needs_classifier`.
        initial: A purifier of the same network, whose weights training
            begins with; None draws them, which `consistency` `guide` refuses.
        xla: Whether the step will be compiled with XLA, which fuses batch
            normalisation itself.

    Attributes:
        generator: Keras model, images -> images in [0, 1], of the shape that
            a step is on.
        discriminator: Keras model, images -> logits of being clean, or None.
        loss_names: Of what `train_step` returns.

    Raises:
        ValueError: The classifier or the initial purifier is missing, or for
            images of another shape, or the guess among other classes.
    """

    def __init__(
        self,
        config: PurifierConfig,
        image_shape: tuple[int, int, int],
        total_steps: int,
        classifier: models.Classifier | None = None,
        initial: models.Purifier | None = None,
        *,
        xla: bool = False,
    ) -> None:
        self._config = config
        self._image_shape = image_shape
        training_shape = config.training_shape(image_shape)
        self._classifier: Any = _checked(
            classifier, config, image_shape, has_initial=initial is not None
        )
        # Content is compared in the generator's own range: [-1, 1] of tanh.
        self._range_width = 2.0 if config.output == "tanh" else 1.0
        self.discriminator: Any = None
        with optimizers.precision_scope(config.precision):
            self.generator = config.build_generator(training_shape)
            if initial is not None:
                take_weights(self.generator, initial, "initial_purifier")
            if config.adversarial_weight:
                self.discriminator = config.build_discriminator(training_shape)
        with_guess, self._guesser = _with_guess(self.generator)
        if config.consistency == "guide":
            _freeze(self._guesser)
        self._generate, self._discriminate = (
            model if xla or model is None else fuse_batch_norm(model)
            for model in (with_guess, self.discriminator)
        )
        self._g_optimizer = self._optimizer(
            self.generator.trainable_variables,
            total_steps * config.generator_steps,
        )
        if self.discriminator is not None:
            self._d_optimizer = self._optimizer(
                self.discriminator.trainable_variables, total_steps
            )
        self._adversary = BatchAdversary(
            config.rows(),
            config.crafting(),
            total_steps,
            self._purify,
            self._classifier,
            self._guess,
            is_free=config.adversary_method == "free",
        )
        self._average: WeightAverage | None = None
        if config.ema_decay:
            self._average = WeightAverage(
                [each.value for each in self.generator.weights],
                config.ema_decay,
            )
        self.loss_names: tuple[str, ...] = self._names_of_losses()

    def _names_of_losses(self) -> tuple[str, ...]:
        config = self._config
        names = {
            "discriminator_loss": config.adversarial_weight,
            "generator_loss": True,
            "content_loss": True,
            "adversarial_loss": config.adversarial_weight,
            "classification_loss": config.classification_weight,
            "guide_loss": config.guide_weight,
        }
        return tuple(name for name, is_there in names.items() if is_there)

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
        """The purifier as trained so far: a float32 copy of the generator.

        Where there is a moving average of its weights, it has that.
        """
        with optimizers.precision_scope("float32"):
            copy = self._config.build_generator(self._image_shape)
        copy.set_weights(
            self.generator.get_weights()
            if self._average is None
            else self._average.values()
        )
        return models.Purifier.from_keras(copy)

    @property
    def _g_variables(self) -> list[tf.Variable]:
        return [each.value for each in self.generator.trainable_variables]

    @property
    def _d_variables(self) -> list[tf.Variable]:
        return [each.value for each in self.discriminator.trainable_variables]

    def trackables(self) -> dict[str, Any]:
        """The networks, their optimizers and averages, for a checkpoint."""
        found = {
            "generator": self.generator,
            "g_optimizer": self._g_optimizer,
        }
        if self.discriminator is not None:
            found["discriminator"] = self.discriminator
            found["d_optimizer"] = self._d_optimizer
        if self._average is not None:
            found["average"] = self._average.trackables()
        return found

    def train_step(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """One iteration of Sec. 4.1.3; the losses are in `loss_names` order.

        Args:
            batch: `images` (clean) and `adversarial`, float32 `[B, H, W, C]`,
                of `config.training_shape`; where images are crafted also
                `step`, int64 scalar, on which random choices depend; where
                there is a guess, or the classifier is needed and
                `consistency` is not `kl`, the labels too, int64 `[B]`.
        """
        clean = batch["images"]
        labels = self._labels(batch)
        adversarial = self._adversary(batch, labels)
        found: dict[str, tf.Tensor] = {}
        if self.discriminator is not None:
            found["discriminator_loss"] = self._discriminator_step(
                clean, adversarial
            )
        for _ in range(self._config.generator_steps):
            g_losses, gradient = self._generator_step(
                clean, adversarial, labels
            )
            if gradient is not None:
                adversarial = self._adversary.move(batch, adversarial, gradient)
        found |= g_losses
        return tuple(found[name] for name in self.loss_names)

    def _labels(self, batch: dict[str, tf.Tensor]) -> tf.Tensor | None:
        """What the adversary leads away from: labels, or what stands for it."""
        if self._classifier is None and self._guesser is None:
            return None
        if self._config.consistency != "kl" or self._classifier is None:
            return batch["labels"]
        return tf.argmax(self._classifier(batch["images"]), -1)

    def _purify(self, images: tf.Tensor) -> tf.Tensor:
        return self.generator(images, training=False)

    def _guess(self, images: tf.Tensor) -> tf.Tensor:
        return self._guesser(images, training=False)

    def _forward(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Purified images and the logits of the guess, in training mode."""
        outputs = self._generate(images, training=True)
        return (outputs, None) if self._guesser is None else tuple(outputs)

    def _discriminator_step(
        self, clean: tf.Tensor, adversarial: tf.Tensor
    ) -> tf.Tensor:
        purified, _ = self._forward(adversarial)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._d_variables)
            d_loss = losses.discriminator_loss(
                self._discriminate(clean, training=True),
                self._discriminate(purified, training=True),
            )
            scaled = self._d_optimizer.scale_loss(d_loss)
        self._d_optimizer.apply(
            tape.gradient(scaled, self._d_variables),
            self.discriminator.trainable_variables,
        )
        return d_loss

    def _generator_step(
        self,
        clean: tf.Tensor,
        adversarial: tf.Tensor,
        labels: tf.Tensor | None = None,
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
        """Returns the losses and, of method `free`, the images' gradient."""
        is_free = self._config.adversary_method == "free"
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._g_variables)
            if is_free:
                tape.watch(adversarial)
            found = self._generator_losses(clean, adversarial, labels)
            scaled = self._g_optimizer.scale_loss(found["generator_loss"])
        watched = [*self._g_variables, *([adversarial] if is_free else [])]
        gradients = tape.gradient(scaled, watched)
        gradient = gradients.pop() if is_free else None
        self._g_optimizer.apply(gradients, self.generator.trainable_variables)
        if self._average is not None:
            self._average.update()
        return found, gradient

    def _generator_losses(
        self,
        clean: tf.Tensor,
        adversarial: tf.Tensor,
        labels: tf.Tensor | None,
    ) -> dict[str, tf.Tensor]:
        """All of Eq. 12 and the classifier's, from one forward pass."""
        config = self._config
        also_clean = clean[: self._config.clean_count]
        # In one batch, so that batch normalisation, where it is trained, sees
        # both.
        purified, guess = self._forward(tf.concat([adversarial, also_clean], 0))
        content = losses.content_loss(
            config.content_loss,
            self._range_width * tf.concat([clean, also_clean], 0),
            self._range_width * purified,
        )
        fooling = tf.constant(0.0)
        if self.discriminator is not None:
            of_adversarial = purified[: adversarial.shape[0]]
            fooling = losses.adversarial_loss(
                self._discriminate(of_adversarial, training=True)
            )
        loss = losses.generator_loss(
            content,
            fooling,
            content_weight=config.content_weight,
            adversarial_weight=config.adversarial_weight,
        )
        found = {"content_loss": content, "adversarial_loss": fooling}
        if config.classification_weight:
            wrong = self._classification_loss(purified, guess, clean, labels)
            found["classification_loss"] = wrong
            loss += config.classification_weight * wrong
        if config.guide_weight:
            wrong = self._guide_loss(guess, labels)
            found["guide_loss"] = wrong
            loss += config.guide_weight * wrong
        return {**found, "generator_loss": loss}

    def _guide_loss(self, guess: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """The cross-entropy of the guess, on the same images."""
        count = self._config.clean_count
        return losses.classification_loss(
            guess, tf.concat([labels, labels[:count]], 0)
        )

    def _classification_loss(
        self,
        purified: tf.Tensor,
        guess: tf.Tensor | None,
        clean: tf.Tensor,
        labels: tf.Tensor,
    ) -> tf.Tensor:
        """The frozen classifier's, on adversarial and clean images."""
        count = self._config.clean_count
        logits = self._classifier(purified)
        if self._config.consistency == "labels":
            return losses.classification_loss(
                logits,
                tf.concat([labels, labels[:count]], 0),
                self._config.classification_q,
            )
        if self._config.consistency == "guide":
            return losses.classification_loss(logits, tf.argmax(guess, -1))
        wanted = self._classifier(clean)
        return losses.consistency_loss(
            logits, tf.concat([wanted, wanted[:count]], 0)
        )


def _with_guess(generator: keras.Model) -> tuple[keras.Model, Any]:
    """The generator with the logits of its guess, and these alone.

    One that makes no guess stays as it is, and the second is None.
    """
    logits = models.guess_logits(generator)
    if logits is None:
        return generator, None
    return (
        keras.Model(generator.input, [generator.output, logits]),
        keras.Model(generator.input, logits),
    )


def _freeze(guesser: keras.Model) -> None:
    """Leaves the guess as it is, batch normalisation's averages included.

    Else the generator learns to guess what the classifier answers easily.
    """
    for layer in guesser.layers:
        layer.trainable = False


def _checked(
    classifier: models.Classifier | None,
    config: PurifierConfig,
    image_shape: tuple[int, int, int],
    *,
    has_initial: bool,
) -> models.Classifier | None:
    """The classifier, if training needs one and it fits."""
    if not config.needs_classifier:
        return None
    if classifier is None:
        raise ValueError(
            "classifier must be given where adversary is "
            f"{config.adversary!r} and classification_weight is "
            f"{config.classification_weight}, got None"
        )
    if classifier.image_shape != tuple(image_shape):
        raise ValueError(
            f"classifier must be for images of shape {tuple(image_shape)}, "
            f"the training set's, got {classifier.image_shape}"
        )
    config.check_guess(classifier.num_classes, has_initial=has_initial)
    return classifier


def train_purifier(
    config: PurifierConfig,
    adversarial_set: AdversarialSet,
    directory: Path,
    settings: LoopSettings,
    *,
    classifier: models.Classifier | None = None,
    initial: models.Purifier | None = None,
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
        classifier: The target, which stays as it is; only where
            `config.needs_classifier`.
        initial: A purifier of the same network, to begin with.
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
    trainer = PurifierTrainer(
        config, shape, total_steps, classifier, initial, xla=settings.xla
    )
    claim(
        directory / "config.json",
        {
            **dataclasses.asdict(config),
            "training_pairs": count,
            "training_set": _origin(adversarial_set),
            "trained_with": trained_with(config, classifier),
            "initial_purifier": initial and initial.fingerprint,
        },
    )
    loop = TrainingLoop(trainer, directory, settings)

    def report(step: int) -> None:
        if on_checkpoint is not None:
            on_checkpoint(step, trainer.purifier())

    def batches(start: int) -> tf.data.Dataset:
        return augmented(
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


def trained_with(
    config: PurifierConfig, classifier: models.Classifier | None
) -> dict[str, Any] | None:
    """Which classifier a purifier was trained before; None if by pairs alone.

    Args:
        config: How it is trained.
        classifier: The frozen one.
    """
    if not config.needs_classifier or classifier is None:
        return None
    return {
        "name": classifier.name,
        "fingerprint": classifier.fingerprint,
        "adversary": config.adversary,
    }


def _origin(adversarial_set: AdversarialSet) -> dict[str, Any]:
    """What the pairs are; versions of packages may change in between."""
    origin = dataclasses.asdict(adversarial_set.provenance)
    del origin["package_versions"]
    return origin
