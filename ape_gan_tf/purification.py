"""Writes purified images, a batch at a time: arrays and PNG files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

import models
from ape_gan_tf.image_sources import Images
from ape_gan_tf.progress import Progress
from data.files import remove, write_text, written_whole
from data.image_folder import PILLOW_MODES


def write_npy(
    purifier: models.Purifier, images: Images, file: BinaryIO, batch_size: int
) -> None:
    """Writes the purified images as an .npy stream, in constant memory.

    Args:
        purifier: What to run.
        images: From `open_images`.
        file: Gets float32 `[N, H, W, C]`, flushed after each batch so that
            a reader at the other end of a pipe need not wait.
        batch_size: Images at a time.

    Raises:
        ValueError: An image does not fit.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)),
        "fortran_order": False,
        "shape": (images.count, *purifier.image_shape),
    }

    def write(batch: np.ndarray) -> None:
        file.write(batch.tobytes())
        file.flush()

    np.lib.format.write_array_header_1_0(file, header)
    _purify(purifier, images, batch_size, write)


def save_npy(
    purifier: models.Purifier, images: Images, output: Path, batch_size: int
) -> None:
    """Writes them to an .npy file, whole or not at all.

    Args:
        purifier: What to run.
        images: From `open_images`.
        output: The .npy file; the names of image files go beside it, see
            `names_file`. Both are replaced if they are there.
        batch_size: Images at a time.

    Raises:
        ValueError: An image does not fit.
    """
    with written_whole(output) as temporary:
        with temporary.open("wb") as file:
            write_npy(purifier, images, file, batch_size)
        # Before the images appear, which nobody should find without names,
        # nor with those of others.
        if images.names:
            names = "".join(f"{name}\n" for name in images.names)
            write_text(names_file(output), names)
        else:
            remove(names_file(output))


def save_eight_bit(
    purifier: models.Purifier, images: Images, folder: Path, batch_size: int
) -> None:
    """Writes a folder of 8-bit PNG files, whole or not at all.

    Values are rounded to the nearest of the 256 levels, so each changes by up
    to 1/510: never measure an error rate on them.

    Args:
        purifier: What to run; its images have 1 or 3 channels.
        images: From `open_images`. Files keep their names but for `.png`,
            others are 000000.png and so on.
        folder: Replaced with all that is in it, if it is there.
        batch_size: Images at a time.

    Raises:
        ValueError: An image does not fit, the channels do not, or two files
            would have one name.
    """
    channels = purifier.image_shape[-1]
    if channels not in PILLOW_MODES:
        raise ValueError(
            f"PNG files have 1 or 3 channels, the purifier has {channels}"
        )
    name = _png_namer(images)
    with written_whole(folder) as temporary:
        temporary.mkdir()
        written = 0

        def write(batch: np.ndarray) -> None:
            nonlocal written
            for pixels in to_eight_bit(batch):
                # "x": where a.png and A.png are one file, it is an error.
                with (temporary / name(written)).open("xb") as file:
                    _to_picture(pixels).save(file, "PNG")
                written += 1

        _purify(purifier, images, batch_size, write)


def names_file(output: Path) -> Path:
    """Where the names of purified image files go: beside the .npy file."""
    return output.with_name(f"{output.name}.txt")


def to_eight_bit(images: np.ndarray) -> np.ndarray:
    """The nearest of 256 levels: uint8 of float32 in [0, 1]."""
    # A purifier's own rounding may step over an end of the range.
    return np.rint(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)


def _purify(
    purifier: models.Purifier,
    images: Images,
    batch_size: int,
    write: Callable[[np.ndarray], None],
) -> None:
    with Progress("purifying", images.count, "images") as progress:
        for batch in images.batches(batch_size):
            write(purifier.predict(batch, batch_size))
            progress.update(len(batch))


def _to_picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _png_namer(images: Images) -> Callable[[int], str]:
    """From an image's position to its file's name.

    Raises:
        ValueError: Two files differ in nothing but the suffix.
    """
    if not images.names:
        return "{:06}.png".format
    taken: dict[str, str] = {}
    for name in images.names:
        png = f"{Path(name).stem}.png"
        if png in taken:
            raise ValueError(
                f"{taken[png]} and {name} would both become {png}: rename one"
            )
        taken[png] = name
    return list(taken).__getitem__
