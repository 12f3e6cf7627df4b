"""A defence beside the cheap ones, in one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ape_gan_tf import worst_case
from ape_gan_tf.cells import Group, Table, describe_ball, percent
from ape_gan_tf.metrics import Row
from ape_gan_tf.page import Page
from ape_gan_tf.strongest import (
    UNKNOWING,
    Ball,
    Found,
    balls,
    clean,
    in_ball,
    is_attacked,
    single_attack,
)

_HEADER = (
    "purifier",
    "clean",
    "unknown to attacker",
    "known to attacker",
    "attacked through",
    "ms per image",
)
_IS_NUMBER = (False, True, True, True, False, True)


def defences_table(page: Page) -> Table | None:
    """The purifier and the baselines, once for each ball of worst cases.

    Without worst cases, once with the strongest single attacks. None where
    there is nothing beside the purifier, nor its speed.
    """
    defences = _by_purifier(page.all_rows)
    is_timed = any(row.milliseconds is not None for row in page.rows)
    if not defences or not (page.baselines or is_timed):
        return None
    # Where the baselines were not measured, there is nothing to compare.
    found: list[Ball | None] = [*(balls(page.baselines) or balls(page.rows))]
    return Table(
        "The purifier and simpler ones: error in percent of all images",
        _HEADER,
        _IS_NUMBER,
        tuple(
            Group(
                "Strongest single attack"
                if ball is None
                else f"Worst case at {describe_ball(ball)}",
                tuple(_line(rows, ball) for rows in defences),
            )
            for ball in found or [None]
        ),
    )


def _by_purifier(rows: Iterable[Row]) -> list[list[Row]]:
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.purifier is not None:
            identity = (row.purifier["name"], row.purifier["fingerprint"])
            found.setdefault(identity, []).append(row)
    return list(found.values())


def _line(rows: Sequence[Row], ball: Ball | None) -> tuple[str, ...]:
    purifier = rows[0].purifier or {"name": "-"}
    unattacked = clean(rows, "purified")
    return (
        purifier["name"],
        "-" if unattacked is None else percent(unattacked.error),
        _percent(_worst(rows, UNKNOWING, ball)),
        _white_box(rows, ball),
        _gradients(rows),
        _milliseconds(rows),
    )


def _white_box(rows: Sequence[Row], ball: Ball | None) -> str:
    if _worst(rows, ("white_box",), ball) is not None:
        # Who knows the purifier can also do what others do.
        return _percent(_worst(rows, ("white_box", *UNKNOWING), ball))
    remarks = (row.remark for row in rows if row.threat_model == "white_box")
    return next(filter(None, remarks), "not measured")


def _worst(
    rows: Sequence[Row], threats: Sequence[str], ball: Ball | None
) -> Found | None:
    if ball is None:
        return single_attack(rows, threats, "purified")
    return in_ball(rows, threats, "purified", ball)


def _percent(found: Found | None) -> str:
    return "-" if found is None else percent(found.error)


def _gradients(rows: Sequence[Row]) -> str:
    """What the attacks that knew the purifier differentiated through."""
    if not is_attacked(rows, ("white_box",), "purified"):
        return "-"
    ways = {
        row.gradient.upper() if row.gradient else "its own gradient": None
        for row in rows
        if row.threat_model == "white_box"
        and row.purified_error is not None
        and row.input != worst_case.NAME
    }
    return "; ".join(ways)


def _milliseconds(rows: Iterable[Row]) -> str:
    timed = (row.milliseconds for row in rows)
    return next((f"{x:.3g}" for x in timed if x is not None), "-")
