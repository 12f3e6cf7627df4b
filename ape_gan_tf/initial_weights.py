"""The weights of a trained network, to begin another training with."""

from __future__ import annotations

import keras

import models


def take_weights(
    network: keras.Model,
    initial: models.Classifier | models.Purifier,
    argument: str,
) -> None:
    """Gives a network the weights of a trained one of the same layers.

    Args:
        network: Its weights are replaced, in its own dtype.
        initial: Whose weights are taken.
        argument: What it was given as, for messages.

    Raises:
        ValueError: It is no Keras model, or one of other weights or layers,
            such as another activation.
    """
    model = initial.keras_model
    theirs = [] if model is None else model.get_weights()
    shapes = [weight.shape for weight in theirs]
    wanted = [tuple(weight.shape) for weight in network.weights]
    if shapes != wanted:
        raise ValueError(
            f"{argument} must be a Keras model of the network of "
            f"{network.name}, with weights of shapes {wanted}, got "
            f"{initial.name} with {shapes}"
        )
    # Layers without weights say what is done with them.
    ours, others = _layers(network), _layers(model)
    if ours != others:
        raise ValueError(
            f"{argument} must be a Keras model of the network of "
            f"{network.name}, with the layers {sorted(ours - others)}, got "
            f"{initial.name} with {sorted(others - ours)} in their place"
        )
    network.set_weights(theirs)


def _layers(model: keras.Model | None) -> set[str]:
    return set() if model is None else {layer.name for layer in model.layers}
