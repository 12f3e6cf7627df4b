"""The one check of an image's shape that all models share."""

from collections.abc import Sequence

from data import checks


def check_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """Returns `image_shape` as three positive integers.

    Raises:
        ValueError: If it is not (height, width, channels).
    """
    try:
        height, width, channels = image_shape
    except (TypeError, ValueError) as error:
        raise ValueError(
            "image_shape must be (height, width, channels), "
            f"got {image_shape!r}"
        ) from error
    return (
        checks.check_positive_integer(height, "the height in image_shape"),
        checks.check_positive_integer(width, "the width in image_shape"),
        checks.check_positive_integer(channels, "the channels in image_shape"),
    )
