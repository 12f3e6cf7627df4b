"""DeepFool: closed forms, Foolbox's own, and its promises."""

import numpy as np
import pytest
import tensorflow as tf

import models
from attacks.deepfool import DeepFool

GREY = (4, 5, 1)


def nearest_boundaries(linear, images, labels):
    """The smallest perturbations that reach another class, and their norms."""
    logits = linear.logits(images)
    rows = np.arange(len(labels))
    leads = logits - logits[rows, labels][:, None]
    # [B, K, D]: the gradients of the leads.
    weights = linear.weights.T[None].astype(np.float64)
    gradients = weights - weights[0, labels][:, None]
    norms = np.linalg.norm(gradients, axis=-1)
    norms[rows, labels] = 1.0
    distances = np.abs(leads) / norms
    distances[rows, labels] = np.inf
    best = distances.argmin(-1)
    nearest = distances[rows, best]
    directions = gradients[rows, best] / norms[rows, best][:, None]
    changes = nearest[:, None] * directions
    return changes.reshape(images.shape), nearest


def inner_batch(linear, count=12):
    """Images whose nearest boundary is inside the box, and their classes."""
    generator = np.random.default_rng(11)
    images = generator.uniform(0.3, 0.7, (20 * count, *linear.shape))
    images = images.astype(np.float32)
    labels = linear.logits(images).argmax(-1)
    changes, nearest = nearest_boundaries(linear, images, labels)
    moved = images + 1.02 * changes
    is_inside = (moved > 0).all((1, 2, 3)) & (moved < 1).all((1, 2, 3))
    # Foolbox's 1e-4, which is added to each distance, must be small beside it.
    chosen = np.flatnonzero(is_inside & (nearest > 0.1))[:count]
    assert len(chosen) == count
    return images[chosen], labels[chosen]


def perceptron(shape=GREY, classes=12, scale=1.5):
    """A curved classifier of many classes."""
    generator = np.random.default_rng(7)
    inputs = int(np.prod(shape))
    first = scale * generator.normal(size=(inputs, 30)) / inputs**0.5
    second = generator.normal(size=(30, classes))
    first, second = first.astype(np.float32), second.astype(np.float32)
    return models.Classifier.from_callable(
        lambda x: (
            tf.tanh(4.0 * (tf.reshape(x, (-1, inputs)) - 0.5) @ first) @ second
        ),
        image_shape=shape,
        num_classes=classes,
        fingerprint="perceptron",
    )


@pytest.fixture(scope="module")
def curved():
    return perceptron()


@pytest.fixture(scope="module")
def curved_batch(curved):
    """24 images with their classes, but three of them wrong already."""
    generator = np.random.default_rng(3)
    images = generator.random((24, *GREY), dtype=np.float32)
    images[0], images[1] = 0.0, 1.0
    labels = curved.predict(images).argmax(-1)
    labels[[4, 9, 20]] = (labels[[4, 9, 20]] + 1) % 12
    return images, labels


# The linear classifier


@pytest.mark.parametrize("fixture", ["linear", "colour_linear"])
def test_it_finds_the_nearest_boundary(request, fixture):
    linear = request.getfixturevalue(fixture)
    images, labels = inner_batch(linear)
    attack = DeepFool(overshoot=1e-4)
    result = attack(linear.from_keras(), images, labels)
    changes, nearest = nearest_boundaries(linear, images, labels)
    assert result.success.numpy().all()
    np.testing.assert_allclose(result.l2, nearest, rtol=0.01)
    np.testing.assert_allclose(
        result.adversarial - images, changes, atol=0.01 * nearest.max()
    )
    # One step, which takes the gradients of the two other classes.
    np.testing.assert_array_equal(result.gradient_evaluations, 2)


def test_it_overshoots_by_as_much_as_is_asked(linear, classifier):
    images, labels = inner_batch(linear)
    _, nearest = nearest_boundaries(linear, images, labels)
    result = DeepFool(overshoot=0.02)(classifier, images, labels)
    np.testing.assert_allclose(result.l2, 1.02 * (nearest + 1e-4), rtol=1e-4)


def test_the_gradient_goes_through_a_purifier(linear):
    images, labels = inner_batch(linear)
    negative = models.Purifier.from_callable(
        lambda x: 1.0 - x, image_shape=linear.shape, fingerprint="negative"
    )
    defended = linear.from_keras().behind(negative)
    result = DeepFool(overshoot=1e-4)(defended, 1.0 - images, labels)
    changes, nearest = nearest_boundaries(linear, images, labels)
    assert result.success.numpy().all()
    np.testing.assert_allclose(
        result.adversarial - (1.0 - images), -changes, atol=1e-3
    )
    np.testing.assert_allclose(result.l2, nearest, rtol=0.01)


# Foolbox


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"candidates": 4},
        {"candidates": 100, "overshoot": 0.5},
        {"steps": 2, "overshoot": 0.0},
    ],
)
def test_it_agrees_with_foolbox(curved, curved_batch, params):
    images, labels = curved_batch
    ours = DeepFool(**params)(curved, images, labels)
    theirs = DeepFool(**params, backend="foolbox")(curved, images, labels)
    np.testing.assert_array_equal(ours.success, theirs.success)
    np.testing.assert_allclose(ours.l2, theirs.l2, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(ours.adversarial, theirs.adversarial, atol=1e-3)


def test_it_agrees_with_foolbox_on_a_network(network, make_batch):
    images, _ = make_batch(network.image_shape)
    labels = network.predict(images).argmax(-1)
    ours = DeepFool()(network, images, labels)
    theirs = DeepFool(backend="foolbox")(network, images, labels)
    np.testing.assert_array_equal(ours.success, theirs.success)
    np.testing.assert_allclose(ours.adversarial, theirs.adversarial, atol=1e-4)


def test_it_takes_fewer_gradients_than_foolbox(curved, curved_batch):
    images, labels = curved_batch
    is_right = curved.predict(images).argmax(-1) == labels
    ours = DeepFool()(curved, images, labels)
    theirs = DeepFool(backend="foolbox", batch_size=1)(curved, images, labels)
    ours = ours.gradient_evaluations.numpy()
    theirs = theirs.gradient_evaluations.numpy()
    # Foolbox takes one gradient to see that an image is fooled.
    np.testing.assert_array_equal(theirs[~is_right], 1)
    np.testing.assert_array_equal(ours[~is_right], 0)
    steps, rest = np.divmod(theirs[is_right], 9)
    np.testing.assert_array_equal(rest, 1)
    assert steps.max() > 2
    # Nine in the first step, at least one in each other.
    assert (ours[is_right] >= 9 + steps - 1).all()
    assert ours[is_right].sum() < 0.7 * theirs[is_right].sum()


def test_all_that_may_be_nearest_are_looked_at():
    # Classes 1 and 2 are as near as each other, class 3 is far behind.
    def function(x):
        lead = tf.sqrt(tf.reshape(x, (-1, 1))) - 0.8
        return tf.concat([0.0 * lead, lead, lead, lead - 9.0], -1)

    twins = models.Classifier.from_callable(
        function, image_shape=(1, 1, 1), num_classes=4, fingerprint="twins"
    )
    image = np.full((1, 1, 1, 1), 0.1, np.float32)
    ours = DeepFool()(twins, image, [0])
    theirs = DeepFool(backend="foolbox")(twins, image, [0])
    np.testing.assert_allclose(ours.adversarial, theirs.adversarial, atol=1e-6)
    steps, rest = divmod(int(theirs.gradient_evaluations[0]), 3)
    assert steps > 2 and rest == 1
    assert int(ours.gradient_evaluations[0]) == 3 + 2 * (steps - 1)


def test_foolbox_works_image_by_image_as_in_a_batch(linear, classifier):
    images, labels = inner_batch(linear, 5)
    labels[3] = (labels[3] + 1) % 3
    reports = []
    whole = DeepFool(backend="foolbox")(classifier, images, labels)
    alone = DeepFool(backend="foolbox", batch_size=1)(
        classifier, images, labels, progress=reports.append
    )
    np.testing.assert_allclose(alone.adversarial, whole.adversarial, atol=1e-6)
    # Two gradients make the step, and a third comes with the look at its end.
    np.testing.assert_array_equal(alone.gradient_evaluations, [3, 3, 3, 1, 3])
    np.testing.assert_array_equal(whole.gradient_evaluations, [3] * 5)
    assert sum(reports) == 5
    np.testing.assert_array_equal(whole.adversarial[3], images[3])


# Images that are not fooled, or need not be


@pytest.mark.parametrize("backend", ["compiled", "foolbox"])
def test_an_image_that_is_not_fooled_comes_back_clean(
    curved, curved_batch, backend
):
    images, labels = curved_batch
    attack = DeepFool(steps=1, overshoot=0.0, backend=backend)
    result = attack(curved, images, labels)
    is_fooled = result.success.numpy()
    assert 3 < is_fooled.sum() < 24
    np.testing.assert_array_equal(
        result.adversarial[~is_fooled], images[~is_fooled]
    )
    predicted = curved.predict(result.adversarial).argmax(-1)
    np.testing.assert_array_equal(is_fooled, predicted != labels)


def test_images_that_are_wrong_already_come_back_unchanged(
    curved, curved_batch
):
    images, labels = curved_batch
    result = DeepFool()(curved, images, labels)
    wrong = [4, 9, 20]
    np.testing.assert_array_equal(
        result.adversarial.numpy()[wrong], images[wrong]
    )
    assert result.success.numpy()[wrong].all()
    np.testing.assert_array_equal(result.l2.numpy()[wrong], 0.0)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_a_constant_classifier_is_given_up_at_once(batch, value):
    images, labels = batch
    logits = tf.constant([[value, -value, 0.0]])
    constant = models.Classifier.from_callable(
        lambda x: tf.tile(logits, [tf.shape(x)[0], 1]),
        image_shape=GREY,
        num_classes=3,
        fingerprint="constant",
    )
    result = DeepFool()(constant, images, labels)
    np.testing.assert_array_equal(result.adversarial, images)
    np.testing.assert_array_equal(result.success, labels != 0)
    evaluations = np.where(labels != 0, 0, 3)
    np.testing.assert_array_equal(result.gradient_evaluations, evaluations)


def test_results_stay_in_the_box(curved, curved_batch):
    images, labels = curved_batch
    result = DeepFool(overshoot=20.0)(curved, images, labels)
    adversarial = result.adversarial.numpy()
    assert adversarial.min() == 0.0 and adversarial.max() == 1.0
    predicted = curved.predict(adversarial).argmax(-1)
    np.testing.assert_array_equal(result.success, predicted != labels)


# How it is computed


def test_results_do_not_depend_on_the_batch(curved, curved_batch):
    images, labels = curved_batch
    whole = DeepFool()(curved, images, labels)
    for batch_size in (1, 5):
        parts = DeepFool(batch_size=batch_size)(curved, images, labels)
        np.testing.assert_allclose(
            parts.adversarial, whole.adversarial, atol=1e-5
        )
        np.testing.assert_array_equal(
            parts.gradient_evaluations, whole.gradient_evaluations
        )


def test_xla_agrees(network, make_batch):
    images, _ = make_batch(network.image_shape)
    labels = network.predict(images).argmax(-1)
    plain = DeepFool()(network, images, labels)
    compiled = DeepFool(xla=True)(network, images, labels)
    np.testing.assert_allclose(
        compiled.adversarial, plain.adversarial, atol=1e-5
    )
    np.testing.assert_array_equal(compiled.success, plain.success)


def test_a_model_may_not_tell_its_number_of_classes(linear):
    images, labels = inner_batch(linear, 4)
    silent = models.Classifier.from_callable(
        lambda x: tf.raw_ops.PlaceholderWithDefault(
            input=linear.function(x), shape=[None, None]
        ),
        image_shape=GREY,
        num_classes=3,
        fingerprint="silent",
    )
    result = DeepFool(overshoot=1e-4)(silent, images, labels)
    _, nearest = nearest_boundaries(linear, images, labels)
    np.testing.assert_allclose(result.l2, nearest, rtol=0.01)


@pytest.mark.parametrize("backend", ["compiled", "foolbox"])
def test_no_images_are_no_work(classifier, backend):
    result = DeepFool(backend=backend)(
        classifier, np.zeros((0, *GREY), np.float32), []
    )
    assert result.adversarial.shape == (0, *GREY)


# What does not fit


@pytest.mark.parametrize("backend", ["compiled", "foolbox"])
def test_nan_logits_are_an_error(linear, nan_where_bright, batch, backend):
    images, _ = batch
    labels = linear.logits(images).argmax(-1)
    # Only the second image, which is white, is that bright.
    with pytest.raises(ValueError, match="not finite for 1 .* index 11"):
        DeepFool(backend=backend)(
            nan_where_bright, images, labels, indices=np.arange(10, 19)
        )


def test_a_gradient_that_is_not_finite_is_an_error(linear, batch):
    images, _ = batch
    labels = linear.logits(np.sqrt(images)).argmax(-1)
    broken = models.Classifier.from_callable(
        lambda x: linear.function(tf.sqrt(x)),
        image_shape=GREY,
        num_classes=3,
        fingerprint="root",
    )
    # The root's derivative is infinite at the first image, which is black.
    with pytest.raises(ValueError, match="not finite for .* index 0"):
        DeepFool()(broken, images, labels)


def test_it_is_untargeted_and_begins_at_the_images(classifier, batch):
    images, labels = batch
    with pytest.raises(ValueError, match="targets must be None, .* untargeted"):
        DeepFool()(classifier, images, labels, targets=(labels + 1) % 3)
    with pytest.raises(ValueError, match="starts must be None, .* begins at"):
        DeepFool()(classifier, images, labels, starts=images)


def test_one_class_is_too_few():
    lonely = models.Classifier.from_callable(
        lambda x: tf.reduce_sum(x, [1, 2, 3])[:, None],
        image_shape=GREY,
        num_classes=1,
        fingerprint="lonely",
    )
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        DeepFool()(lonely, np.zeros((1, *GREY), np.float32), [0])


def test_its_parameters_are_recorded():
    attack = DeepFool(seed=3, batch_size=5)
    assert attack.params == {
        "steps": 50,
        "overshoot": 0.02,
        "candidates": 10,
        "backend": "compiled",
    }
    assert attack.distance == "l2"
    assert np.isnan(attack.epsilons(tf.range(2))).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"steps": 0}, "steps must be a positive integer, got 0"),
        ({"overshoot": -0.1}, r"overshoot must be .*\[0.0, inf\], got -0.1"),
        ({"candidates": 1}, "candidates must be at least 2, .* got 1"),
        ({"candidates": 2.5}, "candidates must be a positive integer, got 2.5"),
        (
            {"backend": "foolbocks"},
            "backend must be one of compiled, foolbox, got 'foolbocks'; did "
            "you mean 'foolbox'",
        ),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        DeepFool(**params)
