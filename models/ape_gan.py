"""The generators and discriminators of APE-GAN (Table 6 of the paper)."""

import functools
import itertools
from typing import Any

import keras

from data import checks
from models import purifier_resnet, shapes

GENERATORS = ("ape_gan_c", "ape_gan_i", "ape_gan_m", "purifier_resnet")
OUTPUTS = ("sigmoid", "tanh")

# Widths of Table 6; the last deconvolution has the image's channels.
_ENCODERS = {
    "ape_gan_c": (64, 128),
    "ape_gan_i": (64, 128, 256),
    "ape_gan_m": (64, 128),
}
_DECODERS = {
    "ape_gan_c": (64,),
    "ape_gan_i": (256, 128),
    "ape_gan_m": (64,),
}
_DISCRIMINATORS = {
    "ape_gan_c": (64, 128, 256),
    "ape_gan_i": (64, 128, 256, 256),
    "ape_gan_m": (64, 128, 256),
    # Not of the paper: a generator of ours gets that of MNIST and CIFAR-10.
    "purifier_resnet": (64, 128, 256),
}

_ACTIVATIONS = {
    "leaky_relu": functools.partial(keras.layers.LeakyReLU, negative_slope=0.2),
    "relu": keras.layers.ReLU,
}
_HALVING: dict[str, Any] = {"strides": 2, "padding": "same"}


def generator(
    name: str,
    image_shape: tuple[int, int, int],
    *,
    kernel_size: int = 3,
    decoder_activation: str = "leaky_relu",
    output: str = "sigmoid",
    batch_norm_momentum: float = 0.99,
    width: int | None = None,
    depth: int | None = None,
    stride: int | None = None,
    levels: int | None = None,
    skip: bool = False,
    classes: int | None = None,
    seed: int | None = None,
) -> keras.Model:
    """Builds the purifier G of Table 6, an image-to-image network.

    Or `purifier_resnet`, which is not of the paper: see there.

    Every convolution and deconvolution has stride 2 and padding SAME; leaky
    ReLU has slope 0.2. `ape_gan_m` and `ape_gan_c` differ only in the image
    that they are given. Where Table 6 is silent we chose:

    * deconvolutions have the kernel of the convolutions, 3x3;
    * all three deconvolutions of `ape_gan_i` (256, 128 and C wide) undo one
      of its three convolutions;
    * a layer in front of a batch normalisation has no bias, which would be
      subtracted again; the last deconvolution has one;
    * Glorot uniform initial weights; batch normalisation as in Keras
      (epsilon 1e-3), with `batch_norm_momentum`.

    Args:
        name: One of `GENERATORS`.
        image_shape: Height, width and channels. Height and width must be
            multiples of the total stride: 4, or 8 for `ape_gan_i`, which
            the paper uses at 256x256; `stride` for `purifier_resnet`, twice
            that for each level after the first.
        kernel_size: Side of all kernels; the released code has 5.
        decoder_activation: "leaky_relu", or "relu" as in the released code.
        output: "sigmoid", or "tanh" as in the released code, whose images
            are in [-1, 1]: the model then rescales at both ends.
        batch_norm_momentum: Momentum of the moving averages, in [0, 1].
        width: Channels of `purifier_resnet` in its first level, by default 32;
            those of Table 6 are fixed.
        depth: Residual blocks of a level of `purifier_resnet`, by default 4.
        stride: Its blocks work at the resolution divided by this, by default
            at full resolution, 1.
        levels: Each has `depth` blocks of its own, at half the resolution and
            with twice the channels of the one before; by default 1.
        skip: Whether `purifier_resnet` adds what it computes to the image, and
            clips to [0, 1] in place of a sigmoid; at first it adds nothing.
            The clip has no gradient at the ends, for an attacker neither.
        classes: Of a guess that `purifier_resnet` makes of its own, on which
            all depends that it adds to the image; by default it makes none.
        seed: Makes the initial weights reproducible.

    Returns:
        A functional model named `name` from float32 images
        `[B, H, W, C]` in [0, 1], the input "images", to the same.

    Raises:
        ValueError: If an argument is unknown or does not fit.
    """
    checks.check_one_of(name, GENERATORS, "name")
    checks.check_one_of(decoder_activation, _ACTIVATIONS, "decoder_activation")
    checks.check_one_of(output, OUTPUTS, "output")
    _check_layers(kernel_size, batch_norm_momentum)
    image_shape = shapes.check_image_shape(image_shape)
    capacity = _checked_capacity(
        name,
        image_shape,
        width=width,
        depth=depth,
        stride=stride,
        levels=levels,
        classes=classes,
    )
    _check_skip(name, skip, output, classes)

    inputs = features = keras.Input(image_shape, name="images")
    if output == "tanh":
        features = _rescaling("to_symmetric", 2.0, -1.0)(features)
    if name == "purifier_resnet":
        features = purifier_resnet.purifier_resnet(
            features,
            _initializers(seed),
            **capacity,
            skip=skip,
            kernel_size=kernel_size,
            batch_norm_momentum=batch_norm_momentum,
        )
    else:
        features = _encoder_and_decoder(
            name,
            features,
            _initializers(seed),
            kernel_size,
            decoder_activation,
            batch_norm_momentum,
        )
    if skip:
        return keras.Model(inputs, _added(inputs, features), name=name)
    # float32 whatever the precision policy: the output is an image.
    outputs = keras.layers.Activation(output, dtype="float32", name=output)(
        features
    )
    if output == "tanh":
        outputs = _rescaling("to_unit", 0.5, 0.5)(outputs)
    return keras.Model(inputs, outputs, name=name)


def _added(images, change):
    """The image with what is computed, in [0, 1]; float32 as all outputs."""
    added = keras.layers.Add(dtype="float32", name="skip")([images, change])
    return keras.layers.ReLU(max_value=1.0, dtype="float32", name="clip")(added)


def _encoder_and_decoder(
    name, features, initializers, kernel_size, decoder_activation, momentum
):
    """The layers of Table 6, without the last activation."""
    channels = features.shape[-1]
    for index, filters in enumerate(_ENCODERS[name], start=1):
        convolution = keras.layers.Conv2D(
            filters,
            kernel_size,
            use_bias=False,
            kernel_initializer=next(initializers),
            name=f"encoder_{index}",
            **_HALVING,
        )
        features = _block(convolution, momentum)(features)
    for index, filters in enumerate(_DECODERS[name], start=1):
        deconvolution = keras.layers.Conv2DTranspose(
            filters,
            kernel_size,
            use_bias=False,
            kernel_initializer=next(initializers),
            name=f"decoder_{index}",
            **_HALVING,
        )
        features = _block(deconvolution, momentum, decoder_activation)(features)
    return keras.layers.Conv2DTranspose(
        channels,
        kernel_size,
        kernel_initializer=next(initializers),
        name=f"decoder_{len(_DECODERS[name]) + 1}",
        **_HALVING,
    )(features)


def discriminator(
    name: str,
    image_shape: tuple[int, int, int],
    *,
    kernel_size: int = 3,
    batch_norm_momentum: float = 0.99,
    seed: int | None = None,
) -> keras.Model:
    """Builds the discriminator D of Table 6, without its sigmoid.

    Stride 2, padding SAME, leaky ReLU 0.2, initial weights and biases as in
    `generator`. As printed, the first convolution has no batch
    normalisation in `ape_gan_m` and `ape_gan_c` and has one in `ape_gan_i`,
    whose FC(1024) is followed by batch normalisation and leaky ReLU. At
    256x256 that layer takes 16 * 16 * 256 values, so it has 67 million
    weights: that is what Table 6 says. Any image size fits.

    Args:
        name: One of `GENERATORS`: the generator that it belongs to.
        image_shape: Height, width and channels.
        kernel_size: Side of all kernels; the released code has 5.
        batch_norm_momentum: Momentum of the moving averages, in [0, 1].
        seed: Makes the initial weights reproducible.

    Returns:
        A functional model from float32 images `[B, H, W, C]` in [0, 1] to
        float32 logits `[B, 1]` of "this is a clean image". The losses are
        computed from logits, so the sigmoid of Table 6 is theirs.

    Raises:
        ValueError: If an argument is unknown or does not fit.
    """
    checks.check_one_of(name, GENERATORS, "name")
    _check_layers(kernel_size, batch_norm_momentum)
    image_shape = shapes.check_image_shape(image_shape)

    is_imagenet = name == "ape_gan_i"
    inputs = features = keras.Input(image_shape, name="images")
    initializers = _initializers(seed)
    for index, filters in enumerate(_DISCRIMINATORS[name], start=1):
        has_batch_norm = is_imagenet or index > 1
        convolution = keras.layers.Conv2D(
            filters,
            kernel_size,
            use_bias=not has_batch_norm,
            kernel_initializer=next(initializers),
            name=f"conv_{index}",
            **_HALVING,
        )
        momentum = batch_norm_momentum if has_batch_norm else None
        features = _block(convolution, momentum)(features)
    features = keras.layers.Flatten(name="flatten")(features)
    if is_imagenet:
        dense = keras.layers.Dense(
            1024,
            use_bias=False,
            kernel_initializer=next(initializers),
            name="fc_1",
        )
        features = _block(dense, batch_norm_momentum)(features)
    logits = keras.layers.Dense(
        1,
        kernel_initializer=next(initializers),
        dtype="float32",
        name="logits",
    )(features)
    return keras.Model(inputs, logits, name=f"{name}_discriminator")


def _initializers(seed):
    """Yields one initializer per layer, so that no two layers are alike."""
    for layer in itertools.count():
        yield keras.initializers.GlorotUniform(
            None if seed is None else seed + layer
        )


def _block(layer, momentum, activation="leaky_relu"):
    """Returns layer, batch normalisation and activation as one function.

    A momentum of None leaves the batch normalisation out.
    """
    layers = [layer]
    if momentum is not None:
        layers.append(
            keras.layers.BatchNormalization(
                momentum=momentum, name=f"{layer.name}_batch_norm"
            )
        )
    layers.append(_ACTIVATIONS[activation](name=f"{layer.name}_{activation}"))

    def apply(features):
        for each in layers:
            features = each(features)
        return features

    return apply


def _rescaling(name, scale, offset):
    return keras.layers.Rescaling(scale, offset, dtype="float32", name=name)


def _check_layers(kernel_size, batch_norm_momentum):
    checks.check_positive_integer(kernel_size, "kernel_size")
    checks.check_in_range(batch_norm_momentum, 0, 1, "batch_norm_momentum")


def _checked_capacity(name, image_shape, **given):
    """The residual purifier's; for another network none may be given."""
    height, columns, _ = image_shape
    if name == "purifier_resnet":
        capacity: dict[str, Any] = {
            argument: purifier_resnet.DEFAULTS.get(argument)
            if value is None
            else checks.check_positive_integer(value, argument)
            for argument, value in given.items()
        }
        strides = purifier_resnet.total_stride(
            capacity["stride"], capacity["levels"]
        )
        _check_multiple(name, height, columns, strides)
        return capacity
    _check_multiple(name, height, columns, 2 ** len(_ENCODERS[name]))
    for argument, value in given.items():
        if value is not None:
            raise ValueError(
                f"{argument} must be None for {name}, whose layers are those "
                f"of Table 6, got {value!r}: purifier_resnet takes {argument}"
            )
    return {}


def _check_skip(name, skip, output, classes):
    if not skip:
        if classes is not None:
            raise ValueError(
                f"skip must be True where classes is {classes}, got False: of "
                "the image itself nothing would be left"
            )
        return
    if name != "purifier_resnet":
        raise ValueError(
            f"skip must be False for {name}, whose layers are those of Table "
            f"6, got {skip!r}: purifier_resnet can have one"
        )
    if output != "sigmoid":
        raise ValueError(
            "output must be left as it is, sigmoid, where skip is True and the "
            f"output is clipped in place of it, got {output!r}"
        )


def _check_multiple(name, height, width, stride):
    if height % stride == 0 and width % stride == 0:
        return
    below = (height // stride * stride, width // stride * stride)
    above = (-(-height // stride) * stride, -(-width // stride) * stride)
    fits = [f"{h}x{w}" for h, w in (below, above) if h > 0 and w > 0]
    raise ValueError(
        f"image_shape of {name} must have a height and a width that are "
        f"multiples of its total stride {stride}, got {height}x{width}; the "
        f"nearest that fit: {' or '.join(fits)}"
    )
