"""Which classifier a purifier was trained with: kept beside it, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
from ape_gan_tf import pretrained_models
from data.files import read_json, write_json

NAME = "training.json"


def joined(
    own: dict[str, Any] | None, initial: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The record of a purifier whose training began with another's weights.

    Args:
        own: Which classifier it was trained with itself; None if by pairs
            alone.
        initial: The other's record.

    Returns:
        Its own, and under `initial` the other's, if that names another
        classifier.
    """
    if own is None:
        return initial
    while initial and initial["fingerprint"] == own["fingerprint"]:
        initial = initial.get("initial")
    return {**own, "initial": initial} if initial else own


def write(folder: Path, trained_with: dict[str, Any]) -> None:
    """Writes `training.json` beside a purifier.

    Args:
        folder: Where `purifier.keras` is.
        trained_with: The frozen classifier's `name` and `fingerprint`, the
            `adversary` and perhaps `initial`, see `joined`. Of one trained on
            pairs alone there is nothing to write.
    """
    write_json(folder / NAME, {"trained_with": trained_with})


def read(purifier: str) -> dict[str, Any] | None:
    """What is known of a purifier's training; None if nothing is.

    Args:
        purifier: Its path, or a pretrained name.

    Raises:
        ValueError: `training.json` beside it is not what `write` writes.
    """
    if pretrained_models.is_pretrained("purifier", purifier):
        record = pretrained_models.FOLDER / f"{purifier}.json"
        return pretrained_models.read_record(record).trained_with
    path = Path(purifier).parent / NAME
    if not path.exists():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or "trained_with" not in content:
        raise ValueError(
            f"{path} must say trained_with, got {content!r}: remove it if it "
            "is not of a training run"
        )
    return content["trained_with"]


def notes(
    trained_with: dict[str, Any] | None, measured: models.Classifier
) -> dict[str, str]:
    """For a report: what the purifier was trained with, and if it is this."""
    if trained_with is None:
        return {}
    fingerprint = trained_with["fingerprint"]
    is_same = fingerprint == measured.fingerprint
    which = "the one measured here" if is_same else "not the one measured here"
    said = {
        "trained with": f"{trained_with['name']} ({fingerprint}), {which}; "
        f"adversary {trained_with['adversary']}"
    }
    earlier = notes(trained_with.get("initial"), measured)
    return said | {f"{name}, earlier": text for name, text in earlier.items()}
