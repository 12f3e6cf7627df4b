"""PNG and JPEG files decoded inside the graph, one at a time.

A server has no Python, and no operation catches another's error, save those
of tf.data: so the files go through a dataset that drops what fails.
"""

from __future__ import annotations

import tensorflow as tf

from ape_gan_tf.serving.valid_images import checked_files

CHANNELS = (1, 3)
# A header can promise what no memory holds: it is read before the pixels.
MAX_SIDE = 4096

_PNG = b"\x89PNG\r\n\x1a\n"
# What comes first in a PNG: the length and the name of the chunk that says
# how large the image is.
_PNG_HEADER = b"\x00\x00\x00\rIHDR"
_JPEG = b"\xff\xd8\xff"


def decode(
    image_bytes: tf.Tensor, image_shape: tuple[int, int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes files, resizes them as the image_folder dataset does.

    The image is scaled, bilinear and antialiased, until it covers the size
    that is wanted, and its centre is cut out. Grey becomes colour and colour
    grey as wanted; transparency is dropped; 16-bit PNGs keep their precision.

    Args:
        image_bytes: string `[B]`, whole PNG or JPEG files; a session can be
            given any shape, and gets an InvalidArgumentError that names them.
        image_shape: Height, width and channels; of the last, one of
            `CHANNELS`.

    Returns:
        float32 `[B, *image_shape]` in [0, 1], and bool `[B]`: false, with
        zeros, for what cannot be decoded or says that it is more than
        `MAX_SIDE` pixels high or wide.
    """
    image_bytes = checked_files(image_bytes)
    count = tf.size(image_bytes, out_type=tf.int64)

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return index, _decode_one(image_bytes[index], image_shape)

    decoded = (
        tf.data.Dataset.range(count)
        .map(read, num_parallel_calls=tf.data.AUTOTUNE)
        .ignore_errors()
    )
    # One more, so that there is a batch even if nothing was good.
    last = tf.data.Dataset.from_tensors((count, tf.zeros(image_shape)))
    found, images = (
        decoded.concatenate(last).batch(count + 1).get_single_element()
    )
    places = found[:, tf.newaxis]
    all_images = tf.scatter_nd(
        places, images, tf.stack([count + 1, *image_shape])
    )
    is_found = tf.scatter_nd(places, tf.ones_like(found), [count + 1]) > 0
    return tf.ensure_shape(all_images[:-1], [None, *image_shape]), is_found[:-1]


def _decode_one(
    content: tf.Tensor, image_shape: tuple[int, int, int]
) -> tf.Tensor:
    """float32 `image_shape` in [0, 1], or an error of TensorFlow's."""
    channels = image_shape[-1]
    return tf.cond(
        tf.strings.substr(content, 0, len(_PNG)) == _PNG,
        lambda: _fitted(_decode_png(content, channels), image_shape, 65535.0),
        lambda: _fitted(_decode_jpeg(content, channels), image_shape, 255.0),
    )


def _decode_png(content: tf.Tensor, channels: int) -> tf.Tensor:
    """uint16 `[h, w, channels]`; 8 bits become 16 without a loss."""
    # Its library does not insist on this order, but the size is read here.
    header = tf.debugging.assert_equal(
        tf.strings.substr(content, len(_PNG), len(_PNG_HEADER)), _PNG_HEADER
    )
    place = len(_PNG + _PNG_HEADER)
    size = tf.io.decode_raw(
        tf.strings.substr(content, place, 8), tf.int32, little_endian=False
    )
    with tf.control_dependencies([header, _refuse_large(size)]):
        return tf.io.decode_png(content, channels, tf.uint16)


def _decode_jpeg(content: tf.Tensor, channels: int) -> tf.Tensor:
    """uint8 `[h, w, channels]`."""
    # What is no JPEG at all makes its library print.
    is_jpeg = tf.debugging.assert_equal(
        tf.strings.substr(content, 0, len(_JPEG)), _JPEG
    )
    with tf.control_dependencies([is_jpeg]):
        size = tf.io.extract_jpeg_shape(content)[:2]
    with tf.control_dependencies([_refuse_large(size)]):
        # The default, a faster one, is several levels away from Pillow's.
        return tf.io.decode_jpeg(
            content, channels, dct_method="INTEGER_ACCURATE"
        )


def _refuse_large(size: tf.Tensor) -> tf.Operation:
    return tf.debugging.Assert(
        tf.reduce_all((size > 0) & (size <= MAX_SIDE)), [size]
    )


def _fitted(
    pixels: tf.Tensor, image_shape: tuple[int, int, int], highest: float
) -> tf.Tensor:
    """Scales and cuts whole pixels, then makes them float32 in [0, 1].

    At once: a file that is long and thin covers what is wanted only when it is
    much larger, and all of that would be in memory.
    """
    wanted = tf.constant(image_shape[:2], tf.int32)
    size = tf.cast(tf.shape(pixels)[:2], tf.float64)
    scale = tf.reduce_max(tf.cast(wanted, tf.float64) / size)
    covering = tf.maximum(tf.cast(tf.round(size * scale), tf.int32), wanted)
    cut = tf.raw_ops.ScaleAndTranslate(
        images=pixels[tf.newaxis],
        size=wanted,
        scale=tf.cast(tf.cast(covering, tf.float64) / size, tf.float32),
        translation=tf.cast(-((covering - wanted) // 2), tf.float32),
        kernel_type="triangle",
        antialias=True,
    )
    return tf.clip_by_value(
        tf.ensure_shape(cut[0], image_shape) / highest, 0.0, 1.0
    )
