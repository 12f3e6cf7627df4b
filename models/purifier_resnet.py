"""A residual purifier at full resolution, of any width and depth."""

import functools

import keras

from data import checks

DEFAULT_WIDTH, DEFAULT_DEPTH = 32, 4


def purifier_resnet(
    images,
    initializers,
    *,
    width: int,
    depth: int,
    kernel_size: int,
    batch_norm_momentum: float,
):
    """Returns what the output's activation is given, for a batch of images.

    No layer has a stride, so that nothing of an image has to go through a
    narrow place, and any image size fits: a convolution, `depth` residual
    blocks and a convolution to the image's channels. A block is batch
    normalisation, leaky ReLU (slope 0.2) and convolution, twice, added to
    what it was given (He et al. 2016, pre-activation); the last convolution
    has batch normalisation and leaky ReLU before it. Not of the paper.

    Args:
        images: A Keras tensor `[B, H, W, C]`.
        initializers: Yields one for each convolution.
        width: Channels of all layers but the last.
        depth: Residual blocks.
        kernel_size: Side of all kernels.
        batch_norm_momentum: Of the moving averages.
    """
    checks.check_positive_integer(width, "width")
    checks.check_positive_integer(depth, "depth")

    def convolution(filters, name, use_bias=False):
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            padding="same",
            use_bias=use_bias,
            kernel_initializer=next(initializers),
            name=name,
        )

    activated = functools.partial(_activated, momentum=batch_norm_momentum)
    features = convolution(width, "first")(images)
    for block in range(1, depth + 1):
        branch = features
        for half in (1, 2):
            name = f"block_{block}_conv_{half}"
            branch = activated(branch, name)
            branch = convolution(width, name)(branch)
        features = keras.layers.Add(name=f"block_{block}")([features, branch])
    features = activated(features, "last")
    return convolution(images.shape[-1], "last", use_bias=True)(features)


def _activated(features, name, momentum):
    features = keras.layers.BatchNormalization(
        momentum=momentum, name=f"{name}_batch_norm"
    )(features)
    return keras.layers.LeakyReLU(
        negative_slope=0.2, name=f"{name}_leaky_relu"
    )(features)
