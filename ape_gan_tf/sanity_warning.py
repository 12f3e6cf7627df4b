"""What a check of an evaluation has to say."""

from __future__ import annotations

from typing import NamedTuple


class SanityWarning(NamedTuple):
    """A sign that a defence was measured weaker or stronger than it is.

    Attributes:
        name: Of the check, such as `zero_gradients`.
        seen: What was measured, with the figures.
        meaning: What it means for the reader, and what to do about it.
    """

    name: str
    seen: str
    meaning: str
