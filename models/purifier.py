"""Purifiers: image-to-image networks in front of a classifier."""

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import keras
import tensorflow as tf

from models import in_front_of, network, saved_model

KERAS_NAME = "purifier.keras"
ENDPOINTS = ("purify", "serving_default", "serve")

# Rounding in half precision may step over an end of the range.
_TOLERANCE = 1e-3

_Self = TypeVar("_Self", bound="Purifier")


class Purifier(network.ImageNetwork):
    """A function from images in [0, 1] to images of the same shape."""

    def __init__(self, source: network.Network) -> None:
        super().__init__(source, source.image_shape)

    @classmethod
    def load(
        cls: type[_Self],
        path: str | os.PathLike[str],
        *,
        image_shape: Sequence[int] | None = None,
        endpoint: str | None = None,
    ) -> _Self:
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
        return cls(_checked(source, image_shape))

    @classmethod
    def from_keras(
        cls: type[_Self],
        model: keras.Model,
        *,
        image_shape: Sequence[int] | None = None,
    ) -> _Self:
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
        source = network.from_keras(model, image_shape)
        return cls(_checked(source, image_shape))

    @classmethod
    def from_callable(
        cls: type[_Self],
        function: Callable[[tf.Tensor], tf.Tensor],
        *,
        image_shape: Sequence[int],
        fingerprint: str,
    ) -> _Self:
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

    def in_front_of(
        self,
        classifier: keras.Model,
        *,
        value_range: tuple[float, float] = (0.0, 1.0),
        dtype: str = "float32",
        image_shape: Sequence[int] | None = None,
        resize: bool = False,
        name: str | None = None,
    ) -> keras.Model:
        """Returns a Keras model: this purifier, then a Keras classifier.

        It takes images as the classifier does, and brings them to [0, 1]
        and to the purifier's size and back by layers of its own, each only
        where it is needed. All layers are Keras's, so that its `.keras` file
        loads without this package; Keras has none that looks at the values
        of pixels, so those outside `value_range` are not noticed.

        The classifier is not altered, and its weights are shared. The
        purifier is a copy that is not trainable: `fit` trains the classifier
        behind it, and the purifier's batch normalisation still runs on its
        moving averages.

        Args:
            classifier: A functional or Sequential model with one input, of
                floating point, and one output: logits, probabilities or
                whatever it returns. If it is compiled, what is returned is
                compiled like it, with a fresh optimizer and metrics, or,
                where these are such that Keras cannot copy them, there is a
                warning.
            value_range: The lowest and highest value of the images, which
                is what the classifier expects too; checked against its
                first layer, if that is a `Rescaling`.
            dtype: Of the images: "float32", or "uint8" where value_range
                is (0, 255). The latter has no gradient with respect to
                them, and Keras cuts floats that it is given to integers.
            image_shape: Height, width and channels of the images; by
                default, with `resize` those of the classifier's input if it
                has fixed ones, else the purifier's.
            resize: Allows sizes to differ. Images are then resized,
                bilinear, to the purifier's size, and its answer to that of
                the classifier, or back where the classifier takes any.
            name: Of the model; by default says what is behind what.

        Returns:
            A functional model from images `[B, *image_shape]`, the input
            "images", to the classifier's output.

        Raises:
            ValueError: If an argument does not fit, or this purifier is
                from a SavedModel or a function, or no copy can be made.
        """
        return in_front_of.in_front_of(
            self,
            classifier,
            value_range=value_range,
            dtype=dtype,
            image_shape=image_shape,
            resize=resize,
            name=name,
        )


def _checked(source, image_shape):
    """Returns `source` if it is a purifier's."""
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
    return source
