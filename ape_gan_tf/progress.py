"""Progress of long work: a bar on a terminal, a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from ape_gan_tf import interrupts

SECONDS_TO_FIRST_LINE = 5.0
SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts towards `total` on standard error, with the time that is left.

    A terminal gets a tqdm bar. A log file gets a line after five seconds, one
    every half a minute and one at the end: a bar would fill it.
    """

    def __init__(
        self, description: str, total: int, unit: str, initial: int = 0
    ) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=description,
            total=total,
            initial=initial,
            unit=f" {unit}",
            disable=not self._is_terminal,
            dynamic_ncols=True,
        )
        self._description, self._unit = description, unit
        self._total, self._initial = total, initial
        self._done = initial
        self._started = time.monotonic()
        self._next_line = self._started + SECONDS_TO_FIRST_LINE
        if not self._is_terminal and initial:
            self._print(f"continues at {initial:,} of {total:,} {unit}")

    def update(self, count: int, note: str = "") -> None:
        """Adds `count` to what is done; `note` is shown behind it.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed, and dropped on the way.
        """
        interrupts.raise_pending()
        self._done += count
        if self._is_terminal:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif self._is_line_due():
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            self._print(self._line(note))

    def close(self) -> None:
        self._bar.close()
        if not self._is_terminal:
            seconds = time.monotonic() - self._started
            self._print(
                f"{self._done:,} of {self._total:,} {self._unit} "
                f"in {seconds:.0f} s"
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def _is_line_due(self) -> bool:
        return time.monotonic() > self._next_line

    def _line(self, note: str) -> str:
        seconds = time.monotonic() - self._started
        text = f"{self._done:,} of {self._total:,} {self._unit}"
        if self._done > self._initial:
            rate = (self._done - self._initial) / max(seconds, 1e-9)
            left = (self._total - self._done) / rate
            told = f"{rate:,.1f}" if rate >= 1.0 else f"{rate:.2g}"
            text += f", {told} a second, {left:.0f} s left"
        return f"{text}, {note}" if note else text

    def _print(self, text: str) -> None:
        print(f"{self._description}: {text}", file=sys.stderr, flush=True)
