"""APGD-CE and APGD-T: their steps, closed forms, and their promises."""

import numpy as np
import pytest
import tensorflow as tf

import models
from attacks.apgd import APGDCE, APGDT
from attacks.base import Inputs
from attacks.search import choose_rows
from tests.attacks.plain_apgd import Waves, plain_apgd

GREY = (4, 5, 1)
CLASSES = 5
each_norm = pytest.mark.parametrize("norm", ["linf", "l2"])
each_attack = pytest.mark.parametrize("attack_class", [APGDCE, APGDT])


def norm_of(change, norm):
    flat = np.reshape(np.asarray(change, np.float64), (len(change), -1))
    order = 2 if norm == "l2" else np.inf
    return np.linalg.norm(flat, order, axis=1)


def as_classifier(function, classes=CLASSES, shape=GREY):
    return models.Classifier.from_callable(
        function, image_shape=shape, num_classes=classes, fingerprint="test"
    )


def waves_classifier(waves):
    """In float64 up to the logits, so that rounding decides seldom."""

    def function(images):
        flat = tf.cast(tf.reshape(images, (-1, len(waves.first))), tf.float64)
        logits = tf.sin(flat @ waves.first) @ waves.second + waves.biases
        return tf.cast(logits, tf.float32)

    return as_classifier(function)


def random_images(count, seed=1):
    generator = np.random.default_rng(seed)
    return generator.random((count, *GREY), dtype=np.float32)


def labels_of(waves, images):
    return np.array([waves.logits(image).argmax() for image in images])


def linear_weights(classes):
    generator = np.random.default_rng(classes)
    return generator.normal(size=(20, classes)).astype(np.float32)


def linear_logits(weights, images):
    flat = np.reshape(images, (len(images), 20)).astype(np.float64)
    return (flat - 0.5) @ weights


def linear_classifier(weights, scale=1.0):
    return as_classifier(
        lambda x: scale * (tf.reshape(x - 0.5, (-1, 20)) @ weights),
        weights.shape[1],
    )


@pytest.fixture(scope="module")
def waves():
    return Waves(20, CLASSES)


@pytest.fixture(scope="module")
def curved(waves):
    return waves_classifier(waves)


# The algorithm


def losses_of(attack_class, waves, image, label, number):
    """A plain loss and gradient: of the target of that number."""
    if attack_class is APGDCE:
        return lambda point: waves.cross_entropy(point, label)
    order = [k for k in np.argsort(-waves.logits(image)) if k != label]
    return lambda point: waves.targeted_dlr(point, label, order[number])


def states_of(attack, classifier, images, labels, starts):
    """The states before each step of a search, and the last."""
    count = len(images)
    inputs = Inputs(
        tf.constant(images),
        tf.constant(labels, tf.int64),
        tf.fill([count], tf.constant(-1, tf.int64)),
        tf.constant(starts),
        tf.range(count, dtype=tf.int64),
    )
    state = attack.begin(classifier, inputs)
    states = [state]
    while not state["done"].numpy().all():
        new = attack.advance(classifier, inputs, state)
        state = {
            name: choose_rows(state["done"], old, new[name])
            for name, old in state.items()
        }
        states.append(state)
    return states


@each_norm
@each_attack
def test_each_step_is_that_of_the_plain_algorithm(attack_class, norm):
    # Class 0 is so far ahead that few are fooled, and searches are long.
    waves = Waves(20, CLASSES, lead=5.0)
    images, starts = random_images(8), random_images(8, seed=2)
    labels, steps = np.zeros(8, int), 40
    params = {"epsilon": {"linf": 0.2, "l2": 0.4}[norm], "norm": norm}
    if attack_class is APGDT:
        params["target_classes"] = 1
    attack = attack_class(**params, steps=steps)
    states = states_of(attack, waves_classifier(waves), images, labels, starts)
    atol = 1e-5 if norm == "linf" else 1e-4
    compared, halved = 0, 0
    for i in range(8):
        run = plain_apgd(
            losses_of(attack_class, waves, images[i], 0, 0),
            images[i],
            starts[i],
            attack.epsilon,
            norm,
            steps,
            lambda point: waves.logits(point).argmax() != 0,
        )
        for k in range(run.clear):
            # The iterate that is gone back to is not seen here.
            np.testing.assert_allclose(
                states[k]["current"][i], run.points[k], atol=atol
            )
        sizes = [state["step_size"][i] for state in states[1 : run.clear]]
        np.testing.assert_allclose(sizes, run.sizes[: len(sizes)], rtol=1e-6)
        compared += run.clear
        halved += len(set(run.sizes[: len(sizes)])) - 1
        if run.clear == len(run.points):
            assert states[-1]["evaluations"][i] == len(run.points)
            np.testing.assert_allclose(
                states[-1]["adversarial"][i], run.best, atol=atol
            )
        np.testing.assert_allclose(
            states[-1]["loss"][i], max(run.losses), rtol=1e-3, atol=1e-4
        )
    # Most of it was compared, over many checkpoints.
    assert compared > 150 and halved > 10


@each_norm
@each_attack
def test_its_runs_follow_each_other(attack_class, norm):
    waves = Waves(20, CLASSES, lead=4.5)
    images, labels, steps = random_images(9), np.zeros(9, int), 10
    params = {"epsilon": {"linf": 0.15, "l2": 0.6}[norm], "norm": norm}
    targets = 1
    if attack_class is APGDT:
        params["target_classes"] = targets = 3
    attack = attack_class(**params, steps=steps, restarts=2, batch_size=5)
    result = attack(waves_classifier(waves), images, labels)
    inputs = Inputs(images, labels, None, None, tf.range(9, dtype=tf.int64))
    draws = [
        attack.random_on_surface(inputs, tf.fill([9], np.int64(run)))
        for run in range(2 * targets)
    ]
    found = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        evaluations = 0

        def is_fooled(point, label=label):
            return waves.logits(point).argmax() != label

        for number, starts in enumerate(draws):
            run = plain_apgd(
                losses_of(attack_class, waves, image, label, number // 2),
                image,
                starts[i],
                attack.epsilon,
                norm,
                steps,
                is_fooled,
            )
            evaluations += len(run.points)
            if is_fooled(run.best):
                break
        found.append((is_fooled(run.best), evaluations))
    np.testing.assert_array_equal(
        np.stack([result.success, result.gradient_evaluations], -1), found
    )
    # Some fall, and not all of them in the first run.
    runs = result.gradient_evaluations.numpy() // (steps + 1)
    assert runs.min() == 0 and runs.max() > 1
    assert 0 < result.success.numpy().sum() < 9


def test_targets_come_in_the_order_of_the_clean_logits(curved, waves):
    images = random_images(6)
    labels = labels_of(waves, images)
    inputs = Inputs(
        images,
        tf.constant(labels),
        None,
        images,
        tf.range(6, dtype=tf.int64),
    )
    state = APGDT(target_classes=9).begin(curved, inputs)
    for image, label, found in zip(
        images, labels, state["candidates"], strict=True
    ):
        order = np.argsort(-waves.logits(image))
        np.testing.assert_array_equal(found, order[order != label])


# What can be known


@each_norm
@pytest.mark.parametrize(("attack_class", "classes"), [(APGDCE, 2), (APGDT, 5)])
def test_a_linear_classifier_falls_at_the_distance_of_its_boundary(
    attack_class, classes, norm
):
    weights = linear_weights(classes)
    images = 0.3 + 0.4 * random_images(40)
    logits = linear_logits(weights, images)
    labels = logits.argmax(-1)
    dual = 1 if norm == "linf" else 2
    distances = np.full(40, np.inf)
    for i, label in enumerate(labels):
        for other in set(range(classes)) - {label}:
            gap = logits[i, label] - logits[i, other]
            slope = np.linalg.norm(weights[:, label] - weights[:, other], dual)
            distances[i] = min(distances[i], gap / slope)
    epsilon = float(np.median(distances))
    assert epsilon < 0.3  # So the box is in nobody's way.
    attack = attack_class(epsilon=epsilon, norm=norm)
    result = attack(linear_classifier(weights), images, labels)
    within = distances < 0.999 * epsilon
    beyond = distances > 1.001 * epsilon
    assert within.sum() > 15 and beyond.sum() > 15
    assert result.success.numpy()[within].all()
    assert not result.success.numpy()[beyond].any()
    sizes = norm_of(result.adversarial - images, norm)
    assert (sizes[within] >= distances[within] - 1e-6).all()


@each_norm
def test_a_softmax_that_saturates_hides_from_one_loss_only(norm):
    weights = linear_weights(5)
    images = random_images(8)
    labels = linear_logits(weights, images).argmax(-1)
    # The other classes' share underflows, and the gradient with it.
    steep = linear_classifier(weights, 1e6)
    params = {"norm": norm, "epsilon": 0.5 if norm == "linf" else 3.0}
    params["steps"] = 10
    hidden = APGDCE(**params)(steep, images, labels, starts=images)
    found = APGDT(**params)(steep, images, labels, starts=images)
    assert not hidden.success.numpy().any()
    assert found.success.numpy().all()


@each_norm
@each_attack
@pytest.mark.parametrize("epsilon", [0.0, 0.03, 1.0])
def test_no_result_leaves_the_ball_or_the_box(
    attack_class, norm, epsilon, curved, waves
):
    images = random_images(9)
    images[0], images[1] = 0.0, 1.0
    labels = labels_of(waves, images)
    attack = attack_class(norm=norm, epsilon=epsilon, steps=5)
    result = attack(curved, images, labels)
    adversarial = result.adversarial.numpy()
    assert adversarial.dtype == np.float32
    assert adversarial.min() >= 0.0 and adversarial.max() <= 1.0
    change = adversarial.astype(np.float64) - images
    assert (norm_of(change, norm) <= epsilon + 1e-6).all()
    assert attack.distance == norm
    predicted = curved.predict(adversarial).argmax(-1)
    np.testing.assert_array_equal(result.success, predicted != labels)


def test_images_that_are_wrong_already_come_back(curved, waves):
    images = random_images(6)
    labels = (labels_of(waves, images) + 1) % CLASSES
    for attack in (APGDCE(steps=3), APGDT(steps=3)):
        result = attack(curved, images, labels)
        np.testing.assert_array_equal(result.adversarial, images)
        np.testing.assert_array_equal(result.gradient_evaluations, 0)
        assert result.success.numpy().all()


@each_norm
@each_attack
def test_a_constant_classifier_is_not_fooled(attack_class, norm):
    constant = as_classifier(lambda x: tf.zeros((tf.shape(x)[0], CLASSES)))
    images = random_images(4)
    attack = attack_class(norm=norm, steps=4)
    result = attack(constant, images, [0, 0, 0, 1])
    # Class 0 is first among equals.
    np.testing.assert_array_equal(result.success, [False, False, False, True])
    runs = 4 if attack_class is APGDT else 1
    np.testing.assert_array_equal(
        result.gradient_evaluations, [runs * 5] * 3 + [0]
    )


def test_a_faint_gradient_has_a_direction_all_the_same():
    weights = linear_weights(2)
    images = random_images(8)
    labels = linear_logits(weights, images).argmax(-1)
    # The squares of such numbers are zero in float32.
    faint = linear_classifier(weights, 1e-25)
    attack = APGDCE(norm="l2", epsilon=2.0, steps=5)
    assert attack(faint, images, labels).success.numpy().all()


# Starts and restarts


@each_norm
def test_starts_are_as_long_as_the_radius(norm):
    attack = APGDCE(norm=norm, epsilon=0.4)
    images = np.full((50, *GREY), 0.5, np.float32)
    inputs = Inputs(images, None, None, None, tf.range(50, dtype=tf.int64))
    runs = [tf.fill([50], np.int64(run)) for run in range(2)]
    starts = [attack.random_on_surface(inputs, run) - images for run in runs]
    for change in starts:
        np.testing.assert_allclose(norm_of(change, norm), 0.4, atol=1e-5)
        assert np.abs(np.mean(change)) < 0.02
    assert norm_of(starts[0] - starts[1], "linf").min() > 1e-2
    assert norm_of(np.diff(starts[0], axis=0), "linf").min() > 1e-2
    last = Inputs(images[:1], None, None, None, tf.constant([49], tf.int64))
    again = attack.random_on_surface(last, runs[1][:1]) - images[:1]
    np.testing.assert_array_equal(again, starts[1][49:])


def flat_with_a_step():
    """One pixel, of class 1 above 0.7, and no gradient anywhere."""
    return as_classifier(
        lambda x: tf.one_hot(tf.cast(x[:, 0, 0, 0] > 0.7, tf.int32), 2),
        classes=2,
        shape=(1, 1, 1),
    )


def test_restarts_begin_elsewhere_and_end_with_success():
    images = np.full((60, 1, 1, 1), 0.5, np.float32)
    attack = APGDCE(epsilon=0.3, steps=3, restarts=6, batch_size=16)
    result = attack(flat_with_a_step(), images, np.zeros(60, int))
    runs, rest = np.divmod(result.gradient_evaluations.numpy(), 4)
    success = result.success.numpy()
    # A start is 0.2 or 0.8, with no way from there; it is looked at once.
    assert (rest[success] == 1).all()
    assert (runs[~success] == 6).all() and (rest[~success] == 0).all()
    assert success.mean() > 0.9
    assert 0.3 < (runs == 0).mean() < 0.7 and (runs[success] > 1).any()


def test_starts_that_are_given_are_those_of_the_first_run():
    images = np.full((12, 1, 1, 1), 0.5, np.float32)
    # Some are outside the ball, and are brought into it first.
    starts = np.where(np.arange(12) < 6, 1.0, 0.4).astype(np.float32)
    attack = APGDCE(epsilon=0.3, steps=3, restarts=6)
    result = attack(
        flat_with_a_step(),
        images,
        np.zeros(12, int),
        starts=np.reshape(starts, (-1, 1, 1, 1)),
    )
    evaluations = result.gradient_evaluations.numpy()
    np.testing.assert_array_equal(evaluations[:6], 1)
    np.testing.assert_allclose(result.adversarial[:6], 0.8, atol=1e-6)
    assert (evaluations[6:] > 4).all()


@each_attack
def test_random_choices_depend_on_seed_and_index_alone(
    attack_class, curved, waves
):
    images = random_images(9)
    labels, order = labels_of(waves, images), np.arange(9)[::-1]
    params = {"epsilon": 0.03, "steps": 6, "restarts": 2}
    whole = attack_class(**params, seed=3)(curved, images, labels)
    parts = attack_class(**params, seed=3, batch_size=2)(
        curved, images[order], labels[order], indices=order
    )
    for found, expected in zip(parts, whole, strict=True):
        np.testing.assert_allclose(
            np.asarray(found)[order], expected, atol=1e-5
        )
    other = attack_class(epsilon=0.03, steps=1, seed=4)
    same = attack_class(epsilon=0.03, steps=1, seed=3)
    inputs = Inputs(images, None, None, None, tf.range(9, dtype=tf.int64))
    first = tf.zeros([9], tf.int64)
    change = other.random_on_surface(inputs, first) - same.random_on_surface(
        inputs, first
    )
    assert norm_of(change, "linf").min() > 1e-3


def test_the_two_begin_elsewhere():
    inputs = Inputs(random_images(3), None, None, None, tf.range(3))
    inputs = inputs._replace(indices=tf.range(3, dtype=tf.int64))
    first = tf.zeros([3], tf.int64)
    starts = [a().random_on_surface(inputs, first) for a in (APGDCE, APGDT)]
    assert norm_of(starts[0] - starts[1], "linf").min() > 1e-2


# How it is computed


def test_xla_agrees(curved, waves):
    images = random_images(4)
    labels = labels_of(waves, images)
    # None is fooled, so that it compiles for one number of rows only.
    params = {"norm": "l2", "epsilon": 1e-3, "steps": 4, "target_classes": 2}
    plain = APGDT(**params)(curved, images, labels)
    compiled = APGDT(**params, xla=True)(curved, images, labels)
    np.testing.assert_allclose(
        compiled.adversarial, plain.adversarial, atol=1e-6
    )
    assert not compiled.success.numpy().any()


@each_attack
def test_a_model_may_not_tell_its_number_of_classes(attack_class):
    weights = linear_weights(5)
    silent = as_classifier(
        lambda x: tf.raw_ops.PlaceholderWithDefault(
            input=tf.reshape(x - 0.5, (-1, 20)) @ weights, shape=[None, None]
        )
    )
    images = random_images(4)
    labels = linear_logits(weights, images).argmax(-1)
    params = {"epsilon": 0.1, "steps": 3}
    expected = attack_class(**params)(
        linear_classifier(weights), images, labels
    )
    result = attack_class(**params)(silent, images, labels)
    np.testing.assert_allclose(
        result.adversarial, expected.adversarial, atol=1e-6
    )


@each_attack
def test_no_images_are_no_work(attack_class, curved):
    result = attack_class()(curved, np.zeros((0, *GREY), np.float32), [])
    assert result.adversarial.shape == (0, *GREY)


# What does not fit


@each_attack
def test_logits_that_are_not_finite_are_an_error(attack_class):
    weights = linear_weights(5)
    broken = as_classifier(
        lambda x: tf.where(
            tf.reduce_min(x, [1, 2, 3])[:, None] > 0.5,
            np.float32(np.nan),
            tf.reshape(x, (-1, 20)) @ weights,
        )
    )
    images = 0.4 * random_images(5)
    images[2] = 0.7
    with pytest.raises(ValueError, match="not finite for 1 .* index 12"):
        attack_class(epsilon=0.01, steps=2)(
            broken, images, [0] * 5, indices=np.arange(10, 15)
        )


@each_attack
def test_a_gradient_that_is_not_finite_is_an_error(attack_class):
    weights = linear_weights(5)
    root = as_classifier(lambda x: tf.reshape(tf.sqrt(x), (-1, 20)) @ weights)
    images = 0.2 + 0.6 * random_images(5)
    images[3] = 0.0
    labels = (np.sqrt(images).reshape(5, 20) @ weights).argmax(-1)
    # The root's derivative is infinite at the black image.
    with pytest.raises(ValueError, match="not finite for 1 .* index 3"):
        attack_class(epsilon=1e-4, steps=2)(root, images, labels, starts=images)


def test_targets_are_refused(curved):
    for attack in (APGDCE(), APGDT()):
        with pytest.raises(
            ValueError, match=f"targets must be None, since {attack.name} is"
        ):
            attack(curved, random_images(2), [0, 1], targets=[1, 2])


def test_the_targeted_loss_needs_four_classes():
    classifier = linear_classifier(linear_weights(3))
    with pytest.raises(
        ValueError, match="apgd_t needs .* 4 classes, .* got 3; use apgd_ce or"
    ):
        APGDT()(classifier, random_images(2), [0, 1])
    # Four are enough: the last of them has a say.
    classifier = linear_classifier(linear_weights(4))
    result = APGDT(steps=2)(classifier, random_images(2), [0, 1])
    assert np.isfinite(result.adversarial).all()


def test_parameters_are_those_of_the_standard_version():
    shared = {"epsilon": 0.3, "norm": "linf", "steps": 100, "restarts": 1}
    assert APGDCE().params == shared
    assert APGDT().params == {**shared, "target_classes": 9}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"norm": "l1"}, "norm must be one of l2, linf, got 'l1'"),
        ({"epsilon": 1.5}, r"epsilon must be .*\[0.0, 1.0\], got 1.5"),
        ({"steps": 0}, "steps must be a positive integer, got 0"),
        ({"restarts": 0}, "restarts must be a positive integer, got 0"),
        ({"target_classes": 0}, "target_classes must be a positive .* got 0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        APGDT(**params)
