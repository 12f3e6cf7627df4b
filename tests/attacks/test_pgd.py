"""PGD: its iterates, its starts, and its promises."""

import numpy as np
import pytest
import tensorflow as tf

import models
from attacks.pgd import PGD

NORMS = ["linf", "l2"]
GREY = (4, 5, 1)
# A direction is the worse known the shorter the gradient; its signs are not.
TOLERANCE = {"linf": 2e-6, "l2": 1e-4}


def norm_of(change, norm):
    flat = np.reshape(np.asarray(change, np.float64), (len(change), -1))
    order = 2 if norm == "l2" else np.inf
    return np.linalg.norm(flat, order, axis=1)


def column(values):
    return np.reshape(values, (-1, 1, 1, 1))


def project(adversarial, images, epsilon, norm):
    change = adversarial - images
    if norm == "linf":
        change = np.clip(change, -epsilon, epsilon)
    else:
        size = column(norm_of(change, "l2"))
        change = change * np.minimum(1.0, epsilon / np.maximum(size, 1e-30))
    return np.clip(images + change, 0.0, 1.0)


def by_hand(linear, images, labels, starts, attack, targets=None):
    """PGD on the linear classifier, in float64, one restart."""
    chosen, sign = (labels, 1.0) if targets is None else (targets, -1.0)
    current = project(starts, images, attack.epsilon, attack.norm)
    current = np.asarray(current, np.float64)
    best = [(False, -np.inf, None)] * len(images)
    for step in range(attack.steps + 1):
        gains = sign * linear.losses(current, chosen)
        predicted = linear.logits(current).argmax(-1)
        hits = predicted != labels if targets is None else predicted == targets
        for i in range(len(images)):
            if (hits[i], gains[i]) > best[i][:2]:
                best[i] = (hits[i], gains[i], current[i].copy())
        if step == attack.steps:
            break
        move = sign * linear.gradients(current, chosen)
        if attack.norm == "linf":
            move = np.sign(move)
        else:
            move = move / column(norm_of(move, "l2"))
        current = current + attack.alpha * move
        current = project(current, images, attack.epsilon, attack.norm)
    return np.stack([image for _, _, image in best])


def constant(shape=GREY):
    """Every class is as likely as any other, whatever the image."""
    return models.Classifier.from_callable(
        lambda x: tf.zeros((tf.shape(x)[0], 3)),
        image_shape=shape,
        num_classes=3,
        fingerprint="constant",
    )


def two_hills():
    """One pixel x. Class 1 leads class 0 by 0.5 at most, where x = 0.8.

    On the left of 0.5 there is a lower hill, at 0.2, that leads nowhere.
    """

    def function(x):
        x = tf.reshape(x, (-1, 1))
        low, high = -0.5 - tf.abs(x - 0.2), 0.5 - 4.0 * tf.abs(x - 0.8)
        return tf.concat([tf.zeros_like(x), tf.where(x < 0.5, low, high)], -1)

    return models.Classifier.from_callable(
        function, image_shape=(1, 1, 1), num_classes=2, fingerprint="hills"
    )


# The iterates


@pytest.mark.parametrize("norm", NORMS)
def test_its_first_step_is_known(linear, classifier, batch, norm):
    images, labels = batch
    attack = PGD(norm=norm, alpha=0.05, steps=1, random_start=False)
    result = attack(classifier, images, labels)
    gradients = linear.gradients(images, labels)
    if norm == "linf":
        direction = np.sign(gradients)
    else:
        direction = gradients / column(norm_of(gradients, "l2"))
    expected = np.clip(images + 0.05 * direction, 0.0, 1.0)
    np.testing.assert_allclose(
        result.adversarial, expected, atol=TOLERANCE[norm]
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("is_targeted", [False, True])
def test_it_equals_a_loop_by_hand(linear, classifier, batch, norm, is_targeted):
    images, labels = batch
    targets = (labels + 1) % 3 if is_targeted else None
    attack = PGD(
        norm=norm, epsilon=0.2, alpha=0.07, steps=6, random_start=False
    )
    result = attack(classifier, images, labels, targets=targets)
    expected = by_hand(linear, images, labels, images, attack, targets)
    np.testing.assert_allclose(
        result.adversarial, expected, atol=TOLERANCE[norm]
    )
    np.testing.assert_array_equal(result.gradient_evaluations, 6)


@pytest.mark.parametrize("norm", NORMS)
def test_it_takes_colour_images(colour_linear, make_batch, norm):
    images, labels = make_batch(colour_linear.shape)
    attack = PGD(norm=norm, alpha=0.1, steps=5, random_start=False)
    result = attack(colour_linear.from_keras(), images, labels)
    expected = by_hand(colour_linear, images, labels, images, attack)
    np.testing.assert_allclose(
        result.adversarial, expected, atol=TOLERANCE[norm]
    )


@pytest.mark.parametrize("norm", NORMS)
def test_it_begins_at_its_starts(linear, classifier, batch, norm):
    images, labels = batch
    # Some are outside the ball, and are brought into it first.
    starts = np.clip(images + 0.2, 0.0, 1.0)
    attack = PGD(norm=norm, epsilon=0.3, alpha=0.02, steps=3)
    result = attack(classifier, images, labels, starts=starts)
    expected = by_hand(linear, images, labels, starts, attack)
    np.testing.assert_allclose(
        result.adversarial, expected, atol=TOLERANCE[norm]
    )


def test_a_start_at_the_image_itself_is_not_random(linear, classifier, batch):
    images, labels = batch
    attack = PGD(alpha=0.02, steps=3)
    result = attack(classifier, images, labels, starts=images)
    expected = by_hand(linear, images, labels, images, attack)
    np.testing.assert_allclose(result.adversarial, expected, atol=2e-6)


def test_a_targeted_run_reaches_its_target(network, make_batch):
    images, _ = make_batch(network.image_shape)
    labels = network.predict(images).argmax(-1)
    targets = (labels + 1) % 3
    attack = PGD(epsilon=1.0, alpha=0.05)
    result = attack(network, images, labels, targets=targets)
    reached = network.predict(result.adversarial).argmax(-1) == targets
    assert reached.mean() > 0.5
    np.testing.assert_array_equal(result.success, reached)
    np.testing.assert_array_equal(result.targets, targets)


def test_the_best_iterate_is_kept():
    # From 0.78 the steps of 0.05 go to 0.83, 0.78, 0.83 and 0.78 again.
    attack = PGD(epsilon=1.0, alpha=0.05, steps=4, random_start=False)
    image = np.full((1, 1, 1, 1), 0.78, np.float32)
    result = attack(two_hills(), image, [0])
    np.testing.assert_allclose(result.adversarial, 0.78, atol=1e-6)
    result = attack(two_hills(), image + np.float32(0.04), [0])
    # 0.82, 0.77, 0.82, ...
    np.testing.assert_allclose(result.adversarial, 0.82, atol=1e-6)


def test_images_that_are_wrong_already_are_perturbed(classifier, linear, batch):
    images, _ = batch
    labels = (linear.logits(images).argmax(-1) + 1) % 3
    result = PGD(random_start=False)(classifier, images, labels)
    assert result.success.numpy().all()
    before = linear.losses(images, labels)
    assert (linear.losses(result.adversarial, labels) > before).all()
    np.testing.assert_allclose(result.linf, 0.3, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_goes_through_a_purifier(linear, batch, norm):
    images, labels = batch
    negative = models.Purifier.from_callable(
        lambda x: 1.0 - x, image_shape=linear.shape, fingerprint="negative"
    )
    attack = PGD(norm=norm, alpha=0.06, steps=4, random_start=False)
    defended = linear.from_keras().behind(negative)
    result = attack(defended, images, labels)
    mirrored = attack(linear.from_keras(), 1.0 - images, labels)
    np.testing.assert_allclose(
        result.adversarial,
        1.0 - mirrored.adversarial.numpy(),
        atol=TOLERANCE[norm],
    )


@pytest.mark.parametrize("norm", NORMS)
def test_a_constant_classifier_leaves_its_starts(batch, norm):
    images, labels = batch
    attack = PGD(norm=norm, steps=3, random_start=False)
    result = attack(constant(), images, labels)
    np.testing.assert_array_equal(result.adversarial, images)
    np.testing.assert_array_equal(result.success, labels != 0)


def test_a_faint_gradient_has_a_direction_all_the_same(linear, batch):
    images, _ = batch
    # The squares of such numbers are zero in float32.
    faint = models.Classifier.from_callable(
        lambda x: 1e-25 * linear.function(x),
        image_shape=GREY,
        num_classes=3,
        fingerprint="faint",
    )
    labels = linear.logits(images).argmax(-1)
    attack = PGD(norm="l2", epsilon=2.0, alpha=2.0, steps=1, random_start=False)
    result = attack(faint, images, labels)
    # The loss is that of equal logits, so only success tells iterates apart.
    assert result.success.numpy().mean() > 0.5


# The ball and the box


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [0.0, 0.03, 1.0])
def test_no_result_leaves_the_ball_or_the_box(
    network, make_batch, norm, epsilon
):
    images, labels = make_batch(network.image_shape)
    attack = PGD(norm=norm, epsilon=epsilon, alpha=0.4, steps=5, restarts=2)
    result = attack(network, images, labels)
    adversarial = result.adversarial.numpy()
    assert adversarial.dtype == np.float32
    assert adversarial.min() >= 0.0 and adversarial.max() <= 1.0
    change = adversarial.astype(np.float64) - images
    assert (norm_of(change, norm) <= epsilon + 1e-6).all()
    sizes = result.linf if norm == "linf" else result.l2
    np.testing.assert_allclose(sizes, norm_of(change, norm), atol=1e-6)
    if epsilon == 0.03:
        # So small that all of it is used, where the box allows that.
        assert (sizes.numpy()[2:] > 0.9 * epsilon).all()


def test_rounding_that_adds_up_does_not_leave_the_ball():
    brightness = models.Classifier.from_callable(
        lambda x: tf.stack(
            [tf.zeros(tf.shape(x)[0]), tf.reduce_mean(x, [1, 2, 3])], -1
        ),
        image_shape=(64, 64, 3),
        num_classes=2,
        fingerprint="brightness",
    )
    for level in np.linspace(0.4, 0.6, 5):
        images = np.full((1, 64, 64, 3), level, np.float32)
        for epsilon in (0.5, 0.77, 3.0):
            attack = PGD(
                norm="l2",
                epsilon=epsilon,
                alpha=epsilon,
                steps=1,
                random_start=False,
            )
            result = attack(brightness, images, [1])
            change = result.adversarial.numpy().astype(np.float64) - images
            assert epsilon - 1e-4 < norm_of(change, "l2") <= epsilon + 1e-6


@pytest.mark.parametrize("norm", NORMS)
def test_the_radius_is_reported(norm):
    attack = PGD(norm=norm, epsilon=0.4)
    np.testing.assert_allclose(attack.epsilons(tf.range(3)), [0.4] * 3)
    assert attack.distance == norm
    assert attack.params == {
        "epsilon": 0.4,
        "alpha": 0.01,
        "steps": 40,
        "restarts": 1,
        "norm": norm,
        "random_start": True,
    }


# Random starts


def starts_of(images, **options):
    """Steps of length 0, and no iterate better than another."""
    attack = PGD(alpha=0.0, steps=1, **options)
    zeros = np.zeros(len(images), int)
    indices = np.arange(1000, 1000 + len(images))
    result = attack(constant(), images, zeros, indices=indices)
    return result.adversarial.numpy() - images


def grey(count):
    return np.full((count, *GREY), 0.5, np.float32)


def test_linf_starts_are_uniform_in_the_ball():
    values = starts_of(grey(200), epsilon=0.4) / 0.4
    # The uniform distribution's mean, standard deviation and ends.
    assert abs(values.mean()) < 0.03
    assert abs(values.std() - 3**-0.5) < 0.02
    assert -1.0 <= values.min() < -0.99 and 0.99 < values.max() <= 1.0 + 1e-6


def test_l2_starts_are_uniform_in_the_ball():
    changes = starts_of(grey(400), epsilon=0.4, norm="l2")
    radii = norm_of(changes, "l2") / 0.4
    # The share of the volume within a radius r is r to the power of 20.
    shares = radii**20
    assert abs(shares.mean() - 0.5) < 0.06
    assert abs(shares.std() - 12**-0.5) < 0.04
    directions = np.reshape(changes, (400, -1)) / radii[:, None] / 0.4
    assert np.abs(directions.mean(0)).max() < 0.06
    covariance = directions.T @ directions / 400
    assert np.abs(covariance - np.eye(20) / 20).max() < 0.02


@pytest.mark.parametrize("norm", NORMS)
def test_a_start_depends_on_seed_and_index_alone(norm):
    images = np.random.default_rng(0).random((7, *GREY), dtype=np.float32)
    whole = starts_of(images, norm=norm, seed=4)
    parts = starts_of(images, norm=norm, seed=4, batch_size=2, restarts=3)
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    other = starts_of(images, norm=norm, seed=5)
    assert (norm_of(other - whole, "linf") > 1e-3).all()
    same_image = starts_of(images[[0] * 3], norm=norm, seed=4)
    assert norm_of(np.diff(same_image, axis=0), "linf").min() > 1e-3
    np.testing.assert_allclose(same_image[0], whole[0], atol=1e-6)


# Restarts


def test_restarts_help_and_end_with_success():
    images = np.full((40, 1, 1, 1), 0.5, np.float32)
    labels = np.zeros(40, int)
    options = {"epsilon": 0.5, "alpha": 0.01, "steps": 70}
    once = PGD(**options)(two_hills(), images, labels)
    often = PGD(**options, restarts=8)(two_hills(), images, labels)
    # A start on the right of 0.5, one in two, climbs the higher hill.
    right = starts_like(images, PGD(**options)) > 0.5
    np.testing.assert_array_equal(once.success, right)
    assert 0.2 < right.mean() < 0.8
    assert often.success.numpy().mean() > 0.95
    np.testing.assert_allclose(
        often.adversarial.numpy()[often.success.numpy()], 0.8, atol=0.011
    )
    runs, rest = np.divmod(often.gradient_evaluations.numpy(), 70)
    assert (rest == 0).all()
    np.testing.assert_array_equal(runs == 1, right)
    assert (runs[~often.success.numpy()] == 8).all()
    np.testing.assert_array_equal(once.gradient_evaluations, 70)


def starts_like(images, attack):
    """Where an attack on one pixel begins."""
    flat = models.Classifier.from_callable(
        lambda x: tf.zeros((tf.shape(x)[0], 2)),
        image_shape=(1, 1, 1),
        num_classes=2,
        fingerprint="flat",
    )
    options = {"epsilon": attack.epsilon, "alpha": 0.0, "steps": 1}
    result = PGD(**options)(flat, images, np.zeros(len(images), int))
    return result.adversarial.numpy()[:, 0, 0, 0]


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_never_hurt(network, make_batch, norm):
    images, labels = make_batch(network.image_shape)
    options = {"norm": norm, "epsilon": 0.2, "alpha": 0.05, "steps": 4}
    once = PGD(**options)(network, images, labels)
    often = PGD(**options, restarts=4)(network, images, labels)
    assert (often.success.numpy() >= once.success.numpy()).all()
    gains = [
        -tf.nn.log_softmax(network.predict(result.adversarial)).numpy()[
            np.arange(9), labels
        ]
        for result in (once, often)
    ]
    assert (gains[1] >= gains[0] - 1e-5).all()


def test_starts_that_are_given_are_those_of_the_first_restart():
    images = np.full((12, 1, 1, 1), 0.5, np.float32)
    starts = np.where(np.arange(12) < 6, 0.7, 0.3).astype(np.float32)
    attack = PGD(epsilon=0.5, steps=70, restarts=6)
    result = attack(
        two_hills(), images, [0] * 12, starts=np.reshape(starts, (-1, 1, 1, 1))
    )
    evaluations = result.gradient_evaluations.numpy()
    np.testing.assert_array_equal(evaluations[:6], 70)
    assert (evaluations[6:] > 70).all()


# How it is computed


@pytest.mark.parametrize("norm", NORMS)
def test_results_do_not_depend_on_the_batch(network, make_batch, norm):
    images, labels = make_batch(network.image_shape)
    options = {"norm": norm, "alpha": 0.03, "steps": 7, "restarts": 2}
    whole = PGD(**options)(network, images, labels)
    for batch_size in (1, 4):
        parts = PGD(**options, batch_size=batch_size)(network, images, labels)
        np.testing.assert_allclose(
            parts.adversarial, whole.adversarial, atol=1e-5
        )
        np.testing.assert_array_equal(
            parts.gradient_evaluations, whole.gradient_evaluations
        )


@pytest.mark.parametrize(("norm", "restarts"), [("linf", 1), ("l2", 2)])
def test_xla_agrees(network, make_batch, norm, restarts):
    images, labels = make_batch(network.image_shape)
    options = {"norm": norm, "alpha": 0.03, "steps": 3, "restarts": restarts}
    plain = PGD(**options)(network, images, labels)
    compiled = PGD(**options, xla=True)(network, images, labels)
    np.testing.assert_allclose(
        compiled.adversarial, plain.adversarial, atol=1e-5
    )
    np.testing.assert_array_equal(compiled.success, plain.success)


def test_a_model_may_not_tell_its_number_of_classes(linear, batch):
    images, labels = batch
    silent = models.Classifier.from_callable(
        lambda x: tf.raw_ops.PlaceholderWithDefault(
            input=linear.function(x), shape=[None, None]
        ),
        image_shape=GREY,
        num_classes=3,
        fingerprint="silent",
    )
    attack = PGD(alpha=0.07, steps=3, random_start=False)
    result = attack(silent, images, labels)
    expected = by_hand(linear, images, labels, images, attack)
    np.testing.assert_allclose(result.adversarial, expected, atol=2e-6)


def test_no_images_are_no_work(classifier):
    result = PGD()(classifier, np.zeros((0, *GREY), np.float32), [])
    assert result.adversarial.shape == (0, *GREY)


# What does not fit


def test_nan_logits_are_an_error(nan_where_bright, batch):
    images, labels = batch
    # Only the second image, which is white, is that bright.
    with pytest.raises(ValueError, match="not finite for 1 .* index 11"):
        PGD()(nan_where_bright, images, labels, indices=np.arange(10, 19))


def test_a_gradient_that_is_not_finite_is_an_error(linear, batch):
    images, labels = batch
    broken = models.Classifier.from_callable(
        lambda x: linear.function(tf.sqrt(x)),
        image_shape=GREY,
        num_classes=3,
        fingerprint="root",
    )
    # The root's derivative is infinite at the first image, which is black.
    with pytest.raises(ValueError, match="not finite for 1 .* index 0"):
        PGD(steps=1, random_start=False)(broken, images, labels)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"norm": "l1"}, "norm must be one of l2, linf, got 'l1'"),
        ({"epsilon": 1.5}, r"epsilon must be .*\[0.0, 1.0\], got 1.5"),
        ({"epsilon": -0.1, "norm": "l2"}, r"epsilon must be .* got -0.1"),
        (
            {"epsilon": np.inf, "norm": "l2"},
            r"epsilon must be .*\[0.0, inf\], got inf",
        ),
        ({"alpha": -0.1}, r"alpha must be .* got -0.1"),
        ({"alpha": None}, r"alpha must be .* got None"),
        ({"steps": 0}, "steps must be a positive integer, got 0"),
        ({"restarts": 0}, "restarts must be a positive integer, got 0"),
        (
            {"restarts": 2, "random_start": False},
            "restarts must be 1 without random_start, .* got 2",
        ),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        PGD(**params)


def test_an_l2_ball_may_be_large():
    assert PGD(norm="l2", epsilon=5.0, alpha=1.5).epsilon == 5.0
