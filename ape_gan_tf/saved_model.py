"""A purifier as a versioned SavedModel for TF Serving."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import tensorflow as tf

import models
from ape_gan_tf.files import write_atomically
from data.checks import check_positive_integer
from models.saved_model import write_details


class ServedPurifier(tf.Module):
    """The functions that a server offers.

    A server merges requests into one batch, so an image that is not finite or
    leaves [0, 1] must not fail its neighbours: it gets `valid` = false and a
    zero answer, all computed inside the graph.

    Args:
        purifier: Needs a Keras model behind it.
        classifier: Where given, there is a `classify` too.
    """

    def __init__(
        self,
        purifier: models.Purifier,
        classifier: models.Classifier | None = None,
    ) -> None:
        super().__init__(name="served_purifier")
        self._purifier = purifier
        # Tracked, so that the variables are saved.
        self.networks = [
            network.trackables for network in (purifier, classifier) if network
        ]
        images = tf.TensorSpec(
            [None, *purifier.image_shape], tf.float32, name="images"
        )
        self.purify = tf.function(self._purify, input_signature=[images])
        if classifier is not None:
            self.classify = tf.function(
                functools.partial(self._classify, classifier),
                input_signature=[images],
            )

    def signatures(self) -> dict[str, Any]:
        """What a server calls, by name."""
        signatures = {"serving_default": self.purify, "purify": self.purify}
        if hasattr(self, "classify"):
            signatures["classify"] = self.classify
        return signatures

    def _purify(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        in_box = tf.math.is_finite(images) & (images >= 0.0) & (images <= 1.0)
        valid = tf.reduce_all(in_box, axis=[1, 2, 3])
        purified = self._purifier(_where(valid, images))
        return {"purified": _where(valid, purified), "valid": valid}

    def _classify(
        self, classifier: models.Classifier, images: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        outputs = self._purify(images)
        valid = outputs["valid"]
        logits = classifier(outputs["purified"])
        return {
            **outputs,
            "logits": _where(valid, logits),
            "probabilities": _where(valid, tf.nn.softmax(logits)),
            "class": _where(valid, tf.argmax(logits, axis=-1)),
        }


def export(
    purifier: models.Purifier,
    directory: Path,
    *,
    version: int = 1,
    classifier: models.Classifier | None = None,
) -> Path:
    """Writes `directory/version/`, whole or not at all.

    Signatures: `serving_default` = `purify` (`images` -> `purified`, `valid`)
    and, with a classifier, `classify` (`images` -> those and `logits`,
    `probabilities`, `class`). The batch dimension is free.

    Args:
        purifier: What to export.
        directory: Named after the model, as TF Serving wants it.
        version: A server takes the highest.
        classifier: Exported behind the purifier.

    Returns:
        The path of the version.

    Raises:
        ValueError: The version is there already, or sizes do not fit.
    """
    check_positive_integer(version, "version")
    path = directory / str(version)
    if path.exists():
        raise ValueError(
            f"version {version} exists at {path}: choose another --version, "
            "a server may be reading this one"
        )
    if classifier and classifier.image_shape != purifier.image_shape:
        raise ValueError(
            f"classifier takes images of {classifier.image_shape}, the "
            f"purifier makes {purifier.image_shape}"
        )
    module = ServedPurifier(purifier, classifier)

    def write(temporary: Path) -> None:
        tf.saved_model.save(
            module, str(temporary), signatures=module.signatures()
        )
        # So that it keeps its fingerprint when it is loaded again.
        write_details(
            str(temporary), identity=str(purifier.identity), name=purifier.name
        )

    write_atomically(path, write)
    return path


def next_version(directory: Path) -> int:
    """One more than the highest version in `directory`, or 1."""
    if not directory.is_dir():
        return 1
    names = [path.name for path in directory.iterdir()]
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


def _where(valid: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Zero for what is not valid; a product would let NaN through."""
    mask = tf.reshape(valid, [-1] + [1] * (values.shape.rank - 1))
    return tf.where(mask, values, tf.zeros_like(values))
