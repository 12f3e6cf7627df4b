"""Purifies images from files, a batch at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import data
import models
from ape_gan_tf.progress import Progress
from data.files import write_text, written_whole
from data.image_folder import refuse_deep_pixels

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png")
_MODES = {1: "L", 3: "RGB"}  # Pillow's name of so many channels.


@dataclasses.dataclass(frozen=True)
class Images:
    """Images on disk.

    Attributes:
        count: How many.
        batches: From a batch size to float32 `[b, H, W, C]` in [0, 1].
        names: One a image where they are files, else empty.
    """

    count: int
    batches: Callable[[int], Iterator[np.ndarray]]
    names: tuple[str, ...] = ()


def open_images(path: Path, image_shape: tuple[int, int, int]) -> Images:
    """Finds out what is at `path`.

    Args:
        path: An HDF5 set, an .npy file, an image file or a folder of them.
        image_shape: What the images must have.

    Returns:
        The images, not read yet.

    Raises:
        FileNotFoundError: There is nothing, or a folder without images.
        ValueError: It is of a kind that cannot be read, or does not fit.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _open_npy(path, image_shape)
    if suffix in IMAGE_SUFFIXES:
        return _open_files([path], image_shape)
    if path.is_dir():
        files = sorted(
            file
            for file in path.iterdir()
            if file.suffix.lower() in IMAGE_SUFFIXES
        )
        if files:
            return _open_files(files, image_shape)
        if not any(path.glob("*.h5")):
            raise FileNotFoundError(
                f"input {path} has neither images "
                f"({', '.join(IMAGE_SUFFIXES)}) nor the .h5 files of a set"
            )
    return _open_set(path, image_shape)


def purify_to_npy(
    purifier: models.Purifier, images: Images, output: Path, batch_size: int
) -> None:
    """Writes the purified images as float32, in constant memory.

    Args:
        purifier: What to run.
        images: From `open_images`.
        output: An .npy file, written whole or not at all.
        batch_size: Images at a time.

    Raises:
        ValueError: An image does not fit.
    """

    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)),
        "fortran_order": False,
        "shape": (images.count, *purifier.image_shape),
    }
    with written_whole(output) as temporary:
        with (
            temporary.open("wb") as file,
            Progress("purifying", images.count, "images") as progress,
        ):
            np.lib.format.write_array_header_1_0(file, header)
            for batch in images.batches(batch_size):
                file.write(purifier.predict(batch, batch_size).tobytes())
                progress.update(len(batch))
        # Before the images appear, which nobody should find without names.
        if images.names:
            names = "".join(f"{name}\n" for name in images.names)
            write_text(names_file(output), names)


def names_file(output: Path) -> Path:
    """Where the names of purified image files go: beside the .npy file."""
    return output.with_suffix(".txt")


def _open_npy(path: Path, image_shape: tuple[int, int, int]) -> Images:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"input {path} is no .npy file: {error}") from error
    if array.ndim != 4 or array.dtype != np.float32:
        raise ValueError(
            f"input {path} must hold float32 [N, H, W, C] in [0, 1], got "
            f"{array.dtype} {list(array.shape)}"
        )
    _check_shape(path, array.shape[1:], image_shape)

    def batches(size: int) -> Iterator[np.ndarray]:
        for start in range(0, len(array), size):
            yield np.array(array[start : start + size])

    return Images(len(array), batches)


def _open_set(path: Path, image_shape: tuple[int, int, int]) -> Images:
    adversarial_set = data.AdversarialSet.open(path)
    _check_shape(path, adversarial_set.image_shape, image_shape)

    def batches(size: int) -> Iterator[np.ndarray]:
        for batch in adversarial_set.batches(size):
            yield batch["adversarial"].numpy()

    return Images(adversarial_set.count, batches)


def _open_files(files: list[Path], image_shape: tuple[int, int, int]) -> Images:
    def batches(size: int) -> Iterator[np.ndarray]:
        for start in range(0, len(files), size):
            chosen = files[start : start + size]
            yield np.stack([_read_image(file, image_shape) for file in chosen])

    return Images(len(files), batches, tuple(file.name for file in files))


def _read_image(path: Path, image_shape: tuple[int, int, int]) -> np.ndarray:
    channels = image_shape[-1]
    if channels not in _MODES:
        raise ValueError(
            f"image files have 1 or 3 channels, the purifier takes {channels}"
        )
    try:
        with Image.open(path) as image:
            refuse_deep_pixels(image)
            pixels = np.asarray(image.convert(_MODES[channels]))
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not an image: {error}") from error
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    _check_shape(path, pixels.shape, image_shape)
    return pixels.astype(np.float32) / 255.0


def _check_shape(
    path: Path, shape: tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    if tuple(shape) != tuple(expected):
        raise ValueError(
            f"{path} has images of {tuple(shape)} (height, width, channels), "
            f"the purifier takes {tuple(expected)}"
        )
