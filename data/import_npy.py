"""Imports published adversarial sets: pairs of .npy files in [-1, 1]."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from data.adversarial_format import blocks
from data.adversarial_set import AdversarialSet
from data.adversarial_set_writer import AdversarialSetWriter
from data.provenance import Provenance

# float32 arithmetic puts a published pixel this far outside its range.
_TOLERANCE = 1e-5

Logits = Callable[[tf.Tensor], tf.Tensor]


def import_npy_pairs(
    clean_path: str | os.PathLike,
    adversarial_path: str | os.PathLike,
    labels_path: str | os.PathLike,
    output: str | os.PathLike,
    *,
    provenance: Provenance,
    logits: Logits | None = None,
    batch_size: int = 256,
) -> AdversarialSet:
    """Makes an adversarial set of clean and adversarial images in .npy files.

    The files are streamed. What they do not tell is stored as such: target -1,
    epsilon NaN, no gradient evaluations.

    Args:
        clean_path: float `[N, H, W, C]` or `[N, H, W]` in [-1, 1].
        adversarial_path: the same for the adversarial images, in their order.
        labels_path: integers `[N]`.
        output: the set's name, without a suffix.
        provenance: what is known of the set's making.
        logits: the classifier that was attacked, from float32 images in
            [0, 1] to logits `[B, K]`; `success` is whether its argmax is not
            the label. Without it nothing can be said, and `success` is false.
        batch_size: rows to hold in memory.

    Returns:
        the set, opened.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: naming the file, what was expected and what it has.
    """
    clean = _open_images(pathlib.Path(clean_path))
    adversarial = _open_images(pathlib.Path(adversarial_path))
    labels = _open_array(pathlib.Path(labels_path))
    _check_match(adversarial_path, adversarial, clean)
    if labels.dtype.kind not in "iu" or labels.shape != clean.shape[:1]:
        raise ValueError(
            f"{labels_path} must be integers [{len(clean)}], "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    height, width, channels = clean.shape[1:]
    writer = AdversarialSetWriter(
        output,
        provenance,
        count=len(clean),
        image_shape=(height, width, channels),
    )
    for shard in writer.missing():
        with writer.shard(shard) as sink:
            for start, stop in blocks(shard.start, shard.stop, batch_size):
                index = np.arange(start, stop)
                images = _to_unit(clean[start:stop], clean_path)
                moved = _to_unit(adversarial[start:stop], adversarial_path)
                truth = labels[start:stop].astype(np.int64)
                sink.append(
                    images=images,
                    adversarial=moved,
                    labels=truth,
                    index=index,
                    target=np.full_like(index, -1),
                    epsilon=np.full(len(index), np.nan, np.float32),
                    success=_fooled(logits, moved, truth),
                    gradient_evaluations=np.zeros_like(index),
                    **_distances(images, moved),
                )
    return AdversarialSet.open(output)


def _open_array(path: pathlib.Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} must be a whole .npy file of numbers, "
            f"but it cannot be read: {error}"
        ) from error


def _open_images(path: pathlib.Path) -> np.ndarray:
    images = _open_array(path)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype.kind != "f" or images.ndim != 4 or not len(images):
        raise ValueError(
            f"{path} must be floats [N, height, width, channels] in [-1, 1], "
            f"got {images.dtype} {list(images.shape)}"
        )
    return images


def _check_match(
    path: str | os.PathLike, adversarial: np.ndarray, clean: np.ndarray
) -> None:
    if adversarial.shape != clean.shape:
        raise ValueError(
            f"{path} must have the shape of the clean images, "
            f"{list(clean.shape)}, got {list(adversarial.shape)}"
        )


def _to_unit(pixels: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    low, high = pixels.min(), pixels.max()
    # A NaN fails both comparisons.
    if not (low >= -1 - _TOLERANCE and high <= 1 + _TOLERANCE):
        raise ValueError(
            f"{path} must be finite and in [-1, 1], "
            f"got values from {low:.6g} to {high:.6g}"
        )
    return np.clip((pixels + 1) / 2, 0, 1).astype(np.float32)


def _fooled(
    logits: Logits | None, images: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    if logits is None:
        return np.zeros(len(images), np.bool_)
    return np.argmax(np.asarray(logits(tf.constant(images))), -1) != labels


def _distances(
    images: np.ndarray, adversarial: np.ndarray
) -> dict[str, np.ndarray]:
    difference = (adversarial - images).reshape(len(images), -1)
    distances = {
        "l0": np.count_nonzero(difference, axis=1),
        "l2": np.linalg.norm(difference, axis=1),
        "linf": np.abs(difference).max(axis=1),
    }
    return {name: value.astype(np.float32) for name, value in distances.items()}
