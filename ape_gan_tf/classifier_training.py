"""Trains the target classifiers, plain or adversarially."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import data
import models
from ape_gan_tf import optimizers
from ape_gan_tf.adversaries import Crafting, cross_entropies
from ape_gan_tf.choices import ADVERSARIAL_STARTS, PRECISIONS, SCHEDULES
from ape_gan_tf.initial_weights import take_weights
from ape_gan_tf.training_loop import LoopSettings, TrainingLoop
from ape_gan_tf.workdir import claim, refuse_orphans
from data.checks import (
    check_in_range,
    check_one_of,
    check_positive_integer,
)
from data.randomness import step_key
from models.fused_batch_norm import fuse_batch_norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """All that decides what a target classifier becomes.

    The paper gives the networks and their error rates, not the training.

    Attributes:
        classifier: One of `models.TARGETS`.
        epochs: Passes over the training split.
        batch_size: Images a step.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        schedule: One of `SCHEDULES`, see `optimizers.learning_rate_schedule`.
        label_smoothing: The share of the target that is spread evenly over
            all classes (Szegedy et al. 2016, Sec. 7).
        shift: Augmentation: random translation by up to so many pixels.
        flip: Augmentation: random horizontal mirroring.
        adversarial_training: Each step trains half on clean images and half
            on adversarial ones crafted anew. By default these are FGSM's, as
            in Tables 7 to 9 (Goodfellow et al. 2014).
        adversarial_epsilon: Their largest change of a pixel.
        adversarial_epsilon_min: Where given, each image's epsilon is drawn
            from [adversarial_epsilon_min, adversarial_epsilon] in each step:
            trained at one strength, a classifier learns to read the label
            from the perturbation (label leaking, Kurakin et al. 2016).
        adversarial_steps: Of projected gradient descent (Madry et al. 2018);
            one step from the clean image is FGSM.
        adversarial_step_size: Of one such step, for an image whose epsilon is
            adversarial_epsilon, and smaller in proportion where its epsilon
            is; None is 2.5 times epsilon over the steps, at most 1.25 times
            epsilon.
        adversarial_start: `clean`, or `random`, a point of the ball: with one
            step that is Wong et al. 2020.
        precision: `float32`, `mixed_bfloat16` or `mixed_float16`.
        seed: Of the weights, the order of the data, the augmentation and
            the crafting.
    """

    classifier: str = "C"
    epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    label_smoothing: float = 0.0
    shift: int = 2
    flip: bool = False
    adversarial_training: bool = False
    adversarial_epsilon: float = 0.3
    adversarial_epsilon_min: float | None = None
    adversarial_steps: int = 1
    adversarial_step_size: float | None = None
    adversarial_start: str = "clean"
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_one_of(self.classifier, models.TARGETS, "classifier")
        check_one_of(self.schedule, SCHEDULES, "schedule")
        check_one_of(self.precision, PRECISIONS, "precision")
        for name in ("epochs", "batch_size", "adversarial_steps"):
            check_positive_integer(getattr(self, name), name)
        check_in_range(self.learning_rate, 0.0, 10.0, "learning_rate")
        check_in_range(self.weight_decay, 0.0, 1.0, "weight_decay")
        check_in_range(self.label_smoothing, 0.0, 1.0, "label_smoothing")
        check_in_range(
            self.adversarial_epsilon, 0.0, 1.0, "adversarial_epsilon"
        )
        if self.adversarial_epsilon_min is not None:
            check_in_range(
                self.adversarial_epsilon_min,
                0.0,
                self.adversarial_epsilon,
                "adversarial_epsilon_min",
            )
        if self.adversarial_step_size is not None:
            check_in_range(
                self.adversarial_step_size, 0.0, 1.0, "adversarial_step_size"
            )
        check_one_of(
            self.adversarial_start, ADVERSARIAL_STARTS, "adversarial_start"
        )

    def crafting(self) -> Crafting:
        """How the images of adversarial training are crafted."""
        return Crafting(
            epsilon=self.adversarial_epsilon,
            steps=self.adversarial_steps,
            step_size=self.adversarial_step_size,
            starts=self.adversarial_start,
            seed=self.seed,
        )


class ClassifierTrainer:
    """Cross-entropy on images, or half of it on their adversarial twins.

    Args:
        config: What to train.
        image_shape: (height, width, channels).
        num_classes: K.
        total_steps: Steps in all, over which the learning rate decays.
        initial: A classifier of the same network, whose weights training
            begins with; None draws them.
        xla: Whether the step will be compiled with XLA, which fuses batch
            normalisation itself.

    Attributes:
        model: Keras model, images -> logits.
        training_model: The same as it is computed in training.
    """

    loss_names: tuple[str, ...] = ("cross_entropy", "error")

    def __init__(
        self,
        config: ClassifierConfig,
        image_shape: tuple[int, int, int],
        num_classes: int,
        total_steps: int,
        initial: models.Classifier | None = None,
        *,
        xla: bool = False,
    ) -> None:
        self._config = config
        self._crafting = config.crafting()
        self._build = lambda: models.target(
            config.classifier, image_shape, num_classes, seed=config.seed
        )
        with optimizers.precision_scope(config.precision):
            self.model = self._build()
        if initial is not None:
            take_weights(self.model, initial, "initial_classifier")
        self.training_model = self.model if xla else fuse_batch_norm(self.model)
        self._variables = self.model.trainable_variables
        self._optimizer = optimizers.prepare(
            keras.optimizers.AdamW(
                optimizers.learning_rate_schedule(
                    config.schedule, config.learning_rate, total_steps
                ),
                weight_decay=config.weight_decay,
            ),
            self._variables,
            config.precision,
        )

    def classifier(self) -> models.Classifier:
        """The classifier as trained so far: a float32 copy."""
        with optimizers.precision_scope("float32"):
            copy = self._build()
        copy.set_weights(self.model.get_weights())
        return models.Classifier.from_keras(copy)

    def trackables(self) -> dict[str, Any]:
        """The network, its optimizer and its dropout, for a checkpoint."""
        weights = {id(weight) for weight in self.model.weights}
        return {
            "model": self.model,
            "optimizer": self._optimizer,
            # Not among what a checkpoint finds in a Keras model.
            "random_states": [
                variable.value
                for variable in self.model.variables
                if id(variable) not in weights
            ],
        }

    def train_step(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """One step; returns the loss and the error rate in percent.

        Args:
            batch: `images` float32 `[B, H, W, C]` and `labels` int64 `[B]`;
                with adversarial training B must be known when it is traced.
        """
        images, labels = batch["images"], batch["labels"]
        if self._config.adversarial_training:
            images = tf.concat([images, self.craft(images, labels)], 0)
            labels = tf.concat([labels, labels], 0)
        with tf.GradientTape() as tape:
            logits = self.training_model(images, training=True)
            loss = self._cross_entropy(labels, logits)
            scaled = self._optimizer.scale_loss(loss)
        self._optimizer.apply(
            tape.gradient(scaled, self._variables), self._variables
        )
        wrong = tf.cast(tf.argmax(logits, -1) != labels, tf.float32)
        return loss, 100.0 * tf.reduce_mean(wrong)

    def _cross_entropy(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        )
        smoothing = self._config.label_smoothing
        if not smoothing:
            return loss
        of_all = -tf.reduce_mean(tf.nn.log_softmax(logits))
        return (1.0 - smoothing) * loss + smoothing * of_all

    def craft(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """An attack on the weights of this moment, without dropout."""
        crafting, epsilons = self._crafting, self._epsilons(tf.shape(labels))
        step = self._optimizer.iterations.value
        starts = crafting.first_images(images, images, step, epsilons)
        return crafting.craft(
            lambda moved: cross_entropies(labels, self._infer(moved)),
            images,
            starts,
            epsilons,
        )

    def _epsilons(self, shape: tf.Tensor) -> tf.Tensor:
        """The epsilon of each image of a batch, float32 `[B]`."""
        highest = self._config.adversarial_epsilon
        lowest = self._config.adversarial_epsilon_min
        if lowest is None:
            return tf.fill(shape, float(highest))
        key = step_key(
            self._config.seed,
            "adversarial_epsilon",
            self._optimizer.iterations.value,
        )
        draws = tf.random.stateless_uniform(shape, key, alg="philox")
        return lowest + (highest - lowest) * draws

    def _infer(self, images: tf.Tensor) -> tf.Tensor:
        return self.model(images, training=False)


def train_classifier(
    config: ClassifierConfig,
    dataset: data.Dataset,
    directory: Path,
    settings: LoopSettings,
    *,
    initial: models.Classifier | None = None,
    limit: int | None = None,
) -> models.Classifier:
    """Trains a target classifier, from the last checkpoint on.

    Args:
        config: What to train.
        dataset: Its training split is used.
        directory: The classifier is saved in it, checkpoints below it. A
            finished classifier of the same configuration is loaded instead.
        settings: How to run.
        initial: A classifier of the same network, to begin with.
        limit: Train on the first `limit` images only.

    Returns:
        The trained classifier.

    Raises:
        ValueError: The directory holds another configuration's work.
        NonFiniteLossError: The loss became NaN or infinite.
    """
    whole = dataset.count("train")
    count = min(limit or whole, whole)
    checkpoints = directory.with_name(f"{directory.name}_checkpoints")
    refuse_orphans(checkpoints / "config.json", [directory])
    steps_per_epoch = data.steps_per_epoch(count, config.batch_size)
    total_steps = config.epochs * steps_per_epoch
    # Before the directory is claimed: it refuses an `initial` of other layers.
    trainer = ClassifierTrainer(
        config,
        dataset.image_shape,
        dataset.num_classes,
        total_steps,
        initial,
        xla=settings.xla,
    )
    claim(
        checkpoints / "config.json",
        {
            **dataclasses.asdict(config),
            "dataset": dataset.name,
            "training_images": count,
            "initial_classifier": initial and initial.fingerprint,
        },
    )
    if directory.exists():
        return models.Classifier.load(directory)
    TrainingLoop(trainer, checkpoints, settings).run(
        lambda start: dataset.training_batches(
            "train",
            config.batch_size,
            seed=config.seed,
            start_step=start,
            total_steps=total_steps,
            limit=limit,
            shift=config.shift,
            flip=config.flip,
        ),
        total_steps,
    )
    classifier = trainer.classifier()
    classifier.save(directory)
    return classifier
