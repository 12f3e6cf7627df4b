"""Single calls, timed in turn: how long does one answer take?

Where one call takes a millisecond, a round of `rounds.alternate` is a call,
and one call says little. Here a round is many, and its figure their median.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from processes import timed
from rounds import Spread, Timing

MOST_CALLS = 1000


def time_calls(
    contestants: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    seconds: float,
    in_blocks: bool = False,
) -> tuple[int, dict[str, list[Timing]]]:
    """Times the calls of every contestant in each round.

    Args:
        contestants: By name; each makes one answer when called.
        rounds: How many.
        seconds: About what a contestant gets in a round; it is called once
            at least, and `MOST_CALLS` times at most.
        in_blocks: All calls of one, then all of the next. Else they take
            turns call by call, which is fairer where none leaves threads
            behind that keep on spinning.

    Returns:
        The calls of each in a round, and by name the median call of each
        round.
    """
    for run in contestants.values():
        run()  # Compiles.
    slowest = max(timed(run)[1][0] for run in contestants.values())
    calls = min(max(int(seconds / slowest), 1), MOST_CALLS)
    timings: dict[str, list[Timing]] = {name: [] for name in contestants}
    for _ in range(rounds):
        taken: dict[str, list[Timing]] = {name: [] for name in contestants}
        for name in _order(list(contestants), calls, in_blocks):
            taken[name].append(Timing(*timed(contestants[name])[1]))
        for name, singles in taken.items():
            timings[name].append(_median(singles))
    return calls, timings


def _order(names: list[str], calls: int, in_blocks: bool) -> list[str]:
    if in_blocks:
        return [name for name in names for _ in range(calls)]
    return names * calls


def _median(singles: list[Timing]) -> Timing:
    return Timing(
        statistics.median(each.wall for each in singles),
        statistics.median(each.cpu for each in singles),
    )


def milliseconds(
    timings: Mapping[str, list[Timing]],
) -> dict[str, dict[str, Spread]]:
    """For each name what a call takes, by the clock and of processor time."""
    return {
        name: {
            "ms": Spread.of([1e3 * each.wall for each in rounds]),
            "cpu_ms": Spread.of([1e3 * each.cpu for each in rounds]),
        }
        for name, rounds in timings.items()
    }
