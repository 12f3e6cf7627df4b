"""FAB-T: closed forms, a plain implementation, and its promises."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import attacks
import models
from attacks.fab import FABT
from tests.attacks.plain_fab import plain_fab

GREY = (4, 5, 1)
NORMS = ("linf", "l2")
each_norm = pytest.mark.parametrize("norm", NORMS)


@dataclasses.dataclass
class Perceptron:
    """A curved classifier, in float32 for the attack and here in float64."""

    shape: tuple = GREY
    classes: int = 5

    def __post_init__(self):
        generator = np.random.default_rng(7)
        inputs = int(np.prod(self.shape))
        first = 1.5 * generator.normal(size=(inputs, 30)) / inputs**0.5
        second = generator.normal(size=(30, self.classes))
        self.first = first.astype(np.float32)
        self.second = second.astype(np.float32)

    def logits(self, image):
        return np.tanh(4.0 * (image - 0.5) @ self.first) @ self.second

    def gradients(self, image):
        hidden = np.tanh(4.0 * (image - 0.5) @ self.first)
        return self.second.T * (1.0 - hidden**2) @ (4.0 * self.first.T)

    def function(self, images):
        flat = tf.reshape(images, (-1, self.first.shape[0]))
        return tf.tanh(4.0 * (flat - 0.5) @ self.first) @ self.second

    def classifier(self):
        return models.Classifier.from_callable(
            self.function,
            image_shape=self.shape,
            num_classes=self.classes,
            fingerprint="perceptron",
        )


@pytest.fixture(scope="module")
def perceptron():
    return Perceptron()


@pytest.fixture(scope="module")
def curved(perceptron):
    return perceptron.classifier()


@pytest.fixture(scope="module")
def curved_batch(curved):
    """16 images with their classes, but two of them wrong already."""
    generator = np.random.default_rng(3)
    images = generator.random((16, *GREY), dtype=np.float32)
    images[14], images[15] = 0.0, 1.0
    labels = curved.predict(images).argmax(-1)
    labels[WRONG] = (labels[WRONG] + 1) % 5
    return images, labels


WRONG = [4, 9]


def lengths(result, norm):
    return getattr(result, norm).numpy()


def least_distances(linear, images, labels, norm):
    """Of the nearest boundary of a linear classifier, were there no box.

    Returns:
        The distances, and the perturbations that reach it.
    """
    dual = 1 if norm == "linf" else 2
    logits = linear.logits(images)
    rows = np.arange(len(labels))
    leads = logits[rows, labels][:, None] - logits
    weights = linear.weights.T.astype(np.float64)
    gradients = weights[None] - weights[labels][:, None]
    norms = np.linalg.norm(gradients, dual, axis=-1)
    leads[rows, labels], norms[rows, labels] = np.inf, 1.0
    distances = leads / norms
    nearest = distances.argmin(-1)
    least, way = distances[rows, nearest], gradients[rows, nearest]
    if norm == "linf":
        way = np.sign(way)
    else:
        way = way / np.linalg.norm(way, axis=-1, keepdims=True)
    return least, (least[:, None] * way).reshape(images.shape)


def inner_batch(linear, norm, count=12):
    """Images whose nearest boundary is inside the box, and their classes."""
    generator = np.random.default_rng(11)
    images = generator.uniform(0.3, 0.7, (30 * count, *linear.shape))
    images = images.astype(np.float32)
    labels = linear.logits(images).argmax(-1)
    _, changes = least_distances(linear, images, labels, norm)
    moved = images + 1.1 * changes
    is_inside = (moved > 0).all((1, 2, 3)) & (moved < 1).all((1, 2, 3))
    chosen = np.flatnonzero(is_inside)[:count]
    assert len(chosen) == count
    return images[chosen], labels[chosen]


# The linear classifier


@each_norm
@pytest.mark.parametrize("fixture", ["linear", "colour_linear"])
def test_it_finds_the_least_distance_and_never_less(request, fixture, norm):
    linear = request.getfixturevalue(fixture)
    images, labels = inner_batch(linear, norm)
    result = FABT(norm=norm)(linear.from_keras(), images, labels)
    least, _ = least_distances(linear, images, labels, norm)
    assert result.success.numpy().all()
    np.testing.assert_array_equal(result.targets, -1)
    found = lengths(result, norm)
    np.testing.assert_allclose(found, least, rtol=0.01)
    # Float32 near 0.5 rounds the perturbation, not the distance.
    assert (found > least - 1e-6).all()


@each_norm
def test_nothing_is_broken_inside_its_certified_radius(linear, norm):
    generator = np.random.default_rng(2)
    images = generator.random((20, *GREY), dtype=np.float32)
    labels = linear.logits(images).argmax(-1)
    result = FABT(norm=norm, steps=30)(linear.from_keras(), images, labels)
    least, _ = least_distances(linear, images, labels, norm)
    is_fooled = result.success.numpy()
    assert is_fooled.any()
    found = lengths(result, norm)
    assert (found[is_fooled] > least[is_fooled] - 1e-6).all()


@each_norm
def test_the_gradient_goes_through_a_purifier(linear, norm):
    images, labels = inner_batch(linear, norm)
    negative = models.Purifier.from_callable(
        lambda x: 1.0 - x, image_shape=linear.shape, fingerprint="negative"
    )
    defended = linear.from_keras().behind(negative)
    result = FABT(norm=norm)(defended, 1.0 - images, labels)
    least, _ = least_distances(linear, images, labels, norm)
    np.testing.assert_allclose(lengths(result, norm), least, rtol=0.01)


@each_norm
def test_the_scale_of_logits_plays_no_part(linear, norm):
    images, labels = inner_batch(linear, norm)
    small = models.Classifier.from_callable(
        lambda x: 1e-12 * linear.function(x),
        image_shape=GREY,
        num_classes=3,
        fingerprint="small",
    )
    result = FABT(norm=norm)(small, images, labels)
    least, _ = least_distances(linear, images, labels, norm)
    np.testing.assert_allclose(lengths(result, norm), least, rtol=0.01)


# The plain implementation


def plain_images(perceptron, images, labels, **params):
    """What `plain_fab` makes of images; those that are wrong stay."""
    found = []
    for image, label in zip(images, labels, strict=True):
        point = image.reshape(-1).astype(np.float64)
        logits = perceptron.logits(point)
        best = None
        if logits.argmax() == label:
            targets = [k for k in (-logits).argsort() if k != label]
            best = plain_fab(
                perceptron.logits,
                perceptron.gradients,
                point,
                label,
                targets[: params["target_classes"]],
                params["norm"],
                params["steps"],
                alpha_max=params.get("alpha_max", 0.1),
                eta=params.get("eta", 1.05),
                beta=params.get("beta", 0.9),
            )
        best = point if best is None else best
        found.append(best.reshape(image.shape))
    return np.stack(found)


@each_norm
@pytest.mark.parametrize(
    "params",
    [
        {"steps": 10, "target_classes": 4},
        {"steps": 20, "target_classes": 1},
        {
            "steps": 6,
            "target_classes": 2,
            "alpha_max": 0.5,
            "eta": 1.3,
            "beta": 0.6,
        },
    ],
)
def test_it_is_the_plain_algorithm(
    perceptron, curved, curved_batch, norm, params
):
    images, labels = curved_batch
    result = FABT(norm=norm, **params)(curved, images, labels)
    plain = plain_images(perceptron, images, labels, norm=norm, **params)
    order = np.inf if norm == "linf" else 2
    expected = np.linalg.norm((plain - images).reshape(16, -1), order, axis=-1)
    np.testing.assert_allclose(
        lengths(result, norm), expected, rtol=1e-3, atol=2e-5
    )
    if norm == "l2":  # In Linf many images are equally near.
        np.testing.assert_allclose(result.adversarial, plain, atol=1e-3)
    evaluations = np.full(16, params["steps"] * params["target_classes"])
    evaluations[WRONG] = 0
    np.testing.assert_array_equal(result.gradient_evaluations, evaluations)


@each_norm
def test_more_targets_and_more_steps_find_shorter_ones(
    curved, curved_batch, norm
):
    images, labels = curved_batch
    found = [
        lengths(FABT(norm=norm, **params)(curved, images, labels), norm)
        for params in (
            {"target_classes": 1, "steps": 5},
            {"target_classes": 1, "steps": 20},
            {"target_classes": 4, "steps": 20},
        )
    ]
    for longer, shorter in zip(found, found[1:], strict=False):
        assert (shorter <= longer + 1e-6).all()
        assert shorter.sum() < longer.sum()


# Ending early


@each_norm
def test_a_length_that_is_enough_ends_the_search(curved, curved_batch, norm):
    images, labels = curved_batch
    full = FABT(norm=norm, steps=20)(curved, images, labels)
    found = lengths(full, norm)
    # Far from all lengths: an attack that is cut short ends a little longer.
    enough = float(np.median(found))
    early = FABT(norm=norm, steps=20, stop_at=enough)(curved, images, labels)
    spent = early.gradient_evaluations.numpy()
    is_enough = found <= enough
    np.testing.assert_array_equal(lengths(early, norm) <= enough, is_enough)
    assert (spent[~is_enough] == 80).all()
    assert (spent[is_enough] < 80).all() and spent[is_enough].sum() < 200
    # The others have had the whole search.
    np.testing.assert_allclose(
        early.adversarial.numpy()[~is_enough],
        full.adversarial.numpy()[~is_enough],
        atol=1e-5,
    )
    assert early.success.numpy().all()


def test_images_that_are_wrong_already_come_back_unchanged(
    curved, curved_batch
):
    images, labels = curved_batch
    result = FABT(steps=5)(curved, images, labels)
    np.testing.assert_array_equal(
        result.adversarial.numpy()[WRONG], images[WRONG]
    )
    assert result.success.numpy()[WRONG].all()
    np.testing.assert_array_equal(result.gradient_evaluations.numpy()[WRONG], 0)


@each_norm
@pytest.mark.parametrize("restarts", [1, 3])
def test_a_constant_classifier_is_given_up_at_once(batch, norm, restarts):
    images, labels = batch
    logits = tf.constant([[5.0, -5.0, 0.0]])
    constant = models.Classifier.from_callable(
        lambda x: tf.tile(logits, [tf.shape(x)[0], 1]),
        image_shape=GREY,
        num_classes=3,
        fingerprint="constant",
    )
    attack = FABT(norm=norm, restarts=restarts, steps=4)
    result = attack(constant, images, labels)
    np.testing.assert_array_equal(result.adversarial, images)
    np.testing.assert_array_equal(result.success, labels != 0)
    # From the image itself one gradient says that nothing will move; from a
    # random start the search goes back to the image.
    spent = 2 * (1 + 4 * (restarts - 1))
    evaluations = np.where(labels != 0, 0, spent)
    np.testing.assert_array_equal(result.gradient_evaluations, evaluations)


@each_norm
def test_an_image_that_is_not_fooled_comes_back_clean(linear, norm):
    far = models.Classifier.from_callable(
        lambda x: linear.function(x) + [0.0, -100.0, -100.0],
        image_shape=GREY,
        num_classes=3,
        fingerprint="far",
    )
    images = np.random.default_rng(4).random((3, *GREY), dtype=np.float32)
    result = FABT(norm=norm, steps=5)(far, images, [0, 0, 0])
    np.testing.assert_array_equal(result.adversarial, images)
    assert not result.success.numpy().any()


@each_norm
def test_no_class_is_left_to_the_rounding_of_logits(
    perceptron, curved, curved_batch, norm
):
    images, labels = curved_batch
    result = FABT(norm=norm, steps=20)(curved, images, labels)
    flat = result.adversarial.numpy().reshape(16, -1).astype(np.float64)
    logits = np.stack([perceptron.logits(image) for image in flat])
    rows = np.arange(16)
    own = logits[rows, labels]
    others = logits.copy()
    others[rows, labels] = -np.inf
    asked = 1e-5 * np.abs(logits).max(-1)
    assert (others.max(-1) - own > 0.9 * asked).all()


# Restarts


@pytest.fixture(scope="module")
def flat_at_grey():
    """A classifier whose gradient is zero at images that are grey all over."""
    generator = np.random.default_rng(8)
    weights = generator.normal(size=(20, 40)).astype(np.float32)

    def function(images):
        hidden = (tf.reshape(images, (-1, 20)) - 0.5) @ weights
        lead = tf.reduce_sum(tf.nn.relu(hidden - 0.05), -1, keepdims=True)
        return tf.concat([tf.ones_like(lead), lead / 10.0, -lead], -1)

    return models.Classifier.from_callable(
        function, image_shape=GREY, num_classes=3, fingerprint="flat"
    )


@each_norm
def test_restarts_are_random_by_the_seed_and_the_index(flat_at_grey, norm):
    images = np.full((6, *GREY), 0.5, np.float32)
    labels, indices = np.zeros(6, int), np.arange(100, 106)

    def run(order=slice(None), **params):
        attack = FABT(norm=norm, **{"steps": 6, "restarts": 2, **params})
        return attack(
            flat_at_grey, images[order], labels[order], indices=indices[order]
        )

    once = run(restarts=1)
    assert not once.success.numpy().any()
    np.testing.assert_array_equal(once.gradient_evaluations, 2)
    first, other = run(), run(seed=1)
    assert first.success.numpy().all()
    # Two targets, each from the image, where one says it all, and from another.
    np.testing.assert_array_equal(first.gradient_evaluations, 2 * (1 + 6))
    backwards = slice(None, None, -1)
    again = run(backwards, batch_size=4)
    np.testing.assert_allclose(
        again.adversarial.numpy()[backwards], first.adversarial, atol=1e-5
    )
    found = first.adversarial.numpy().reshape(6, -1)
    assert len(np.unique(found.round(3), axis=0)) == 6
    assert np.abs(other.adversarial - first.adversarial).max() > 1e-3


@each_norm
@pytest.mark.parametrize("stop_at", [None, 0.2])
def test_random_starts_are_half_an_epsilon_away(norm, stop_at):
    attack = FABT(norm=norm, restarts=2, stop_at=stop_at)
    # Mid-grey, so that the box cuts nothing off.
    images = np.full((6, *GREY), 0.5, np.float32)
    no_classes = np.zeros(6, np.int64)
    inputs = attacks.base.Inputs(
        tf.constant(images),
        tf.constant(no_classes),
        tf.constant(no_classes - 1),
        tf.constant(images),
        tf.range(6, dtype=tf.int64),
    )
    starts = attack._random_starts(inputs, tf.ones(6, tf.int64)).numpy()
    changes = (starts - images).reshape(6, -1)
    order = np.inf if norm == "linf" else 2
    epsilon = stop_at or {"linf": 0.3, "l2": 1.0}[norm]
    np.testing.assert_allclose(
        np.linalg.norm(changes, order, axis=-1), epsilon / 2, rtol=1e-5
    )
    assert len(np.unique(changes.round(4), axis=0)) == 6


# How it is computed


@each_norm
def test_results_do_not_depend_on_the_batch(curved, curved_batch, norm):
    images, labels = curved_batch
    whole = FABT(norm=norm, steps=15)(curved, images, labels)
    for batch_size in (1, 5):
        parts = FABT(norm=norm, steps=15, batch_size=batch_size)(
            curved, images, labels
        )
        np.testing.assert_allclose(
            parts.adversarial, whole.adversarial, atol=1e-4
        )
        np.testing.assert_array_equal(
            parts.gradient_evaluations, whole.gradient_evaluations
        )


def test_xla_agrees(curved, curved_batch):
    images, labels = (x[:4] for x in curved_batch)
    params = {"steps": 5, "target_classes": 2}
    plain = FABT(**params)(curved, images, labels)
    compiled = FABT(**params, xla=True)(curved, images, labels)
    np.testing.assert_allclose(
        compiled.adversarial, plain.adversarial, atol=1e-4
    )
    np.testing.assert_array_equal(compiled.success, plain.success)


@each_norm
def test_results_stay_in_the_box(curved, curved_batch, norm):
    images, labels = curved_batch
    attack = FABT(norm=norm, steps=10, eta=3.0, beta=1.0)
    adversarial = attack(curved, images, labels).adversarial.numpy()
    assert adversarial.min() >= 0.0 and adversarial.max() <= 1.0


@each_norm
def test_two_classes_have_one_target(linear, norm):
    images, labels = inner_batch(linear, norm)
    two = models.Classifier.from_callable(
        lambda x: linear.function(x)[:, :2],
        image_shape=GREY,
        num_classes=2,
        fingerprint="two",
    )
    logits = linear.logits(images)[:, :2]
    weights = linear.weights[:, 0].astype(np.float64) - linear.weights[:, 1]
    dual = 1 if norm == "linf" else 2
    least = np.abs(logits[:, 0] - logits[:, 1]) / np.linalg.norm(weights, dual)
    result = FABT(norm=norm)(two, images, logits.argmax(-1))
    found = lengths(result, norm)
    assert (found >= least - 1e-6).all()
    # Where the box is far, that is the distance.
    is_near = least < 0.3
    assert is_near.any()
    np.testing.assert_allclose(found[is_near], least[is_near], rtol=0.01)
    np.testing.assert_array_equal(result.gradient_evaluations, 100)


def test_a_model_may_not_tell_its_number_of_classes(linear):
    images, labels = inner_batch(linear, "l2", 4)
    silent = models.Classifier.from_callable(
        lambda x: tf.raw_ops.PlaceholderWithDefault(
            input=linear.function(x), shape=[None, None]
        ),
        image_shape=GREY,
        num_classes=3,
        fingerprint="silent",
    )
    result = FABT(norm="l2")(silent, images, labels)
    least, _ = least_distances(linear, images, labels, "l2")
    np.testing.assert_allclose(result.l2, least, rtol=0.01)


def test_no_images_are_no_work(classifier):
    result = FABT(restarts=2)(classifier, np.zeros((0, *GREY), np.float32), [])
    assert result.adversarial.shape == (0, *GREY)


# What does not fit


def test_nan_logits_are_an_error(linear, nan_where_bright, batch):
    images, _ = batch
    labels = linear.logits(images).argmax(-1)
    # Only the second image, which is white, is that bright.
    with pytest.raises(ValueError, match="not finite for 1 .* index 11"):
        FABT(steps=3)(
            nan_where_bright, images, labels, indices=np.arange(10, 19)
        )


def test_nan_logits_on_the_way_are_an_error(linear):
    images = np.full((2, *GREY), 0.5, np.float32)
    labels = linear.logits(images).argmax(-1)
    broken = models.Classifier.from_callable(
        lambda x: tf.where(
            tf.reduce_all(x == 0.5, [1, 2, 3])[:, None],
            linear.function(x),
            np.float32(np.nan),
        ),
        image_shape=GREY,
        num_classes=3,
        fingerprint="broken on the way",
    )
    with pytest.raises(ValueError, match="not finite for 2 .* index 0"):
        FABT(steps=3)(broken, images, labels)


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
        FABT(steps=3)(broken, images, labels)


def test_it_chooses_its_targets_and_begins_at_the_images(classifier, batch):
    images, labels = batch
    with pytest.raises(ValueError, match="targets must be None, .* its own"):
        FABT()(classifier, images, labels, targets=(labels + 1) % 3)
    with pytest.raises(ValueError, match="starts must be None, .* begins at"):
        FABT()(classifier, images, labels, starts=images)


def test_one_class_is_too_few():
    lonely = models.Classifier.from_callable(
        lambda x: tf.reduce_sum(x, [1, 2, 3])[:, None],
        image_shape=GREY,
        num_classes=1,
        fingerprint="lonely",
    )
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        FABT()(lonely, np.zeros((1, *GREY), np.float32), [0])


@each_norm
def test_its_parameters_are_recorded(norm):
    attack = attacks.get("fab_t", norm=norm, seed=3, batch_size=5)
    assert attack == FABT(norm=norm, seed=3)
    assert attack.params == {
        "norm": norm,
        "steps": 100,
        "restarts": 1,
        "target_classes": 9,
        "alpha_max": 0.1,
        "eta": 1.05,
        "beta": 0.9,
        "stop_at": None,
    }
    assert attack.distance == norm
    assert attack.is_minimal_norm
    assert np.isnan(attack.epsilons(tf.range(2))).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"norm": "l1"}, "norm must be one of l2, linf, got 'l1'"),
        ({"steps": 0}, "steps must be a positive integer, got 0"),
        ({"restarts": 1.5}, "restarts must be a positive integer, got 1.5"),
        ({"target_classes": 0}, "target_classes must be a positive .* got 0"),
        ({"alpha_max": 1.1}, r"alpha_max must be .*\[0.0, 1.0\], got 1.1"),
        ({"eta": 0.9}, r"eta must be .*\[1.0, inf\], got 0.9"),
        ({"beta": -0.1}, r"beta must be .*\[0.0, 1.0\], got -0.1"),
        ({"stop_at": -1.0}, r"stop_at must be .*\[0.0, inf\], got -1.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        FABT(**params)
