"""The weights of a Keras model as an .npz file, without any code in it."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import keras
import numpy as np

from data.files import written_whole


def save(path: Path, model: keras.Model, dtype: str) -> str:
    """Writes the weights under their Keras paths.

    The same weights make the same bytes.

    Args:
        path: An .npz file, replaced if it is there.
        model: Its weights are written.
        dtype: "float16" or "float32"; a value is rounded to the nearest.

    Returns:
        The file's sha256, in hexadecimal.
    """
    arrays = {
        weight.path: keras.ops.convert_to_numpy(weight).astype(dtype)
        for weight in model.weights
    }
    with written_whole(path) as temporary:
        np.savez(temporary, **arrays)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_into(
    model: keras.Model, path: Path, *, dtype: str, sha256: str
) -> None:
    """Gives a model the weights of a file, in the model's own precision.

    Args:
        model: As built; nothing is assigned unless everything fits.
        path: The .npz file.
        dtype: What its arrays must have.
        sha256: What the file must have, in hexadecimal.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not the one described, or its arrays are not
            the model's weights.
    """
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} must have the SHA-256 {sha256}, got {found}: it is "
            "damaged, or of another release than the .json file beside it"
        )
    arrays = _read(path, content)
    _check(path, model, arrays, dtype)
    for weight in model.weights:
        weight.assign(arrays[weight.path].astype("float32"))


def _read(path: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return dict(file)
    # A lone array, which is no .npz file, gives a TypeError.
    except (zipfile.BadZipFile, ValueError, EOFError, TypeError) as error:
        raise ValueError(
            f"{path} must be a whole .npz file of arrays, but it cannot be "
            f"read: {error}"
        ) from error


def _check(
    path: Path, model: keras.Model, arrays: dict[str, np.ndarray], dtype: str
) -> None:
    wanted = {weight.path: tuple(weight.shape) for weight in model.weights}
    missing = [name for name in wanted if name not in arrays]
    unknown = [name for name in arrays if name not in wanted]
    if missing or unknown:
        raise ValueError(
            f"{path} must hold the weights of {model.name}: missing "
            f"{', '.join(missing) or 'none'}, unknown "
            f"{', '.join(unknown) or 'none'}"
        )
    for name, shape in wanted.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"{path}: {name} must be {dtype} {list(shape)}, "
                f"got {array.dtype} {list(array.shape)}"
            )
