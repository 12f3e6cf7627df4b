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
        ValueError: It is no Keras model, or one of other weights.
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
    network.set_weights(theirs)
