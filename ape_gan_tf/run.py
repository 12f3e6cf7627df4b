"""A whole run in its work directory, stage by stage.

Each stage leaves a file that the next one reads; a stage whose file is there
is not run again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import attacks
import data
import models
from ape_gan_tf import training_record
from ape_gan_tf.classifier_training import ClassifierConfig, train_classifier
from ape_gan_tf.crafting import check_classes, craft, refuse_all_targets
from ape_gan_tf.initial_weights import take_weights
from ape_gan_tf.measurement import Measurement, measure
from ape_gan_tf.metrics import Row
from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.purifier_training import train_purifier, trained_with
from ape_gan_tf.serving import saved_model
from ape_gan_tf.summaries import TrainingSummaries
from ape_gan_tf.training_loop import LoopSettings
from ape_gan_tf.workdir import refuse_orphans
from data.files import written_whole

IMAGES_IN_SUMMARY = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The main job: from a dataset to a measured, exported purifier.

    Attributes:
        workdir: Holds everything that the run writes.
        dataset: From `data.load`.
        classifier: The target, or how to train one.
        adversarial_set: Path of the training pairs; None crafts them.
        attack: Crafts them, on the training split.
        purifier: What to train.
        initial: A purifier of the same network, to begin with.
        initial_trained_with: Its `training_record`, if it has one.
        measurement: What to measure it on.
        limit: Train on the first `limit` images only.
        settings: How the purifier's training runs.
        classifier_settings: How the classifier's training runs.
    """

    workdir: Path
    dataset: data.Dataset
    classifier: models.Classifier | ClassifierConfig
    adversarial_set: Path | None
    attack: attacks.Attack
    purifier: PurifierConfig
    measurement: Measurement
    initial: models.Purifier | None = None
    initial_trained_with: dict[str, Any] | None = None
    limit: int | None = None
    settings: LoopSettings = LoopSettings()
    classifier_settings: LoopSettings = LoopSettings()

    def execute(self) -> list[Row]:
        """Runs what is not done yet.

        Returns:
            The measured rows, as in `metrics.json`.
        """
        self._check()
        classifier = self._target()
        adversarial_set = self._training_set(classifier)
        purifier = self._purifier(adversarial_set, classifier)
        self._export(purifier)
        origin = training_record.joined(
            trained_with(self.purifier, classifier), self.initial_trained_with
        )
        if origin is not None:
            training_record.write(self.workdir, origin)
        rows = measure(
            self.workdir,
            self.measurement.subject(self.dataset, classifier, purifier),
            self.measurement,
            title=f"{purifier.name} before {classifier.name}, "
            f"{self.dataset.name}",
            losses=self.workdir / "checkpoints" / "losses.csv",
            notes={
                "trained on": _describe(adversarial_set, self.limit),
                **training_record.notes(origin, classifier),
            },
        )
        print(f"purifier: {self.workdir / 'purifier'}")
        return rows

    def _check(self) -> None:
        """Finds at once what would fail after hours of training."""
        shape = self.dataset.image_shape
        for each in {shape, self.purifier.training_shape(shape)}:
            network = self.purifier.build_generator(each)
            if self.initial is not None:
                take_weights(network, self.initial, "initial_purifier")
        guessed = self.purifier.generator_classes
        if guessed is not None and guessed < self.dataset.num_classes:
            raise ValueError(
                "generator_classes must be at least "
                f"{self.dataset.num_classes}, those of {self.dataset.name}, "
                f"got {guessed}"
            )
        self.dataset.batches(self.measurement.split, 1)
        classes = self.dataset.num_classes
        if isinstance(self.classifier, models.Classifier):
            check_classes(self.classifier, self.dataset)
            classes = self.classifier.num_classes
        has_initial = self.initial is not None
        self.purifier.check_guess(classes, has_initial=has_initial)
        if self.adversarial_set is None:
            refuse_all_targets(self.attack, "attack")
            count = self.dataset.count("train")
        else:
            count = self._given_set(self.adversarial_set).count
        count = min(self.limit or count, count)
        data.steps_per_epoch(count, self.purifier.batch_size)

    def _target(self) -> models.Classifier:
        if isinstance(self.classifier, ClassifierConfig):
            return train_classifier(
                self.classifier,
                self.dataset,
                self.workdir / "classifier",
                self.classifier_settings,
                limit=self.limit,
            )
        return self.classifier

    def _training_set(
        self, classifier: models.Classifier
    ) -> data.AdversarialSet:
        if self.adversarial_set is None:
            return craft(
                self.attack,
                classifier,
                self.dataset,
                "train",
                self.workdir / "adversarial" / "train",
                limit=self.limit,
            )
        return self._given_set(self.adversarial_set)

    def _given_set(self, path: Path) -> data.AdversarialSet:
        return data.AdversarialSet.open(
            path,
            expected={
                "dataset": self.dataset.name,
                "split": "train",
                "image_shape": self.dataset.image_shape,
            },
        )

    def _purifier(
        self,
        adversarial_set: data.AdversarialSet,
        classifier: models.Classifier,
    ) -> models.Purifier:
        checkpoints = self.workdir / "checkpoints"
        path = self.workdir / "purifier.keras"
        products = [path, self.workdir / "purifier"]
        refuse_orphans(checkpoints / "config.json", products)
        sample = next(iter(adversarial_set.batches(IMAGES_IN_SUMMARY)))
        purifier = train_purifier(
            self.purifier,
            adversarial_set,
            checkpoints,
            self.settings,
            classifier=classifier,
            initial=self.initial,
            limit=self.limit,
            on_checkpoint=TrainingSummaries(
                self.workdir / "summaries",
                checkpoints / "losses.csv",
                sample["images"].numpy(),
                sample["adversarial"].numpy(),
            ),
        )
        if purifier.keras_model is not None and not path.exists():
            with written_whole(path) as temporary:
                purifier.keras_model.save(temporary)
        return models.Purifier.load(path)

    def _export(self, purifier: models.Purifier) -> None:
        directory = self.workdir / "purifier"
        if not (directory / "1").exists():
            saved_model.export(purifier, directory)


def _describe(pairs: data.AdversarialSet, limit: int | None) -> str:
    """What a purifier was trained on, for people."""
    used = min(limit or pairs.count, pairs.count)
    made = pairs.provenance
    params = ", ".join(f"{k} {v}" for k, v in made.params.items())
    return f"{used:,} pairs of {made.dataset}, {made.attack} ({params})"
