"""Standard output for bytes alone, and what happens when nobody reads it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

READER_GONE = 141  # What a shell shows of a program that SIGPIPE ended.


@contextlib.contextmanager
def binary_stdout() -> Iterator[BinaryIO]:
    """Gives standard output for bytes; what is printed goes to stderr.

    Yields:
        Where to write; flushed at the end.

    Raises:
        SystemExit: With `READER_GONE`: the reader has closed the pipe
            (`| head`), which is its right and needs no message.
        OSError: It cannot be written, for instance since a disk is full.
    """
    stdout = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield stdout.buffer
            stdout.buffer.flush()
    except BrokenPipeError:
        _discard_what_is_left(stdout.fileno())
        raise SystemExit(READER_GONE) from None
    except OSError:
        _discard_what_is_left(stdout.fileno())
        raise


def _discard_what_is_left(descriptor: int) -> None:
    """Python flushes once more as it exits, and would fail once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
