"""Measures a defence, checks what came out, and writes the report."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attacks
import models
from ape_gan_tf import curves, html_report, report, sanity_checks
from ape_gan_tf.evaluation import Subject
from ape_gan_tf.gallery import (
    IMAGES,
    draw_attackers,
    draw_images,
    first_images,
)
from ape_gan_tf.measurement import is_newer, provenance
from ape_gan_tf.metrics import Row
from ape_gan_tf.page import Page, Picture
from ape_gan_tf.robustness import STARTABLE, Plan, Robustness
from ape_gan_tf.sanity_warning import SanityWarning


def assess(
    workdir: Path,
    subject: Subject,
    plan: Plan,
    *,
    baselines: Sequence[models.Purifier] = (),
    title: str,
    command: str,
    notes: Mapping[str, str] | None = None,
) -> Page:
    """Writes `metrics.json`, both reports and the figures; prints the page.

    Args:
        workdir: Where to.
        subject: Classifier, purifier and images.
        plan: What to measure.
        baselines: Cheap defences, measured by the same attacks beside the
            purifier.
        title: Of the report.
        command: What to run to get the same figures.
        notes: What else the report shall say of where they come from.

    Returns:
        What the reports say.
    """
    robustness = Robustness(workdir, subject, plan)
    rows = robustness.measure()
    others = {
        baseline.name: _baseline_rows(workdir, subject, plan, baseline)
        for baseline in baselines
    }
    page = Page(
        title=title,
        rows=rows,
        baselines=list(itertools.chain.from_iterable(others.values())),
        pictures=[
            *_curves(workdir, rows),
            *_gallery(workdir, subject, plan, robustness),
        ],
        warnings=sanity_checks.check(rows, robustness.attacker.probe),
        unchecked=sanity_checks.unchecked(rows, robustness.attacker.probe),
        baseline_warnings=list(_of_baselines(others)),
        provenance={**(notes or {}), **provenance(subject)},
        command=command,
        epsilons=plan.epsilons,
    )
    report.write(workdir / "report.md", page)
    html_report.write(workdir / "report.html", page)
    print(report.text(page))
    print(f"report: {workdir / 'report.html'}")
    return page


def _baseline_rows(
    workdir: Path, subject: Subject, plan: Plan, baseline: models.Purifier
) -> list[Row]:
    """The same attacks, each made adaptive where the baseline needs it."""
    return Robustness(
        workdir,
        dataclasses.replace(subject, purifier=baseline),
        dataclasses.replace(
            plan,
            threat_models=_with_white_box(plan.threat_models),
            gradient="auto",
            largest_epsilon=0.0,
        ),
    ).measure()


def _with_white_box(threat_models: Sequence[str]) -> tuple[str, ...]:
    """A baseline is a purifier, even where there is no other."""
    return tuple(dict.fromkeys([*threat_models, "white_box"]))


def _of_baselines(others: Mapping[str, list[Row]]) -> Iterator[SanityWarning]:
    """Of their figures alone: that some have no gradient is known."""
    for name, rows in others.items():
        for warning in sanity_checks.check(rows):
            yield warning._replace(seen=f"{name}: {warning.seen}")


def _curves(workdir: Path, rows: Sequence[Row]) -> Iterator[Picture]:
    path = workdir / "figures" / "curves.png"
    found = curves.draw(path, rows)
    if found:
        yield Picture("Error over epsilon", path, curves.describe(found))


def _gallery(
    workdir: Path, subject: Subject, plan: Plan, robustness: Robustness
) -> Iterator[Picture]:
    """Drawn once, and kept as long as no figure changes."""
    if not plan.attacks:
        return
    folder, metrics = workdir / "figures", workdir / "metrics.json"
    attackers, images = folder / "attackers.png", folder / "images.png"
    if not is_newer(attackers, metrics):
        _draw_attackers(attackers, subject, plan, robustness)
    if not is_newer(images, metrics):
        labels = first_images(subject)["labels"]
        draw_images(images, subject, robustness.pictured(IMAGES), labels)
    yield Picture(
        "Images, their perturbations amplified, and what the classifier says",
        attackers,
    )
    yield Picture("Each oblivious attack, and below it purified", images)


def _draw_attackers(
    path: Path, subject: Subject, plan: Plan, robustness: Robustness
) -> None:
    """One attack at its largest epsilon, by who knows the purifier or not."""
    attack = max(plan.attacks, key=_rank)
    attacker = robustness.attacker
    can_attack = "white_box" in plan.threat_models and attacker.remark is None
    draw_attackers(
        path,
        subject,
        dataclasses.replace(attack, seed=subject.seed),
        attacker.victim if can_attack else None,
    )


def _rank(attack: attacks.Attack) -> tuple[bool, bool, float]:
    """What is quick to make, and does what an attacker would."""
    epsilon = attack.params.get("epsilon")
    is_search = attack.name in STARTABLE
    return (not attack.is_minimal_norm, is_search, epsilon or 0.0)
