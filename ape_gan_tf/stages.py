"""A graph of stages whose results are kept: what is done stays done."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from data.files import read_json, write_json


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One piece of work.

    Attributes:
        name: Tells it from all others, and people what it is.
        is_done: Whether its result is there; asked before anything it needs
            is made.
        make: Makes the result; continues where a kill left it. Raises
            FileNotFoundError where it has nothing to work on.
        needs: Whose results it reads.
    """

    name: str
    is_done: Callable[[], bool]
    make: Callable[[], object]
    needs: tuple[Stage, ...] = ()


class Stages:
    """Runs stages and keeps count of the time that each took.

    Args:
        times: The JSON file of the seconds that each stage took, over all
            runs, those that were killed by Ctrl-C included.
        max_minutes: Begins no stage later than this; None has no limit, 0
            begins none.

    Attributes:
        seconds: Of each stage, by name.
        missing: Why a stage has no result, by name.
    """

    def __init__(self, times: Path, max_minutes: float | None = None) -> None:
        self._times = times
        self._deadline = (
            None
            if max_minutes is None
            else time.monotonic() + 60.0 * max_minutes
        )
        self.seconds: dict[str, float] = (
            read_json(times) if times.exists() else {}
        )
        self.missing: dict[str, str] = {}

    def run(self, stages: Sequence[Stage]) -> None:
        """Makes what is not done, and what that needs, in this order."""
        for stage in stages:
            self._run(stage)

    def _run(self, stage: Stage) -> bool:
        """Returns whether the stage has a result."""
        if stage.name in self.missing:
            return False
        if stage.is_done():
            return True
        if self._is_late():
            return self._lacks(stage, "no time was left")
        for need in stage.needs:
            if not self._run(need):
                return self._lacks(stage, self.missing[need.name])
        if self._is_late():
            return self._lacks(stage, "no time was left")
        print(f"=== {stage.name}", file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            stage.make()
        except FileNotFoundError as error:
            return self._lacks(stage, str(error))
        finally:
            self._count(stage, time.monotonic() - start)
        return True

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _lacks(self, stage: Stage, why: str) -> bool:
        self.missing[stage.name] = why
        return False

    def _count(self, stage: Stage, seconds: float) -> None:
        before = self.seconds.get(stage.name, 0.0)
        self.seconds[stage.name] = round(before + seconds, 2)
        write_json(self._times, self.seconds)
