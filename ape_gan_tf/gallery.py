"""Pictures of what attackers do to a defence, who know it and who do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

import attacks
import models
from ape_gan_tf import figures
from ape_gan_tf.evaluation import Subject

IMAGES = 8


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
    batch = next(iter(subject.batches().unbatch().batch(IMAGES)))
    clean = batch["images"].numpy()
    rows = [*_seen(subject, "clean", clean)]
    for label, who in (
        ("oblivious", subject.classifier),
        ("white-box", victim),
    ):
        if who is not None:
            rows += _attacked(subject, label, clean, attack, who, batch)
    epsilon = attack.params.get("epsilon")
    strength = "" if epsilon is None else f", epsilon {epsilon:.3g}"
    figures.image_grid(
        path,
        rows,
        batch["labels"].numpy(),
        subject.dataset.class_names,
        f"{attack.name}{strength} on {subject.dataset.name}, {subject.split}",
    )


def _attacked(
    subject: Subject,
    label: str,
    clean: np.ndarray,
    attack: attacks.Attack,
    victim: models.Classifier,
    batch: dict[str, tf.Tensor],
) -> Iterator[figures.ImageRow]:
    made = attack(
        victim, batch["images"], batch["labels"], indices=batch["index"]
    ).adversarial.numpy()
    yield figures.perturbation_row(clean, made, f"{label}\nperturbation")
    yield from _seen(subject, label, made)


def _seen(
    subject: Subject, label: str, images: np.ndarray
) -> Iterator[figures.ImageRow]:
    """Images, and the same behind the purifier if there is one."""
    shown = [(label, images)]
    if subject.purifier is not None:
        shown.append((f"{label},\npurified", subject.purifier.predict(images)))
    for name, each in shown:
        seen = subject.classifier.predict(each).argmax(-1)
        yield figures.ImageRow(name, each, seen)
