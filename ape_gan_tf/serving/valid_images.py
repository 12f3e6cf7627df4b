"""Which images of a request can be answered, found out inside the graph.

A server merges requests into one batch, so an image that is no good must not
fail its neighbours. Images of another shape do fail, all that came with them:
a batch has one shape, and none of theirs could be answered.
"""

from __future__ import annotations

import tensorflow as tf


def checked_shape(
    images: tf.Tensor, image_shape: tuple[int, int, int]
) -> tf.Tensor:
    """Returns the images, once their shape is known to be right.

    Args:
        images: float32 `[B, *image_shape]`, as promised by the signature; a
            session takes any shape all the same.
        image_shape: Height, width and channels.

    Raises:
        tf.errors.InvalidArgumentError: The shape is another one; the message
            names `images`.
    """
    return _checked("images", images, image_shape)


def checked_files(image_bytes: tf.Tensor) -> tf.Tensor:
    """The same of files, string `[B]`; the message names `image_bytes`."""
    return _checked("image_bytes", image_bytes, ())


def _checked(
    name: str, tensor: tf.Tensor, row_shape: tuple[int, ...]
) -> tf.Tensor:
    # What is known needs no check, so TensorFlow takes the promised shape for
    # granted and leaves checks of it out. A text that it becomes part of is
    # too much for that, and has no rank that could differ.
    given = tf.raw_ops.PlaceholderWithDefault(
        input=tensor, shape=tf.TensorShape(None)
    )
    sizes = ", ".join(["B", *map(str, row_shape)])
    found = tf.strings.reduce_join(
        tf.strings.as_string(tf.shape(given)), separator=", "
    )
    fits = tf.debugging.Assert(
        tf.strings.regex_full_match(found, sizes.replace("B", "[0-9]+")),
        [f"{name} must have shape [{sizes}], got", found],
    )
    with tf.control_dependencies([fits]):
        return tf.ensure_shape(tf.identity(given), [None, *row_shape])


def are_valid(images: tf.Tensor) -> tf.Tensor:
    """bool `[B]`: whether all values are finite and in [0, 1]."""
    # NaN is neither.
    in_range = (images >= 0.0) & (images <= 1.0)
    return tf.reduce_all(in_range, axis=[1, 2, 3])


def zero_unless(valid: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Rows of `values` where `valid`, else zeros (of text: nothing).

    A product would let NaN through, and `tf.where`, which broadcasts its
    condition value by value, takes ten times as long as this, which copies
    whole rows.
    """
    return tf.raw_ops.Select(condition=valid, x=values, y=tf.zeros_like(values))
