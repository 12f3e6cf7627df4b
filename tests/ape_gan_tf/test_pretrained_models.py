"""The networks that come with the package: loading, damage, commands."""

import functools
import hashlib
import importlib
import json
import os
import re
import shlex
import shutil

import keras
import numpy as np
import pytest
from absl import flags

import ape_gan_tf
import data
import models
from ape_gan_tf import command_line
from ape_gan_tf.loading import load_pretrained
from ape_gan_tf.metrics import MetricsFile, Row
from ape_gan_tf.model_card import card
from ape_gan_tf.optimizers import precision_scope
from ape_gan_tf.pretrained_models import (
    FOLDER,
    names,
    read_record,
)

NAMES = names()


def images_of(count, shape=(28, 28, 1), seed=0):
    generator = np.random.default_rng(seed)
    return generator.random((count, *shape), dtype=np.float32)


@functools.cache
def plain_keras(name):
    """The network, built and filled without anything of `ape_gan_tf`."""
    record = json.loads((FOLDER / f"{name}.json").read_text())
    network = {**record["network"]}
    network["image_shape"] = tuple(network["image_shape"])
    is_classifier = record["kind"] == "classifier"
    build = models.target if is_classifier else models.generator
    model = build(**network)
    with np.load(FOLDER / f"{name}.npz") as arrays:
        model.set_weights(
            [arrays[weight.path].astype("float32") for weight in model.weights]
        )
    return model


# What ships


def test_the_names_are_what_lies_in_the_folder():
    assert {"target_a", "target_b", "target_c", "ape_gan_m"} <= set(NAMES)
    wanted = {f"{n}.{end}" for n in NAMES for end in ("json", "npz", "md")}
    found = {path.name for path in FOLDER.iterdir()}
    assert {name for name in found if not name.startswith(".")} == wanted
    assert sorted(names("classifier") + names("purifier")) == NAMES


def test_the_documentation_lists_every_name():
    text = (FOLDER.parents[1] / "docs" / "models.md").read_text()
    linked = re.findall(
        r"^\| `(\w+)` \|.*\(\.\./ape_gan_tf/pretrained/(\w+)\.md\) \|$",
        text,
        re.MULTILINE,
    )
    assert sorted(linked) == [(name, name) for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_is_small_and_holds_no_code(name):
    path = FOLDER / f"{name}.npz"
    record = read_record(path.with_suffix(".json"))
    assert path.stat().st_size <= 8 * 2**20
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record.sha256
    with np.load(path, allow_pickle=False) as arrays:
        assert {x.dtype for x in arrays.values()} == {
            np.dtype(record.weights_dtype)
        }


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_network_is_an_ordinary_one(name):
    network = ape_gan_tf.load_pretrained(name)
    record = read_record(FOLDER / f"{name}.json")
    kinds = {"classifier": models.Classifier, "purifier": ape_gan_tf.Purifier}
    assert type(network) is kinds[record.kind]
    assert network.name == name
    assert {w.dtype for w in network.keras_model.weights} == {"float32"}
    images = images_of(8, network.image_shape)
    expected = plain_keras(name).predict(images, verbose=0)
    np.testing.assert_allclose(network.predict(images), expected, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_the_record_says(name):
    record = read_record(FOLDER / f"{name}.json")
    text = (FOLDER / f"{name}.md").read_text()
    assert text == card(name, record)
    for row in map(Row.from_json, record.rows):
        shown = row.target_error if row.purifier is None else row.purified_error
        assert f"{shown:.2f} |" in text
    assert record.rounding_cost < 0.05
    assert record.sha256 in text and "MIT" in text
    for line in record.recipe:
        assert line in text


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_network_has_the_fingerprint_of_its_record(name):
    record = read_record(FOLDER / f"{name}.json")
    # It covers the configuration, which another Keras may write otherwise.
    if record.package_versions["keras"] != keras.__version__:
        pytest.skip(f"released with another Keras: {record.package_versions}")
    assert load_pretrained(name).fingerprint == record.fingerprint


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_of_a_shipped_network_can_be_typed(name):
    for line in read_record(FOLDER / f"{name}.json").recipe:
        python, _, module, *words = shlex.split(line)
        assert python == "python"
        values = flags.FlagValues()
        importlib.import_module(module).define_flags(values)
        command_line.parse(values, [module, *words])


@pytest.mark.parametrize("name", ["target_c", "ape_gan_m"])
def test_a_saved_pretrained_network_is_the_same(name, tmp_path):
    network = load_pretrained(name)
    if isinstance(network, models.Classifier):
        network.save(tmp_path / "saved")
        again = models.Classifier.load(tmp_path / "saved")
    else:
        network.keras_model.save(tmp_path / "saved.keras")
        again = models.Purifier.load(tmp_path / "saved.keras")
    assert again.fingerprint == network.fingerprint
    assert again.name == name


def test_a_pretrained_classifier_goes_behind_a_pretrained_purifier():
    classifier = load_pretrained("target_c")
    purifier = load_pretrained("ape_gan_m")
    images = images_of(4)
    defended = classifier.behind(purifier).predict(images)
    expected = classifier.predict(purifier.predict(images))
    np.testing.assert_allclose(defended, expected, atol=1e-4)


def test_a_pretrained_network_is_float32_whatever_the_policy():
    with precision_scope("mixed_float16"):
        network = load_pretrained("ape_gan_m")
    policies = {layer.compute_dtype for layer in network.keras_model.layers}
    assert policies == {"float32"}


def test_an_unknown_name_lists_those_known():
    with pytest.raises(ValueError, match="name must be one of ape_gan_m, .*"):
        load_pretrained("resnet")
    with pytest.raises(ValueError, match="did you mean 'target_c'"):
        load_pretrained("taget_c")


def percent_wrong(model, images, labels):
    logits = model.predict(images, batch_size=250, verbose=0)
    wrong = logits.argmax(-1) != labels
    return 100.0 * wrong.mean()


def mnist_test(folder):
    with np.load(folder / "mnist.npz") as file:
        return file["x_test"][..., None], file["y_test"]


def cifar10_test(folder, name="test_batch"):
    path = folder / "cifar-10-batches-bin" / f"{name}.bin"
    records = np.fromfile(path, np.uint8).reshape(10_000, 1 + 3 * 32 * 32)
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return planes.transpose(0, 2, 3, 1), records[:, 0].astype(np.int64)


def cifar10_validation(folder):
    """The last 5,000 of the 50,000 training images, which lie in five files."""
    images, labels = cifar10_test(folder, "data_batch_5")
    return images[5_000:], labels[5_000:]


@pytest.fixture(scope="module")
def labelled_images(real_data_dir):
    """Images in [0, 1] and labels, by dataset and split."""
    readers = {
        ("mnist", "test"): mnist_test,
        ("cifar10", "test"): cifar10_test,
        ("cifar10", "validation"): cifar10_validation,
    }

    @functools.cache
    def read(dataset, split):
        images, labels = readers[dataset, split](real_data_dir)
        return images.astype(np.float32) / 255.0, labels

    return read


def clean_row(name):
    row = Row.from_json(read_record(FOLDER / f"{name}.json").rows[0])
    whole = {"test": 10_000, "validation": 5_000}
    assert (row.input, row.count) == ("clean", whole[row.split])
    return row


@pytest.mark.real_data
@pytest.mark.parametrize("name", NAMES)
def test_a_network_errs_about_as_often_as_its_card_says(name, labelled_images):
    row = clean_row(name)
    # DenseNet40 takes a tenth of a second an image.
    count = 200 if name == "target_densenet40" else 1000
    images, labels = (
        array[:count] for array in labelled_images(row.dataset, row.split)
    )
    classifier = load_pretrained(row.classifier["name"])
    stated, plain = row.target_error, images
    if row.purifier is not None:
        stated = row.purified_error
        classifier = classifier.behind(load_pretrained(name))
        plain = plain_keras(name).predict(images, verbose=0)
    wrong = classifier.predict(images).argmax(-1) != labels
    expected = percent_wrong(plain_keras(row.classifier["name"]), plain, labels)
    assert 100.0 * wrong.mean() == pytest.approx(expected)
    # Four standard deviations of so many images drawn from all of them.
    share, left_out = stated / 100.0, 1.0 - count / row.count
    slack = 400.0 * np.sqrt(left_out * share * (1.0 - share) / count)
    assert abs(expected - stated) < slack


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("name", NAMES)
def test_the_clean_error_of_a_card_is_that_of_all_images(name, labelled_images):
    network = read_record(FOLDER / f"{name}.json").network["name"]
    is_slow = network in ("densenet40", "purifier_resnet")
    if is_slow and not os.environ.get("APE_GAN_TF_WHOLE"):
        pytest.skip("minutes of a core: APE_GAN_TF_WHOLE is not set")
    row = clean_row(name)
    images, labels = labelled_images(row.dataset, row.split)
    stated = row.target_error
    if row.purifier is not None:
        images = plain_keras(name).predict(images, verbose=0)
        stated = row.purified_error
    found = percent_wrong(plain_keras(row.classifier["name"]), images, labels)
    # Two images may fall on the other side on another processor.
    assert found == pytest.approx(stated, abs=210 / row.count)


# Damage


@pytest.fixture
def copied(tmp_path):
    """A folder with the three files of one network, to damage."""
    for path in FOLDER.glob("ape_gan_m.*"):
        shutil.copy(path, tmp_path)
    return tmp_path


def edit_record(folder, **changes):
    path = folder / "ape_gan_m.json"
    record = {**json.loads(path.read_text()), **changes}
    kept = {k: v for k, v in record.items() if v is not None}
    path.write_text(json.dumps(kept))


def replace_weights(folder, change):
    """Writes other arrays, under a hash that fits them."""
    path = folder / "ape_gan_m.npz"
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_record(folder, sha256=found)


def test_a_copied_network_loads(copied):
    loaded = load_pretrained("ape_gan_m", folder=copied)
    assert loaded.fingerprint == load_pretrained("ape_gan_m").fingerprint


def test_one_changed_byte_is_found(copied):
    path = copied / "ape_gan_m.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError) as raised:
        load_pretrained("ape_gan_m", folder=copied)
    message = str(raised.value)
    assert message.startswith(f"{path} must have the SHA-256 ")
    assert f"got {found}" in message


def test_a_truncated_file_is_refused_whatever_its_hash(copied):
    path = copied / "ape_gan_m.npz"
    path.write_bytes(path.read_bytes()[:1000])
    edit_record(copied, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match="must be a whole .npz file"):
        load_pretrained("ape_gan_m", folder=copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda arrays: arrays.pop("encoder_1/kernel"),
            "missing encoder_1/kernel, unknown none",
        ),
        (
            lambda arrays: arrays.update(more=np.zeros(3, np.float16)),
            "missing none, unknown more",
        ),
        (
            lambda arrays: arrays.update(
                {"encoder_1/kernel": np.zeros((5, 5, 1, 64), np.float16)}
            ),
            r"encoder_1/kernel must be float16 \[3, 3, 1, 64\], got float16 "
            r"\[5, 5, 1, 64\]",
        ),
        (
            lambda arrays: arrays.update(
                {"encoder_1/kernel": np.zeros((3, 3, 1, 64), np.float64)}
            ),
            r"encoder_1/kernel must be float16 .*, got float64 ",
        ),
        (
            lambda arrays: arrays.update(
                {"encoder_1/kernel": np.array([{}], dtype=object)}
            ),
            "must be a whole .npz file of arrays, but it cannot be read",
        ),
    ],
    ids=["missing", "extra", "misshaped", "another dtype", "pickled"],
)
def test_arrays_that_do_not_fit_are_named(copied, change, message):
    replace_weights(copied, change)
    with pytest.raises(ValueError, match=message) as raised:
        load_pretrained("ape_gan_m", folder=copied)
    assert str(copied / "ape_gan_m.npz") in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "must have format_version 1, got 2"),
        ({"format_version": None}, "must have format_version 1, got None"),
        ({"kind": "attacker"}, "kind must be one of classifier, purifier"),
        ({"weights_dtype": "int8"}, "weights_dtype must be one of float16"),
        ({"sha256": None}, "missing 1 required .*'sha256'"),
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
        ({"network": {}}, "network does not fit: 'image_shape'"),
        (
            {"network": {"name": "ape_gan_x", "image_shape": [28, 28, 1]}},
            "network does not fit: name must be one of ape_gan_c",
        ),
    ],
    ids=str,
)
def test_a_record_that_does_not_fit_is_refused(copied, changes, message):
    edit_record(copied, **changes)
    with pytest.raises(ValueError, match=message) as raised:
        load_pretrained("ape_gan_m", folder=copied)
    assert str(copied / "ape_gan_m.json") in str(raised.value)


def test_a_record_that_is_not_json_is_refused(copied):
    (copied / "ape_gan_m.json").write_text("{")
    with pytest.raises(ValueError, match="ape_gan_m.json is not valid JSON"):
        load_pretrained("ape_gan_m", folder=copied)


# By name in commands


def test_evaluate_takes_pretrained_names(command, tmp_path, capsys):
    words = [
        "--classifier=target_c",
        "--purifier=ape_gan_m",
        "--dataset=digits",
        "--limit=16",
        "--epsilons=0.3",
        "--attacks=fgsm",
        "--threat_models=oblivious",
        "--nocurve",
        f"--workdir={tmp_path}",
    ]
    assert command("evaluate", *words) == 0
    clean = MetricsFile(tmp_path / "metrics.json").rows[0]
    assert clean.classifier["name"] == "target_c"
    assert clean.purifier["name"] == "ape_gan_m"
    batch = next(iter(data.load("digits").batches("test", 16)))
    labels = batch["labels"].numpy()
    purified = plain_keras("ape_gan_m").predict(batch["images"], verbose=0)
    classifier = plain_keras("target_c")
    assert clean.target_error == pytest.approx(
        percent_wrong(classifier, batch["images"], labels)
    )
    assert clean.purified_error == pytest.approx(
        percent_wrong(classifier, purified, labels)
    )
    assert "| clean | benign | 16 |" in capsys.readouterr().out
    # flags.txt repeats the run elsewhere.
    assert "--classifier=target_c\n" in (tmp_path / "flags.txt").read_text()


def test_purify_and_export_take_pretrained_names(command, tmp_path):
    images = images_of(3)
    np.save(tmp_path / "in.npy", images)
    words = [f"--input={tmp_path / 'in.npy'}", f"--output={tmp_path}/out.npy"]
    assert command("purify", "--purifier=ape_gan_m", *words) == 0
    purifier = load_pretrained("ape_gan_m")
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy"), purifier.predict(images), atol=1e-6
    )
    words = ["--classifier=target_b", f"--output={tmp_path / 'serving'}"]
    assert command("export", "--purifier=ape_gan_m", *words) == 0
    exported = models.Purifier.load(tmp_path / "serving")
    assert exported.fingerprint == purifier.fingerprint


def test_craft_takes_pretrained_names(command, tmp_path):
    words = [
        "--classifier=target_a",
        "--purifier=ape_gan_m",
        "--attack_params=epsilon=0.1",
        "--limit=4",
        f"--output={tmp_path / 'set'}",
    ]
    assert command("craft", *words) == 0
    provenance = data.AdversarialSet.open(tmp_path / "set").provenance
    found = (provenance.classifier_fingerprint, provenance.purifier_fingerprint)
    assert found == (
        load_pretrained("target_a").fingerprint,
        load_pretrained("ape_gan_m").fingerprint,
    )


def test_a_path_comes_before_a_pretrained_name(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = load_pretrained("target_b")
    own.save(tmp_path / "target_a")
    words = ["--classifier=target_a", "--limit=4", "--output=set"]
    assert command("craft", *words, "--attack_params=epsilon=0.1") == 0
    provenance = data.AdversarialSet.open(tmp_path / "set").provenance
    assert provenance.classifier_fingerprint == own.fingerprint


def test_a_pretrained_classifier_is_read_like_any_other(
    command, tmp_path, capsys
):
    words = [
        "--classifier=target_c",
        "--classifier_output=probabilities",
        f"--workdir={tmp_path}",
    ]
    assert command("evaluate", *words) == 1
    shown = capsys.readouterr().err
    assert "the output of classifier target_c must be probabilities" in shown


@pytest.mark.parametrize(
    ("name", "words", "kind", "given"),
    [
        ("evaluate", ["--classifier=taget_c"], "classifier", "taget_c"),
        ("evaluate", ["--classifier=ape_gan_m"], "classifier", "ape_gan_m"),
        (
            "evaluate",
            ["--classifier=target_c", "--purifier=nowhere"],
            "purifier",
            "nowhere",
        ),
        (
            "craft",
            ["--classifier=target_c", "--purifier=target_c", "--output=x"],
            "purifier",
            "target_c",
        ),
        ("purify", ["--purifier=y", "--input=x"], "purifier", "y"),
        ("export", ["--purifier=y", "--output=x"], "purifier", "y"),
        ("train", ["--classifier=target_x"], "classifier", "target_x"),
    ],
    ids=str,
)
def test_what_is_neither_path_nor_name_lists_the_names(
    command, capsys, tmp_path, monkeypatch, name, words, kind, given
):
    monkeypatch.chdir(tmp_path)
    if name in ("evaluate", "train"):
        words = [*words, "--workdir=x"]
    elif name == "purify":
        words = [*words, "--output=x.npy"]
    assert command(name, *words) == 2
    shown = capsys.readouterr().err
    assert (
        f"the path of a model, or a pretrained {kind} "
        f"({', '.join(names(kind))}), but there is nothing at {given}\n"
    ) in shown
    assert shown.startswith(f"{name}: --{kind} must be ")
    assert "A, B, C, D" in shown or name != "train"
    assert not list(tmp_path.iterdir())


def test_a_purifier_is_the_packages_own():
    purifier = load_pretrained("ape_gan_m")
    assert isinstance(purifier, ape_gan_tf.Purifier)
    assert type(ape_gan_tf.Purifier.load("ape_gan_m")) is type(purifier)
