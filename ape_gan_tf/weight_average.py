"""An exponential moving average of a network's weights."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


class WeightAverage:
    """Follows a network's weights; kept in the checkpoint with them.

    The moving averages of batch normalisation are averaged like the weights
    that they belong to: those of the last step are of other features than the
    averaged weights compute. The decay grows as in Polyak averaging's usual
    warm-up, min(decay, (1 + n) / (10 + n)) after n updates, so that the
    initial weights are soon forgotten.

    Args:
        variables: The network's weights, trainable or not.
        decay: Share of the average that one update keeps, in [0, 1).

    Attributes:
        averages: One variable for each weight, in their order.
        updates: How many there were.
    """

    def __init__(self, variables: list[tf.Variable], decay: float) -> None:
        self._variables = variables
        self._decay = decay
        self.averages = [
            tf.Variable(tf.cast(each, tf.float32), trainable=False)
            for each in variables
        ]
        self.updates = tf.Variable(0, dtype=tf.int64, trainable=False)

    def update(self) -> None:
        """Moves the averages towards the weights, inside a graph or out."""
        count = tf.cast(self.updates.assign_add(1), tf.float32)
        decay = tf.minimum(self._decay, (1.0 + count) / (10.0 + count))
        for average, variable in zip(
            self.averages, self._variables, strict=True
        ):
            step = tf.cast(variable, tf.float32) - average
            average.assign_add((1.0 - decay) * step)

    def values(self) -> list[np.ndarray]:
        """The averaged weights, as `set_weights` takes them."""
        return [average.numpy() for average in self.averages]

    def trackables(self) -> list[tf.Variable]:
        """For a checkpoint."""
        return [*self.averages, self.updates]
