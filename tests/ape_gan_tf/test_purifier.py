"""`ape_gan_tf.Purifier`: by path or by name, and before a classifier."""

import keras
import numpy as np
import pytest

import ape_gan_tf
import models
from ape_gan_tf import pretrained_models

SHAPE = (28, 28, 1)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return random.random((4, *SHAPE), dtype=np.float32)


def saved(path, seed):
    models.generator("ape_gan_m", SHAPE, seed=seed).save(path)
    return path


def test_a_pretrained_name_loads(images):
    purifier = ape_gan_tf.Purifier.load("ape_gan_m")
    same = ape_gan_tf.load_pretrained("ape_gan_m")
    assert isinstance(purifier, ape_gan_tf.Purifier)
    assert isinstance(purifier, models.Purifier)
    assert purifier.fingerprint == same.fingerprint
    assert purifier.name == "ape_gan_m"
    np.testing.assert_array_equal(
        purifier.predict(images), same.predict(images)
    )


def test_a_path_loads_as_before(images, tmp_path):
    path = saved(tmp_path / "purifier.keras", seed=3)
    expected = keras.models.load_model(path)(images, training=False)
    for given in (path, str(path), tmp_path):
        purifier = ape_gan_tf.Purifier.load(given)
        assert isinstance(purifier, ape_gan_tf.Purifier)
        np.testing.assert_allclose(
            purifier.predict(images), expected, atol=1e-6
        )


def test_what_exists_on_disk_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ape_gan_m").mkdir()
    path = saved(tmp_path / "ape_gan_m" / "purifier.keras", seed=3)
    own = models.Purifier.load(path).fingerprint
    assert ape_gan_tf.Purifier.load("ape_gan_m").fingerprint == own
    assert ape_gan_tf.load_pretrained("ape_gan_m").fingerprint != own


@pytest.mark.parametrize("given", ["ape_gan_x", "target_c", "no/such.keras"])
def test_what_is_neither_lists_the_pretrained_purifiers(
    given, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as raised:
        ape_gan_tf.Purifier.load(given)
    known = ", ".join(pretrained_models.names("purifier"))
    assert str(raised.value) == (
        "path must be the path of a model, or a pretrained purifier "
        f"({known}), but there is nothing at {given}"
    )


def test_a_folder_without_a_model_is_no_unknown_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="looked for purifier.keras"):
        ape_gan_tf.Purifier.load(tmp_path)


def test_the_other_arguments_of_load_are_passed_on(tmp_path):
    inputs = keras.Input((None, None, 1))
    outputs = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")
    keras.Model(inputs, outputs(inputs)).save(tmp_path / "any.keras")
    purifier = ape_gan_tf.Purifier.load(
        tmp_path / "any.keras", image_shape=(5, 6, 1)
    )
    assert purifier.image_shape == (5, 6, 1)
    with pytest.raises(ValueError, match=r"image_shape must be \(28, 28, 1\)"):
        ape_gan_tf.Purifier.load("ape_gan_m", image_shape=(5, 6, 1))


def test_every_way_to_make_one_makes_one():
    purifier = ape_gan_tf.Purifier.load("ape_gan_m")
    again = ape_gan_tf.Purifier.from_keras(purifier.keras_model)
    function = ape_gan_tf.Purifier.from_callable(
        purifier, image_shape=SHAPE, fingerprint="x"
    )
    assert type(again) is type(function) is ape_gan_tf.Purifier


@pytest.mark.parametrize(
    "load", [ape_gan_tf.load_pretrained, ape_gan_tf.Purifier.load]
)
def test_a_pretrained_purifier_goes_before_a_classifier(load, images):
    target = ape_gan_tf.load_pretrained("target_c")
    purifier = load("ape_gan_m")
    model = purifier.in_front_of(target.keras_model)
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        target.behind(purifier).predict(images),
        atol=1e-4,
    )


def test_an_endpoint_is_not_for_pretrained_ones():
    with pytest.raises(ValueError, match="endpoint is for SavedModels, got"):
        ape_gan_tf.Purifier.load("ape_gan_m", endpoint="purify")
