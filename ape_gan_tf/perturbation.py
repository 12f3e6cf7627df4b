"""What an attack makes of a batch, and how far it had to go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import attacks
import models


class Perturbed(NamedTuple):
    """What became of a batch of B images.

    Attributes:
        images: float32 `[B, H, W, C]`.
        distances: float32 `[B]` where an attack of minimal norm made them:
            how far it had to go, infinity where it failed, NaN where the
            victim was wrong before. Else None.
    """

    images: tf.Tensor
    distances: np.ndarray | None = None


# From a batch, and what is told how many images were finished since.
Perturb = Callable[[dict[str, tf.Tensor], Callable[[int], None]], Perturbed]


def attack_on(victim: models.Classifier, attack: attacks.Attack) -> Perturb:
    """A function from a batch to its adversarial images for `victim`."""
    minimised = minimised_distance(attack.name, attack.params)

    def perturb(
        batch: dict[str, tf.Tensor], progress: Callable[[int], None]
    ) -> Perturbed:
        result = attack(
            victim,
            batch["images"],
            batch["labels"],
            indices=batch["index"],
            progress=progress,
        )
        distances = _distances(victim, batch, result._asdict(), minimised)
        return Perturbed(result.adversarial, distances)

    return perturb


def stored(victim: models.Classifier, minimised: str | None) -> Perturb:
    """The images of a stored set; the victim is whom it was crafted on.

    `minimised` is the distance that the attack made small, see
    `minimised_distance`.
    """

    def perturb(
        batch: dict[str, tf.Tensor], progress: Callable[[int], None]
    ) -> Perturbed:
        progress(int(batch["labels"].shape[0]))
        distances = _distances(victim, batch, batch, minimised)
        return Perturbed(batch["adversarial"], distances)

    return perturb


def given(make: Callable[[dict[str, tf.Tensor]], tf.Tensor]) -> Perturb:
    """Images that are there at once, and whose distances do not count."""

    def perturb(
        batch: dict[str, tf.Tensor], progress: Callable[[int], None]
    ) -> Perturbed:
        progress(int(batch["labels"].shape[0]))
        return Perturbed(make(batch))

    return perturb


def minimised_distance(
    attack_name: str, params: Mapping[str, Any]
) -> str | None:
    """Which distance an attack minimises, if it does and if it is known."""
    attack = attacks.ATTACKS.get(attack_name)
    if attack is None or not attack.is_minimal_norm:
        return None
    return params.get("norm", attack.distance)


def _distances(
    victim: models.Classifier,
    batch: dict[str, tf.Tensor],
    figures: dict[str, tf.Tensor],
    minimised: str | None,
) -> np.ndarray | None:
    """See `Perturbed`; of the statistics of an attack or of a stored set."""
    if minimised is None:
        return None
    before = victim.predict(batch["images"].numpy()).argmax(-1)
    distances = np.where(figures["success"], figures[minimised], np.inf)
    return np.where(before == batch["labels"], distances, np.nan)


def averages(
    minimised: str | None, distances: dict[str, list[np.ndarray]]
) -> dict[str, Any]:
    """The figures of a `Row` that distances give.

    Args:
        minimised: Which distance they are.
        distances: float32 `[B]` each, see `Perturbed`; of the batches made for
            the `target`, for the `purified` one, or for both.

    Returns:
        `distance`, and `..._median_distance` and `..._mean_distance` of each
        that has any; the median of failures is infinite, and the mean leaves
        them out.
    """
    found: dict[str, Any] = {}
    for who, parts in distances.items():
        counted = np.concatenate([*parts, np.zeros(0)])
        counted = counted[~np.isnan(counted)]
        if len(counted):
            # The lower of the two in the middle: one may be infinite.
            median = float(np.quantile(counted, 0.5, method="lower"))
            found["distance"] = minimised
            found[f"{who}_median_distance"] = median
            if np.isfinite(counted).any():
                mean = float(counted[np.isfinite(counted)].mean())
                found[f"{who}_mean_distance"] = mean
    return found
