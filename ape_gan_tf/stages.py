"""A graph of stages whose results are kept: what is done stays done."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.files import read_json, write_json


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One piece of work.

    Attributes:
        name: Tells it from all others, and people what it is.
        is_done: Whether its result is there; asked before anything it needs
            is made.
        make: Makes the result; continues where a kill left it. Raises
            MissingDataError where it has nothing to work on.
        needs: Whose results it reads.
    """

    name: str
    is_done: Callable[[], bool]
    make: Callable[[], object]
    needs: tuple[Stage, ...] = ()


class MissingDataError(Exception):
    """A stage has nothing to work on; the message says what it lacks."""


class Stages:
    """Runs stages and keeps a record of each.

    Args:
        path: The JSON file of the records.
        maker: What a record says of who made its stage, such as the commit
            and the date; a stage that was interrupted has its last maker's.
        max_minutes: Begins no stage later than this; None has no limit, 0
            begins none.

    Attributes:
        records: Of each stage that was run here, by name: `maker`, and the
            `seconds` that it took, interruptions by Ctrl-C included.
        missing: Why a stage has no result, by name.
    """

    def __init__(
        self,
        path: Path,
        maker: Mapping[str, str],
        max_minutes: float | None = None,
    ) -> None:
        self._path = path
        self._maker = dict(maker)
        self._deadline = (
            None
            if max_minutes is None
            else time.monotonic() + 60.0 * max_minutes
        )
        self.records: dict[str, dict[str, Any]] = (
            read_json(path) if path.exists() else {}
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
        except MissingDataError as error:
            return self._lacks(stage, str(error))
        finally:
            self._record(stage, time.monotonic() - start)
        if not stage.is_done():
            raise RuntimeError(f"stage {stage.name} ran, but has no result")
        return True

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _lacks(self, stage: Stage, why: str) -> bool:
        self.missing[stage.name] = why
        return False

    def _record(self, stage: Stage, seconds: float) -> None:
        before = self.records.get(stage.name, {}).get("seconds", 0.0)
        total = round(before + seconds, 2)
        self.records[stage.name] = {**self._maker, "seconds": total}
        write_json(self._path, self.records)
