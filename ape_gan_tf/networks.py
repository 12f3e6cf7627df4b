"""The classifiers and the purifier of a reproduction, made when needed."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import models
from ape_gan_tf.classifier_training import train_classifier
from ape_gan_tf.loading import load_pretrained
from ape_gan_tf.paper import HARDENED, SETTINGS
from ape_gan_tf.pretrained_models import is_pretrained
from ape_gan_tf.purifier import Purifier
from ape_gan_tf.recipes import Recipes
from ape_gan_tf.stages import MissingDataError, Stage


class Networks:
    """Finds, trains or loads what the tables are about.

    Args:
        workdir: `classifiers/` and `purifier/` are made in it.
        recipes: How to train.
        image_shape: Of the dataset.
        stand_ins: The paper's name of a classifier -> what to use in its
            place: the name of one that can be trained or downloaded, a
            pretrained name, or a path.
        weights: Name of a network of `models.APPLICATIONS` -> its weights
            file; else they are downloaded.
        purifier: Path or pretrained name of a purifier to measure; None
            trains one.
    """

    def __init__(
        self,
        workdir: Path,
        recipes: Recipes,
        image_shape: tuple[int, int, int],
        *,
        stand_ins: Mapping[str, str],
        weights: Mapping[str, str],
        purifier: str | None,
    ) -> None:
        self._workdir = workdir
        self._recipes = recipes
        self._image_shape = image_shape
        self._stand_ins = stand_ins
        self._weights = weights
        self._given_purifier = purifier
        self.classifier_stage = functools.cache(self._classifier_stage)
        # Two names may have one stand-in, which is loaded once.
        self._loaded = functools.cache(self._load_classifier)

    @functools.cached_property
    def purifier_stage(self) -> Stage:
        """Trains the purifier on FGSM from the target of FGSM alone."""
        given = self._given_purifier
        if given is not None:
            return _given(f"purifier {given}")
        target = self.classifier_stage(SETTINGS[self._recipes.dataset].fgsm)
        # The last that the run writes: the purifier is exported before it.
        report = self._workdir / "purifier" / "report.md"
        return Stage("purifier", report.exists, self._train_purifier, (target,))

    @functools.cached_property
    def purifier(self) -> models.Purifier:
        own = self._workdir / "purifier" / "purifier.keras"
        return Purifier.load(self._given_purifier or str(own))

    def classifier(self, name: str) -> models.Classifier:
        """A classifier of the paper, or what stands for it."""
        return self._loaded(self.actual(name))

    def actual(self, name: str) -> str:
        """What is used for a classifier of the paper."""
        return self._stand_ins.get(name, name)

    def folder_name(self, name: str) -> str:
        """A name for a folder of a classifier's; it must be there."""
        actual = self.actual(name)
        if can_be_made(actual) or is_pretrained("classifier", actual):
            return actual
        return f"{Path(actual).name}_{self.classifier(name).fingerprint[:8]}"

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """What decides on these classifiers and on the purifier."""
        actual = {name: self.actual(name) for name in names}
        trained = {name for name in actual.values() if is_trainable(name)}
        return {
            "classifiers": actual,
            "weights": {
                name: _digest(Path(file))
                for name, file in self._weights.items()
            },
            "purifier": self._given_purifier or "trained",
            "recipes": self._recipes.describe(sorted(trained)),
        }

    def _path(self, actual: str) -> Path:
        if can_be_made(actual):
            return self._workdir / "classifiers" / actual
        return Path(actual)

    def _classifier_stage(self, name: str) -> Stage:
        actual = self.actual(name)
        path = self._path(actual)
        if not can_be_made(actual):
            return _given(f"classifier {actual}")
        make = (
            self._train_classifier
            if is_trainable(actual)
            else self._import_application
        )
        return Stage(
            f"classifier {actual}", path.exists, lambda: make(actual, path)
        )

    def _load_classifier(self, actual: str) -> models.Classifier:
        if is_pretrained("classifier", actual):
            return cast(models.Classifier, load_pretrained(actual))
        return models.Classifier.load(
            self._path(actual), image_shape=self._image_shape, resize=True
        )

    def _train_classifier(self, name: str, path: Path) -> None:
        config, dataset, settings, initial = self._recipes.classifier(name)
        limit = self._recipes.train_limit
        train_classifier(
            config, dataset, path, settings, initial=initial, limit=limit
        )

    def _import_application(self, name: str, path: Path) -> None:
        weights = self._weights.get(name, "imagenet")
        try:
            network = models.application(name, weights=weights)
        except FileNotFoundError as error:
            raise MissingDataError(str(error)) from error
        classifier = models.Classifier.from_keras(
            network, image_shape=self._image_shape, resize=True
        )
        classifier.save(path)

    def _train_purifier(self) -> None:
        target = self._path(self.actual(SETTINGS[self._recipes.dataset].fgsm))
        workdir = self._workdir / "purifier"
        self._recipes.purifier_run(workdir, target).execute()


def _given(name: str) -> Stage:
    """What the caller named: there is nothing to make."""
    return Stage(name, lambda: True, lambda: None)


def _digest(path: Path) -> str:
    """The SHA-256 of a file, or that there is none."""
    if not path.is_file():
        return "missing"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_trainable(name: str) -> bool:
    """Whether it is one of the paper's, or that one adversarially trained."""
    return name.removesuffix(HARDENED) in models.TARGETS


def can_be_made(name: str) -> bool:
    """Whether it can be trained or downloaded, or is a path if not."""
    return is_trainable(name) or name in models.APPLICATIONS
