"""Error over epsilon: what each kind of attacker makes of a purifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ape_gan_tf import worst_case
from ape_gan_tf.cells import NORMS, words
from ape_gan_tf.figures import DOTS_PER_INCH
from ape_gan_tf.metrics import Row
from ape_gan_tf.strongest import clean, error_of
from data.files import written_whole

_WORST = words(worst_case.NAME)
_GAP = 6.0  # Between two labels, in percent of error.
_ASIDE = 0.06  # Of a label from the end of its curve, in widths of the panel.
_SAME = 1.5  # Curves of a kind that end as near as this share a label.


@dataclasses.dataclass(frozen=True)
class Kind:
    """Who is attacked by whom; kinds differ in more than their colours.

    Attributes:
        name: As printed.
        whom: `target` or `purified`.
        threats: The threat models of its rows.
        colour: From Okabe and Ito's palette, or darker.
        line: Matplotlib's line style.
        marker: Matplotlib's marker.
    """

    name: str
    whom: str
    threats: tuple[str, ...]
    colour: str
    line: str
    marker: str


KINDS = (
    Kind("knows the purifier", "purified", ("white_box",), "#b34700", "-", "s"),
    Kind("does not know it", "purified", ("oblivious",), "#0072b2", "--", "o"),
    Kind(
        "attacks another model", "purified", ("transfer",), "#8a4f7d", "-.", "D"
    ),
    Kind(
        "no purifier", "target", ("oblivious", "white_box"), "#4d4d4d", ":", "^"
    ),
)


@dataclasses.dataclass(frozen=True)
class Curve:
    """The error under one attack, or in the worst case, over epsilon.

    Attributes:
        kind: Who is attacked by whom.
        name: The attack, or `worst case`.
        norm: Of the balls.
        points: (epsilon, error in percent), by epsilon.
    """

    kind: Kind
    name: str
    norm: str
    points: tuple[tuple[float, float], ...]

    @property
    def is_worst_case(self) -> bool:
        return self.name == _WORST


def curves(rows: Sequence[Row]) -> list[Curve]:
    """A curve for each attack in balls of at least two sizes, and worst cases.

    Where an attack was measured in one ball with several settings, the one
    that does most counts. At epsilon 0 stands the error of clean images,
    where that is known. Of the classifier alone, single attacks are left out
    where worst cases are known.

    Args:
        rows: Of one classifier behind one purifier, or behind none.
    """
    found = [curve for kind in KINDS for curve in _of_kind(rows, kind)]
    alone = [curve for curve in found if curve.kind.whom == "target"]
    if any(curve.is_worst_case for curve in alone):
        singles = [curve for curve in alone if not curve.is_worst_case]
        return [curve for curve in found if curve not in singles]
    return found


def draw(path: Path, rows: Sequence[Row]) -> list[Curve]:
    """Draws the curves of each norm, a panel each.

    Args:
        path: The PNG or SVG file; none is written where there is no curve.
        rows: See `curves`.

    Returns:
        What was drawn.
    """
    found = curves(rows)
    if found:
        # Else an SVG would have names drawn at random in it.
        with (
            matplotlib.rc_context({"svg.hashsalt": "ape_gan_tf"}),
            written_whole(path) as temporary,
        ):
            picture(found).savefig(
                temporary, dpi=DOTS_PER_INCH, metadata=_undated(path)
            )
    return found


def picture(found: Sequence[Curve]) -> Figure:
    """The figure that `draw` saves."""
    norms = list(dict.fromkeys(curve.norm for curve in found))
    figure = Figure(figsize=(6.8, 0.5 + 3.9 * len(norms)), layout="constrained")
    panels = figure.subplots(len(norms), 1, squeeze=False)[:, 0]
    for panel, norm in zip(panels, norms, strict=True):
        _draw_panel(panel, norm, [x for x in found if x.norm == norm])
    kinds = [kind for kind in KINDS if any(x.kind == kind for x in found)]
    figure.legend(
        handles=[_handle(kind) for kind in kinds],
        loc="outside lower center",
        ncols=2,
        fontsize=9,
        handlelength=4,
        frameon=False,
    )
    return figure


def describe(found: Sequence[Curve]) -> str:
    """The curves' figures in words, for those who do not see them."""
    parts = [
        f"{curve.kind.name}, {curve.name} ({_norm(curve.norm)}): "
        + ", ".join(f"{error:.1f} at {x:.4g}" for x, error in curve.points)
        for curve in found
    ]
    return f"Error in percent over epsilon. {'; '.join(parts)}."


def _of_kind(rows: Sequence[Row], kind: Kind) -> Iterator[Curve]:
    found: dict[tuple[str, str], dict[float, float]] = {}
    for row in rows:
        error, ball = error_of(row, kind.whom), worst_case.ball(row)
        if row.start:
            continue  # It is in the worst case, and lines would be too many.
        if row.threat_model in kind.threats and ball and error is not None:
            norm, epsilon = ball
            points = found.setdefault((norm, words(row.input)), {})
            points[epsilon] = max(error, points.get(epsilon, 0.0))
    unattacked = clean(rows, kind.whom)
    for (norm, name), points in found.items():
        if len(points) > 1:
            if unattacked is not None:
                points.setdefault(0.0, unattacked.error)
            yield Curve(kind, name, norm, tuple(sorted(points.items())))


def _norm(norm: str) -> str:
    return NORMS.get(norm, norm)


def _draw_panel(panel: Any, norm: str, found: Sequence[Curve]) -> None:
    for curve in found:
        strong = curve.is_worst_case
        panel.plot(
            *zip(*curve.points, strict=True),
            color=curve.kind.colour,
            linestyle=curve.kind.line,
            marker=curve.kind.marker,
            linewidth=2.6 if strong else 0.9,
            markersize=7 if strong else 4,
            markerfacecolor=curve.kind.colour if strong else "white",
            zorder=3 if strong else 2,
        )
    if any(curve.is_worst_case for curve in found):
        panel.set_title(
            "Thick: each image under the worst attack. Thin: a single attack.",
            fontsize=9,
            loc="left",
        )
    panel.set_ylim(-3, 103)
    panel.set_xlim(0.0, 1.03 * max(_end(curve)[0] for curve in found))
    panel.set_xlabel(f"epsilon ({_norm(norm)}), of values in [0, 1]")
    panel.set_ylabel("error in % of all images")
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    _draw_labels(panel, found)


def _draw_labels(panel: Any, found: Sequence[Curve]) -> None:
    """A name beside the end of each curve, moved where two would overlap."""
    groups = sorted(_groups(found), key=_from_the_top)
    ends = {_end(group[0])[0] for group in groups}
    for end in ends:
        column = [group for group in groups if _end(group[0])[0] == end]
        # Other curves go on above those that end early.
        top = 100.0 if end == max(ends) else 100.0 - _GAP
        heights = _spread([_end(group[0])[1] for group in column], top)
        for group, height in zip(column, heights, strict=True):
            _draw_label(panel, group, end + _ASIDE * max(ends), height)


def _draw_label(
    panel: Any, group: Sequence[Curve], place: float, height: float
) -> None:
    colour = group[0].kind.colour
    panel.annotate(
        _label(group),
        _end(group[0]),
        (place, height),
        color=colour,
        fontsize=9 if group[0].is_worst_case else 7.5,
        fontweight="bold" if group[0].is_worst_case else "normal",
        va="center",
        annotation_clip=False,
        bbox={
            "facecolor": "white",
            "edgecolor": "none",
            "alpha": 0.75,
            "pad": 0.5,
        },
        zorder=4,
        arrowprops={
            "arrowstyle": "-",
            "linewidth": 0.6,
            "color": colour,
            "shrinkB": 5,
            "relpos": (0.0, 0.5),
        },
    )


def _groups(found: Sequence[Curve]) -> list[list[Curve]]:
    """Curves of a kind that end in one place; worst cases stand alone."""
    groups: list[list[Curve]] = []
    for curve in found:
        for group in groups:
            if _may_join(curve, group[0]):
                group.append(curve)
                break
        else:
            groups.append([curve])
    return groups


def _from_the_top(group: Sequence[Curve]) -> tuple[float, bool]:
    return -_end(group[0])[1], not group[0].is_worst_case


def _label(group: Sequence[Curve]) -> str:
    if group[0].is_worst_case:
        return group[0].kind.name
    return ", ".join(curve.name for curve in group)


def _may_join(curve: Curve, other: Curve) -> bool:
    (x, y), (other_x, other_y) = _end(curve), _end(other)
    return (
        not (curve.is_worst_case or other.is_worst_case)
        and curve.kind == other.kind
        and x == other_x
        and abs(y - other_y) <= _SAME
    )


def _spread(heights: Sequence[float], top: float) -> list[float]:
    """Descending heights, moved apart to `_GAP` and back above the bottom."""
    placed: list[float] = []
    for height in heights:
        placed.append(min(height, placed[-1] - _GAP if placed else top))
    lowest = 0.0
    for place in reversed(range(len(placed))):
        placed[place] = max(placed[place], lowest)
        lowest = placed[place] + _GAP
    return placed


def _end(curve: Curve) -> tuple[float, float]:
    return curve.points[-1]


def _handle(kind: Kind) -> Any:
    look: dict[str, Any] = {"linestyle": kind.line, "marker": kind.marker}
    return Line2D(
        [], [], color=kind.colour, linewidth=2.6, label=kind.name, **look
    )


def _undated(path: Path) -> dict[str, Any]:
    """The same curves make the same file."""
    return {"Date": None} if path.suffix == ".svg" else {}
