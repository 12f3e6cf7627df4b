"""Batch normalisation in training as one operation.

Keras computes it as a chain of a dozen operations, each of which goes through
all features, in float32 whatever the precision. TensorFlow has one kernel for
it and one for its gradient. Not for XLA, which fuses the chain itself, and has
less exact sums for the one operation: its variance of constant features may be
negative.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from models.layer_exchange import exchange

# In half precision oneDNN is slow where the number of channels is no multiple:
# half as fast as in float32.
_HALF_LANES = 16


def fuse_batch_norm(model: keras.Model) -> keras.Model:
    """Returns a model of the same values, up to rounding, that trains faster.

    See `exchange` for what it shares with `model`. Batch normalisation that is
    not of the plain kind, of `[B, H, W, C]` with scale and offset, stays.

    Args:
        model: A Keras model of one input and one output, or a list of some.

    Returns:
        `model` itself where there is nothing to exchange.
    """
    return exchange(model, _substitute)


def _substitute(layer: Any) -> FusedBatchNormalization | None:
    return FusedBatchNormalization(layer) if _is_plain(layer) else None


def _is_plain(layer: Any) -> bool:
    return (
        type(layer) is keras.layers.BatchNormalization
        # A masked one has two.
        and not isinstance(layer.input, list)
        and len(layer.input.shape) == 4
        and layer.axis in (-1, 3)
        and layer.scale
        and layer.center
        and not layer.synchronized
        and not getattr(layer, "renorm", False)
        and layer.gamma.dtype == "float32"
    )


class FusedBatchNormalization(keras.layers.Layer):
    """Calls a layer of somebody else's; in training, one operation for it.

    Frozen or outside training it is that layer's own call.

    Args:
        layer: Of the kind that `_is_plain` lets through.
    """

    def __init__(self, layer: Any) -> None:
        # Its own precision, whatever the global policy is by now.
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer

    def call(
        self, features: tf.Tensor, training: bool = False, mask: Any = None
    ) -> tf.Tensor:
        layer = self.layer
        if not training or not layer.trainable or mask is not None:
            return layer(features, training=training, mask=mask)
        features = tf.cast(features, self._precision(features.shape[-1]))
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=features,
            scale=tf.convert_to_tensor(layer.gamma),
            offset=tf.convert_to_tensor(layer.beta),
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=layer.epsilon,
            is_training=True,
        )
        # The operation's is the unbiased estimate, Keras's is not.
        count = tf.cast(tf.reduce_prod(tf.shape(features)[:3]), tf.float32)
        variance *= tf.maximum(count - 1.0, 1.0) / count
        _move(layer.moving_mean, mean, layer.momentum)
        _move(layer.moving_variance, variance, layer.momentum)
        return tf.cast(outputs, self.compute_dtype)

    def _precision(self, channels: int) -> str:
        if channels % _HALF_LANES and not _has_gpu():
            return "float32"
        return self.compute_dtype

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def _move(average: Any, value: tf.Tensor, momentum: float) -> None:
    average.assign(momentum * average + (1.0 - momentum) * value)
