"""A purifier and a Keras classifier behind it, as one Keras model."""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from data import checks
from models import first_rescaling, network, shapes

DTYPES = ("float32", "uint8")
UNIT_RANGE = (0.0, 1.0)


def in_front_of(
    purifier: network.ImageNetwork,
    classifier: keras.Model,
    *,
    value_range: tuple[float, float],
    dtype: str,
    image_shape: Sequence[int] | None,
    resize: bool,
    name: str | None,
) -> keras.Model:
    """See `Purifier.in_front_of`, which hands itself over as `purifier`."""
    if purifier.keras_model is None:
        raise ValueError(
            f"purifier {purifier.name} must be a Keras model, to stand in "
            "front of one, got a SavedModel or a function: load its .keras "
            "file"
        )
    _check_classifier(classifier)
    value_range = _check_value_range(value_range, dtype)
    first_rescaling.check_value_range(classifier, value_range)
    outer, inner = _check_shapes(purifier, classifier, image_shape, resize)
    copy = _frozen_copy(purifier, {classifier.name})
    taken = {copy.name, classifier.name}

    images = keras.Input(outer, dtype=dtype, name=_free("images", taken))
    layers = [
        *_to_unit_range(value_range, taken),
        *_resizing("resize_to_purifier", outer, purifier.image_shape, taken),
        functools.partial(copy, training=False),
        *_resizing("resize_to_classifier", purifier.image_shape, inner, taken),
        *_from_unit_range(value_range, taken),
    ]
    pixels = images
    for layer in layers:
        pixels = layer(pixels)
    model = keras.Model(
        images,
        classifier(_structured(classifier, pixels)),
        name=name or f"{classifier.name}_behind_{purifier.name}",
    )
    _compile_like(classifier, model)
    return model


def _check_classifier(classifier):
    if not isinstance(classifier, keras.Model):
        raise ValueError(
            f"classifier must be a keras.Model, got {type(classifier).__name__}"
        )
    # A subclass, or a Sequential that was never called, has neither.
    inputs = getattr(classifier, "inputs", None) or []
    outputs = getattr(classifier, "outputs", None) or []
    if len(inputs) > 1 or len(outputs) > 1:
        raise ValueError(
            f"classifier {classifier.name} must have one input and one "
            f"output, got {len(inputs)} and {len(outputs)}"
        )
    if inputs and not tf.as_dtype(inputs[0].dtype).is_floating:
        raise ValueError(
            f"classifier {classifier.name} must take floating point images, "
            f"got {inputs[0].dtype}: purified images rounded to integers have "
            "no gradient"
        )


def _check_value_range(value_range, dtype):
    checks.check_one_of(dtype, DTYPES, "dtype")
    found = checks.check_value_range(value_range, "value_range")
    if dtype == "uint8" and found != (0.0, 255.0):
        raise ValueError(
            "value_range must be (0, 255) where dtype is uint8, got "
            f"{value_range!r}"
        )
    return found


def _check_shapes(purifier, classifier, image_shape, resize):
    """Returns the shapes of the images outside and at the classifier."""
    where = f"classifier {classifier.name}"
    inputs = getattr(classifier, "inputs", None)
    own = tuple(inputs[0].shape[1:]) if inputs else None
    outer = purifier.image_shape
    if image_shape is not None:
        outer = shapes.check_image_shape(image_shape)
    elif resize and own and None not in own:
        outer = shapes.check_image_shape(own)
    _check_shape("image_shape", outer, purifier, resize)
    # What takes any size gets the size that it would get alone.
    inner = network.resolve_image_shape(where, own, outer)
    _check_shape(f"the input of {where}", inner, purifier, resize)
    return outer, inner


def _check_shape(argument, shape, purifier, resize):
    expected = purifier.image_shape
    if shape[2] != expected[2]:
        raise ValueError(
            f"{argument} must have the {expected[2]} channels of purifier "
            f"{purifier.name}, got {shape}"
        )
    if shape != expected and not resize:
        raise ValueError(
            f"{argument} must be {expected}, the shape of purifier "
            f"{purifier.name}, got {shape}; pass resize=True to resize"
        )


def _frozen_copy(purifier, taken):
    """Copies a purifier's Keras model, under a name that is not taken.

    Only what is not trainable stays in inference mode in `fit`: Keras hands
    its `training` on to all layers, `training=False` of their call or not.
    The purifier itself may have to be trained further.
    """
    try:
        copy = keras.models.clone_model(purifier.keras_model)
    # Subclasses, and layers that their configuration cannot make again.
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"purifier {purifier.name} must be a model that Keras can copy, "
            f"got {error}"
        ) from error
    copy.set_weights(purifier.keras_model.get_weights())
    copy = keras.Model(
        copy.inputs[0], copy.outputs[0], name=_free(purifier.name, taken)
    )
    copy.trainable = False
    return copy


def _structured(model, images):
    """Images as a model takes them: its input may be in a list or a dict."""
    structure = getattr(model, "input", None)
    if structure is None:  # It was never called.
        return images
    return keras.tree.pack_sequence_as(structure, [images])


def _free(name, taken):
    """Returns `name`, or one like it if it is taken."""
    while name in taken:
        name += "_"
    return name


def _to_unit_range(value_range, taken):
    low, high = value_range
    scale = 1.0 / (high - low)
    return _rescaling("to_unit_range", value_range, scale, -low * scale, taken)


def _from_unit_range(value_range, taken):
    low, high = value_range
    return _rescaling("to_value_range", value_range, high - low, low, taken)


def _rescaling(name, value_range, scale, offset, taken):
    if value_range == UNIT_RANGE:
        return []
    # float32 whatever the precision policy: half of it rounds pixels away.
    return [
        keras.layers.Rescaling(
            scale, offset, dtype="float32", name=_free(name, taken)
        )
    ]


def _resizing(name, before, after, taken):
    if before == after:
        return []
    height, width, _ = after
    return [
        keras.layers.Resizing(
            height, width, dtype="float32", name=_free(name, taken)
        )
    ]


def _compile_like(classifier, model):
    """Compiles `model` with copies of what the classifier is compiled with."""
    if not classifier.compiled:
        return
    try:
        with warnings.catch_warnings():
            # Keras warns of a lambda, and then refuses it.
            warnings.simplefilter("ignore", UserWarning)
            config = classifier.get_compile_config()
            model.compile_from_config(_without_output_name(config, classifier))
    except (TypeError, ValueError) as error:
        reason = str(error).partition(". ")[0]
        warnings.warn(
            f"{model.name} is not compiled, since Keras cannot copy what "
            f"classifier {classifier.name} is compiled with ({reason}): call "
            "its compile yourself",
            stacklevel=4,
        )


def _without_output_name(config: dict[str, Any], classifier) -> dict[str, Any]:
    """Takes losses out of dictionaries by the classifier's output name.

    The output of the model around it has another name.
    """
    names = getattr(classifier, "output_names", None)
    if isinstance(getattr(classifier, "output", None), dict):
        return config  # Its keys are names of their own, and stay.

    def unnamed(value):
        if isinstance(value, dict) and list(value) == names:
            return value[names[0]]
        return value

    plain = {key: unnamed(config.get(key)) for key in ("loss", "loss_weights")}
    return {**config, **plain}
