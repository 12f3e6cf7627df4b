"""Which reading of the paper its figures speak for.

The paper does not say on which classifier the images before its adversarially
trained one were crafted, so that two columns of ours stand against one of its
own (Tables 7 and 8).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ape_gan_tf.paper import Column
from ape_gan_tf.table_result import Cell, TableResult

_WHO = {
    "target": "on the plain target",
    "hardened": "on the adversarially trained classifier",
}


def nearer_reading(result: TableResult) -> str | None:
    """A sentence on which reading comes nearer to the paper.

    Compared are the mean absolute differences to the paper's figures, in
    points, over the cells that both readings and the paper have; where they
    are of different numbers of images, the sentence says so.

    Returns:
        None where there is no such cell, or other classifiers than the
        paper's stood in.
    """
    pairs = [
        (cells[first], cells[second])
        for first, second in _columns(result.table.columns)
        for cells in result.cells
        if _are_comparable(cells[first], cells[second])
    ]
    if not pairs or result.stand_ins:
        return None
    gaps = {
        reading: sum(_gap(pair[place]) for pair in pairs) / len(pairs)
        for place, reading in enumerate(_WHO)
    }
    near, far = sorted(gaps, key=lambda reading: gaps[reading])
    counted = "1 cell" if len(pairs) == 1 else f"{len(pairs)} cells"
    counted += " each"
    if any(first.count != second.count for first, second in pairs):
        counted += ", some of different numbers of images"
    if math.isclose(gaps[near], gaps[far]):
        return (
            "Both readings are equally near to the paper: "
            f"{gaps[near]:.2f} points off on average ({counted})."
        )
    return (
        f"Images crafted {_WHO[near]} come nearer to the paper's figures: "
        f"{gaps[near]:.2f} points off on average, against {gaps[far]:.2f} "
        f"crafted {_WHO[far]} ({counted})."
    )


def _columns(columns: Sequence[Column]) -> Iterator[tuple[int, int]]:
    """The two readings of each of the paper's columns, by their places."""
    places = {
        (each.crafted_on, each.is_purified, each.is_top5): place
        for place, each in enumerate(columns)
        if each.is_hardened
    }
    for (crafted_on, is_purified, is_top5), place in places.items():
        other = places.get(("hardened", is_purified, is_top5))
        if crafted_on == "target" and other is not None:
            yield place, other


def _are_comparable(first: Cell, second: Cell) -> bool:
    return None not in (first.ours, first.paper, second.ours, second.paper)


def _gap(cell: Cell) -> float:
    return abs((cell.ours or 0.0) - (cell.paper or 0.0))
