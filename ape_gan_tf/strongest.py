"""Which rows speak for an attacker: the worst that is known of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from ape_gan_tf import worst_case
from ape_gan_tf.metrics import Row

Ball = tuple[str, float]  # Norm and epsilon, see `worst_case.ball`.
UNKNOWING = ("oblivious", "transfer")


class Found(NamedTuple):
    """An error rate, and the row that it is from."""

    error: float
    row: Row


def error_of(row: Row, whom: str) -> float | None:
    """The error of the `target` alone or of the `purified` one."""
    if whom == "purified":
        return row.purified_error
    return row.target_error


def clean(rows: Iterable[Row], whom: str) -> Found | None:
    """The error where nobody attacks."""
    return next(_found((r for r in rows if r.input == "clean"), whom), None)


def is_attacked(
    rows: Iterable[Row], threats: Collection[str], whom: str
) -> bool:
    """Whether there is a figure for one of the threat models."""
    attacked = (row for row in rows if row.threat_model in threats)
    return any(_found(attacked, whom))


def balls(rows: Iterable[Row]) -> list[Ball]:
    """The balls that worst cases were taken in, by norm and epsilon."""
    found = (worst_case.ball(row) for row in rows if _is_worst_case(row))
    return sorted({ball for ball in found if ball is not None})


def in_ball(
    rows: Iterable[Row], threats: Collection[str], whom: str, ball: Ball
) -> Found | None:
    """The highest of the worst cases of these threat models in a ball."""
    among = (
        row
        for row in rows
        if _is_worst_case(row)
        and row.threat_model in threats
        and worst_case.ball(row) == ball
    )
    return max(_found(among, whom), default=None, key=lambda x: x.error)


def single_attack(
    rows: Sequence[Row], threats: Collection[str], whom: str
) -> Found | None:
    """The attack that does most, and of equal ones that with least freedom.

    That is, one in the smallest ball, before one that is bound by none; and
    one who knows the purifier before one who does not.
    """
    among = (
        row
        for row in rows
        if row.threat_model in threats and not _is_worst_case(row)
    )
    return max(_found(among, whom), default=None, key=_strength)


def _strength(found: Found) -> tuple[float, bool, float, bool]:
    ball = worst_case.ball(found.row)
    knows = found.row.threat_model == "white_box"
    return found.error, ball is not None, -ball[1] if ball else 0.0, knows


def _is_worst_case(row: Row) -> bool:
    return row.input == worst_case.NAME


def _found(rows: Iterable[Row], whom: str) -> Iterator[Found]:
    for row in rows:
        error = error_of(row, whom)
        if error is not None:
            yield Found(error, row)
