"""The training step of APE-GAN once more, in eager PyTorch.

The same networks (Table 6, `ape_gan_m`), losses, optimizers and schedule as
`ape_gan_tf.purifier_training`, written as PyTorch users write them. PyTorch
pads an image on both sides where Keras's padding SAME with stride 2 pads it
on the far side only, so these networks are the mirror images of ours: given
mirrored images and mirrored kernels (`load_keras_weights`) they compute the
same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ape_gan_tf.purifier_config import PurifierConfig

IMAGE_SHAPE = (28, 28, 1)


class PyTorchStep:
    """One discriminator step, then the generator steps, on the same batch.

    Args:
        config: As of `PurifierTrainer`: an `ape_gan_m` of Table 6.
        total_steps: Iterations over which a cosine schedule decays.
        channels_last: Keep activations and kernels in PyTorch's NHWC layout;
            its default is NCHW.

    Raises:
        ValueError: `config` asks for what this twin does not have.
    """

    def __init__(
        self,
        config: PurifierConfig,
        total_steps: int,
        *,
        channels_last: bool = False,
    ) -> None:
        _check_supported(config)
        torch.manual_seed(config.seed)
        self._config = config
        self._layout = (
            torch.channels_last if channels_last else torch.contiguous_format
        )
        self.generator = _generator(config.batch_norm_momentum)
        self.discriminator = _discriminator(config.batch_norm_momentum)
        layout: dict[str, Any] = {"memory_format": self._layout}
        self.generator.to(**layout)
        self.discriminator.to(**layout)
        g_steps = total_steps * config.generator_steps
        self._g_optimizer = _Adam(self.generator, config, g_steps)
        self._d_optimizer = _Adam(self.discriminator, config, total_steps)

    def batch(self, images: np.ndarray) -> torch.Tensor:
        """float32 NHWC images as a tensor in this step's layout."""
        nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
        # Of one channel, `contiguous` takes either layout for the other, and
        # the first convolution hands on the one that the strides suggest.
        return torch.empty(nchw.shape, memory_format=self._layout).copy_(nchw)

    def __call__(
        self, clean: torch.Tensor, adversarial: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """One iteration; returns the losses of `PurifierTrainer.loss_names`.

        Args:
            clean: From `batch`.
            adversarial: From `batch`.
        """
        d_loss = self._discriminator_step(clean, adversarial)
        for _ in range(self._config.generator_steps):
            g_losses = self._generator_step(clean, adversarial)
        return (d_loss, *g_losses)

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
        self, clean: torch.Tensor, adversarial: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        config = self._config
        # Our step takes no gradient of the discriminator's weights here.
        self.discriminator.requires_grad_(False)
        purified = self.generator(adversarial)
        content = functional.mse_loss(purified, clean)
        if config.content_loss == "root_mse":
            content = (content + 1e-12).sqrt()
        fooling = functional.softplus(-self.discriminator(purified)).mean()
        g_loss = (
            config.content_weight * content
            + config.adversarial_weight * fooling
        )
        self._g_optimizer.minimize(g_loss)
        self.discriminator.requires_grad_(True)
        return g_loss.detach(), content.detach(), fooling.detach()


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


def _check_supported(config: PurifierConfig) -> None:
    for name, only in {
        "generator": "ape_gan_m",
        "kernel_size": 3,
        "decoder_activation": "leaky_relu",
        "output": "sigmoid",
        "precision": "float32",
    }.items():
        value = getattr(config, name)
        if value != only:
            raise ValueError(
                f"{name} must be {only!r} for the PyTorch step, got {value!r}"
            )
