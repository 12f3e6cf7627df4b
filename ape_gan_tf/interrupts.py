"""Ctrl-C that is not lost.

TensorFlow drops a KeyboardInterrupt that lands in one of its callbacks, or
makes another error of it. The signal is remembered here, so that the work
stops at the next occasion and says why.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_pending = threading.Event()


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Within it, Ctrl-C raises KeyboardInterrupt and is remembered.

    Where Ctrl-C is ignored or handled by somebody else, that stays.
    """
    if not _is_ours_to_handle():
        yield
        return
    _pending.clear()
    signal.signal(signal.SIGINT, _remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _pending.clear()


def is_pending() -> bool:
    """Whether Ctrl-C was pressed within `remembered`."""
    return _pending.is_set()


def raise_pending() -> None:
    """Raises the KeyboardInterrupt that came earlier and was dropped."""
    if is_pending():
        raise KeyboardInterrupt


def _is_ours_to_handle() -> bool:
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def _remember(number: int, frame: Any) -> None:
    _pending.set()
    raise KeyboardInterrupt
