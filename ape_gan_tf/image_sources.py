"""Where `purify` finds images: pictures, arrays, sets and a pipe."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

import data
from ape_gan_tf.npy_stream import NpyStream
from data.image_folder import PILLOW_MODES, read_image, refuse_deep_pixels

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png")
STDIN = "-"
# Of zipfile: damaged (OSError: a place before the file's start), encrypted,
# or of a version or method that Python lacks.
_ARCHIVE_ERRORS = (zipfile.BadZipFile, OSError, RuntimeError)

ImageShape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Images:
    """Images that are not read yet.

    Attributes:
        count: How many.
        batches: From a batch size to float32 `[b, H, W, C]` in [0, 1], in
            constant memory; to be called once, since a pipe cannot go back.
        names: One an image where they are files, else empty.
        left_out: Names of what else is in their folder.
    """

    count: int
    batches: Callable[[int], Iterator[np.ndarray]]
    names: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@contextlib.contextmanager
def open_images(
    source: str | Path,
    image_shape: ImageShape,
    *,
    array: str | None = None,
    resize: bool = False,
) -> Iterator[Images]:
    """Finds out what `source` is, and keeps it open meanwhile.

    Args:
        source: An HDF5 set, an .npy or .npz file, an image file or a folder
            of them, or `-`, an .npy stream on standard input.
        image_shape: What the images must have.
        array: Which of an .npz file that has several.
        resize: Make image files fit, as training on `image_folder` does:
            the short side scaled, the centre cut out.

    Yields:
        The images, not read yet.

    Raises:
        FileNotFoundError: There is nothing, or a folder without images.
        ValueError: It is of a kind that cannot be read, or does not fit.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz", *IMAGE_SUFFIXES) and not path.exists():
        raise _neither(path)
    with contextlib.ExitStack() as stack:
        if str(source) == STDIN:
            yield _of_stream(sys.stdin.buffer, "stdin", image_shape)
        elif suffix == ".npy":
            file = stack.enter_context(path.open("rb"))
            yield _of_stream(file, str(path), image_shape)
        elif suffix == ".npz":
            packed = stack.enter_context(path.open("rb"))
            archive = stack.enter_context(_open_archive(path, packed))
            name = _array_name(path, archive, array)
            member = stack.enter_context(_open_member(path, archive, name))
            yield _of_stream(member, f"{path} ({name})", image_shape)
        elif suffix in IMAGE_SUFFIXES:
            yield _of_files([path], (), image_shape, resize)
        elif path.is_dir() and not any(path.glob("*.h5")):
            yield _of_files(*_image_files(path), image_shape, resize)
        elif path.is_dir() or _is_set(path):
            yield _of_set(path, image_shape)
        else:
            raise _neither(path)


def _is_set(path: Path) -> bool:
    """A set can be named without its suffix."""
    return path.suffix == ".h5" or path.with_name(f"{path.name}.h5").exists()


def _neither(path: Path) -> FileNotFoundError | ValueError:
    """The error for what is of none of the kinds."""
    error = ValueError if path.exists() else FileNotFoundError
    nothing = "" if path.exists() else ", where there is nothing"
    return error(
        "input must be a folder of images, an image "
        f"({', '.join(IMAGE_SUFFIXES)}), an .npy or .npz file, an adversarial "
        f"set (.h5) or {STDIN}, got {path}{nothing}"
    )


def _of_stream(file: IO[bytes], name: str, image_shape: ImageShape) -> Images:
    stream = NpyStream.open(file, name)
    _check_shape(f"input {name}", stream.image_shape, image_shape)
    return Images(stream.count, stream.batches)


def _open_archive(path: Path, file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except _ARCHIVE_ERRORS as error:
        raise ValueError(f"input {path} is no .npz file: {error}") from error


def _array_name(
    path: Path, archive: zipfile.ZipFile, wanted: str | None
) -> str:
    """The one array there is, or the one that is wanted."""
    names = [
        name.removesuffix(".npy")
        for name in archive.namelist()
        if name.endswith(".npy")
    ]
    if wanted in names:
        return wanted
    if wanted is None and len(names) == 1:
        return names[0]
    listed = ", ".join(names) or "none"
    if wanted is None and names:
        raise ValueError(
            f"input {path} has several arrays, name one with --array: {listed}"
        )
    raise ValueError(
        f"input {path} must have the array {wanted or 'of images'}, it has "
        f"{listed}"
    )


def _open_member(path: Path, archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    try:
        return archive.open(f"{name}.npy")
    except _ARCHIVE_ERRORS as error:
        raise ValueError(
            f"input {path} ({name}) cannot be read: {error}"
        ) from error


def _of_set(path: Path, image_shape: ImageShape) -> Images:
    adversarial_set = data.AdversarialSet.open(path)
    _check_shape(f"input {path}", adversarial_set.image_shape, image_shape)

    def batches(size: int) -> Iterator[np.ndarray]:
        for batch in adversarial_set.batches(size):
            yield batch["adversarial"].numpy()

    return Images(adversarial_set.count, batches)


def _image_files(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Images, and the names of what is none, both in the order of names.

    Raises:
        FileNotFoundError: There is no image.
    """
    files, others = [], []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir():
            files.append(path)
        else:
            others.append(path.name)
    if not files:
        raise FileNotFoundError(
            f"input {folder} has neither images ({', '.join(IMAGE_SUFFIXES)}) "
            "nor the .h5 files of a set; folders inside it are not searched"
        )
    return files, tuple(others)


def _of_files(
    files: list[Path],
    left_out: tuple[str, ...],
    image_shape: ImageShape,
    resize: bool,
) -> Images:
    height, width, channels = image_shape
    if channels not in PILLOW_MODES:
        raise ValueError(
            f"image files have 1 or 3 channels, the purifier takes {channels}"
        )
    if resize and height != width:
        raise ValueError(
            "resize makes square images, as training on image_folder does, "
            f"but the purifier takes {image_shape} (height, width, channels)"
        )
    read = _read_resized if resize else _read_as_it_is

    def batches(size: int) -> Iterator[np.ndarray]:
        for start in range(0, len(files), size):
            chosen = files[start : start + size]
            pixels = np.stack([read(file, image_shape) for file in chosen])
            yield pixels.astype(np.float32) / 255.0

    names = tuple(file.name for file in files)
    return Images(len(files), batches, names, left_out)


def _read_resized(path: Path, image_shape: ImageShape) -> np.ndarray:
    with _too_many_pixels_named(path):
        return read_image(str(path), image_shape[0], image_shape[2])


def _read_as_it_is(path: Path, image_shape: ImageShape) -> np.ndarray:
    channels = image_shape[-1]
    try:
        with _too_many_pixels_named(path), Image.open(path) as image:
            refuse_deep_pixels(image)
            pixels = np.asarray(image.convert(PILLOW_MODES[channels]))
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not an image: {error}") from error
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    if pixels.shape != image_shape:
        raise ValueError(
            f"{path} is {pixels.shape} (height, width, channels), the purifier "
            f"takes {image_shape}: resize it, or pass --resize"
        )
    return pixels


@contextlib.contextmanager
def _too_many_pixels_named(path: Path) -> Iterator[None]:
    """Pillow's error for a decompression bomb names no file."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large: {error}") from error


def _check_shape(
    where: str, shape: tuple[int, ...], expected: ImageShape
) -> None:
    if tuple(shape) != tuple(expected):
        raise ValueError(
            f"{where} has images of {tuple(shape)} (height, width, channels), "
            f"the purifier takes {tuple(expected)}"
        )
