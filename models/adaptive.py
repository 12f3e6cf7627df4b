"""Gradients for an attacker of defences that have none of their own.

Athalye, Carlini and Wagner 2018, "Obfuscated Gradients Give a False Sense of
Security", Sec. 4. What is returned is for crafting; whether an image fools
the defence is to be judged by the defence itself.
"""

from __future__ import annotations

import math

import tensorflow as tf

from data import checks
from models import classifier, network, purifier


def with_identity_backward(
    defence: purifier.Purifier,
) -> purifier.Purifier:
    """Gives a purifier the gradient of the identity (BPDA, Sec. 4.1).

    The special case of the paper's Sec. 4.1.1: since a purifier's output
    resembles its input, its derivative is taken to be 1. The classifier
    behind it is differentiated where the purifier leads.

    Args:
        defence: Any purifier, differentiable or not.

    Returns:
        A purifier of the very same images, name and fingerprint: it is the
        same function, so `classifier.behind` gives both the same fingerprint
        too, under which attacks on either are attacks on the one defence.
    """

    def forward(images):
        return _replaced(images, tf.stop_gradient(defence(images)))

    return purifier.Purifier(_posing_as(defence, forward))


def averaged(
    defended: classifier.Classifier, samples: int
) -> classifier.Classifier:
    """Averages the answers of a randomised defence (EOT, Sec. 4.2).

    Its gradient is that of the mean over the defence's randomness. The mean
    is taken of the probabilities, as in the paper, and its logarithm is
    returned, of which a softmax makes the mean again.

    A gradient takes `samples` times the time and the memory.

    Args:
        defended: A classifier whose answers change from call to call.
        samples: How many answers are averaged. 1 gives the logarithm of the
            softmax.

    Returns:
        A classifier of the same name and fingerprint, since the defence that
        is attacked is the same; its logits are log-probabilities in float32.

    Raises:
        ValueError: If `samples` is not a positive integer.
    """
    samples = checks.check_positive_integer(samples, "samples")
    signature = tf.TensorSpec((None, defended.num_classes), tf.float32)

    def mean(images):
        # A loop in the graph: unrolled, a large network would be traced
        # once for each sample.
        answers = tf.map_fn(
            lambda _: tf.nn.log_softmax(defended(images)),
            tf.range(samples),
            fn_output_signature=signature,
        )
        return tf.reduce_logsumexp(answers, axis=0) - math.log(samples)

    return classifier.Classifier(
        _posing_as(defended, mean),
        defended.num_classes,
        base=defended.base,
        purifier=defended.purifier,
    )


@tf.custom_gradient
def _replaced(images, purified):
    """Returns `purified`, with the gradient of `images`."""

    def backward(upstream):
        return upstream, tf.zeros_like(upstream)

    return tf.identity(purified), backward


def _posing_as(source: network.ImageNetwork, function) -> network.Network:
    return network.Network(
        function=function,
        image_shape=source.image_shape,
        name=source.name,
        identity=None,
        given_fingerprint=lambda: source.fingerprint,
        trackables=source.trackables,
    )
