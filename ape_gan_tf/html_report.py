"""`report.html`: a page as one file that needs nothing else."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

from ape_gan_tf.cells import (
    figures_table,
    networks_table,
    settings_table,
    words,
)
from ape_gan_tf.defences import defences_table
from ape_gan_tf.page import Page
from data.checks import check_one_of
from data.files import write_text

_MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def write(path: Path, page: Page) -> None:
    """Writes the report, pictures and all, into one file.

    The file loads nothing, from this machine or any other, and runs no
    script: its Content-Security-Policy says so to the browser.

    Args:
        path: `report.html`.
        page: What it says.

    Raises:
        ValueError: A picture is neither PNG nor SVG.
    """
    write_text(path, html(page))


def html(page: Page) -> str:
    """The text of the file; whatever the page says is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ape_gan_tf"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        words=words, data_uri=_data_uri, unbroken=_unbroken
    )
    return environment.get_template("report.html").render(
        page=page,
        figures=figures_table(page.rows, is_grouped=True),
        defences=defences_table(page),
        networks=networks_table(page.all_rows),
        settings=settings_table(page.all_rows),
    )


def _unbroken(text: str) -> str:
    """A figure and its % stay on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _data_uri(path: Path) -> str:
    kind = check_one_of(path.suffix.lower(), _MEDIA_TYPES, "a picture's suffix")
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{_MEDIA_TYPES[kind]};base64,{content}"
