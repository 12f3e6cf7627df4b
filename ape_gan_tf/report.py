"""`report.md`: the rows of `metrics.json` as a page for people."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attacks
from ape_gan_tf import paper
from ape_gan_tf.metrics import Row
from data.files import write_text

OBLIVIOUS_WARNING = (
    "Oblivious attackers do not know the purifier. One who does, and "
    "differentiates through purifier and classifier together, is a different "
    "matter: an oblivious-trained APE-GAN does not withstand that "
    "(Carlini and Wagner 2017). Do not read these figures as security."
)


DISTANCE_REMARK = (
    "Median distance: how far the attack had to move an image, over the images "
    "that were right before; an attack that failed counts as infinitely far. "
    "In white-box rows, that to fool the classifier alone / to fool it behind "
    "the purifier."
)


def describe_input(row: Row) -> str:
    """`fgsm, epsilon 0.3` and the like: epsilon, and what is not default."""
    attack = attacks.ATTACKS.get(row.input)
    usual = {} if attack is None else attack().params
    params = [
        f"{name} {_number(value)}"
        for name, value in row.params.items()
        # An epsilon is always told, of None only that it is not the default.
        if (name == "epsilon" or value != usual.get(name))
    ]
    return ", ".join([row.input.replace("_", " "), *params])


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of error rates, and what else there is.

    That is the paper's error rates, where they are known, and the median
    distances of attacks of minimal norm.
    """
    with_paper = any(paper.errors(row) for row in rows)
    with_distance = any(row.distance for row in rows)
    header = ["input", "threat model", "images", "classifier", "purified"]
    if with_paper:
        header += ["paper: classifier", "paper: purified"]
    if with_distance:
        header += ["median distance"]
    lines = [header, ["---", "---"] + ["---:"] * (len(header) - 2)]
    lines += [_cells(row, with_paper, with_distance) for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write_report(
    path: Path,
    rows: Sequence[Row],
    *,
    title: str,
    figures: Sequence[tuple[str, Path]] = (),
    provenance: dict[str, Any] | None = None,
) -> None:
    """Writes the report.

    Args:
        path: `report.md`; pictures are linked relative to its folder.
        rows: What was measured.
        title: The first line.
        figures: (caption, file) pairs.
        provenance: Names and values to list at the end.
    """
    parts = [f"# {title}", "Error rates in percent of all images.", table(rows)]
    parts += [
        paper.REMARKS[name]
        for name in sorted({row.dataset for row in rows if paper.errors(row)})
    ]
    if any(row.distance for row in rows):
        parts.append(DISTANCE_REMARK)
    is_defended = any(row.purifier is not None for row in rows)
    if is_defended and not any(r.threat_model == "white_box" for r in rows):
        parts.append(OBLIVIOUS_WARNING)
    parts += [
        f"![{caption}]({os.path.relpath(file, path.parent)})\n\n{caption}"
        for caption, file in figures
    ]
    if provenance:
        lines = [f"- {name}: `{value}`" for name, value in provenance.items()]
        parts.append("## Provenance\n\n" + "\n".join(lines))
    write_text(path, "\n\n".join(parts) + "\n")


def _cells(row: Row, with_paper: bool, with_distance: bool) -> list[str]:
    cells = [
        describe_input(row),
        row.threat_model.replace("_", "-"),
        f"{row.count:,}",
        _percent(row.target_error, row.target_top5_error),
        _percent(row.purified_error, row.purified_top5_error),
    ]
    if with_paper:
        errors = paper.errors(row) or (None, None)
        cells += ["" if error is None else f"{error:.1f}" for error in errors]
    if with_distance:
        cells += ["" if row.distance is None else _distance(row)]
    return cells


def _percent(top_1: float | None, top_5: float | None) -> str:
    if top_1 is None:
        return "-"
    return f"{top_1:.2f}" + ("" if top_5 is None else f" (top-5 {top_5:.2f})")


def _distance(row: Row) -> str:
    medians = [row.target_median_distance]
    if row.threat_model == "white_box":
        medians.append(row.purified_median_distance)
    return f"{(row.distance or '').upper()} {' / '.join(map(_median, medians))}"


def _median(value: float | None) -> str:
    if value is None:
        return "-"
    return "infinite" if value == math.inf else f"{value:.4g}"


def _number(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
