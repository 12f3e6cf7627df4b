"""What classifiers and purifiers share: a function of a batch of images."""

import dataclasses
import functools
import os
import uuid
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data import checks
from models import fingerprint, input_gradients, shapes

PROBE_IMAGES = 4


@dataclasses.dataclass(frozen=True)
class Network:
    """A function of a batch of images, and where it came from.

    Attributes:
        function: From float32 images `[B, *image_shape]` to a batch.
        image_shape: Height, width and channels.
        name: For messages and reports.
        identity: Digest of what is computed, the weights aside; None for a
            function that cannot be saved.
        weights: Returns the arrays that are computed with.
        keras_model: The Keras model that `function` calls, if it is one.
        trackables: TensorFlow objects that own the weights.
        given_fingerprint: Returns the fingerprint of a function whose
            weights are not known.
    """

    function: Callable[[tf.Tensor], tf.Tensor]
    image_shape: tuple[int, int, int]
    name: str
    identity: str | None
    weights: Callable[[], Sequence[np.ndarray]] = tuple
    keras_model: keras.Model | None = None
    trackables: tuple[Any, ...] = ()
    given_fingerprint: Callable[[], str] | None = None

    @property
    def fingerprint(self) -> str:
        """Digest of the identity and of the weights as they are now."""
        if self.given_fingerprint is not None:
            return self.given_fingerprint()
        return fingerprint.combine(
            str(self.identity), fingerprint.of_weights(self.weights())
        )


class ImageNetwork:
    """The base class of `Classifier` and `Purifier`."""

    def __init__(self, network: Network, output_shape: Sequence[int]) -> None:
        self._network = network
        self._output_shape = tuple(output_shape)
        spec = tf.TensorSpec((None, *network.image_shape), tf.float32)
        # A partial: TensorFlow counts the traces of one piece of code, and
        # would warn of the fifth network's.
        self._compiled = tf.function(
            functools.partial(self.__call__),
            input_signature=[spec],
            autograph=False,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that it takes."""
        return self._network.image_shape

    @property
    def name(self) -> str:
        """The model's name, for messages and reports."""
        return self._network.name

    @property
    def fingerprint(self) -> str:
        """sha256, in hexadecimal, of the architecture and the weights.

        It is that of the weights as they are now, and takes a pass over
        them: keep it rather than ask again in a loop.
        """
        return self._network.fingerprint

    @property
    def identity(self) -> str | None:
        """The fingerprint's part without the weights; None for a function.

        `saved_model.save` writes it beside what is exported.
        """
        return self._network.identity

    @property
    def keras_model(self) -> keras.Model | None:
        """The Keras model, from [0, 1] images to the output, if it is one."""
        return self._network.keras_model

    @property
    def trackables(self) -> tuple[Any, ...]:
        """The TensorFlow objects that own the weights, to export with."""
        return self._network.trackables

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Computes the output, in inference mode and without any checks.

        Differentiable, and usable inside a `tf.function`.

        Args:
            images: float32 `[B, *image_shape]` in [0, 1].

        Returns:
            float32 output, one row per image.
        """
        return tf.cast(self._network.function(images), tf.float32)

    def predict(self, images: Any, batch_size: int = 128) -> np.ndarray:
        """Computes the output of many images, compiled, batch by batch.

        Args:
            images: float32 array or tensor `[B, *image_shape]` in [0, 1]; B
                may be 0.
            batch_size: How many images are computed at once.

        Returns:
            float32 array, one row per image.

        Raises:
            ValueError: If the images are anything else, or the output does
                not have the expected shape.
        """
        images = checks.check_images(images, image_shape=self.image_shape)
        batch_size = checks.check_positive_integer(batch_size, "batch_size")
        # Of no images too the output has a shape, which one image shows: an
        # empty batch gets a wrong one from oneDNN's convolutions.
        some = images if len(images) else np.zeros((1, *self.image_shape), "f4")
        batches = [
            self._compiled(some[start : start + batch_size]).numpy()
            for start in range(0, len(some), batch_size)
        ]
        outputs = np.concatenate(batches)
        if not len(images):
            outputs = outputs[:0]
        expected = (len(images), *self._output_shape)
        if outputs.shape != expected:
            raise ValueError(
                f"{self.name} must return shape {expected} for "
                f"{len(images)} images, got {outputs.shape}"
            )
        return outputs

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, "
            f"image_shape={self.image_shape})"
        )


def from_keras(
    model: keras.Model, image_shape: Sequence[int] | None = None
) -> Network:
    """Makes a network of a Keras model with one input and one output.

    Args:
        model: Functional, Sequential or subclassed. Its weights are shared.
        image_shape: Height, width and channels, where the model leaves them
            open.

    Returns:
        The network; its Keras model has a fixed image shape.

    Raises:
        ValueError: If the model's inputs or outputs do not fit.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"model must be a keras.Model, got {type(model).__name__}"
        )
    inputs = list(getattr(model, "inputs", None) or [])
    outputs = list(getattr(model, "outputs", None) or [])
    if len(inputs) > 1 or len(outputs) > 1:
        raise ValueError(
            f"model {model.name} must have one input and one output, "
            f"got {len(inputs)} and {len(outputs)}"
        )
    if inputs and not tf.as_dtype(inputs[0].dtype).is_floating:
        raise ValueError(
            f"model {model.name} must take floating point images, got "
            f"{inputs[0].dtype}: a cast to integers has no gradient"
        )
    own_shape = tuple(inputs[0].shape[1:]) if inputs else None
    shape = resolve_image_shape(f"model {model.name}", own_shape, image_shape)
    if shape != own_shape:
        images = keras.Input(shape, name="images")
        model = keras.Model(images, model(images), name=model.name)
    return Network(
        function=functools.partial(
            input_gradients.accelerate(model), training=False
        ),
        image_shape=shape,
        name=model.name,
        identity=fingerprint.of_keras_architecture(model),
        weights=lambda: [
            keras.ops.convert_to_numpy(weight) for weight in model.weights
        ],
        keras_model=model,
        trackables=(model,),
    )


def from_callable(
    function: Callable[[tf.Tensor], tf.Tensor],
    image_shape: Sequence[int],
    given_fingerprint: str,
) -> Network:
    """Makes a network of a function, which is not called here.

    Raises:
        ValueError: If an argument does not fit.
    """
    if not callable(function):
        raise ValueError(f"function must be callable, got {function!r}")
    if not isinstance(given_fingerprint, str) or not given_fingerprint:
        raise ValueError(
            "fingerprint must be a string that tells the function from "
            f"others, got {given_fingerprint!r}"
        )
    return Network(
        function=rewritten_in_graphs(function),
        image_shape=shapes.check_image_shape(image_shape),
        name=getattr(function, "__name__", type(function).__name__),
        identity=None,
        given_fingerprint=lambda: given_fingerprint,
    )


def rewritten_in_graphs(
    function: Callable[[tf.Tensor], tf.Tensor],
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A user's function, whose `if` and `while` may be of tensors.

    In a graph AutoGraph rewrites it. For the package's own functions, which
    have no such lines, that took some seconds of a command, so that their
    graphs do without.
    """

    def call(images: tf.Tensor) -> tf.Tensor:
        if tf.executing_eagerly():
            return function(images)
        # A partial: see ImageNetwork. Not of the function itself, or its
        # arguments with defaults would be traced as inputs.
        return tf.function(functools.partial(_call, function))(images)

    return call


def _call(
    function: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor
) -> tf.Tensor:
    return function(images)


def unknown_fingerprint() -> str:
    """Returns a fingerprint that equals no other.

    A function that says nothing about itself must never be taken for
    another one, so its results are never found again either.
    """
    return uuid.uuid4().hex


def resolve_image_shape(
    where: str,
    own_shape: Sequence[int | None] | None,
    image_shape: Sequence[int] | None,
) -> tuple[int, int, int]:
    """Fills the sizes that a model leaves open from `image_shape`.

    Args:
        where: Names the model in messages.
        own_shape: The model's height, width and channels, None where open;
            None when the model says nothing.
        image_shape: What the caller said, or None.

    Returns:
        Height, width and channels. A size that the model fixes wins.

    Raises:
        ValueError: If a size is known from neither, or the model does not
            take images.
    """
    own: tuple[int | None, ...] = (None, None, None)
    if own_shape is not None:
        own = tuple(own_shape)
    if len(own) != 3:
        raise ValueError(
            f"{where} must take images [B, H, W, C], "
            f"got an input of shape {(None, *own)}"
        )
    given = own
    if image_shape is not None:
        given = shapes.check_image_shape(image_shape)
    shape = [
        other if mine is None else mine
        for mine, other in zip(own, given, strict=True)
    ]
    sizes = [size for size in shape if size is not None]
    if len(sizes) < 3:
        raise ValueError(
            f"{where} leaves its image shape open, {own}: pass image_shape"
        )
    return shapes.check_image_shape(sizes)


def locate(
    path: str | os.PathLike[str],
    keras_name: str,
    *,
    prefer_saved_model: bool = False,
) -> str:
    """Finds the Keras file or the SavedModel that a path means.

    Args:
        path: A `.keras` file, a SavedModel directory, a directory that
            holds `keras_name`, or one of numbered versions.
        keras_name: For example "classifier.keras".
        prefer_saved_model: Which one to take where both are.

    Returns:
        The path of a `.keras` file or of a SavedModel directory.

    Raises:
        FileNotFoundError: If there is nothing of the kind.
        ValueError: If the path is a file of another kind.
    """
    path = os.fspath(path)
    if os.path.isfile(path):
        if path.endswith(".keras"):
            return path
        raise ValueError(
            f"{path} must be a .keras file or a SavedModel directory"
        )
    if not os.path.isdir(path):
        raise FileNotFoundError(f"there is no model at {path}")
    names = [keras_name, "saved_model.pb"]
    if prefer_saved_model:
        names.reverse()
    for folder in [path, *_versions(path)]:
        for name in names:
            file = os.path.join(folder, name)
            if os.path.isfile(file):
                return file if name == keras_name else folder
    raise FileNotFoundError(
        f"{path} holds no model: looked for {keras_name}, saved_model.pb and "
        "numbered versions of a SavedModel"
    )


def _versions(path):
    """Lists the numbered folders in a directory, the newest first."""
    names = [name for name in os.listdir(path) if name.isdecimal()]
    names.sort(key=int, reverse=True)
    return [os.path.join(path, name) for name in names]


def load_keras(path: str) -> keras.Model:
    """Loads a `.keras` file in safe mode, so without running its code.

    Raises:
        ValueError: If the file is damaged or cannot be loaded safely.
    """
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    # Keras reports a damaged file in many ways.
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"{path} is not a readable Keras model: {error}"
        ) from error


def probe(image_shape: Sequence[int]) -> tf.Tensor:
    """Returns a few random images in [0, 1], always the same ones."""
    generator = np.random.default_rng(0)
    size = (PROBE_IMAGES, *image_shape)
    return tf.constant(generator.random(size, dtype=np.float32))
