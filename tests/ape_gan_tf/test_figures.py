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
