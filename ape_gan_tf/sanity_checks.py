"""Signs that an evaluation, not the defence, is what looks robust.

Carlini et al. 2019, 'On evaluating adversarial robustness', and Athalye et al.
2018, 'Obfuscated gradients give a false sense of security', list what cannot
be so if the attacks worked. Each is a check here, with a name of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import models
from ape_gan_tf.metrics import Row
from ape_gan_tf.sanity_warning import SanityWarning
from ape_gan_tf.worst_case import NAME as WORST_CASE
from ape_gan_tf.worst_case import ball

# Points, and images, by which a weaker attack has to win: less may be chance.
POINTS = 1.0
IMAGES = 3
# Points by which one start has to win over the others.
POINTS_OF_A_START = 5.0
# In a ball of this radius each image can be made grey all over.
LARGE_EPSILON = 0.5
LARGE_ERROR = 90.0
# Of the probed images.
SHARE = 0.05
SINGLE_STEP = "fgsm"
BLACK_BOX = "square"
LARGE_BALL = "robust_at_large_epsilon"
ZERO, SATURATED = "zero_gradients", "saturated_loss"
NON_FINITE, CHANGING = "non_finite_gradients", "answers_change"
OBLIVIOUS, START = "oblivious_beats_white_box", "one_start_beats_the_others"
_OF_PURIFIERS = (OBLIVIOUS, START)
_PROBE_CHECKS = (ZERO, SATURATED, NON_FINITE, CHANGING)


def check(
    rows: Sequence[Row], probe: models.GradientProbe | None = None
) -> list[SanityWarning]:
    """Looks for figures that cannot be so if the attacks worked.

    Args:
        rows: Of one classifier, purifier and selection of images. Without a
            purifier the oblivious rows are those of who knows all.
        probe: Of the gradient of what is measured.

    Returns:
        What was found, none where all is well.
    """
    found = [*_probe_warnings(probe)] if probe else []
    known = [row for row in rows if _error(row) is not None]
    for comparison in _COMPARISONS:
        found += _beaten(known, comparison)
    found += _large_epsilon(known)
    return found


def unchecked(
    rows: Sequence[Row], probe: models.GradientProbe | None = None
) -> list[str]:
    """The checks that `check` could not make: silence says nothing of them.

    Without a purifier nobody can be ignorant of it: what compares with such an
    attacker is not missing then.

    Args:
        rows: As for `check`.
        probe: As for `check`.

    Returns:
        Their names, those first that need only a probe.
    """
    missing = [] if probe else list(_PROBE_CHECKS)
    known = [row for row in rows if _error(row) is not None]
    is_bare = all(row.purifier is None for row in rows)
    missing += [
        comparison.name
        for comparison in _COMPARISONS
        if not (is_bare and comparison.name in _OF_PURIFIERS)
        and not any(_pairs(known, comparison))
    ]
    if _in_large_ball(known) is None:
        missing.append(LARGE_BALL)
    return missing


def _error(row: Row) -> float | None:
    """Of what is measured: the purified one, if there is a purifier."""
    return row.target_error if row.purifier is None else row.purified_error


def _is_white_box(row: Row) -> bool:
    wanted = "oblivious" if row.purifier is None else "white_box"
    return row.threat_model == wanted


def _is_own_start(row: Row) -> bool:
    """A white-box attack by itself, without what others have found."""
    is_attack = _is_white_box(row) and row.input != WORST_CASE
    return is_attack and row.start is None


def _is_iterative(row: Row) -> bool:
    return _is_own_start(row) and row.input not in (SINGLE_STEP, BLACK_BOX)


class _Comparison(NamedTuple):
    """Two kinds of attack, of which the weak must not beat the strong."""

    name: str
    is_weak: Callable[[Row], bool]
    is_strong: Callable[[Row], bool]
    meaning: str
    points: float = POINTS


def _is_single_step(row: Row) -> bool:
    return _is_white_box(row) and row.input == SINGLE_STEP


def _is_black_box(row: Row) -> bool:
    return _is_white_box(row) and row.input == BLACK_BOX


def _is_transferred(row: Row) -> bool:
    return row.threat_model == "transfer" and row.input != WORST_CASE


def _is_unknowing(row: Row) -> bool:
    is_attack = row.threat_model == "oblivious" and row.input != WORST_CASE
    return is_attack and row.purifier is not None


_COMPARISONS = (
    _Comparison(
        "single_step_beats_iterative",
        _is_single_step,
        _is_iterative,
        "One step finds what many do not: the gradient misleads further "
        "attacks (masked gradients), or they have too few or too long steps. "
        "The white-box figures are too low.",
    ),
    _Comparison(
        "black_box_beats_white_box",
        _is_black_box,
        _is_iterative,
        "An attack that sees answers alone does better than those that see "
        "gradients: the gradients are masked, or lead to local maxima. The "
        "white-box figures of gradient attacks are too low.",
    ),
    _Comparison(
        "transfer_beats_white_box",
        _is_transferred,
        _is_own_start,
        "Images made for another classifier fool this one more often than "
        "those made for it: the white-box attacks did not find what is there.",
    ),
    _Comparison(
        OBLIVIOUS,
        _is_unknowing,
        _is_own_start,
        "Who does not know the purifier does better than who does: the "
        "white-box attacks did not find what is there. The worst case counts "
        "both.",
    ),
    _Comparison(
        START,
        lambda row: row.start is not None,
        _is_own_start,
        "The search finds far more from this start than from its own: the "
        "loss has regions that steps do not leave. Restarts from random points "
        "alone would report too little.",
        POINTS_OF_A_START,
    ),
    _Comparison(
        "noise_beats_single_step",
        lambda row: row.input == "sign_noise",
        _is_single_step,
        "Random signs do better than those of the gradient: the gradient "
        "points nowhere.",
    ),
)


def _beaten(
    rows: Sequence[Row], comparison: _Comparison
) -> Iterator[SanityWarning]:
    """Where the best weak attack in a ball beats the best strong one."""
    for (norm, epsilon), weak, strong in _pairs(rows, comparison):
        chance = max(comparison.points, 100.0 * IMAGES / weak.count)
        if _figure(weak) > _figure(strong) + chance:
            yield SanityWarning(
                comparison.name,
                f"at epsilon {epsilon:.4g} ({norm}): {_describe(weak)} "
                f"against {_describe(strong)}",
                comparison.meaning,
            )


def _pairs(
    rows: Sequence[Row], comparison: _Comparison
) -> Iterator[tuple[tuple[str, float], Row, Row]]:
    """Each ball in which both were measured, with the best of each."""
    for found in sorted({b for row in rows if (b := ball(row))}):
        here = [row for row in rows if ball(row) == found]
        weak = _worst(row for row in here if comparison.is_weak(row))
        strong = _worst(row for row in here if comparison.is_strong(row))
        if weak and strong:
            yield found, weak, strong


def _large_epsilon(rows: Sequence[Row]) -> Iterator[SanityWarning]:
    worst = _in_large_ball(rows)
    if worst and _figure(worst) < LARGE_ERROR:
        _, epsilon = ball(worst) or ("", 0.0)
        yield SanityWarning(
            LARGE_BALL,
            f"{_describe(worst)} at epsilon {epsilon:.4g}",
            "In so large a ball each image can be made grey all over, and what "
            "is then right is right by chance: the attacks do not work.",
        )


def _in_large_ball(rows: Sequence[Row]) -> Row | None:
    """The best attack in the smallest of the large balls with figures."""
    large = {
        found
        for row in rows
        if (found := ball(row))
        and found[0] == "linf"
        and found[1] >= LARGE_EPSILON
    }
    return _worst(
        row
        for row in rows
        if large and _is_white_box(row) and ball(row) == min(large)
    )


def _worst(rows: Iterable[Row]) -> Row | None:
    return max(rows, key=_figure, default=None)


def _figure(row: Row) -> float:
    error = _error(row)
    return 0.0 if error is None else error


def _describe(row: Row) -> str:
    threat = row.threat_model.replace("_", "-")
    start = f" from {row.start} images" if row.start else ""
    return (
        f"{threat} {row.input}{start} {_figure(row):.2f} % "
        f"of {row.count:,} images"
    )


def _probe_warnings(
    probe: models.GradientProbe,
) -> Iterator[SanityWarning]:
    if probe.zero_share > SHARE:
        yield SanityWarning(
            ZERO,
            f"the gradient of {_share(probe.zero_share)} of the probed images "
            "is zero everywhere",
            "Gradient attacks do not move. That is no defence: BPDA "
            "differentiates as if the purifier were the identity, Square needs "
            "no gradient.",
        )
    if probe.saturated_share > SHARE:
        yield SanityWarning(
            SATURATED,
            f"the cross-entropy of {_share(probe.saturated_share)} of the "
            "probed images has a gradient of zero, though its logits have one",
            "Attacks on the cross-entropy do not move. Those on the margin of "
            "the logits (apgd_t, fab_t, cw_l2) do.",
        )
    if probe.non_finite_share > 0.0:
        yield SanityWarning(
            NON_FINITE,
            f"the gradient of {_share(probe.non_finite_share)} of the probed "
            "images is NaN or infinite",
            "Gradient attacks stop there. That is a fault of the network, not "
            "a defence.",
        )
    if probe.answers_change:
        yield SanityWarning(
            CHANGING,
            "two identical queries were answered differently, logits by up to "
            f"{probe.largest_answer_change:.3g}",
            "Each figure depends on chance, and an attack must take the mean "
            "over many answers (EOT) to be one.",
        )


def _share(share: float) -> str:
    return f"{100.0 * share:.0f} %"
