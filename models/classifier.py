"""Classifiers: any callable from images to logits."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data import checks, files
from models import (
    adapters,
    fingerprint,
    first_rescaling,
    network,
    purifier,
    saved_model,
    shapes,
    softmax,
)

KERAS_NAME = "classifier.keras"
ENDPOINTS = ("logits", "serving_default", "serve")
OUTPUTS = ("logits", "probabilities")


class Classifier(network.ImageNetwork):
    """A function from images in [0, 1] to logits, and what it is.

    Make one with `load`, `from_keras`, `from_callable` or `behind`.

    Attributes:
        num_classes: Number of classes K.
        base: Of a defended classifier the bare one, else None.
        purifier: What stands in front of `base`, else None.
    """

    def __init__(
        self,
        source: network.Network,
        num_classes: int,
        *,
        base: "Classifier | None" = None,
        purifier: Any = None,
    ) -> None:
        super().__init__(source, (num_classes,))
        self.num_classes = num_classes
        self.base = base
        self.purifier = purifier

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        output: str | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        image_shape: Sequence[int] | None = None,
        resize: bool = False,
        endpoint: str | None = None,
    ) -> "Classifier":
        """Loads a Keras file or a SavedModel, ours or a stranger's.

        A SavedModel is a program: load only those that you trust. A Keras
        file is loaded in safe mode, which runs no code of its own.

        Args:
            path: A `.keras` file; a SavedModel directory; a directory that
                holds `classifier.keras`, or numbered versions of a
                SavedModel, of which the newest is taken.
            output: "logits" or "probabilities"; None finds out. A Keras
                model's final softmax is removed in any case.
            value_range: The lowest and highest value that the model expects
                of images that are in [0, 1] here.
            image_shape: Height, width and channels of the images here,
                where they are not the model's own, or it leaves them open.
            resize: Resizes images to the model's own size, bilinear.
            endpoint: The signature of a SavedModel; by default "logits",
                "serving_default" or "serve".

        Returns:
            The classifier.

        Raises:
            FileNotFoundError: If there is no model at `path`.
            ValueError: If it is damaged, or not a classifier of such images,
                or its output is not what `output` says.
        """
        if output is not None:
            checks.check_one_of(output, OUTPUTS, "output")
        found = network.locate(
            path, KERAS_NAME, prefer_saved_model=endpoint is not None
        )
        if found.endswith(".keras"):
            return cls.from_keras(
                network.load_keras(found),
                output=output,
                value_range=value_range,
                image_shape=image_shape,
                resize=resize,
            )
        source = saved_model.load(
            found,
            endpoints=ENDPOINTS,
            output="logits",
            endpoint=endpoint,
            image_shape=image_shape,
        )
        return _adapted(source, output, value_range, image_shape, resize)

    @classmethod
    def from_keras(
        cls,
        model: keras.Model,
        *,
        output: str | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        image_shape: Sequence[int] | None = None,
        resize: bool = False,
    ) -> "Classifier":
        """Makes a classifier of a Keras model.

        The model itself is not altered. The classifier shares its weights,
        so that training goes on to be seen, unless a softmax had to be
        removed: then it has a copy of them.

        Args:
            model: From one batch of images to one batch of logits or
                probabilities.
            output: See `load`; so are the other arguments.
            value_range: See `load`.
            image_shape: See `load`.
            resize: See `load`.

        Returns:
            The classifier.

        Raises:
            ValueError: See `load`.
        """
        if output is not None:
            checks.check_one_of(output, OUTPUTS, "output")
        source = network.from_keras(model, image_shape)
        stripped = softmax.strip(
            source.keras_model, network.probe(source.image_shape)
        )
        if stripped is not None:
            source = network.from_keras(stripped)
            output = "logits"
        return _adapted(source, output, value_range, image_shape, resize)

    @classmethod
    def from_callable(
        cls,
        function: Callable[[tf.Tensor], tf.Tensor],
        *,
        image_shape: Sequence[int],
        num_classes: int,
        fingerprint: str,
    ) -> "Classifier":
        """Makes a classifier of any differentiable function.

        The function is not called here, and cannot be saved.

        Args:
            function: From float32 images `[B, *image_shape]` in [0, 1] to
                float32 logits `[B, num_classes]`, of TensorFlow operations.
            image_shape: Height, width and channels.
            num_classes: Number of classes.
            fingerprint: What tells it from other functions.

        Returns:
            The classifier.

        Raises:
            ValueError: If an argument does not fit.
        """
        source = network.from_callable(function, image_shape, fingerprint)
        checks.check_positive_integer(num_classes, "num_classes")
        return cls(source, num_classes)

    def behind(self, purifier: Any) -> "Classifier":
        """Returns the defended classifier: this one after a purifier.

        Args:
            purifier: A `Purifier`, or any differentiable function from
                images to images of the same shape. One without a
                fingerprint makes a classifier whose fingerprint is like no
                other.

        Returns:
            The classifier, differentiable end to end, with `base` and
            `purifier`.

        Raises:
            ValueError: If the purifier is for images of another shape.
        """
        return _behind(self, purifier)

    def save(
        self, directory: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Writes a SavedModel directory with the Keras model in it.

        The SavedModel has the endpoints "logits" and "serving_default",
        from `images` `[B, H, W, C]` of any B to `logits` `[B, K]`. A Keras
        classifier is in `classifier.keras` too. All preprocessing is
        inside, and what is loaded again has the same fingerprint.

        Args:
            directory: The directory to make; it appears only when whole.
            overwrite: Replaces an existing directory.

        Raises:
            FileExistsError: If `directory` exists and `overwrite` is false.
            ValueError: If this is a plain function, or a defended
                classifier.
        """
        source = self._network
        if source.identity is None:
            raise ValueError(
                f"classifier {self.name} is a function: only one from a "
                "Keras model or a SavedModel can be saved"
            )
        endpoint = saved_model.Endpoint(
            lambda images: {"logits": self(images)},
            saved_model.images_spec(self.image_shape),
        )
        with files.written_whole(directory, overwrite=overwrite) as partial:
            saved_model.save(
                partial,
                {"logits": endpoint},
                identity=source.identity,
                name=self.name,
                trackables=self.trackables,
            )
            if self.keras_model is not None:
                self.keras_model.save(os.path.join(partial, KERAS_NAME))


def _adapted(source, output, value_range, image_shape, resize):
    """Puts the layers around a model that make it a classifier."""
    value_range = checks.check_value_range(value_range, "value_range")
    if source.keras_model is not None:
        first_rescaling.check_value_range(source.keras_model, value_range)
    outer, size = _fit(source, image_shape, resize)
    adapted = adapters.Adapters(value_range, size).apply(source, outer)
    outputs = _probe(adapted)
    if _returns_probabilities(source.name, outputs, output):
        warnings.warn(
            f"classifier {source.name} returns probabilities: log(softmax) "
            "in float32 saturates and masks gradients, so attacks on it are "
            "weaker than attacks on its logits",
            stacklevel=4,
        )
        adapted = adapters.Adapters(
            value_range, size, probabilities=True
        ).apply(source, outer)
    return Classifier(adapted, outputs.shape[1])


def _fit(source, image_shape, resize):
    """Returns the shape outside, and the size to resize to or None."""
    inner = source.image_shape
    if image_shape is None:
        return inner, None
    outer = shapes.check_image_shape(image_shape)
    if outer[2] != inner[2]:
        raise ValueError(
            f"image_shape must have the {inner[2]} channels of model "
            f"{source.name}, got {outer}"
        )
    if outer == inner:
        return inner, None
    if not resize:
        raise ValueError(
            f"image_shape must be {inner}, the shape of model {source.name}, "
            f"got {outer}; pass resize=True (on the command line "
            "--classifier_resize) to resize inside the classifier"
        )
    return outer, inner[:2]


def _probe(source):
    """Returns the output for a few images, if it is that of a classifier."""
    outputs = source.function(network.probe(source.image_shape))
    if not tf.is_tensor(outputs) or outputs.shape.rank != 2:
        found = getattr(outputs, "shape", type(outputs).__name__)
        raise ValueError(
            f"classifier {source.name} must return one tensor [B, K] of "
            f"logits, got {found}"
        )
    outputs = tf.cast(outputs, tf.float32).numpy()
    count, num_classes = outputs.shape
    if count != network.PROBE_IMAGES or num_classes < 2:
        raise ValueError(
            f"classifier {source.name} must return [B, K] with at least 2 "
            f"classes, got {outputs.shape} for {network.PROBE_IMAGES} images"
        )
    if not np.isfinite(outputs).all():
        raise ValueError(
            f"classifier {source.name} must return finite values, got NaN or "
            "infinity for random images"
        )
    return outputs


def _returns_probabilities(name, outputs, output):
    """Compares what the outputs look like with what the caller said."""
    sums = outputs.sum(axis=1)
    # 1e-3 because half precision sums are that far off.
    looks = outputs.min() >= 0 and np.allclose(sums, 1.0, atol=1e-3)
    if looks and output != "probabilities":
        raise ValueError(
            f"the output of classifier {name} looks like probabilities, "
            f"expected {output or 'logits'}: pass output='probabilities' "
            "(on the command line classifier_output=probabilities), or "
            "better a model without its softmax"
        )
    if not looks and output == "probabilities":
        raise ValueError(
            f"the output of classifier {name} must be probabilities, got "
            f"values from {outputs.min():.4g} to {outputs.max():.4g} whose "
            f"sums are {sums.min():.4g} to {sums.max():.4g}: pass "
            "output='logits' (on the command line classifier_output=logits)"
        )
    return output == "probabilities"


def _behind(base, defence):
    if not callable(defence):
        raise ValueError(f"purifier must be callable, got {defence!r}")
    if isinstance(defence, keras.Model):
        defence = purifier.Purifier.from_keras(defence)
    shape = getattr(defence, "image_shape", base.image_shape)
    if tuple(shape) != base.image_shape:
        raise ValueError(
            f"purifier must be for images of shape {base.image_shape}, the "
            f"shape of classifier {base.name}, got {tuple(shape)}"
        )
    name = getattr(defence, "name", getattr(defence, "__name__", "purifier"))
    purify = (
        defence
        if isinstance(defence, network.ImageNetwork)
        else network.rewritten_in_graphs(defence)
    )
    unknown = network.unknown_fingerprint()

    def digest():
        own = getattr(defence, "fingerprint", unknown)
        return fingerprint.defended(base.fingerprint, own)

    source = network.Network(
        function=lambda images: base(purify(images)),
        image_shape=base.image_shape,
        name=f"{base.name}_behind_{name}",
        identity=None,
        given_fingerprint=digest,
        trackables=base.trackables + getattr(defence, "trackables", ()),
    )
    return Classifier(source, base.num_classes, base=base, purifier=defence)
