"""How far attacks bring each target from its own clean error.

Where a target is better or worse than the paper's, or another one, the errors
of attacks cannot be compared; what an attack or the purifier adds to the
target's own error can.
"""

from __future__ import annotations

from ape_gan_tf import paper
from ape_gan_tf.paper import Column, Input
from ape_gan_tf.table_result import Cell, TableResult

# Points by which a target's clean error may differ from the paper's.
TOLERANCE = 0.5
CAPTION = (
    "Because of the targets: the same above the target's clean error, in "
    "points, ours and in brackets the paper's, each with its own."
)


def offsets(result: TableResult) -> list[list[str]]:
    """The lines of targets unlike the paper's, each with its differences.

    Columns of the adversarially trained classifier, whose clean error the
    paper does not give, are left out.

    Returns:
        A header and the lines; nothing where there are no lines.
    """
    table = result.table
    places = [
        place
        for place, column in enumerate(table.columns)
        if not column.is_hardened
    ]
    if table.name == "targets" or not places:
        return []
    lines = []
    for line, cells in zip(table.inputs, result.cells, strict=True):
        if not _is_unlike(result, line):
            continue
        lines.append(
            [
                f"{line.label}, target {_actual(result, line)}",
                *(
                    _offset(result, line, table.columns[place], cells[place])
                    for place in places
                ),
            ]
        )
    header = ["input", *(table.columns[place].label for place in places)]
    return [header, *lines] if lines else []


def _actual(result: TableResult, line: Input) -> str:
    return result.stand_ins.get(line.target, line.target)


def _is_unlike(result: TableResult, line: Input) -> bool:
    ours = result.clean.get(line.target, {}).get("error")
    printed = paper.clean_error(result.table.dataset, line.target)
    if ours is None or printed is None:
        return False
    return line.target in result.stand_ins or abs(ours - printed) > TOLERANCE


def _offset(
    result: TableResult, line: Input, column: Column, cell: Cell
) -> str:
    kind = "top5_error" if column.is_top5 else "error"
    ours = result.clean[line.target].get(kind)
    text = _difference(cell.ours, ours, ".2f")
    if cell.paper is not None:
        printed = paper.clean_error(
            result.table.dataset, line.target, is_top5=column.is_top5
        )
        text += f" ({_difference(cell.paper, printed, '.1f')})"
    return text


def _difference(error: float | None, clean: float | None, form: str) -> str:
    if error is None or clean is None:
        return "-"
    return format(error - clean, f"+{form}")
