"""The attacker who may choose: each image under the worst of many attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import attacks
from ape_gan_tf.metrics import MetricsFile, Row

NAME = "worst_case"
_ROUNDING = 1e-6  # What an attack may leave its ball by.
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


def measure_worst_cases(
    rows: Sequence[Row],
    metrics: MetricsFile,
    *,
    has_fixed_answers: bool = True,
) -> list[Row]:
    """Takes, in each ball that occurs, each image's worst attack.

    An image counts as wrong if some attack fools the classifier by a
    perturbation that lies in the ball, whatever the attack itself was bound
    by, or if it was wrong before: the clean image lies in every ball. All
    that `metrics` has of the same images counts, `rows` or not.

    Args:
        rows: Of one classifier, purifier and selection of images, with their
            outcomes in `metrics`.
        metrics: Where the new rows are kept.
        has_fixed_answers: Where not, chance would add up over the attacks, so
            the worst single one is taken in place of each image's.

    Returns:
        A row for each threat model and ball, by threat model and epsilon; its
        `input` is `worst_case`.
    """
    balls = sorted({found for row in rows if (found := ball(row))})
    if not balls:
        return []
    among = [
        (row, metrics.outcomes(row))
        for row in metrics.rows
        if row.is_beside(rows[0])
        and row.input != NAME
        and metrics.has_outcomes(row)
    ]
    combine = _union if has_fixed_answers else _largest
    return [
        _measure(among, threat, norm, epsilon, metrics, combine)
        for threat in _ABILITIES
        for norm, epsilon in balls
        if any(
            row.threat_model == threat and ball(row) == (norm, epsilon)
            for row in rows
        )
    ]


def _measure(
    among: Sequence[tuple[Row, Mapping[str, np.ndarray]]],
    threat: str,
    norm: str,
    epsilon: float,
    metrics: MetricsFile,
    combine: Callable[[list[np.ndarray]], np.ndarray],
) -> Row:
    members = [each for each in among if _may(each[0], threat)]
    own = [
        row
        for row, _ in members
        if row.threat_model == threat and ball(row) == (norm, epsilon)
    ]
    remark = _remark(own)
    found: dict[str, list[np.ndarray]] = {"target": [], "purified": []}
    for row, outcomes in members:
        is_inside = _inside(row, outcomes, norm, epsilon)
        for who in found.keys() & outcomes.keys():
            found[who].append(outcomes[who] & is_inside)
    wrong = {who: combine(each) for who, each in found.items() if each}
    if remark is not None:
        wrong.pop("purified", None)
    row = dataclasses.replace(
        own[0],
        input=NAME,
        params={"epsilon": epsilon, "norm": norm},
        crafted_on=None,
        target_error=_percent(wrong.get("target")),
        purified_error=_percent(wrong.get("purified")),
        target_top5_error=None,
        purified_top5_error=None,
        distance=None,
        target_median_distance=None,
        purified_median_distance=None,
        target_mean_distance=None,
        purified_mean_distance=None,
        start=None,
        gradient=None,
        remark=remark,
    )
    metrics.add(row, wrong)
    return row


def _remark(own: Sequence[Row]) -> str | None:
    """Why there is no figure: no attack that follows a gradient was fit.

    Square's alone, or others' attacks, would pass for one on the defence.
    """
    by_gradient = [row.remark for row in own if row.input != "square"]
    if by_gradient and all(by_gradient):
        return by_gradient[0]
    return None


def _may(row: Row, threat: str) -> bool:
    """Whether the attacker of a threat model may have a row's images."""
    is_anybodys = row.input in ("clean", "sign_noise")
    return is_anybodys or row.threat_model in _ABILITIES[threat]


def _inside(
    row: Row, outcomes: Mapping[str, np.ndarray], norm: str, epsilon: float
) -> np.ndarray | bool:
    """Which of a row's images lie in a ball; by its own where that is known."""
    if row.input == "clean":
        return True
    sizes = outcomes.get(norm)
    if sizes is not None:
        return sizes <= epsilon * (1.0 + _ROUNDING) + _ROUNDING
    found = ball(row)
    return found is not None and found[0] == norm and found[1] <= epsilon


def _union(outcomes: list[np.ndarray]) -> np.ndarray:
    return np.logical_or.reduce(outcomes)


def _largest(outcomes: list[np.ndarray]) -> np.ndarray:
    return max(outcomes, key=np.count_nonzero)


def _percent(wrong: np.ndarray | None) -> float | None:
    return None if wrong is None else 100.0 * int(wrong.sum()) / len(wrong)
