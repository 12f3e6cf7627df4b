"""Losses over steps, in a CSV file that survives kills and resumes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from data.files import write_text


class LossHistory:
    """Rows of (step, loss, loss, ...) means since the row before.

    Args:
        path: The CSV file.
        names: The losses' names, its columns after `step`.
    """

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._path = path
        self._header = ("step", *names)

    def truncate(self, step: int) -> None:
        """Drops rows past `step`: they will be made again."""
        rows = [row for row in self._rows() if int(row[0]) <= step]
        self._write(rows)

    def append(self, rows: list[tuple[float, ...]]) -> None:
        """Adds rows."""
        new = [[str(int(row[0])), *map(repr, row[1:])] for row in rows]
        self._write(self._rows() + new)

    def _rows(self) -> list[list[str]]:
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))[1:]

    def _write(self, rows: list[list[str]]) -> None:
        lines = [self._header, *rows]
        write_text(self._path, "".join(",".join(x) + "\n" for x in lines))


def read_losses(path: Path) -> dict[str, np.ndarray]:
    """Reads a loss history: column name -> float64 values."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    values = np.array(rows, dtype=np.float64).reshape(-1, len(header))
    return dict(zip(header, values.T, strict=True))


def last_step(path: Path) -> int:
    """The last step in a loss history, 0 where there is none."""
    if not path.exists():
        return 0
    steps = read_losses(path)["step"]
    return int(steps[-1]) if len(steps) else 0
