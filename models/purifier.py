"""Purifiers: image-to-image networks in front of a classifier."""

import os
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from models import network, saved_model

KERAS_NAME = "purifier.keras"
ENDPOINTS = ("purify", "serving_default", "serve")

# Rounding in half precision may step over an end of the range.
_TOLERANCE = 1e-3


class Purifier(network.ImageNetwork):
    """A function from images in [0, 1] to images of the same shape."""

    def __init__(self, source: network.Network) -> None:
        super().__init__(source, source.image_shape)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        image_shape: Sequence[int] | None = None,
        endpoint: str | None = None,
    ) -> "Purifier":
        """Loads a Keras file or a SavedModel.

        A SavedModel is a program: load only those that you trust. A Keras
        file is loaded in safe mode, which runs no code of its own.

        Args:
            path: A `.keras` file; a SavedModel directory; a directory that
                holds `purifier.keras`, or numbered versions of a
                SavedModel, of which the newest is taken.
            image_shape: Height, width and channels, where the model leaves
                them open.
            endpoint: The signature of a SavedModel; by default "purify",
                "serving_default" or "serve". Of several outputs "purified"
                is taken.

        Returns:
            The purifier.

        Raises:
            FileNotFoundError: If there is no model at `path`.
            ValueError: If it is damaged, or not from images to images of
                the same shape in [0, 1].
        """
        found = network.locate(
            path, KERAS_NAME, prefer_saved_model=endpoint is not None
        )
        if found.endswith(".keras"):
            return cls.from_keras(
                network.load_keras(found), image_shape=image_shape
            )
        source = saved_model.load(
            found,
            endpoints=ENDPOINTS,
            output="purified",
            endpoint=endpoint,
            image_shape=image_shape,
        )
        return _checked(source, image_shape)

    @classmethod
    def from_keras(
        cls, model: keras.Model, *, image_shape: Sequence[int] | None = None
    ) -> "Purifier":
        """Makes a purifier of a Keras model, whose weights it shares.

        Args:
            model: From one batch of images to one of the same shape.
            image_shape: Height, width and channels, where the model leaves
                them open.

        Returns:
            The purifier.

        Raises:
            ValueError: If the model is not from images to images of the
                same shape in [0, 1].
        """
        return _checked(network.from_keras(model, image_shape), image_shape)

    @classmethod
    def from_callable(
        cls,
        function: Callable[[tf.Tensor], tf.Tensor],
        *,
        image_shape: Sequence[int],
        fingerprint: str,
    ) -> "Purifier":
        """Makes a purifier of any differentiable function.

        Args:
            function: From float32 images `[B, *image_shape]` in [0, 1] to
                the same. It is not called here.
            image_shape: Height, width and channels.
            fingerprint: What tells it from other functions.

        Returns:
            The purifier.

        Raises:
            ValueError: If an argument does not fit.
        """
        return cls(network.from_callable(function, image_shape, fingerprint))


def _checked(source, image_shape):
    shape = source.image_shape
    if image_shape is not None and tuple(image_shape) != shape:
        raise ValueError(
            f"image_shape must be {shape}, the shape of purifier "
            f"{source.name}, got {tuple(image_shape)}"
        )
    images = network.probe(shape)
    outputs = source.function(images)
    found = getattr(outputs, "shape", type(outputs).__name__)
    if not tf.is_tensor(outputs) or outputs.shape != images.shape:
        raise ValueError(
            f"purifier {source.name} must return images of the shape that it "
            f"is given, {images.shape}, got {found}"
        )
    low, high = float(tf.reduce_min(outputs)), float(tf.reduce_max(outputs))
    # Written so that NaN fails too.
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise ValueError(
            f"purifier {source.name} must return images in [0, 1], got "
            f"values from {low:.4g} to {high:.4g}"
        )
    return Purifier(source)
