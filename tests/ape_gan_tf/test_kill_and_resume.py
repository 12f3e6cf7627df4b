"""SIGKILL at any stage, and the same command again: as if never disturbed.

The undisturbed run is `tiny_run`. The killed one repeats it from its
`flags.txt` in another folder, dies in each stage of training, and goes on.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

import models
from ape_gan_tf.metrics import MetricsFile

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300  # On a machine that is busy with something else.


def start(name, *words):
    """A command in a process of its own, as a user types it."""
    environment = dict(os.environ)
    # Where the packages are not installed.
    environment["PYTHONPATH"] = str(ROOT)
    # A shell has its background jobs, perhaps these tests, ignore Ctrl-C; the
    # command is to be one in the foreground.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", f"ape_gan_tf.{name}", *map(str, words)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def kill_when(process, condition, with_signal=signal.SIGKILL):
    """Kills a process once `condition()` holds; returns what it said."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"too late: {process.communicate()[1]}")
        time.sleep(0.002)
    process.send_signal(with_signal)
    return process.communicate(timeout=SECONDS)[1]


def variables_in(folder):
    """All that the last checkpoint of a folder holds."""
    path = tf.train.latest_checkpoint(folder)
    reader = tf.train.load_checkpoint(path)
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def names_in(folder):
    """Without TensorFlow's own half-written files, which a kill can leave."""
    return {
        path.name
        for path in folder.iterdir()
        if not path.name.startswith("checkpoint.tmp")
    }


class Killed(NamedTuple):
    """A run that was killed on the way and then finished.

    Attributes:
        workdir: Its folder.
        in_classifier: What was in it when the classifier's training died.
        steps_in_classifier: How many steps a checkpoint had by then.
        in_purifier: The same for the purifier's training.
        steps_in_purifier: The same.
        stderr: What the last, undisturbed command said.
    """

    workdir: Path
    in_classifier: set[str]
    steps_in_classifier: int
    in_purifier: set[str]
    steps_in_purifier: int
    stderr: str


def steps_done(folder):
    return int(tf.train.latest_checkpoint(folder).rpartition("-")[2])


@pytest.fixture(scope="module")
def killed(tiny_run, tmp_path_factory, command):
    workdir = tmp_path_factory.mktemp("killed") / "run"
    flagfile = tiny_run.workdir / "flags.txt"
    words = (f"--flagfile={flagfile}", f"--workdir={workdir}")
    classifier = workdir / "classifier_checkpoints"
    kill_when(start("train", *words), (classifier / "checkpoint").exists)
    in_classifier = names_in(workdir), steps_done(classifier)

    purifier = workdir / "checkpoints"
    kill_when(start("train", *words), (purifier / "checkpoint").exists)
    in_purifier = names_in(workdir), steps_done(purifier)

    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        code = command("train", *words)
    if code:
        pytest.fail(f"the last command failed: {stderr.getvalue()}")
    return Killed(workdir, *in_classifier, *in_purifier, stderr.getvalue())


def test_training_the_classifier_was_cut_short_and_went_on(killed, tiny_run):
    assert killed.in_classifier == {
        ".lock",
        "flags.txt",
        "classifier_checkpoints",
    }
    assert 5 <= killed.steps_in_classifier < 48
    folders = [
        x / "classifier_checkpoints" for x in (tiny_run.workdir, killed.workdir)
    ]
    expected, found = map(variables_in, folders)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert names_in(folders[0]) == names_in(folders[1])
    csv = [(folder / "losses.csv").read_bytes() for folder in folders]
    assert csv[0] == csv[1]
    fingerprints = [
        models.Classifier.load(x / "classifier").fingerprint
        for x in (tiny_run.workdir, killed.workdir)
    ]
    assert fingerprints[0] == fingerprints[1]


def test_the_training_set_has_the_same_bytes(killed, tiny_run):
    sets = [
        (x / "adversarial" / "train.h5").read_bytes()
        for x in (tiny_run.workdir, killed.workdir)
    ]
    assert sets[0] == sets[1]


def test_training_the_purifier_was_cut_short_and_went_on(killed, tiny_run):
    assert "purifier.keras" not in killed.in_purifier
    assert {"classifier", "adversarial", "checkpoints"} <= killed.in_purifier
    assert 5 <= killed.steps_in_purifier < 24
    assert f"continues at {killed.steps_in_purifier} of 24" in killed.stderr
    folders = [x / "checkpoints" for x in (tiny_run.workdir, killed.workdir)]
    expected, found = map(variables_in, folders)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    csv = [(folder / "losses.csv").read_bytes() for folder in folders]
    assert csv[0] == csv[1]
    weights = [
        models.Purifier.load(x / "purifier.keras").keras_model.get_weights()
        for x in (tiny_run.workdir, killed.workdir)
    ]
    for expected, found in zip(*weights, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_same_is_measured_and_left_behind(killed, tiny_run):
    rows = [
        MetricsFile(x / "metrics.json").rows
        for x in (tiny_run.workdir, killed.workdir)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4
    flags = [
        (x / "flags.txt").read_text()
        for x in (tiny_run.workdir, killed.workdir)
    ]
    assert flags[0] == flags[1]
    assert names_in(tiny_run.workdir) == names_in(killed.workdir)


def test_a_killed_craft_goes_on_to_the_same_bytes(tiny_run, tmp_path, command):
    words = [
        f"--classifier={tiny_run.workdir / 'classifier'}",
        "--attack_params=epsilon=0.4,epsilon_min=0.1",
        "--split=train",
        "--limit=480",
        "--shard_size=16",
    ]
    assert command("craft", *words, f"--output={tmp_path / 'whole'}") == 0
    killed = tmp_path / "killed"
    words.append(f"--output={killed}")
    third = killed / "00002-of-00030.h5"
    kill_when(start("craft", *words), third.exists)
    finished = sorted(killed.glob("*.h5"))
    assert 3 <= len(finished) < 30
    written = [path.stat().st_mtime_ns for path in finished]

    assert command("craft", *words) == 0
    # What was finished is kept, and nothing is left over.
    assert [path.stat().st_mtime_ns for path in finished] == written
    assert names_in(killed) == names_in(tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (killed / path.name).read_bytes()


def test_a_killed_export_leaves_no_version(tiny_run, tmp_path, command):
    words = (
        f"--purifier={tiny_run.workdir / 'purifier.keras'}",
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--output={tmp_path / 'purifier'}",
    )

    def is_writing():
        return any((tmp_path / "purifier").glob(".partial-*/*"))

    kill_when(start("export", *words), is_writing)
    assert "1" not in names_in(tmp_path / "purifier")
    assert command("export", *words) == 0
    assert names_in(tmp_path / "purifier") == {"1"}
    exported = models.Purifier.load(tmp_path / "purifier")
    original = models.Purifier.load(tiny_run.workdir / "purifier.keras")
    assert exported.fingerprint == original.fingerprint


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    checkpoints = tmp_path / "classifier_checkpoints"
    process = start(
        "train_classifier",
        f"--workdir={tmp_path}",
        "--limit=640",
        "--batch_size=64",
        "--epochs=100",
        "--checkpoint_every=2",
    )

    # While a checkpoint is written, perhaps: there TensorFlow runs Python in
    # callbacks, which swallow what is raised in them.
    stderr = kill_when(
        process, (checkpoints / "checkpoint").exists, signal.SIGINT
    )
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == (
        "train_classifier: interrupted; run the same command again to "
        "continue: what is finished is kept"
    )
    assert "Traceback" not in stderr
    assert "classifier" not in names_in(tmp_path)
