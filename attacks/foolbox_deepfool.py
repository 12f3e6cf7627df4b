"""The reference DeepFool, Foolbox's own. Slow to import, slow to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import foolbox
import tensorflow as tf

from attacks.base import Inputs, per_image, pieces

if TYPE_CHECKING:
    from attacks.deepfool import DeepFool


def craft(
    attack: DeepFool,
    classifier: Any,
    inputs: Inputs,
    progress: Callable[[int], None],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs Foolbox's `L2DeepFoolAttack`, eagerly, batch by batch.

    Args:
        attack: Whose hyper-parameters are taken.
        classifier: Maps images to logits.
        inputs: Checked, untargeted.
        progress: Called with the number of images finished since.

    Returns:
        The adversarial images, clean where Foolbox failed, and int64 `[B]`
        gradient evaluations: those that the image's batch took.
    """
    if not inputs.images.shape[0]:  # Foolbox takes no empty batch.
        return inputs.images, inputs.labels
    reference = foolbox.attacks.L2DeepFoolAttack(
        steps=attack.steps,
        candidates=attack.candidates,
        overshoot=attack.overshoot,
    )
    logits = attack._compiled(
        classifier,
        _logits,
        [tf.TensorSpec([None, *classifier.image_shape], tf.float32)],
    )
    parts = []
    size = attack._room(classifier.image_shape)
    for images, labels in pieces((inputs.images, inputs.labels), size):
        parts.append(_run(reference, _Counted(logits), images, labels))
        progress(len(images))
    adversarial, evaluations = zip(*parts, strict=True)
    return tf.concat(adversarial, 0), tf.concat(evaluations, 0)


class _Counted:
    """A function that knows how often it was called."""

    def __init__(self, function: Callable[[tf.Tensor], tf.Tensor]) -> None:
        self._function = function
        self.calls = 0

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        self.calls += 1
        return self._function(images)


def _run(
    reference: foolbox.attacks.L2DeepFoolAttack,
    logits: _Counted,
    images: tf.Tensor,
    labels: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    # Told the device, it need not look for one, with a warning.
    model = foolbox.TensorFlowModel(logits, (0.0, 1.0), images.device)
    _, adversarial, is_fooled = reference(model, images, labels, epsilons=None)
    # The first call ranks the classes, the last judges; all others were made
    # for a gradient.
    evaluations = tf.fill(
        tf.shape(labels), tf.constant(logits.calls - 2, tf.int64)
    )
    return tf.where(per_image(is_fooled), adversarial, images), evaluations


def _logits(classifier: Any, images: tf.Tensor) -> tf.Tensor:
    return classifier(images)
