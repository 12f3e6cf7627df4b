"""Who knows the purifier is measured, and false defences are found out."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

import attacks
import data
import models
from ape_gan_tf import sanity_checks
from ape_gan_tf.evaluation import SignNoise, Subject
from ape_gan_tf.metrics import MetricsFile
from ape_gan_tf.robustness import Plan, Robustness
from data.splits import array_splits

SHAPE = (4, 4, 1)
WEIGHTS = np.random.default_rng(5).normal(size=(16, 10)).astype(np.float32)
COUNT = 48
FGSM = attacks.get("fgsm", epsilon=0.05)
PGD = attacks.get("pgd", epsilon=0.05, alpha=0.02, steps=10)
SQUARE = attacks.get("square", epsilon=0.05, queries=20)


def linear(images):
    return (tf.reshape(images, (-1, 16)) - 0.5) @ WEIGHTS


def turned(images):
    """Another linear classifier: its first class is the other's second."""
    return tf.roll(linear(images), 1, axis=-1)


def noisy(images):
    noise = tf.random.normal(tf.shape(images), stddev=0.1)
    return tf.clip_by_value(images + noise, 0.0, 1.0)


def rounded(images):
    return tf.round(images * 7.0) / 7.0


PURIFIERS = {
    "shrinks": lambda images: 0.9 * images + 0.05,
    "stops": tf.stop_gradient,
    "rounds": rounded,
    "random": noisy,
    "root": lambda images: tf.sqrt(tf.nn.relu(images - 0.5)),
}


@functools.cache
def make_classifier(function=linear, name="linear"):
    return models.Classifier.from_callable(
        function, image_shape=SHAPE, num_classes=10, fingerprint=name
    )


@pytest.fixture(scope="module")
def dataset():
    generator = np.random.default_rng(6)
    images = generator.integers(0, 256, (COUNT, *SHAPE), np.uint8)
    labels = linear(images.astype(np.float32) / 255.0).numpy().argmax(-1)
    labels[::4] = (labels[::4] + 1) % 10
    return data.Dataset(
        name="digits",
        image_shape=SHAPE,
        class_names=tuple("0123456789"),
        splits=array_splits((images, labels), (images, labels), 0),
    )


@functools.cache
def make_purifier(name):
    return models.Purifier.from_callable(
        PURIFIERS[name], image_shape=SHAPE, fingerprint=name
    )


def make_subject(dataset, purifier="shrinks", **changes):
    if purifier is not None:
        purifier = make_purifier(purifier)
    return Subject(
        dataset=dataset,
        split="test",
        classifier=make_classifier(),
        purifier=purifier,
        seed=3,
        **changes,
    )


def measure(workdir, subject, *attack_list, **plan):
    plan = Plan(attacks=attack_list, **{"curve": False, **plan})
    robustness = Robustness(workdir, subject, plan)
    rows = robustness.measure()
    return rows, robustness.attacker


def find(rows, name, threat, start=None, epsilon=0.05):
    (row,) = (
        row
        for row in rows
        if (row.input, row.threat_model, row.start) == (name, threat, start)
        and row.params.get("epsilon", epsilon) == epsilon
    )
    return row


@pytest.fixture(scope="module")
def measured(dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("measured")
    subject = make_subject(dataset)
    rows, _ = measure(workdir, subject, FGSM, PGD)
    return workdir, subject, rows


def test_each_attack_is_made_by_who_knows_and_by_who_does_not(measured):
    _, subject, rows = measured
    for attack in (FGSM, PGD):
        oblivious = find(rows, attack.name, "oblivious")
        white_box = find(rows, attack.name, "white_box")
        assert oblivious.crafted_on == "linear"
        assert white_box.crafted_on == subject.defended.fingerprint
        # The bare classifier's, under the same attack on itself.
        assert white_box.target_error == oblivious.target_error


def test_white_box_figures_are_those_of_the_attack_itself(measured, dataset):
    _, subject, rows = measured
    batch = next(iter(dataset.batches("test", COUNT)))
    made = dataclasses.replace(PGD, seed=3)(
        subject.defended,
        batch["images"],
        batch["labels"],
        indices=batch["index"],
    )
    error = 100.0 * float(made.success.numpy().mean())
    row = find(rows, "pgd", "white_box")
    assert row.purified_error == pytest.approx(error)


def test_searches_also_start_from_what_fools_the_classifier_alone(measured):
    _, _, rows = measured
    starts = {row.start for row in rows if row.start}
    other = "oblivious pgd, alpha 0.02, steps 10"
    assert starts == {"oblivious fgsm", other}
    row = find(rows, "pgd", "white_box", "oblivious fgsm")
    assert row.target_error is None
    assert row.purified_error is not None


def test_the_worst_case_is_at_least_each_attack(measured):
    _, _, rows = measured
    worst = find(rows, "worst_case", "white_box")
    others = [
        row.purified_error
        for row in rows
        if row.params.get("epsilon") == 0.05 and row is not worst
    ]
    assert worst.purified_error >= max(others)


def test_oblivious_images_are_kept_and_others_are_not(measured):
    workdir, _, _ = measured
    kept = sorted(path.name for path in (workdir / "adversarial").iterdir())
    assert kept == ["oblivious", "white_box"]
    assert len(list((workdir / "adversarial/oblivious").glob("*.h5"))) == 2
    assert not list((workdir / "adversarial/white_box").glob("*.h5"))


def test_again_it_measures_nothing(measured, monkeypatch):
    workdir, subject, rows = measured

    def refuse(*arguments, **keywords):
        raise RuntimeError("something was crafted")

    monkeypatch.setattr("ape_gan_tf.robustness.craft", refuse)
    # The sets to start from are looked up only for rows that are missing.
    again, _ = measure(workdir, subject, FGSM, PGD)
    assert again == rows


def test_rows_without_outcomes_are_measured_again(measured, tmp_path):
    workdir, subject, rows = measured
    (tmp_path / "metrics.json").write_text(
        (workdir / "metrics.json").read_text()
    )
    again, _ = measure(tmp_path, subject, FGSM)
    found = find(again, "fgsm", "white_box")
    assert found == find(rows, "fgsm", "white_box")
    kept = MetricsFile(tmp_path / "metrics.json").rows
    assert sum(each.is_same_measurement(found) for each in kept) == 1


def test_the_curve_ends_where_nothing_is_right(dataset, tmp_path):
    rows, _ = measure(tmp_path, make_subject(dataset), FGSM, curve=True)
    curve = [
        (row.params["epsilon"], row.purified_error)
        for row in rows
        if (row.input, row.threat_model, row.start)
        == ("apgd_ce", "white_box", None)
    ]
    epsilons, errors = zip(*curve, strict=True)
    assert epsilons[:2] == (0.05, 0.1)
    assert list(errors) == sorted(errors)
    assert errors[-1] == 100.0
    assert all(error < 100.0 for error in errors[:-1])


def test_transfer_is_crafted_on_another_classifier(dataset, tmp_path):
    other = make_classifier(turned, "turned")
    rows, _ = measure(
        tmp_path,
        make_subject(dataset),
        FGSM,
        threat_models=("oblivious", "transfer"),
        transfer_classifier=other,
    )
    row = find(rows, "fgsm", "transfer")
    assert row.crafted_on == "turned"
    assert row.target_error != find(rows, "fgsm", "oblivious").target_error
    assert find(rows, "worst_case", "transfer").target_error is not None


def test_a_bare_classifier_has_one_attacker(dataset, tmp_path):
    rows, _ = measure(
        tmp_path,
        make_subject(dataset, None),
        FGSM,
        threat_models=("oblivious",),
    )
    worst = find(rows, "worst_case", "oblivious")
    assert worst.target_error >= find(rows, "fgsm", "oblivious").target_error
    assert worst.purified_error is None


def test_sign_noise_moves_each_value_by_epsilon():
    grey = tf.fill((6, *SHAPE), 0.5)
    noise = SignNoise(epsilon=0.25, seed=1)
    moved = noise(grey, tf.range(6)).numpy()
    assert set(np.unique(moved)) == {0.25, 0.75}
    assert 0.25 < np.mean(moved == 0.75) < 0.75
    np.testing.assert_array_equal(noise(grey[:2], [4, 1]), moved[[4, 1]])


# Planted false defences


def warnings_of(rows, attacker):
    found = sanity_checks.check(rows, attacker.probe)
    return {warning.name for warning in found}


@pytest.mark.parametrize(
    ("purifier", "name"),
    [
        ("stops", "zero_gradients"),
        ("rounds", "zero_gradients"),
        ("random", "answers_change"),
    ],
)
def test_a_false_defence_is_found_out(dataset, tmp_path, purifier, name):
    subject = make_subject(dataset, purifier)
    rows, attacker = measure(tmp_path, subject, PGD, SQUARE, gradient="plain")
    assert name in warnings_of(rows, attacker)
    # Its gradient says nothing, so there is no figure that could please.
    white_box = find(rows, "pgd", "white_box")
    assert white_box.purified_error is None
    assert white_box.remark == "not attacked adaptively"
    worst = find(rows, "worst_case", "white_box")
    assert (worst.purified_error, worst.remark) == (None, white_box.remark)
    # Square needs no gradient, but an answer that is the same each time.
    square = find(rows, "square", "white_box")
    if purifier == "random":
        assert "stops at one wrong answer" in square.remark
    else:
        assert square.purified_error is not None


@pytest.mark.parametrize(
    ("purifier", "gradient"),
    [("stops", "bpda"), ("rounds", "bpda"), ("random", "eot 10")],
)
def test_and_attacked_around_what_it_hides(
    dataset, tmp_path, purifier, gradient
):
    subject = make_subject(dataset, purifier)
    rows, _ = measure(tmp_path, subject, PGD)
    row = find(rows, "pgd", "white_box")
    assert (row.gradient, row.remark) == (gradient, None)
    # Left alone, a quarter is wrong; random answers are wrong more often.
    clean = find(rows, "clean", "benign").purified_error
    assert row.purified_error > clean + 10.0


@pytest.fixture(scope="module")
def guessing(dataset):
    """A subject whose purifier makes a guess, and so far nothing of it."""
    model = models.generator(
        "purifier_resnet", SHAPE, classes=10, skip=True, depth=1, seed=0
    )
    return dataclasses.replace(
        make_subject(dataset), purifier=models.Purifier.from_keras(model)
    )


def test_a_guess_is_attacked_for_the_whole_and_counts(
    dataset, guessing, tmp_path
):
    subject = guessing
    guessed, _ = measure(tmp_path, subject, FGSM, gradient="guess")
    row = find(guessed, "fgsm", "white_box")
    assert row.gradient == "guess"
    # The guess is what FGSM moves along; both together are what is judged.
    guess = models.guess_in_place_of(subject.defended)
    batch = next(iter(dataset.batches("test", COUNT)))
    made = FGSM(guess, batch["images"], batch["labels"]).adversarial
    wrong = subject.defended.predict(made).argmax(-1) != batch["labels"]
    assert row.purified_error == pytest.approx(100.0 * wrong.numpy().mean())

    rows, _ = measure(tmp_path, subject, FGSM)
    assert find(rows, "fgsm", "white_box").gradient is None
    worst = find(rows, "worst_case", "white_box")
    known = MetricsFile(tmp_path / "metrics.json", tmp_path / "outcomes")
    wrongs = [
        known.outcomes(each)["purified"]
        for each in known.rows
        if each.input not in ("gaussian_noise", "worst_case")
    ]
    union = np.logical_or.reduce(wrongs).mean()
    assert worst.purified_error == pytest.approx(100.0 * union)
    worst_cases = [row for row in known.rows if row.input == "worst_case"]
    threats = ["oblivious", "white_box"]
    assert sorted(row.threat_model for row in worst_cases) == threats


def test_what_stops_at_a_wrong_guess_has_no_figure(guessing, tmp_path):
    attack = attacks.get("deepfool", steps=2)
    rows, _ = measure(tmp_path, guessing, attack, gradient="guess")
    (row,) = (
        row
        for row in rows
        if (row.input, row.threat_model) == ("deepfool", "white_box")
    )
    assert "stops at a wrong guess" in row.remark
    assert row.target_error is not None and row.purified_error is None


def test_other_samples_of_eot_are_another_measurement(dataset, tmp_path):
    subject = make_subject(dataset, "random")
    for samples in (2, 3):
        rows, _ = measure(tmp_path, subject, FGSM, eot_samples=samples)
        assert find(rows, "fgsm", "white_box").gradient == f"eot {samples}"


def test_a_gradient_that_is_not_finite_is_a_remark_and_not_the_end(
    dataset, tmp_path
):
    # The root's derivative is infinite at 0, where many purified values are.
    subject = make_subject(dataset, "root")
    rows, attacker = measure(tmp_path, subject, FGSM)
    row = find(rows, "fgsm", "white_box")
    assert row.remark == "not attacked: its gradients are not finite"
    assert row.target_error is not None
    assert "non_finite_gradients" in warnings_of(rows, attacker)


def test_without_a_search_among_the_attacks_one_starts_all_the_same(
    dataset, tmp_path
):
    rows, _ = measure(tmp_path, make_subject(dataset), FGSM)
    assert find(rows, "apgd_ce", "white_box", "oblivious fgsm")


def test_a_sound_defence_is_not_accused(measured, dataset):
    workdir, subject, _ = measured
    rows, attacker = measure(workdir, subject, FGSM, PGD)
    assert warnings_of(rows, attacker) == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threat_models": ("whitebox",)}, "threat_models must be one of"),
        ({"threat_models": ("transfer",)}, "transfer_classifier must be given"),
    ],
)
def test_a_plan_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        Plan(**changes)


@pytest.mark.parametrize("purifier", [None, "shrinks"])
def test_a_guess_needs_one_who_makes_it(dataset, tmp_path, purifier):
    subject = make_subject(dataset, purifier)
    with pytest.raises(ValueError, match="purifier must be .* guess of its"):
        plan = Plan(gradient="guess", threat_models=("oblivious",))
        Robustness(tmp_path, subject, plan)


def test_white_box_needs_a_purifier(dataset, tmp_path):
    with pytest.raises(ValueError, match="white_box needs a purifier"):
        Robustness(tmp_path, make_subject(dataset, None), Plan())
