"""Image files in class folders, the ImageNet layout, decoded as they are used.

    IMAGE_DIR/train/<class>/*.JPEG
    IMAGE_DIR/val/<class>/*.JPEG

A class's label is the rank of its folder's name among all of them, empty ones
counted. Test is `val`; validation is a random tenth of `train`, always the same
one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image

from data.checks import check_positive_integer
from data.data_dir import VARIABLE, find_data_dir
from data.dataset import Dataset
from data.randomness import permutation
from data.splits import Split, check_validation_count

PILLOW_MODES = {1: "L", 3: "RGB"}  # Of so many channels.
_SUFFIXES = (".jpeg", ".jpg", ".png")
# Pillow cuts the high values of these off when it makes RGB of them.
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


@dataclasses.dataclass(frozen=True)
class FileSplit:
    """Images that are read when they are wanted.

    Attributes:
        paths: string `[N]`.
        labels: int64 `[N]`.
        image_size: side of the square that an image is cropped to.
        image_channels: 1, grey, or 3, red, green and blue.
    """

    paths: tf.Tensor
    labels: tf.Tensor
    image_size: int
    image_channels: int

    @classmethod
    def from_files(
        cls,
        files: list[tuple[str, int]],
        image_size: int,
        image_channels: int,
    ) -> FileSplit:
        """Takes (path, label) pairs."""
        with tf.device("CPU:0"):
            return cls(
                tf.constant([path for path, _ in files], tf.string),
                tf.constant([label for _, label in files], tf.int64),
                image_size,
                image_channels,
            )

    @property
    def count(self) -> int:
        return len(self.labels)

    def load(
        self, positions: tf.data.Dataset, batch_size: int
    ) -> tf.data.Dataset:
        shape = (self.image_size, self.image_size, self.image_channels)

        def decode(path: bytes) -> np.ndarray:
            return read_image(
                path.decode(), self.image_size, self.image_channels
            )

        def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
            pixels = tf.numpy_function(decode, [self.paths[index]], tf.uint8)
            return {
                "images": tf.ensure_shape(pixels, shape),
                "labels": self.labels[index],
                "index": index,
            }

        def scale(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {
                **batch,
                "images": tf.cast(batch["images"], tf.float32) / 255.0,
            }

        # Where the vectors have a fixed length, so do the batches.
        is_full = positions.element_spec.shape[0] is not None
        images = positions.unbatch().map(
            read, num_parallel_calls=tf.data.AUTOTUNE
        )
        batches = images.batch(batch_size, drop_remainder=is_full)
        return batches.map(scale, num_parallel_calls=tf.data.AUTOTUNE)


def read_image(
    path: str, image_size: int, image_channels: int = 3
) -> np.ndarray:
    """Reads an image, short side scaled to `image_size`, the centre cut out.

    Args:
        path: a JPEG or PNG file, grey, RGB, CMYK or with a palette.
        image_size: side of the result.
        image_channels: 1, to which colours become luminance, or 3.

    Returns:
        uint8 `[image_size, image_size, image_channels]`.

    Raises:
        ValueError: naming the file, if it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            refuse_deep_pixels(image)
            pixels = image.convert(PILLOW_MODES[image_channels])
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{path} must be a JPEG or PNG image, "
            f"but it cannot be decoded: {error}"
        ) from error
    square = np.asarray(_square(pixels, image_size))
    return square.reshape(image_size, image_size, image_channels)


def refuse_deep_pixels(image: Image.Image) -> None:
    """Raises ValueError for more than 8 bits: Pillow would clip them."""
    if image.mode in _DEEP_MODES:
        raise ValueError(f"more than 8 bits a pixel ({image.mode})")


def load_image_folder(
    data_dir: str | os.PathLike | None = None,
    image_dir: str | os.PathLike | None = None,
    image_size: int = 256,
    image_channels: int = 3,
    validation_count: int | None = None,
) -> Dataset:
    """Lists the images of a folder in the ImageNet layout.

    Args:
        data_dir: see `image_dir`.
        image_dir: folder of `train/` and `val/`; default `imagenet` in
            `data_dir`, or in the environment's APE_GAN_TF_DATA.
        image_size: side of the square images.
        image_channels: 1 for grey images, 3 for coloured ones, whatever the
            files are.
        validation_count: how many of the training images to hold out; default
            a tenth.

    Returns:
        The dataset. Its name is `image_folder-` and a digest of the files'
        names, so that results of two folders are not taken for one another.

    Raises:
        FileNotFoundError: if a folder is not there or holds no images.
        ValueError: if train and val differ in their classes, or
            `validation_count` leaves nothing to train on, or the channels are
            neither 1 nor 3.
    """
    check_positive_integer(image_size, "image_size")
    if image_channels not in PILLOW_MODES:
        raise ValueError(f"image_channels must be 1 or 3, got {image_channels}")
    shape = (image_size, image_size, image_channels)
    folder = _find_image_dir(data_dir, image_dir)
    class_names = _matching_classes(folder)
    train = _list_images(folder / "train", class_names)
    test = _list_images(folder / "val", class_names)
    held_out = check_validation_count(
        validation_count, len(train) // 10, len(train)
    )
    parts = {**_hold_out(train, held_out), "test": test}
    splits: dict[str, Split] = {
        name: FileSplit.from_files(files, image_size, image_channels)
        for name, files in parts.items()
    }
    return Dataset(
        name=f"image_folder-{_digest(parts, folder, shape)}",
        image_shape=shape,
        class_names=class_names,
        splits=splits,
    )


def _digest(
    parts: dict[str, list[tuple[str, int]]],
    folder: pathlib.Path,
    image_shape: tuple[int, int, int],
) -> str:
    """Tells one folder's dataset from another's, in results and stored sets.

    It depends on the files' names and splits, not on where the folder is.
    """
    size, _, channels = image_shape
    # Colour came first, and its results are kept under names without it.
    described = str(size) if channels == 3 else f"{size} {channels}"
    digest = hashlib.sha256(described.encode())
    for part, files in sorted(parts.items()):
        for path, label in files:
            name = os.path.relpath(path, folder)
            digest.update(f"\n{part} {name} {label}".encode())
    return digest.hexdigest()[:8]


def _square(image: Image.Image, side: int) -> Image.Image:
    scale = side / min(image.size)
    width, height = (max(side, round(scale * length)) for length in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _find_image_dir(
    data_dir: str | os.PathLike | None, image_dir: str | os.PathLike | None
) -> pathlib.Path:
    folder = find_data_dir(data_dir)
    if image_dir:
        return pathlib.Path(image_dir).expanduser()
    if folder:
        return folder / "imagenet"
    raise FileNotFoundError(
        f"image_folder needs image_dir, the folder of train/ and val/, or "
        f"data_dir or the environment's {VARIABLE}, a folder that holds it "
        f"as imagenet/"
    )


def _matching_classes(folder: pathlib.Path) -> tuple[str, ...]:
    train, val = (_class_folders(folder / part) for part in ("train", "val"))
    if train != val:
        differing = sorted(set(train) ^ set(val))
        raise ValueError(
            f"{folder / 'train'} and {folder / 'val'} must have the same class "
            f"folders, but only one of them has {', '.join(differing[:5])}"
            f"{' ...' if len(differing) > 5 else ''}"
        )
    return train


def _class_folders(folder: pathlib.Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"image_folder was looked for in {folder}, which is not there"
        )
    names = [
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    ]
    return tuple(sorted(names))


def _list_images(
    folder: pathlib.Path, class_names: tuple[str, ...]
) -> list[tuple[str, int]]:
    files = [
        (str(path), label)
        for label, name in enumerate(class_names)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in _SUFFIXES
    ]
    if not files:
        raise FileNotFoundError(
            f"{folder} must hold images, <class>/*{' or *'.join(_SUFFIXES)}, "
            f"but there are none"
        )
    return files


def _hold_out(
    files: list[tuple[str, int]], count: int
) -> dict[str, list[tuple[str, int]]]:
    # The files are listed class by class: the last ones would be one class.
    held_out = set(permutation(0, "held out", 0, len(files))[:count].tolist())
    return {
        "train": [f for n, f in enumerate(files) if n not in held_out],
        "validation": [f for n, f in enumerate(files) if n in held_out],
    }
