"""The training step on images that it crafts first, in eager PyTorch.

The same as `ape_gan_tf.adversaries` does for the adversary `white_box`:
projected gradient descent through the purifier, in inference mode, and the
frozen classifier behind it, on the weights of that moment; then the update of
`pytorch_step.py`. Written as PyTorch users write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_classifier import twin_of
from pytorch_step import PyTorchStep, check_only
from torch.nn import functional

import models
from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.shares import split_rows


class PyTorchWhiteBoxStep(PyTorchStep):
    """Crafts a batch, then trains on it.

    Args:
        config: As of `PurifierTrainer`, all of whose rows are `white_box`.
        total_steps: Iterations over which a cosine schedule decays.
        classifier: The frozen one, of layers that `twin_of` knows.
        channels_last: As of `PyTorchStep`.

    Raises:
        ValueError: `config` asks for what this twin does not have.
    """

    def __init__(
        self,
        config: PurifierConfig,
        total_steps: int,
        classifier: models.Classifier,
        *,
        channels_last: bool = False,
    ) -> None:
        check_only(
            config,
            {
                "adversary": "white_box",
                "adversary_method": "pgd",
                "adversary_norm": "linf",
                "adversary_warmup": 0.0,
            },
        )
        super().__init__(
            config,
            total_steps,
            classifier=twin_of(classifier, mirrored=True),
            channels_last=channels_last,
        )
        self._crafting = config.crafting()

    def __call__(
        self,
        clean: torch.Tensor,
        stored: torch.Tensor,
        labels: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """One iteration; returns the losses of `PurifierTrainer.loss_names`.

        Args:
            clean: From `batch`.
            stored: Their oblivious adversarial twins, where searches begin.
            labels: int64 `[B]`.
        """
        starts = self.first_images(clean, stored)
        adversarial = self.craft(clean, starts, labels)
        return super().__call__(clean, adversarial, labels)

    def tensors(
        self, batch: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A batch of ours as this step takes it, its images mirrored."""
        clean, stored = (
            self.batch(batch[name].numpy()[:, ::-1, ::-1].copy())
            for name in ("images", "adversarial")
        )
        return clean, stored, torch.from_numpy(batch["labels"].numpy())

    def first_images(
        self, clean: torch.Tensor, stored: torch.Tensor
    ) -> torch.Tensor:
        """Where the searches of a batch begin, inside the ball and the box."""
        shares = self._crafting.shares_of_starts()
        rows = split_rows(len(clean), shares, "adversary_starts")
        epsilon = self._crafting.epsilon
        starts = clean.clone()
        if "stored" in rows:
            starts[rows["stored"]] = stored[rows["stored"]]
        if "random" in rows:
            change = torch.empty_like(clean[rows["random"]])
            starts[rows["random"]] += change.uniform_(-epsilon, epsilon)
        return starts.clamp_(*self._bounds(clean))

    def craft(
        self,
        clean: torch.Tensor,
        starts: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Climbs the classifier's loss behind the purifier, from `starts`."""
        bounds = self._bounds(clean)
        length = self._crafting.relative_step * self._crafting.epsilon
        # Moving averages: no image's gradient depends on its neighbours.
        self.generator.eval()
        images = starts
        for _ in range(self._crafting.steps):
            images = images.detach().requires_grad_()
            logits = self._classifier(self.generator(images))
            loss = functional.cross_entropy(logits, labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, images)
            moved = images.detach() + length * gradient.sign()
            images = moved.clamp_(*bounds)
        self.generator.train()
        return images

    def _bounds(self, clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The least and the greatest value of each pixel in the ball."""
        epsilon = self._crafting.epsilon
        return (clean - epsilon).clamp_(min=0), (clean + epsilon).clamp_(max=1)
