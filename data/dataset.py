"""A dataset with train, validation and test splits, as tf.data pipelines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from data.augmentation import flip_images, shift_images
from data.checks import check_one_of, check_positive_integer
from data.order import shuffled_positions
from data.splits import SPLITS, Split


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images with class labels.

    Attributes:
        name: one of `data.DATASETS`.
        image_shape: (height, width, channels).
        class_names: one name for each class, in the order of the labels.
        splits: `train`, `validation` and `test`.
    """

    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    splits: Mapping[str, Split] = dataclasses.field(repr=False)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def count(self, split: str) -> int:
        """Returns the number of images of a split.

        Raises:
            ValueError: if there is no such split.
        """
        return self.splits[check_one_of(split, SPLITS, "split")].count

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        start: int = 0,
        limit: int | None = None,
    ) -> tf.data.Dataset:
        """Returns the images of a split in order.

        Args:
            split: `train`, `validation` or `test`.
            batch_size: images in a batch; the last may be smaller.
            start: position of the first image.
            limit: use only the first so many images of the split.

        Returns:
            dicts of `images` (float32 `[b, H, W, C]` in [0, 1]), `labels`
            (int64 `[b]`) and `index` (int64 `[b]`, position in the split).

        Raises:
            ValueError: if the split is unknown or empty, or `start` lies
                behind its end.
        """
        check_positive_integer(batch_size, "batch_size")
        source, count = self._source(split, limit)
        if not 0 <= start <= count:
            raise ValueError(
                f"start must be in [0, {count}], the images used of split "
                f"{split}, got {start}"
            )
        positions = tf.data.Dataset.range(start, count).batch(batch_size)
        return source.load(positions, batch_size).prefetch(tf.data.AUTOTUNE)

    def training_batches(
        self,
        split: str,
        batch_size: int,
        *,
        seed: int,
        start_step: int = 0,
        total_steps: int,
        limit: int | None = None,
        shift: int = 0,
        flip: bool = False,
    ) -> tf.data.Dataset:
        """Returns shuffled, full batches for steps start_step .. total_steps.

        A batch depends on the arguments and its step alone, so a run that
        resumes at `start_step` sees what an undisturbed one would have seen.

        Args:
            split: `train`, `validation` or `test`.
            batch_size: images in every batch.
            seed: determines the order, the shifts and the flips.
            start_step: the first step to make.
            total_steps: the step to stop before.
            limit: use only the first so many images of the split.
            shift: move images by up to so many pixels, filling with zeros.
            flip: mirror half of the images.

        Returns:
            `total_steps - start_step` dicts as from `batches`.

        Raises:
            ValueError: if the split is unknown or empty, or has fewer images
                than a batch.
        """
        source, count = self._source(split, limit)
        self._check_shift(shift)
        positions = shuffled_positions(
            count,
            batch_size,
            seed=seed,
            start_step=start_step,
            total_steps=total_steps,
        )
        batches = source.load(positions, batch_size)
        if shift or flip:
            batches = _augmented(batches, seed, start_step, shift, flip)
        return batches.prefetch(tf.data.AUTOTUNE)

    def _source(self, split: str, limit: int | None) -> tuple[Split, int]:
        count = self.count(split)
        if not count:
            hint = (
                "; it was loaded with validation_count=0"
                if split == "validation"
                else ""
            )
            raise ValueError(
                f"split must have images, but {split} of {self.name} has "
                f"none{hint}"
            )
        if limit is not None:
            count = min(count, check_positive_integer(limit, "limit"))
        return self.splits[split], count

    def _check_shift(self, shift: int) -> None:
        side = min(self.image_shape[:2])
        if not 0 <= shift < side:
            raise ValueError(f"shift must be in [0, {side}), got {shift}")


def _augmented(
    batches: tf.data.Dataset, seed: int, start_step: int, shift: int, flip: bool
) -> tf.data.Dataset:
    @tf.autograph.experimental.do_not_convert
    def augment(
        step: tf.Tensor, batch: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        images = batch["images"]
        if shift:
            images = shift_images(images, shift, seed, step)
        if flip:
            images = flip_images(images, seed, step)
        return {**batch, "images": images}

    return batches.enumerate(start_step).map(
        augment, num_parallel_calls=tf.data.AUTOTUNE
    )
