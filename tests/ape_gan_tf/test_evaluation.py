"""Error rates: counted right, on the right images, and once."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import attacks
import data
import models
from ape_gan_tf.crafting import craft
from ape_gan_tf.evaluation import (
    Clean,
    GaussianNoise,
    Subject,
    evaluate,
    evaluate_set,
)
from ape_gan_tf.metrics import MetricsFile
from data.splits import array_splits

SHAPE = (4, 4, 1)
WEIGHTS = np.random.default_rng(5).normal(size=(16, 10)).astype(np.float32)


def linear(images):
    return (tf.reshape(images, (-1, 16)) - 0.5) @ WEIGHTS


def make_classifier(function=linear, shape=SHAPE, classes=10, name="linear"):
    return models.Classifier.from_callable(
        function, image_shape=shape, num_classes=classes, fingerprint=name
    )


def make_purifier(function, name="purifier"):
    return models.Purifier.from_callable(
        function, image_shape=SHAPE, fingerprint=name
    )


@pytest.fixture(scope="module")
def dataset():
    generator = np.random.default_rng(6)
    images = generator.integers(0, 256, (60, *SHAPE), np.uint8)
    labels = linear(images.astype(np.float32) / 255.0).numpy().argmax(-1)
    # A quarter is wrong before any attack.
    labels[::4] = (labels[::4] + 1) % 10
    return data.Dataset(
        name="digits",
        image_shape=SHAPE,
        class_names=tuple("0123456789"),
        splits=array_splits((images, labels), (images, labels), 0),
    )


@pytest.fixture(scope="module")
def images(dataset):
    return next(iter(dataset.batches("test", 60)))["images"].numpy()


@pytest.fixture(scope="module")
def labels(dataset):
    return next(iter(dataset.batches("test", 60)))["labels"].numpy()


@pytest.fixture(scope="module")
def subject(dataset):
    return Subject(
        dataset=dataset,
        split="test",
        classifier=make_classifier(),
        purifier=make_purifier(lambda x: 1.0 - x),
        batch_size=16,
        seed=3,
    )


@pytest.fixture
def metrics(tmp_path):
    return MetricsFile(tmp_path / "metrics.json")


def error(images, labels):
    wrong = linear(images).numpy().argmax(-1) != labels
    return 100.0 * int(wrong.sum()) / len(labels)


# Counting


def test_noise_has_the_variance_it_says():
    grey = tf.fill((80, 28, 28, 1), 0.5)
    noisy = GaussianNoise(variance=0.01)(grey, tf.range(80)).numpy() - 0.5
    # Five deviations away is the box's edge, so nothing is clipped.
    assert noisy.mean() == pytest.approx(0.0, abs=0.002)
    assert noisy.var() == pytest.approx(0.01, rel=0.03)


def test_the_papers_noise_is_clipped_to_the_box():
    grey = tf.fill((80, 28, 28, 1), 0.5)
    noisy = GaussianNoise()(grey, tf.range(80)).numpy()
    assert noisy.min() == 0.0 and noisy.max() == 1.0
    # Half of a normal distribution is within 0.6745 deviations.
    spread = np.median(np.abs(noisy - 0.5)) / 0.6745
    assert spread**2 == pytest.approx(0.05, rel=0.03)
    # 2.53 % are beyond 0.5 / sqrt(0.05) = 2.236 deviations.
    clipped = np.mean((noisy == 0.0) | (noisy == 1.0))
    assert clipped == pytest.approx(0.0253, rel=0.1)


def test_noise_depends_on_seed_and_index_alone():
    grey = tf.fill((6, *SHAPE), 0.5)
    noise = GaussianNoise(seed=4)
    whole = noise(grey, tf.range(6)).numpy()
    order = [3, 0, 5]
    np.testing.assert_array_equal(noise(grey[:3], order), whole[order])
    assert not np.isclose(GaussianNoise(seed=5)(grey, tf.range(6)), whole).any()
    assert not np.isclose(whole[0], whole[1]).any()


@pytest.mark.parametrize("variance", [-0.1, 1.5, float("nan")])
def test_a_variance_is_checked(variance):
    with pytest.raises(ValueError, match=r"variance must be a number in \[0"):
        GaussianNoise(variance=variance)


# What is measured on what


def test_benign_rows(subject, metrics, images, labels):
    noise = GaussianNoise(seed=3)
    clean_row, noise_row = evaluate(subject, [Clean(), noise], [], [], metrics)
    assert clean_row.target_error == 25.0
    assert clean_row.purified_error == error(1.0 - images, labels)
    noisy = noise(images, tf.range(60)).numpy()
    assert noise_row.target_error == error(noisy, labels)
    assert noise_row.purified_error == error(1.0 - noisy, labels)
    for row, name in ((clean_row, "clean"), (noise_row, "gaussian_noise")):
        assert (row.input, row.threat_model) == (name, "benign")
        assert row.crafted_on is None
        assert (row.dataset, row.split, row.count) == ("digits", "test", 60)
        assert (row.classifier["fingerprint"], row.seed) == ("linear", 3)
        assert row.purifier["fingerprint"] == "purifier"
    assert noise_row.params == {"variance": 0.05}


def test_threat_models_say_what_the_attacker_sees(
    subject, metrics, images, labels
):
    attack = attacks.FGSM(epsilon=0.1)
    oblivious, white_box = evaluate(
        subject, [], [attack], ["oblivious", "white_box"], metrics
    )
    on_classifier = attack(subject.classifier, images, labels)
    on_classifier = on_classifier.adversarial.numpy()
    defended = subject.classifier.behind(subject.purifier)
    on_defended = attack(defended, images, labels).adversarial.numpy()

    assert oblivious.threat_model == "oblivious"
    assert oblivious.crafted_on == "linear"
    assert oblivious.target_error == error(on_classifier, labels)
    assert oblivious.purified_error == error(1.0 - on_classifier, labels)

    assert white_box.threat_model == "white_box"
    assert white_box.crafted_on == defended.fingerprint
    # The bare classifier under the attack on itself, the defended one under
    # the attack on itself.
    assert white_box.target_error == oblivious.target_error
    assert white_box.purified_error == error(1.0 - on_defended, labels)
    assert white_box.purified_error != oblivious.purified_error


def test_without_a_purifier_there_is_one_error(subject, metrics):
    bare = dataclasses.replace(subject, purifier=None)
    (row,) = evaluate(bare, [Clean()], [], ["oblivious"], metrics)
    assert row.purifier is None and row.purified_error is None
    assert row.target_error == 25.0


def test_only_the_first_images_are_measured(subject, metrics, labels):
    limited = dataclasses.replace(subject, limit=10)
    (row,) = evaluate(limited, [Clean()], [], [], metrics)
    assert row.count == 10
    assert row.target_error == 30.0  # Images 0, 4 and 8.
    more = dataclasses.replace(subject, limit=1000)
    (row,) = evaluate(more, [Clean()], [], [], metrics)
    assert (row.count, row.target_error) == (60, 25.0)


def test_the_batch_size_changes_nothing(subject, tmp_path):
    rows = [
        evaluate(
            dataclasses.replace(subject, batch_size=batch_size),
            [GaussianNoise(seed=3)],
            [attacks.FGSM(epsilon=0.3, epsilon_min=0.0)],
            ["oblivious"],
            MetricsFile(tmp_path / f"{batch_size}.json"),
        )
        for batch_size in (7, 60, None)
    ]
    assert rows[0] == rows[1] == rows[2]


def test_what_is_measured_already_is_not_measured_again(subject, metrics):
    attack = attacks.FGSM(epsilon=0.1)
    (row,) = evaluate(subject, [], [attack], ["oblivious"], metrics)
    # An error that nobody could measure.
    metrics.rows[0] = dataclasses.replace(row, target_error=12.34)
    (again,) = evaluate(subject, [], [attack], ["oblivious"], metrics)
    assert again.target_error == 12.34
    stronger = attacks.FGSM(epsilon=0.2)
    (other,) = evaluate(subject, [], [stronger], ["oblivious"], metrics)
    assert other.target_error > row.target_error
    assert len(metrics.rows) == 2


def test_an_unknown_threat_model_lists_the_known_ones(subject, metrics):
    with pytest.raises(
        ValueError,
        match="threat_models must be one of oblivious, white_box, got 'white",
    ):
        evaluate(subject, [], [], ["whitebox"], metrics)


def test_a_white_box_needs_a_purifier(subject, metrics):
    bare = dataclasses.replace(subject, purifier=None)
    with pytest.raises(ValueError, match="white_box needs a purifier"):
        evaluate(bare, [Clean()], [], ["white_box"], metrics)
    assert metrics.rows == []


@pytest.mark.parametrize("classes", [9, 11])
def test_a_classifier_of_other_classes_is_refused(subject, classes):
    other = make_classifier(
        lambda x: tf.tile(linear(x), (1, 2))[:, :classes], classes=classes
    )
    with pytest.raises(
        ValueError, match=f"classifier .* {classes} classes, .* digits .* 10"
    ):
        dataclasses.replace(subject, classifier=other)


# Stored sets


def test_a_set_crafted_on_the_classifier_is_its_own(
    subject, metrics, tmp_path, labels
):
    attack = attacks.FGSM(epsilon=0.1, seed=9)
    stored = craft(
        attack, subject.classifier, subject.dataset, "test", tmp_path / "set"
    )
    row = evaluate_set(subject, stored, metrics)
    fresh = dataclasses.replace(subject, seed=9)
    (expected,) = evaluate(
        fresh, [], [attack], ["oblivious"], MetricsFile(tmp_path / "m.json")
    )
    assert row == expected
    limited = dataclasses.replace(subject, limit=8)
    assert evaluate_set(limited, stored, metrics).count == 8


def test_a_set_crafted_on_another_classifier_is_a_transfer(
    subject, metrics, tmp_path, labels
):
    other = make_classifier(lambda x: linear(x * x), name="other")
    attack = attacks.FGSM(epsilon=0.1)
    stored = craft(attack, other, subject.dataset, "test", tmp_path / "set")
    row = evaluate_set(subject, stored, metrics)
    assert (row.threat_model, row.crafted_on) == ("transfer", "other")
    adversarial = next(iter(stored.batches(60)))["adversarial"].numpy()
    assert row.target_error == error(adversarial, labels)
    assert row.purified_error == error(1.0 - adversarial, labels)


def test_a_white_box_set_is_one_for_its_own_purifier_alone(
    subject, metrics, tmp_path
):
    attack = attacks.FGSM(epsilon=0.1)
    defended = subject.classifier.behind(subject.purifier)
    stored = craft(attack, defended, subject.dataset, "test", tmp_path / "set")
    row = evaluate_set(subject, stored, metrics)
    assert (row.threat_model, row.crafted_on) == (
        "white_box",
        defended.fingerprint,
    )
    # The set says nothing of an attack on the bare classifier.
    assert row.target_error is None and row.purified_error is not None
    other = dataclasses.replace(
        subject, purifier=make_purifier(lambda x: x, "identity")
    )
    assert evaluate_set(other, stored, metrics).threat_model == "transfer"
    bare = dataclasses.replace(subject, purifier=None)
    assert evaluate_set(bare, stored, metrics).threat_model == "transfer"


def test_sets_crafted_through_two_purifiers_have_rows_of_their_own(
    subject, metrics, tmp_path
):
    attack = attacks.FGSM(epsilon=0.1)
    rows = []
    for name, function in (("half", lambda x: x / 2), ("same", lambda x: x)):
        through = subject.classifier.behind(make_purifier(function, name))
        stored = craft(
            attack, through, subject.dataset, "test", tmp_path / name
        )
        rows.append(evaluate_set(subject, stored, metrics))
    assert rows[0].crafted_on != rows[1].crafted_on
    assert len(metrics.rows) == 2
