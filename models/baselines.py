"""The cheap defences that a purifier is judged against."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from data import checks, params
from models import fingerprint, network, purifier, shapes

ImageShape = tuple[int, int, int]
Function = Callable[[tf.Tensor], tf.Tensor]

# The parameters as they are used, and the function of a batch of images.
Made = tuple[dict[str, Any], Function]


def baseline(
    name: str, /, image_shape: Sequence[int], **settings: Any
) -> purifier.Purifier:
    """Makes a cheap defence by name: `baseline("jpeg", shape, quality=50)`.

    | name | parameters | what it does to an image |
    | --- | --- | --- |
    | `identity` | | nothing |
    | `gaussian_blur` | `sigma`=1.0, pixels | smooths it |
    | `median_filter` | `size`=3, pixels | median of a square window |
    | `bit_depth` | `bits`=1 for grey, else 4 | rounds to 2^bits levels |
    | `jpeg` | `quality`=75, of 100 | compresses, to 8 bits a channel |
    | `random_noise` | `stddev`=0.1 | adds new Gaussian noise in each call |

    `bit_depth` and `jpeg` have a zero gradient everywhere: attack them
    through `with_identity_backward`, or they look robust. `random_noise`
    answers differently each time: attack it through `averaged`.

    All but `jpeg` can be compiled by XLA.

    Args:
        name: One of `BASELINES`.
        image_shape: Height, width and channels.
        **settings: The parameters that are not to be the default.

    Returns:
        The purifier, from float32 images `[B, *image_shape]` in [0, 1] of
        any B to the same. An image's result never depends on what else is
        in the batch. Its name is the text that `parse_baseline` reads.

    Raises:
        ValueError: If the name or a parameter is unknown, or a value does
            not fit the images.
    """
    checks.check_one_of(name, BASELINES, "baseline")
    shape = shapes.check_image_shape(image_shape)
    _check_settings(name, settings)
    used, function = _MAKERS[name](shape, **settings)
    text = ",".join(f"{key}={value}" for key, value in used.items())
    full_name = f"{name}:{text}" if text else name
    return purifier.Purifier(
        network.Network(
            function=function,
            image_shape=shape,
            name=full_name,
            identity=None,
            given_fingerprint=lambda: fingerprint.combine(
                "baseline", full_name
            ),
        )
    )


def parse_baseline(text: str) -> tuple[str, dict[str, Any]]:
    """Parses `median_filter` or `jpeg:quality=50`.

    Returns:
        The name and the parameters, for `baseline`.

    Raises:
        ValueError: If the name is unknown, or what follows it is not of the
            form `name=value,name=value`.
    """
    name, _, rest = text.partition(":")
    name = checks.check_one_of(name.strip(), BASELINES, "baseline")
    return name, params.parse_params(rest, f"the parameters of {name}")


def _check_settings(name: str, settings: dict[str, Any]) -> None:
    # The first parameter of a maker is the image shape.
    known = list(inspect.signature(_MAKERS[name]).parameters)[1:]
    for setting in settings:
        if not known:
            raise ValueError(f"{name} has no parameters, got {setting!r}")
        checks.check_one_of(setting, known, f"parameter of {name}")


def _check_integer(value: int, low: int, high: int, argument: str) -> int:
    value = checks.check_positive_integer(value, argument)
    return int(checks.check_in_range(value, low, high, argument))


def _identity(image_shape: ImageShape) -> Made:
    return {}, tf.identity


def _gaussian_blur(image_shape: ImageShape, sigma: float = 1.0) -> Made:
    """A Gaussian kernel cut off at 3 sigma, with a reflecting border.

    One direction after the other: the kernel is separable.
    """
    height, width, channels = image_shape
    # A wider kernel would reach beyond the reflected image.
    sigma = checks.check_in_range(sigma, 0.1, min(height, width) / 3, "sigma")
    weights = _gaussian(sigma)
    radius = len(weights) // 2
    column = np.tile(weights[:, None, None, None], (1, 1, channels, 1))
    row = column.swapaxes(0, 1)

    def blur(images):
        blurred = _with_border(images, radius, radius)
        for kernel in (column, row):
            blurred = tf.nn.depthwise_conv2d(
                blurred, kernel, strides=(1, 1, 1, 1), padding="VALID"
            )
        # Nothing changes but for no images, which oneDNN leaves the border.
        blurred = tf.reshape(blurred, tf.shape(images))
        return _without_rounding(blurred)

    return {"sigma": sigma}, blur


def _gaussian(sigma: float) -> np.ndarray:
    """Returns weights of sum 1 at whole pixels, float32 `[2 radius + 1]`."""
    radius = int(3.0 * sigma + 0.5)
    places = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (places / sigma) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def _median_filter(image_shape: ImageShape, size: int = 3) -> Made:
    """Xu et al. 2018, Sec. III-B: the median of a square window.

    The border reflects, and a window of even size reaches one pixel further
    up and left and takes the upper of its two medians: all as
    `scipy.ndimage.median_filter` does, which the published code (EvadeML-Zoo)
    calls, with sizes 2 and 3.
    """
    height, width, _ = image_shape
    size = _check_integer(size, 1, min(height, width), "size")
    before, after = size // 2, size - 1 - size // 2
    # The rank of the median, counted from the largest value.
    rank = size**2 - size**2 // 2

    def median(images):
        bordered = _with_border(images, before, after)
        shifted = [
            bordered[:, top : top + height, left : left + width]
            for top in range(size)
            for left in range(size)
        ]
        windows = tf.stack(shifted, axis=-1)
        return tf.math.top_k(windows, k=rank).values[..., -1]

    return {"size": size}, median


def _bit_depth(image_shape: ImageShape, bits: int | None = None) -> Made:
    """Xu et al. 2018, Sec. III-A: round(x (2^bits - 1)) / (2^bits - 1).

    Their published commands (EvadeML-Zoo) take 1 bit for MNIST, and for the
    accuracy on CIFAR-10 both 4 and 5; their detector for colour, 5.
    """
    if bits is None:
        bits = 1 if image_shape[2] == 1 else 4
    bits = _check_integer(bits, 1, 8, "bits")
    highest = float(2**bits - 1)

    def squeeze(images):
        return tf.round(images * highest) / highest

    return {"bits": bits}, squeeze


def _jpeg(image_shape: ImageShape, quality: int = 75) -> Made:
    """Guo et al. 2018 take quality 75 as a defence.

    A real encoder and decoder: each pixel is rounded to 8 bits before and
    after, and colour is stored at half the resolution (4:2:0).
    """
    channels = image_shape[2]
    if channels not in (1, 3):
        raise ValueError(
            f"image_shape must have 1 or 3 channels for jpeg, got {image_shape}"
        )
    quality = _check_integer(quality, 1, 100, "quality")

    def one(pixels):
        return tf.io.decode_jpeg(
            tf.io.encode_jpeg(pixels, quality=quality),
            channels=channels,
            dct_method="INTEGER_ACCURATE",
        )

    def compress(images):
        pixels = tf.cast(tf.round(images * 255.0), tf.uint8)
        decoded = tf.map_fn(
            one,
            pixels,
            fn_output_signature=tf.TensorSpec(image_shape, tf.uint8),
        )
        return tf.cast(decoded, tf.float32) / 255.0

    return {"quality": quality}, compress


def _random_noise(image_shape: ImageShape, stddev: float = 0.1) -> Made:
    """New noise in each call, from the generator of `tf.random.set_seed`.

    The sum is clipped to [0, 1], and has no gradient where it was.
    """
    stddev = checks.check_in_range(stddev, 0.0, 1.0, "stddev")

    def add_noise(images):
        noise = tf.random.normal(tf.shape(images), stddev=stddev)
        return tf.clip_by_value(images + noise, 0.0, 1.0)

    return {"stddev": stddev}, add_noise


_MAKERS: dict[str, Callable[..., Made]] = {
    "identity": _identity,
    "gaussian_blur": _gaussian_blur,
    "median_filter": _median_filter,
    "bit_depth": _bit_depth,
    "jpeg": _jpeg,
    "random_noise": _random_noise,
}
BASELINES = tuple(_MAKERS)


def _with_border(images: tf.Tensor, before: int, after: int) -> tf.Tensor:
    """Reflects rows and columns, the edge itself too: `c b a | a b c`.

    Not `tf.pad`, whose gradient fails for an empty batch.
    """
    top = images[:, :before][:, ::-1]
    bottom = images[:, ::-1][:, :after]
    images = tf.concat([top, images, bottom], axis=1)
    left = images[:, :, :before][:, :, ::-1]
    right = images[:, :, ::-1][:, :, :after]
    return tf.concat([left, images, right], axis=2)


def _without_rounding(images: tf.Tensor) -> tf.Tensor:
    """Clips to [0, 1] what only rounding has moved beyond.

    `tf.clip_by_value` alone would stop the gradient of every white pixel.
    """
    excess = images - tf.clip_by_value(images, 0.0, 1.0)
    return images - tf.stop_gradient(excess)
