"""losses.csv: appended, cut back, read."""

import numpy as np
import pytest

from ape_gan_tf.loss_history import LossHistory, read_losses


@pytest.fixture
def path(tmp_path):
    return tmp_path / "losses.csv"


@pytest.fixture
def history(path):
    history = LossHistory(path, ("first", "second"))
    history.append([(5, 0.1, 1e-8), (10, 1 / 3, 2.0)])
    return history


def test_rows_come_back_to_the_last_bit(history, path):
    columns = read_losses(path)
    assert list(columns) == ["step", "first", "second"]
    np.testing.assert_array_equal(columns["step"], [5, 10])
    np.testing.assert_array_equal(columns["first"], [0.1, 1 / 3])
    np.testing.assert_array_equal(columns["second"], [1e-8, 2.0])


def test_rows_are_appended_behind_those_that_are_there(history, path):
    history.append([(15, 3.0, 4.0)])
    np.testing.assert_array_equal(read_losses(path)["step"], [5, 10, 15])


@pytest.mark.parametrize(
    ("step", "kept"),
    [(0, []), (5, [5]), (9, [5]), (10, [5, 10]), (99, [5, 10])],
)
def test_rows_past_a_step_are_dropped(history, path, step, kept):
    history.truncate(step)
    np.testing.assert_array_equal(read_losses(path)["step"], kept)


def test_a_new_history_has_a_header_and_no_rows(path):
    LossHistory(path, ("loss",)).truncate(0)
    assert path.read_text() == "step,loss\n"
    assert read_losses(path)["loss"].shape == (0,)
