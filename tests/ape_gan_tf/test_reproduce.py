"""`reproduce`: tables as a user asks for them, whole or in pieces.

MNIST is played by scikit-learn's scans in MNIST's file; the classifier and the
purifier are those of `tiny_run`, which was trained on them, and the hardened
classifier is that classifier with other weights.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import data
from ape_gan_tf import paper, table_result
from ape_gan_tf.networks import Networks
from ape_gan_tf.recipes import Recipes
from ape_gan_tf.reproduction import Reproduction

ROOT = Path(__file__).resolve().parents[2]
COUNT = 24
BENIGN = ("clean", "gaussian_noise variance 0.05")
SECONDS = 300


def pixels(split, count):
    dataset = data.load("digits")
    batch = next(iter(dataset.batches(split, count)))
    images = (255.0 * batch["images"].numpy()[..., 0]).round()
    return images.astype(np.uint8), batch["labels"].numpy()


@pytest.fixture(scope="session")
def mnist_dir(tmp_path_factory):
    """A folder with scans in the form of MNIST's file."""
    folder = tmp_path_factory.mktemp("mnist")
    x_train, y_train = pixels("train", 160)
    x_test, y_test = pixels("test", COUNT)
    np.savez(
        folder / "mnist.npz",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
    )
    return folder


@pytest.fixture(scope="session")
def hardened(tiny_run, tmp_path_factory):
    """Another classifier, to tell the columns of Table 8 apart."""
    model = keras.models.load_model(
        tiny_run.workdir / "classifier" / "classifier.keras"
    )
    generator = np.random.default_rng(0)
    model.set_weights(
        [
            weight + 0.5 * weight.std() * generator.normal(size=weight.shape)
            for weight in model.get_weights()
        ]
    )
    path = tmp_path_factory.mktemp("hardened") / "hardened.keras"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def given(tiny_run, hardened, mnist_dir):
    """Flags that name all that would have to be trained."""
    classifier = tiny_run.workdir / "classifier"
    names = {name: classifier for name in "ABC"} | {"C_adversarial": hardened}
    return (
        f"--data_dir={mnist_dir}",
        f"--classifiers={','.join(f'{k}={v}' for k, v in names.items())}",
        f"--purifier={tiny_run.workdir / 'purifier.keras'}",
        "--seed=1",
    )


@pytest.fixture(scope="session")
def reproduced(given, command, tmp_path_factory):
    """Tables 2 and 8, whole."""
    workdir = tmp_path_factory.mktemp("reproduced") / "work"
    words = (*given, "--table=2,8", f"--workdir={workdir}")
    if command("reproduce", *words):
        pytest.fail("reproduce failed")
    return workdir, words


def row_of(name):
    return f"{name} before C"


def read(workdir, name):
    return table_result.read(workdir / "tables" / f"table_{name}.json")


def errors(path, classifiers, purifier):
    """Of a set before each classifier, alone and purified."""
    (batch,) = data.AdversarialSet.open(path).batches(COUNT)
    images, labels = batch["adversarial"].numpy(), batch["labels"].numpy()
    purified = purifier.predict(images, verbose=0)
    return [
        100.0 * float(np.mean(model.predict(x, verbose=0).argmax(-1) != labels))
        for model in classifiers
        for x in (images, purified)
    ]


def test_the_cells_are_what_keras_makes_of_the_images(
    reproduced, tiny_run, hardened
):
    workdir, _ = reproduced
    plain, adversarial = sorted(
        (workdir / "adversarial").glob("*/fgsm_epsilon_0.1.h5"),
        key=lambda path: path.parent.name.startswith("hardened.keras_"),
    )
    classifiers = [
        keras.models.load_model(path)
        for path in (
            tiny_run.workdir / "classifier" / "classifier.keras",
            hardened,
        )
    ]
    purifier = keras.models.load_model(tiny_run.workdir / "purifier.keras")
    expected = [
        *errors(plain, classifiers, purifier),
        *errors(adversarial, classifiers[1:], purifier),
    ]
    assert len({round(each, 6) for each in expected}) > 3
    cells = read(workdir, "8").cells[0]
    assert [cell.ours for cell in cells] == pytest.approx(expected)
    assert [cell.paper for cell in cells] == [35.9, 0.8, 1.6, 0.6, 1.6, 0.6]
    assert {cell.count for cell in cells} == {COUNT}


def test_a_table_says_who_stood_in_and_how_it_was_made(reproduced):
    workdir, _ = reproduced
    result = read(workdir, "2")
    assert result.stand_ins == {"C": "classifier"}
    assert read(workdir, "8").stand_ins == {
        "C": "classifier",
        "C_adversarial": "hardened.keras",
    }
    assert result.provenance["commit"] and result.provenance["date"]
    assert set(result.provenance["seconds"]) == {row_of(x) for x in BENIGN}
    assert result.provenance["seed"] == 1
    command = result.provenance["command"]
    assert "--table=2,8" in command and str(workdir) not in command
    assert len(result.rows) == 2
    clean = {"error": result.cells[0][0].ours}
    assert result.clean == read(workdir, "8").clean == {"C": clean}


def test_each_table_is_written_in_four_forms(reproduced):
    workdir, _ = reproduced
    names = {path.name for path in (workdir / "tables").iterdir()}
    assert names == {
        f"table_{number}.{suffix}"
        for number in "28"
        for suffix in ("csv", "json", "md", "png")
    }


def test_a_second_run_makes_nothing_anew(reproduced, command, capsys):
    workdir, words = reproduced
    work = [workdir / "metrics.json", workdir / "stages.json"]
    work += (workdir / "adversarial").rglob("*.h5")
    before = {path: path.stat().st_mtime_ns for path in work}
    assert command("reproduce", *words) == 0
    assert {path: path.stat().st_mtime_ns for path in work} == before
    assert "===" not in capsys.readouterr().err


def test_a_later_commit_does_not_claim_earlier_figures(
    reproduced, command, monkeypatch
):
    workdir, words = reproduced
    before = read(workdir, "2").provenance
    monkeypatch.setattr("ape_gan_tf.reproduce._commit", lambda: "later")
    assert command("reproduce", *words) == 0
    after = read(workdir, "2").provenance
    assert after["commit"] == before["commit"] != "later"


def test_sets_may_be_removed_once_they_are_measured(
    reproduced, command, capsys, tmp_path
):
    workdir, words = reproduced
    aside = tmp_path / "aside"
    (workdir / "adversarial").rename(aside)
    try:
        assert command("reproduce", *words) == 0
        assert "===" not in capsys.readouterr().err
    finally:
        aside.rename(workdir / "adversarial")


def test_a_run_killed_while_it_crafts_goes_on_to_the_same_figures(
    reproduced, given, command, tmp_path
):
    workdir = tmp_path / "killed"
    words = (*given, "--table=2,8", f"--workdir={workdir}")
    process = subprocess.Popen(
        [sys.executable, "-m", "ape_gan_tf.reproduce", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + SECONDS
    while not any((workdir / "adversarial").rglob("*.h5")):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail("it ended, or crafted nothing in time")
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(SECONDS)
    assert not (workdir / "tables").exists()
    (first,) = (workdir / "adversarial").rglob("*.h5")
    before = first.stat().st_mtime_ns

    assert command("reproduce", *words) == 0
    assert first.stat().st_mtime_ns == before
    for name in "28":
        killed, whole = read(workdir, name), read(reproduced[0], name)
        assert killed.cells == whole.cells


def test_without_time_every_cell_is_missing_and_says_so(
    given, command, tmp_path, capsys
):
    words = ("--table=1", "--max_minutes=0", f"--workdir={tmp_path}")
    assert command("reproduce", *given, *words) == 0
    cells = [cell for line in read(tmp_path, "1").cells for cell in line]
    assert all(cell.ours is None for cell in cells)
    assert {cell.missing for cell in cells} == {"no time was left"}
    assert "no time was left" in capsys.readouterr().out
    assert not (tmp_path / "adversarial").exists()


def test_another_count_takes_over_what_is_crafted(
    given, command, tmp_path, capsys
):
    words = (*given, "--table=3", "--limit=6", f"--workdir={tmp_path}")
    assert command("reproduce", *words) == 0
    assert "crafting fgsm" in capsys.readouterr().err
    (folder,) = (tmp_path / "adversarial").iterdir()
    (folder / "fgsm_epsilon_0.1_first_5").mkdir()  # Killed in its first shard.
    assert command("reproduce", *words, "--counts=fgsm=4") == 0
    assert "crafting fgsm" not in capsys.readouterr().err
    cells = [cell for line in read(tmp_path, "3").cells for cell in line]
    assert {cell.count for cell in cells} == {4}


def test_an_attack_may_have_a_count_for_one_classifier(tmp_path, mnist_dir):
    dataset = data.load("mnist", data_dir=mnist_dir)
    recipes = Recipes(
        dataset="mnist", seed=0, data_flags={}, purifier="mnist.flags"
    )
    networks = Networks(
        tmp_path,
        recipes,
        dataset.image_shape,
        stand_ins={},
        weights={},
        purifier=None,
    )
    reproduction = Reproduction(
        tmp_path,
        dataset,
        networks,
        seed=0,
        counts={"cw_l2": 9, "cw_l2@C_adversarial": 2, "deepfool": 3},
        limit=7,
    )
    stages = reproduction.stages([paper.find("mnist", "7")])
    names = [stage.name for stage in stages]
    assert "deepfool on A, first 3 before C_adversarial" in names
    search = "cw_l2 max_iterations 1000"
    assert f"{search} on B, first 7 before B" in names
    assert f"{search} on C_adversarial, first 2 before C_adversarial" in names
    # Cheap ones first, on the paper's targets before the hardened one.
    attacks = [name.split()[0].rstrip(",") for name in names]
    assert list(dict.fromkeys(attacks)) == [
        "clean",
        "fgsm",
        "jsma",
        "deepfool",
        "lbfgs",
        "cw_l2",
        "cw_l0",
        "cw_linf",
    ]
    # And the targets' own errors.
    assert len(names) == len(set(names)) == 7 * 3 + 3


def test_it_trains_what_is_missing(mnist_dir, command, tmp_path, capsys):
    words = (
        f"--data_dir={mnist_dir}",
        "--table=2",
        "--train_limit=128",
        "--epochs=1",
        "--classifier_epochs=1",
        "--limit=8",
        f"--workdir={tmp_path}",
    )
    assert command("reproduce", *words) == 0
    assert (tmp_path / "classifiers" / "C" / "classifier.keras").is_file()
    assert (tmp_path / "purifier" / "purifier.keras").is_file()
    assert not (tmp_path / "classifiers" / "A").exists()
    seconds = json.loads((tmp_path / "stages.json").read_text())
    assert {"classifier C", "purifier"} <= seconds.keys()

    capsys.readouterr()
    for word, was in (
        ("--epochs=2", "epochs was 1, now 2"),
        ("--seed=3", "seed was 0, now 3"),
    ):
        assert command("reproduce", *words, word) == 1
        said = capsys.readouterr().err
        assert was in said and "another --workdir" in said


def test_a_network_without_weights_leaves_its_cells_missing(
    command, tmp_path, capsys
):
    folder = tmp_path / "imagenet"
    for split in ("train", "val"):
        for number in range(1000):
            (folder / split / f"n{number:08d}").mkdir(parents=True)
        photograph = folder / split / "n00000007" / "one.JPEG"
        keras.utils.save_img(photograph, np.zeros((64, 64, 3)))
    weights = tmp_path / "nowhere.h5"
    code = command(
        "reproduce",
        "--dataset=image_folder",
        f"--image_dir={folder}",
        "--table=4",
        "--classifiers=inception_v3=mobilenet_v2",
        f"--application_weights=mobilenet_v2={weights}",
        f"--workdir={tmp_path / 'work'}",
    )
    assert code == 0, capsys.readouterr().err
    result = read(tmp_path / "work", "4")
    assert result.stand_ins == {"inception_v3": "mobilenet_v2"}
    assert all(str(weights) in c.missing for line in result.cells for c in line)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--table=5"], "--table must be all, or some of targets, 1, 2"),
        (["--table=4"], "the paper has no such table about it"),
        (["--counts=cw_l3=4"], "--counts must be for some of clean, cw_l0"),
        (["--counts=cw_l2@D=4"], "--counts must be for some of A, B, C"),
        (["--counts=fgsm=4,fgsm=5"], "each name once, got 'fgsm=5'"),
        (["--table="], "--table must be all, or some of"),
        (["--counts=cw_l2=some"], "--counts must give a number of images"),
        (["--counts=cw_l2"], "--counts must look like NAME=VALUE"),
        (["--classifiers=E=x"], "--classifiers must be for some of A, B, C"),
        (["--classifiers=C=x"], "there is nothing at x"),
        (["--purifier=x"], "nothing at x"),
        (["--recipe=x.flags"], "flagfile x.flags does not exist"),
        (["--tabel=1"], "did you mean --table?"),
    ],
)
def test_a_wrong_word_is_answered(
    words, message, command, mnist_dir, tmp_path, capsys
):
    workdir = tmp_path / "work"
    given = (f"--data_dir={mnist_dir}", f"--workdir={workdir}")
    assert command("reproduce", *given, *words) == 2
    assert message in capsys.readouterr().err
    assert not workdir.exists()
