"""The same network with other layers in the place of some."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras


def exchange(
    model: keras.Model,
    substitute: Callable[[keras.layers.Layer], keras.layers.Layer | None],
) -> keras.Model:
    """Returns a model in which some layers are others.

    It shares the remaining layers with `model`, which is not altered, and is
    for calling and tracing only: a Keras file is made of the original. Models
    inside the model stay as they are.

    Args:
        model: A Keras model of one input and one output, or a list of some.
        substitute: Gives what stands for a layer, which takes and returns what
            the layer does, or None where the layer stays.

    Returns:
        `model` itself where all layers stay, or where it is a subclass, which
        may have a call of its own.
    """
    if type(model) not in (keras.Sequential, _functional()):
        return model
    found = {id(layer): substitute(layer) for layer in model.layers}
    if not any(found.values()):
        return model
    # Without what the model is compiled with, which a clone would copy.
    several = len(model.outputs) > 1
    outputs = model.outputs if several else model.outputs[0]
    bare = keras.Model(model.inputs[0], outputs, name=model.name)
    return keras.models.clone_model(
        bare, clone_function=lambda layer: found.get(id(layer)) or layer
    )


@functools.cache
def _functional() -> type:
    """The class of functional models, which has no public name."""
    images = keras.Input((1,))
    return type(keras.Model(images, images))
