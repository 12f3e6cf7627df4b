"""Writing adversarial sets: shard by shard, each one whole or not there."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import h5py

from data import adversarial_format as layout
from data.adversarial_format import ImageShape, Shard
from data.checks import check_positive_integer
from data.provenance import Provenance

_SHARD_BYTES = 64 * 2**20
_MOST_ROWS = 10_000


class AdversarialSetWriter:
    """Writes an adversarial set, or what is missing of it.

    Example:
        writer = AdversarialSetWriter(path, provenance, count=..., ...)
        for shard in writer.missing():
            with writer.shard(shard) as sink:
                for start in range(shard.start, shard.stop, batch_size):
                    sink.append(images=..., adversarial=..., ...)
    """

    def __init__(
        self,
        path: str | os.PathLike,
        provenance: Provenance,
        *,
        count: int,
        image_shape: ImageShape,
        shard_size: int | None = None,
    ):
        """Looks at what is there already, and changes nothing yet.

        Args:
            path: the set's name, without a suffix: one shard makes `path`.h5,
                several make a folder.
            provenance: how the set is made.
            count: number of images of the whole set.
            image_shape: (height, width, channels).
            shard_size: images in a shard; default is what makes 64 MiB, at
                most 10,000.

        Raises:
            ValueError: if a finished shard is not one of this set, naming the
                file, what was expected and what it has. The file is left as
                it is.
        """
        self.path = pathlib.Path(path)
        self.provenance = provenance
        self.count = check_positive_integer(count, "count")
        self.image_shape = _check_shape(image_shape)
        if shard_size is None:
            shard_size = default_shard_size(self.image_shape)
        check_positive_integer(shard_size, "shard_size")
        self._shards = [
            Shard(number, start, stop)
            for number, (start, stop) in enumerate(
                layout.blocks(0, count, shard_size)
            )
        ]
        self._refuse_strangers()
        for shard in self._shards:
            if self._file(shard).exists():
                self._verify(shard)

    def missing(self) -> list[Shard]:
        """Returns the shards that are still to be written, in order."""
        return [s for s in self._shards if not self._file(s).exists()]

    @property
    def complete(self) -> bool:
        """Whether every shard is there."""
        return not self.missing()

    @contextlib.contextmanager
    def shard(self, shard: Shard) -> Iterator[ShardSink]:
        """Opens a shard for appending; it appears when the block ends well.

        Args:
            shard: one of `missing()`.

        Raises:
            OSError: if there is no space for the shard.
            ValueError: if the rows are not exactly those of the shard.
        """
        final = self._file(shard)
        partial = final.with_name(final.name + layout.PARTIAL)
        _make_folder(final.parent)
        size = layout.most_bytes(shard, self.image_shape)
        try:
            # Reserved twice, since creating the file gives the space back.
            _reserve(partial, size)
            with h5py.File(partial, "w") as file:
                layout.write_attributes(file, self.provenance, self.count)
                layout.create_fields(file, self.image_shape)
            _reserve(partial, size)
            with h5py.File(partial, "r+") as file:
                sink = ShardSink(file, shard, self.image_shape)
                yield sink
                sink.check_whole()
            _sync_file(partial)
            os.replace(partial, final)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        layout.sync_folder(final.parent)

    def _file(self, shard: Shard) -> pathlib.Path:
        return layout.shard_file(self.path, shard.number, len(self._shards))

    def _refuse_strangers(self) -> None:
        """A set in another number of files would be two sets of one name."""
        own = {self._file(shard) for shard in self._shards}
        found = {layout.single_file(self.path), *self.path.glob("*.h5")}
        for file in sorted(found - own):
            if file.exists():
                raise ValueError(
                    f"{file} must be part of an adversarial set of "
                    f"{self.count} images in {len(own)} file(s), "
                    f"but that would have no file of this name"
                )

    def _verify(self, shard: Shard) -> None:
        file = self._file(shard)
        found, _ = layout.read_identity(file)
        layout.check_identity(
            file,
            found,
            layout.identity(self.provenance, self.count, self.image_shape),
        )
        layout.check_layout(file, self.image_shape)
        layout.check_index(file, shard.start, shard.stop)


class ShardSink:
    """Appends rows to one shard, batch by batch."""

    def __init__(self, file: h5py.File, shard: Shard, image_shape: ImageShape):
        self._file = file
        self._shard = shard
        self._image_shape = image_shape
        self._next = shard.start

    def append(self, **fields: Any) -> None:
        """Appends a batch of rows.

        Args:
            **fields: arrays or tensors `[b, ...]`, one for each field:
                `images` and `adversarial` (float32 NHWC in [0, 1]), `labels`,
                `index`, `target`, `gradient_evaluations` (int64), `epsilon`
                (float32, NaN where it does not apply), `success` (bool),
                `l0`, `l2`, `linf` (float32).

        Raises:
            ValueError: naming the field, what was expected and what came.
        """
        rows = layout.check_rows(fields, self._image_shape)
        count = len(rows["index"])
        self._check_positions(rows["index"].tolist())
        first = self._next - self._shard.start
        for name, values in rows.items():
            dataset = self._file[name]
            dataset.resize(first + count, axis=0)
            dataset[first:] = values
        self._next += count

    def check_whole(self) -> None:
        """Raises ValueError if rows are missing."""
        if self._next != self._shard.stop:
            raise ValueError(
                f"shard {self._shard.number} must have "
                f"{self._shard.stop - self._shard.start} rows, "
                f"got {self._next - self._shard.start}"
            )

    def _check_positions(self, index: list[int]) -> None:
        stop = self._next + len(index)
        if index != list(range(self._next, stop)) or stop > self._shard.stop:
            raise ValueError(
                f"index must go on with {self._next} and end before "
                f"{self._shard.stop}, got {index[:3]} ... {index[-1:]}"
            )


def default_shard_size(
    image_shape: ImageShape, at_most: int = _MOST_ROWS
) -> int:
    """Returns how many images make 64 MiB, at least one and `at_most`."""
    fitting = _SHARD_BYTES // layout.bytes_per_row(image_shape)
    return max(1, min(at_most, fitting))


def _check_shape(image_shape: ImageShape) -> ImageShape:
    if len(image_shape) != 3:
        raise ValueError(
            f"image_shape must be (height, width, channels), got {image_shape}"
        )
    height, width, channels = (
        check_positive_integer(side, "image_shape") for side in image_shape
    )
    return height, width, channels


def _make_folder(folder: pathlib.Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        layout.sync_folder(folder.parent)


def _reserve(path: pathlib.Path, size: int) -> None:
    """Takes the disk space that a shard needs, or says that it is not there.

    HDF5 brings the process down when it closes a file that it could not write.
    What is not used of the space goes back when it closes the file.
    """
    if not hasattr(os, "posix_fallocate"):  # Not on every system.
        return
    with path.open("ab") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def _sync_file(path: pathlib.Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
