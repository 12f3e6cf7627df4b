"""Measures error rates of a classifier with and without a purifier."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

import attacks
import data
import models
from ape_gan_tf.crafting import check_classes
from ape_gan_tf.metrics import MetricsFile, Row
from ape_gan_tf.progress import Progress
from data.checks import check_in_range, check_one_of
from data.randomness import per_image_normal

THREAT_MODELS = ("oblivious", "white_box")
TOP_5_CLASSES = 1000  # Top-5 errors are reported on ImageNet.


class BenignInput(Protocol):
    """Images that nobody attacked."""

    name: str

    @property
    def params(self) -> dict[str, Any]: ...

    def __call__(self, images: tf.Tensor, indices: tf.Tensor) -> tf.Tensor: ...


@dataclasses.dataclass(frozen=True)
class Clean:
    """The images as they are."""

    name = "clean"

    @property
    def params(self) -> dict[str, Any]:
        return {}

    def __call__(self, images: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        return images


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """White noise of mean 0, clipped to [0, 1] (Sec. 4.1.1).

    Attributes:
        variance: In [0, 1] units; 0.05 in the paper.
        seed: The noise of an image depends on it and the image's index.
    """

    name = "gaussian_noise"

    variance: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_in_range(self.variance, 0.0, 1.0, "variance")

    @property
    def params(self) -> dict[str, Any]:
        return {"variance": self.variance}

    def __call__(self, images: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        noise = per_image_normal(
            self.seed,
            indices,
            images.shape[1:],
            stddev=float(np.sqrt(self.variance)),
        )
        return tf.clip_by_value(images + noise, 0.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured, and on which images.

    Attributes:
        dataset: From `data.load`.
        split: `train`, `validation` or `test`.
        classifier: The classifier alone.
        purifier: The purifier before it, or None.
        limit: Only the first `limit` images of the split.
        batch_size: Images at a time; None chooses by their size.
        seed: Of random choices.
    """

    dataset: data.Dataset
    split: str
    classifier: models.Classifier
    purifier: models.Purifier | None = None
    limit: int | None = None
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_classes(self.classifier, self.dataset)

    @property
    def count(self) -> int:
        whole = self.dataset.count(self.split)
        return whole if self.limit is None else min(self.limit, whole)

    @property
    def images_at_a_time(self) -> int:
        return self.batch_size or attacks.default_batch_size(
            self.dataset.image_shape
        )

    @functools.cached_property
    def defended(self) -> models.Classifier | None:
        """The classifier behind the purifier, if there is one."""
        if self.purifier is None:
            return None
        return self.classifier.behind(self.purifier)

    @functools.cached_property
    def counters(self) -> list[ErrorCounter]:
        """Of the classifier alone and of the defended one, if there is one.

        Kept, because each compiles a function.
        """
        networks = [self.classifier, self.defended]
        return [ErrorCounter(each) for each in networks if each is not None]

    def batches(self) -> tf.data.Dataset:
        return self.dataset.batches(
            self.split, self.images_at_a_time, limit=self.limit
        )

    def row(self, name: str, params: dict[str, Any], threat: str) -> Row:
        """A row with everything but the errors."""
        purifier = self.purifier
        is_benign = threat == "benign"
        return Row(
            dataset=self.dataset.name,
            split=self.split,
            count=self.count,
            classifier=_identify(self.classifier),
            purifier=None if purifier is None else _identify(purifier),
            input=name,
            params=params,
            threat_model=threat,
            crafted_on=None if is_benign else self.classifier.fingerprint,
            seed=self.seed,
        )


def evaluate(
    subject: Subject,
    benign: Sequence[BenignInput],
    attack_list: Sequence[attacks.Attack],
    threat_models: Sequence[str],
    metrics: MetricsFile,
) -> list[Row]:
    """Measures each input under each threat model; what is there is kept.

    Args:
        subject: Classifier, purifier and images.
        benign: Inputs that nobody attacked.
        attack_list: Attacks, measured under each threat model.
        threat_models: `oblivious`: the attacker sees the classifier alone.
            `white_box`: the attacker sees the purifier too.
        metrics: Where rows are kept; each is saved once it is measured.

    Returns:
        The rows, in the order asked for.

    Raises:
        ValueError: A threat model is unknown, or `white_box` comes without a
            purifier.
    """
    for threat in threat_models:
        check_one_of(threat, THREAT_MODELS, "threat_models")
    if "white_box" in threat_models and subject.purifier is None:
        raise ValueError("threat_models=white_box needs a purifier, got none")
    return [
        *(_measure_benign(subject, each, metrics) for each in benign),
        *(
            _measure_attack(subject, attack, threat, metrics)
            for threat in threat_models
            for attack in attack_list
        ),
    ]


def evaluate_set(
    subject: Subject, adversarial_set: data.AdversarialSet, metrics: MetricsFile
) -> Row:
    """Measures a stored adversarial set, on whatever it was crafted.

    Args:
        subject: Classifier, purifier and limit; its dataset gives the size.
        adversarial_set: The images.
        metrics: Where the row is kept.

    Returns:
        The row. Its threat model is `transfer` where the set was crafted on
        another classifier, or through another purifier. In a white-box row
        `target_error` is None: the set does not attack the bare classifier.
    """
    provenance = adversarial_set.provenance
    is_own = _is_own(subject, provenance)
    row = dataclasses.replace(
        subject.row(
            provenance.attack,
            dict(provenance.params),
            provenance.threat_model if is_own else "transfer",
        ),
        dataset=provenance.dataset,
        split=provenance.split,
        count=min(
            subject.limit or adversarial_set.count, adversarial_set.count
        ),
        crafted_on=_crafted_on(provenance),
        seed=provenance.seed,
    )
    batches = adversarial_set.batches(subject.images_at_a_time, limit=row.count)
    return _measure(subject, row, batches, [_stored], metrics)


def _crafted_on(provenance: data.Provenance) -> str:
    """The fingerprint of what was attacked, purifier and all."""
    if not provenance.purifier_fingerprint:
        return provenance.classifier_fingerprint
    return models.defended_fingerprint(
        provenance.classifier_fingerprint, provenance.purifier_fingerprint
    )


def _is_own(subject: Subject, provenance: data.Provenance) -> bool:
    """Whether a set was crafted on what is measured."""
    purifiers = [""]  # Of an oblivious attacker.
    if subject.purifier is not None:
        purifiers.append(subject.purifier.fingerprint)
    return (
        provenance.classifier_fingerprint == subject.classifier.fingerprint
        and provenance.purifier_fingerprint in purifiers
    )


Perturb = Callable[[dict[str, tf.Tensor]], tf.Tensor]


def _stored(batch: dict[str, tf.Tensor]) -> tf.Tensor:
    return batch["adversarial"]


def _measure_benign(
    subject: Subject, benign: BenignInput, metrics: MetricsFile
) -> Row:
    def perturb(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return benign(batch["images"], batch["index"])

    row = subject.row(benign.name, benign.params, "benign")
    return _measure(subject, row, subject.batches(), [perturb], metrics)


def _measure_attack(
    subject: Subject,
    attack: attacks.Attack,
    threat: str,
    metrics: MetricsFile,
) -> Row:
    attack = dataclasses.replace(
        attack, seed=subject.seed, batch_size=subject.batch_size
    )
    row = subject.row(attack.name, attack.params, threat)
    perturbs = [attack_on(subject.classifier, attack)]
    if threat == "white_box" and subject.defended is not None:
        perturbs.append(attack_on(subject.defended, attack))
        row = dataclasses.replace(row, crafted_on=subject.defended.fingerprint)
    return _measure(subject, row, subject.batches(), perturbs, metrics)


def attack_on(victim: models.Classifier, attack: attacks.Attack) -> Perturb:
    """A function from a batch to its adversarial images for `victim`."""

    def perturb(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return attack(
            victim, batch["images"], batch["labels"], indices=batch["index"]
        ).adversarial

    return perturb


def _measure(
    subject: Subject,
    row: Row,
    batches: tf.data.Dataset,
    perturbs: Sequence[Perturb],
    metrics: MetricsFile,
) -> Row:
    """Fills in a row's errors, unless they are known already.

    The first of `perturbs` makes the images for the bare classifier, the last
    those for the defended one: one function where both see the same.
    """
    known = metrics.find(row)
    if known is not None:
        return known
    counters = subject.counters
    for counter in counters:
        counter.reset()
    description = " ".join([row.threat_model, row.input, _brief(row.params)])
    with Progress(description.strip(), row.count, "images") as progress:
        for batch in batches:
            images = [perturb(batch) for perturb in perturbs]
            counters[0].add(images[0], batch["labels"])
            for counter in counters[1:]:
                counter.add(images[-1], batch["labels"])
            progress.update(int(batch["labels"].shape[0]))
    has_top_5 = subject.classifier.num_classes == TOP_5_CLASSES
    errors = _errors(counters, has_top_5)
    if row.threat_model == "white_box" and perturbs == [_stored]:
        errors = {k: v for k, v in errors.items() if "purified" in k}
    row = dataclasses.replace(row, **errors)
    metrics.add(row)
    return row


def _errors(
    counters: Sequence[ErrorCounter], has_top_5: bool
) -> dict[str, Any]:
    errors: dict[str, Any] = {}
    for who, counter in zip(("target", "purified"), counters, strict=False):
        errors[f"{who}_error"] = counter.error()
        if has_top_5:
            errors[f"{who}_top5_error"] = counter.top5_error()
    return errors


class ErrorCounter:
    """Counts how often a classifier's argmax is not the label.

    Args:
        classifier: Maps images to logits; NaN logits count as wrong.
    """

    def __init__(self, classifier: models.Classifier) -> None:
        self._count = 0
        self._wrong = tf.Variable([0, 0], dtype=tf.int64, trainable=False)
        shape = [None, *classifier.image_shape]
        self._add = tf.function(
            lambda images, labels: self._wrong.assign_add(
                _wrong_top_1_and_5(classifier(images), labels)
            ),
            input_signature=[
                tf.TensorSpec(shape, tf.float32),
                tf.TensorSpec([None], tf.int64),
            ],
        )

    def reset(self) -> None:
        """Starts again from zero."""
        self._count = 0
        self._wrong.assign([0, 0])

    def add(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """Counts one batch."""
        self._count += int(labels.shape[0])
        self._add(images, labels)

    def error(self) -> float:
        """Top-1 error in percent of all images so far."""
        return self._percent(0)

    def top5_error(self) -> float:
        """Top-5 error in percent of all images so far."""
        return self._percent(1)

    def _percent(self, column: int) -> float:
        if not self._count:
            raise ValueError("there are no images to measure an error on")
        return 100.0 * int(self._wrong[column]) / self._count


def _wrong_top_1_and_5(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    broken = tf.reduce_any(tf.math.is_nan(logits), axis=-1)
    top_1 = tf.argmax(logits, -1) != labels
    top_5 = ~tf.math.in_top_k(labels, logits, k=min(5, logits.shape[-1]))
    wrong = tf.stack([top_1 | broken, top_5 | broken])
    return tf.reduce_sum(tf.cast(wrong, tf.int64), axis=-1)


def _identify(network: Any) -> dict[str, str]:
    return {"name": network.name, "fingerprint": network.fingerprint}


def _brief(params: dict[str, Any]) -> str:
    return ",".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
        if value is not None
    )
