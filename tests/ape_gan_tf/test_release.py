"""`release`: from a trained network to a pretrained one."""

import contextlib
import io

import keras
import numpy as np
import pytest

import data
import models
from ape_gan_tf import report
from ape_gan_tf.evaluation import Subject
from ape_gan_tf.loading import load_pretrained
from ape_gan_tf.metrics import Row
from ape_gan_tf.pretrained_models import names, read_record
from ape_gan_tf.releasing import Release, release
from data.splits import array_splits

CARD_FLAGS = (
    "--description=A network of a test.",
    "--training_data=A few digits",
    "--training_seed=1",
    "--recipe=python -m ape_gan_tf.train --workdir=x",
    "--limit=32",
    "--epsilons=0.1,0.2",
    "--white_box_limit=4",
)


@pytest.fixture(scope="module")
def words(tiny_run):
    """The flags that release a network of the tiny run."""
    own = {
        "classifier": ["--name=tiny_classifier", "--network=C"],
        "purifier": [
            "--name=tiny_purifier",
            "--network=ape_gan_m",
            f"--purifier={tiny_run.workdir / 'purifier.keras'}",
        ],
    }
    classifier = f"--classifier={tiny_run.workdir / 'classifier'}"
    return {k: [classifier, *own[k], *CARD_FLAGS] for k in own}


@pytest.fixture(scope="module")
def released(words, command, tmp_path_factory):
    """What the command left, and printed, for a classifier and a purifier."""
    folder = tmp_path_factory.mktemp("pretrained")
    printed = {}
    for kind, each in words.items():
        with contextlib.redirect_stdout(io.StringIO()) as stdout:
            assert command("release", *each, f"--output={folder}") == 0
        printed[kind] = stdout.getvalue()
    return folder, printed


@pytest.fixture(scope="module")
def folder(released):
    return released[0]


def trained(tiny_run, kind):
    if kind == "classifier":
        return models.Classifier.load(tiny_run.workdir / "classifier")
    return models.Purifier.load(tiny_run.workdir / "purifier.keras")


def test_three_files_for_each_and_nothing_else(folder):
    ends = ("json", "md", "npz")
    wanted = {f"tiny_{k}.{e}" for k in ("classifier", "purifier") for e in ends}
    assert {path.name for path in folder.iterdir()} == wanted
    assert names(folder=folder) == ["tiny_classifier", "tiny_purifier"]
    assert names("purifier", folder) == ["tiny_purifier"]


@pytest.mark.parametrize("kind", ["classifier", "purifier"])
def test_what_is_loaded_is_what_was_trained(folder, tiny_run, kind):
    loaded = load_pretrained(f"tiny_{kind}", folder=folder)
    original = trained(tiny_run, kind)
    assert loaded.name == f"tiny_{kind}"
    for mine, theirs in zip(
        loaded.keras_model.get_weights(),
        original.keras_model.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(
            mine, theirs.astype("float16").astype("float32")
        )
    batch = next(iter(data.load("digits").batches("test", 64)))
    outputs = loaded.predict(batch["images"])
    expected = original.predict(batch["images"])
    # float16 has a relative precision of 2 ** -11; several layers add up.
    scale = np.abs(expected).max()
    assert 0.0 < np.abs(outputs - expected).max() < 2**-8 * scale


def test_the_record_has_all_that_shapes_the_network(folder):
    record = read_record(folder / "tiny_purifier.json")
    assert record.network == {
        "name": "ape_gan_m",
        "image_shape": [28, 28, 1],
        "kernel_size": 3,
        "decoder_activation": "leaky_relu",
        "output": "sigmoid",
        "batch_norm_momentum": 0.99,
        "width": None,
        "depth": None,
        "stride": None,
        "levels": None,
        "skip": False,
        "classes": None,
    }
    record = read_record(folder / "tiny_classifier.json")
    assert record.network == {
        "name": "C",
        "image_shape": [28, 28, 1],
        "num_classes": 10,
    }


def test_the_figures_of_a_purifier_are_those_behind_it(folder, tiny_run):
    record = read_record(folder / "tiny_purifier.json")
    rows = [Row.from_json(row) for row in record.rows]
    assert [
        (row.input, row.params.get("epsilon"), row.threat_model, row.count)
        for row in rows
    ] == [
        ("clean", None, "benign", 32),
        ("fgsm", 0.1, "oblivious", 32),
        ("fgsm", 0.2, "oblivious", 32),
        ("pgd", 0.2, "white_box", 4),
    ]
    clean = rows[0]
    purifier = load_pretrained("tiny_purifier", folder=folder)
    assert clean.purifier["fingerprint"] == purifier.fingerprint
    assert record.fingerprint == purifier.fingerprint
    # Worked out with Keras alone.
    path = tiny_run.workdir / "classifier" / "classifier.keras"
    classifier = keras.models.load_model(path, compile=False)
    batch = next(iter(data.load("digits").batches("test", 32)))
    purified = purifier.keras_model.predict(batch["images"], verbose=0)
    classes = classifier.predict(purified, verbose=0).argmax(-1)
    expected = 100.0 * np.mean(classes != batch["labels"].numpy())
    assert clean.purified_error == pytest.approx(expected)


def test_the_card_shows_figures_and_flags(folder):
    text = (folder / "tiny_purifier.md").read_text()
    rows = read_record(folder / "tiny_purifier.json").rows
    for row in map(Row.from_json, rows):
        figures = f"{row.target_error:.2f} | {row.purified_error:.2f}"
        assert f"| {row.count} | {figures} |" in text
    assert text.startswith("# tiny_purifier\n\nA network of a test.\n")
    assert "- data: A few digits\n- seed: 1\n" in text
    assert "\n    python -m ape_gan_tf.train --workdir=x\n" in text
    assert 'ape_gan_tf.load_pretrained("tiny_purifier")' in text
    error = rows[-1]["purified_error"]
    assert f"reaches an error of {error:.2f} % on 4 images" in " ".join(
        text.split()
    )
    assert "an oblivious attacker" in text.lower()
    card = (folder / "tiny_classifier.md").read_text()
    assert "oblivious" not in card and "--classifier=tiny_classifier" in card


@pytest.mark.parametrize("kind", ["classifier", "purifier"])
def test_it_prints_what_it_measured(released, kind):
    folder, printed = released
    shown = printed[kind]
    for dtype in ("float32", "float16"):
        assert f"weights in {dtype}:\n| input " in shown
    rows = read_record(folder / f"tiny_{kind}.json").rows
    assert len(rows) == 4
    for row in map(Row.from_json, rows):
        assert report.table([row]).splitlines()[-1][:60] in shown
    size = (folder / f"tiny_{kind}.npz").stat().st_size
    assert f"tiny_{kind}.npz: {size:,} bytes\n" in shown


def test_a_release_is_not_written_over_unasked(
    command, words, folder, tmp_path, capsys
):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    output = f"--output={folder}"
    assert command("release", *words["classifier"], output) == 2
    shown = capsys.readouterr().err
    assert "tiny_classifier.json exists: choose another --name, or" in shown
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    # The rest of a killed release is in the way too, until it is asked for.
    (tmp_path / "tiny_purifier.npz").write_bytes(b"half")
    output = f"--output={tmp_path}"
    assert command("release", *words["purifier"], output) == 2
    assert command("release", *words["purifier"], output, "--overwrite") == 0
    same = [f"tiny_purifier.{end}" for end in ("json", "npz", "md")]
    for name in same:
        assert (tmp_path / name).read_bytes() == before[name]


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("purifier", ["--network="], "release: --network must be given"),
        (
            "purifier",
            ["--network=C"],
            "name must be one of ape_gan_c, ape_gan_i, ape_gan_m, "
            "purifier_resnet, got 'C'",
        ),
        (
            "classifier",
            ["--network=B"],
            "network must be that of target_c, which has 6 layers, but it has "
            "11",
        ),
        (
            "purifier",
            ["--network_params=batch_norm_momentum=0.9"],
            "its layer encoder_1_batch_norm has momentum 0.99, but they give "
            "0.9",
        ),
        (
            "purifier",
            ["--network_params=decoder_activation=relu"],
            "its layer decoder_1_leaky_relu has class LeakyReLU, but they "
            "give ReLU",
        ),
        (
            "purifier",
            ["--network_params=kernel=5"],
            "parameter of a purifier's network must be one of batch_norm_mom",
        ),
        (
            "purifier",
            ["--network_params=5"],
            "network_params must look like name=value,name=value, got '5'",
        ),
        ("purifier", ["--name=a/b"], "name must be of letters, digits and"),
    ],
    ids=str,
)
def test_a_wrong_description_is_refused_before_it_is_measured(
    command, words, tmp_path, capsys, kind, more, message
):
    output = f"--output={tmp_path}"
    assert command("release", *words[kind], *more, output) in (1, 2)
    captured = capsys.readouterr()
    assert message in captured.err
    assert "weights in" not in captured.out
    assert not list(tmp_path.iterdir())


def test_a_savedmodel_cannot_be_released(command, tiny_run, words, capsys):
    exported = f"--purifier={tiny_run.workdir / 'purifier'}"
    more = [exported, "--output=x"]
    assert command("release", *words["purifier"], *more) == 1
    assert "must be a Keras model to be released" in capsys.readouterr().err


def test_it_asks_for_the_seed_of_the_training(command, words, capsys):
    fewer = [w for w in words["purifier"] if "training_seed" not in w]
    assert command("release", *fewer, "--output=x") == 2
    shown = capsys.readouterr().err
    assert shown == "release: --training_seed must be given\n"


# Precision and size


def dataset_of(labels, side=6):
    labels = np.asarray(labels)
    images = np.zeros((len(labels), side, side, 1), np.uint8)
    split = (images, labels)
    return data.Dataset(
        name="digits",
        image_shape=(side, side, 1),
        class_names=tuple("0123456789"),
        splits=array_splits(split, split, 0),
    )


def constant_target(biases, side=6):
    """Target A with these logits, whatever the image."""
    model = models.target("A", (side, side, 1), 10, seed=0)
    zeros = [np.zeros_like(weight) for weight in model.get_weights()]
    zeros[-1][: len(biases)] = biases
    model.set_weights(zeros)
    return models.Classifier.from_keras(model)


def release_of(classifier, dataset, folder):
    what = Release(
        name="constant",
        network="A",
        network_params={},
        description="Of a test.",
        training_data="None",
        training_seed=0,
        recipe=("none",),
        epsilons=(0.1,),
        white_box_limit=1,
    )
    subject = Subject(dataset=dataset, split="test", classifier=classifier)
    return release(what, subject, folder)


@pytest.mark.parametrize(
    ("biases", "dtype"),
    [
        # 1.0001 is 1 in float16: a tie, in which class 0 wins.
        ([1.0, 1.0001], "float32"),
        # float16 ends at 65504.
        ([1.0, 1e5], "float32"),
        # 1.001 is 1 + 2 ** -10 in float16.
        ([1.0, 1.001], "float16"),
    ],
    ids=str,
)
def test_float16_is_taken_where_it_costs_nothing(tmp_path, biases, dtype):
    labels = [1, 1, 1, 1]
    biases = [*biases, *[-10.0] * (10 - len(biases))]
    record = release_of(constant_target(biases), dataset_of(labels), tmp_path)
    assert record.weights_dtype == dtype
    assert record.rounding_cost == 0.0
    loaded = load_pretrained("constant", folder=tmp_path)
    logits = loaded.predict(np.zeros((1, 6, 6, 1), np.float32))
    stored = np.asarray(biases, dtype).astype(np.float32)
    np.testing.assert_array_equal(logits[0], stored)
    with np.load(tmp_path / "constant.npz") as arrays:
        assert arrays["logits/bias"].dtype == dtype
    text = (tmp_path / "constant.md").read_text()
    is_rounded = "The weights are not rounded." not in text
    assert is_rounded == (dtype == "float16")


def test_a_large_network_is_refused(tmp_path):
    # 24 * 24 * 64 * 128 weights behind the convolutions of 52x52 images.
    classifier = constant_target([3.0], side=52)
    with pytest.raises(
        ValueError, match=r"at most 8,000,000 bytes of weights, got 9,4\d\d,"
    ):
        release_of(classifier, dataset_of([0], side=52), tmp_path)
    assert not list(tmp_path.iterdir())
