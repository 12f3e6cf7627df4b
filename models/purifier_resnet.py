"""A residual purifier of any width and depth, at full resolution or less."""

import functools

import keras

DEFAULTS = {"width": 32, "depth": 4, "stride": 1}


def purifier_resnet(
    images,
    initializers,
    *,
    width: int,
    depth: int,
    stride: int,
    skip: tuple[float, float] | None,
    kernel_size: int,
    batch_norm_momentum: float,
):
    """Returns what the output's activation is given, for a batch of images.

    A convolution, `depth` residual blocks and a convolution to the image's
    channels. A block is batch normalisation, leaky ReLU (slope 0.2) and
    convolution, twice, added to what it was given (He et al. 2016,
    pre-activation); the last convolution has batch normalisation and leaky
    ReLU before it. Not of the paper.

    With a stride of 1 nothing of an image has to go through a narrow place,
    and any image size fits. With a larger one the first convolution has it,
    and the last is a deconvolution that undoes it: the blocks cost its square
    less and see its multiple further.

    With `skip` all that is added to the image, stretched to where the output's
    activation leaves it about as it is: the network begins near the identity
    and learns what to change (Zhang et al. 2017).

    Args:
        images: A Keras tensor `[B, H, W, C]`, its sides multiples of `stride`.
        initializers: Yields one for each convolution.
        width: Channels of all layers but the last.
        depth: Residual blocks.
        stride: Of the first and the last layer.
        skip: Scale and offset of the image that is added; None adds none.
        kernel_size: Side of all kernels, but for those of a layer with a
            stride, which are at least twice that: then every pixel of a
            deconvolution's is made of equally many.
        batch_norm_momentum: Of the moving averages.
    """

    def convolution(
        filters, name, kind=keras.layers.Conv2D, strides=1, use_bias=False
    ):
        smallest = 2 * strides if strides > 1 else 1
        return kind(
            filters,
            max(kernel_size, smallest),
            strides=strides,
            padding="same",
            use_bias=use_bias,
            kernel_initializer=next(initializers),
            name=name,
        )

    activated = functools.partial(_activated, momentum=batch_norm_momentum)
    features = convolution(width, "first", strides=stride)(images)
    for block in range(1, depth + 1):
        branch = features
        for half in (1, 2):
            name = f"block_{block}_conv_{half}"
            branch = activated(branch, name)
            branch = convolution(width, name)(branch)
        features = keras.layers.Add(name=f"block_{block}")([features, branch])
    features = activated(features, "last")
    back = keras.layers.Conv2DTranspose if stride > 1 else keras.layers.Conv2D
    channels = images.shape[-1]
    change = convolution(channels, "last", back, stride, use_bias=True)(
        features
    )
    if skip is None:
        return change
    scale, offset = skip
    stretched = keras.layers.Rescaling(scale, offset, name="stretched")(images)
    return keras.layers.Add(name="skip")([stretched, change])


def _activated(features, name, momentum):
    features = keras.layers.BatchNormalization(
        momentum=momentum, name=f"{name}_batch_norm"
    )(features)
    return keras.layers.LeakyReLU(
        negative_slope=0.2, name=f"{name}_leaky_relu"
    )(features)
