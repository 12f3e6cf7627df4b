"""What a measurement is made of, and when its picture is drawn."""

import os

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import attacks
import data
import models
from ape_gan_tf import attack_flags, evaluate
from ape_gan_tf.measurement import Measurement, measure
from data.splits import array_splits

SHAPE = (4, 4, 1)


def test_all_targets_are_refused():
    with pytest.raises(ValueError, match="attacks must choose one target"):
        Measurement(attacks=(attacks.FGSM(), attacks.JSMA(target="all")))


def test_the_flags_seed_and_batch_size_are_the_attacks():
    """So the images in the picture are some of those that were measured."""
    values = flags.FlagValues()
    evaluate.define_flags(values)
    values(["evaluate", "--seed=7", "--attacks=pgd,deepfool"])
    measurement = attack_flags.measurement(values, split="test", batch_size=3)
    assert measurement.seed == 7
    settings = {(each.seed, each.batch_size) for each in measurement.attacks}
    assert settings == {(7, 3)}


@pytest.fixture
def run(tmp_path):
    """Measures a linear classifier under these attacks."""
    generator = np.random.default_rng(6)
    images = generator.integers(0, 256, (12, *SHAPE), np.uint8)
    both = images, np.arange(12) % 10
    dataset = data.Dataset(
        name="digits",
        image_shape=SHAPE,
        class_names=tuple("0123456789"),
        splits=array_splits(both, both, 0),
    )
    weights = generator.normal(size=(16, 10)).astype(np.float32)
    classifier = models.Classifier.from_callable(
        lambda images: tf.reshape(images, (-1, 16)) @ weights,
        image_shape=SHAPE,
        num_classes=10,
        fingerprint="linear",
    )

    def run(*attack_list):
        measurement = Measurement(attacks=attack_list)
        subject = measurement.subject(dataset, classifier)
        measure(tmp_path, subject, measurement, title="Measured")

    return run


def test_the_picture_is_drawn_when_something_was_measured(run, tmp_path):
    picture = tmp_path / "figures" / "images.png"
    fgsm = attacks.FGSM(epsilon=0.1)
    run(fgsm)
    first = picture.stat()
    run(fgsm)
    assert picture.stat().st_mtime_ns == first.st_mtime_ns
    run(fgsm, attacks.DeepFool())
    assert picture.stat().st_size > first.st_size


def test_a_picture_that_is_missing_or_of_less_is_drawn(run, tmp_path):
    picture = tmp_path / "figures" / "images.png"
    run()
    picture.unlink()
    run()
    assert picture.exists()
    # Measured further, and killed before it was drawn.
    os.utime(picture, (0, 0))
    run()
    assert picture.stat().st_mtime > 0
