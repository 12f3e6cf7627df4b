"""Where the files of the published datasets are."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

VARIABLE = "APE_GAN_TF_DATA"


def find_data_dir(data_dir: str | os.PathLike | None) -> pathlib.Path | None:
    """Returns `data_dir`, else the environment's, else None."""
    folder = data_dir or os.environ.get(VARIABLE)
    return pathlib.Path(folder).expanduser() if folder else None


def require_file(path: pathlib.Path, dataset: str) -> pathlib.Path:
    """Returns `path`.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{dataset} was looked for in {path}, which is not there; data_dir "
            f"or the environment's {VARIABLE} must name the folder that "
            f"holds it"
        )
    return path


def download(load: Callable[[], Any], dataset: str, file: str) -> Any:
    """Returns what one of Keras's loaders gives, from its cache or the net.

    Raises:
        OSError: if the download fails, with a way to do without.
    """
    try:
        return load()
    except Exception as error:  # Keras raises no narrower class than this.
        raise OSError(
            f"{dataset} could not be downloaded ({error}); put it at "
            f"DIR/{file} and give DIR as data_dir or in the environment's "
            f"{VARIABLE}"
        ) from error
