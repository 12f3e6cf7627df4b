"""Rows of `metrics.json` in words: the tables of a report, still unwritten."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import attacks
import models
from ape_gan_tf import paper, worst_case
from ape_gan_tf.metrics import Row

# (Threat model, whether a worst case) -> the heading of such rows, in the
# order of a report.
GROUPS = {
    ("benign", False): "Nobody attacks: clean images and noise",
    ("oblivious", False): "Oblivious: the attacker knows the classifier alone",
    ("transfer", False): "Transfer: the attacker attacked another model",
    ("white_box", False): "White-box: the attacker knows the purifier too",
    ("oblivious", True): "Worst of the oblivious attacks, image by image",
    ("transfer", True): "Worst of the transferred attacks, image by image",
    ("white_box", True): "Worst of all, image by image, knowing the purifier",
}
ERRORS_CAPTION = (
    "Error rates in percent of all images, those that are wrong unattacked "
    "included"
)
NORMS = {"linf": "Linf", "l2": "L2", "l0": "L0"}
_EMPTY = ("", "-")
_LETTERS_OF_FINGERPRINT = 12


@dataclasses.dataclass(frozen=True)
class Group:
    """Lines of a table that belong together.

    Attributes:
        label: What they have in common; empty where that needs no word.
        lines: Cells, a tuple a line; the first one names the line.
        is_strong: Whether they say more than the others.
    """

    label: str
    lines: tuple[tuple[str, ...], ...]
    is_strong: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Words in lines and columns, for any kind of page.

    Attributes:
        caption: What it shows.
        header: A word or two for each column.
        is_number: Of each column, whether it holds numbers.
        groups: The lines.
    """

    caption: str
    header: tuple[str, ...]
    is_number: tuple[bool, ...]
    groups: tuple[Group, ...]

    @property
    def lines(self) -> list[tuple[str, ...]]:
        return [line for group in self.groups for line in group.lines]


class _Column(NamedTuple):
    header: str
    text: Callable[[Row], str]
    is_number: bool = True


def describe_input(row: Row) -> str:
    """`fgsm, epsilon 0.3` and the like: epsilon, and what is not default."""
    if row.input == worst_case.NAME:
        return f"worst case, {describe_ball(worst_case.ball(row))}"
    attack = attacks.ATTACKS.get(row.input)
    usual = {} if attack is None else attack().params
    params = {
        name: value
        for name, value in row.params.items()
        # An epsilon is always told, of None only that it is not the default.
        if (name == "epsilon" or value != usual.get(name))
    }
    how = [f"from {row.start}"] if row.start else []
    how += [row.gradient.upper()] if row.gradient else []
    return ", ".join([words(row.input), *_listed(params), *how])


def describe_ball(ball: tuple[str, float] | None) -> str:
    """`epsilon 0.3 (Linf)`; in the words of `worst_case.ball`."""
    if ball is None:
        return "no bound"
    norm, epsilon = ball
    return f"epsilon {_number(epsilon)} ({NORMS.get(norm, norm)})"


def figures_table(rows: Sequence[Row], *, is_grouped: bool = False) -> Table:
    """Error rates, and what else there is.

    That is the paper's error rates, where they are known, and the median
    distances of attacks of minimal norm.

    Args:
        rows: What was measured.
        is_grouped: Whether the groups' labels will be seen, which say what
            the column of threat models would. A number of images that is the
            same for all is then in the caption, and no column is empty.
    """
    caption = ERRORS_CAPTION
    columns = [_Column("input", describe_input, is_number=False)]
    counts = {row.count for row in rows}
    if not is_grouped:
        columns.append(_THREAT_MODEL)
    if is_grouped and len(counts) == 1:
        caption += f"; {min(counts):,} images"
    else:
        columns.append(_Column("images", lambda row: f"{row.count:,}"))
    columns += _ERRORS
    if any(paper.errors(row) for row in rows):
        columns += [
            _Column("paper: classifier", lambda row: _of_the_paper(row, 0)),
            _Column("paper: purified", lambda row: _of_the_paper(row, 1)),
        ]
    if any(row.distance for row in rows):
        columns += [
            _Column("distance: classifier", _classifier_distance),
            _Column("distance: purified", _purified_distance),
        ]
    if is_grouped:
        columns = [
            x for x in columns if any(x.text(r) not in _EMPTY for r in rows)
        ]
    return _table(caption, columns, rows)


def settings_table(rows: Sequence[Row]) -> Table:
    """Every row with all that it takes to measure it again, by purifier.

    What is the same in all of them is in the caption.
    """
    columns = [
        _Column("input", lambda row: words(row.input), is_number=False),
        _THREAT_MODEL,
        _Column("parameters", _params, is_number=False),
        _Column("crafted on", _crafted_on, is_number=False),
    ]
    caption = "Every row, with all parameters"
    for column in _CIRCUMSTANCES:
        values = {column.text(row) for row in rows}
        if len(values) > 1:
            columns.append(column)
        else:
            caption += "".join(f"; {column.header}: {x}" for x in values)
    columns += _ERRORS
    names = {_purifier_name(row): None for row in rows}
    tables = [
        _table(
            "", columns, [row for row in rows if _purifier_name(row) == name]
        )
        for name in names
    ]
    groups = (
        Group(name, tuple(table.lines))
        for name, table in zip(names, tables, strict=True)
    )
    return dataclasses.replace(
        _table(caption, columns, []), groups=tuple(groups)
    )


def networks_table(rows: Sequence[Row]) -> Table:
    """The fingerprints of the classifiers and purifiers in the rows."""
    networks: dict[tuple[str, ...], None] = {}
    for row in rows:
        for role in ("classifier", "purifier"):
            network = getattr(row, role)
            if network is not None:
                line = (network["name"], role, network["fingerprint"])
                networks[line] = None
    return Table(
        "Fingerprints of what was measured",
        ("name", "role", "fingerprint"),
        (False, False, False),
        (Group("", tuple(networks)),),
    )


def percent(error: float | None) -> str:
    """An error rate as in the tables; a dash where there is none."""
    return "-" if error is None else f"{error:.2f}"


def _table(
    caption: str, columns: Sequence[_Column], rows: Sequence[Row]
) -> Table:
    return Table(
        caption,
        tuple(column.header for column in columns),
        tuple(column.is_number for column in columns),
        tuple(_groups(columns, rows)),
    )


def _groups(columns: Sequence[_Column], rows: Sequence[Row]) -> Iterator[Group]:
    """The lines in the order of `GROUPS`; within one, in that of the rows."""
    for key, label in GROUPS.items():
        lines = tuple(
            tuple(column.text(row) for column in columns)
            for row in rows
            if (row.threat_model, row.input == worst_case.NAME) == key
        )
        if lines:
            yield Group(label, lines, is_strong=key[1])


def _threat_model(row: Row) -> str:
    return row.threat_model.replace("_", "-")


_THREAT_MODEL = _Column("threat model", _threat_model, is_number=False)


def _classifier_error(row: Row) -> str:
    return _with_top_5(row.target_error, row.target_top5_error)


def _purified_error(row: Row) -> str:
    if row.purified_error is None and row.remark:
        return row.remark
    return _with_top_5(row.purified_error, row.purified_top5_error)


_ERRORS = (
    _Column("classifier", _classifier_error),
    _Column("purified", _purified_error),
)


def _with_top_5(top_1: float | None, top_5: float | None) -> str:
    return percent(top_1) + ("" if top_5 is None else f" (top-5 {top_5:.2f})")


def _of_the_paper(row: Row, place: int) -> str:
    error = (paper.errors(row) or (None, None))[place]
    return "" if error is None else f"{error:.1f}"


def _classifier_distance(row: Row) -> str:
    return _distance(row, row.target_median_distance, row.target_mean_distance)


def _purified_distance(row: Row) -> str:
    if row.threat_model != "white_box":
        return ""  # Nobody minimised it.
    return _distance(
        row, row.purified_median_distance, row.purified_mean_distance
    )


def _distance(row: Row, median: float | None, mean: float | None) -> str:
    if row.distance is None:
        return ""
    if median is None:
        return "-"
    text = "infinite" if median == math.inf else f"{median:.4g}"
    text = f"{NORMS.get(row.distance, row.distance)} {text}"
    return text if mean is None else f"{text} (mean {mean:.4g})"


def _purifier_name(row: Row) -> str:
    if row.purifier is None:
        return "Without a purifier"
    return f"Purifier {row.purifier['name']}"


def _params(row: Row) -> str:
    how = {
        name: value
        for name, value in (("start", row.start), ("gradient", row.gradient))
        if value is not None
    }
    return ", ".join(_listed({**row.params, **how})) or "-"


def _images(row: Row) -> str:
    return f"{row.dataset}, {row.split}, the first {row.count:,}"


def _crafted_on(row: Row) -> str:
    """In a word where it was one of these two, else a piece of fingerprint."""
    if row.crafted_on is None:
        return "-"
    victims = {row.classifier["fingerprint"]: "classifier"}
    if row.purifier is not None:
        defended = models.defended_fingerprint(
            row.classifier["fingerprint"], row.purifier["fingerprint"]
        )
        victims[defended] = "both"
    return victims.get(row.crafted_on, row.crafted_on[:_LETTERS_OF_FINGERPRINT])


_CIRCUMSTANCES = (
    _Column("images", _images, is_number=False),
    _Column("seed", lambda row: str(row.seed)),
)


def _listed(params: Mapping[str, Any]) -> list[str]:
    return [f"{name} {_number(value)}" for name, value in params.items()]


def words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
