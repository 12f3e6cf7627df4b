"""Timing contestants in alternating rounds, and what they ran on.

A machine's speed drifts, with its temperature and its other work. Contestants
that take turns (A B C, A B C, ...) all see the same drift, so the ratio of two
of them within a round is steadier than either speed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one round of one contestant took.

    Attributes:
        wall: Seconds by the clock.
        cpu: Seconds of processor time, of all threads.
    """

    wall: float
    cpu: float


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest value.

    Attributes:
        median: Over the rounds.
        low: The least.
        high: The greatest.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, form: str) -> str:
        """`median (low .. high)`, each in this format."""
        median, low, high = (
            format(each, form) for each in (self.median, self.low, self.high)
        )
        return f"{median} ({low} .. {high})"


def alternate(
    contestants: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[Timing]]:
    """Times every contestant once in each round.

    Args:
        contestants: By name; each does one round of its work when called,
            and returns when all of it is done.
        rounds: How many, after one that does not count: it compiles, and
            fills caches and buffers.

    Returns:
        For each name the timings of its rounds.
    """
    for run in contestants.values():
        run()
    timings: dict[str, list[Timing]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            timings[name].append(_time(run))
    return timings


def _time(run: Callable[[], Any]) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def speedup(timings: list[Timing], reference: list[Timing]) -> Spread:
    """How many times as fast as the reference, round by round."""
    return Spread.of(
        [
            theirs.wall / ours.wall
            for ours, theirs in zip(timings, reference, strict=True)
        ]
    )


def machine() -> dict[str, str]:
    """The processor, its cores and the system, for a report."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def listed(values: Mapping[str, Any]) -> str:
    """`name value, name value`."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Writes a report, in which dataclasses may be."""
    text = json.dumps(report, indent=2, default=dataclasses.asdict)
    path.write_text(text + "\n", encoding="utf-8")
