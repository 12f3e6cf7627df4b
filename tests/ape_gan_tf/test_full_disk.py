"""A disk that is full: an error, nothing half finished, and on it goes."""

import contextlib
import resource

import numpy as np
import pytest
import tensorflow as tf

import data
import models
from ape_gan_tf.training_loop import LoopSettings, TrainingLoop


@contextlib.contextmanager
def files_of_at_most(size):
    """Writing more fails as on a full disk, if with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names_in(folder):
    return {path.name for path in folder.rglob("*")} if folder.exists() else {}


def test_export_leaves_no_version(command, tiny_run, tmp_path, capsys):
    purifier = tiny_run.workdir / "purifier.keras"
    words = [f"--purifier={purifier}", f"--output={tmp_path / 'purifier'}"]
    with files_of_at_most(20_000):
        assert command("export", *words) == 1
    assert "too large" in capsys.readouterr().err
    assert not names_in(tmp_path / "purifier")
    assert command("export", *words) == 0
    models.Purifier.load(tmp_path / "purifier")


def test_craft_leaves_whole_shards_alone(command, tiny_run, tmp_path, capsys):
    words = [
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--output={tmp_path / 'set'}",
        "--limit=32",
    ]
    with files_of_at_most(100_000):
        assert command("craft", *words) == 1
    assert "too large" in capsys.readouterr().err
    assert not names_in(tmp_path)
    assert command("craft", *words) == 0
    assert data.AdversarialSet.open(tmp_path / "set").count == 32


def test_purify_leaves_no_array(command, tiny_run, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((40, 28, 28, 1), np.float32))
    words = [
        f"--purifier={tiny_run.workdir / 'purifier.keras'}",
        f"--input={tmp_path / 'x.npy'}",
        f"--output={tmp_path / 'purified.npy'}",
    ]
    with files_of_at_most(100_000):
        assert command("purify", *words) == 1
    assert "too large" in capsys.readouterr().err
    assert names_in(tmp_path) == {"x.npy"}
    assert command("purify", *words) == 0


class Wide:
    """Counts in a variable of 400 kB."""

    loss_names = ("loss",)

    def __init__(self):
        self.total = tf.Variable(tf.zeros([100_000]))

    def trackables(self):
        return {"total": self.total}

    def train_step(self, batch):
        self.total.assign_add(tf.fill(self.total.shape, batch))
        return (batch,)


def test_training_goes_on_from_its_last_whole_checkpoint(tmp_path):
    def run(limits):
        trainer = Wide()
        settings = LoopSettings(checkpoint_every=2)
        loop = TrainingLoop(trainer, tmp_path, settings)
        with contextlib.ExitStack() as stack:
            loop.run(
                lambda start: tf.data.Dataset.range(start, 6).map(float_of),
                6,
                lambda step: step == 2 and stack.enter_context(limits),
            )
        return trainer.total.numpy()

    def float_of(number):
        return tf.cast(number, tf.float32)

    with pytest.raises(tf.errors.OpError, match="too large"):
        run(files_of_at_most(100_000))
    assert {x.name for x in tmp_path.glob("*.index")} == {"ckpt-2.index"}
    np.testing.assert_array_equal(run(contextlib.nullcontext()), 15.0)
