"""Loads the trained networks that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

import keras

import models
from ape_gan_tf.pretrained_models import FOLDER, load_network
from ape_gan_tf.purifier import Purifier


def load_pretrained(
    name: str, *, folder: Path = FOLDER
) -> models.Classifier | Purifier:
    """Loads a trained network that comes with the package.

    Args:
        name: Such as "target_c" or "ape_gan_m"; each has a model card,
            `pretrained/NAME.md`.
        folder: Where the files are; for a release of one's own.

    Returns:
        The classifier or the purifier, in float32, with its `keras_model`.

    Raises:
        ValueError: The name is unknown (the message lists those known), or
            a file is damaged.
    """
    return wrap(*load_network(name, folder=folder))


def wrap(kind: str, model: keras.Model) -> models.Classifier | Purifier:
    """The model as what it is."""
    if kind == "classifier":
        return models.Classifier.from_keras(model)
    return Purifier.from_keras(model)
