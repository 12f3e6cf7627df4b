"""What a measured table is called, and who stood for the paper's targets."""

from __future__ import annotations

from ape_gan_tf import paper
from ape_gan_tf.table_result import TableResult


def title(result: TableResult) -> str:
    """`Table 7 (mnist): caption`; that of the targets has no number."""
    table = result.table
    name = f"Table {table.name}" if table.name.isdigit() else table.name.title()
    return f"{name} ({table.dataset}): {table.caption}"


def stand_ins(result: TableResult) -> dict[str, str]:
    """The paper's classifiers that others stood for in this table."""
    table = result.table
    names = [line.target for line in table.inputs]
    if any(column.is_hardened for column in table.columns):
        names.append(paper.hardened(table.dataset))
    return {
        name: result.stand_ins[name]
        for name in names
        if name in result.stand_ins
    }
