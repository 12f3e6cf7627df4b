"""What the exported purifier answers, as functions by name."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ape_gan_tf.serving import encoded_images
from ape_gan_tf.serving.valid_images import (
    are_valid,
    checked_shape,
    zero_unless,
)
from models.saved_model import Endpoint, images_spec

Outputs = dict[str, tf.Tensor]
Function = Callable[[tf.Tensor], tf.Tensor]

ENCODED_SPEC = tf.TensorSpec((None,), tf.string, name="image_bytes")


def endpoints(
    image_shape: tuple[int, int, int],
    purifier: Function,
    classifier: Function | None = None,
    label_of: Function | None = None,
) -> dict[str, Endpoint]:
    """The endpoints of a purifier, and of a classifier behind it.

    `purify`, the first, makes `purified` and `valid` of `images`; `classify`
    makes `logits`, `probabilities`, `class`, `shift` and, with `label_of`,
    `label` besides. `purify_encoded` and `classify_encoded` take
    `image_bytes`; they are there where images have 1 or 3 channels.

    Args:
        image_shape: Height, width and channels.
        purifier: From float32 images in [0, 1] to the same.
        classifier: From those to float32 logits `[B, K]`.
        label_of: From int64 classes `[B]` to strings.
    """

    def purify(images: tf.Tensor, valid: tf.Tensor) -> Outputs:
        # A network may spread NaN over a batch, so it never sees any.
        purified = purifier(zero_unless(valid, images))
        return {"purified": zero_unless(valid, purified), "valid": valid}

    named = _both("purify", purify, image_shape)
    if classifier is None:
        return named

    def classify(images: tf.Tensor, valid: tf.Tensor) -> Outputs:
        outputs = purify(images, valid)
        logits = classifier(outputs["purified"])
        classes = tf.argmax(logits, axis=-1)
        answers = {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "class": classes,
            "shift": _shift(zero_unless(valid, images), outputs["purified"]),
        }
        if label_of is not None:
            answers["label"] = label_of(classes)
        zeroed = {
            name: zero_unless(valid, value) for name, value in answers.items()
        }
        return {**outputs, **zeroed}

    return {**named, **_both("classify", classify, image_shape)}


def _both(
    name: str,
    answer: Callable[[tf.Tensor, tf.Tensor], Outputs],
    image_shape: tuple[int, int, int],
) -> dict[str, Endpoint]:
    """An answer to images, and the same to files where there can be one."""

    def to_images(images: tf.Tensor) -> Outputs:
        images = checked_shape(images, image_shape)
        return _answer_to_any(answer, images, are_valid(images))

    def to_files(image_bytes: tf.Tensor) -> Outputs:
        images, valid = encoded_images.decode(image_bytes, image_shape)
        return _answer_to_any(answer, images, valid)

    found = {name: Endpoint(to_images, images_spec(image_shape))}
    if image_shape[-1] in encoded_images.CHANNELS:
        found[f"{name}_encoded"] = Endpoint(to_files, ENCODED_SPEC)
    return found


def _answer_to_any(
    answer: Callable[[tf.Tensor, tf.Tensor], Outputs],
    images: tf.Tensor,
    valid: tf.Tensor,
) -> Outputs:
    """An answer to a batch that may be empty, which networks never see.

    An empty batch gets a wrong shape from oneDNN's convolutions.
    """
    count = tf.shape(images)[0]
    missing = [0, tf.maximum(1 - count, 0)]
    outputs = answer(
        tf.pad(images, [missing, [0, 0], [0, 0], [0, 0]]),
        tf.pad(valid, [missing]),
    )
    return {name: value[:count] for name, value in outputs.items()}


def _shift(images: tf.Tensor, purified: tf.Tensor) -> tf.Tensor:
    """float32 `[B, 2]`: how far each image was moved, in L2 and in Linf."""
    change = purified - images
    return tf.stack(
        [
            tf.sqrt(tf.reduce_sum(tf.square(change), axis=[1, 2, 3])),
            tf.reduce_max(tf.abs(change), axis=[1, 2, 3]),
        ],
        axis=-1,
    )
