"""The exported purifier: what a server loads, and what it answers."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import data
import models
from ape_gan_tf import saved_model

SHAPE = (28, 28, 1)


@pytest.fixture(scope="module")
def purifier(tiny_run):
    return models.Purifier.load(tiny_run.workdir / "purifier.keras")


@pytest.fixture(scope="module")
def classifier(tiny_run):
    return models.Classifier.load(tiny_run.workdir / "classifier")


@pytest.fixture(scope="module")
def path(purifier, classifier, tmp_path_factory):
    """An export with a classifier behind the purifier."""
    folder = tmp_path_factory.mktemp("serving") / "purifier"
    return saved_model.export(
        purifier, folder, version=3, classifier=classifier
    )


@pytest.fixture(scope="module")
def served(path):
    return tf.saved_model.load(str(path))


@pytest.fixture(scope="module")
def images():
    batch = next(iter(data.load("digits").batches("test", 7)))
    return batch["images"].numpy()


def test_the_version_is_a_folder(path):
    assert path.name == "3" and path.parent.name == "purifier"
    assert [x.name for x in path.parent.iterdir()] == ["3"]


def test_the_signatures_are_the_published_ones(served):
    assert set(served.signatures) == {"serving_default", "purify", "classify"}
    for signature in served.signatures.values():
        _, inputs = signature.structured_input_signature
        (spec,) = inputs.values()
        assert list(inputs) == ["images"]
        assert spec.shape.as_list() == [None, *SHAPE]
        assert spec.dtype == tf.float32
    outputs = {
        name: set(signature.structured_outputs)
        for name, signature in served.signatures.items()
    }
    assert outputs["purify"] == {"purified", "valid"}
    assert outputs["serving_default"] == {"purified", "valid"}
    assert outputs["classify"] == {
        "purified",
        "valid",
        "logits",
        "probabilities",
        "class",
    }


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("name", ["purify", "serving_default"])
def test_any_batch_is_purified_as_keras_does(
    served, purifier, images, name, count
):
    answer = served.signatures[name](images=tf.constant(images[:count]))
    expected = purifier.predict(images[:count])
    np.testing.assert_allclose(answer["purified"], expected, atol=1e-6)
    assert answer["purified"].shape == (count, *SHAPE)
    np.testing.assert_array_equal(answer["valid"], [True] * count)


def test_classify_is_the_classifier_behind_the_purifier(
    served, purifier, classifier, images
):
    answer = served.signatures["classify"](images=tf.constant(images))
    logits = classifier.behind(purifier).predict(images)
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], logits.argmax(-1))
    np.testing.assert_allclose(
        answer["probabilities"], tf.nn.softmax(logits), atol=1e-5
    )
    assert answer["class"].dtype == tf.int64


@pytest.mark.parametrize("name", ["purify", "classify"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.01, 1.01])
def test_a_bad_image_is_marked_and_leaves_its_neighbours_alone(
    served, images, name, bad
):
    signature = served.signatures[name]
    good = signature(images=tf.constant(images))
    spoiled = images.copy()
    spoiled[3, 5, 5, 0] = bad
    answer = signature(images=tf.constant(spoiled))
    expected = np.arange(7) != 3
    np.testing.assert_array_equal(answer["valid"], expected)
    for field in set(answer) - {"valid"}:
        values = answer[field].numpy()
        np.testing.assert_array_equal(values[3], np.zeros_like(values[3]))
        np.testing.assert_array_equal(
            values[expected], good[field].numpy()[expected]
        )


def test_a_batch_of_bad_images_alone_is_answered(served):
    bad = tf.fill((2, *SHAPE), np.nan)
    answer = served.signatures["classify"](images=bad)
    np.testing.assert_array_equal(answer["valid"], [False, False])
    assert all(np.isfinite(x.numpy()).all() for x in answer.values())


def test_keras_uses_it_as_a_layer(path, purifier, images):
    layer = keras.layers.TFSMLayer(str(path), call_endpoint="purify")
    answer = layer(tf.constant(images))
    np.testing.assert_allclose(
        answer["purified"], purifier.predict(images), atol=1e-6
    )


def test_it_loads_as_the_purifier_that_it_was(path, purifier, images):
    loaded = models.Purifier.load(path.parent)
    assert loaded.fingerprint == purifier.fingerprint
    assert loaded.name == purifier.name == "ape_gan_m"
    np.testing.assert_allclose(
        loaded.predict(images), purifier.predict(images), atol=1e-6
    )


def test_a_loaded_one_can_be_exported_again(path, purifier, tmp_path, images):
    again = saved_model.export(models.Purifier.load(path), tmp_path / "again")
    loaded = models.Purifier.load(again)
    assert loaded.fingerprint == purifier.fingerprint
    np.testing.assert_allclose(
        loaded.predict(images), purifier.predict(images), atol=1e-6
    )


def test_the_runs_own_export_is_the_same_purifier(tiny_run, purifier):
    exported = models.Purifier.load(tiny_run.workdir / "purifier")
    assert exported.fingerprint == purifier.fingerprint
    served = tf.saved_model.load(str(tiny_run.workdir / "purifier" / "1"))
    assert set(served.signatures) == {"serving_default", "purify"}


def test_saved_model_cli_shows_it(path):
    tool = Path(sys.executable).with_name("saved_model_cli")
    if not tool.exists():
        pytest.skip(f"there is no {tool}")
    shown = subprocess.run(
        [tool, "show", "--all", "--dir", path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in ("purify", "serving_default", "classify"):
        assert f"signature_def['{name}']" in shown
    assert "inputs['images'] tensor_info" in shown
    assert "shape: (-1, 28, 28, 1)" in shown
    assert "outputs['valid'] tensor_info" in shown


def test_an_existing_version_is_left_alone(path, purifier):
    before = (path / "saved_model.pb").stat().st_mtime_ns
    with pytest.raises(ValueError, match="version 3 exists at .*3: choose ano"):
        saved_model.export(purifier, path.parent, version=3)
    assert (path / "saved_model.pb").stat().st_mtime_ns == before


@pytest.mark.parametrize("version", [0, -1, 1.5, True])
def test_a_version_is_a_number_above_zero(purifier, tmp_path, version):
    with pytest.raises(ValueError, match="version must be a positive integer"):
        saved_model.export(purifier, tmp_path, version=version)


def test_a_classifier_of_another_size_is_refused(purifier, tmp_path):
    other = models.Classifier.from_callable(
        lambda x: tf.reshape(x, (-1, 16)),
        image_shape=(4, 4, 1),
        num_classes=16,
        fingerprint="other",
    )
    with pytest.raises(
        ValueError, match=r"takes images of \(4, 4, 1\), .* \(28, 28, 1\)"
    ):
        saved_model.export(purifier, tmp_path / "x", classifier=other)
    assert not (tmp_path / "x").exists()


def test_a_function_cannot_be_exported(tmp_path):
    function = models.Purifier.from_callable(
        tf.identity, image_shape=SHAPE, fingerprint="function"
    )
    with pytest.raises(
        ValueError, match="is a function: only one from a Keras"
    ):
        saved_model.export(function, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_next_version_is_above_the_highest(tmp_path):
    assert saved_model.next_version(tmp_path / "nowhere") == 1
    for name in ("2", "10", ".partial-11", "notes"):
        (tmp_path / name).mkdir()
    assert saved_model.next_version(tmp_path) == 11


# The command


@pytest.fixture
def export(tiny_run, command):
    purifier = tiny_run.workdir / "purifier.keras"

    def run(*words):
        return command("export", f"--purifier={purifier}", *words)

    return run


def test_the_command_counts_versions_up(export, tmp_path, capsys):
    output = f"--output={tmp_path / 'purifier'}"
    assert export(output, "--version=next") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'purifier' / '1'}\n"
    assert export(output) == 1
    assert "version 1 exists" in capsys.readouterr().err
    assert export(output, "--version=next") == 0
    assert {x.name for x in (tmp_path / "purifier").iterdir()} == {"1", "2"}


@pytest.mark.parametrize("version", ["0", "-1", "1.5", "latest", ""])
def test_the_command_wants_a_number_or_next(export, tmp_path, capsys, version):
    assert export(f"--output={tmp_path}", f"--version={version}") == 2
    assert "--version must be a whole number above 0" in capsys.readouterr().err
