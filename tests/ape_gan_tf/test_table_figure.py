"""The picture of a table, looked at by its pixels."""

import itertools

import numpy as np
import pytest
from PIL import Image

from ape_gan_tf import paper, table_figure
from tests.ape_gan_tf.table_results import all_missing, make_result


def draw(path, result):
    table_figure.draw(path, result)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def heights(picture, colour):
    """How high each bar of a colour stands, in pixels, from left to right.

    Those of panels that stand on top of one another are added up; the legend,
    the last rows, is left out.
    """
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    rows = picture[: -len(picture) // 10]
    counts = (np.abs(rows - wanted).max(-1) < 8).sum(0)
    runs = itertools.groupby(counts, key=lambda count: count > 0)
    bars = [list(run) for is_bar, run in runs if is_bar]
    return [float(np.median(bar)) for bar in bars if len(bar) > 10]


def test_bars_stand_as_high_as_the_roots_of_the_errors(tmp_path):
    # The paper's: 0.8, 1.2 and 1.7, 1.6.
    result = make_result("mnist", "2", [[100.0, 25.0], [1.0, 49.0]])
    picture = draw(tmp_path / "x.png", result)
    ours = heights(picture, table_figure.OURS)
    assert len(ours) == 4
    whole = ours[0]
    assert whole > 150
    expected = [whole, 0.1 * whole, 0.5 * whole, 0.7 * whole]
    assert ours == pytest.approx(expected, abs=3)
    theirs = heights(picture, table_figure.PAPER)
    roots = np.sqrt([0.8, 1.7, 1.2, 1.6]) / 10
    assert theirs == pytest.approx(list(whole * roots), abs=3)


def test_what_is_missing_has_no_bar(tmp_path):
    picture = draw(tmp_path / "x.png", all_missing("mnist", "2"))
    assert heights(picture, table_figure.OURS) == []
    assert len(heights(picture, table_figure.PAPER)) == 4
    # The errors of purified clean images are not in the paper.
    lines = [[None, 9.0]] * 3
    picture = draw(tmp_path / "y.png", make_result("mnist", "targets", lines))
    assert len(heights(picture, table_figure.OURS)) == 3
    assert len(heights(picture, table_figure.PAPER)) == 3


def words(panel):
    return (panel.title, *panel.get_xticklabels(), *panel.texts)


@pytest.mark.parametrize(
    ("dataset", "name", "stand_ins"),
    [
        ("mnist", "7", {}),
        ("mnist", "9", {}),
        ("cifar10", "targets", {}),
        ("image_folder", "4", {"inception_v3": "mobilenet_v2"}),
    ],
)
def test_no_two_figures_or_titles_overlap(dataset, name, stand_ins):
    table = paper.find(dataset, name)
    # 100 everywhere is where the figures are longest and highest.
    lines = [[100.0] * len(table.columns) for _ in table.inputs]
    lines[0][0] = None
    result = make_result(dataset, name, lines, stand_ins=stand_ins)
    figure = table_figure.bars(result)
    figure.draw_without_rendering()  # Lays it out.
    titles = [figure._suptitle, *(panel.title for panel in figure.axes)]
    for texts in [titles, *(panel.texts for panel in figure.axes)]:
        boxes = [text.get_window_extent() for text in texts]
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)
    for panel in figure.axes:
        top = panel.title.get_window_extent().y0
        assert all(x.get_window_extent().y1 < top for x in panel.texts)
    for text in (text for panel in figure.axes for text in words(panel)):
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def test_the_picture_says_which_bar_is_whose_and_what_is_missing():
    lines = [[None, 0.0], [12.345, 3.0], [1.0, 1.0]]
    result = make_result("mnist", "targets", lines, stand_ins={"A": "somebody"})
    figure = table_figure.bars(result)
    (legend,) = figure.legends
    assert [x.get_text() for x in legend.get_texts()] == ["ours", "the paper's"]
    alone, purified = figure.axes
    assert alone.get_title() == "target"
    assert [x.get_text() for x in alone.get_xticklabels()] == ["A", "B", "C"]
    shown = [[x.get_text() for x in panel.texts] for panel in figure.axes]
    assert shown[0] == ["missing", "12.35", "1.00", "0.9", "0.5", "0.8"]
    assert shown[1] == ["0.00", "3.00", "1.00", *["not given"] * 3]
    assert "(somebody for A)" in figure.get_suptitle().replace("\n", " ")
