"""Pictures: images before and after the purifier, and loss curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ape_gan_tf.loss_history import read_losses
from data.files import written_whole

RIGHT, WRONG = "#1b7837", "#b2182b"
DOTS_PER_INCH = 150
# From one image's left edge to the next one's, in widths of an image.
_PITCH = 1.08


@dataclasses.dataclass(frozen=True)
class ImageRow:
    """One row of an image grid.

    Attributes:
        label: What the images are, written at the left.
        images: float32 `[N, H, W, C]` in [0, 1].
        predictions: int64 `[N]`, what the classifier sees in them; None of
            pictures that nobody shows to it.
    """

    label: str
    images: np.ndarray
    predictions: np.ndarray | None


def perturbation_row(
    clean: np.ndarray,
    perturbed: np.ndarray,
    label: str = "perturbation",
    factor: float | None = None,
) -> ImageRow:
    """A row that shows, amplified, what was done to images.

    Middle grey is no change, lighter is more and darker is less, in each
    channel. What the factor drives out of [0, 1] is clipped.

    Args:
        clean: float32 `[N, H, W, C]` in [0, 1].
        perturbed: The same images, changed.
        label: Of the row; the factor is written below it.
        factor: By which the changes are multiplied; None takes the largest of
            1, 2, 5, 10, 20... (or 0.5) that clips none.
    """
    change = perturbed - clean
    if factor is None:
        factor = _factor(float(np.abs(change).max(initial=0.0)))
    return ImageRow(
        f"{label}\n× {factor:g}, grey: none",
        np.clip(0.5 + factor * change, 0.0, 1.0),
        None,
    )


def image_grid(
    path: Path,
    rows: Sequence[ImageRow],
    labels: np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> None:
    """Draws the paper's Figure 4 with what the classifier says of each image.

    A right answer is green and has a check mark, a wrong one is red and has a
    cross, so that the picture works without colour too.

    Args:
        path: The PNG file.
        rows: Each a kind of input, before or after the purifier.
        labels: int64 `[N]`, the true classes.
        class_names: Their names.
        title: Written above.
    """
    columns = len(labels)
    figure = Figure(
        figsize=(1.6 + 0.95 * columns, 0.6 + 1.15 * len(rows)),
        layout="constrained",
    )
    figure.suptitle(title)
    # One pair of axes a row: one an image takes Matplotlib seconds to lay out.
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for row, axis in zip(rows, axes, strict=True):
        for column, image in enumerate(row.images):
            _draw_image(axis, image, column)
            if row.predictions is not None:
                _draw_prediction(
                    axis,
                    class_names[row.predictions[column]],
                    bool(row.predictions[column] == labels[column]),
                    column,
                )
        _finish_row(axis, columns, row.label)
    _save(figure, path)


def loss_curves(path: Path, losses_csv: Path, title: str) -> None:
    """Draws each loss over the steps, one small panel each.

    Args:
        path: The PNG file.
        losses_csv: What the training loop wrote.
        title: Written above.
    """
    columns = read_losses(losses_csv)
    steps = columns.pop("step")
    figure = Figure(figsize=(3.4 * len(columns), 2.8), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axis, (name, values) in zip(panels, columns.items(), strict=True):
        axis.plot(steps, values, linewidth=1.0)
        axis.set_title(name.replace("_", " "), fontsize=10)
        axis.set_xlabel("step")
        axis.set_ylim(bottom=0.0)
        axis.grid(alpha=0.3)
    _save(figure, path)


def _factor(largest: float) -> float:
    """By how much the largest change may be multiplied, in round numbers."""
    room = np.float32(0.5) / np.float32(max(largest, 1e-6))
    steps = [0.5, *(m * 10.0**k for k in range(6) for m in (1, 2, 5))]
    return max(step for step in steps if step <= room)


def _draw_image(axis: Any, image: np.ndarray, column: int) -> None:
    """An image is 1 wide, framed, the next one a little further right."""
    height, width, channels = image.shape
    is_grey = channels == 1
    left = _PITCH * column
    axis.imshow(
        image[..., 0] if is_grey else image,
        cmap="gray" if is_grey else None,
        vmin=0.0,
        vmax=1.0,
        interpolation="nearest",
        extent=(left, left + 1.0, 0.0, height / width),
    )
    axis.add_patch(
        Rectangle((left, 0.0), 1.0, height / width, fill=False, linewidth=0.8)
    )


def _draw_prediction(axis: Any, name: str, is_right: bool, column: int) -> None:
    axis.annotate(
        f"{'✓' if is_right else '✗'} {name}",
        # Two points above the image.
        (_PITCH * column + 0.5, 1.0),
        (0, 2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
        color=RIGHT if is_right else WRONG,
    )


def _finish_row(axis: Any, columns: int, label: str) -> None:
    """Leaves of the axes the images and the row's label."""
    axis.set_xlim(-0.01, _PITCH * (columns - 1) + 1.01)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)


def _save(figure: Figure, path: Path) -> None:
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
