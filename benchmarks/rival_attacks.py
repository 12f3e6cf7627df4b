"""The attacks that ours are compared with, behind one signature.

Each rival takes a classifier, images, labels and targets and returns the
adversarial images; its library is imported when it is first made. Parameters
are pinned in `comparisons.py` and `robust_comparisons.py`.
"""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from processes import MissingLibraryError

import models

# The plain implementations that our tests compare with, too.
_TESTS = Path(__file__).resolve().parents[1] / "tests" / "attacks"

Rival = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def as_others_have_it(classifier: models.Classifier) -> models.Classifier:
    """The Keras model itself, without the input gradients that ours exchanges.

    That is what somebody who uses another library calls, compiled.
    """
    if classifier.keras_model is None:
        return classifier
    return models.Classifier.from_callable(
        functools.partial(classifier.keras_model, training=False),
        image_shape=classifier.image_shape,
        num_classes=classifier.num_classes,
        fingerprint=classifier.fingerprint,
    )


def foolbox_deepfool(
    classifier: models.Classifier, batch_size: int, **params: Any
) -> Rival:
    import foolbox

    attack = foolbox.attacks.L2DeepFoolAttack(**params)
    return _foolbox(classifier, attack, batch_size)


def foolbox_cw_l2(
    classifier: models.Classifier, batch_size: int, **params: Any
) -> Rival:
    import foolbox

    attack = foolbox.attacks.L2CarliniWagnerAttack(**params)
    return _foolbox(classifier, attack, batch_size)


def _foolbox(
    classifier: models.Classifier, attack: Any, batch_size: int
) -> Rival:
    import foolbox

    model = foolbox.TensorFlowModel(_compiled(classifier), bounds=(0, 1))

    def run(
        images: np.ndarray, labels: np.ndarray, targets: np.ndarray
    ) -> np.ndarray:
        parts = []
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            _, clipped, _ = attack(
                model,
                tf.constant(images[rows]),
                foolbox.criteria.Misclassification(
                    tf.constant(labels[rows], tf.int64)
                ),
                epsilons=None,
            )
            parts.append(np.asarray(clipped))
        return np.concatenate(parts)

    return run


def art_jsma(classifier: models.Classifier, **params: Any) -> Rival:
    return _art(classifier, "SaliencyMapMethod", True, params)


def art_cw_linf(classifier: models.Classifier, **params: Any) -> Rival:
    params = {"targeted": False, **params}
    return _art(classifier, "CarliniLInfMethod", False, params)


def art_cw_l0(classifier: models.Classifier, **params: Any) -> Rival:
    params = {"targeted": True, **params}
    return _art(classifier, "CarliniL0Method", True, params)


def art_apgd(classifier: models.Classifier, seed: int, **params: Any) -> Rival:
    attack = _art(classifier, "AutoProjectedGradientDescent", False, params)
    return _seeded(attack, seed)


def art_square(
    classifier: models.Classifier, seed: int, **params: Any
) -> Rival:
    return _seeded(_art(classifier, "SquareAttack", False, params), seed)


def _seeded(attack: Rival, seed: int) -> Rival:
    """ART draws from the generators that all of a process share."""

    def run(
        images: np.ndarray, labels: np.ndarray, targets: np.ndarray
    ) -> np.ndarray:
        np.random.seed(seed)
        random.seed(seed)
        return attack(images, labels, targets)

    return run


def _art(
    classifier: models.Classifier,
    name: str,
    is_targeted: bool,
    params: dict[str, Any],
) -> Rival:
    try:
        from art.attacks import evasion

        from ape_gan_tf.integrations.art import estimator
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            "ART is not installed; pip install adversarial-robustness-toolbox"
        ) from error
    attack = getattr(evasion, name)(
        estimator(classifier), verbose=False, **params
    )

    def run(
        images: np.ndarray, labels: np.ndarray, targets: np.ndarray
    ) -> np.ndarray:
        classes = targets if is_targeted else labels
        return attack.generate(images, np.eye(classifier.num_classes)[classes])

    return run


def plain_jsma(
    classifier: models.Classifier, theta: float, gamma: float
) -> Rival:
    sys.path.insert(0, str(_TESTS))
    from plain_jsma import plain_jsma as attack

    logits_of = _compiled(classifier)

    @tf.function
    def jacobian_of(image: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(image)
            logits = classifier(image[tf.newaxis])[0]
        return tape.jacobian(logits, image)

    def run(
        images: np.ndarray, labels: np.ndarray, targets: np.ndarray
    ) -> np.ndarray:
        return np.stack(
            [
                attack(
                    lambda x: jacobian_of(tf.constant(x)).numpy(),
                    lambda x: logits_of(tf.constant(x[np.newaxis]))[0].numpy(),
                    image,
                    int(target),
                    theta,
                    gamma,
                )
                for image, target in zip(images, targets, strict=True)
            ]
        )

    return run


def scipy_lbfgs(classifier: models.Classifier, **params: Any) -> Rival:
    sys.path.insert(0, str(_TESTS))
    from scipy_lbfgs import scipy_lbfgs_on as attack

    def run(
        images: np.ndarray, labels: np.ndarray, targets: np.ndarray
    ) -> np.ndarray:
        return attack(classifier, images, targets, **params)

    return run


def _compiled(classifier: models.Classifier) -> Any:
    """Compiled for them too: what is compared is the attack."""
    return tf.function(
        lambda images, training=False: classifier(images),
        reduce_retracing=True,
    )
