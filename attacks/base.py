"""What all attacks share: one checked, batched, compiled entry point.

A subclass is a frozen dataclass of hyper-parameters that writes the algorithm
on one batch inside a graph (`BatchAttack.run`; `SearchAttack` in `search.py`),
and `epsilons` where it is bound to a ball. Everything around it (checks,
batches, compilation, the promise that no result leaves the box or the ball,
the statistics) is here, once.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

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


class NonFiniteError(ValueError):
    """A classifier's logits or gradients are not finite for some image."""


class Inputs(NamedTuple):
    """What an attack is given, checked; B images.

    Attributes:
        images: float32 `[B, H, W, C]` in [0, 1], clean.
        labels: int64 `[B]`.
        targets: int64 `[B]`, -1 where untargeted.
        starts: float32 `[B, H, W, C]`, where the search begins.
        indices: int64 `[B]`, identifies an image to random choices.
    """

    images: tf.Tensor
    labels: tf.Tensor
    targets: tf.Tensor
    starts: tf.Tensor
    indices: tf.Tensor


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
class Attack(abc.ABC):
    """Base of all attacks.

    Attributes:
        seed: Source of every random choice, which depends on it and on the
            image's index alone.
        batch_size: Images crafted at a time; changes memory, and results by
            the classifier's rounding alone. None chooses by the images' size.
        xla: Compile with XLA. It is slower for some networks on CPUs.
    """

    name: ClassVar[str] = "attack"
    # Which of a result's distances the attack makes small, or is bound by.
    distance: ClassVar[str] = "linf"
    # Whether the distance is what the attack minimises, not what bounds it.
    is_minimal_norm: ClassVar[bool] = False

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

    def __call__(
        self,
        classifier: Any,
        images: Any,
        labels: Any,
        *,
        targets: Any = None,
        starts: Any = None,
        indices: Any = None,
        progress: Callable[[int], None] | None = None,
    ) -> AttackResult:
        """Attacks images of any number, batch by batch, compiled.

        Args:
            classifier: A `models.Classifier`.
            images: float32 `[B, H, W, C]` in [0, 1].
            labels: Integers `[B]`, the true classes.
            targets: Integers `[B]`, the wanted classes, none of them the
                label; None leaves them to the attack.
            starts: float32 like `images`, where the search begins; None is at
                the clean images.
            indices: Integers `[B]`, positions in the data set, on which random
                choices depend; None counts from 0.
            progress: Called now and then with the number of images that were
                finished since.

        Returns:
            An `AttackResult`.

        Raises:
            ValueError: An argument does not fit; the message says which.
            NonFiniteError: A ValueError too: the classifier's logits or
                gradients are not finite.
        """
        inputs = self._check(
            classifier, images, labels, targets, starts, indices
        )
        adversarial, evaluations = self._craft(
            classifier, inputs, progress or _ignore
        )
        result, is_finite = self._judge(classifier, inputs, adversarial)
        _refuse_non_finite(self.name, is_finite, inputs.indices)
        return result._replace(gradient_evaluations=evaluations)

    def images_at_a_time(self, image_shape: Sequence[int]) -> int:
        """How many images somebody who has many should hand over at once."""
        return self.batch_size or default_batch_size(image_shape)

    def choose_targets(
        self,
        classifier: Any,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
    ) -> tf.Tensor:
        """int64 `[B]`: the targets where none are given; -1 is untargeted."""
        return tf.fill(tf.shape(labels), tf.constant(NO_TARGET, tf.int64))

    def constrain(
        self, adversarial: tf.Tensor, images: tf.Tensor, indices: tf.Tensor
    ) -> tf.Tensor:
        """Puts images into the box and the attack's own ball."""
        return clip_to_ball(adversarial, images, self.epsilons(indices))

    def _check(
        self, classifier, images, labels, targets, starts, indices
    ) -> Inputs:
        images = check_images(images, image_shape=classifier.image_shape)
        count = images.shape[0]
        classes = classifier.num_classes
        labels = check_labels(labels, classes, count)
        indices = _check_indices(indices, count)
        if targets is None:
            targets = self.choose_targets(classifier, images, labels, indices)
        else:
            targets = check_labels(targets, classes, count, "targets")
            _refuse_labels(targets, labels)
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
        return Inputs(images, labels, targets, starts, indices)

    @abc.abstractmethod
    def _craft(
        self, classifier: Any, inputs: Inputs, progress: Callable[[int], None]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The adversarial images and the gradient evaluations of each."""

    def _judge(
        self, classifier: Any, inputs: Inputs, adversarial: tf.Tensor
    ) -> tuple[AttackResult, tf.Tensor]:
        """The result, and bool `[B]`: whether all went well with an image."""
        shape = classifier.image_shape
        function = self._compiled(
            classifier,
            self._judge_batch,
            [*_specs(shape), tf.TensorSpec([None, *shape], tf.float32)],
        )
        size = default_batch_size(shape)
        parts = [
            function(*piece) for piece in pieces((*inputs, adversarial), size)
        ]
        results, is_finite = zip(*parts, strict=True)
        columns = zip(*results, strict=True)
        return (
            AttackResult(*[tf.concat(column, 0) for column in columns]),
            tf.concat(is_finite, 0),
        )

    def _judge_batch(
        self, classifier, images, labels, targets, starts, indices, adversarial
    ) -> tuple[AttackResult, tf.Tensor]:
        adversarial = self.constrain(adversarial, images, indices)
        logits = classifier(adversarial)
        predicted = tf.argmax(logits, axis=-1)
        is_finite = tf.logical_and(
            tf.reduce_all(tf.math.is_finite(adversarial), axis=[1, 2, 3]),
            ~tf.reduce_any(tf.math.is_nan(logits), axis=-1),
        )
        result = AttackResult(
            adversarial,
            tf.where(
                targets == NO_TARGET, predicted != labels, predicted == targets
            ),
            targets,
            *distances(adversarial, images),
            tf.zeros_like(labels),
        )
        return result, is_finite

    def _compiled(
        self, classifier: Any, method: Callable[..., Any], specs: list[Any]
    ) -> Any:
        """`method`, given the classifier, compiled once for each of both."""
        functions = _COMPILED.setdefault(classifier, {})
        key = (self, self.xla, method.__name__)
        if key not in functions:
            functions[key] = tf.function(
                # A partial, not a lambda: TensorFlow counts the traces of one
                # piece of code, and would warn of the fifth attack's. Weak,
                # or the classifier would be kept alive by its own entry.
                functools.partial(_call, method, weakref.ref(classifier)),
                input_signature=specs,
                autograph=False,
                jit_compile=True if self.xla else None,
            )
        return functions[key]


class BatchAttack(Attack):
    """Base of the attacks that make all images in the same number of steps.

    A subclass writes `run`, which is traced without AutoGraph: a loop or branch
    on tensors is a `tf.while_loop` or `tf.cond`.
    """

    @abc.abstractmethod
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

    def _craft(
        self, classifier: Any, inputs: Inputs, progress: Callable[[int], None]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The adversarial images and the gradient evaluations of each."""
        size = self.images_at_a_time(classifier.image_shape)
        function = self._compiled(
            classifier, self.run, _specs(classifier.image_shape)
        )
        parts = []
        for piece in pieces(inputs, size):
            parts.append(function(*piece))
            progress(int(piece[0].shape[0]))
        adversarial, evaluations = zip(*parts, strict=True)
        return tf.concat(adversarial, 0), tf.concat(evaluations, 0)


def _call(
    method: Callable[..., Any], reference: weakref.ref, *arguments: tf.Tensor
) -> Any:
    return method(reference(), *arguments)


def _ignore(count: int) -> None:
    """Takes reports of progress that nobody wants."""


def _specs(image_shape: Sequence[int]) -> list[tf.TensorSpec]:
    """Of `Inputs`, for any number of images."""
    image = tf.TensorSpec([None, *image_shape], tf.float32)
    number = tf.TensorSpec([None], tf.int64)
    return [image, number, number, image, number]


def pieces(
    tensors: Sequence[tf.Tensor], size: int
) -> Iterator[list[tf.Tensor]]:
    """Cuts tensors of equal length into pieces; of none, one empty piece."""
    for start in range(0, max(int(tensors[0].shape[0]), 1), size):
        yield [tensor[start : start + size] for tensor in tensors]


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


def refuse_given(why: str, **arguments: Any) -> None:
    """Raises ValueError for an argument that an attack does not take."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"{name} must be None, since {why}, got {type(value).__name__}"
            )


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


def _refuse_labels(targets: tf.Tensor, labels: tf.Tensor) -> None:
    same = tf.where(targets == labels)
    if len(same):
        first = int(same[0, 0])
        raise ValueError(
            f"targets must not be the labels, but {len(same)} are; the first "
            f"is {int(labels[first])} at position {first}"
        )


def _refuse_non_finite(
    name: str, is_finite: tf.Tensor, indices: tf.Tensor
) -> None:
    bad = tf.boolean_mask(indices, ~is_finite).numpy()
    if len(bad):
        raise NonFiniteError(
            f"{name}: the classifier's logits or gradients are not finite "
            f"for {len(bad)} image(s), the first at index {bad[0]}"
        )
