"""Layers that turn a stranger's model into one from [0, 1] images to logits.

They are Keras layers with fixed names: inside a Keras model they are saved
with it, around a SavedModel they are called as functions.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from models import fingerprint, network

# Below it a float32 softmax is noise; its logarithm is -16.
SMALLEST_PROBABILITY = 1e-7


@keras.saving.register_keras_serializable(package="ape_gan_tf")
class LogProbabilities(keras.layers.Layer):
    """The logarithm of probabilities, clipped from below."""

    def call(self, probabilities: Any) -> Any:
        """Returns log(clip(p, 1e-7, 1)), elementwise."""
        return keras.ops.log(
            keras.ops.clip(probabilities, SMALLEST_PROBABILITY, 1.0)
        )


@dataclasses.dataclass(frozen=True)
class Adapters:
    """What has to happen before and after a model.

    Attributes:
        value_range: The lowest and highest value that the model expects of
            images that are in [0, 1] outside.
        size: Height and width to resize to, bilinear; None to leave it.
        probabilities: Whether the model returns probabilities.
    """

    value_range: tuple[float, float] = (0.0, 1.0)
    size: tuple[int, int] | None = None
    probabilities: bool = False

    def apply(
        self, source: network.Network, image_shape: tuple[int, int, int]
    ) -> network.Network:
        """Returns `source` with the layers around it.

        Args:
            source: The model as it is.
            image_shape: Height, width and channels on the outside.
        """
        if self == Adapters():
            return source
        if source.keras_model is not None:
            images = keras.Input(image_shape, name="images")
            outputs = self._around(source.keras_model)(images)
            return network.from_keras(
                keras.Model(images, outputs, name=source.name)
            )
        return dataclasses.replace(
            source,
            function=self._around(source.function),
            image_shape=image_shape,
            identity=fingerprint.combine(str(source.identity), repr(self)),
        )

    def _around(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        before, after = self._before(), self._after()

        def adapted(images):
            for layer in before:
                images = layer(images)
            outputs = function(images)
            for layer in after:
                outputs = layer(outputs)
            return outputs

        return adapted

    def _before(self):
        low, high = self.value_range
        layers = []
        if self.size is not None:
            height, width = self.size
            layers.append(
                keras.layers.Resizing(
                    height, width, dtype="float32", name="resize"
                )
            )
        if self.value_range != (0.0, 1.0):
            layers.append(
                keras.layers.Rescaling(
                    high - low, low, dtype="float32", name="value_range"
                )
            )
        return layers

    def _after(self):
        if not self.probabilities:
            return []
        return [LogProbabilities(dtype="float32", name="log_probabilities")]
