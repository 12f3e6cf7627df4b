"""What a `train` run leaves behind, and how its parts fit together."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import attacks
import data
import models
from ape_gan_tf.classifier_training import ClassifierConfig, train_classifier
from ape_gan_tf.measurement import Measurement
from ape_gan_tf.metrics import MetricsFile
from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.purifier_training import train_purifier
from ape_gan_tf.run import Run
from ape_gan_tf.training_loop import LoopSettings


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_the_workdir_has_the_published_layout(tiny_run):
    def names(*folder):
        return {x.name for x in tiny_run.workdir.joinpath(*folder).iterdir()}

    assert names() == {
        "flags.txt",
        "classifier",
        "classifier_checkpoints",
        "adversarial",
        "checkpoints",
        "purifier.keras",
        "purifier",
        "metrics.json",
        "report.html",
        "report.md",
        "figures",
        "summaries",
    }
    assert {"classifier.keras", "saved_model.pb"} < names("classifier")
    assert names("adversarial") == {"train.h5"}
    assert names("purifier") == {"1"}
    assert names("figures") == {"images.png", "losses.png"}
    # The last two checkpoints, their index, the configuration, the losses.
    assert {"checkpoint", "config.json", "losses.csv"} < names("checkpoints")
    assert len(names("checkpoints")) == 7
    assert not list(tiny_run.workdir.rglob("*partial*"))


def test_it_prints_the_errors_and_where_things_are(tiny_run):
    lines = tiny_run.stdout.splitlines()
    # 32 images of a run this short: what it says of them is not the point.
    assert lines[0].startswith("Behind ") and lines[1] == ""
    assert lines[2] == (
        "| input | threat model | images | classifier | purified |"
    )
    assert [line.split(" | ")[0] for line in lines[4:8]] == [
        "| clean",
        "| gaussian noise, variance 0.05",
        "| fgsm, epsilon 0.3",
        "| fgsm, epsilon 0.3",
    ]
    assert lines[-2:] == [
        f"report: {tiny_run.workdir / 'report.html'}",
        f"purifier: {tiny_run.workdir / 'purifier'}",
    ]


def test_it_is_quiet_where_there_is_no_terminal(tiny_run):
    assert "training the classifier: 48 of 48 steps in " in tiny_run.stderr
    # On a slow machine there are lines on the way.
    kinds = [line.split(":")[0] for line in tiny_run.stderr.splitlines()]
    assert list(dict.fromkeys(kinds)) == [
        "training the classifier",
        "crafting fgsm",
        "training the purifier",
        "benign clean",
        "benign gaussian noise, variance 0.05",
        "oblivious fgsm, epsilon 0.3",
        "white_box fgsm, epsilon 0.3",
    ]


def test_the_rows_say_what_was_measured(tiny_run):
    rows = MetricsFile(tiny_run.workdir / "metrics.json").rows
    classifier = models.Classifier.load(tiny_run.workdir / "classifier")
    purifier = models.Purifier.load(tiny_run.workdir / "purifier.keras")
    for row in rows:
        assert (row.dataset, row.split, row.count) == ("digits", "test", 32)
        assert row.classifier["fingerprint"] == classifier.fingerprint
        assert row.purifier["fingerprint"] == purifier.fingerprint
        assert row.seed == 1
    assert [row.threat_model for row in rows] == [
        "benign",
        "benign",
        "oblivious",
        "white_box",
    ]


def test_the_clean_error_is_what_keras_says(tiny_run, digits):
    batch = next(iter(digits.batches("test", 32)))
    purifier, classifier = (
        keras.models.load_model(tiny_run.workdir / name, compile=False)
        for name in ("purifier.keras", "classifier/classifier.keras")
    )
    purified = purifier.predict(batch["images"], verbose=0)
    logits = classifier.predict(purified, verbose=0)
    wrong = logits.argmax(-1) != batch["labels"].numpy()
    row = MetricsFile(tiny_run.workdir / "metrics.json").rows[0]
    assert row.purified_error == pytest.approx(100.0 * wrong.mean())


def test_the_training_pairs_are_the_attacks(tiny_run, digits):
    pairs = data.AdversarialSet.open(tiny_run.workdir / "adversarial" / "train")
    classifier = models.Classifier.load(tiny_run.workdir / "classifier")
    assert pairs.provenance.classifier_fingerprint == classifier.fingerprint
    assert pairs.provenance.params == {"epsilon": 0.4, "epsilon_min": 0}
    stored = next(iter(pairs.batches(64)))
    clean = next(iter(digits.batches("train", 64)))
    np.testing.assert_array_equal(stored["images"], clean["images"])
    attack = attacks.FGSM(epsilon=0.4, epsilon_min=0, seed=1)
    result = attack(classifier, clean["images"], clean["labels"])
    np.testing.assert_allclose(
        stored["adversarial"], result.adversarial, atol=1e-6
    )
    epsilons = stored["epsilon"].numpy()
    assert len(set(epsilons.tolist())) == 64 and epsilons.max() <= 0.4


def test_the_report_links_to_pictures_that_are_there(tiny_run):
    text = (tiny_run.workdir / "report.md").read_text()
    assert text.startswith("# ape_gan_m before target_c, digits\n")
    for name in ("figures/images.png", "figures/losses.png"):
        assert f"]({name})" in text
        with Image.open(tiny_run.workdir / name) as picture:
            assert min(picture.size) > 300
    metrics = json.loads((tiny_run.workdir / "metrics.json").read_text())
    for row in metrics["rows"]:
        assert f"| {row['purified_error']:.2f} |" in text


def test_summaries_have_every_loss_and_a_grid(tiny_run):
    values = {}
    for path in (tiny_run.workdir / "summaries").iterdir():
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                values.setdefault(value.tag, {})[event.step] = value.tensor
    losses = np.loadtxt(
        tiny_run.workdir / "checkpoints" / "losses.csv",
        delimiter=",",
        skiprows=1,
    )
    columns = ("discriminator_loss", "generator_loss", "content_loss")
    for column, name in enumerate(columns, start=1):
        found = [
            float(tf.make_ndarray(values[name][step]))
            for step in losses[:, 0].astype(int)
        ]
        np.testing.assert_allclose(found, losses[:, column], rtol=1e-6)
    grid = values["clean_adversarial_purified"]
    assert sorted(grid) == [5, 10, 15, 20, 24]
    width, height, png = tf.make_ndarray(grid[24])
    # Eight images of 28 pixels: clean, adversarial and purified.
    assert (int(width), int(height)) == (8 * 28, 3 * 28)
    assert tf.io.decode_png(png).shape == (84, 224, 1)


# Before anything is trained


def make_run(workdir, digits, **changes):
    return Run(
        **{
            "workdir": workdir,
            "dataset": digits,
            "classifier": ClassifierConfig(),
            "adversarial_set": None,
            "attack": attacks.FGSM(),
            "purifier": PurifierConfig(),
            "measurement": Measurement(),
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 32}, "batch_size must be at most .* 32, got 64"),
        ({"purifier": PurifierConfig(batch_norm_momentum=2.0)}, "momentum"),
        ({"purifier": PurifierConfig(kernel_size=0)}, "kernel_size"),
        ({"measurement": Measurement(split="val")}, "split must be one of"),
        (
            {"attack": attacks.JSMA(target="all")},
            "attack must choose one target .* got jsma with target=all",
        ),
    ],
    ids=["batch_size", "momentum", "kernel_size", "split", "target"],
)
def test_what_would_fail_after_training_fails_before(
    tmp_path, digits, changes, message
):
    with pytest.raises(ValueError, match=message):
        make_run(tmp_path / "run", digits, **changes).execute()
    assert not (tmp_path / "run").exists()


def test_a_given_set_must_be_of_the_training_images(
    tmp_path, digits, tiny_run, command
):
    output = tmp_path / "set"
    words = [
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--output={output}",
        "--limit=64",
    ]
    assert command("craft", *words, "--split=test") == 0
    run = make_run(tmp_path / "run", digits, adversarial_set=output)
    with pytest.raises(ValueError, match="split must be 'train', got 'test'"):
        run.execute()
    assert not (tmp_path / "run").exists()


def test_a_limit_beyond_the_images_is_all_of_them(tmp_path, digits, make_pairs):
    """More steps than the epochs have would be another training."""
    pairs = make_pairs(tmp_path / "pairs", count=8)
    settings = LoopSettings()
    config = PurifierConfig(batch_size=8, epochs=1, generator_steps=1)
    stopped = _Stop()
    with pytest.raises(KeyError):
        train_purifier(
            config, stopped.watch(pairs), tmp_path / "p", settings, limit=1000
        )
    assert stopped.steps == 1
    with pytest.raises(KeyError):
        train_classifier(
            ClassifierConfig(batch_size=100, epochs=1),
            stopped.watch(digits),
            tmp_path / "c",
            settings,
            limit=10**6,
        )
    assert stopped.steps == 11  # 1,197 images.


class _Stop:
    """Stops a training before its first step, and keeps how many it has."""

    steps = None

    def watch(self, source):
        stop = self

        class Watched:
            def __getattr__(self, name):
                return getattr(source, name)

            def training_batches(self, *args, total_steps, **kwargs):
                stop.steps = total_steps
                raise KeyError

        return Watched()


def test_the_packages_names_are_all_there():
    import ape_gan_tf

    for name in ape_gan_tf.__all__:
        assert getattr(ape_gan_tf, name) is not None
    assert set(ape_gan_tf.__all__) <= set(dir(ape_gan_tf))
    with pytest.raises(AttributeError, match="has no attribute 'Purifyer'"):
        ape_gan_tf.Purifyer  # noqa: B018
    assert Path(ape_gan_tf.__file__).parent.name == "ape_gan_tf"
