"""What a report is made of, before it is Markdown or HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ape_gan_tf import paper
from ape_gan_tf.cells import words
from ape_gan_tf.metrics import Row
from ape_gan_tf.sanity_warning import SanityWarning
from ape_gan_tf.strongest import is_attacked
from ape_gan_tf.verdict import verdict

OBLIVIOUS_WARNING = (
    "Oblivious attackers do not know the purifier. One who does, and "
    "differentiates through purifier and classifier together, is a different "
    "matter: an oblivious-trained APE-GAN does not withstand that "
    "(Carlini and Wagner 2017). Do not read these figures as security."
)
DISTANCE_REMARK = (
    "Distance: the median of how far the attack had to move an image, over the "
    "images that were right before; an attack that failed counts as infinitely "
    "far. The mean leaves failures out. Classifier: to fool it alone. "
    "Purified: to fool it behind the purifier, knowing that."
)


class Picture(NamedTuple):
    """A picture of a report.

    Attributes:
        caption: Written below it.
        path: A PNG or SVG file.
        description: What there is to see, for those who cannot; the caption
            where it is empty.
    """

    caption: str
    path: Path
    description: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that a report says.

    Attributes:
        title: The first line.
        rows: Of the purifier in question, or of a classifier without one.
        baselines: Of other purifiers before the same classifier.
        pictures: In their order.
        warnings: Of the sanity checks; None where there were no checks.
        unchecked: Names of the checks that could not be made, for want of
            figures.
        baseline_warnings: Of their figures, which the verdict is not about.
        provenance: Names and values: seeds, versions and the like. The
            networks' fingerprints are in the rows.
        command: What to run to get the same figures.
        epsilons: Those that the verdict is about, where `rows` have others
            too; None is all.

    Raises:
        ValueError: `rows` are of several purifiers.
    """

    title: str
    rows: Sequence[Row]
    baselines: Sequence[Row] = ()
    pictures: Sequence[Picture] = ()
    warnings: Sequence[SanityWarning] | None = None
    unchecked: Sequence[str] = ()
    baseline_warnings: Sequence[SanityWarning] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    command: str = ""
    epsilons: Collection[float] | None = None

    def __post_init__(self) -> None:
        names = {r.purifier["name"] if r.purifier else None for r in self.rows}
        if len(names) > 1:
            raise ValueError(
                "rows must be of one purifier, those of others belong to "
                f"baselines, got {', '.join(sorted(map(str, names)))}"
            )

    @property
    def all_rows(self) -> list[Row]:
        return [*self.rows, *self.baselines]

    @property
    def all_warnings(self) -> list[SanityWarning]:
        return [*(self.warnings or ()), *self.baseline_warnings]

    @property
    def verdict(self) -> str:
        return verdict(self.rows, self.warnings, self.epsilons)

    @property
    def on_checks(self) -> str:
        """What to say where there are no warnings; else nothing."""
        if self.warnings is None:
            return "No sanity checks were made."
        if not self.warnings:
            return "The sanity checks gave no warning."
        return ""

    @property
    def on_unchecked(self) -> str:
        """What to say of the checks that could not be made; else nothing."""
        if not self.unchecked:
            return ""
        named = ", ".join(words(name) for name in self.unchecked)
        return f"Not checked, for want of figures to compare: {named}."

    @property
    def remarks(self) -> list[str]:
        """What a reader of the table of figures must know."""
        rows = self.rows
        datasets = {row.dataset for row in rows if paper.errors(row)}
        remarks = [paper.REMARKS[name] for name in sorted(datasets)]
        if any(row.distance for row in rows):
            remarks.append(DISTANCE_REMARK)
        is_defended = any(row.purifier is not None for row in rows)
        if is_defended and not is_attacked(rows, ("white_box",), "purified"):
            remarks.append(OBLIVIOUS_WARNING)
        return remarks
