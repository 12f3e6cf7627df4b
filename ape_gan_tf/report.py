"""`report.md`: a page as Markdown."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ape_gan_tf.cells import (
    Table,
    figures_table,
    networks_table,
    settings_table,
    words,
)
from ape_gan_tf.defences import defences_table
from ape_gan_tf.metrics import Row
from ape_gan_tf.page import Page, Picture
from data.files import write_text


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of error rates, see `cells.figures_table`."""
    return _markdown(figures_table(rows))


def text(page: Page) -> str:
    """The verdict and all figures, without where they come from."""
    return "\n\n".join(_figures(page))


def write(path: Path, page: Page) -> None:
    """Writes the report.

    Args:
        path: `report.md`; pictures are linked relative to its folder.
        page: What it says.
    """
    parts = [*_figures(page), *_background(path.parent, page)]
    write_text(path, "\n\n".join(parts) + "\n")


def _figures(page: Page) -> Iterator[str]:
    yield f"# {_line(page.title)}"
    yield f"**{_line(page.verdict)}**"
    yield from _checks(page)
    yield "## Error rates"
    yield from _captioned(figures_table(page.rows))
    yield from page.remarks
    defences = defences_table(page)
    if defences is not None:
        yield "## Beside simpler defences"
        yield from _captioned_groups(defences)


def _background(folder: Path, page: Page) -> Iterator[str]:
    if page.pictures:
        yield "## Pictures"
        yield from (_picture(folder, picture) for picture in page.pictures)
    yield "## Provenance"
    yield from _provenance(page)
    if page.command:
        yield "## How to reproduce"
        yield "\n".join(f"    {x}" for x in page.command.splitlines())


def _checks(page: Page) -> Iterator[str]:
    if page.all_warnings:
        yield f"## Warnings: {len(page.all_warnings)}"
        yield from _warnings(page)
    else:
        yield page.on_checks
    if page.on_unchecked:
        yield page.on_unchecked


def _warnings(page: Page) -> Iterator[str]:
    for warning in page.all_warnings:
        yield f"### {_line(words(warning.name))}"
        yield f"Seen: {_line(warning.seen)}"
        yield f"What it means: {_line(warning.meaning)}"


def _picture(folder: Path, picture: Picture) -> str:
    caption = _line(picture.caption)
    seen = _line(picture.description) or caption
    link = os.path.relpath(picture.path, folder)
    return f"![{seen}]({link})\n\n{caption}"


def _provenance(page: Page) -> Iterator[str]:
    yield from _captioned(networks_table(page.all_rows))
    if page.provenance:
        yield "\n".join(
            f"- {_line(name)}: `{_line(value).replace('`', chr(39))}`"
            for name, value in page.provenance.items()
        )
    yield from _captioned_groups(settings_table(page.all_rows))


def _captioned(table: Table) -> Iterator[str]:
    yield f"{_line(table.caption)}."
    yield _markdown(table)


def _captioned_groups(table: Table) -> Iterator[str]:
    """A table for each group, where the lines do not say which is theirs."""
    yield f"{_line(table.caption)}."
    for group in table.groups:
        yield f"{_line(group.label)}:"
        yield _markdown(dataclasses.replace(table, groups=(group,)))


def _markdown(table: Table) -> str:
    rule = ["---:" if is_number else "---" for is_number in table.is_number]
    lines = [table.header, rule, *table.lines]
    return "\n".join(f"| {' | '.join(map(_line, cells))} |" for cells in lines)


def _line(value: Any) -> str:
    """On one line, and neither a column's end nor the start of HTML."""
    line = " ".join(str(value).split())
    return line.replace("|", "\\|").replace("<", "&lt;")
