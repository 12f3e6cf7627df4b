"""A residual purifier of any width and depth, at full resolution or less."""

import functools
import itertools

import keras

# The layer whose output is the logits of the network's own guess.
GUIDE = "guide"
DEFAULTS = {"width": 32, "depth": 4, "stride": 1, "levels": 1}


def purifier_resnet(
    images,
    initializers,
    *,
    width: int,
    depth: int,
    stride: int,
    levels: int,
    skip: bool,
    classes: int | None,
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

    Each of the `levels` has blocks of its own: in front of all but the first a
    convolution of stride 2, with batch normalisation and leaky ReLU before it,
    halves the sides and doubles the channels, as in networks that classify. The
    last deconvolution undoes them all.

    With `skip` the caller adds what is returned to the image; the last layer
    then begins at zero, and so the network at the identity (Zhang et al. 2017
    learn the noise, not the image, likewise).

    With `classes` the network makes a guess of its own, and what it adds to an
    image depends on the guess alone: the mean of each channel behind the last
    block goes through a linear layer, `GUIDE`, to logits, and their softmax
    through another, back to the channels, which the last layer sees everywhere
    in place of the features. An attacker has no other way to what is added, and
    the guess can be trained for by itself, without a classifier.

    Args:
        images: A Keras tensor `[B, H, W, C]`, its sides multiples of
            `total_stride(stride, levels)`.
        initializers: Yields one for each convolution.
        width: Channels of the first level.
        depth: Residual blocks of a level.
        stride: Of the first layer.
        levels: At least 1.
        skip: Whether the last layer begins at zero.
        classes: Of the guess; None makes none.
        kernel_size: Side of all kernels, but for those of a layer with a
            stride, which are at least twice the stride: then every pixel of
            a deconvolution's is made of equally many.
        batch_norm_momentum: Of the moving averages.
    """

    def convolution(filters, name, strides=1, is_last=False):
        has_stride = strides > 1
        kind = keras.layers.Conv2D
        if is_last and has_stride:
            kind = keras.layers.Conv2DTranspose
        initializer = next(initializers)
        return kind(
            filters,
            max(kernel_size, 2 * strides) if has_stride else kernel_size,
            strides=strides,
            padding="same",
            use_bias=is_last,
            kernel_initializer="zeros" if is_last and skip else initializer,
            name=name,
        )

    activated = functools.partial(_activated, momentum=batch_norm_momentum)
    features = convolution(width, "first", stride)(images)
    blocks = itertools.count(1)
    for level in range(1, levels + 1):
        if level > 1:
            width *= 2
            features = activated(features, f"level_{level}")
            features = convolution(width, f"level_{level}", 2)(features)
        for block in itertools.islice(blocks, depth):
            branch = features
            for half in (1, 2):
                name = f"block_{block}_conv_{half}"
                branch = activated(branch, name)
                branch = convolution(width, name)(branch)
            features = keras.layers.Add(name=f"block_{block}")(
                [features, branch]
            )
    features = activated(features, "last")
    if classes is not None:
        features = _painted(features, classes, initializers)
    strides = total_stride(stride, levels)
    return convolution(images.shape[-1], "last", strides, is_last=True)(
        features
    )


def guess_logits(model: keras.Model):
    """The Keras tensor of the logits of a model's own guess, None without."""
    if GUIDE not in [layer.name for layer in model.layers]:
        return None
    return model.get_layer(GUIDE).output


def total_stride(stride: int, levels: int) -> int:
    """How many pixels of an image a side of the last level's pixel covers."""
    return stride * 2 ** (levels - 1)


def _painted(features, classes, initializers):
    """What the guess of a class says of each channel, the same everywhere."""
    *sides, width = features.shape[1:]
    means = keras.layers.GlobalAveragePooling2D(name="means")(features)
    logits = keras.layers.Dense(
        classes,
        kernel_initializer=next(initializers),
        # float32 whatever the precision policy: losses are taken of them.
        dtype="float32",
        name=GUIDE,
    )(means)
    shares = keras.layers.Softmax(name="shares")(logits)
    paint = keras.layers.Dense(
        width,
        use_bias=False,
        kernel_initializer=next(initializers),
        name="paint",
    )(shares)
    paint = keras.layers.LeakyReLU(negative_slope=0.2, name="paint_leaky_relu")(
        paint
    )
    paint = keras.layers.Reshape((1, 1, width), name="one_pixel")(paint)
    return keras.layers.UpSampling2D(sides, name="everywhere")(paint)


def _activated(features, name, momentum):
    features = keras.layers.BatchNormalization(
        momentum=momentum, name=f"{name}_batch_norm"
    )(features)
    return keras.layers.LeakyReLU(
        negative_slope=0.2, name=f"{name}_leaky_relu"
    )(features)
