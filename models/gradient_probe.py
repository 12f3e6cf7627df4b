"""Whether a classifier's gradients can be of use to an attacker."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from data import checks
from models import classifier as classifiers

# Summed in another order, as threads and accelerators may do, the same logits
# differ by a few roundings, 6e-8 of the largest each. This is over a hundred,
# and still far below what a defence needs to sway an answer.
_ROUNDING = 1e-5


class GradientProbe(NamedTuple):
    """What was found on a batch of images.

    Attributes:
        zero_share: Share of images, in [0, 1], where the input gradient of
            the margin, the best other logit less the label's, is zero in
            every pixel, or not connected to the input at all.
        saturated_share: Share of images where the margin has a gradient, but
            that of the cross-entropy underflows to zero in every pixel: an
            attack on the cross-entropy is stuck there, one on the logits is
            not.
        non_finite_share: Share of images where either gradient has a NaN or
            an infinity.
        answers_change: Whether two identical queries gave logits further
            apart than rounding explains, 1e-5 of the image's largest logit.
        largest_answer_change: The largest difference of a logit between the
            two, 0.0 if they are equal, infinite if only one is a number.
    """

    zero_share: float
    saturated_share: float
    non_finite_share: float
    answers_change: bool
    largest_answer_change: float


def probe(
    classifier: classifiers.Classifier, images: Any, labels: Any
) -> GradientProbe:
    """Looks for the signs of obfuscated gradients on a few images.

    Zero, shattered and stochastic gradients (Athalye et al. 2018, Sec. 3)
    make attacks that follow them fail whatever the defence is worth. A few
    images of a network with dead units can have zero gradients honestly.

    All images are computed at once: a few dozen will do.

    Args:
        classifier: As an attacker would differentiate it.
        images: float32 `[B, *image_shape]` in [0, 1], B at least 1.
        labels: Integers `[B]`.

    Returns:
        The shares of the images, and how far identical queries differ.

    Raises:
        ValueError: If the images or the labels do not fit.
    """
    images = checks.check_images(images, image_shape=classifier.image_shape)
    if not len(images):
        raise ValueError("images must hold at least one image, got none")
    labels = checks.check_labels(labels, classifier.num_classes, len(images))
    is_zero, is_saturated, is_broken = _gradients(classifier, images, labels)
    change, limit = _answer_change(classifier, images)
    return GradientProbe(
        zero_share=float(is_zero.mean()),
        saturated_share=float(is_saturated.mean()),
        non_finite_share=float(is_broken.mean()),
        answers_change=bool((change > limit).any()),
        largest_answer_change=float(change.max()),
    )


def _gradients(classifier, images, labels):
    """Returns bool `[B]` each: zero, saturated, not finite."""
    compiled = tf.function(
        functools.partial(_both_gradients, classifier), autograph=False
    )
    margin, entropy = (
        gradient.numpy().reshape(len(images), -1)
        for gradient in compiled(images, labels)
    )
    is_broken = ~np.isfinite(margin).all(1) | ~np.isfinite(entropy).all(1)
    is_zero = (margin == 0).all(1)
    is_saturated = (entropy == 0).all(1) & ~is_zero & ~is_broken
    return is_zero, is_saturated, is_broken


def _both_gradients(classifier, images, labels):
    """Returns those of the margin and the cross-entropy, like the images."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        logits = classifier(images)
        margin = _margin(logits, labels)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=labels, logits=logits
        )
    return [
        tape.gradient(
            values, images, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        for values in (margin, entropy)
    ]


def _margin(logits, labels):
    """Returns the best other logit less the label's, float32 `[B]`."""
    is_label = tf.one_hot(labels, logits.shape[-1], True, False)
    others = tf.where(is_label, np.float32(-np.inf), logits)
    own = tf.gather(logits, labels, batch_dims=1)
    return tf.reduce_max(others, axis=-1) - own


def _answer_change(classifier, images):
    """Asks twice; returns the change and what rounding explains, `[B]`."""
    first, second = (
        classifier.predict(images, batch_size=len(images)) for _ in range(2)
    )
    is_same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):  # Of infinities, where is_same holds.
        change = np.where(is_same, 0.0, np.abs(first - second))
    change = np.nan_to_num(change, nan=np.inf, posinf=np.inf).max(1)
    largest = np.abs(np.where(np.isfinite(first), first, 0.0)).max(1)
    return change, _ROUNDING * largest
