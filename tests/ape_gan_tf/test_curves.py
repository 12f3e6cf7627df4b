"""The curves of error over epsilon: their points, and their picture."""

import dataclasses

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from ape_gan_tf import curves
from tests.ape_gan_tf.report_rows import (
    EPSILONS,
    OBLIVIOUS,
    WHITE_BOX,
    all_rows,
    clean,
    in_balls,
    make_row,
    single_attacks,
    without_purifier,
)


def named(rows):
    found = curves.curves(rows)
    names = {(curve.kind.name, curve.name): curve.points for curve in found}
    assert len(names) == len(found)
    return names


def points(clean_error, errors):
    return tuple(zip((0.0, *EPSILONS), (clean_error, *errors), strict=True))


def test_each_attack_of_each_attacker_is_a_curve_from_the_clean_error():
    found = named(all_rows())
    assert set(found) == {
        ("knows the purifier", "fgsm"),
        ("knows the purifier", "worst case"),
        ("does not know it", "fgsm"),
        ("does not know it", "worst case"),
        ("attacks another model", "fgsm"),
        ("attacks another model", "worst case"),
        ("no purifier", "worst case"),
    }
    knows = found["knows the purifier", "worst case"]
    assert knows == points(0.6, WHITE_BOX)
    assert found["does not know it", "fgsm"] == points(0.6, OBLIVIOUS)
    bare = found["no purifier", "worst case"]
    assert bare == points(0.2, (78.0, 100.0, 100.0))


def test_a_classifier_without_worst_cases_has_its_single_attacks():
    found = named(without_purifier(single_attacks()))
    assert found == {("no purifier", "fgsm"): points(0.2, (30.0, 80.0, 98.0))}


def test_of_several_settings_in_a_ball_the_one_that_does_most_counts():
    weak = in_balls("pgd", "white_box", (9.0, 90.0, 9.0))
    strong = in_balls("pgd", "white_box", (50.0, 60.0, 70.0))
    found = named([*weak, *strong])
    assert found == {
        ("knows the purifier", "pgd"): ((0.1, 50.0), (0.2, 90.0), (0.3, 70.0))
    }


def test_one_ball_no_ball_and_no_figure_are_no_curve(tmp_path):
    rows = [
        clean(),
        make_row("cw_l2", "white_box", purified_error=9.0),
        make_row(params={"epsilon": 0.3}, purified_error=9.0),
        *in_balls("fgsm", "white_box", None, remark="not attacked adaptively"),
    ]
    assert curves.draw(tmp_path / "x.png", rows) == []
    assert list(tmp_path.iterdir()) == []


def test_kinds_are_told_apart_without_colour():
    looks = {(kind.line, kind.marker) for kind in curves.KINDS}
    assert len(looks) == len(curves.KINDS)
    assert len({kind.line for kind in curves.KINDS}) == len(curves.KINDS)
    assert len({kind.marker for kind in curves.KINDS}) == len(curves.KINDS)


def test_worst_cases_are_the_boldest_and_named_beside_their_end():
    figure = curves.picture(curves.curves(all_rows()))
    (panel,) = figure.axes
    widths = [line.get_linewidth() for line in panel.lines]
    assert sorted(widths)[-4:] == [max(widths)] * 4 > sorted(widths)[:-4]
    bold = [x for x in panel.texts if x.get_fontweight() == "bold"]
    assert {x.get_text() for x in bold} == {kind.name for kind in curves.KINDS}
    for text in bold:
        (kind,) = (x for x in curves.KINDS if x.name == text.get_text())
        assert text.xy[0] == 0.3
        assert to_hex(text.get_color()) == kind.colour


def test_labels_keep_their_distance_inside_the_panel():
    figure = curves.picture(curves.curves(all_rows()))
    heights = sorted(text.xyann[1] for text in figure.axes[0].texts)
    assert len(heights) > 5
    assert np.diff(heights).min() >= curves._GAP - 1e-9
    assert heights[0] >= 0.0 and heights[-1] <= 100.0


def test_names_stand_where_curves_end_not_where_others_go_on():
    beyond = make_row("fgsm", "white_box", params={"epsilon": 0.9})
    rows = [*all_rows(), dataclasses.replace(beyond, purified_error=100.0)]
    (panel,) = curves.picture(curves.curves(rows)).axes
    for text in panel.texts:
        assert 0.0 < text.xyann[0] - text.xy[0] < 0.1
        if text.xy[0] == 0.3:
            assert text.xyann[1] < 95.0
    assert {text.xy[0] for text in panel.texts} == {0.3, 0.9}


def test_attacks_of_a_kind_that_end_together_share_a_label():
    rows = [
        *in_balls("fgsm", "white_box", (1.0, 2.0, 50.0)),
        *in_balls("pgd", "white_box", (1.0, 2.0, 51.0)),
        *in_balls("fgsm", "oblivious", (1.0, 2.0, 50.5)),
    ]
    figure = curves.picture(curves.curves(rows))
    texts = sorted(text.get_text() for text in figure.axes[0].texts)
    assert texts == ["fgsm", "fgsm, pgd"]


def test_each_norm_has_its_own_panel():
    other = [
        dataclasses.replace(row, params={**row.params, "norm": "l2"})
        for row in all_rows()
        if row.input == "worst_case"
    ]
    figure = curves.picture(curves.curves([*all_rows(), *other]))
    labels = [panel.get_xlabel() for panel in figure.axes]
    assert [("Linf" in x, "L2" in x) for x in labels] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("name", ["x.png", "x.svg"])
def test_the_same_curves_make_the_same_file(tmp_path, name):
    first, second = tmp_path / name, tmp_path / "again" / name
    for path in (first, second):
        assert len(curves.draw(path, all_rows())) == 7
    assert first.read_bytes() == second.read_bytes()


def test_a_picture_shows_the_curves_colours(tmp_path):
    path = tmp_path / "x.png"
    curves.draw(path, all_rows())
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for kind in curves.KINDS:
        wanted = [int(kind.colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - wanted).max(-1) < 8).sum() > 200


def test_the_description_has_the_figures():
    text = curves.describe(curves.curves(all_rows()))
    assert (
        "knows the purifier, worst case (Linf): "
        "0.6 at 0, 84.2 at 0.1, 99.6 at 0.2, 100.0 at 0.3" in text
    )
