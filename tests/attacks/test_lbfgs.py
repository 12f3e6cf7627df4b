"""L-BFGS against closed forms and SciPy, and at its edges."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

import models
from attacks import box_lbfgs
from attacks.base import Inputs
from attacks.lbfgs import LBFGS
from tests.attacks.scipy_lbfgs import scipy_lbfgs_on

GREY = (4, 5, 1)


def scaled(linear, scale):
    """Logits times a factor: the same distances, a sharper softmax."""
    return models.Classifier.from_callable(
        lambda images: scale * linear.function(images),
        image_shape=linear.shape,
        num_classes=3,
        fingerprint=f"scaled {scale}",
    )


def central_images(linear, count):
    """Images whose nearest adversarial images are inside the box."""
    generator = np.random.default_rng(8)
    images = generator.uniform(0.35, 0.65, (count, *linear.shape))
    images = np.float32(images)
    return images, linear.logits(images).argmax(-1)


def distance_to_target(linear, image, target):
    """The least L2 change after which no logit is above the target's.

    In float64: the nearest point of the intersection of half-spaces lies on
    one of the planes, or where some of them meet.
    """
    logits = linear.logits(image[None])[0]
    weights = np.float64(linear.weights)
    others = [k for k in range(3) if k != target]
    normals = np.stack([weights[:, target] - weights[:, k] for k in others])
    gaps = np.array([logits[k] - logits[target] for k in others])
    distances = []
    for planes in ([], [0], [1], [0, 1]):
        change = np.linalg.pinv(normals[planes]) @ gaps[planes]
        if (normals @ change >= gaps - 1e-9).all():
            distances.append(np.linalg.norm(change))
    return min(distances)


def test_targeted_distances_are_those_of_the_closed_form(linear):
    images, labels = central_images(linear, 20)
    result = LBFGS()(scaled(linear, 20.0), images, labels)
    expected = [
        distance_to_target(linear, *pair)
        for pair in zip(images, result.targets.numpy(), strict=True)
    ]
    assert result.success.numpy().all()
    ratios = result.l2.numpy() / expected
    assert ratios.min() > 1 - 1e-4
    assert ratios.max() < 1.02


def test_untargeted_distances_are_those_of_the_runner_up(linear):
    """A sharp loss sees no class but that, even where another is nearer."""
    images, labels = central_images(linear, 20)
    result = LBFGS(target=None)(scaled(linear, 20.0), images, labels)
    others = linear.logits(images)
    others[np.arange(20), labels] = -np.inf
    expected = [
        distance_to_target(linear, *pair)
        for pair in zip(images, others.argmax(-1), strict=True)
    ]
    assert result.success.numpy().all()
    np.testing.assert_array_equal(result.targets, np.full(20, -1))
    # Going there, it may come into a third class first.
    assert (result.l2 / expected).numpy().max() < 1.02
    assert np.median(result.l2 / expected) > 1 - 1e-4


@pytest.mark.parametrize("initial_constant", [1e-6, 1e3])
def test_the_first_constant_may_be_far_off(linear, initial_constant):
    images, labels = central_images(linear, 10)
    classifier = scaled(linear, 20.0)
    near = LBFGS()(classifier, images, labels)
    far = LBFGS(initial_constant=initial_constant, search_steps=20)(
        classifier, images, labels
    )
    np.testing.assert_allclose(far.l2, near.l2, rtol=0.02)


def test_it_finds_what_scipy_finds(network, make_batch):
    images, labels = make_batch((6, 6, 1), 6)
    result = LBFGS()(network, images, labels)
    targets = result.targets.numpy()
    expected = scipy_lbfgs_on(network, images, targets)
    reached = network(expected).numpy().argmax(-1) == targets
    np.testing.assert_array_equal(result.success, reached)
    assert reached.any()
    norms = np.linalg.norm((expected - images).reshape(6, -1), axis=1)
    # Not shorter by much either: both look for one minimum.
    assert result.l2.numpy().mean() == pytest.approx(norms.mean(), rel=0.05)


def two_classes(weights, bias):
    """Logits 0 and `weights * x + bias`."""
    weights = np.float32(weights)

    def logits(images):
        flat = tf.reshape(images, (-1, len(weights)))
        second = tf.linalg.matvec(flat, weights) + np.float32(bias)
        return tf.stack([tf.zeros_like(second), second], axis=1)

    return models.Classifier.from_callable(
        logits, image_shape=GREY, num_classes=2, fingerprint="two"
    )


def nearest_in_box(image, weights, bias):
    """The nearest point of the box on the second class's side.

    It is clip(x + t * weights) for the least t that gets there.
    """
    least, most = 0.0, 100.0
    for _ in range(100):
        middle = (least + most) / 2
        point = np.clip(image + middle * weights, 0, 1)
        least, most = (
            (least, middle) if point @ weights > -bias else (middle, most)
        )
    return point


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_values_stay_at_the_bounds_that_hold_them(edge):
    generator = np.random.default_rng(6)
    weights = 10 * generator.normal(size=20)
    image = np.full(20, edge)
    image[:4] = generator.uniform(0.1, 0.9, 4)
    highest = np.clip(100 * weights, 0, 1) @ weights
    # Four fifths of the way: some values get to the other bound.
    bias = -(image @ weights + 0.8 * (highest - image @ weights))
    expected = nearest_in_box(image, weights, bias)
    assert (expected == edge).any() and (expected == 1 - edge).any()
    result = LBFGS(search_steps=12)(
        two_classes(weights, bias),
        np.float32(image).reshape(1, *GREY),
        [0],
    )
    assert result.success[0]
    adversarial = result.adversarial.numpy().reshape(20)
    assert 0.0 <= adversarial.min() and adversarial.max() <= 1.0
    expected_norm = np.linalg.norm(expected - image)
    assert 1 - 1e-4 < result.l2[0] / expected_norm < 1.02
    np.testing.assert_allclose(adversarial, expected, atol=0.02)


def test_the_constant_is_the_smallest_that_succeeds():
    """Twenty equal weights: c can be worked out.

    At c each value changes by c / 2 * 5 * p(label). At the border p is 1/2,
    and the change 5 / (20 * 5): there c is 0.04.
    """
    classifier = two_classes(np.full(20, 5.0), -55.0)
    images = tf.fill([1, *GREY], 0.5)
    label = tf.constant([0], tf.int64)
    inputs = Inputs(images, label, label + 1, images, label)
    attack = LBFGS(search_steps=12)
    advance = tf.function(attack.advance)
    state = attack.begin(classifier, inputs)
    while not state["done"][0]:
        state = advance(classifier, inputs, state)
    assert 0.039 < state["lower"][0] < 0.04 < state["upper"][0] < 0.041


def test_an_image_that_is_the_target_stays(linear, classifier, batch):
    images, _ = batch
    targets = linear.logits(images).argmax(-1)
    result = LBFGS()(classifier, images, (targets + 1) % 3, targets=targets)
    np.testing.assert_array_equal(result.adversarial, images)
    np.testing.assert_array_equal(result.gradient_evaluations, np.zeros(9))
    assert result.success.numpy().all()


def test_an_image_that_is_wrong_stays_where_there_is_no_target(
    linear, classifier, batch
):
    images, _ = batch
    labels = (linear.logits(images).argmax(-1) + 1) % 3
    result = LBFGS(target=None)(classifier, images, labels)
    np.testing.assert_array_equal(result.adversarial, images)
    assert result.success.numpy().all()


@pytest.mark.parametrize("xla", [False, True])
def test_a_constant_classifier_leaves_the_image(xla):
    classifier = models.Classifier.from_callable(
        lambda images: (
            tf.constant([[3.0, 1.0, 2.0]])
            + 0.0 * tf.reduce_sum(images, [1, 2, 3])[:, None]
        ),
        image_shape=GREY,
        num_classes=3,
        fingerprint="constant",
    )
    images = np.linspace(0, 1, 60, dtype=np.float32).reshape(3, *GREY)
    result = LBFGS(search_steps=40, xla=xla)(
        classifier, images, [0, 0, 0], targets=[1, 2, 1]
    )
    np.testing.assert_array_equal(result.adversarial, images)
    assert not result.success.numpy().any()
    assert (result.gradient_evaluations.numpy() <= 50).all()


def test_a_target_out_of_reach_is_a_failure_and_a_clean_image():
    classifier = two_classes(np.ones(20), -30.0)
    images = np.full((2, *GREY), 0.5, np.float32)
    result = LBFGS()(classifier, images, [0, 0])
    np.testing.assert_array_equal(result.adversarial, images)
    assert not result.success.numpy().any()


def test_logits_that_are_not_finite_are_an_error(linear):
    """Where the search gets to, not where it begins."""

    def logits(images):
        value = images[:, :1, 0, 0]
        is_broken = (value != 0.125) & (value < 0.25)
        return linear.function(images) + tf.where(is_broken, np.nan, 0.0)

    classifier = models.Classifier.from_callable(
        logits, image_shape=GREY, num_classes=3, fingerprint="broken"
    )
    images, labels = central_images(linear, 5)
    images[:, 0, 0, 0] = 0.5
    images[3, 0, 0, 0] = 0.125
    with pytest.raises(ValueError, match="lbfgs: .* 1 image.*index 103"):
        LBFGS()(classifier, images, labels, indices=np.arange(100, 105))


def test_gradients_that_are_not_finite_are_an_error(linear):
    def logits(images):
        # Infinite slope where the value is 0.
        root = tf.sqrt(images[:, :1, 0, 0])
        return linear.function(images) + 0.01 * root * [1.0, 2.0, 3.0]

    classifier = models.Classifier.from_callable(
        logits, image_shape=GREY, num_classes=3, fingerprint="root"
    )
    images, _ = central_images(linear, 9)
    images[[4, 7], 0, 0, 0] = 0.0
    labels = linear.logits(images).argmax(-1)
    with pytest.raises(ValueError, match="lbfgs: .* 2 image.*index 4"):
        LBFGS(search_steps=1)(classifier, images, labels)


@pytest.mark.parametrize(
    ("count", "settings"), [(10, {"batch_size": 3}), (2, {"xla": True})]
)
def test_batch_size_and_xla_hardly_matter(network, make_batch, count, settings):
    images, labels = make_batch((6, 6, 1), count)
    whole = LBFGS(search_steps=6)(network, images, labels)
    result = LBFGS(search_steps=6, **settings)(network, images, labels)
    np.testing.assert_array_equal(result.success, whole.success)
    # Sums round differently in other shapes.
    np.testing.assert_allclose(result.l2, whole.l2, rtol=0.01)


def test_targets_follow_seed_and_index(classifier, batch):
    images, labels = batch
    one = LBFGS(seed=1)(classifier, images, labels, indices=np.arange(50, 59))
    part = LBFGS(seed=1)(
        classifier, images[4:], labels[4:], indices=np.arange(54, 59)
    )
    np.testing.assert_array_equal(one.targets[4:], part.targets)
    assert (one.targets.numpy() != labels).all()


def test_colour_images_are_attacked(colour_linear, make_batch):
    images, _ = make_batch((3, 4, 3), 9)
    labels = colour_linear.logits(images).argmax(-1)
    result = LBFGS()(colour_linear.from_callable(), images, labels)
    success = result.success.numpy()
    assert success.any()
    reached = colour_linear.logits(result.adversarial.numpy()).argmax(-1)
    np.testing.assert_array_equal(
        reached[success], result.targets.numpy()[success]
    )
    np.testing.assert_array_equal(
        result.adversarial.numpy()[~success], images[~success]
    )


def test_it_sees_through_a_purifier(linear, classifier):
    """A purifier that halves the contrast doubles the distance."""
    purifier = models.Purifier.from_callable(
        lambda images: 0.25 + 0.5 * images, image_shape=GREY, fingerprint="half"
    )
    purified, labels = central_images(linear, 10)
    images = 2.0 * (purified - 0.25)
    defended = scaled(linear, 20.0).behind(purifier)
    result = LBFGS()(defended, images, labels)
    expected = [
        2.0 * distance_to_target(linear, *pair)
        for pair in zip(purified, result.targets.numpy(), strict=True)
    ]
    assert result.success.numpy().all()
    assert np.max(result.l2 / expected) < 1.02


def test_it_begins_where_it_is_told(linear):
    """The clean image counts all the same, and the way back to it is found."""
    images, labels = central_images(linear, 10)
    classifier = scaled(linear, 20.0)
    one = LBFGS()(classifier, images, labels)
    other = LBFGS()(classifier, images, labels, starts=one.adversarial)
    assert other.success.numpy().all()
    assert (other.l2 <= one.l2).numpy().all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"iterations": 0}, "iterations must be a positive integer, got 0"),
        ({"search_steps": 1.5}, "search_steps must be a positive integer"),
        ({"initial_constant": 0.0}, "initial_constant must be a number in"),
        ({"memory": -1}, "memory must be a positive integer, got -1"),
        ({"target": "nearest"}, "target must be one of all, least_likely"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        LBFGS(**params)


def test_a_target_that_is_the_label_is_refused(classifier, batch):
    images, labels = batch
    with pytest.raises(ValueError, match="targets must not be the labels"):
        LBFGS()(classifier, images, labels, targets=labels)


def test_large_images_are_searched_few_at_a_time():
    """A state of 224 x 224 x 3 is 15 MiB an image."""
    assert LBFGS()._room((28, 28, 1)) == 256
    assert 1 <= LBFGS()._room((224, 224, 3)) <= 10
    assert LBFGS(batch_size=20)._room((224, 224, 3)) == 20


def test_the_direction_is_newtons_on_a_quadratic():
    """With as many steps as variables, BFGS knows the Hessian."""
    generator = np.random.default_rng(7)
    root = generator.normal(size=(3, 3))
    hessian = root @ root.T + np.eye(3)
    point, gradient = np.full(3, 0.5), generator.normal(size=3)
    # Conjugate steps: each update leaves the earlier ones as they are.
    steps = np.linalg.inv(np.linalg.cholesky(hessian)).T
    steps, changes = steps.T, (hessian @ steps).T
    for row, other in itertools.combinations(range(3), 2):
        assert steps[row] @ hessian @ steps[other] == pytest.approx(0, abs=1e-9)
    # A pair of negative curvature and one that is empty are passed over.
    steps = np.stack([np.ones(3), *steps, np.zeros(3)])
    changes = np.stack([-np.ones(3), *changes, np.zeros(3)])
    found = box_lbfgs.direction(
        *[tf.constant(x[None], tf.float32) for x in (point, gradient)],
        *[tf.constant(x[None], tf.float32) for x in (steps, changes)],
    )
    np.testing.assert_allclose(
        found[0], -np.linalg.solve(hessian, gradient), rtol=1e-3
    )


def test_values_at_a_bound_take_no_part():
    """Held at 0 and at 1, free at both, free between: without a memory."""
    point = tf.constant([[0.0, 1.0, 0.0, 1.0, 0.5]])
    gradient = tf.constant([[1.0, -1.0, -2.0, 2.0, 3.0]])
    nothing = tf.zeros([1, 2, 5])
    found = box_lbfgs.direction(point, gradient, nothing, nothing)
    np.testing.assert_array_equal(found, [[0, 0, 2, -2, -3]])
