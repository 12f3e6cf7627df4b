"""One of the paper's tables, ours beside theirs, for people to read."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attacks
from ape_gan_tf import table_figure, table_result
from ape_gan_tf.paper import Input
from ape_gan_tf.table_names import stand_ins, title
from ape_gan_tf.table_offsets import CAPTION, offsets
from ape_gan_tf.table_readings import nearer_reading
from ape_gan_tf.table_result import Cell, TableResult
from data.files import write_text

LEGEND = "Error rates in percent: ours, and in brackets the paper's."
CSV_HEADER = (
    "table",
    "dataset",
    "input",
    "target",
    "stand_in",
    "crafted_on",
    "column",
    "ours",
    "paper",
    "images",
    "missing",
)
_WIDTH = 80
# Wider cells of the terminal's table are folded.
_FIRST_WIDTH, _CELL_WIDTH = 26, 16


def markdown(
    result: TableResult, *, level: int = 1, figure: str | None = None
) -> str:
    """The table as Markdown.

    Args:
        result: What was measured.
        level: Of the heading.
        figure: Link to its picture, or None.
    """
    grid = _markdown_grid(_grid(result))
    parts = [f"{'#' * level} {title(result)}", LEGEND, grid]
    if figure is not None:
        parts.append(f"![{title(result)}]({figure})")
    if unlike := offsets(result):
        parts += [CAPTION, _markdown_grid(unlike)]
    return "\n\n".join([*parts, *_remarks(result)]) + "\n"


def text(result: TableResult) -> str:
    """The same for a terminal: columns are aligned, long lines are folded."""
    parts = [_wrapped(title(result)), LEGEND, _text_grid(_grid(result))]
    if unlike := offsets(result):
        parts += [_wrapped(CAPTION), _text_grid(unlike)]
    return "\n\n".join([*parts, *map(_wrapped, _remarks(result))]) + "\n"


def csv_text(result: TableResult) -> str:
    """The table as CSV, a record a cell; what there is not is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    writer.writerows(_records(result))
    return file.getvalue()


def write_all(directory: Path, result: TableResult) -> None:
    """Writes `table_NAME.json`, `.png`, `.md` and `.csv`, each whole."""
    stem = directory / f"table_{result.table.name}"
    figure = stem.with_suffix(".png")
    table_result.write(stem.with_suffix(".json"), result)
    table_figure.draw(figure, result)
    write_text(stem.with_suffix(".md"), markdown(result, figure=figure.name))
    write_text(stem.with_suffix(".csv"), csv_text(result))


def _records(result: TableResult) -> Iterator[tuple[Any, ...]]:
    table = result.table
    for line, cells in zip(table.inputs, result.cells, strict=True):
        is_attacked = line.name in attacks.ATTACKS
        for column, cell in zip(table.columns, cells, strict=True):
            yield (
                table.name,
                table.dataset,
                line.label,
                line.target,
                result.stand_ins.get(line.target),
                column.crafted_on if is_attacked else None,
                column.label,
                cell.ours,
                cell.paper,
                cell.count,
                cell.missing,
            )


def _grid(result: TableResult) -> list[list[str]]:
    columns = [column.label for column in result.table.columns]
    rows = [["input", "images", *columns]]
    for line, cells in zip(result.table.inputs, result.cells, strict=True):
        count = next((x.count for x in cells if x.ours is not None), None)
        rows.append(
            [
                _describe(line, stand_ins(result)),
                "-" if count is None else f"{count:,}",
                *(_figures(cell, count) for cell in cells),
            ]
        )
    return rows


def _markdown_grid(grid: Sequence[Sequence[str]]) -> str:
    header, *lines = grid
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(
        f"| {' | '.join(map(_escape, cells))} |"
        for cells in (header, rule, *lines)
    )


def _text_grid(grid: Sequence[Sequence[str]]) -> str:
    header, *lines = map(_folded, grid)
    columns = zip(header, *lines, strict=True)
    widths = [
        max(len(x) for cell in column for x in cell) for column in columns
    ]
    rule = [["-" * width] for width in widths]
    return "\n".join(_aligned(row, widths) for row in (header, rule, *lines))


def _describe(line: Input, others: Mapping[str, str]) -> str:
    target = line.target
    if target in others:
        target = f"{others[target]} (not the paper's {target})"
    # The lines of clean errors are the targets.
    if line.label == line.target:
        return target
    return f"{line.label}, target {target}"


def _figures(cell: Cell, usual_count: int | None) -> str:
    text = "-" if cell.ours is None else f"{cell.ours:.2f}"
    if cell.paper is not None:
        text += f" ({cell.paper:.1f})"
    if cell.ours is not None and cell.count not in (None, usual_count):
        text += f", {cell.count:,} image{'' if cell.count == 1 else 's'}"
    return text


def _remarks(result: TableResult) -> list[str]:
    """What stands below the table, in paragraphs and lists."""
    parts = list(result.table.notes)
    for target, other in stand_ins(result).items():
        parts.append(
            f"{other} stands for the paper's {target}: the paper's figures "
            "are a landmark there, not a comparison."
        )
    nearer = nearer_reading(result)
    if nearer is not None:
        parts.append(nearer)
    missing = [f"- {why}: {which}" for why, which in _missing(result)]
    if missing:
        parts.append("Missing:\n\n" + "\n".join(missing))
    return [*parts, *_provenance(result.provenance)]


def _missing(result: TableResult) -> Iterator[tuple[str, str]]:
    """Each reason, and the cells that it is the reason for."""
    labels = [column.label for column in result.table.columns]
    reasons: dict[str, dict[Input, list[str]]] = {}
    for line, cells in zip(result.table.inputs, result.cells, strict=True):
        for label, cell in zip(labels, cells, strict=True):
            if cell.ours is None:
                why = _one_line(cell.missing or "no reason is known")
                lines = reasons.setdefault(why, {})
                lines.setdefault(line, []).append(label)
    for why, lines in reasons.items():
        whole = [len(columns) == len(labels) for columns in lines.values()]
        if all(whole) and len(whole) == len(result.cells):
            yield why, "all"
            continue
        yield (
            why,
            "; ".join(
                line.label if all_columns else f"{line.label} ({', '.join(c)})"
                for (line, c), all_columns in zip(
                    lines.items(), whole, strict=True
                )
            ),
        )


def _provenance(provenance: Mapping[str, Any]) -> list[str]:
    """The command as an indented line, then a list of the rest."""
    rest = dict(provenance)
    command = rest.pop("command", None)
    parts = []
    if command is not None:
        # Right below a list, Markdown would take it for a part of that.
        parts = ["Made by", f"    {_one_line(command)}"]
    if "seconds" in rest:
        rest["seconds"] = f"{_total(rest['seconds']):,.0f}"
    items = [f"- {name}: {_value(value)}" for name, value in rest.items()]
    return [*parts, "\n".join(items)] if items else parts


def _total(seconds: Mapping[str, float] | float) -> float:
    if isinstance(seconds, Mapping):
        return sum(seconds.values())
    return seconds


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return _one_line(value)


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())


def _escape(cell: str) -> str:
    return _one_line(cell).replace("|", "\\|")


def _folded(cells: Sequence[str]) -> list[list[str]]:
    """Each cell as lines that fit into its column."""
    widths = [_FIRST_WIDTH, *[_CELL_WIDTH] * (len(cells) - 1)]
    return [
        textwrap.wrap(cell, width, break_on_hyphens=False)
        for cell, width in zip(cells, widths, strict=True)
    ]


def _aligned(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    """One row, as many lines as its highest cell has; figures to the right."""
    lines = []
    for place in range(max(map(len, cells))):
        words = [cell[place] if place < len(cell) else "" for cell in cells]
        first, *others = zip(words, widths, strict=True)
        padded = [first[0].ljust(first[1])]
        padded += [word.rjust(width) for word, width in others]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _wrapped(paragraph: str) -> str:
    """A paragraph or list of at most 80 columns; commands stay whole."""
    return "\n".join(
        line
        if line.startswith("    ") or not line
        else textwrap.fill(
            line,
            _WIDTH,
            subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in paragraph.splitlines()
    )
