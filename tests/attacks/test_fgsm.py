"""FGSM: its values, its epsilons, and its promises."""

import numpy as np
import pytest
import tensorflow as tf
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

import attacks
import models


def step(images, gradients, epsilon):
    return np.clip(images + epsilon * np.sign(gradients), 0.0, 1.0)


@pytest.mark.parametrize("epsilon", [0.0, 8 / 255, 0.3, 1.0])
@pytest.mark.parametrize("make", ["from_callable", "from_keras"])
def test_it_is_a_step_along_the_gradients_sign(linear, batch, make, epsilon):
    images, labels = batch
    classifier = getattr(linear, make)()
    result = attacks.FGSM(epsilon=epsilon)(classifier, images, labels)
    expected = step(images, linear.gradients(images, labels), epsilon)
    assert result.adversarial.dtype == tf.float32
    np.testing.assert_allclose(result.adversarial, expected, atol=1e-6)


def test_it_takes_colour_images(colour_linear, make_batch):
    images, labels = make_batch(colour_linear.shape)
    result = attacks.FGSM(epsilon=0.1)(
        colour_linear.from_callable(), images, labels
    )
    expected = step(images, colour_linear.gradients(images, labels), 0.1)
    np.testing.assert_allclose(result.adversarial, expected, atol=1e-6)


def test_it_equals_cleverhans(network, make_batch):
    images, labels = make_batch(network.image_shape)
    expected = fast_gradient_method(
        network, images, 0.2, np.inf, clip_min=0.0, clip_max=1.0, y=labels
    )
    result = attacks.FGSM(epsilon=0.2)(network, images, labels)
    np.testing.assert_allclose(result.adversarial, expected, atol=1e-6)


def test_a_targeted_step_goes_down_the_targets_loss(linear, classifier, batch):
    images, labels = batch
    targets = (labels + 1) % 3
    result = attacks.FGSM(epsilon=0.1)(
        classifier, images, labels, targets=targets
    )
    expected = step(images, -linear.gradients(images, targets), 0.1)
    np.testing.assert_allclose(result.adversarial, expected, atol=1e-6)
    before = linear.losses(images, targets)
    assert (linear.losses(result.adversarial, targets) < before).all()
    np.testing.assert_array_equal(result.targets, targets)


def test_a_constant_classifier_leaves_images_as_they_are(batch):
    images, labels = batch
    constant = models.Classifier.from_callable(
        lambda x: tf.reshape(0.0 * x, (-1, 20))[:, :3],
        image_shape=(4, 5, 1),
        num_classes=3,
        fingerprint="constant",
    )
    result = attacks.FGSM(epsilon=0.3)(constant, images, labels)
    np.testing.assert_array_equal(result.adversarial, images)
    np.testing.assert_array_equal(result.linf, 0.0)


def test_the_gradient_goes_through_a_purifier(linear, batch):
    images, labels = batch
    negative = models.Purifier.from_callable(
        lambda x: 1.0 - x, image_shape=linear.shape, fingerprint="negative"
    )
    defended = linear.from_keras().behind(negative)
    result = attacks.FGSM(epsilon=0.1)(defended, images, labels)
    # The chain rule: the purifier's derivative is -1.
    gradients = -linear.gradients(1.0 - images, labels)
    np.testing.assert_allclose(
        result.adversarial, step(images, gradients, 0.1), atol=1e-6
    )


def test_a_strangers_saved_model_can_be_attacked(linear, batch, tmp_path):
    images, labels = batch
    module = tf.Module()
    module.weights = tf.Variable(linear.weights)
    module.serve = tf.function(
        lambda x: tf.reshape(x, (-1, 20)) @ module.weights + linear.biases,
        input_signature=[tf.TensorSpec((None, *linear.shape), name="pixels")],
    )
    tf.saved_model.save(
        module, str(tmp_path), signatures={"serving_default": module.serve}
    )
    classifier = models.Classifier.load(tmp_path)
    result = attacks.FGSM(epsilon=0.2)(classifier, images, labels)
    expected = step(images, linear.gradients(images, labels), 0.2)
    np.testing.assert_allclose(result.adversarial, expected, atol=1e-6)


# An epsilon of each image's own


def spread(**options):
    return attacks.FGSM(epsilon=0.4, epsilon_min=0.1, **options)


def test_each_image_has_an_epsilon_of_its_own(linear, classifier, batch):
    images, labels = batch
    attack = spread()
    epsilons = attack.epsilons(tf.range(9, dtype=tf.int64)).numpy()
    result = attack(classifier, images, labels)
    expected = step(
        images,
        linear.gradients(images, labels),
        epsilons[:, None, None, None],
    )
    np.testing.assert_allclose(result.adversarial, expected, atol=1e-6)
    assert (result.linf.numpy() <= epsilons + 1e-6).all()


def test_epsilons_fill_their_range_evenly():
    epsilons = spread().epsilons(tf.range(4000, dtype=tf.int64)).numpy()
    assert 0.1 <= epsilons.min() < 0.101 and 0.399 < epsilons.max() <= 0.4
    # The uniform distribution's mean and standard deviation.
    assert abs(epsilons.mean() - 0.25) < 0.005
    assert abs(epsilons.std() - 0.3 / 12**0.5) < 0.005


def test_an_epsilon_depends_on_seed_and_index_alone(classifier, batch):
    images, labels = batch
    indices = np.arange(100, 109)
    whole = spread(seed=5)(classifier, images, labels, indices=indices)
    order = np.array([4, 8, 0, 1, 7, 2, 6, 3, 5])
    shuffled = spread(seed=5, batch_size=2)(
        classifier, images[order], labels[order], indices=indices[order]
    )
    np.testing.assert_array_equal(
        shuffled.adversarial, whole.adversarial.numpy()[order]
    )
    alone = spread(seed=5)(
        classifier, images[6:7], labels[6:7], indices=indices[6:7]
    )
    np.testing.assert_array_equal(alone.adversarial, whole.adversarial[6:7])


@pytest.mark.parametrize("change", [{"seed": 6}, {"indices": np.arange(9) + 1}])
def test_another_seed_or_index_gives_another_epsilon(classifier, batch, change):
    images, labels = batch
    indices = change.get("indices", np.arange(9))
    first = spread(seed=5)(classifier, images, labels)
    other = spread(seed=change.get("seed", 5))(
        classifier, images, labels, indices=indices
    )
    assert not np.isclose(first.linf, other.linf).any()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"epsilon": -0.1},
            r"epsilon must be a number in \[0.0, 1.0\], got -0",
        ),
        ({"epsilon": 1.5}, r"epsilon must be .* got 1.5"),
        ({"epsilon": float("nan")}, r"epsilon must be .* got nan"),
        ({"epsilon": "0.3"}, r"epsilon must be .* got '0.3'"),
        ({"epsilon": True}, r"epsilon must be .* got True"),
        (
            {"epsilon": 0.3, "epsilon_min": 0.4},
            r"epsilon_min must be a number in \[0.0, 0.3\], got 0.4",
        ),
        ({"epsilon_min": -1}, r"epsilon_min must be .* got -1"),
        ({"seed": -1}, "seed must be an integer of 0 or more, got -1"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        attacks.FGSM(**params)
