"""Purifiers and defended classifiers for ART.

ART is the Adversarial Robustness Toolbox of Nicolae et al. 2018, version 1.20
or later, which is not installed with this package.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

import models
from data.checks import check_value_range

try:
    from art.defences.preprocessor.preprocessor import (
        PreprocessorTensorFlowV2,
    )
    from art.estimators.classification import TensorFlowV2Classifier
except ModuleNotFoundError as error:
    raise ImportError(
        "ape_gan_tf.integrations.art needs the Adversarial Robustness Toolbox: "
        "pip install 'ape-gan-tf[art]'"
    ) from error

# As a share of the range: attacks and changes of scale round in float32.
_TOLERANCE = 1e-3


class PurifierPreprocessor(PreprocessorTensorFlowV2):
    """A purifier as one of an ART estimator's `preprocessing_defences`.

    Use it to predict. **To measure what the defence is worth, attack
    `defended_estimator`**: in ART 1.20.1
    `TensorFlowV2Classifier.class_gradient(label=None)` stops at the output of
    the preprocessing, so that it is the gradient with respect to the purified
    image, not to the image that is attacked. ART's DeepFool follows that
    gradient wherever `nb_grads`, 10 by default, is not less than the number of
    classes, and so does the DeepFool in ART's AutoAttack. It then fails, or
    needs too large a perturbation, and the defence looks robust. Gradients of
    the loss, and of classes that are named, go through the purifier.

    Attributes:
        purifier: What purifies, in [0, 1] and in inference mode.
        clip_values: The lowest and highest value of the estimator's images.
    """

    def __init__(
        self,
        purifier: models.Purifier,
        *,
        clip_values: Sequence[float] = (0.0, 1.0),
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        """Wraps a purifier.

        Args:
            purifier: Such as from `ape_gan_tf.load_pretrained`.
            clip_values: Those of the estimator, one number for the lowest
                and one for the highest value of all pixels: (0, 255), say.
                Images are brought to [0, 1] for the purifier, and back.
            apply_fit: Whether to purify what the estimator is trained on. By
                default not: APE-GAN protects a classifier as it is.
            apply_predict: Whether to purify wherever it is not trained.

        Raises:
            ValueError: If an argument does not fit.
        """
        super().__init__(
            is_fitted=True, apply_fit=apply_fit, apply_predict=apply_predict
        )
        if not isinstance(purifier, models.Purifier):
            raise ValueError(
                "purifier must be a Purifier, got "
                f"{type(purifier).__name__}; Purifier.from_keras makes one of "
                "a Keras model"
            )
        self.purifier = purifier
        self.clip_values = check_value_range(clip_values, "clip_values")
        # ART calls it eagerly, step by step. A partial, as each purifier
        # would otherwise be a new trace of one piece of code.
        self._purify = tf.function(
            functools.partial(purifier.__call__),
            autograph=False,
            input_signature=[
                tf.TensorSpec((None, *purifier.image_shape), tf.float32)
            ],
        )

    def forward(self, x: Any, y: Any = None) -> tuple[tf.Tensor, Any]:
        """Purifies images, differentiably.

        Args:
            x: Images `[B, *image_shape]` of floating point in `clip_values`.
                Of a symbolic tensor only dtype and shape are checked.
            y: Labels, or None.

        Returns:
            The purified images, float32 in `clip_values`, and `y` as it is.

        Raises:
            ValueError: If the images are anything else.
        """
        low, high = self.clip_values
        images = tf.cast(self._check(tf.convert_to_tensor(x)), tf.float32)
        purified = self._purify((images - low) / (high - low))
        return purified * (high - low) + low, y

    def _check(self, images: tf.Tensor) -> tf.Tensor:
        if not images.dtype.is_floating:
            raise ValueError(
                "x must be floating point, as integers have no gradient, got "
                f"dtype {images.dtype.name}"
            )
        expected = (None, *self.purifier.image_shape)
        if not images.shape.is_compatible_with(expected):
            raise ValueError(
                f"x must have shape {expected}, got {tuple(images.shape)}"
            )
        if not tf.is_symbolic_tensor(images):
            self._check_range(images.numpy())
        return images

    def _check_range(self, values: Any) -> None:
        if not values.size:
            return
        low, high = self.clip_values
        slack = _TOLERANCE * (high - low)
        # Written so that NaN fails too.
        if not (values.min() >= low - slack and values.max() <= high + slack):
            raise ValueError(
                f"x must be in clip_values, {self.clip_values}, got values "
                f"from {values.min():.6g} to {values.max():.6g}"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.purifier!r}, "
            f"clip_values={self.clip_values}, apply_fit={self.apply_fit}, "
            f"apply_predict={self.apply_predict})"
        )


def estimator(classifier: models.Classifier) -> TensorFlowV2Classifier:
    """Makes ART's estimator of a classifier, to attack and not to train.

    Args:
        classifier: Bare or defended. One that wants images in another range
            than [0, 1] has been told so (`value_range` of
            `Classifier.from_keras` and `Classifier.load`).

    Returns:
        An estimator of images in [0, 1] that predicts logits. Its loss is the
        sum of the images' cross-entropies, so that no gradient depends on
        what else is in the batch.

    Raises:
        ValueError: If it is not a `Classifier`.
    """
    _check_classifier(classifier)
    return TensorFlowV2Classifier(
        model=_compiled(classifier),
        nb_classes=classifier.num_classes,
        input_shape=classifier.image_shape,
        loss_object=keras.losses.CategoricalCrossentropy(
            from_logits=True, reduction="sum"
        ),
        clip_values=(0.0, 1.0),
    )


def defended_estimator(
    classifier: models.Classifier,
    purifier: models.Purifier | keras.Model | Callable[[tf.Tensor], tf.Tensor],
) -> TensorFlowV2Classifier:
    """Makes ART's estimator of a classifier behind a purifier.

    The two are one model here, so every gradient of ART's goes through both:
    this is what to attack to learn what the defence withstands.

    Args:
        classifier: The bare classifier; see `estimator`.
        purifier: What `Classifier.behind` takes.

    Returns:
        What `estimator` returns, for the defended classifier.

    Raises:
        ValueError: If an argument does not fit.
    """
    _check_classifier(classifier)
    return estimator(classifier.behind(purifier))


def _compiled(classifier: models.Classifier) -> Callable[..., tf.Tensor]:
    """Compiled, with the argument `training` that ART passes."""
    return tf.function(
        lambda images, training=False: classifier(images),
        autograph=False,
        reduce_retracing=True,
    )


def _check_classifier(classifier: Any) -> None:
    if not isinstance(classifier, models.Classifier):
        raise ValueError(
            "classifier must be a Classifier, got "
            f"{type(classifier).__name__}; Classifier.from_keras makes one of "
            "a Keras model"
        )
