"""Weighted mixtures, written as `white_box:3,stored:1`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from data.checks import check_one_of


def parse_shares(
    text: str, known: Sequence[str], argument: str
) -> dict[str, float]:
    """Reads a mixture; a name without a weight has weight 1.

    Args:
        text: Like `white_box:3,stored:1` or `stored`.
        known: The names that there are.
        argument: What it was given as, for messages.

    Returns:
        The share of each name, in the order given; they add up to 1.

    Raises:
        ValueError: A name is unknown or comes twice, or a weight is not a
            positive number.
    """
    weights: dict[str, float] = {}
    for word in str(text).split(","):
        name, colon, weight = word.strip().partition(":")
        check_one_of(name, known, argument)
        if name in weights:
            raise ValueError(f"{argument} must name {name} once, got {text!r}")
        weights[name] = _weight(weight, argument, text) if colon else 1.0
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _weight(word: str, argument: str, text: str) -> float:
    try:
        weight = float(word)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(
            f"{argument} must have positive numbers as weights, like "
            f"white_box:3,stored:1, got {text!r}"
        )
    return weight


def split_rows(
    count: int, shares: dict[str, float], argument: str
) -> dict[str, slice]:
    """Divides the rows of a batch: neighbouring rows for each name.

    Batches come shuffled, so that which rows these are does not matter. The
    largest remainders are rounded up.

    Args:
        count: Rows to divide.
        shares: From `parse_shares`.
        argument: What the shares were given as, for the message.

    Returns:
        The rows of each name; together they are all rows, in order.

    Raises:
        ValueError: A name would have no row.
    """
    exact = {name: share * count for name, share in shares.items()}
    rows = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: rows[name] - exact[name])
    for name in by_remainder[: count - sum(rows.values())]:
        rows[name] += 1
    for name, number in rows.items():
        if number == 0:
            raise ValueError(
                f"{argument} must leave each part at least one of {count} "
                f"images, but {name} has {shares[name]:.2g} of them: a larger "
                "batch_size or a larger weight gives it one"
            )
    slices, start = {}, 0
    for name, number in rows.items():
        slices[name] = slice(start, start + number)
        start += number
    return slices
