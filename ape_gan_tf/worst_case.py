"""The attacker who may choose: each image under the worst of many attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

import attacks
from ape_gan_tf.metrics import MetricsFile, Row

NAME = "worst_case"
# Who knows the purifier can also do what somebody does who does not.
_ABILITIES = {
    "oblivious": ("oblivious",),
    "transfer": ("transfer",),
    "white_box": ("oblivious", "transfer", "white_box"),
}


def ball(row: Row) -> tuple[str, float] | None:
    """The norm and radius that an attack was bound by, if it was.

    None for clean images, noise that has no bound, and attacks of minimal
    norm, which go as far as they must.
    """
    epsilon = row.params.get("epsilon")
    attack = attacks.ATTACKS.get(row.input)
    is_minimal_norm = attack is not None and attack.is_minimal_norm
    if epsilon is None or is_minimal_norm:
        return None
    return str(row.params.get("norm", "linf")), float(epsilon)


def measure_worst_cases(rows: Sequence[Row], metrics: MetricsFile) -> list[Row]:
    """Takes, in each ball that occurs, each image's worst attack.

    An image counts as wrong if one of the attacks in the ball, or in a
    smaller one of the same norm, fools the classifier, or if it was wrong
    before: the clean image lies in every ball.

    Args:
        rows: Of one classifier, purifier and selection of images, with their
            outcomes in `metrics`.
        metrics: Where the new rows are kept.

    Returns:
        A row for each threat model and ball, by threat model and epsilon; its
        `input` is `worst_case`.
    """
    balls = sorted({found for row in rows if (found := ball(row))})
    return [
        _measure(rows, threat, norm, epsilon, metrics)
        for threat in _ABILITIES
        for norm, epsilon in balls
        if any(
            row.threat_model == threat and ball(row) == (norm, epsilon)
            for row in rows
        )
    ]


def _measure(
    rows: Sequence[Row],
    threat: str,
    norm: str,
    epsilon: float,
    metrics: MetricsFile,
) -> Row:
    members = [row for row in rows if _may(row, threat, norm, epsilon)]
    own = [row for row in members if row.threat_model == threat]
    measured = [row for row in members if row.remark is None]
    wrong = {
        who: _any(metrics.outcomes(row).get(who) for row in measured)
        for who in ("target", "purified")
    }
    # Others' attacks alone would pass for an attack on the defence.
    remarks = [row.remark for row in own]
    remark = remarks[0] if all(remarks) else None
    if remark is not None:
        wrong["purified"] = None
    row = dataclasses.replace(
        own[0],
        input=NAME,
        params={"epsilon": epsilon, "norm": norm},
        crafted_on=None,
        target_error=_percent(wrong["target"]),
        purified_error=_percent(wrong["purified"]),
        target_top5_error=None,
        purified_top5_error=None,
        distance=None,
        start=None,
        remark=remark,
    )
    outcomes = {who: each for who, each in wrong.items() if each is not None}
    metrics.add(row, outcomes)
    return row


def _may(row: Row, threat: str, norm: str, epsilon: float) -> bool:
    """Whether the attacker of a threat model could have made a row's images."""
    if row.input == "clean":
        return True
    found = ball(row)
    return (
        row.threat_model in _ABILITIES[threat]
        and found is not None
        and found[0] == norm
        and found[1] <= epsilon
    )


def _any(outcomes: Iterable[np.ndarray | None]) -> np.ndarray | None:
    found = [each for each in outcomes if each is not None]
    return np.logical_or.reduce(found) if found else None


def _percent(wrong: np.ndarray | None) -> float | None:
    return None if wrong is None else 100.0 * int(wrong.sum()) / len(wrong)
