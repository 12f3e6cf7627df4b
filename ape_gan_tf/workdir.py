"""What a stage leaves in a work directory belongs to one configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.files import read_json, write_json


def refuse_orphans(path: Path, products: Sequence[Path]) -> None:
    """Refuses to take over what a stage made when its configuration is gone.

    Args:
        path: The JSON file of `claim`.
        products: What the stage makes.

    Raises:
        ValueError: There is a product and no JSON file.
    """
    orphans = [str(product) for product in products if product.exists()]
    if orphans and not path.exists():
        raise ValueError(
            f"{' and '.join(orphans)} exist without {path}, which would say "
            "how they were made: use another --workdir, or remove them"
        )


def claim(path: Path, config: dict[str, Any]) -> None:
    """Marks a stage's directory with its configuration, or compares with it.

    A stage that continues with other settings would mix two experiments.

    Args:
        path: The JSON file that holds the configuration.
        config: What decides the stage's result.

    Raises:
        ValueError: The file holds another configuration; the message names
            what differs.
    """
    config = json.loads(json.dumps(config, default=str))
    if not path.exists():
        write_json(path, config)
        return
    found = read_json(path)
    old, new = _flatten(found), _flatten(config)
    names = [n for n in sorted({*old, *new}) if old.get(n) != new.get(n)]
    if names:
        differences = "; ".join(
            f"{name} was {old.get(name)!r}, now {new.get(name)!r}"
            for name in names
        )
        raise ValueError(
            f"{path.parent} holds work of another configuration "
            f"({differences}): use another --workdir"
        )


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`, to name just what differs."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
