"""The training loop: checkpoints, resumption, losses that are not finite."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import data
from ape_gan_tf.classifier_training import ClassifierConfig, ClassifierTrainer
from ape_gan_tf.loss_history import read_losses
from ape_gan_tf.training_loop import (
    LoopSettings,
    NonFiniteLossError,
    TrainingLoop,
)


class Adder:
    """Sums what it is given; the loss of a step is its input."""

    loss_names = ("loss",)

    def __init__(self):
        self.total = tf.Variable(0.0)

    def trackables(self):
        return {"total": self.total}

    def train_step(self, batch):
        self.total.assign_add(batch["x"])
        return (batch["x"],)


class Poisoned(Adder):
    """The loss of step 6 is finite, but not what it does to the weights."""

    def train_step(self, batch):
        super().train_step(batch)
        bad = tf.where(batch["x"] == 6.0, np.nan, 1.0)
        self.total.assign(self.total * bad)
        return (batch["x"],)


def batches(values):
    def make(start):
        steps = tf.data.Dataset.from_tensor_slices(
            np.asarray(values, np.float32)
        )
        return steps.skip(start).map(lambda x: {"x": x})

    return make


def run(trainer, directory, values, every=3, **options):
    settings = LoopSettings(checkpoint_every=every, description="adding")
    loop = TrainingLoop(trainer, directory, settings)
    loop.run(batches(values), len(values), **options)


class Stop(Exception):
    pass


def stop_at(step):
    def on_checkpoint(reached):
        if reached == step:
            raise Stop

    return on_checkpoint


def test_every_step_is_made_once(tmp_path):
    trainer = Adder()
    run(trainer, tmp_path, range(1, 101), every=7)
    assert trainer.total.numpy() == 5050.0


def test_checkpoints_come_when_they_are_due_and_at_the_end(tmp_path):
    reached = []
    run(Adder(), tmp_path, range(1, 9), on_checkpoint=reached.append)
    assert reached == [3, 6, 8]
    # The last two are kept.
    kept = sorted(path.name for path in tmp_path.glob("*.index"))
    assert kept == ["ckpt-6.index", "ckpt-8.index"]


def test_the_history_has_the_means_since_the_row_before(tmp_path):
    run(Adder(), tmp_path, range(1, 51), every=25)
    losses = read_losses(tmp_path / "losses.csv")
    np.testing.assert_array_equal(losses["step"], [20, 25, 45, 50])
    # The means of 1 .. 20, 21 .. 25, 26 .. 45 and 46 .. 50.
    np.testing.assert_array_equal(losses["loss"], [10.5, 23.0, 35.5, 48.0])


@pytest.mark.parametrize("step", [3, 6])
def test_a_stopped_run_goes_on_from_its_checkpoint(tmp_path, step):
    undisturbed = Adder()
    run(undisturbed, tmp_path / "a", range(1, 9))
    with pytest.raises(Stop):
        run(Adder(), tmp_path / "b", range(1, 9), on_checkpoint=stop_at(step))
    resumed = Adder()
    reached = []
    run(resumed, tmp_path / "b", range(1, 9), on_checkpoint=reached.append)
    assert resumed.total.numpy() == undisturbed.total.numpy() == 36.0
    assert reached == [x for x in (3, 6, 8) if x > step]
    csv = [(tmp_path / x / "losses.csv").read_bytes() for x in "ab"]
    assert csv[0] == csv[1]


def test_a_finished_run_is_not_run_again(tmp_path):
    run(Adder(), tmp_path, range(1, 9))
    again = Adder()
    run(again, tmp_path, range(1, 9), on_checkpoint=stop_at(8))
    assert again.total.numpy() == 36.0


def test_rows_past_the_last_checkpoint_are_made_again(tmp_path):
    run(Adder(), tmp_path, range(1, 9))
    with pytest.raises(Stop):
        run(Adder(), tmp_path / "b", range(1, 9), on_checkpoint=stop_at(3))
    # As if it had been killed between the rows and the checkpoint.
    with (tmp_path / "b" / "losses.csv").open("a") as file:
        file.write("6,123.0\n")
    run(Adder(), tmp_path / "b", range(1, 9))
    csv = [(tmp_path / x / "losses.csv").read_bytes() for x in ("", "b")]
    assert csv[0] == csv[1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(tmp_path, bad):
    values = [1, 2, 3, 4, bad, bad, 7, 8]
    for _ in range(2):  # The same again, from the last good checkpoint.
        with pytest.raises(
            NonFiniteLossError, match=r"adding stopped: .* at step 5; .*ckpt-3"
        ):
            run(Adder(), tmp_path, values)
        losses = read_losses(tmp_path / "losses.csv")
        np.testing.assert_array_equal(losses["step"], [3])
    assert [path.name for path in tmp_path.glob("*.index")] == ["ckpt-3.index"]
    healed = Adder()
    run(healed, tmp_path, [0, 0, 0, 4, 5, 6, 7, 8])
    assert healed.total.numpy() == 36.0


def test_a_loss_that_is_not_finite_at_once_leaves_no_checkpoint(tmp_path):
    with pytest.raises(NonFiniteLossError, match="step 1; .* none, it came"):
        run(Adder(), tmp_path, [np.nan, 2, 3, 4])
    assert not list(tmp_path.glob("ckpt*"))


def test_weights_that_are_not_finite_are_never_kept(tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"step 6; .*ckpt-3"):
        run(Poisoned(), tmp_path, range(1, 9))
    assert [path.name for path in tmp_path.glob("*.index")] == ["ckpt-3.index"]


class Regression:
    """A small network under Adam."""

    loss_names = ("loss",)

    def __init__(self):
        self.model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(
                    8,
                    activation="tanh",
                    kernel_initializer=keras.initializers.GlorotUniform(1),
                ),
                keras.layers.Dense(
                    1, kernel_initializer=keras.initializers.GlorotUniform(2)
                ),
            ]
        )
        self.optimizer = keras.optimizers.Adam(0.01)
        self.optimizer.build(self.model.trainable_variables)

    def trackables(self):
        return {"model": self.model, "optimizer": self.optimizer}

    def train_step(self, batch):
        inputs = tf.reshape(batch["x"] + tf.range(6.0), (2, 3)) / 10.0
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(inputs) - 1.0))
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return (loss,)


def test_xla_gives_nearly_the_same(tmp_path):
    weights = []
    for xla in (False, True):
        trainer = Regression()
        settings = LoopSettings(checkpoint_every=10, xla=xla)
        loop = TrainingLoop(trainer, tmp_path / str(xla), settings)
        loop.run(batches(range(20)), 20)
        weights.append(trainer.model.get_weights())
    for plain, compiled in zip(*weights, strict=True):
        np.testing.assert_allclose(compiled, plain, atol=1e-5)


# A classifier with dropout: its random state has to come back, too


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def train_a(directory, digits, on_checkpoint=None):
    config = ClassifierConfig(classifier="A", batch_size=8)
    trainer = ClassifierTrainer(config, digits.image_shape, 10, 8)
    loop = TrainingLoop(trainer, directory, LoopSettings(checkpoint_every=4))
    loop.run(
        lambda start: digits.training_batches(
            "train", 8, seed=1, start_step=start, total_steps=8, shift=2
        ),
        8,
        on_checkpoint,
    )
    states = trainer.trackables()
    variables = states["model"].variables + states["optimizer"].variables
    return [np.asarray(variable) for variable in variables]


def test_dropout_goes_on_as_if_nothing_had_happened(tmp_path, digits):
    undisturbed = train_a(tmp_path / "a", digits)
    with pytest.raises(Stop):
        train_a(tmp_path / "b", digits, stop_at(4))
    resumed = train_a(tmp_path / "b", digits)
    # Weights, their two moments, two dropout layers and the steps taken.
    assert len(undisturbed) == 3 * 8 + 2 + 1
    for expected, found in zip(undisturbed, resumed, strict=True):
        np.testing.assert_array_equal(found, expected)
    csv = [(tmp_path / x / "losses.csv").read_bytes() for x in "ab"]
    assert csv[0] == csv[1]
