"""What CW-L2, CW-Linf and CW-L0 share: the box, Adam, f_6, and manners."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from attacks.base import Inputs
from attacks.carlini_wagner import adam, attempt, box, to_tanh_space
from attacks.cw_l0 import CWL0
from attacks.cw_l2 import CWL2
from attacks.cw_linf import CWLinf

ATTACKS = (
    # Short, but long enough to leave black and white, where w hardly counts.
    CWL2(
        max_iterations=80,
        binary_search_steps=3,
        initial_const=0.1,
        learning_rate=0.1,
        abort_early=False,
    ),
    CWLinf(max_iterations=100, initial_const=0.1),
    CWL0(
        max_iterations=100,
        initial_const=0.1,
        largest_const=100.0,
        abort_early=False,
    ),
)
EACH = pytest.mark.parametrize("attack", ATTACKS, ids=lambda x: x.name)


def with_params(attack, **params):
    return type(attack)(**{**attack.params, **params})


def margins(logits, labels, targets=None):
    rows = np.arange(len(logits))
    chosen = labels if targets is None else targets
    others = np.array(logits, np.float64)
    own = others[rows, chosen].copy()
    others[rows, chosen] = -np.inf
    lead = own - others.max(-1)
    return lead if targets is not None else -lead


def test_tanh_space_holds_every_image_to_within_a_millionth():
    images = np.linspace(0, 1, 1001, dtype=np.float32)
    back, slope = box(to_tanh_space(tf.constant(images)))
    np.testing.assert_allclose(back, images, atol=1e-6)
    exact = 2 * images.astype(np.float64) * (1 - images.astype(np.float64))
    np.testing.assert_allclose(slope, exact, atol=2e-6)


def test_no_variable_leads_out_of_the_box():
    variable = np.concatenate(
        [np.linspace(-30, 30, 200001), [-1e9, 1e9, 0.0]]
    ).astype(np.float32)
    images, slope = box(tf.constant(variable))
    assert images.numpy().min() == 0.0 and images.numpy().max() == 1.0
    assert slope.numpy().min() == 0.0


def test_adam_is_that_of_keras_for_each_image_by_itself():
    # Keras's has the same form: epsilon beside the uncorrected moment.
    generator = np.random.default_rng(0)
    gradients = generator.normal(size=(5, 2, 3, 1, 1)).astype(np.float32)
    gradients *= 10.0 ** generator.integers(-9, 3, gradients.shape)
    gradients = gradients.astype(np.float32)
    expected = tf.Variable(np.ones((2, 3, 1, 1), np.float32))
    optimizer = keras.optimizers.Adam(0.01, epsilon=1e-8)
    state = {
        "variable": tf.ones([2, 3, 1, 1]),
        "first": tf.zeros([2, 3, 1, 1]),
        "second": tf.zeros([2, 3, 1, 1]),
        "updates": tf.zeros([2], tf.int64),
    }
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [expected])
        state = adam(state, tf.constant(gradient), 0.01)
    np.testing.assert_allclose(state["variable"], expected, atol=2e-6)
    np.testing.assert_array_equal(state["updates"], 5)


@pytest.mark.parametrize("surplus", [0.0, 0.5])
@pytest.mark.parametrize("kappa", [0.0, 2.0])
def test_an_attempt_knows_f_6_and_its_gradient(
    linear, classifier, batch, kappa, surplus
):
    images, labels = batch
    targets = np.where(np.arange(9) < 5, (labels + 1) % 3, -1)
    lead = np.where(
        targets < 0,
        margins(linear.logits(images), labels),
        margins(linear.logits(images), labels, targets),
    )
    constants = np.arange(1, 10, dtype=np.float32)
    inputs = Inputs(images, tf.constant(labels), tf.constant(targets), None, 0)
    tried = attempt(
        classifier, tf.constant(images), inputs, constants, kappa, surplus
    )
    expected = np.maximum(kappa + surplus - lead, 0)
    np.testing.assert_allclose(tried.loss, expected, atol=1e-5)
    np.testing.assert_array_equal(tried.is_success, lead > kappa)
    assert not tried.is_broken.numpy().any()
    step = 1e-3 * np.random.default_rng(1).normal(size=images.shape)
    moved = linear.logits(images + step)
    lead_moved = np.where(
        targets < 0,
        margins(moved, labels),
        margins(moved, labels, targets),
    )
    slopes = (np.maximum(kappa + surplus - lead_moved, 0) - expected) * (
        constants
    )
    np.testing.assert_allclose(
        np.sum(tried.gradient.numpy() * step, axis=(1, 2, 3)), slopes, atol=1e-4
    )


@EACH
@pytest.mark.parametrize("target", ["random", None])
def test_it_succeeds_inside_the_box_by_more_than_kappa(
    linear, classifier, batch, attack, target
):
    # The first image is black, the second white.
    images, labels = batch
    attack = with_params(attack, target=target, kappa=0.75)
    result = attack(classifier, images, labels)
    assert result.success.numpy().all()
    adversarial = result.adversarial.numpy()
    assert adversarial.min() >= 0.0 and adversarial.max() <= 1.0
    targets = None if target is None else result.targets.numpy()
    lead = margins(linear.logits(adversarial), labels, targets)
    assert lead.min() > 0.75


@EACH
def test_an_image_that_has_won_already_is_unchanged(
    linear, classifier, batch, attack
):
    images, _ = batch
    predicted = linear.logits(images).argmax(-1)
    labels = (predicted + 1) % 3
    for result in (
        attack(classifier, images, labels, targets=predicted),
        with_params(attack, target=None)(classifier, images, labels),
    ):
        np.testing.assert_array_equal(result.adversarial, images)
        np.testing.assert_array_equal(result.gradient_evaluations, 0)
        assert result.success.numpy().all()


@EACH
def test_one_that_has_won_by_less_than_kappa_is_attacked(
    linear, classifier, batch, attack
):
    images, _ = batch
    predicted = linear.logits(images).argmax(-1)
    labels = (predicted + 1) % 3
    lead = margins(linear.logits(images), labels, predicted)
    kappa = float(np.sort(lead)[3:5].mean())
    result = with_params(attack, kappa=kappa)(
        classifier, images, labels, targets=predicted
    )
    has_steps = result.gradient_evaluations.numpy() > 0
    np.testing.assert_array_equal(has_steps, lead <= kappa)
    after = margins(linear.logits(result.adversarial), labels, predicted)
    assert after.min() >= kappa


@EACH
def test_a_target_that_is_the_label_is_refused(classifier, batch, attack):
    images, labels = batch
    with pytest.raises(ValueError, match="targets must not be the labels"):
        attack(classifier, images, labels, targets=labels)


EVALUATIONS = {
    "cw_l2": 3 * 80,
    # Each constant has its 100 steps: 0.1, 0.2, ... below 20 or 100.
    "cw_linf": 8 * 100,
    "cw_l0": 10 * 100,
}


@pytest.fixture
def without_gradient():
    """A classifier whose gradient is 0 everywhere."""

    def constant(images):
        zeros = 0.0 * tf.reduce_sum(images, axis=[1, 2, 3])
        return tf.stack([zeros + 1.0, zeros, zeros], axis=-1)

    return models.Classifier.from_callable(
        constant, image_shape=(4, 5, 1), num_classes=3, fingerprint="constant"
    )


@EACH
def test_a_classifier_without_gradient_is_a_failure(
    without_gradient, batch, attack
):
    images, _ = batch
    result = attack(without_gradient, images, np.zeros(9, int))
    assert not result.success.numpy().any()
    np.testing.assert_array_equal(result.adversarial, images)
    np.testing.assert_array_equal(
        result.gradient_evaluations, EVALUATIONS[attack.name]
    )


@pytest.mark.parametrize("attack", ATTACKS[1:], ids=lambda x: x.name)
def test_a_constant_that_leads_nowhere_is_given_up_early(
    without_gradient, batch, attack
):
    images, _ = batch
    hasty = with_params(attack, abort_early=True)
    result = hasty(without_gradient, images[:2], [0, 0])
    # Of the 100 steps those up to the second check, 10 after the first.
    constants = EVALUATIONS[attack.name] // 100
    np.testing.assert_array_equal(result.gradient_evaluations, constants * 11)


@pytest.mark.parametrize(
    ("max_iterations", "checks_per_run", "second_check"),
    [
        (1000, 10, 100),  # As published, whatever the length.
        (80, 10, 8),
        (1000, 40, 25),
        (10000, 40, 250),
        (400, 40, 25),  # Not after 10 steps: too few to judge by.
        (80, 40, 8),
        (3, 40, 1),
    ],
)
def test_checks_lie_apart_far_enough_to_judge_by(
    without_gradient, batch, max_iterations, checks_per_run, second_check
):
    attack = CWL2(
        max_iterations=max_iterations,
        checks_per_run=checks_per_run,
        binary_search_steps=1,
    )
    # It ends there, and was looked at after its first step.
    result = attack(without_gradient, batch[0][:1], [0])
    assert result.gradient_evaluations.numpy()[0] == second_check + 1


def test_more_checks_cost_less_and_little_distance(linear, classifier, batch):
    images = 0.25 + 0.5 * batch[0]
    labels = linear.logits(images).argmax(-1)
    few, many = (
        CWL2(
            max_iterations=1000,
            binary_search_steps=5,
            initial_const=0.1,
            checks_per_run=checks,
        )(classifier, images, labels)
        for checks in (10, 40)
    )
    assert many.success.numpy().all()
    spent = [x.gradient_evaluations.numpy().sum() for x in (many, few)]
    assert spent[0] < 0.7 * spent[1]
    assert many.l2.numpy().mean() <= 1.01 * few.l2.numpy().mean()


@pytest.mark.parametrize("attack", ATTACKS[1:], ids=lambda x: x.name)
def test_giving_up_early_costs_less_and_little_distance(
    linear, classifier, batch, attack
):
    # Greyish, since black and white look like no progress at first.
    images = 0.25 + 0.5 * batch[0]
    labels = linear.logits(images).argmax(-1)
    patient = attack(classifier, images, labels)
    hasty = with_params(attack, abort_early=True)(classifier, images, labels)
    assert hasty.success.numpy().all()
    spent = [
        result.gradient_evaluations.numpy().sum() for result in (hasty, patient)
    ]
    assert spent[0] < 0.8 * spent[1]
    distances = [
        getattr(result, attack.distance).numpy().mean()
        for result in (hasty, patient)
    ]
    assert distances[0] <= 1.1 * distances[1]


@EACH
def test_a_classifier_that_ignores_images_is_a_failure(batch, attack):
    classifier = models.Classifier.from_callable(
        lambda images: tf.one_hot(tf.zeros(len(images), tf.int32), 3),
        image_shape=(4, 5, 1),
        num_classes=3,
        fingerprint="ignorant",
    )
    images, _ = batch
    result = attack(classifier, images[:2], [0, 0])
    np.testing.assert_array_equal(result.adversarial, images[:2])


@EACH
def test_logits_of_nan_are_an_error(linear, batch, attack):
    def broken(images):
        is_white = tf.reduce_min(images, axis=[1, 2, 3]) == 1.0
        nan = tf.where(is_white, np.nan, 0.0)
        return linear.function(images) + nan[:, tf.newaxis]

    classifier = models.Classifier.from_callable(
        broken, image_shape=(4, 5, 1), num_classes=3, fingerprint="nan"
    )
    images, labels = batch
    with pytest.raises(ValueError, match="not finite for 1 image.* index 31"):
        attack(classifier, images, labels, indices=np.arange(30, 39))


@EACH
def test_a_gradient_of_nan_is_an_error(linear, batch, attack):
    @tf.custom_gradient
    def break_white(images):
        is_white = tf.reduce_min(images, axis=[1, 2, 3]) > 0.99
        nan = tf.where(is_white, np.nan, 0.0)[:, None, None, None]
        return images, lambda upstream: upstream + nan

    classifier = models.Classifier.from_callable(
        lambda images: linear.function(break_white(images)),
        image_shape=(4, 5, 1),
        num_classes=3,
        fingerprint="nan gradient",
    )
    images, _ = batch
    labels = linear.logits(images).argmax(-1)
    with pytest.raises(ValueError, match="not finite for 1 image.* index 1"):
        attack(classifier, images, labels)


@EACH
def test_colour_images_are_attacked_behind_a_purifier(
    colour_linear, make_batch, attack
):
    def purify(images):
        return 0.1 + 0.8 * tf.square(images)

    purifier = models.Purifier.from_callable(
        purify, image_shape=colour_linear.shape, fingerprint="square"
    )
    defended = colour_linear.from_callable().behind(purifier)
    images, _ = make_batch(colour_linear.shape)
    # Not the black one: there the square has no gradient to follow.
    images = images[1:]
    labels = colour_linear.logits(purify(images)).argmax(-1)
    result = with_params(attack, target=None)(defended, images, labels)
    assert result.success.numpy().all()
    purified = purify(result.adversarial)
    assert (colour_linear.logits(purified).argmax(-1) != labels).all()


def assert_alike(result, expected):
    np.testing.assert_array_equal(result.success, expected.success)
    np.testing.assert_allclose(
        result.adversarial, expected.adversarial, atol=2e-3
    )
    np.testing.assert_allclose(
        result.gradient_evaluations, expected.gradient_evaluations, rtol=0.05
    )


@EACH
def test_the_batch_does_not_change_results(classifier, batch, attack):
    images, labels = batch
    expected = attack(classifier, images, labels)
    for size in (1, 4):
        same = type(attack)(**attack.params, batch_size=size)
        assert_alike(same(classifier, images, labels), expected)


@EACH
def test_xla_does_not_change_results(linear, classifier, batch, attack):
    images = batch[0][5:6]
    label = linear.logits(images).argmax(-1)
    compiled = type(attack)(**attack.params, xla=True)
    assert_alike(
        compiled(classifier, images, label), attack(classifier, images, label)
    )


@EACH
def test_the_search_begins_at_the_starts_that_are_given(
    linear, classifier, batch, attack
):
    images, labels = batch
    found = with_params(attack, target=None, kappa=0.5)(
        classifier, images, labels
    ).adversarial
    wrong = linear.logits(images).argmax(-1) != labels
    once = with_params(attack, target=None, max_iterations=1)
    if attack.name == "cw_l2":
        once = with_params(once, binary_search_steps=1)
    result = once(classifier, images, labels, starts=found)
    assert result.success.numpy().all()
    assert wrong.sum() < 9
    np.testing.assert_array_equal(
        result.gradient_evaluations.numpy() > 0, ~wrong
    )


def test_no_images_are_no_work(classifier):
    for attack in ATTACKS:
        result = attack(classifier, np.zeros((0, 4, 5, 1), np.float32), [])
        assert result.adversarial.shape == (0, 4, 5, 1)


@pytest.mark.parametrize(
    "kind, params, message",
    [
        (CWL2, {"kappa": -1.0}, "kappa must be a number in"),
        (CWL2, {"kappa": float("nan")}, "kappa must be a number in"),
        (CWL0, {"max_iterations": 0}, "max_iterations must be a positive"),
        (CWLinf, {"max_iterations": 1.5}, "max_iterations must be a positive"),
        (CWL2, {"learning_rate": 0.0}, "learning_rate must be a number in"),
        (CWL0, {"initial_const": 0.0}, "initial_const must be a number in"),
        (CWL2, {"binary_search_steps": 0}, "binary_search_steps must be"),
        (CWL2, {"checks_per_run": 0}, "checks_per_run must be .* got 0"),
        (CWL2, {"abort_early": 1}, "abort_early must be True or False"),
        (CWL0, {"abort_early": None}, "abort_early must be True or False"),
        (CWLinf, {"decrease_factor": 1.0}, "decrease_factor must be a number"),
        (CWLinf, {"largest_const": 1e-6}, "largest_const must be a number in"),
        (CWL0, {"const_factor": 1.0}, "const_factor must be a number in"),
        (CWL0, {"reduce_const": "no"}, "reduce_const must be True or False"),
        (CWLinf, {"target": "nearest"}, "target must be one of"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused(kind, params, message):
    with pytest.raises(ValueError, match=message):
        kind(**params)


def test_the_defaults_are_those_of_the_published_code():
    assert CWL2().params == {
        "target": "random",
        "kappa": 0.0,
        "max_iterations": 10000,
        "learning_rate": 0.01,
        "initial_const": 0.001,
        "checks_per_run": 40,  # Ours, as in CW-L0.
        "binary_search_steps": 9,
        "abort_early": True,
        "warm_start": True,  # Not published: see CWL2's deviations.
    }
    ladder = {
        "target": "random",
        "kappa": 0.0,
        "max_iterations": 1000,
        "const_factor": 2.0,
        "reduce_const": False,
    }
    assert CWLinf().params == {
        **ladder,
        "learning_rate": 0.005,
        "initial_const": 1e-5,
        "largest_const": 20.0,
        "checks_per_run": 10,
        "decrease_factor": 0.9,
        "abort_early": False,
    }
    assert CWL0().params == {
        **ladder,
        "learning_rate": 0.01,
        "initial_const": 0.001,
        "largest_const": 2e6,
        "checks_per_run": 40,
        "abort_early": True,  # Ours.
    }
