"""What the command says of a set that it has written."""

import numpy as np
import pytest
import tensorflow as tf

import attacks
import data
import models
from ape_gan_tf import craft as command
from ape_gan_tf.crafting import craft
from data.splits import array_splits

SHAPE = (4, 4, 3)
WEIGHTS = np.random.default_rng(1).normal(size=(48, 2)).astype(np.float32)


@pytest.fixture
def crafted(tmp_path):
    images = np.random.default_rng(2).integers(90, 166, (9, *SHAPE), np.uint8)
    classifier = models.Classifier.from_callable(
        lambda x: (tf.reshape(x, (-1, 48)) - 0.5) @ WEIGHTS,
        image_shape=SHAPE,
        num_classes=2,
        fingerprint="linear",
    )
    labels = np.zeros(9, np.int64)  # Some are wrong before.
    dataset = data.Dataset(
        name="digits",
        image_shape=SHAPE,
        class_names=("0", "1"),
        splits=array_splits((images, labels), (images, labels), 0),
    )
    attack = attacks.CWL0(
        target=None, max_iterations=100, initial_const=0.1, largest_const=50.0
    )
    return craft(attack, classifier, dataset, "test", tmp_path / "set")


def test_cw_l0_is_told_in_pixels_too(crafted, capsys):
    batch = next(iter(crafted.batches(9)))
    change = np.abs(batch["adversarial"] - batch["images"]) > 1e-6
    counts = change.any(-1).sum((1, 2))
    moved = counts[counts > 0]
    assert 0 < len(moved) < 9
    command._print(crafted)
    told = capsys.readouterr().out
    assert f"  mean pixels: {moved.mean():.6g}\n" in told
    # The values are more: channels count one by one.
    assert crafted.statistics()["mean_l0"] > moved.mean()
