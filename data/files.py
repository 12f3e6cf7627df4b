"""Writing so that nothing half-written looks whole."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def written_whole(
    path: str | os.PathLike[str], *, overwrite: bool = True
) -> Iterator[Path]:
    """Gives a temporary path to write a file or directory to.

    When the block ends well, what is there is synchronised to the disk and
    renamed to `path`; when it does not, it is removed. The temporary name
    keeps the suffix, since Keras and NumPy look at it.

    Args:
        path: Where it shall appear.
        overwrite: Replace what is there.

    Yields:
        The temporary path, beside `path`.

    Raises:
        FileExistsError: There is something, before or after the block, and
            `overwrite` is false.
    """
    path = Path(path)
    if not overwrite:
        _refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{path.name}")
    remove(temporary)
    try:
        yield temporary
        _sync_tree(temporary)
        if not overwrite:
            _refuse_existing(path)
        _replace(temporary, path)
        _sync(path.parent)
    finally:
        remove(temporary)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds a lock file, so that two runs do not write to one place.

    The lock goes with the process, however that ends. The file goes at the end
    of the block; one that a killed run has left is no lock.

    Args:
        path: The lock file.

    Raises:
        RuntimeError: Another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[str]:
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise RuntimeError(
                f"another run is writing to {path.parent}: wait for it, or "
                "choose another place"
            ) from error
        # Between opening and locking, its holder may have removed the file.
        if _is_at(file, path):
            return file
        file.close()


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all; NaN is not JSON, so refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: It is not JSON; the message names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def remove(path: Path) -> None:
    """Removes a file or a whole directory, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(
            f"{path} exists; pass overwrite=True to replace it"
        )


def _replace(source: Path, target: Path) -> None:
    """Renames; a folder is in the way of a folder, so it steps aside first."""
    if not (source.is_dir() and target.exists()):
        os.replace(source, target)
        return
    old = target.with_name(f".old-{target.name}")
    remove(old)
    os.rename(target, old)
    os.rename(source, target)
    remove(old)


def _sync_tree(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            _sync_tree(child)
    _sync(path)


def _sync(path: Path) -> None:
    """Makes sure that it is on the disk before a rename says so."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
