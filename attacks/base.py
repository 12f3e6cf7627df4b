"""What all attacks share: one checked, batched, compiled entry point.

A subclass is a frozen dataclass of hyper-parameters that writes `run`, the
algorithm on one batch inside a graph, and `epsilons` where it is bound to a
ball. Everything around it (checks, batches, compilation, the promise that no
result leaves the box or the ball, the statistics) is here, once.
"""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from data.checks import (
    check_images,
    check_labels,
    check_non_negative_integer,
    check_positive_integer,
)

NO_TARGET = -1
L0_TOLERANCE = 1e-6  # A smaller change than this is float32 rounding.

# Compiled functions live as long as their classifier does, not longer.
_COMPILED: weakref.WeakKeyDictionary[Any, dict] = weakref.WeakKeyDictionary()


class AttackResult(NamedTuple):
    """What an attack made of B images.

    Attributes:
        adversarial: float32 `[B, H, W, C]` in [0, 1].
        success: bool `[B]`. Untargeted: the argmax is not the label. Targeted:
            it is the target.
        targets: int64 `[B]`, -1 where the attack is untargeted.
        l0: float32 `[B]`, how many values (not pixels) changed.
        l2: float32 `[B]`, Euclidean norm of the change, in [0, 1] units.
        linf: float32 `[B]`, largest change of a value.
        gradient_evaluations: int64 `[B]`, input gradients taken for the image.
    """

    adversarial: tf.Tensor
    success: tf.Tensor
    targets: tf.Tensor
    l0: tf.Tensor
    l2: tf.Tensor
    linf: tf.Tensor
    gradient_evaluations: tf.Tensor


def settings_field(default: Any) -> Any:
    """A field that says how to compute, not what: never part of `params`."""
    return dataclasses.field(
        default=default, compare=False, metadata={"setting": True}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """Base of all attacks.

    Attributes:
        seed: Source of every random choice, which depends on it and on the
            image's index alone.
        batch_size: Images crafted at a time; changes memory, not results.
            None chooses by the images' size.
        xla: Compile with XLA. It is slower for some networks on CPUs.
    """

    name = "attack"

    seed: int = dataclasses.field(default=0, metadata={"setting": True})
    batch_size: int | None = settings_field(None)
    xla: bool = settings_field(False)

    def __post_init__(self) -> None:
        check_non_negative_integer(self.seed, "seed")
        if self.batch_size is not None:
            check_positive_integer(self.batch_size, "batch_size")

    @property
    def params(self) -> dict[str, Any]:
        """The hyper-parameters that define the attack, ready for JSON."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.metadata.get("setting")
        }

    def epsilons(self, indices: tf.Tensor) -> tf.Tensor:
        """float32 `[B]`: each image's ball in Linf; NaN means no ball."""
        return tf.fill(tf.shape(indices), np.float32(np.nan))

    def run(
        self,
        classifier: Any,
        images: tf.Tensor,
        labels: tf.Tensor,
        targets: tf.Tensor,
        starts: tf.Tensor,
        indices: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attacks one batch inside a graph.

        Args:
            classifier: Maps images to logits.
            images: float32 `[B, H, W, C]`, clean.
            labels: int64 `[B]`.
            targets: int64 `[B]`, -1 where untargeted.
            starts: float32 `[B, H, W, C]`, where the search begins.
            indices: int64 `[B]`, identifies an image to random choices.

        Returns:
            The adversarial images, and int64 `[B]` gradient evaluations. The
            box and the ball are enforced by the caller.
        """
        raise NotImplementedError

    def __call__(
        self,
        classifier: Any,
        images: Any,
        labels: Any,
        *,
        targets: Any = None,
        starts: Any = None,
        indices: Any = None,
    ) -> AttackResult:
        """Attacks images of any number, batch by batch, compiled.

        Args:
            classifier: A `models.Classifier`.
            images: float32 `[B, H, W, C]` in [0, 1].
            labels: Integers `[B]`, the true classes.
            targets: Integers `[B]`, the wanted classes; None is untargeted.
            starts: float32 like `images`, where the search begins; None is at
                the clean images.
            indices: Integers `[B]`, positions in the data set, on which random
                choices depend; None counts from 0.

        Returns:
            An `AttackResult`.

        Raises:
            ValueError: An argument does not fit, or the classifier's gradient
                is not finite; the message says which and how.
        """
        inputs = self._check(
            classifier, images, labels, targets, starts, indices
        )
        count = inputs[0].shape[0]
        size = self.batch_size or default_batch_size(classifier.image_shape)
        function = self._compiled(classifier)
        parts = [
            function(*[x[begin : begin + size] for x in inputs])
            for begin in range(0, max(count, 1), size)
        ]
        result = AttackResult(
            *[tf.concat(x, 0) for x in zip(*parts, strict=True)]
        )
        _refuse_non_finite(self.name, result.adversarial, inputs[-1])
        return result

    def _check(self, classifier, images, labels, targets, starts, indices):
        shape = tuple(classifier.image_shape)
        images = check_images(images, image_shape=shape)
        count = images.shape[0]
        classes = classifier.num_classes
        labels = check_labels(labels, classes, count)
        if targets is None:
            targets = tf.fill([count], tf.constant(NO_TARGET, tf.int64))
        else:
            targets = check_labels(targets, classes, count, "targets")
        starts = (
            images
            if starts is None
            else check_images(starts, "starts", images.shape[1:])
        )
        if starts.shape != images.shape:
            raise ValueError(
                f"starts must have the shape of images, {images.shape}, "
                f"got {starts.shape}"
            )
        return images, labels, targets, starts, _check_indices(indices, count)

    def _compiled(self, classifier: Any) -> Any:
        functions = _COMPILED.setdefault(classifier, {})
        key = (self, self.xla)
        if key not in functions:
            # Weak, or the classifier would be kept alive by its own entry.
            reference = weakref.ref(classifier)
            image = [None, *classifier.image_shape]
            # A partial, not a lambda: TensorFlow counts the traces of one
            # piece of code, and would warn of the fifth attack's.
            functions[key] = tf.function(
                functools.partial(self._run_checked, reference),
                input_signature=[
                    tf.TensorSpec(image, tf.float32),
                    tf.TensorSpec([None], tf.int64),
                    tf.TensorSpec([None], tf.int64),
                    tf.TensorSpec(image, tf.float32),
                    tf.TensorSpec([None], tf.int64),
                ],
                jit_compile=True if self.xla else None,
            )
        return functions[key]

    def _run_checked(
        self, reference, images, labels, targets, starts, indices
    ) -> AttackResult:
        classifier = reference()
        adversarial, evaluations = self.run(
            classifier, images, labels, targets, starts, indices
        )
        adversarial = clip_to_ball(adversarial, images, self.epsilons(indices))
        predicted = tf.argmax(classifier(adversarial), axis=-1)
        success = tf.where(
            targets == NO_TARGET, predicted != labels, predicted == targets
        )
        return AttackResult(
            adversarial,
            success,
            targets,
            *distances(adversarial, images),
            evaluations,
        )


def default_batch_size(image_shape: Sequence[int]) -> int:
    """Images to compute at a time: at most 256, and 16 MiB of pixels."""
    image_bytes = 4 * int(np.prod(image_shape))
    return max(1, min(256, 2**24 // image_bytes))


def per_image(values: tf.Tensor) -> tf.Tensor:
    """`[B]` -> `[B, 1, 1, 1]`, to go with a batch of images."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def clip_to_ball(
    adversarial: tf.Tensor, images: tf.Tensor, epsilons: tf.Tensor
) -> tf.Tensor:
    """Clips to the box [0, 1] and to each image's Linf ball, if it has one.

    Non-finite values stay as they are, so that they can be seen.
    """
    radius = per_image(
        tf.where(tf.math.is_nan(epsilons), tf.ones_like(epsilons), epsilons)
    )
    clipped = tf.clip_by_value(adversarial, images - radius, images + radius)
    clipped = tf.clip_by_value(clipped, 0.0, 1.0)
    return tf.where(tf.math.is_finite(adversarial), clipped, adversarial)


def distances(
    adversarial: tf.Tensor, images: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """L0 (values), L2 and Linf of the perturbations, float32 `[B]` each."""
    change = tf.reshape(
        adversarial - images,
        [tf.shape(images)[0], int(np.prod(images.shape[1:]))],
    )
    size = tf.abs(change)
    l0 = tf.reduce_sum(tf.cast(size > L0_TOLERANCE, tf.float32), -1)
    return l0, tf.norm(change, axis=-1), tf.reduce_max(size, axis=-1)


def _check_indices(indices: Any, count: int) -> tf.Tensor:
    if indices is None:
        return tf.range(count, dtype=tf.int64)
    indices = np.asarray(indices)
    if indices.shape != (count,) or not np.issubdtype(
        indices.dtype, np.integer
    ):
        raise ValueError(
            f"indices must be integers of shape [{count}], got dtype "
            f"{indices.dtype} and shape {indices.shape}"
        )
    return tf.constant(indices, tf.int64)


def _refuse_non_finite(
    name: str, adversarial: tf.Tensor, indices: tf.Tensor
) -> None:
    finite = tf.reduce_all(tf.math.is_finite(adversarial), axis=[1, 2, 3])
    if not tf.reduce_all(finite):
        bad = tf.boolean_mask(indices, ~finite).numpy().tolist()
        raise ValueError(
            f"{name}: the classifier's logits or gradients are not finite "
            f"for {len(bad)} image(s), the first at index {bad[0]}"
        )
