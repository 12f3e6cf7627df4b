"""How far attacks had to go, as rows have it."""

import math

import numpy as np
import pytest
import tensorflow as tf

import attacks
import data
import models
from ape_gan_tf.crafting import craft
from ape_gan_tf.evaluation import Subject, evaluate, evaluate_set
from ape_gan_tf.metrics import MetricsFile
from ape_gan_tf.perturbation import averages, minimised_distance
from data.splits import array_splits

SHAPE = (4, 4, 1)
WEIGHTS = np.random.default_rng(5).normal(size=(16, 3)).astype(np.float32)
DEEPFOOL = attacks.DeepFool(overshoot=1e-4)


def linear(images):
    return (tf.reshape(images, (-1, 16)) - 0.5) @ WEIGHTS


def half(images):
    return 0.5 * images


@pytest.fixture(scope="module")
def dataset():
    generator = np.random.default_rng(6)
    images = generator.integers(90, 166, (41, *SHAPE), np.uint8)
    labels = linear(images.astype(np.float32) / 255.0).numpy().argmax(-1)
    labels[::4] = (labels[::4] + 1) % 3  # Wrong before any attack.
    return data.Dataset(
        name="digits",
        image_shape=SHAPE,
        class_names=tuple("012"),
        splits=array_splits((images, labels), (images, labels), 0),
    )


def subject_of(dataset, logits=linear):
    return Subject(
        dataset=dataset,
        split="test",
        classifier=models.Classifier.from_callable(
            logits, image_shape=SHAPE, num_classes=3, fingerprint="linear"
        ),
        purifier=models.Purifier.from_callable(
            half, image_shape=SHAPE, fingerprint="half"
        ),
        batch_size=16,
    )


def least_distances(subject, scale):
    """To the nearest other class, if `scale` comes before the classifier."""
    batch = next(iter(subject.dataset.batches("test", 41)))
    images = batch["images"].numpy().astype(np.float64).reshape(41, 16)
    labels = batch["labels"].numpy()
    logits = (scale * images - 0.5) @ WEIGHTS
    rows = np.arange(41)
    gaps = logits[rows, labels][:, None] - logits
    normals = scale * (WEIGHTS.T[labels][:, None] - WEIGHTS.T[None])
    norms = np.linalg.norm(normals, axis=-1)
    norms[rows, labels] = np.nan
    is_right = logits.argmax(-1) == labels
    return np.nanmin(gaps / norms, axis=-1)[is_right]


def measured(subject, attack, threat, path):
    rows = evaluate(subject, [], [attack], [threat], MetricsFile(path))
    return rows[0]


def test_a_row_has_the_median_over_the_images_that_were_right(
    dataset, tmp_path
):
    subject = subject_of(dataset)
    row = measured(subject, DEEPFOOL, "oblivious", tmp_path / "metrics.json")
    expected = np.quantile(least_distances(subject, 1.0), 0.5, method="lower")
    assert row.distance == "l2"
    assert row.target_median_distance == pytest.approx(expected, rel=0.01)
    assert row.purified_median_distance is None
    # Read again, it is the same measurement.
    metrics = MetricsFile(tmp_path / "metrics.json")
    assert metrics.rows == [row]
    assert evaluate(subject, [], [DEEPFOOL], ["oblivious"], metrics) == [row]


def test_a_white_box_row_has_that_through_the_purifier_too(dataset, tmp_path):
    subject = subject_of(dataset)
    row = measured(subject, DEEPFOOL, "white_box", tmp_path / "metrics.json")
    for found, scale in (
        (row.target_median_distance, 1.0),
        (row.purified_median_distance, 0.5),
    ):
        distances = least_distances(subject, scale)
        expected = np.quantile(distances, 0.5, method="lower")
        assert found == pytest.approx(expected, rel=0.01)


def test_an_attack_that_fails_went_infinitely_far(dataset, tmp_path):
    def deaf(images):
        return 0.0 * linear(images) + tf.constant([1.0, 0.0, 0.0])

    subject = subject_of(dataset, deaf)
    row = measured(subject, DEEPFOOL, "oblivious", tmp_path / "metrics.json")
    assert (row.distance, row.target_median_distance) == ("l2", math.inf)
    assert MetricsFile(tmp_path / "metrics.json").rows == [row]


def test_an_image_that_was_wrong_does_not_count_if_it_was_moved(
    dataset, tmp_path
):
    # Targeted, it moves the wrong ones too, some of them very little.
    attack = attacks.LBFGS(target="next")
    subject = subject_of(dataset)
    batch = next(iter(dataset.batches("test", 41)))
    result = attack(
        subject.classifier,
        batch["images"],
        batch["labels"],
        indices=batch["index"],
    )
    logits = linear(batch["images"]).numpy()
    is_right = logits.argmax(-1) == batch["labels"].numpy()
    moved = result.linf.numpy() > 0
    assert (moved & ~is_right).any() and result.success.numpy().all()
    expected = np.quantile(result.l2.numpy()[is_right], 0.5, method="lower")
    row = measured(subject, attack, "oblivious", tmp_path / "metrics.json")
    assert row.target_median_distance == pytest.approx(expected, rel=1e-4)


def test_an_attack_in_a_ball_has_no_such_figure(dataset, tmp_path):
    subject = subject_of(dataset)
    path = tmp_path / "metrics.json"
    row = measured(subject, attacks.FGSM(epsilon=0.1), "oblivious", path)
    assert row.distance is row.target_median_distance is None
    assert "distance" not in path.read_text()


def test_a_stored_set_has_the_same_figure(dataset, tmp_path):
    subject = subject_of(dataset)
    path = tmp_path / "metrics.json"
    live = measured(subject, DEEPFOOL, "oblivious", path)
    crafted = craft(
        DEEPFOOL, subject.classifier, dataset, "test", tmp_path / "deepfool"
    )
    row = evaluate_set(subject, crafted, MetricsFile(tmp_path / "other.json"))
    assert row.threat_model == "oblivious"
    assert row.target_median_distance == live.target_median_distance
    through = craft(
        DEEPFOOL, subject.defended, dataset, "test", tmp_path / "through"
    )
    row = evaluate_set(subject, through, MetricsFile(tmp_path / "other.json"))
    assert row.threat_model == "white_box"
    assert row.target_median_distance is row.target_error is None
    assert row.purified_median_distance > 0


def test_distances_of_images_crafted_for_another_say_nothing(dataset, tmp_path):
    subject = subject_of(dataset)
    other = models.Classifier.from_callable(
        lambda images: -linear(images),
        image_shape=SHAPE,
        num_classes=3,
        fingerprint="other",
    )
    crafted = craft(DEEPFOOL, other, dataset, "test", tmp_path / "other")
    row = evaluate_set(subject, crafted, MetricsFile(tmp_path / "metrics.json"))
    assert row.threat_model == "transfer"
    assert row.distance is row.target_median_distance is None


@pytest.mark.parametrize(
    ("distances", "median", "mean"),
    [
        ([3.0, 1.0, 2.0], 2.0, 2.0),
        # The lower one in the middle.
        ([3.0, np.nan, 1.0, 2.0, 4.0], 2.0, 2.5),
        ([1.0, np.inf], 1.0, 1.0),
        ([1.0, np.inf, np.inf], np.inf, 1.0),
    ],
)
def test_medians_bear_failures_and_leave_out_what_was_wrong(
    distances, median, mean
):
    parts = [np.array(distances[:2]), np.array(distances[2:])]
    found = averages("linf", {"target": parts, "purified": []})
    assert found == {
        "distance": "linf",
        "target_median_distance": median,
        "target_mean_distance": mean,
    }


def test_of_failures_alone_there_is_no_mean():
    found = averages("linf", {"target": [np.array([np.inf])]})
    assert found == {"distance": "linf", "target_median_distance": np.inf}


def test_no_image_that_counts_is_no_figure():
    assert averages("l0", {"target": [np.array([np.nan])]}) == {}


def test_the_norm_of_an_attack_that_has_a_choice_is_the_one_it_chose():
    assert minimised_distance("fab_t", {"norm": "l2"}) == "l2"
    assert minimised_distance("cw_l2", {}) == "l2"
    assert minimised_distance("pgd", {"norm": "l2"}) is None
    assert minimised_distance("of_a_stranger", {}) is None
