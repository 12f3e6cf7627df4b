"""The commands as a user types them: mistakes, and how they are answered."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import data
import models
from ape_gan_tf.metrics import MetricsFile
from data import files

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "train",
    "train_classifier",
    "craft",
    "evaluate",
    "purify",
    "export",
    "release",
    "reproduce",
)


def in_a_process(*words, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


# Before TensorFlow is even loaded


def test_help_comes_quickly(tmp_path):
    started = os.times()
    finished = in_a_process("ape_gan_tf.train", "--help", cwd=tmp_path)
    ended = os.times()
    assert finished.returncode == 0
    assert finished.stdout.startswith("Trains, measures and exports a purif")
    assert "--attack_params" in finished.stdout
    # Processor time: TensorFlow alone would take seconds.
    spent = ended.children_user - started.children_user
    assert spent < 2.0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command, capsys, name):
    assert command(name, "--help") == 0
    shown = capsys.readouterr().out
    assert f"python -m ape_gan_tf.{name} " in shown
    assert "--[no]debug" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_lists_its_flags_after_a_typing_error(
    command, capsys, name
):
    assert command(name, "--clasifier=C") == 2
    shown = capsys.readouterr().err
    if name != "purify":
        assert "unknown flag --clasifier; did you mean --classifier" in shown
    assert "valid flags: --" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "train: --workdir must be given"),
        (["train_classifier"], "train_classifier: --workdir must be given"),
        (["evaluate"], "evaluate: --workdir and --classifier must be given"),
        (["craft"], "craft: --classifier and --output must be given"),
        (["purify"], "--purifier and --input and --output must be given"),
        (["export"], "export: --purifier and --output must be given"),
    ],
)
def test_what_a_command_needs_is_asked_for(command, capsys, words, message):
    assert command(*words) == 2
    assert message in capsys.readouterr().err


def test_a_strangers_models_folder_is_refused(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    finished = in_a_process("ape_gan_tf.train", "--help", cwd=tmp_path)
    assert finished.returncode == 1
    message = finished.stderr.splitlines()[-1]
    assert str(tmp_path / "models") in message
    assert str(ROOT / "models") in message
    assert "Run from another folder" in message
    # The way out that it names.
    if sys.version_info >= (3, 11):
        words = ["-P", "-m", "ape_gan_tf.train", "--help"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        helped = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            timeout=300,
        )
        assert helped.returncode == 0


# Values that do not fit


@pytest.fixture
def no_data(monkeypatch):
    monkeypatch.delenv("APE_GAN_TF_DATA", raising=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack=fgms"], "attack must be one of apgd_ce, apgd_t, "),
        (["--attack=fgms"], "did you mean 'fgsm'?"),
        (["--attacks=fgsm,pdg"], "attack must be one of apgd_ce, apgd_t, "),
        (["--attack_params=epsilom=0.3"], "did you mean 'epsilon'?"),
        (["--attack_params=epsilon"], "must look like name=value,name=value"),
        (["--attack_params=epsilon=2"], "epsilon must be a number in [0.0, 1."),
        (["--attack_params=seed=3"], "attack_params must not have seed"),
        (
            ["--attack=jsma", "--attack_params=target=all"],
            "attack must choose one target for each image, got jsma with tar",
        ),
        (["--epsilons=0.1,x"], "--epsilons must be numbers, got 'x'"),
        (["--epsilons=1.5"], "epsilon must be a number in [0.0, 1.0]"),
        (["--dataset=mnits"], "did you mean 'mnist'?"),
        (["--dataset=mnits"], "cifar10, digits, image_folder, mnist"),
        (["--generator=ape_gan_x"], "ape_gan_c|ape_gan_i|ape_gan_m"),
        (["--epochs=0"], "--epochs=0"),
        (["--learning_rate=nan"], "learning_rate must be a number in [0.0"),
        (["--classifier=E"], "or the path of a model"),
        (
            ["--classifier=.", "--classifier_range=0"],
            "--classifier_range must be two numbers",
        ),
        (["--threat_models=whitebox"], "threat_models must be one of obliv"),
        (["--validation_count=0", "--eval_split=validation"], "has none"),
        (["--adversarial_set=nowhere"], "looked for in nowhere.h5"),
    ],
    ids=str,
)
def test_train_refuses_what_does_not_fit_before_it_starts(
    command, capsys, tmp_path, words, message
):
    workdir = tmp_path / "run"
    assert command("train", f"--workdir={workdir}", *words) in (1, 2)
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    # Nothing was trained before the mistake was found.
    assert not (workdir / "classifier_checkpoints").exists()


@pytest.mark.parametrize(
    ("dataset", "file"),
    [
        ("mnist", "mnist.npz"),
        ("cifar10", "cifar-10-batches-bin/data_batch_1.bin"),
        ("image_folder", "imagenet/train"),
    ],
)
def test_a_data_dir_without_the_files_says_which_one(
    command, capsys, tmp_path, no_data, dataset, file
):
    words = [f"--dataset={dataset}", f"--data_dir={tmp_path}"]
    assert command("train", f"--workdir={tmp_path / 'run'}", *words) == 1
    assert str(tmp_path / file) in capsys.readouterr().err


def test_a_folder_without_a_model_says_what_was_looked_for(
    command, capsys, tmp_path
):
    words = [f"--classifier={tmp_path}", f"--workdir={tmp_path / 'run'}"]
    assert command("evaluate", *words) == 1
    shown = capsys.readouterr().err
    assert f"{tmp_path} holds no model" in shown
    assert "classifier.keras, saved_model.pb" in shown


def test_training_goes_on_from_a_classifier(command, tiny_run, tmp_path):
    first = tiny_run.workdir / "classifier"
    words = [
        "--dataset=digits",
        "--limit=16",
        "--epochs=1",
        "--batch_size=16",
        "--learning_rate=0",
        "--attacks=",
        # The initializers' seeds are part of a network's fingerprint.
        "--seed=1",
        f"--initial_classifier={first}",
        f"--workdir={tmp_path}",
    ]
    assert command("train_classifier", *words) == 0
    found = models.Classifier.load(tmp_path / "classifier")
    assert found.fingerprint == models.Classifier.load(first).fingerprint


def test_an_unknown_first_classifier_is_refused(command, tmp_path, capsys):
    words = ["--initial_classifier=target_x", f"--workdir={tmp_path / 'run'}"]
    assert command("train_classifier", *words) == 2
    shown = capsys.readouterr().err
    assert "--initial_classifier must be" in shown and "target_c" in shown
    assert not (tmp_path / "run").exists()


# A used work directory


@pytest.fixture
def rerun(command, tiny_run):
    def run(*words):
        return command(
            "train", f"--workdir={tiny_run.workdir}", *tiny_run.flags, *words
        )

    return run


def snapshot(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs=7"], "checkpoints holds work of another configuration (ep"),
        (["--epochs=7"], "(epochs was 6, now 7): use another --workdir"),
        (["--classifier_epochs=13"], "epochs was 12, now 13"),
        (["--limit=48"], "training_images was 64, now 48"),
        (["--seed=2"], "seed was 1, now 2"),
        (
            ["--attack_params=epsilon=0.3"],
            "train.h5: attribute params must be {'epsilon': 0.3",
        ),
    ],
    ids=str,
)
def test_other_settings_in_a_used_workdir_are_refused(
    rerun, tiny_run, capsys, words, message
):
    before = snapshot(tiny_run.workdir)
    assert rerun(*words) == 1
    assert message in capsys.readouterr().err
    # flags.txt still says how it was made.
    assert snapshot(tiny_run.workdir) == before


def test_a_finished_run_again_draws_the_losses_alone(rerun, tiny_run, capsys):
    def unchanged(name):
        return (tiny_run.workdir / name).stat().st_mtime_ns

    names = (
        "classifier/saved_model.pb",
        "adversarial/train.h5",
        "checkpoints/checkpoint",
        "purifier.keras",
        "purifier/1/saved_model.pb",
        "metrics.json",
        "figures/images.png",
    )
    before = [unchanged(name) for name in names]
    assert rerun() == 0
    assert [unchanged(name) for name in names] == before
    captured = capsys.readouterr()
    assert captured.out == tiny_run.stdout
    assert captured.err == ""


def test_two_runs_do_not_share_a_workdir(rerun, tiny_run, capsys):
    with files.exclusive(tiny_run.workdir / ".lock"):
        assert rerun() == 1
    message = f"another run is writing to {tiny_run.workdir}"
    assert message in capsys.readouterr().err


# Crafting and evaluating


def craft(command, tiny_run, output, *words):
    return command(
        "craft",
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--output={output}",
        "--limit=32",
        *words,
    )


def test_craft_prints_what_it_made(command, tiny_run, tmp_path, capsys):
    assert craft(command, tiny_run, tmp_path / "set") == 0
    made = data.AdversarialSet.open(tmp_path / "set")
    assert made.count == 32
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == [f"{tmp_path / 'set.h5'}:", "  count: 32"]
    rate = made.statistics()["success_rate"]
    assert shown[2] == f"  success rate: {rate:.6g}"


def test_craft_prints_a_dash_where_there_is_nothing(
    command, tiny_run, tmp_path, capsys
):
    words = ["--attack_params=epsilon=0"]
    assert craft(command, tiny_run, tmp_path / "set", *words) == 0
    assert "  mean l2: -\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack_params=epsilon=0.1"], "attribute params must be"),
        (["--limit=16"], "attribute count must be 16, got 32"),
        (["--seed=4"], "attribute seed must be 4, got 0"),
        (["--split=train"], "attribute split must be 'train', got 'test'"),
        (["--shard_size=8"], "set.h5 must be part of"),
    ],
    ids=str,
)
def test_another_set_is_not_written_over(
    command, tiny_run, tmp_path, capsys, words, message
):
    output = tmp_path / "set"
    assert craft(command, tiny_run, output) == 0
    before = (tmp_path / "set.h5").read_bytes()
    capsys.readouterr()
    assert craft(command, tiny_run, output, *words) == 1
    assert message in capsys.readouterr().err
    assert (tmp_path / "set.h5").read_bytes() == before


@pytest.mark.parametrize("name", ["seed", "batch_size", "xla"])
def test_craft_has_flags_of_its_own_for_the_rest(
    command, tiny_run, tmp_path, capsys, name
):
    words = [f"--attack_params={name}=3"]
    assert craft(command, tiny_run, tmp_path / "set", *words) == 2
    message = f"--attack_params must not have {name}, which --{name} says"
    assert message in capsys.readouterr().err


def test_craft_attacks_all_targets(command, tiny_run, tmp_path, capsys):
    words = [
        "--attack=cw_l2",
        "--attack_params=target=all,max_iterations=3,binary_search_steps=1",
        "--limit=5",
        "--shard_size=3",
    ]
    assert craft(command, tiny_run, tmp_path / "set", *words) == 0
    first = capsys.readouterr().out
    sets = {
        case: data.AdversarialSet.open(tmp_path / f"set_{case}")
        for case in ("best", "average", "worst")
    }
    for case, made in sets.items():
        assert made.count == 5
        assert made.provenance.params["target"] == "all"
        assert made.provenance.params["case"] == case
        assert str(made.path) in first
        batch = next(iter(made.batches(5)))
        assert (batch["target"] != batch["labels"]).numpy().all()
    # A set that lost a file gets that one again, and it is the same.
    lost = tmp_path / "set_worst" / "00001-of-00002.h5"
    before = lost.read_bytes()
    lost.unlink()
    assert craft(command, tiny_run, tmp_path / "set", *words) == 0
    assert lost.read_bytes() == before
    assert capsys.readouterr().out == first


def test_an_attack_without_epsilon_is_measured_once(
    command, tiny_run, tmp_path
):
    words = [
        f"--classifier={tiny_run.workdir / 'classifier'}",
        "--attacks=fgsm,deepfool",
        "--epsilons=0.1,0.2",
        "--nocurve",
        "--limit=8",
        f"--workdir={tmp_path}",
    ]
    assert command("evaluate", *words) == 0
    rows = MetricsFile(tmp_path / "metrics.json").rows
    attacked = [row.input for row in rows if row.threat_model == "oblivious"]
    assert attacked.count("deepfool") == 1
    assert attacked.count("fgsm") == 2


def test_evaluate_measures_the_same_as_train(
    command, tiny_run, tmp_path, capsys
):
    words = [
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--purifier={tiny_run.workdir / 'purifier' / '1'}",
        "--limit=32",
        "--attacks=fgsm",
        "--epsilons=0.3",
        "--nocurve",
        "--seed=1",
        f"--workdir={tmp_path}",
    ]
    assert command("evaluate", *words) == 0
    rows = [
        dataclasses.replace(row, milliseconds=None)
        for row in MetricsFile(tmp_path / "metrics.json").rows
    ]
    for row in MetricsFile(tiny_run.workdir / "metrics.json").rows:
        assert row in rows
    assert "| fgsm, epsilon 0.3 | white-box | 32 |" in capsys.readouterr().out
    assert (tmp_path / "report.md").exists()
    for name in ("report.html", "figures/images.png", "figures/attackers.png"):
        assert (tmp_path / name).exists()


def test_evaluate_measures_a_stored_set(command, tiny_run, tmp_path, capsys):
    assert craft(command, tiny_run, tmp_path / "set") == 0
    words = [
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--purifier={tiny_run.workdir / 'purifier.keras'}",
        f"--adversarial_set={tmp_path / 'set'}",
        f"--workdir={tmp_path}",
    ]
    assert command("evaluate", *words) == 0
    (row,) = MetricsFile(tmp_path / "metrics.json").rows
    assert (row.input, row.threat_model, row.count) == ("fgsm", "oblivious", 32)
    assert f"{row.purified_error:.2f}" in capsys.readouterr().out
    assert (tmp_path / "figures" / "set.png").exists()
    assert "(figures/set.png)" in (tmp_path / "report.md").read_text()
    # Fewer of them are another measurement.
    assert command("evaluate", *words, "--limit=8") == 0
    assert len(MetricsFile(tmp_path / "metrics.json").rows) == 2


def test_evaluate_does_not_write_over_a_training_run(command, tiny_run, capsys):
    before = snapshot(tiny_run.workdir)
    words = [
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--workdir={tiny_run.workdir}",
    ]
    assert command("evaluate", *words) == 2
    assert "is that of a training run; name one" in capsys.readouterr().err
    assert snapshot(tiny_run.workdir) == before


def test_epsilon_is_told_once(command, tiny_run, tmp_path, capsys):
    words = [
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--workdir={tmp_path}",
        "--attack_params=epsilon=0.3",
    ]
    assert command("evaluate", *words) == 2
    message = "--attack_params must not have epsilon, which --epsilons says"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack_params=seed=7"], "must not have seed, which --seed says"),
        (
            ["--attack_params=batch_size=2"],
            "must not have batch_size, which --batch_size says",
        ),
        (
            ["--attacks=jsma", "--attack_params=target=all"],
            "attacks must choose one target for each image, got jsma with tar",
        ),
    ],
    ids=str,
)
def test_evaluate_refuses_what_does_not_fit_before_it_starts(
    command, capsys, tmp_path, words, message
):
    # There is no model, but that would be found later.
    workdir = tmp_path / "measured"
    words = [f"--classifier={tmp_path}", f"--workdir={workdir}", *words]
    assert command("evaluate", *words) in (1, 2)
    assert message in capsys.readouterr().err
    assert not workdir.exists()


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A thousand classes, most of them empty, and a linear classifier."""
    folder = tmp_path_factory.mktemp("imagenet")
    generator = np.random.default_rng(11)
    names = [f"n{number:08d}" for number in range(1000)]
    for part in ("train", "val"):
        for name in names:
            (folder / part / name).mkdir(parents=True)
        for name in names[::100]:
            pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / part / name / "0.png")
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(
        1000, kernel_initializer=keras.initializers.GlorotUniform(1)
    )(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs, name="linear")
    # Some labels come first, some among the first five.
    dataset = data.load("image_folder", image_dir=folder, image_size=8)
    batch = next(iter(dataset.batches("test", 10)))
    kernel, biases = model.layers[-1].get_weights()
    logits = model.predict(batch["images"], verbose=0)
    order = np.argsort(-logits, axis=-1)
    for row, wanted in ((0, 0), (1, 2), (2, 3)):
        label = int(batch["labels"][row])
        gap = logits[row, order[row, wanted]] - logits[row, label]
        biases[label] += gap + 1e-3
    model.layers[-1].set_weights([kernel, biases])
    model.save(folder / "linear.keras")
    return folder


def test_a_thousand_classes_have_top_5_errors(command, imagenet, tmp_path):
    words = [
        f"--classifier={imagenet / 'linear.keras'}",
        "--dataset=image_folder",
        f"--image_dir={imagenet}",
        "--image_size=8",
        "--epsilons=8/255",
        "--attacks=fgsm",
        "--nocurve",
        f"--workdir={tmp_path}",
    ]
    assert command("evaluate", *words) == 0
    rows = MetricsFile(tmp_path / "metrics.json").rows
    dataset = data.load("image_folder", image_dir=imagenet, image_size=8)
    batch = next(iter(dataset.batches("test", 10)))
    model = keras.models.load_model(imagenet / "linear.keras")
    order = np.argsort(-model.predict(batch["images"], verbose=0), axis=-1)
    labels = batch["labels"].numpy()
    top_1 = 100.0 * np.mean(order[:, 0] != labels)
    top_5 = 100.0 * np.mean((order[:, :5] != labels[:, None]).all(-1))
    assert top_5 < top_1
    assert rows[0].target_error == pytest.approx(top_1)
    assert rows[0].target_top5_error == pytest.approx(top_5)
    assert rows[2].params["epsilon"] == 8 / 255
    assert f"(top-5 {top_5:.2f})" in (tmp_path / "report.md").read_text()
