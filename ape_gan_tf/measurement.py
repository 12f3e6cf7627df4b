"""Measures a classifier, with or without a purifier, and reports it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

import attacks
import data
import models
from ape_gan_tf import figures, html_report, report
from ape_gan_tf.crafting import refuse_all_targets
from ape_gan_tf.evaluation import (
    THREAT_MODELS,
    BenignInput,
    Clean,
    GaussianNoise,
    Subject,
    evaluate,
)
from ape_gan_tf.gallery import draw_images, first_images, label_of
from ape_gan_tf.metrics import MetricsFile, Row
from ape_gan_tf.page import Page, Picture
from data.checks import check_one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a purifier or a classifier is measured on.

    Attributes:
        split: `validation` while choosing, `test` once at the end.
        attacks: Measured under each threat model.
        threat_models: `oblivious`, `white_box`.
        noise_variance: Of the Gaussian noise.
        limit: Only the first `limit` images of the split.
        batch_size: Images at a time; None chooses by their size.
        seed: Of random choices.
    """

    split: str = "test"
    attacks: tuple[attacks.Attack, ...] = ()
    threat_models: tuple[str, ...] = ("oblivious",)
    noise_variance: float = 0.05
    limit: int | None = None
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for threat in self.threat_models:
            check_one_of(threat, THREAT_MODELS, "threat_models")
        for attack in self.attacks:
            refuse_all_targets(attack, "attacks")

    @property
    def benign(self) -> list[BenignInput]:
        """The inputs of Table 2."""
        noise = GaussianNoise(variance=self.noise_variance, seed=self.seed)
        return [Clean(), noise]

    def subject(
        self,
        dataset: data.Dataset,
        classifier: models.Classifier,
        purifier: models.Purifier | None = None,
    ) -> Subject:
        """A classifier, with or without a purifier, on these images."""
        return Subject(
            dataset=dataset,
            split=self.split,
            classifier=classifier,
            purifier=purifier,
            limit=self.limit,
            batch_size=self.batch_size,
            seed=self.seed,
        )


def measure(
    workdir: Path,
    subject: Subject,
    measurement: Measurement,
    *,
    title: str,
    losses: Path | None = None,
    notes: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Writes `metrics.json`, both reports and the figures, prints the table.

    Args:
        workdir: Where to.
        subject: Classifier, purifier and images, of `measurement`.
        measurement: What to measure.
        title: Of the report.
        losses: A loss history to draw.
        notes: What else the report shall say of where the figures come from.

    Returns:
        The rows asked for, measured now or before.
    """
    metrics = workdir / "metrics.json"
    rows = evaluate(
        subject,
        measurement.benign,
        measurement.attacks,
        measurement.threat_models,
        MetricsFile(metrics),
    )
    grid = workdir / "figures" / "images.png"
    # It attacks its images anew, so it is kept as long as the rows are.
    if not is_newer(grid, metrics):
        draw_measured(grid, subject, measurement)
    pictures = [Picture("Images, and what the classifier says of them", grid)]
    if losses is not None:
        curves = workdir / "figures" / "losses.png"
        figures.loss_curves(curves, losses, "Training losses")
        pictures.append(Picture("Losses over training steps", curves))
    page = Page(
        title=title,
        rows=rows,
        pictures=pictures,
        provenance={**(notes or {}), **provenance(subject)},
    )
    report.write(workdir / "report.md", page)
    html_report.write(workdir / "report.html", page)
    print(f"{page.verdict}\n\n{report.table(rows)}")
    print(f"report: {workdir / 'report.html'}")
    return rows


def draw_measured(
    path: Path, subject: Subject, measurement: Measurement
) -> None:
    """Draws the paper's Figure 4: each input, and below it purified."""
    batch = first_images(subject)
    kinds: list[tuple[str, Any]] = [
        (each.name.replace("_", " "), each(batch["images"], batch["index"]))
        for each in measurement.benign
    ]
    kinds += [
        (
            label_of(attack.name, attack.params),
            _attacked(subject.classifier, attack, batch),
        )
        for attack in measurement.attacks
    ]
    draw_images(path, subject, kinds, batch["labels"])


def is_newer(path: Path, than: Path) -> bool:
    """Whether a file is there and was written after the other one."""
    return path.exists() and path.stat().st_mtime_ns >= than.stat().st_mtime_ns


def _attacked(
    victim: models.Classifier,
    attack: attacks.Attack,
    batch: dict[str, tf.Tensor],
) -> tf.Tensor:
    result = attack(
        victim, batch["images"], batch["labels"], indices=batch["index"]
    )
    return result.adversarial


def provenance(subject: Subject) -> dict[str, Any]:
    """What a reader needs to make the figures again, beside `flags.txt`."""
    return {
        "dataset": f"{subject.dataset.name}, {subject.split}, "
        f"{subject.count} images",
        "seed": subject.seed,
        **data.package_versions(),
    }
