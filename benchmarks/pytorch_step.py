"""The training step of APE-GAN once more, in eager PyTorch.

The same networks (Table 6, `ape_gan_m`), losses, optimizers and schedule as
`ape_gan_tf.purifier_training`, written as PyTorch users write them. PyTorch
pads an image on both sides where Keras's padding SAME with stride 2 pads it
on the far side only, so these networks are the mirror images of ours: given
mirrored images and mirrored kernels (`load_keras_weights`) they compute the
same numbers. A classifier behind them must be for mirrored images too
(`pytorch_classifier.twin_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.purifier_training import PurifierTrainer

IMAGE_SHAPE = (28, 28, 1)


class PyTorchStep:
    """One discriminator step, then the generator steps, on the same batch.

    Without an adversarial loss there is no discriminator.

    Args:
        config: As of `PurifierTrainer`: an `ape_gan_m` of Table 6.
        total_steps: Iterations over which a cosine schedule decays.
        classifier: The frozen one, for mirrored images; needed where
            `config.classification_weight` is not 0.
        channels_last: Keep activations and kernels in PyTorch's NHWC layout;
            its default is NCHW.

    Attributes:
        generator: Images to images.
        discriminator: Images to logits, or None.
        average: Of the generator's weights, or None.

    Raises:
        ValueError: `config` asks for what this twin does not have.
    """

    def __init__(
        self,
        config: PurifierConfig,
        total_steps: int,
        *,
        classifier: nn.Module | None = None,
        channels_last: bool = False,
    ) -> None:
        _check_supported(config, classifier)
        torch.manual_seed(config.seed)
        self._config = config
        self._layout = (
            torch.channels_last if channels_last else torch.contiguous_format
        )
        self._classifier = None
        if classifier is not None:
            self._classifier = self._laid_out(classifier)
        self.generator = self._laid_out(_generator(config.batch_norm_momentum))
        self._g_optimizer = _Adam(
            self.generator, config, total_steps * config.generator_steps
        )
        self.discriminator = None
        if config.adversarial_weight:
            self.discriminator = self._laid_out(
                _discriminator(config.batch_norm_momentum)
            )
            self._d_optimizer = _Adam(self.discriminator, config, total_steps)
        self.average = None
        if config.ema_decay:
            self.average = _Average(self.generator, config.ema_decay)

    def _laid_out(self, network: Any) -> Any:
        return network.to(memory_format=self._layout)

    def load(self, trainer: PurifierTrainer) -> None:
        """Begins with the weights of ours: to be called before any step."""
        load_keras_weights(self.generator, trainer.generator)
        if self.discriminator is not None:
            load_keras_weights(self.discriminator, trainer.discriminator)
        if self.average is not None:
            self.average.restart()

    def batch(self, images: np.ndarray) -> torch.Tensor:
        """float32 NHWC images as a tensor in this step's layout."""
        nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
        # Of one channel, `contiguous` takes either layout for the other, and
        # the first convolution hands on the one that the strides suggest.
        return torch.empty(nchw.shape, memory_format=self._layout).copy_(nchw)

    def __call__(
        self,
        clean: torch.Tensor,
        adversarial: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """One iteration; returns the losses of `PurifierTrainer.loss_names`.

        Args:
            clean: From `batch`.
            adversarial: From `batch`.
            labels: int64 `[B]`, where there is a classifier.
        """
        d_losses = []
        if self.discriminator is not None:
            d_losses.append(self._discriminator_step(clean, adversarial))
        for _ in range(self._config.generator_steps):
            g_losses = self._generator_step(clean, adversarial, labels)
        return (*d_losses, *g_losses)

    def _discriminator_step(
        self, clean: torch.Tensor, adversarial: torch.Tensor
    ) -> torch.Tensor:
        with torch.no_grad():
            purified = self.generator(adversarial)
        clean_logits = self.discriminator(clean)
        purified_logits = self.discriminator(purified)
        d_loss = (
            functional.softplus(-clean_logits).mean()
            + functional.softplus(purified_logits).mean()
        )
        self._d_optimizer.minimize(d_loss)
        return d_loss.detach()

    def _generator_step(
        self,
        clean: torch.Tensor,
        adversarial: torch.Tensor,
        labels: torch.Tensor | None,
    ) -> list[torch.Tensor]:
        # Our step takes no gradient of the discriminator's weights here.
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
        losses = self._generator_losses(clean, adversarial, labels)
        self._g_optimizer.minimize(losses[0])
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
        if self.average is not None:
            self.average.update()
        return [loss.detach() for loss in losses]

    def _generator_losses(
        self,
        clean: torch.Tensor,
        adversarial: torch.Tensor,
        labels: torch.Tensor | None,
    ) -> list[torch.Tensor]:
        """The generator's loss, then what it is made of."""
        config = self._config
        count = config.clean_count
        purified = self.generator(_joined(adversarial, clean[:count]))
        content = functional.mse_loss(purified, _joined(clean, clean[:count]))
        if config.content_loss == "root_mse":
            content = (content + 1e-12).sqrt()
        weighted = [(config.content_weight, content)]
        if self.discriminator is not None:
            logits = self.discriminator(purified[: len(adversarial)])
            fooling = functional.softplus(-logits).mean()
            weighted.append((config.adversarial_weight, fooling))
        if config.classification_weight:
            wrong = functional.cross_entropy(
                self._classifier(purified), _joined(labels, labels[:count])
            )
            weighted.append((config.classification_weight, wrong))
        total = sum(weight * loss for weight, loss in weighted)
        return [total, *(loss for _, loss in weighted)]


def _joined(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.cat([first, second]) if len(second) else first


class _Adam:
    """Adam with the learning rate's schedule."""

    def __init__(
        self, network: nn.Module, config: PurifierConfig, steps: int
    ) -> None:
        self._adam = torch.optim.Adam(
            network.parameters(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, 0.999),
            eps=1e-7,  # Keras's.
        )
        self._schedule = (
            torch.optim.lr_scheduler.CosineAnnealingLR(self._adam, steps)
            if config.schedule == "cosine"
            else None
        )

    def minimize(self, loss: torch.Tensor) -> None:
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()
        if self._schedule is not None:
            self._schedule.step()


class _Average:
    """The moving average of a network's weights, as `WeightAverage` has it.

    Attributes:
        values: One for each weight, batch normalisation's averages included.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._weights = [
            weight
            for weight in network.state_dict().values()
            if weight.is_floating_point()
        ]
        self._decay = decay
        self.restart()

    def restart(self) -> None:
        """Begins at the weights of now."""
        self._updates = 0
        self.values = [weight.clone() for weight in self._weights]

    def update(self) -> None:
        self._updates += 1
        share = (1 + self._updates) / (10 + self._updates)
        decay = min(self._decay, share)
        for value, weight in zip(self.values, self._weights, strict=True):
            value.lerp_(weight, 1 - decay)


def _generator(momentum: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, 2, padding=1, bias=False),
        *_norm_and_activation(64, momentum),
        nn.Conv2d(64, 128, 3, 2, padding=1, bias=False),
        *_norm_and_activation(128, momentum),
        nn.ConvTranspose2d(
            128, 64, 3, 2, padding=1, output_padding=1, bias=False
        ),
        *_norm_and_activation(64, momentum),
        nn.ConvTranspose2d(64, 1, 3, 2, padding=1, output_padding=1),
        nn.Sigmoid(),
    )


def _discriminator(momentum: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, 2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 3, 2, padding=1, bias=False),
        *_norm_and_activation(128, momentum),
        nn.Conv2d(128, 256, 3, 2, padding=1, bias=False),
        *_norm_and_activation(256, momentum),
        nn.Flatten(),
        nn.Linear(4 * 4 * 256, 1),
    )


def _norm_and_activation(width: int, momentum: float) -> list[nn.Module]:
    # Keras's epsilon; its momentum is the share that is kept.
    norm = nn.BatchNorm2d(width, eps=1e-3, momentum=1 - momentum)
    return [norm, nn.LeakyReLU(0.2)]


def load_keras_weights(network: nn.Sequential, model: keras.Model) -> None:
    """Gives a twin the weights of our network, mirrored (see the module).

    Args:
        network: `PyTorchStep.generator` or `.discriminator`.
        model: The Keras model that it is the twin of.
    """
    arrays = iter(model.get_weights())
    with torch.no_grad():
        for layer in network:
            for tensor, array in zip(
                _tensors(layer), _arrays(layer, arrays), strict=True
            ):
                tensor.copy_(torch.from_numpy(array.copy()))


def _tensors(layer: nn.Module) -> Iterable[torch.Tensor]:
    """A layer's weights, in the order of Keras."""
    names = ("weight", "bias", "running_mean", "running_var")
    values = (getattr(layer, name, None) for name in names)
    return [value for value in values if value is not None]


def _arrays(
    layer: nn.Module, arrays: Iterator[np.ndarray]
) -> Iterator[np.ndarray]:
    """The next of Keras's arrays, as many as `layer` has, in its layout."""
    for _ in _tensors(layer):
        array = next(arrays)
        if array.ndim == 4:  # Of convolutions and deconvolutions alike.
            array = array[::-1, ::-1].transpose(3, 2, 0, 1)
        elif array.ndim == 2:  # Rows of NHWC features become NCHW columns.
            features = array.reshape(4, 4, 256)[::-1, ::-1]
            array = features.transpose(2, 0, 1).reshape(1, -1)
        yield array


def check_only(config: PurifierConfig, only: Mapping[str, Any]) -> None:
    """Refuses a configuration that says something else.

    Args:
        config: Of `PurifierTrainer`.
        only: The one value that a field may have, by its name.

    Raises:
        ValueError: Naming the field and both values.
    """
    for name, value in only.items():
        found = getattr(config, name)
        if found != value:
            raise ValueError(
                f"{name} must be {value!r} for the PyTorch step, got {found!r}"
            )


def _check_supported(
    config: PurifierConfig, classifier: nn.Module | None
) -> None:
    check_only(
        config,
        {
            "generator": "ape_gan_m",
            "kernel_size": 3,
            "decoder_activation": "leaky_relu",
            "output": "sigmoid",
            "consistency": "labels",
            "precision": "float32",
        },
    )
    if config.classification_weight and classifier is None:
        raise ValueError(
            "classifier must be given where classification_weight is "
            f"{config.classification_weight}, got None"
        )
