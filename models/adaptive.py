"""Gradients for an attacker of defences other than their own.

For those that have none: Athalye, Carlini and Wagner 2018, "Obfuscated
Gradients Give a False Sense of Security", Sec. 4. What is returned is for
crafting; whether an image fools the defence is to be judged by the defence
itself.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from data import checks
from models import classifier, network, purifier
from models.purifier_resnet import guess_logits


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

    return _stand_in(defended, mean)


def guess_in_place_of(
    defended: classifier.Classifier,
) -> classifier.Classifier:
    """Answers with the guess that a purifier makes of its own.

    Where the classifier behind it follows the guess (`generator` with
    `classes`), an attacker has a way that is shorter than through both: what
    makes the purifier guess wrongly makes the classifier answer wrongly.

    Args:
        defended: A classifier behind a purifier that is a Keras model with a
            guess.

    Returns:
        A classifier of the same name and fingerprint, since the defence that
        is attacked is the same; its logits are the guess's.

    Raises:
        ValueError: If there is no such purifier, or its guess is among
            another number of classes.
    """
    defence = defended.purifier
    model = getattr(defence, "keras_model", None)
    logits = None if model is None else guess_logits(model)
    if model is None or logits is None:
        raise ValueError(
            "purifier must be a Keras model with a guess of its own, got "
            f"{getattr(defence, 'name', None)}"
        )
    if logits.shape[-1] != defended.num_classes:
        raise ValueError(
            f"the guess of purifier {defence.name} must be among the "
            f"{defended.num_classes} classes of {defended.name}, got "
            f"{logits.shape[-1]}"
        )
    guess = network.from_keras(keras.Model(model.input, logits))
    return _stand_in(defended, guess.function)


@tf.custom_gradient
def _replaced(images, purified):
    """Returns `purified`, with the gradient of `images`."""

    def backward(upstream):
        return upstream, tf.zeros_like(upstream)

    return tf.identity(purified), backward


def _stand_in(
    defended: classifier.Classifier, function
) -> classifier.Classifier:
    """A classifier that is another function under the name of `defended`."""
    return classifier.Classifier(
        _posing_as(defended, function),
        defended.num_classes,
        base=defended.base,
        purifier=defended.purifier,
    )


def _posing_as(source: network.ImageNetwork, function) -> network.Network:
    return network.Network(
        function=function,
        image_shape=source.image_shape,
        name=source.name,
        identity=None,
        given_fingerprint=lambda: source.fingerprint,
        trackables=source.trackables,
    )
