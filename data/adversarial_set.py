"""Reading adversarial sets: verified, streamed, shards read as one."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from data import adversarial_format as layout
from data.adversarial_format import ImageShape
from data.block_shuffle import shuffled_pools
from data.checks import check_one_of, check_positive_integer
from data.order import check_steps, steps_per_epoch
from data.provenance import Provenance

_TRAINING_FIELDS = ("images", "adversarial", "labels")
_READ_BYTES = 4 * 2**20
_STATISTICS_FIELDS = ("success", "l0", "l2", "linf", "gradient_evaluations")


class AdversarialSet:
    """An adversarial set on disk.

    Attributes:
        path: the file or folder.
        count: number of images.
        image_shape: (height, width, channels).
        provenance: how the set was made.
    """

    def __init__(
        self,
        path: pathlib.Path,
        files: list[pathlib.Path],
        starts: list[int],
        identity: Mapping[str, Any],
        provenance: Provenance,
    ):
        """For `open`, which verifies the files first."""
        self.path = path
        self.count: int = identity["count"]
        self.image_shape: ImageShape = identity["image_shape"]
        self.provenance = provenance
        self._files = files
        self._starts = starts

    @classmethod
    def open(
        cls,
        path: str | os.PathLike,
        *,
        expected: Mapping[str, Any] | None = None,
    ) -> AdversarialSet:
        """Opens a set and verifies all of it but the pixels.

        Pixels are verified when they are read.

        Args:
            path: the file, the folder, or the name without a suffix.
            expected: values that attributes must have, for instance
                `{"dataset": "mnist", "image_shape": (28, 28, 1)}`.

        Raises:
            FileNotFoundError: if there is no such set.
            ValueError: naming the file, what was expected and what it has.
        """
        path, files = _find_files(pathlib.Path(path))
        identity, provenance = layout.read_identity(files[0])
        expected = {} if expected is None else dict(expected)
        for name in expected:
            check_one_of(name, layout.IDENTITY, "expected attribute")
        if "image_shape" in expected:
            expected["image_shape"] = tuple(expected["image_shape"])
        layout.check_identity(files[0], identity, expected)
        starts = _verify_shards(files, identity)
        return cls(path, files, starts, identity, provenance)

    def batches(
        self, batch_size: int, *, start: int = 0, limit: int | None = None
    ) -> tf.data.Dataset:
        """Returns the rows in order.

        Args:
            batch_size: rows in a batch; the last may be smaller.
            start: the first row.
            limit: use only the first so many rows.

        Returns:
            dicts of all fields of `AdversarialSetWriter`'s rows.

        Raises:
            ValueError: if an argument is out of range.
        """
        check_positive_integer(batch_size, "batch_size")
        count = self._limited(limit)
        if not 0 <= start <= count:
            raise ValueError(f"start must be in [0, {count}], got {start}")

        # A read has a cost of its own: small batches share one.
        row_bytes = layout.bytes_per_row(self.image_shape)
        piece = max(batch_size, _READ_BYTES // row_bytes)

        def read(first: int) -> list[np.ndarray]:
            stop = min(int(first) + piece, count)
            rows = self._read(list(layout.FIELDS), int(first), stop)
            return [rows[name] for name in layout.FIELDS]

        firsts = tf.data.Dataset.range(start, count, piece)
        rows = _rows_dataset(firsts, read, layout.FIELDS, self.image_shape)
        return rows.rebatch(batch_size).prefetch(tf.data.AUTOTUNE)

    def training_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        start_step: int = 0,
        total_steps: int,
        limit: int | None = None,
    ) -> tf.data.Dataset:
        """Returns shuffled, full batches for steps start_step .. total_steps.

        Blocks of neighbouring rows come in random order; several at a time are
        pooled and shuffled, so that memory stays constant. The order depends
        on the arguments and the step alone, so a run that resumes at
        `start_step` sees what an undisturbed one would have seen.

        Args:
            batch_size: rows in every batch.
            seed: determines the order.
            start_step: the first step to make.
            total_steps: the step to stop before.
            limit: use only the first so many rows.

        Returns:
            `total_steps - start_step` dicts of `images`, `adversarial`
            (float32 `[B, H, W, C]`) and `labels` (int64 `[B]`).

        Raises:
            ValueError: if an argument is out of range.
        """
        count = self._limited(limit)
        per_epoch = steps_per_epoch(count, batch_size)
        check_steps(start_step, total_steps)
        pools = shuffled_pools(
            count,
            row_bytes=layout.bytes_per_row(self.image_shape),
            seed=seed,
            epoch_rows=per_epoch * batch_size,
            start_row=start_step * batch_size,
            stop_row=total_steps * batch_size,
        )

        def read(number: int) -> list[np.ndarray]:
            return self._read_pool(*pools.locate(int(number)))

        numbers = tf.data.Dataset.range(pools.first, pools.stop)
        rows = _rows_dataset(numbers, read, _TRAINING_FIELDS, self.image_shape)
        # One pool is read while the one before is used.
        batches = rows.prefetch(1).rebatch(batch_size, drop_remainder=True)
        return batches.take(total_steps - start_step).prefetch(tf.data.AUTOTUNE)

    def sizes(self, limit: int | None = None) -> dict[str, np.ndarray]:
        """Returns how large the perturbations are, without reading pixels.

        Args:
            limit: use only the first so many rows.

        Returns:
            `l0`, `l2` and `linf`, float32 `[N]` each.
        """
        names = ["l0", "l2", "linf"]
        return dict(self._read(names, 0, self._limited(limit)))

    def statistics(self) -> dict[str, Any]:
        """Returns what the attack achieved, without reading any pixels.

        Distances are over the images that the attack moved and succeeded on;
        one that was wrong before and was left alone is not among them.

        Returns:
            `count`, `success_rate` in [0, 1], `mean_` and `median_` of `l0`,
            `l2` and `linf` (None without a success), and
            `mean_gradient_evaluations`.
        """
        rows = self._read(list(_STATISTICS_FIELDS), 0, self.count)
        counted = rows["success"] & (rows["linf"] > 0)
        result: dict[str, Any] = {
            "count": self.count,
            "success_rate": float(rows["success"].mean()),
        }
        for name in ("l0", "l2", "linf"):
            values = rows[name][counted].astype(np.float64)
            has_any = len(values) > 0
            result[f"mean_{name}"] = float(values.mean()) if has_any else None
            result[f"median_{name}"] = (
                float(np.median(values)) if has_any else None
            )
        evaluations = rows["gradient_evaluations"]
        result["mean_gradient_evaluations"] = float(evaluations.mean())
        return result

    def _limited(self, limit: int | None) -> int:
        if limit is None:
            return self.count
        return min(self.count, check_positive_integer(limit, "limit"))

    def _read(
        self, names: list[str], start: int, stop: int
    ) -> dict[str, np.ndarray]:
        """Reads rows start .. stop, from as many shards as they are in."""
        parts = []
        ends = [*self._starts[1:], self.count]
        for file, first, end in zip(
            self._files, self._starts, ends, strict=True
        ):
            low, high = max(start, first), min(stop, end)
            if low < high:
                rows = slice(low - first, high - first)
                parts.append(layout.read_rows(file, names, rows))
        if len(parts) == 1:
            return parts[0]
        return {
            name: np.concatenate([part[name] for part in parts])
            for name in names
        }

    def _read_pool(
        self, blocks: list[tuple[int, int]], order: np.ndarray
    ) -> list[np.ndarray]:
        """Reads blocks of rows and returns the rows `order` of them."""
        rows = sum(stop - start for start, stop in blocks)
        # Each row goes straight to its place: a pool is in memory once.
        places = np.full(rows, -1)
        places[order] = np.arange(len(order))
        pool = [
            np.empty(
                (len(order), *layout.field_shape(name, self.image_shape)),
                layout.FIELDS[name],
            )
            for name in _TRAINING_FIELDS
        ]
        first = 0
        for start, stop in blocks:
            block = self._read(list(_TRAINING_FIELDS), start, stop)
            place = places[first : first + stop - start]
            wanted = place >= 0
            for field, name in zip(pool, _TRAINING_FIELDS, strict=True):
                field[place[wanted]] = block[name][wanted]
            first += stop - start
        return pool


def _rows_dataset(
    numbers: tf.data.Dataset,
    read: Callable[[int], list[np.ndarray]],
    names: Collection[str],
    image_shape: ImageShape,
) -> tf.data.Dataset:
    """Turns numbers into dicts of the fields `names` that `read` gives."""
    types = [tf.as_dtype(layout.FIELDS[name]) for name in names]

    @tf.autograph.experimental.do_not_convert
    def load(number: tf.Tensor) -> dict[str, tf.Tensor]:
        fields = tf.numpy_function(read, [number], types)
        return {
            name: tf.ensure_shape(
                field, [None, *layout.field_shape(name, image_shape)]
            )
            for name, field in zip(names, fields, strict=True)
        }

    return numbers.map(load)


def _find_files(
    path: pathlib.Path,
) -> tuple[pathlib.Path, list[pathlib.Path]]:
    if path.name.endswith(layout.PARTIAL):
        raise ValueError(
            f"{path} must be a finished adversarial set, but it is a half "
            f"written file; run craft again to complete it"
        )
    if path.is_file():
        return path, [path]
    single = layout.single_file(path)
    if path.is_dir() and single.is_file():
        raise ValueError(
            f"{path} must be one adversarial set, but there are both "
            f"{single.name} and the folder {path.name}"
        )
    if single.is_file():
        return single, [single]
    if path.is_dir():
        return path, _shard_files(path)
    raise FileNotFoundError(
        f"an adversarial set was looked for in {single} and in the folder "
        f"{path}, which are not there"
    )


def _shard_files(folder: pathlib.Path) -> list[pathlib.Path]:
    files = sorted(folder.glob("*.h5"))
    names = [layout.parse_shard_name(file) for file in files]
    if not files:
        raise FileNotFoundError(
            f"{folder} must hold the shards of an adversarial set, "
            f"but there are none; run craft again to write them"
        )
    totals = sorted({total for _, total in names})
    if len(totals) > 1:
        raise ValueError(
            f"{folder} must hold the shards of one adversarial set, but they "
            f"are of {' and of '.join(map(str, totals))}"
        )
    present = {number for number, _ in names}
    absent = [str(n) for n in range(totals[0]) if n not in present]
    if absent:
        raise ValueError(
            f"{folder} must hold {totals[0]} shards, but {', '.join(absent)} "
            f"are missing; run craft again to complete the set"
        )
    return files


def _verify_shards(
    files: list[pathlib.Path], identity: Mapping[str, Any]
) -> list[int]:
    """Returns the position of each shard's first row."""
    starts, count = [], 0
    for file in files:
        layout.check_identity(file, layout.read_identity(file)[0], identity)
        rows = layout.check_layout(file, identity["image_shape"])
        layout.check_index(file, count, count + rows)
        starts.append(count)
        count += rows
    if count != identity["count"]:
        raise ValueError(
            f"{files[-1]} must end an adversarial set of {identity['count']} "
            f"images, but {len(files)} file(s) have {count}"
        )
    return starts
