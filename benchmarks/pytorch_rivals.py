"""torchattacks' attacks behind the signature of `rival_attacks`.

They attack the classifier's twin in PyTorch (`pytorch_classifier`), in
batches, and get and return images as TensorFlow has them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from processes import MissingLibraryError
from rival_attacks import Rival

import models


def apgd_t(
    classifier: models.Classifier, batch_size: int, **params: Any
) -> Rival:
    return _torchattacks(classifier, {"APGDT": params}, batch_size)


def fab_t(
    classifier: models.Classifier, batch_size: int, **params: Any
) -> Rival:
    return _torchattacks(classifier, {"FAB": params}, batch_size)


def auto_attack(
    classifier: models.Classifier,
    batch_size: int,
    attacks: dict[str, dict[str, Any]],
    **params: Any,
) -> Rival:
    """Its AutoAttack, put together from its parts to give each its budget.

    Args:
        classifier: The classifier.
        batch_size: Images at a time.
        attacks: By name, what one of them has besides `params`; an image
            that one breaks is not given to the next.
        **params: What all of them have.
    """
    merged = {name: {**params, **own} for name, own in attacks.items()}
    return _torchattacks(classifier, merged, batch_size)


def _torchattacks(
    classifier: models.Classifier,
    attacks: dict[str, dict[str, Any]],
    batch_size: int,
) -> Rival:
    try:
        import torch
        import torchattacks
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            f"{error.name} is not installed; pip install torch, and pip "
            "install --no-deps torchattacks"
        ) from error
    import pytorch_classifier

    twin = pytorch_classifier.twin_of(classifier)
    made = [
        getattr(torchattacks, name)(twin, **params)
        for name, params in attacks.items()
    ]
    attack = made[0] if len(made) == 1 else torchattacks.MultiAttack(made)

    def run(
        images: np.ndarray, labels: np.ndarray, targets: np.ndarray
    ) -> np.ndarray:
        batches = zip(
            pytorch_classifier.to_pytorch(images).split(batch_size),
            torch.from_numpy(labels.astype(np.int64)).split(batch_size),
            strict=True,
        )
        return pytorch_classifier.to_numpy(
            torch.cat([attack(*batch) for batch in batches])
        )

    return run
