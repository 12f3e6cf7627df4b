"""Renders the tables in a page of results from the JSON behind them.

    python -m ape_gan_tf.results_page --page=docs/results.md

A page is written by hand, but for what stands between two such lines:

    <!-- begin: results/mnist/table_1.json -->
    <!-- end -->

That is made of the JSON file, which `reproduce` wrote and which is named
relative to the page; its figure is drawn beside it. `--check` writes nothing
and fails where the page is not what the JSON gives.
"""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

from absl import flags

from ape_gan_tf import command_line, table_figure, table_report, table_result
from ape_gan_tf.table_result import TableResult
from data.files import write_text

_MARKER = re.compile(r"^<!-- (begin|end)(?:: (\S+))? -->$", re.MULTILINE)


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "page", "docs/results.md", "The Markdown file.", flag_values=values
    )
    flags.DEFINE_boolean(
        "check",
        False,
        "Only tell whether the page is up to date.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    page = Path(values.page)
    if values.check:
        check(page)
    else:
        update(page)


def update(page: Path) -> None:
    """Renders the regions of a page and draws their figures.

    Raises:
        ValueError: See `render`.
    """
    text = page.read_text(encoding="utf-8")
    rendered = render(page, text)
    for name in _names(page, text):
        table_figure.draw(_figure(page, name), _result(page, name))
    write_text(page, rendered)


def check(page: Path) -> None:
    """Looks whether a page is what `update` would make of it.

    Raises:
        ValueError: It is not, a figure is not there, or see `render`.
    """
    text = page.read_text(encoding="utf-8")
    lines = text.splitlines()
    wanted = render(page, text).splitlines()
    pairs = itertools.zip_longest(lines, wanted)
    for number, (line, expected) in enumerate(pairs, start=1):
        if line != expected:
            raise ValueError(
                f"{page}, line {number}, must be as its JSON gives it, "
                f"{expected!r}, got {line!r}; `make results` renders it"
            )
    for name in _names(page, text):
        if not _figure(page, name).is_file():
            raise ValueError(
                f"{page} links {_figure(page, name)}, which is not there; "
                "`make results` draws it"
            )


def render(page: Path, text: str) -> str:
    """The page's text with its regions made anew.

    Args:
        page: Where it is; names in its markers are relative to its folder.
        text: What is there now.

    Raises:
        ValueError: Markers do not come in pairs, or the file that one names
            is not there or is no table.
    """
    names = iter(_names(page, text))
    parts, end = [], 0
    for marker in _MARKER.finditer(text):
        if marker[1] == "begin":
            parts += [text[end : marker.end()], _region(page, next(names))]
        end = marker.start()
    return "".join([*parts, text[end:]])


def _names(page: Path, text: str) -> list[str]:
    """The files that the markers name."""
    markers = list(_MARKER.finditer(text))
    for place, marker in enumerate(markers):
        kind = "end" if place % 2 else "begin"
        is_named = marker[2] is not None
        if marker[1] != kind or is_named != (kind == "begin"):
            raise ValueError(
                f"{page} must have markers '<!-- begin: FILE -->' and "
                f"'<!-- end -->' in turn, got {marker[0]!r}"
            )
    if len(markers) % 2:
        raise ValueError(f"{page} has no '<!-- end -->' for {markers[-1][0]!r}")
    return [marker[2] for marker in markers[::2]]


def _region(page: Path, name: str) -> str:
    figure = Path(name).with_suffix(".png").as_posix()
    result = _result(page, name)
    return f"\n\n{table_report.markdown(result, level=3, figure=figure)}\n"


def _result(page: Path, name: str) -> TableResult:
    path = page.parent / name
    marker = f"{page}, marker '<!-- begin: {name} -->'"
    if not path.is_file():
        raise ValueError(f"{marker}: {path} does not exist")
    try:
        return table_result.read(path)
    except ValueError as error:
        raise ValueError(f"{marker}: {error}") from error


def _figure(page: Path, name: str) -> Path:
    return (page.parent / name).with_suffix(".png")


if __name__ == "__main__":
    sys.exit(command_line.run(define_flags, main, __doc__))
