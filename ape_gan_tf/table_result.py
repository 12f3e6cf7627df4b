"""A table of the paper as measured, and its JSON file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ape_gan_tf import paper
from ape_gan_tf.metrics import Row
from data.files import read_json, write_json

VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One error rate, ours beside the paper's.

    Attributes:
        ours: In percent of `count` images; None where it is missing.
        paper: In percent; None where the paper has none.
        count: Images, the first of the test split; None where missing.
        missing: Why there is no figure of ours, else None.
    """

    ours: float | None = None
    paper: float | None = None
    count: int | None = None
    missing: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableResult:
    """What became of one table.

    Attributes:
        table: The paper's.
        cells: For each of its inputs one for each of its columns.
        stand_ins: Names of the paper's targets that another classifier stood
            for -> its name.
        provenance: How it was made: `command`, `seed`, `commit`, `date`,
            `seconds` of each stage, and versions of packages.
        rows: The measurements behind the cells, as in `metrics.json`.
        clean: Ours, of each of the paper's targets that was measured: its
            `error` on clean images in percent, and its `top5_error` where
            there are 1000 classes.
    """

    table: paper.Table
    cells: tuple[tuple[Cell, ...], ...]
    stand_ins: Mapping[str, str]
    provenance: Mapping[str, Any]
    rows: tuple[Row, ...]
    clean: Mapping[str, Mapping[str, float]] = dataclasses.field(
        default_factory=dict
    )


def write(path: Path, result: TableResult) -> None:
    """Writes a result as JSON, whole or not at all."""
    table = result.table
    write_json(
        path,
        {
            "version": VERSION,
            "table": table.name,
            "dataset": table.dataset,
            "lines": [
                {
                    "input": line.label,
                    "cells": {
                        column.label: dataclasses.asdict(cell)
                        for column, cell in zip(
                            table.columns, cells, strict=True
                        )
                    },
                }
                for line, cells in zip(table.inputs, result.cells, strict=True)
            ],
            "stand_ins": dict(result.stand_ins),
            "provenance": dict(result.provenance),
            "rows": [row.to_json() for row in result.rows],
            "clean": {k: dict(v) for k, v in result.clean.items()},
        },
    )


def read(path: Path) -> TableResult:
    """Reads what `write` wrote.

    Raises:
        ValueError: It is not a table of this version, or not one that the
            paper has; the message names the file.
    """
    content = read_json(path)
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION or "lines" not in content:
        raise ValueError(
            f"{path} must be a table of version {VERSION}, got {version!r}"
        )
    try:
        table = paper.find(content["dataset"], content["table"])
        lines = {line["input"]: line["cells"] for line in content["lines"]}
        return TableResult(
            table=table,
            cells=tuple(
                tuple(
                    # The paper's figure is not the file's to say.
                    Cell(**{**lines[line.label][column.label], "paper": figure})
                    for column, figure in zip(
                        table.columns, figures, strict=True
                    )
                )
                for line, figures in zip(
                    table.inputs, table.figures, strict=True
                )
            ),
            stand_ins=content["stand_ins"],
            provenance=content["provenance"],
            rows=tuple(Row.from_json(row) for row in content["rows"]),
            # Tables of earlier versions have none.
            clean=content.get("clean", {}),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a table of the paper: {error}"
        ) from error
