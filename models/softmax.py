"""Finds and removes the softmax at the end of a Keras classifier."""

import keras
import numpy as np
import tensorflow as tf


def strip(model: keras.Model, images: tf.Tensor) -> keras.Model | None:
    """Returns a copy of a Keras classifier without its final softmax.

    log(softmax) in float32 saturates and masks gradients, so attacks need
    the logits in front of it.

    Args:
        model: Functional or Sequential; it is left as it is, and the copy
            has weights of its own.
        images: A batch that the model takes, to check the copy with.

    Returns:
        The copy, with softmax(copy(images)) equal to model(images); or None
        if the model does not end in a softmax that can be removed.
    """
    last = _last_layer(model)
    if last is None or not _is_softmax(last):
        return None

    try:
        copy = _copy_without(last, model)
    # Subclasses, and layers that their configuration cannot make again.
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return None
    return copy if _agree(model, copy, images) else None


def _last_layer(model):
    """Returns the layer that makes the output, inside nested models too."""
    if isinstance(model, keras.Sequential):
        last = model.layers[-1] if model.layers else None
    else:
        names = list(getattr(model, "output_names", None) or [])
        layers = {layer.name: layer for layer in model.layers}
        last = layers.get(names[0]) if len(names) == 1 else None
    return _last_layer(last) if isinstance(last, keras.Model) else last


def _is_softmax(layer):
    activation = getattr(layer, "activation", None)
    return (
        isinstance(layer, keras.layers.Softmax)
        or activation is keras.activations.softmax
    )


def _copy_without(last, model):
    if isinstance(last, keras.layers.Softmax) and last in model.layers:
        model = keras.Model(model.inputs, last.input, name=model.name)

    def clone(layer):
        if layer is last:
            return _linear(layer)
        return layer.__class__.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def _linear(layer):
    if isinstance(layer, keras.layers.Softmax):
        return keras.layers.Activation(
            "linear", dtype=layer.dtype_policy, name=layer.name
        )
    return layer.__class__.from_config(
        {**layer.get_config(), "activation": "linear"}
    )


def _agree(model, copy, images):
    expected = _float32(model(images, training=False))
    found = tf.nn.softmax(_float32(copy(images, training=False)))
    # Half precision rounds probabilities to about 1e-3.
    return np.allclose(found, expected, atol=2e-3)


def _float32(outputs):
    return tf.cast(outputs, tf.float32)
