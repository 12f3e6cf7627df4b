"""What happens to the training pairs before a purifier's step."""

from __future__ import annotations

import tensorflow as tf

from ape_gan_tf.purifier_config import PurifierConfig
from data.augmentation import (
    crop_pairs,
    flip_images,
    noise_some,
    shift_images,
    sparsify_some,
)


def augmented(
    config: PurifierConfig, batches: tf.data.Dataset, start: int
) -> tf.data.Dataset:
    """Moves, mirrors and crops pairs; makes some sparse and some noisy.

    Args:
        config: Its `training_` settings say what is done.
        batches: Of `images` and `adversarial`, float32 `[B, H, W, C]`.
        start: The number of the first; random choices depend on the seed and
            on this number alone.

    Returns:
        The same with `step`, the number of each batch, unless nothing is to
        be done and nothing is crafted in the step.
    """
    noise, sparse = (
        config.training_noise_fraction,
        config.training_sparse_fraction,
    )
    is_crafted = set(config.rows()) != {"stored"}
    if noise == sparse == 0.0 and not _is_moving(config) and not is_crafted:
        return batches

    @tf.autograph.experimental.do_not_convert
    def change(step: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict:
        clean, adversarial = _move(
            config, batch["images"], batch["adversarial"], step
        )
        if sparse:
            adversarial = sparsify_some(
                clean,
                adversarial,
                sparse,
                config.training_sparse_density,
                config.seed,
                step,
            )
        if noise:
            adversarial = noise_some(
                clean,
                adversarial,
                noise,
                config.training_noise_variance,
                config.seed,
                step,
            )
        changed = {"images": clean, "adversarial": adversarial}
        return {**batch, **changed, "step": step}

    numbered = batches.enumerate(start)
    return numbered.map(change, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _is_moving(config: PurifierConfig) -> bool:
    """Whether pairs are shifted, mirrored or cropped."""
    return (
        config.training_shift > 0
        or config.training_flip
        or config.training_crop is not None
    )


def _move(
    config: PurifierConfig,
    clean: tf.Tensor,
    adversarial: tf.Tensor,
    step: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Shifts, mirrors and crops both images of each pair alike."""
    if config.training_shift or config.training_flip:
        pairs = tf.concat([clean, adversarial], -1)
        if config.training_shift:
            shift = config.training_shift
            pairs = shift_images(pairs, shift, config.seed, step)
        if config.training_flip:
            pairs = flip_images(pairs, config.seed, step)
        clean, adversarial = tf.split(pairs, 2, -1)
    if config.training_crop is None:
        return clean, adversarial
    return crop_pairs(
        clean, adversarial, config.training_crop, config.seed, step
    )
