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
from ape_gan_tf.serving import saved_model, warmup
from data.files import exclusive

SHAPE = (28, 28, 1)
LABELS = [f"a {digit}" for digit in range(10)]


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
        purifier,
        folder,
        version=3,
        classifier=classifier,
        labels=LABELS,
        warmup_batch_sizes=[1, 4] if warmup.is_available() else [],
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
    images = ("images", [None, *SHAPE], tf.float32)
    files = ("image_bytes", [None], tf.string)
    purify = {"purified", "valid"}
    classify = {"logits", "probabilities", "class", "shift", "label"} | purify
    found = {}
    for name, signature in served.signatures.items():
        ((given, spec),) = signature.structured_input_signature[1].items()
        found[name] = (
            (given, spec.shape.as_list(), spec.dtype),
            set(signature.structured_outputs),
        )
    assert found == {
        "serving_default": (images, purify),
        "purify": (images, purify),
        "purify_encoded": (files, purify),
        "classify": (images, classify),
        "classify_encoded": (files, classify),
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
    assert [x.decode() for x in answer["label"].numpy()] == [
        LABELS[x] for x in logits.argmax(-1)
    ]


def test_the_shift_is_how_far_an_image_was_moved(served, purifier, images):
    answer = served.signatures["classify"](images=tf.constant(images))
    change = (purifier.predict(images) - images).reshape(len(images), -1)
    change = change.astype(np.float64)
    expected = [np.linalg.norm(change, axis=1), np.abs(change).max(axis=1)]
    np.testing.assert_allclose(
        answer["shift"], np.stack(expected, axis=1), rtol=1e-5
    )


def test_an_answer_does_not_depend_on_the_batch(served, images):
    classify = served.signatures["classify"]
    together = classify(images=tf.constant(images))
    for number in range(len(images)):
        alone = classify(images=tf.constant(images[number : number + 1]))
        for name in ("purified", "logits", "probabilities", "shift"):
            np.testing.assert_allclose(
                alone[name][0], together[name][number], atol=2e-5
            )
        assert alone["label"][0] == together["label"][number]


@pytest.fixture(scope="module")
def answer_as_a_server(path):
    """Feeds a session, where nothing in Python looks first."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))

    def answer(name, batch):
        signature = loaded.signature_def[name]
        tensor = session.graph.get_tensor_by_name
        ((_, info),) = signature.inputs.items()
        given = tensor(info.name)
        wanted = tensor(signature.outputs["purified"].name)
        # Session.run would convert what it is given, and refuse some.
        return session._call_tf_sessionrun(
            None,
            {given._as_tf_output(): batch},
            [wanted._as_tf_output()],
            [],
            None,
        )

    yield answer
    session.close()


@pytest.mark.parametrize("name", ["serving_default", "purify", "classify"])
@pytest.mark.parametrize(
    "shape",
    [
        (2, 27, 28, 1),
        (2, 28, 28, 3),
        (2, 28, 28),
        (28, 28, 1),
        (784,),
        (),
        (1, 2, 28, 28, 1),
    ],
)
def test_a_request_of_another_shape_is_an_invalid_argument(
    answer_as_a_server, name, shape
):
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"images must have shape \[B, 28, 28, 1\]",
    ):
        answer_as_a_server(name, np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), ()])
def test_files_in_a_list_too_many_are_an_invalid_argument(
    answer_as_a_server, shape
):
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"image_bytes must have shape \[B\]",
    ):
        answer_as_a_server("classify_encoded", np.full(shape, b"x", object))


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_a_request_of_another_dtype_is_an_invalid_argument(
    answer_as_a_server, dtype
):
    # TensorFlow's own message, before any of the model runs.
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="arg.0. to be float but"
    ):
        answer_as_a_server("purify", np.zeros((2, *SHAPE), dtype))


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
        nothing = b"" if values.dtype == object else 0
        assert np.all(values[3] == nothing)
        np.testing.assert_array_equal(
            values[expected], good[field].numpy()[expected]
        )


def test_a_batch_of_bad_images_alone_is_answered(served):
    bad = tf.fill((2, *SHAPE), np.nan)
    answer = served.signatures["classify"](images=bad)
    np.testing.assert_array_equal(answer["valid"], [False, False])
    assert not answer["purified"].numpy().any()
    assert not answer["probabilities"].numpy().any()


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
    assert set(served.signatures) == {
        "serving_default",
        "purify",
        "purify_encoded",
    }


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


def test_weights_are_stored_once(path, purifier, classifier):
    stored = (path / "variables" / "variables.data-00000-of-00001").stat()
    values = sum(
        weight.numpy().nbytes
        for network in (purifier, classifier)
        for weight in network.keras_model.weights
    )
    assert values <= stored.st_size <= 1.1 * values


def test_labels_are_an_asset(path):
    text = (path / "assets" / "labels.txt").read_text()
    assert text.splitlines() == LABELS


def test_images_of_two_channels_have_no_encoded_signature(tmp_path):
    inputs = keras.Input((4, 4, 2))
    outputs = keras.layers.Rescaling(-1.0, 1.0)(inputs)
    purifier = models.Purifier.from_keras(keras.Model(inputs, outputs))
    path = saved_model.export(purifier, tmp_path / "two")
    served = tf.saved_model.load(str(path))
    assert set(served.signatures) == {"serving_default", "purify"}


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


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:9], "must be 10, one for each class of .*, got 9"),
        ([*LABELS[:9], ""], "must be lines of text, got '' for class 9"),
        (
            ["two\nlines", *LABELS[1:]],
            "must be lines of text, got .* for class 0",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    purifier, classifier, tmp_path, labels, message
):
    with pytest.raises(ValueError, match=f"labels {message}"):
        saved_model.export(
            purifier, tmp_path / "x", classifier=classifier, labels=labels
        )
    assert not (tmp_path / "x").exists()


def test_labels_are_no_single_text(purifier, classifier, tmp_path):
    with pytest.raises(TypeError, match="labels must be a sequence of names"):
        saved_model.export(
            purifier,
            tmp_path / "x",
            classifier=classifier,
            labels="abcdefghij",
        )


def test_a_classifier_behind_a_purifier_is_refused(
    purifier, classifier, tmp_path
):
    with pytest.raises(ValueError, match="is behind a purifier already"):
        saved_model.export(
            purifier,
            tmp_path / "x",
            classifier=classifier.behind(purifier),
        )


def test_one_number_is_no_batch_sizes(purifier, tmp_path):
    with pytest.raises(TypeError, match="warmup_batch_sizes .* got 5"):
        saved_model.export(purifier, tmp_path / "x", warmup_batch_sizes=5)


def test_labels_need_a_classifier(purifier, tmp_path):
    with pytest.raises(ValueError, match="labels need a classifier"):
        saved_model.export(purifier, tmp_path / "x", labels=LABELS)


def test_a_function_cannot_be_exported(tmp_path):
    function = models.Purifier.from_callable(
        tf.identity, image_shape=SHAPE, fingerprint="function"
    )
    with pytest.raises(
        ValueError, match="is a function: only one from a Keras"
    ):
        saved_model.export(function, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_next_version_is_above_the_highest(purifier, tmp_path):
    for name in ("2", "10", ".partial-11", "notes"):
        (tmp_path / name).mkdir()
    path = saved_model.export(purifier, tmp_path, version=None)
    assert path == tmp_path / "11"


def test_a_version_that_no_server_reads_is_refused(purifier, tmp_path):
    with pytest.raises(ValueError, match="version must be at most 9223"):
        saved_model.export(purifier, tmp_path / "x", version=2**63)


def test_two_exports_to_one_folder_do_not_meet(purifier, tmp_path):
    with exclusive(tmp_path / ".lock"):
        with pytest.raises(RuntimeError, match="another run is writing to"):
            saved_model.export(purifier, tmp_path, version=None)
        assert [x.name for x in tmp_path.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []


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
    found = {x.name for x in (tmp_path / "purifier").iterdir()}
    assert found == {"1", "2"}


@pytest.mark.parametrize("version", ["0", "-1", "1.5", "latest", ""])
def test_the_command_wants_a_number_or_next(export, tmp_path, capsys, version):
    assert export(f"--output={tmp_path}", f"--version={version}") == 2
    assert "--version must be a whole number above 0" in capsys.readouterr().err


def test_the_command_takes_labels_and_precision(
    export, tiny_run, tmp_path, capsys
):
    if not warmup.is_available():
        pytest.skip("tensorflow-serving-api is not installed")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
    output = tmp_path / "purifier"
    code = export(
        f"--output={output}",
        f"--classifier={tiny_run.workdir / 'classifier' / 'classifier.keras'}",
        f"--labels={tmp_path / 'labels.txt'}",
        "--weights_dtype=float16",
        "--warmup_batch_sizes=1,8",
    )
    assert code == 0, capsys.readouterr().err
    served = tf.saved_model.load(str(output / "1"))
    assert "label" in served.signatures["classify"].structured_outputs
    variables = served.signatures["classify"].variables
    assert {x.dtype for x in variables} == {tf.float16}
    assert (output / "1" / warmup.FILE).is_file()


def test_the_command_writes_no_warm_up_where_none_is_wanted(export, tmp_path):
    output = tmp_path / "purifier"
    assert export(f"--output={output}", "--warmup_batch_sizes=") == 0
    assert not (output / "1" / warmup.FILE).exists()


@pytest.mark.parametrize("sizes", ["0", "1,-2", "many"])
def test_the_command_wants_batch_sizes(export, tmp_path, capsys, sizes):
    code = export(f"--output={tmp_path}", f"--warmup_batch_sizes={sizes}")
    assert code == 2
    assert "--warmup_batch_sizes must be whole" in capsys.readouterr().err


def test_the_command_reads_labels_as_windows_writes_them(
    export, tiny_run, tmp_path, capsys
):
    lines = "".join(f"{label}\r\n" for label in LABELS)
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    output = tmp_path / "purifier"
    code = export(
        f"--output={output}",
        f"--classifier={tiny_run.workdir / 'classifier' / 'classifier.keras'}",
        f"--labels={tmp_path / 'labels.txt'}",
        "--warmup_batch_sizes=",
    )
    assert code == 0, capsys.readouterr().err
    asset = output / "1" / "assets" / saved_model.LABELS_FILE
    assert asset.read_text(encoding="utf-8").splitlines() == LABELS


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), ("", "is empty")]
)
def test_the_command_names_a_labels_file_that_is_none(
    export, tmp_path, capsys, content, message
):
    file = tmp_path / "labels.txt"
    if content is not None:
        file.write_text(content)
    assert export(f"--output={tmp_path / 'x'}", f"--labels={file}") == 1
    shown = capsys.readouterr().err
    assert f"--labels={file}" in shown and message in shown


def test_the_command_wants_a_folder_as_output(export, tmp_path, capsys):
    (tmp_path / "x").write_text("a file")
    assert export(f"--output={tmp_path / 'x'}") == 1
    assert "output must be a folder, got a file" in capsys.readouterr().err


def test_the_command_wants_labels_as_text(export, tmp_path, capsys):
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe")
    labels = f"--labels={tmp_path / 'labels.txt'}"
    assert export(f"--output={tmp_path / 'x'}", labels) == 1
    assert "labels.txt is no UTF-8 text" in capsys.readouterr().err
