"""One picture of each of the paper's tables: our errors beside theirs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ape_gan_tf.figures import DOTS_PER_INCH
from ape_gan_tf.table_names import stand_ins, title
from ape_gan_tf.table_result import Cell, TableResult
from data.files import written_whole

# From Okabe and Ito's palette: told apart by colour-blind eyes, and in grey.
OURS, PAPER = "#0072b2", "#e69f00"
_ACROSS = 2  # Alone and purified stand side by side.
_BAR = 0.4  # Of the width of a group.
_TICKS = (0, 1, 5, 10, 25, 50, 75, 100)
_TOP = 165  # Room for the figure on top of a bar of 100 %.
_LETTERS_AN_INCH = 13


def draw(path: Path, result: TableResult) -> None:
    """Draws a table's bars.

    Args:
        path: The PNG file.
        result: What was measured.
    """
    figure = bars(result)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)


def bars(result: TableResult) -> Figure:
    """Grouped bars: a panel for each column, a group for each input.

    The scale is that of square roots, on which half a percent can be seen
    beside a hundred.
    """
    columns = result.table.columns
    labels = [line.label for line in result.table.inputs]
    down = math.ceil(len(columns) / _ACROSS)
    width = max(3.4, 0.9 + 0.5 * len(labels))
    figure = Figure(
        figsize=(_ACROSS * width, 1.3 + 2.5 * down), layout="constrained"
    )
    figure.suptitle(_fold(_title(result), _ACROSS * width * 0.8), fontsize=11)
    figure.supylabel("error in %", fontsize=9)
    for place, column in enumerate(columns):
        panel = figure.add_subplot(down, _ACROSS, place + 1)
        panel.set_title(_fold(column.label, width - 0.5), fontsize=9)
        _draw_panel(panel, labels, [cells[place] for cells in result.cells])
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


def _title(result: TableResult) -> str:
    others = stand_ins(result).items()
    if not others:
        return title(result)
    listed = ", ".join(f"{other} for {target}" for target, other in others)
    return f"{title(result)} ({listed})"


def _draw_panel(
    panel: Any, labels: Sequence[str], cells: Sequence[Cell]
) -> None:
    panel.set_yscale("function", functions=(_root, np.square))
    panel.set_ylim(0, _TOP)
    panel.set_yticks(_TICKS, [str(tick) for tick in _TICKS], fontsize=7)
    panel.set_yticks([], minor=True)
    panel.grid(axis="y", alpha=0.3)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines["left"].set_bounds(0, 100)
    panel.set_xticks(
        range(len(labels)),
        labels,
        fontsize=8,
        rotation=35,
        ha="right",
        rotation_mode="anchor",
    )
    panel.tick_params(axis="x", length=0)
    panel.set_xlim(-0.6, len(labels) - 0.4)
    ours = [_percent(cell.ours, 2) for cell in cells]
    theirs = [_percent(cell.paper, 1) for cell in cells]
    _draw_bars(panel, -_BAR / 2, ours, OURS, "ours", "missing")
    _draw_bars(panel, _BAR / 2, theirs, PAPER, "the paper's", "not given")


def _percent(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _draw_bars(
    panel: Any,
    offset: float,
    figures: Sequence[str | None],
    colour: str,
    name: str,
    without: str,
) -> None:
    """Bars with their figures on them, or with a word where there is none."""
    places = np.arange(len(figures)) + offset
    heights = [float(figure or 0) for figure in figures]
    panel.bar(places, heights, _BAR, color=colour, label=name)
    for place, height, figure in zip(places, heights, figures, strict=True):
        panel.annotate(
            without if figure is None else figure,
            (place, height),
            (0, 2),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=7,
            color="0.45" if figure is None else "black",
        )


def _root(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(values, 0.0))


def _fold(words: str, inches: float) -> str:
    return textwrap.fill(words, int(_LETTERS_AN_INCH * inches))
