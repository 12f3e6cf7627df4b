"""Measures error rates of a classifier with and without a purifier."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

import attacks
import data
import models
from ape_gan_tf.cells import describe_input
from ape_gan_tf.crafting import check_classes
from ape_gan_tf.error_counter import ErrorCounter
from ape_gan_tf.metrics import MetricsFile, Row
from ape_gan_tf.perturbation import (
    Perturb,
    attack_on,
    averages,
    given,
    minimised_distance,
    stored,
)
from ape_gan_tf.progress import Progress
from data.checks import check_in_range, check_one_of
from data.randomness import per_image_normal, per_image_uniform

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
class SignNoise:
    """Each value moved by epsilon up or down at random, clipped to [0, 1].

    A corner of the Linf ball that nobody chose: an attack that does worse is
    broken (Carlini et al. 2019, Sec. 4.3).

    Attributes:
        epsilon: In [0, 1] units.
        seed: The signs of an image depend on it and the image's index.
    """

    name = "sign_noise"

    epsilon: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        check_in_range(self.epsilon, 0.0, 1.0, "epsilon")

    @property
    def params(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon}

    def __call__(self, images: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        drawn = per_image_uniform(
            self.seed,
            indices,
            low=-1.0,
            high=1.0,
            shape=images.shape[1:],
            stream="sign_noise",
        )
        moved = images + self.epsilon * tf.where(drawn < 0.0, -1.0, 1.0)
        return tf.clip_by_value(moved, 0.0, 1.0)


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
    def counters(self) -> dict[str, ErrorCounter]:
        """Of the `target` alone and behind the purifier, if there is one.

        Kept, because each compiles a function.
        """
        counters = {"target": ErrorCounter(self.classifier)}
        if self.defended is not None:
            counters["purified"] = ErrorCounter(self.defended)
        return counters

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
    row = set_row(subject, provenance, adversarial_set.count)
    batches = adversarial_set.batches(subject.images_at_a_time, limit=row.count)
    perturbs = {"target": given(lambda batch: batch["adversarial"])}
    minimised = minimised_distance(row.input, row.params)
    if row.threat_model == "oblivious":
        perturbs = {"target": stored(subject.classifier, minimised)}
    elif row.threat_model == "white_box" and subject.defended is not None:
        perturbs = {"purified": stored(subject.defended, minimised)}
    sizes = adversarial_set.sizes(row.count)
    return _measure(subject, row, batches, perturbs, metrics, sizes)


def set_row(subject: Subject, provenance: data.Provenance, count: int) -> Row:
    """The row of a stored set of `count` images, but for the errors."""
    is_own = _is_own(subject, provenance)
    params = dict(provenance.params)
    how = {name: params.pop(name, None) for name in ("start", "gradient")}
    return dataclasses.replace(
        subject.row(
            provenance.attack,
            params,
            provenance.threat_model if is_own else "transfer",
        ),
        dataset=provenance.dataset,
        split=provenance.split,
        count=min(subject.limit or count, count),
        crafted_on=_crafted_on(provenance),
        seed=provenance.seed,
        **how,
    )


def benign_row(subject: Subject, benign: BenignInput) -> Row:
    """The row of images that nobody attacked, but for the errors."""
    return subject.row(benign.name, benign.params, "benign")


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


def _measure_benign(
    subject: Subject, benign: BenignInput, metrics: MetricsFile
) -> Row:
    def make(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return benign(batch["images"], batch["index"])

    row = benign_row(subject, benign)
    perturbs = {"target": given(make)}
    return _measure(subject, row, subject.batches(), perturbs, metrics)


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
    perturbs = {"target": attack_on(subject.classifier, attack)}
    if threat == "white_box" and subject.defended is not None:
        perturbs["purified"] = attack_on(subject.defended, attack)
        row = dataclasses.replace(row, crafted_on=subject.defended.fingerprint)
    return _measure(subject, row, subject.batches(), perturbs, metrics)


def _measure(
    subject: Subject,
    row: Row,
    batches: tf.data.Dataset,
    perturbs: Mapping[str, Perturb],
    metrics: MetricsFile,
    sizes: Mapping[str, np.ndarray] | None = None,
) -> Row:
    """Fills in a row's figures, unless they are known already.

    `perturbs` makes the images for the `target` alone and for the `purified`
    one, which sees the target's where it has none of its own. Images made for
    the purified one alone say nothing about the target. `sizes` are kept with
    the outcomes.
    """
    known = metrics.find(row)
    if known is not None:
        return known
    counters = {
        who: counter
        for who, counter in subject.counters.items()
        if who in perturbs or "target" in perturbs
    }
    distances: dict[str, list[np.ndarray]] = {who: [] for who in perturbs}
    wrong: dict[str, list[np.ndarray]] = {who: [] for who in counters}
    for counter in counters.values():
        counter.reset()
    description = f"{row.threat_model} {describe_input(row)}"
    images = row.count * len(perturbs)
    with Progress(description, images, "images") as progress:
        for batch in batches:
            made = {
                who: perturb(batch, progress.update)
                for who, perturb in perturbs.items()
            }
            for who, counter in counters.items():
                seen = made[who if who in made else "target"]
                wrong[who].append(counter.add(seen.images, batch["labels"]))
            for who, each in made.items():
                if each.distances is not None:
                    distances[who].append(each.distances)
    minimised = minimised_distance(row.input, row.params)
    has_top_5 = subject.classifier.num_classes == TOP_5_CLASSES
    row = dataclasses.replace(
        row, **_errors(counters, has_top_5), **averages(minimised, distances)
    )
    outcomes = {who: np.concatenate(parts) for who, parts in wrong.items()}
    metrics.add(row, {**outcomes, **(sizes or {})})
    return row


def _errors(
    counters: dict[str, ErrorCounter], has_top_5: bool
) -> dict[str, Any]:
    errors: dict[str, Any] = {}
    for who, counter in counters.items():
        errors[f"{who}_error"] = counter.error()
        if has_top_5:
            errors[f"{who}_top5_error"] = counter.top5_error()
    return errors


def _identify(network: Any) -> dict[str, str]:
    return {"name": network.name, "fingerprint": network.fingerprint}
