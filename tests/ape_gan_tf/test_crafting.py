"""What `craft` refuses."""

import pytest
import tensorflow as tf

import attacks
import data
import models
from ape_gan_tf.crafting import craft


def test_all_targets_are_refused_before_anything_is_written(tmp_path):
    classifier = models.Classifier.from_callable(
        lambda images: tf.reshape(images, (-1, 784))[:, :10],
        image_shape=(28, 28, 1),
        num_classes=10,
        fingerprint="pixels",
    )
    with pytest.raises(ValueError, match="attack must choose one target"):
        craft(
            attacks.JSMA(target="all"),
            classifier,
            data.load("digits"),
            "test",
            tmp_path / "sets" / "set",
            limit=2,
        )
    assert not (tmp_path / "sets").exists()
