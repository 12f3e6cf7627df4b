"""DenseNet40 for small images (Huang et al. 2017)."""

from typing import Any

import keras

from models import layers

BLOCKS = 3
LAYERS_PER_BLOCK = 12
GROWTH_RATE = 12
STEM_FILTERS = 16


def densenet40(images: Any, seeds: layers.Seeds, num_classes: int) -> Any:
    """Returns the logits of DenseNet with depth 40 and growth rate 12.

    The plain network of Huang et al., "Densely Connected Convolutional
    Networks" (CVPR 2017), Sec. 3 and the first DenseNet line of Table 2
    (L = 40, k = 12, 1.0 million weights), with neither bottleneck nor
    compression. A convolution of 16 filters; three dense blocks of 12
    layers BN-ReLU-Conv(3x3), each of which adds 12 feature maps to those
    that it was given; between them BN-ReLU-Conv(1x1) and average pooling
    2x2; at the end BN, ReLU, the mean over the image and one linear layer.
    Depth 40 is 36 + 2 + 1 convolutions and the linear layer.

    Batch normalisation has momentum 0.9 and epsilon 1e-5, as in the
    published Torch code. Deviations: initial weights are He-normal for the
    number of a unit's inputs, in that code of its outputs, and so are those
    of the linear layer; no dropout, which the paper has only where it
    trains without augmentation.

    Args:
        images: `[B, H, W, C]` in [0, 1], at least 4x4.
        seeds: For the initial weights.
        num_classes: K.

    Returns:
        float32 `[B, K]`.
    """
    features = layers.convolve(images, seeds, "stem", STEM_FILTERS, 3)
    for block in range(1, BLOCKS + 1):
        for index in range(1, LAYERS_PER_BLOCK + 1):
            features = _dense_layer(
                features, seeds, f"block_{block}_layer_{index}"
            )
        if block < BLOCKS:
            features = _transition(features, seeds, f"transition_{block}")
    features = layers.normalize(features, "final_batch_norm")
    features = layers.rectify(features, "final_relu")
    return layers.classify(features, seeds, num_classes)


def _dense_layer(features, seeds, name):
    new = _normalized_convolution(features, seeds, name, GROWTH_RATE, 3)
    return keras.layers.Concatenate(name=f"{name}_concat")([features, new])


def _transition(features, seeds, name):
    channels = features.shape[-1]
    features = _normalized_convolution(features, seeds, name, channels, 1)
    return keras.layers.AveragePooling2D(2, name=f"{name}_pool")(features)


def _normalized_convolution(features, seeds, name, filters, kernel_size):
    features = layers.normalize(features, f"{name}_batch_norm")
    features = layers.rectify(features, f"{name}_relu")
    return layers.convolve(
        features, seeds, f"{name}_conv", filters, kernel_size
    )
