"""Parts that several target classifiers are built of."""

from typing import Any

import keras


class Seeds:
    """Gives every layer that draws numbers a seed of its own.

    Args:
        seed: The first one; None leaves all of them to chance.
    """

    def __init__(self, seed: int | None) -> None:
        self._next = seed

    def take(self) -> int | None:
        """Returns the next seed."""
        seed = self._next
        if seed is not None:
            self._next = seed + 1
        return seed


def logits(
    num_classes: int, initializer: keras.Initializer
) -> keras.layers.Layer:
    """Returns the last layer of a classifier, without a softmax."""
    # float32 whatever the precision policy: attacks need its resolution.
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=initializer,
        dtype="float32",
        name="logits",
    )


# Torch's defaults, with which the published DenseNets were trained; Torch
# calls this momentum 0.1.
BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5


def convolve(
    features: Any,
    seeds: Seeds,
    name: str,
    filters: int,
    kernel_size: int,
    strides: int = 1,
) -> Any:
    """Applies a convolution as normalised networks have it.

    Padding SAME, He-normal initial weights, and no bias, which the batch
    normalisation behind it would subtract again.
    """
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(seeds.take()),
        name=name,
    )(features)


def normalize(features: Any, name: str) -> Any:
    """Applies batch normalisation."""
    return keras.layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=name
    )(features)


def rectify(features: Any, name: str) -> Any:
    """Applies a ReLU."""
    return keras.layers.ReLU(name=name)(features)


def classify(features: Any, seeds: Seeds, num_classes: int) -> Any:
    """Returns the logits of feature maps, averaged over the image."""
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    initializer = keras.initializers.HeNormal(seeds.take())
    return logits(num_classes, initializer)(pooled)
