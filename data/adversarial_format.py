"""The HDF5 format of adversarial sets: fields, attributes, files.

A set is the file NAME.h5, or a folder NAME/ of shards 00000-of-00012.h5, each
with the positions that follow on the one before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from data.provenance import Provenance

FORMAT_VERSION = 1
PARTIAL = ".partial"
# These describe the set; two shards may be written by different versions.
IDENTITY = (
    "format_version",
    "attack",
    "params",
    "threat_model",
    "bounds",
    "seed",
    "dataset",
    "split",
    "count",
    "image_shape",
    "classifier_fingerprint",
    "purifier_fingerprint",
)
IMAGE_FIELDS = ("images", "adversarial")
_SCALAR_FIELDS: dict[str, np.dtype] = {
    "labels": np.dtype(np.int64),
    "index": np.dtype(np.int64),
    "target": np.dtype(np.int64),
    "epsilon": np.dtype(np.float32),
    "success": np.dtype(np.bool_),
    "l0": np.dtype(np.float32),
    "l2": np.dtype(np.float32),
    "linf": np.dtype(np.float32),
    "gradient_evaluations": np.dtype(np.int64),
}
FIELDS: dict[str, np.dtype] = {
    **{name: np.dtype(np.float32) for name in IMAGE_FIELDS},
    **_SCALAR_FIELDS,
}
_DISTANCES = ("l0", "l2", "linf")
_SCALAR_CHUNK = 1024
_SHARD_NAME = re.compile(r"(\d{5})-of-(\d{5})\.h5")

ImageShape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file's share of a set: the positions start .. stop - 1."""

    number: int
    start: int
    stop: int


def bytes_per_row(image_shape: ImageShape) -> int:
    """Returns the bytes of one clean and one adversarial image."""
    return len(IMAGE_FIELDS) * 4 * int(np.prod(image_shape))


def most_bytes(shard: Shard, image_shape: ImageShape) -> int:
    """Returns what a shard's file is sure to fit in."""
    scalars = sum(dtype.itemsize for dtype in _SCALAR_FIELDS.values())
    rows = shard.stop - shard.start
    # HDF5 keeps some 70 bytes for every chunk.
    row_bytes = bytes_per_row(image_shape) + scalars + 256 * len(IMAGE_FIELDS)
    return 2**20 + rows * row_bytes


def field_shape(name: str, image_shape: ImageShape) -> tuple[int, ...]:
    """Returns the shape of one row of a field."""
    return tuple(image_shape) if name in IMAGE_FIELDS else ()


def single_file(path: pathlib.Path) -> pathlib.Path:
    """Returns the file of a set NAME that one shard holds."""
    return path.with_name(path.name + ".h5")


def shard_file(path: pathlib.Path, number: int, shards: int) -> pathlib.Path:
    """Returns the file of a shard of the set NAME."""
    if shards == 1:
        return single_file(path)
    return path / f"{number:05d}-of-{shards:05d}.h5"


def parse_shard_name(file: pathlib.Path) -> tuple[int, int]:
    """Returns (number, shards) of a shard's file.

    Raises:
        ValueError: if that is not a shard's name.
    """
    match = _SHARD_NAME.fullmatch(file.name)
    if not match:
        raise ValueError(
            f"{file} must have a name like 00000-of-00012.h5 to be a shard "
            f"of an adversarial set"
        )
    return int(match[1]), int(match[2])


def create_fields(file: h5py.File, image_shape: ImageShape) -> None:
    """Creates the empty, growing datasets of a shard."""
    for name, dtype in FIELDS.items():
        shape = field_shape(name, image_shape)
        file.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *shape),
            dtype=dtype,
            chunks=(1, *shape) if shape else (_SCALAR_CHUNK,),
            # The same rows must make the same bytes.
            track_times=False,
        )


def write_attributes(
    file: h5py.File, provenance: Provenance, count: int
) -> None:
    """Writes what a shard says about its set."""
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["count"] = count
    for field in dataclasses.fields(provenance):
        value = getattr(provenance, field.name)
        is_mapping = isinstance(value, Mapping)
        file.attrs[field.name] = (
            json.dumps(value, sort_keys=True) if is_mapping else value
        )


@contextlib.contextmanager
def open_shard(path: pathlib.Path) -> Iterator[h5py.File]:
    """Opens a shard for reading.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: naming the file, if it is not a whole HDF5 file, or what
            is read of it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PermissionError:
        raise
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"{path} must be a whole HDF5 file, but it cannot be read: {error}"
        ) from error


def read_identity(path: pathlib.Path) -> tuple[dict[str, Any], Provenance]:
    """Reads and checks the attributes of a shard.

    Returns:
        the attributes of `IDENTITY`, and all of the provenance.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    with open_shard(path) as file:
        attributes = {name: _plain(value) for name, value in file.attrs.items()}
        image_shape = _image_shape(path, file)
    fields = [field.name for field in dataclasses.fields(Provenance)]
    wanted = ["format_version", "count", *fields]
    absent = [name for name in wanted if name not in attributes]
    if absent:
        raise ValueError(
            f"{path} must be an adversarial set, "
            f"but has no attribute {', '.join(absent)}"
        )
    version = attributes["format_version"]
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version must be {FORMAT_VERSION}, got {version!r}"
        )
    provenance = _parse_provenance(
        path, {name: attributes[name] for name in fields}
    )
    return identity(provenance, attributes["count"], image_shape), provenance


def identity(
    provenance: Provenance, count: int, image_shape: ImageShape
) -> dict[str, Any]:
    """Returns the attributes that all shards of a set have in common."""
    values = {
        **dataclasses.asdict(provenance),
        "format_version": FORMAT_VERSION,
        "count": count,
        "image_shape": tuple(image_shape),
    }
    return {name: values[name] for name in IDENTITY}


def check_identity(
    path: pathlib.Path, found: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """Raises ValueError at the first attribute that is not as expected."""
    for name, value in expected.items():
        if found[name] != value:
            raise ValueError(
                f"{path}: attribute {name} must be {value!r}, "
                f"got {found[name]!r}"
            )


def check_layout(path: pathlib.Path, image_shape: ImageShape) -> int:
    """Checks types and shapes of all datasets of a shard.

    Returns:
        the number of rows.

    Raises:
        ValueError: naming the file and the dataset.
    """
    with open_shard(path) as file:
        rows = len(file["images"])
        for name, dtype in FIELDS.items():
            field = file.get(name)
            shape = (rows, *field_shape(name, image_shape))
            if not isinstance(field, h5py.Dataset):
                raise ValueError(f"{path} must have a dataset {name}")
            if field.dtype != dtype or field.shape != shape:
                raise ValueError(
                    f"{path}: dataset {name} must be {dtype} {list(shape)}, "
                    f"got {field.dtype} {list(field.shape)}"
                )
    return rows


def check_index(path: pathlib.Path, start: int, stop: int) -> None:
    """Raises ValueError unless a shard's index is start .. stop - 1."""
    index = read_rows(path, ["index"], slice(None))["index"]
    if not np.array_equal(index, np.arange(start, stop)):
        found = f"{index[0]} .. {index[-1]}" if len(index) else "nothing"
        raise ValueError(
            f"{path}: index must be every position {start} .. {stop - 1} in "
            f"order, got {len(index)} positions, {found}"
        )


def read_rows(
    path: pathlib.Path, names: list[str], rows: slice
) -> dict[str, np.ndarray]:
    """Reads rows of some fields of a shard.

    Raises:
        ValueError: naming the file, if it cannot be read or its images are
            outside [0, 1].
    """
    with open_shard(path) as file:
        values = {name: file[name][rows] for name in names}
    for name in IMAGE_FIELDS:
        if name in values:
            check_pixels(values[name], f"{path}: {name}")
    return values


def check_pixels(pixels: np.ndarray, what: str) -> None:
    """Raises ValueError unless all values are in [0, 1]; NaN is not."""
    if not pixels.size:
        return
    low, high = pixels.min(), pixels.max()
    # A NaN fails both comparisons.
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"{what} must be finite and in [0, 1], "
            f"got values from {low:.6g} to {high:.6g}"
        )


def check_rows(
    rows: Mapping[str, Any], image_shape: ImageShape
) -> dict[str, np.ndarray]:
    """Checks rows that are to be written.

    Args:
        rows: an array or tensor `[b, ...]` for each of `FIELDS`.
        image_shape: the set's (height, width, channels).

    Returns:
        the same as arrays.

    Raises:
        ValueError: naming the field, what was expected and what came.
    """
    if set(rows) != set(FIELDS):
        absent = sorted(set(FIELDS) - set(rows))
        unknown = sorted(set(rows) - set(FIELDS))
        raise ValueError(
            f"rows must have the fields {', '.join(FIELDS)}; "
            f"missing: {absent}, unknown: {unknown}"
        )
    arrays = {name: np.asarray(rows[name]) for name in FIELDS}
    count = arrays["images"].shape[:1]
    for name, array in arrays.items():
        shape = (*count, *field_shape(name, image_shape))
        if array.dtype != FIELDS[name] or array.shape != shape:
            raise ValueError(
                f"{name} must be {FIELDS[name]} {list(shape)}, "
                f"got {array.dtype} {list(array.shape)}"
            )
    for name in IMAGE_FIELDS:
        check_pixels(arrays[name], name)
    for name in _DISTANCES:
        _check_distances(arrays[name], name)
    return arrays


def blocks(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Cuts start .. stop into pieces of `size`, the last one shorter."""
    for first in range(start, stop, size):
        yield first, min(first + size, stop)


def sync_folder(folder: pathlib.Path) -> None:
    """Makes the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_distances(values: np.ndarray, name: str) -> None:
    is_wrong = ~(np.isfinite(values) & (values >= 0))
    if is_wrong.any():
        raise ValueError(
            f"{name} must be finite and not negative, "
            f"got {values[is_wrong][0]:.6g}"
        )


def _plain(value: Any) -> Any:
    is_numpy = isinstance(value, np.generic | np.ndarray)
    return value.tolist() if is_numpy else value


def _image_shape(path: pathlib.Path, file: h5py.File) -> ImageShape:
    images = file.get("images")
    if not isinstance(images, h5py.Dataset) or images.ndim != 4:
        raise ValueError(
            f"{path} must be an adversarial set, but has no dataset images of "
            f"rank 4"
        )
    height, width, channels = images.shape[1:]
    return height, width, channels


def _parse_provenance(
    path: pathlib.Path, attributes: dict[str, Any]
) -> Provenance:
    try:
        for name in ("params", "package_versions"):
            attributes[name] = json.loads(attributes[name])
        return Provenance(**attributes)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: the attributes must say how the set was made, "
            f"but: {error}"
        ) from error
