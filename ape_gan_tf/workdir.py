"""What a stage leaves in a work directory belongs to one configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ape_gan_tf.files import read_json, write_json


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
    names = sorted(
        name
        for name in {*config, *found}
        if config.get(name) != found.get(name)
    )
    if names:
        differences = "; ".join(
            f"{name} was {found.get(name)!r}, now {config.get(name)!r}"
            for name in names
        )
        raise ValueError(
            f"{path.parent} holds work of another configuration "
            f"({differences}): use another --workdir, or remove that folder"
        )
