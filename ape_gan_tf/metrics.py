"""Error rates as rows of `metrics.json`, and their file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.files import read_json, write_json, written_whole

VERSION = 1
_MEASURED = ("_error", "distance", "milliseconds", "remark")
_MEDIANS = ("target_median_distance", "purified_median_distance")
_WHERE_MEASURED = (
    "target_top5_error",
    "purified_top5_error",
    "distance",
    *_MEDIANS,
    "target_mean_distance",
    "purified_mean_distance",
    "start",
    "gradient",
    "milliseconds",
    "remark",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement; errors are in percent of all `count` images.

    In a white-box row `target_error` is the bare classifier's under the same
    attack on itself, `purified_error` the defended classifier's under the
    attack on itself.

    Attributes:
        dataset: Name of the dataset.
        split: `train`, `validation` or `test`.
        count: Images measured, the first of the split.
        classifier: {"name", "fingerprint"}.
        purifier: The same, or None where there is none.
        input: `clean`, `gaussian_noise` or the attack's name.
        params: Of the noise or the attack.
        threat_model: `benign`, `oblivious`, `white_box` or `transfer`.
        crafted_on: Fingerprint of what was attacked, None where benign.
        seed: Of random choices.
        target_error: Error of the classifier alone.
        purified_error: Error behind the purifier, None without one.
        target_top5_error: Where there are 1000 classes, else None.
        purified_top5_error: Likewise.
        distance: `l0`, `l2` or `linf`, what an attack of minimal norm makes
            small; None for other inputs, and so are the medians.
        target_median_distance: Of the perturbations that fool the classifier
            alone, in [0, 1] units (L0: how many values), over the images that
            it had right. A failure counts as infinitely far. An infinite
            median is null in the file, one that was not measured is absent.
        purified_median_distance: Of those that fool the defended classifier,
            in a white-box row; else None.
        target_mean_distance: Like the median, but of the images that the
            attack did fool; None where there is none.
        purified_mean_distance: Likewise.
        start: Of a search that began at another attack's images, which they
            were, such as `oblivious fgsm`; None is the attack's own start.
        gradient: `bpda`, `eot` or `guess` where the attack differentiates a
            stand-in; None is the plain gradient, or of a worst case any.
        milliseconds: Of the purifier, for one image of a batch; on the row of
            clean images.
        remark: Why there is no `purified_error` where one would be expected.
    """

    dataset: str
    split: str
    count: int
    classifier: dict[str, str]
    purifier: dict[str, str] | None
    input: str
    params: dict[str, Any]
    threat_model: str
    crafted_on: str | None
    seed: int
    target_error: float | None = None
    purified_error: float | None = None
    target_top5_error: float | None = None
    purified_top5_error: float | None = None
    distance: str | None = None
    target_median_distance: float | None = None
    purified_median_distance: float | None = None
    target_mean_distance: float | None = None
    purified_mean_distance: float | None = None
    start: str | None = None
    gradient: str | None = None
    milliseconds: float | None = None
    remark: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As in the file: some figures only where they were measured."""
        row = dataclasses.asdict(self)
        for name in _WHERE_MEASURED:
            if row[name] is None:
                del row[name]
            elif row[name] == math.inf:
                row[name] = None
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Row:
        """The row that `to_json` made this of.

        Raises:
            TypeError: A field is missing, or unknown.
        """
        found = {x: row[x] for x in _MEDIANS if x in row}
        infinite = {x: math.inf for x, value in found.items() if value is None}
        return cls(**{**row, **infinite})

    def is_same_measurement(self, other: Row) -> bool:
        """Whether both measured the same thing, whatever came out."""
        return self._identity() == other._identity()

    def is_beside(self, other: Row) -> bool:
        """Whether both are of the same networks, images and seed."""
        same = ("classifier", "purifier", "dataset", "split", "count", "seed")
        return all(getattr(self, x) == getattr(other, x) for x in same)

    @property
    def digest(self) -> str:
        """The same of two rows that measured the same thing."""
        text = json.dumps(self._identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _identity(self) -> dict[str, Any]:
        row = dataclasses.asdict(self)
        return {k: v for k, v in row.items() if not k.endswith(_MEASURED)}


class MetricsFile:
    """The rows in a `metrics.json`, saved after each that is added.

    Args:
        path: The file; it need not exist.
        outcomes: A folder for what became of each image, in which only rows
            whose outcomes are there count as measured; None keeps none.

    Raises:
        ValueError: It is not a metrics file of this version.
    """

    def __init__(self, path: Path, outcomes: Path | None = None) -> None:
        self._path = path
        self._outcomes = outcomes
        self.rows: list[Row] = _read(path) if path.exists() else []

    def find(self, wanted: Row) -> Row | None:
        """The row that measured the same thing, if there is one."""
        if self._outcomes and not self.has_outcomes(wanted):
            return None
        same = (row for row in self.rows if row.is_same_measurement(wanted))
        return next(same, None)

    def add(
        self, row: Row, outcomes: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Adds a row in the place of the same measurement; writes the file.

        Args:
            row: What was measured.
            outcomes: bool `[N]` by `target` and `purified`: which images were
                wrong.
        """
        if self._outcomes and outcomes is not None:
            with (
                written_whole(self._outcome_path(row)) as path,
                path.open("wb") as file,
            ):
                arrays: dict[str, Any] = dict(outcomes)
                np.savez(file, **arrays)
        if row in self.rows:
            return
        self.rows = [x for x in self.rows if not x.is_same_measurement(row)]
        self.rows.append(row)
        write_json(
            self._path,
            {"version": VERSION, "rows": [row.to_json() for row in self.rows]},
        )

    def has_outcomes(self, row: Row) -> bool:
        return self._outcome_path(row).exists()

    def outcomes(self, row: Row) -> dict[str, np.ndarray]:
        """bool `[N]` by `target` and `purified`, as they were added.

        Raises:
            FileNotFoundError: There are none of this row.
        """
        with np.load(self._outcome_path(row), allow_pickle=False) as arrays:
            return dict(arrays)

    def _outcome_path(self, row: Row) -> Path:
        if self._outcomes is None:
            raise FileNotFoundError(f"{self._path} was kept without outcomes")
        return self._outcomes / f"{row.digest}.npz"


def _read(path: Path) -> list[Row]:
    content = read_json(path)
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise ValueError(
            f"{path} must be a metrics file of version {VERSION}, "
            f"got version {version!r}"
        )
    try:
        return [Row.from_json(row) for row in content["rows"]]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds a row that does not fit: {error}"
        ) from error
