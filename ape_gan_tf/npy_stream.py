"""Images of an .npy stream: a file, a pipe or a member of an .npz file."""

from __future__ import annotations

import dataclasses
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np

from data.checks import check_images

# What reading raises besides; a member of an .npz file is inflated as it is
# read.
_READ_ERRORS = (OSError, EOFError, zipfile.BadZipFile, zlib.error)
# What NumPy raises for a header that is not one, evaluated as it is.
_HEADER_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    tokenize.TokenError,
)
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclasses.dataclass(frozen=True)
class NpyStream:
    """Images in NumPy's .npy format, versions 1.0 and 2.0, read once.

    The format is that of numpy.lib.format. What is pickled is never loaded.

    Attributes:
        file: Where they come from, read up to the first image.
        name: For messages.
        count: How many there are.
        image_shape: Height, width and channels.
        dtype: float32, of either byte order.
    """

    file: IO[bytes]
    name: str
    count: int
    image_shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def open(cls, file: IO[bytes], name: str) -> NpyStream:
        """Reads the header.

        Args:
            file: Only read from, never searched.
            name: For messages.

        Raises:
            ValueError: It is not float32 `[N, H, W, C]` in C order.
        """
        shape, is_fortran, dtype = _read_header(file, name)
        # Big-endian float32 is the same numbers, so it is read too.
        is_float32 = dtype.kind == "f" and dtype.itemsize == 4
        if len(shape) != 4 or min(shape) < 0 or not is_float32:
            raise ValueError(
                f"input {name} must hold float32 [N, H, W, C] in [0, 1], got "
                f"{dtype} {list(shape)}"
            )
        if is_fortran:
            raise ValueError(
                f"input {name} must be in C order, image after image, but it "
                "is in Fortran order: save numpy.ascontiguousarray(images)"
            )
        return cls(file, name, shape[0], shape[1:], dtype)

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Reads the images; only once, since a pipe cannot go back.

        Args:
            batch_size: Images in memory.

        Yields:
            float32 `[b, H, W, C]` in [0, 1].

        Raises:
            ValueError: There are fewer or more than the header says, they
                leave [0, 1], or they cannot be read.
        """
        for start in range(0, self.count, batch_size):
            images = self._read_images(start, batch_size)
            check_images(images, f"input {self.name} from image {start:,} on")
            yield images
        if self._read(1):
            raise ValueError(
                f"input {self.name} must end after {self.count:,} images, as "
                "its header says, but it goes on"
            )

    def _read_images(self, start: int, batch_size: int) -> np.ndarray:
        count = min(batch_size, self.count - start)
        image_bytes = math.prod(self.image_shape) * self.dtype.itemsize
        content = self._read(count * image_bytes)
        if len(content) < count * image_bytes:
            raise ValueError(
                f"input {self.name} must hold {self.count:,} images, as its "
                f"header says, but it ends after "
                f"{start + len(content) // image_bytes:,}"
            )
        images = np.frombuffer(content, self.dtype)
        return images.astype(np.float32).reshape(count, *self.image_shape)

    def _read(self, size: int) -> bytes:
        try:
            return self.file.read(size)
        except _READ_ERRORS as error:
            raise ValueError(
                f"input {self.name} cannot be read: {error}"
            ) from error


def _read_header(
    file: IO[bytes], name: str
) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADER_READERS:
            raise ValueError(f"format version {version}, expected 1.0 or 2.0")
        return _HEADER_READERS[version](file)
    except (*_READ_ERRORS, *_HEADER_ERRORS) as error:
        raise ValueError(
            f"input {name} is no .npy file: {error or type(error).__name__}"
        ) from error
