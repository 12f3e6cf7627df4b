"""Pictures: that they are written, and that they say what they should."""

import numpy as np
import pytest
from PIL import Image

from ape_gan_tf import figures
from ape_gan_tf.figures import ImageRow
from ape_gan_tf.loss_history import LossHistory

LABELS = np.array([0, 1, 2])
NAMES = ("zero", "one", "two")
IMAGES = np.linspace(0, 1, 3 * 36, dtype=np.float32).reshape(3, 6, 6, 1)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def draw(path, predictions, images=IMAGES):
    rows = [ImageRow("clean", images, np.array(predictions))]
    figures.image_grid(path, rows, LABELS, NAMES, "a title")
    return pixels(path)


def has_colour(picture, colour):
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return (np.abs(picture.astype(int) - wanted).max(-1) < 8).any()


def test_right_answers_are_green_and_wrong_ones_red(tmp_path):
    right = draw(tmp_path / "right.png", [0, 1, 2])
    assert has_colour(right, figures.RIGHT)
    assert not has_colour(right, figures.WRONG)
    wrong = draw(tmp_path / "wrong.png", [1, 2, 0])
    assert has_colour(wrong, figures.WRONG)
    assert not has_colour(wrong, figures.RIGHT)


def test_a_grid_has_room_for_each_row_and_column(tmp_path):
    one = draw(tmp_path / "one.png", [0, 1, 2])
    rows = [ImageRow(str(n), IMAGES, LABELS) for n in range(4)]
    figures.image_grid(tmp_path / "four.png", rows, LABELS, NAMES, "a title")
    four = pixels(tmp_path / "four.png")
    assert four.shape[1] == one.shape[1] > 300
    assert four.shape[0] > 2 * one.shape[0] > 300


def test_colour_images_are_drawn_in_colour(tmp_path):
    red = np.zeros((3, 6, 6, 3), np.float32)
    red[..., 0] = 1.0
    assert has_colour(draw(tmp_path / "red.png", LABELS, red), "#ff0000")


def test_grey_is_neither_stretched_nor_turned_round(tmp_path):
    black = np.zeros((3, 6, 6, 1), np.float32)
    assert has_colour(draw(tmp_path / "a.png", LABELS, black), "#000000")
    grey = draw(tmp_path / "b.png", LABELS, black + 0.5)
    assert has_colour(grey, "#7f7f7f")


def test_a_perturbation_is_amplified_around_grey():
    change = np.zeros_like(IMAGES)
    change[0, 0, 0], change[1, 2, 3] = 0.04, -0.02
    row = figures.perturbation_row(np.full_like(IMAGES, 0.5), 0.5 + change)
    # 0.5 / 0.04 is 12.5, and 10 the next round number below it.
    assert row.label == "perturbation\n× 10, grey: none"
    assert row.predictions is None
    np.testing.assert_allclose(row.images, 0.5 + 10 * change, atol=1e-5)


@pytest.mark.parametrize(
    ("largest", "factor"),
    [(1.0, 0.5), (0.5, 1.0), (0.3, 1.0), (0.25, 2.0), (8 / 255, 10.0)],
)
def test_the_factor_is_round_and_clips_nothing(largest, factor):
    black = np.zeros((2, 3, 3, 1), np.float32)
    row = figures.perturbation_row(black, black + np.float32(largest))
    assert f"× {factor:g}," in row.label
    np.testing.assert_allclose(row.images, 0.5 + factor * largest, atol=1e-5)


def test_no_perturbation_is_grey_and_a_given_factor_clips():
    row = figures.perturbation_row(IMAGES, IMAGES)
    assert (row.images == 0.5).all()
    row = figures.perturbation_row(0 * IMAGES, 0 * IMAGES + 0.4, "what", 5)
    assert row.label == "what\n× 5, grey: none"
    assert (row.images == 1.0).all()


def test_a_row_without_predictions_has_no_marks(tmp_path):
    rows = [figures.perturbation_row(IMAGES, IMAGES)]
    figures.image_grid(tmp_path / "x.png", rows, LABELS, NAMES, "a title")
    picture = pixels(tmp_path / "x.png")
    assert not has_colour(picture, figures.RIGHT)
    assert not has_colour(picture, figures.WRONG)
    assert has_colour(picture, "#7f7f7f")


def test_loss_curves_are_drawn_a_panel_each(tmp_path):
    for count in (1, 3):
        path = tmp_path / f"{count}.csv"
        history = LossHistory(path, tuple(f"loss_{n}" for n in range(count)))
        history.append([(n, *[1.0 / n] * count) for n in (1, 2, 3)])
        figures.loss_curves(tmp_path / f"{count}.png", path, "losses")
    one, three = (pixels(tmp_path / f"{n}.png") for n in (1, 3))
    assert three.shape[1] > 2.5 * one.shape[1] > 500
    assert three.std() > 5


def test_a_picture_that_fails_leaves_none(tmp_path):
    with pytest.raises(IndexError):
        draw(tmp_path / "x.png", [0, 1, 7])
    assert list(tmp_path.iterdir()) == []
