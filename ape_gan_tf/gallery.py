"""Pictures of images, of what attackers make of them, and of them purified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import attacks
import data
import models
from ape_gan_tf import figures
from ape_gan_tf.evaluation import Subject

IMAGES = 10


def first_images(subject: Subject) -> dict[str, tf.Tensor]:
    """The images of a picture, with their labels and indices."""
    return next(iter(subject.batches().unbatch().batch(IMAGES)))


def label_of(name: str, params: Mapping[str, Any]) -> str:
    """Of an attack, to stand beside its images."""
    epsilon = params.get("epsilon")
    words = name.replace("_", " ")
    return words if epsilon is None else f"{words}\nepsilon {epsilon:.3g}"


def draw_images(
    path: Path,
    subject: Subject,
    kinds: Iterable[tuple[str, Any]],
    labels: Any,
) -> None:
    """Draws the paper's Figure 4: each kind of image, and below it purified.

    Args:
        path: The PNG file.
        subject: Classifier and purifier.
        kinds: Labels, and float32 `[N, H, W, C]` in [0, 1] each.
        labels: Integers `[N]`, the true classes.
    """
    rows = [
        row
        for label, images in kinds
        for row in _seen(subject, label, np.asarray(images))
    ]
    title = (
        f"{subject.dataset.name}, {subject.split} images, "
        f"classifier {subject.classifier.name}"
    )
    _draw(path, subject, rows, labels, title)


def draw_set(
    path: Path, subject: Subject, adversarial_set: data.AdversarialSet
) -> None:
    """Draws a stored set: clean, adversarial, and both purified."""
    batch = next(iter(adversarial_set.batches(IMAGES)))
    name = adversarial_set.provenance.attack.replace("_", " ")
    rows = [
        *_seen(subject, "clean", batch["images"].numpy()),
        *_seen(subject, name, batch["adversarial"].numpy()),
    ]
    title = f"{adversarial_set.path.stem}, classifier {subject.classifier.name}"
    _draw(path, subject, rows, batch["labels"], title)


def draw_attackers(
    path: Path,
    subject: Subject,
    attack: attacks.Attack,
    victim: models.Classifier | None = None,
) -> None:
    """Draws images, their perturbations amplified, and what is seen in them.

    Args:
        path: The PNG file.
        subject: Classifier, purifier and images.
        attack: Made once on the classifier alone, and once on `victim`.
        victim: What a white-box attacker differentiates; None leaves that
            attacker out.
    """
    batch = first_images(subject)
    clean = batch["images"].numpy()
    rows = [*_seen(subject, "clean", clean)]
    for label, who in (
        ("oblivious", subject.classifier),
        ("white-box", victim),
    ):
        if who is not None:
            rows += _attacked(subject, label, attack, who, batch)
    how = label_of(attack.name, attack.params).replace("\n", ", ")
    title = f"{how} on {subject.dataset.name}, {subject.split}"
    _draw(path, subject, rows, batch["labels"], title)


def _attacked(
    subject: Subject,
    label: str,
    attack: attacks.Attack,
    victim: models.Classifier,
    batch: dict[str, tf.Tensor],
) -> Iterator[figures.ImageRow]:
    made = attack(
        victim, batch["images"], batch["labels"], indices=batch["index"]
    ).adversarial.numpy()
    yield figures.perturbation_row(
        batch["images"].numpy(), made, f"{label}\nperturbation"
    )
    yield from _seen(subject, label, made)


def _seen(
    subject: Subject, label: str, images: np.ndarray
) -> Iterator[figures.ImageRow]:
    """Images, and the same behind the purifier if there is one."""
    shown = [(label, images)]
    if subject.purifier is not None:
        shown.append(("purified", subject.purifier.predict(images)))
    for name, each in shown:
        predictions = subject.classifier.predict(each).argmax(-1)
        yield figures.ImageRow(name, each, predictions)


def _draw(
    path: Path,
    subject: Subject,
    rows: list[figures.ImageRow],
    labels: Any,
    title: str,
) -> None:
    figures.image_grid(
        path, rows, np.asarray(labels), subject.dataset.class_names, title
    )
