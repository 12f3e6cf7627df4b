"""Checks of what crosses a public boundary, with errors that say what came."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf


def check_images(
    images: Any,
    argument: str = "images",
    image_shape: tuple[int, int, int] | None = None,
) -> tf.Tensor:
    """Returns a batch of images as a tensor, or says what is wrong with it.

    Args:
        images: NumPy array or tensor, float32 NHWC in [0, 1]. The batch may be
            empty. Of a symbolic tensor only dtype and static shape are checked.
        argument: name of the caller's argument, for the error message.
        image_shape: the expected (height, width, channels), if known.

    Returns:
        float32 tensor `[B, H, W, C]`.

    Raises:
        ValueError: if the images are anything else.
    """
    images = _as_tensor(images, argument)
    if images.dtype != tf.float32:
        raise ValueError(
            f"{argument} must be float32 in [0, 1], "
            f"got dtype {images.dtype.name}"
        )
    _check_image_shape(images.shape, argument, image_shape)
    if not tf.is_symbolic_tensor(images):
        _check_unit_range(images.numpy(), argument)
    return images


def check_labels(
    labels: Any,
    num_classes: int,
    count: int | None = None,
    argument: str = "labels",
) -> tf.Tensor:
    """Returns class labels as an int64 tensor, or says what is wrong.

    Args:
        labels: NumPy array, tensor or list of integers, one per image. Of a
            symbolic tensor only dtype and static shape are checked.
        num_classes: labels must lie in [0, num_classes).
        count: the expected number of labels, if known.
        argument: name of the caller's argument, for the error message.

    Returns:
        int64 tensor `[B]`.

    Raises:
        ValueError: if the labels are anything else.
    """
    labels = _as_tensor(labels, argument)
    is_empty_list = labels.dtype.is_floating and labels.shape == (0,)
    if not labels.dtype.is_integer and not is_empty_list:
        raise ValueError(
            f"{argument} must be integers, got dtype {labels.dtype.name}"
        )
    if labels.shape.rank not in (None, 1):
        raise ValueError(
            f"{argument} must have shape [B], one integer per image, "
            f"got shape {labels.shape}"
        )
    if count is not None and not labels.shape.is_compatible_with([count]):
        raise ValueError(
            f"{argument} must have one entry per image, expected {count}, "
            f"got {labels.shape[0]}"
        )
    labels = tf.cast(labels, tf.int64)
    if not tf.is_symbolic_tensor(labels):
        _check_label_range(labels.numpy(), num_classes, argument)
    return labels


def check_one_of(value: str, known: Collection[str], argument: str) -> str:
    """Returns `value` if it is one of `known`.

    Raises:
        ValueError: listing the known names and the nearest of them.
    """
    if value in known:
        return value
    close = difflib.get_close_matches(str(value), sorted(known), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"{argument} must be one of {', '.join(sorted(known))}, "
        f"got {value!r}{hint}"
    )


def check_positive_integer(value: int, argument: str) -> int:
    """Returns `value` as an int if it is a whole number above zero.

    Raises:
        ValueError: if it is not; booleans and floats are refused.
    """
    is_integer = isinstance(value, numbers.Integral)
    if not is_integer or isinstance(value, bool) or value <= 0:
        raise ValueError(
            f"{argument} must be a positive integer, got {value!r}"
        )
    return int(value)


def check_non_negative_integer(value: int, argument: str) -> int:
    """Returns `value` as an int if it is a whole number, zero or above.

    Raises:
        ValueError: if it is not; booleans and floats are refused.
    """
    is_integer = isinstance(value, numbers.Integral)
    if not is_integer or isinstance(value, bool) or value < 0:
        raise ValueError(
            f"{argument} must be an integer of 0 or more, got {value!r}"
        )
    return int(value)


def check_in_range(
    value: float, low: float, high: float, argument: str
) -> float:
    """Returns `value` as a float if it is finite and in [low, high].

    Raises:
        ValueError: if it is not a number, not finite, or outside the range.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if (
        not is_number
        or not math.isfinite(value)
        or not low <= float(value) <= high
    ):
        raise ValueError(
            f"{argument} must be a number in [{low}, {high}], got {value!r}"
        )
    return float(value)


def check_value_range(value: Any, argument: str) -> tuple[float, float]:
    """Returns the lowest and the highest value that pixels may have.

    Raises:
        ValueError: if it is not two finite numbers, the smaller one first.
    """
    message = f"{argument} must be (lowest, highest), got {value!r}"
    if isinstance(value, str):  # Whose characters may be numbers.
        raise ValueError(message)
    try:
        low, high = (float(number) for number in value)
    except (TypeError, ValueError) as error:
        raise ValueError(message) from error
    if not -math.inf < low < high < math.inf:
        raise ValueError(message)
    return low, high


def _as_tensor(value: Any, argument: str) -> tf.Tensor:
    if tf.is_tensor(value):
        return tf.convert_to_tensor(value)
    try:
        return tf.convert_to_tensor(np.asarray(value))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{argument} must be a NumPy array or a tensor of numbers, "
            f"got {type(value).__name__}"
        ) from error


def _check_image_shape(
    shape: tf.TensorShape,
    argument: str,
    image_shape: tuple[int, int, int] | None,
) -> None:
    if shape.rank not in (None, 4):
        raise ValueError(
            f"{argument} must have rank 4 (batch, height, width, channels), "
            f"got rank {shape.rank}, shape {shape}"
        )
    if image_shape is None:
        return
    if not shape.is_compatible_with([None, *image_shape]):
        raise ValueError(
            f"{argument} must have (height, width, channels) = "
            f"{tuple(image_shape)}, got {tuple(shape)[1:]}"
        )


def _check_unit_range(values: np.ndarray, argument: str) -> None:
    if not values.size:
        return
    # min and max pass a NaN on, so that one pass over the pixels is enough.
    low, high = float(values.min()), float(values.max())
    if math.isnan(low) or math.isnan(high):
        raise ValueError(
            f"{argument} must be float32 in [0, 1], "
            f"got {int(np.isnan(values).sum())} NaN values"
        )
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"{argument} must be float32 in [0, 1], "
            f"got values from {low:.6g} to {high:.6g}"
        )


def _check_label_range(
    labels: np.ndarray, num_classes: int, argument: str
) -> None:
    if not labels.size:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{argument} must be in [0, {num_classes}), "
            f"got values from {low} to {high}"
        )
