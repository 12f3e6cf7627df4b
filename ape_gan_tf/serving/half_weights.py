"""A Keras model whose weights are stored in float16, half the bytes."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import models


class HalfWeights(tf.Module):
    """Computes what a model does, in float32, from weights in float16.

    Attributes:
        trainable: The model's trainable weights, rounded to the nearest.
        others: Its other weights; only those of float32 are rounded.
    """

    def __init__(self, network: models.Classifier | models.Purifier) -> None:
        """Rounds the weights as they are now.

        Args:
            network: One with a Keras model.

        Raises:
            ValueError: It has none, or a weight is too large for float16.
        """
        super().__init__()
        if network.keras_model is None:
            raise ValueError(
                f"weights_dtype float16 needs a Keras model, but "
                f"{network.name} has none (a SavedModel's weights cannot be "
                "told from its program): pass a .keras file"
            )
        self._model = network.keras_model
        self.trainable = [
            _half(weight) for weight in self._model.trainable_variables
        ]
        self.others = [
            _half(weight) for weight in self._model.non_trainable_variables
        ]

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """float32, one row an image, as the model in inference mode."""
        outputs, _ = self._model.stateless_call(
            [_single(weight) for weight in self.trainable],
            [_single(weight) for weight in self.others],
            images,
            training=False,
        )
        return tf.cast(outputs, tf.float32)


def _half(weight: keras.Variable) -> tf.Variable:
    values = keras.ops.convert_to_numpy(weight)
    if values.dtype != np.float32:  # The state of a random generator.
        return tf.Variable(values, trainable=False)
    largest = np.finfo(np.float16).max
    if not (np.abs(values) <= largest).all():
        raise ValueError(
            f"weights_dtype float16 reaches to {largest:,.0f}, but "
            f"{weight.path} has values up to {np.abs(values).max():.4g}: "
            "export it with float32"
        )
    return tf.Variable(values.astype(np.float16), trainable=False)


def _single(weight: tf.Variable) -> tf.Tensor:
    return tf.cast(weight, tf.float32) if weight.dtype == tf.float16 else weight
