"""Measured tables with figures that nobody measured."""

from ape_gan_tf import paper
from ape_gan_tf.table_result import Cell, TableResult

LATE = "no time was left"
COMMAND = (
    "python -m ape_gan_tf.evaluate --classifier=C --dataset=mnist --seed=3 "
    "--workdir=DIR"
)
PROVENANCE = {
    "command": COMMAND,
    "seed": 3,
    "commit": "0123456789ab",
    "date": "2031-02-28",
    "seconds": {"training": 1234.4, "measuring": 0.2},
    "versions": {"keras": "9.8.7", "numpy": "6.5"},
}


def make_cell(ours, printed, count=10000):
    if ours is None:
        return Cell(paper=printed, missing=LATE)
    return Cell(ours=ours, paper=printed, count=count)


def make_result(
    dataset,
    name,
    lines,
    *,
    stand_ins=None,
    provenance=None,
    rows=(),
    clean=None,
):
    """A result of one of the paper's tables.

    `lines` has a line for each input, in it for each column a Cell, our error,
    or None where it is missing.
    """
    table = paper.find(dataset, name)
    cells = tuple(
        tuple(
            ours if isinstance(ours, Cell) else make_cell(ours, printed)
            for ours, printed in zip(line, figures, strict=True)
        )
        for line, figures in zip(lines, table.figures, strict=True)
    )
    return TableResult(
        table=table,
        cells=cells,
        stand_ins=stand_ins or {},
        provenance=provenance or {},
        rows=rows,
        clean=clean or {},
    )


def all_missing(dataset, name):
    table = paper.find(dataset, name)
    lines = [[None] * len(table.columns) for _ in table.inputs]
    return make_result(dataset, name, lines)
