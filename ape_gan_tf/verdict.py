"""One sentence that says what a defence is worth."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from ape_gan_tf import worst_case
from ape_gan_tf.cells import NORMS, describe_ball, describe_input
from ape_gan_tf.metrics import Row
from ape_gan_tf.sanity_warning import SanityWarning
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


class _Attacker(NamedTuple):
    """Who attacks, by the threat models that are measured for them.

    Attributes:
        own: At least one of these must have been measured.
        able: Whose images they could use as well.
    """

    own: tuple[str, ...]
    able: tuple[str, ...]


class _Figure(NamedTuple):
    """The most that an attacker was seen to do.

    Attributes:
        most: The figure itself.
        ball: Where it is a worst case; else it is of a single attack.
        is_so_beyond: Whether larger balls were measured too.
        least: The figure in the smallest ball, where that is another one.
    """

    most: Found
    ball: Ball | None = None
    is_so_beyond: bool = False
    least: Found | None = None


# Of the `purified` classifier, and of the `target` where there is no purifier.
_KNOWING = {
    "purified": _Attacker(("white_box",), ("white_box", *UNKNOWING)),
    "target": _Attacker(("oblivious",), ("oblivious", "transfer")),
}
_UNKNOWING = {
    "purified": _Attacker(UNKNOWING, UNKNOWING),
    "target": _Attacker(("transfer",), ("transfer",)),
}


def verdict(
    rows: Sequence[Row],
    warnings: Sequence[SanityWarning] | None = None,
    epsilons: Collection[float] | None = None,
) -> str:
    """The figure of the attacker who knows everything, then the others.

    Told is the smallest epsilon at which that attacker does the most that was
    measured, since more freedom only makes it worse, and the smallest epsilon
    of all where that is another. Without worst cases in `rows`, the strongest
    single attack stands in their place, and is named.

    Args:
        rows: Of one classifier behind one purifier, or behind none.
        warnings: Of the sanity checks on these rows.
        epsilons: Balls of other sizes do not count: in a large enough one
            everything is fooled. None counts all.
    """
    counted = [row for row in rows if _counts(row, epsilons)]
    sentence = _sentence(counted or rows)
    if not warnings:
        return sentence
    many = len(warnings) > 1
    which = f"the {len(warnings)} warnings" if many else "the warning"
    return f"Read {which} first: {sentence[0].lower()}{sentence[1:]}"


def _counts(row: Row, epsilons: Collection[float] | None) -> bool:
    ball = worst_case.ball(row)
    return epsilons is None or ball is None or ball[1] in epsilons


def _sentence(rows: Sequence[Row]) -> str:
    if not rows:
        return "Nothing was measured."
    purifier = next((row.purifier for row in rows if row.purifier), None)
    whom = "target" if purifier is None else "purified"
    parts = [_attacked(rows, whom)]
    unattacked = clean(rows, whom)
    if unattacked:
        parts.append(f"unattacked, {_share(unattacked)} are wrong")
    where = f"Behind {purifier['name']}" if purifier else "Without a purifier"
    return f"{where}, {'; '.join(parts)}."


def _attacked(rows: Sequence[Row], whom: str) -> str:
    name = rows[0].classifier["name"]
    known, other = ("it", name) if whom == "purified" else (name, "it")
    knowing = _figure(rows, whom, _KNOWING[whom])
    unknowing = _figure(rows, whom, _UNKNOWING[whom])
    if knowing is not None:
        text = f"an attacker who knows {known} fools {other} on "
        text += _told(knowing)
        if unknowing is not None:
            text += f"; one who does not, on {_told_beside(unknowing, knowing)}"
        return text
    if unknowing is not None:
        return (
            f"an attacker who knows {known} was NOT measured{_reason(rows)}, "
            f"so no figure here is security: one who does not know {known} "
            f"fools {other} on {_told(unknowing)}"
        )
    return f"no attacker of {name} was measured: no figure here is security"


def _figure(
    rows: Sequence[Row], whom: str, attacker: _Attacker
) -> _Figure | None:
    """None where the attacker's own threat models were not measured."""
    if not is_attacked(rows, attacker.own, whom):
        return None
    found = {
        ball: worst
        for ball in balls(rows)
        if in_ball(rows, attacker.own, whom, ball)
        and (worst := in_ball(rows, attacker.able, whom, ball))
    }
    if found:
        return _over_balls(found)
    single = single_attack(rows, attacker.able, whom)
    return None if single is None else _Figure(single)


def _over_balls(found: dict[Ball, Found]) -> _Figure:
    def strength(ball: Ball) -> tuple[float, bool, float]:
        norm, epsilon = ball
        return found[ball].error, norm == "linf", -epsilon

    ball = max(found, key=strength)
    same_norm = [other for other in found if other[0] == ball[0]]
    smallest = min(same_norm)
    return _Figure(
        found[ball],
        ball,
        is_so_beyond=max(same_norm) > ball,
        least=found[smallest] if smallest < ball else None,
    )


def _told(figure: _Figure) -> str:
    most, ball = figure.most, figure.ball
    text = f"{_share(most)} of {most.row.count:,} images"
    if ball is None:
        return text + _by_one(most.row)
    text += f" at {describe_ball(ball)}"
    if figure.is_so_beyond:
        text += " and above"
    if figure.least is not None:
        epsilon = figure.least.row.params["epsilon"]
        text += f", on {_share(figure.least)} at {epsilon:.4g}"
    return text


def _by_one(row: Row) -> str:
    """Of a single attack; one without a bound is told by how far it went."""
    is_known = row.threat_model == "white_box"
    median = (
        row.purified_median_distance if is_known else row.target_median_distance
    )
    text = f" with one attack ({describe_input(row)})"
    if row.distance is None or median is None:
        return text
    norm = NORMS.get(row.distance, row.distance)
    return f"{text}, as far away as it took: median {norm} {median:.3g}"


def _told_beside(figure: _Figure, other: _Figure) -> str:
    """Of a figure only what the one before it has not said."""
    most, ball = figure.most, figure.ball
    text = _share(most)
    if most.row.count != other.most.row.count:
        text += f" of {most.row.count:,} images"
    if ball is None:
        return text + _by_one(most.row)
    if other.ball is None or other.ball[0] != ball[0]:
        return f"{text} at {describe_ball(ball)}"
    if other.ball != ball or other.is_so_beyond or other.least is not None:
        text += f" at {ball[1]:.4g}"
    return text


def _reason(rows: Sequence[Row]) -> str:
    remarks = {r.remark: None for r in rows if r.threat_model == "white_box"}
    listed = ", ".join(remark for remark in remarks if remark)
    return f" ({listed})" if listed else ""


def _share(found: Found) -> str:
    """In percent; never rounded to none or to all."""
    exact = found.error in (0.0, 100.0)
    for digits in (1, 2, 3):
        text = f"{found.error:.{digits}f}"
        if exact or float(text) not in (0.0, 100.0):
            break
    return f"{text} %"
