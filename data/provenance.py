"""Where an adversarial set comes from."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import numbers
from collections.abc import Mapping
from typing import Any

_PACKAGES = ("tensorflow", "keras", "numpy", "h5py", "cleverhans", "ape_gan_tf")
_TEXTS = (
    "attack",
    "threat_model",
    "dataset",
    "split",
    "classifier_fingerprint",
    "purifier_fingerprint",
)


def package_versions() -> dict[str, str]:
    """Returns the installed versions of the packages that shape a set."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Everything that determines an adversarial set.

    Attributes:
        attack: registry name.
        params: the attack's hyper-parameters, JSON values.
        threat_model: what the attacker knew.
        seed: the seed of every random choice.
        dataset: name of the dataset.
        split: which of its splits.
        classifier_fingerprint: the classifier that was attacked.
        purifier_fingerprint: the purifier in front of it, "" without one.
        bounds: least and greatest value of a pixel; always 0 and 1.
        package_versions: of the packages that made the set.
    """

    attack: str
    params: Mapping[str, Any]
    threat_model: str
    seed: int
    dataset: str
    split: str
    classifier_fingerprint: str
    purifier_fingerprint: str = ""
    bounds: tuple[float, float] = (0.0, 1.0)
    package_versions: Mapping[str, str] = dataclasses.field(
        default_factory=package_versions
    )

    def __post_init__(self) -> None:
        for name in _TEXTS:
            if not isinstance(getattr(self, name), str):
                raise ValueError(
                    f"{name} must be a string, got {getattr(self, name)!r}"
                )
        is_integer = isinstance(self.seed, numbers.Integral)
        if not is_integer or isinstance(self.seed, bool):
            raise ValueError(f"seed must be an integer, got {self.seed!r}")
        object.__setattr__(self, "seed", int(self.seed))
        if tuple(self.bounds) != (0.0, 1.0):
            raise ValueError(f"bounds must be (0.0, 1.0), got {self.bounds!r}")
        object.__setattr__(self, "bounds", (0.0, 1.0))
        for name in ("params", "package_versions"):
            self._normalise(name)

    def _normalise(self, name: str) -> None:
        """Makes a mapping what JSON gives back, so that it can be compared."""
        value = getattr(self, name)
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be a mapping, got {value!r}")
        try:
            text = json.dumps(dict(value), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name} must be finite JSON values, got {value!r}: {error}"
            ) from error
        object.__setattr__(self, name, json.loads(text))
