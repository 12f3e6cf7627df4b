"""What `craft` refuses, and what it takes over."""

import numpy as np
import pytest
import tensorflow as tf

import attacks
import data
import models
from ape_gan_tf.crafting import craft


def pixel_classifier(fingerprint="pixels"):
    return models.Classifier.from_callable(
        lambda images: tf.reshape(images, (-1, 784))[:, :10],
        image_shape=(28, 28, 1),
        num_classes=10,
        fingerprint=fingerprint,
    )


def craft_some(path, limit, fingerprint="pixels", **keywords):
    return craft(
        attacks.FGSM(epsilon=0.2),
        pixel_classifier(fingerprint),
        data.load("digits"),
        "test",
        path,
        limit=limit,
        shard_size=4,
        **keywords,
    )


def rows(adversarial_set):
    (batch,) = adversarial_set.batches(adversarial_set.count)
    return {name: value.numpy() for name, value in batch.items()}


@pytest.mark.parametrize("earlier_count", [4, 6, 20])
def test_an_earlier_set_is_taken_over_as_far_as_it_goes(
    tmp_path, earlier_count
):
    earlier = craft_some(tmp_path / "earlier", earlier_count)
    whole = rows(craft_some(tmp_path / "whole", 10))
    grown = rows(craft_some(tmp_path / "grown", 10, earlier=earlier))
    for name, expected in whole.items():
        np.testing.assert_array_equal(grown[name], expected, err_msg=name)


def test_what_is_taken_over_is_not_crafted_again(tmp_path, capsys):
    earlier = craft_some(tmp_path / "earlier", 8)
    capsys.readouterr()
    craft_some(tmp_path / "smaller", 4, earlier=earlier)
    assert "crafting" not in capsys.readouterr().err
    craft_some(tmp_path / "grown", 10, earlier=earlier)
    assert "continues at 8 of 10 images" in capsys.readouterr().err


def test_an_earlier_set_of_another_classifier_is_refused(tmp_path):
    earlier = craft_some(tmp_path / "earlier", 4, fingerprint="another")
    with pytest.raises(ValueError, match="earlier must be a set of"):
        craft_some(tmp_path / "set", 8, earlier=earlier)
    assert not (tmp_path / "set").exists()


def test_all_targets_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="attack must choose one target"):
        craft(
            attacks.JSMA(target="all"),
            pixel_classifier(),
            data.load("digits"),
            "test",
            tmp_path / "sets" / "set",
            limit=2,
        )
    assert not (tmp_path / "sets").exists()
