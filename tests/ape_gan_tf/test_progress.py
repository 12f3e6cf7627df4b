"""Progress in a log file, where there is no terminal."""

import pytest

from ape_gan_tf import progress
from ape_gan_tf.progress import Progress


def lines(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_short_work_gives_one_line(capsys):
    with Progress("crafting", 2000, "images") as bar:
        for _ in range(20):
            bar.update(100)
    assert lines(capsys) == ["crafting: 2,000 of 2,000 images in 0 s"]


def test_work_that_continues_says_where(capsys):
    with Progress("training", 10, "steps", 4) as bar:
        bar.update(6)
    assert lines(capsys) == [
        "training: continues at 4 of 10 steps",
        "training: 10 of 10 steps in 0 s",
    ]


def test_long_work_gives_lines_with_the_time_that_is_left(capsys, monkeypatch):
    clock = iter([0.0, 4.0, 40.0, 40.0, 40.0, 50.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress("training", 100, "steps", 20) as bar:
        bar.update(20)
        # Forty seconds for 40 steps: 40 more seconds for the other 40.
        bar.update(20, note="loss 0.5")
    assert lines(capsys) == [
        "training: continues at 20 of 100 steps",
        "training: 60 of 100 steps, 1.0 a second, 40 s left, loss 0.5",
        "training: 60 of 100 steps in 50 s",
    ]


def test_work_that_fails_says_how_far_it_came(capsys):
    with pytest.raises(KeyError), Progress("training", 10, "steps") as bar:
        bar.update(3)
        raise KeyError
    assert lines(capsys) == ["training: 3 of 10 steps in 0 s"]


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with Progress("training", 10, "steps") as bar:
        bar.update(10, note="loss 0.5")
    shown = capsys.readouterr().err
    assert "training: 100%" in shown and "10/10" in shown
    assert "loss 0.5" in shown
