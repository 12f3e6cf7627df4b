"""How `reproduce` trains what it needs: the flagfiles that ship."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

import data
import models
from ape_gan_tf import command_line, flag_groups, train, train_classifier
from ape_gan_tf.classifier_training import ClassifierConfig
from ape_gan_tf.paper import HARDENED
from ape_gan_tf.run import Run
from ape_gan_tf.training_loop import LoopSettings

PURIFIERS = {
    "mnist": "mnist_sparse.flags",
    "cifar10": "cifar10.flags",
    "image_folder": "imagenet.flags",
}
# Where the images are, how often it is saved and on what it is measured.
_NOT_DECIDING = (
    "attacks",
    "checkpoint_every",
    "classifier",
    "data_dir",
    "debug",
    "epsilons",
    "eval_limit",
    "eval_split",
    "flagfile",
    "help",
    "image_dir",
    "noise_variance",
    "threat_models",
    "undefok",
    "workdir",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipes:
    """The recipes of one reproduction.

    Attributes:
        dataset: Name of the dataset.
        seed: Of everything.
        data_flags: `data_dir`, `image_dir`, where they are given.
        purifier: The flagfile of the purifier, as for `train`.
        train_limit: Train on the first so many images only.
        epochs: Of the purifier, in place of the recipe's.
        classifier_epochs: Of each classifier, in place of the recipe's.
    """

    dataset: str
    seed: int
    data_flags: Mapping[str, str]
    purifier: str
    train_limit: int | None = None
    epochs: int | None = None
    classifier_epochs: int | None = None

    def flagfile(self, classifier: str) -> str:
        """The flagfile of a classifier of the paper, for train_classifier."""
        zoo_name = classifier.removesuffix(HARDENED)
        return f"{self.dataset}_target_{zoo_name.lower()}.flags"

    def describe(self, classifiers: Sequence[str]) -> dict[str, Any]:
        """All that decides what is trained, to compare with."""
        recipes = {
            **{name: self._classifier_flags(name) for name in classifiers},
            "purifier": self._purifier_flags(Path("-"), Path("-")),
        }
        return {
            recipe: {
                name: values[name].value
                for name in values
                if name not in _NOT_DECIDING
            }
            for recipe, values in recipes.items()
        }

    def classifier(
        self, name: str
    ) -> tuple[
        ClassifierConfig,
        data.Dataset,
        LoopSettings,
        models.Classifier | None,
    ]:
        """How to train a classifier of the paper, on what, from what on."""
        values = self._classifier_flags(name)
        return (
            flag_groups.classifier_config(values, values.classifier),
            flag_groups.load_dataset(values),
            flag_groups.loop_settings(values, f"training {name}", values.xla),
            flag_groups.initial_classifier(values),
        )

    def test_dataset(self) -> data.Dataset:
        """The images to measure on; the purifier's recipe gives their size."""
        return flag_groups.load_dataset(
            self._purifier_flags(Path("-"), Path("-"))
        )

    def purifier_run(self, workdir: Path, classifier: Path) -> Run:
        """The run of `train` that makes the purifier."""
        return train.build_run(self._purifier_flags(workdir, classifier))

    def _classifier_flags(self, name: str) -> flags.FlagValues:
        return self._parse(
            train_classifier.define_flags,
            self.flagfile(name),
            adversarial_training=name.endswith(HARDENED) or None,
            epochs=self.classifier_epochs,
        )

    def _purifier_flags(
        self, workdir: Path, classifier: Path
    ) -> flags.FlagValues:
        return self._parse(
            train.define_flags,
            self.purifier,
            workdir=workdir,
            classifier=classifier,
            epochs=self.epochs,
            # The tables measure it; here it is only seen to work.
            attacks="",
        )

    def _parse(
        self,
        define_flags: Callable[[flags.FlagValues], None],
        flagfile: str,
        **overrides: Any,
    ) -> flags.FlagValues:
        values = flags.FlagValues()
        define_flags(values)
        overrides |= {
            "dataset": self.dataset,
            "seed": self.seed,
            "limit": self.train_limit,
            **self.data_flags,
        }
        words = [
            f"--{name}={value}"
            for name, value in overrides.items()
            if value is not None
        ]
        command_line.parse(values, ["", f"--flagfile={flagfile}", *words])
        return values
