"""Parameters as a command line writes them."""

from __future__ import annotations

from typing import Any


def parse_params(text: str, argument: str) -> dict[str, Any]:
    """Parses `k=v,k=v`: numbers, true, false, none, else strings.

    `argument` is the name of the caller's argument, for error messages.

    Raises:
        ValueError: A part is not of the form `name=value`, or comes twice.
    """
    params: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (x.strip() for x in part.partition("="))
        if not (name and equals and value):
            raise ValueError(
                f"{argument} must look like name=value,name=value, got {part!r}"
            )
        if name in params:
            raise ValueError(f"{argument} has {name!r} more than once")
        params[name] = _parse_value(value)
    return params


def _parse_value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float, _parse_fraction):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _parse_fraction(text: str) -> float:
    numerator, slash, denominator = text.partition("/")
    if not slash or float(denominator) == 0.0:
        raise ValueError(f"not a fraction: {text!r}")
    return float(numerator) / float(denominator)
