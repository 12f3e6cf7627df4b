"""A purifier as a versioned SavedModel for TF Serving.

A server merges requests into one batch, so an image that is not finite or
leaves [0, 1] must not fail its neighbours: it gets `valid` = false and a zero
answer, all computed inside the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

import models
import models.saved_model
from data.checks import check_positive_integer
from data.files import written_whole

Endpoint = Callable[[tf.Tensor], dict[str, tf.Tensor]]


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
        ValueError: The version is there already, sizes do not fit, or the
            purifier is a plain function.
    """
    check_positive_integer(version, "version")
    if purifier.identity is None:
        raise ValueError(
            f"purifier {purifier.name} is a function: only one from a Keras "
            "model or a SavedModel can be exported"
        )
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
    trackables = purifier.trackables
    if classifier is not None:
        trackables += classifier.trackables
    with written_whole(path, overwrite=False) as temporary:
        models.saved_model.save(
            temporary,
            endpoints(purifier, classifier),
            purifier.image_shape,
            identity=purifier.identity,
            name=purifier.name,
            trackables=trackables,
        )
    return path


def endpoints(
    purifier: models.Purifier, classifier: models.Classifier | None = None
) -> dict[str, Endpoint]:
    """The functions that a server offers, by name."""

    def purify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        in_box = tf.math.is_finite(images) & (images >= 0.0) & (images <= 1.0)
        valid = tf.reduce_all(in_box, axis=[1, 2, 3])
        purified = purifier(_where(valid, images))
        return {"purified": _where(valid, purified), "valid": valid}

    named: dict[str, Endpoint] = {"serving_default": purify, "purify": purify}
    if classifier is None:
        return named

    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = purify(images)
        valid = outputs["valid"]
        logits = classifier(outputs["purified"])
        return {
            **outputs,
            "logits": _where(valid, logits),
            "probabilities": _where(valid, tf.nn.softmax(logits)),
            "class": _where(valid, tf.argmax(logits, axis=-1)),
        }

    return {**named, "classify": classify}


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
