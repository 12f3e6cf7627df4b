"""The losses against their definitions, computed in float64."""

import numpy as np
import pytest
import tensorflow as tf

from ape_gan_tf import losses

CLEAN = np.array([[0.3], [-2.0], [4.0]], np.float32)
PURIFIED = np.array([[-1.5], [0.7], [2.0]], np.float32)


def sigmoid(logits):
    return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))


def test_discriminator_loss_is_equation_6():
    expected = -np.mean(np.log(sigmoid(CLEAN)))
    expected -= np.mean(np.log(1.0 - sigmoid(PURIFIED)))
    loss = losses.discriminator_loss(CLEAN, PURIFIED)
    assert loss.shape == () and loss.dtype == tf.float32
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_adversarial_loss_is_equation_14():
    expected = -np.mean(np.log(sigmoid(PURIFIED)))
    loss = float(losses.adversarial_loss(PURIFIED))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_an_undecided_discriminator_loses_two_logarithms_of_two():
    zeros = np.zeros((5, 1), np.float32)
    loss = float(losses.discriminator_loss(zeros, zeros))
    assert loss == pytest.approx(2 * np.log(2), rel=1e-6)
    loss = float(losses.adversarial_loss(zeros))
    assert loss == pytest.approx(np.log(2), rel=1e-6)


@pytest.mark.parametrize("logit", [100.0, -100.0, 1e4, -1e4])
def test_large_logits_give_finite_losses_and_gradients(logit):
    logits = tf.fill((4, 1), logit)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        both = losses.discriminator_loss(logits, logits)
        fooling = losses.adversarial_loss(logits)
    # softplus(x) + softplus(-x) is |x| for large x.
    assert float(both) == pytest.approx(abs(logit))
    assert float(fooling) == pytest.approx(max(-logit, 0.0))
    for loss in (both, fooling):
        assert np.isfinite(tape.gradient(loss, logits)).all()


def test_the_two_sides_pull_apart():
    logits = tf.zeros((1, 1))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        d_loss = losses.discriminator_loss(tf.zeros((1, 1)), logits)
        g_loss = losses.adversarial_loss(logits)
    assert tape.gradient(d_loss, logits).numpy() == 0.5
    assert tape.gradient(g_loss, logits).numpy() == -0.5


def test_content_losses_are_means_over_everything():
    generator = np.random.default_rng(0)
    clean = generator.random((3, 4, 5, 2), dtype=np.float32)
    purified = generator.random((3, 4, 5, 2), dtype=np.float32)
    mean = np.mean((clean.astype(np.float64) - purified) ** 2)
    mse = float(losses.content_loss("mse", clean, purified))
    root = float(losses.content_loss("root_mse", clean, purified))
    assert mse == pytest.approx(mean, rel=1e-6)
    assert root == pytest.approx(np.sqrt(mean), rel=1e-6)


def test_root_mse_has_a_finite_gradient_where_images_are_equal():
    images = tf.fill((2, 4, 4, 1), 0.25)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = losses.root_mse(tf.identity(images), images)
    assert float(loss) == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_array_equal(tape.gradient(loss, images), 0.0)


def test_generator_loss_is_the_weighted_sum():
    loss = losses.generator_loss(
        tf.constant(0.5),
        tf.constant(2.0),
        content_weight=0.7,
        adversarial_weight=0.3,
    )
    assert float(loss) == pytest.approx(0.7 * 0.5 + 0.3 * 2.0)


def test_an_unknown_content_loss_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="content_loss must be one of mse, root_mse, got 'l1'"
    ):
        losses.content_loss("l1", CLEAN, PURIFIED)


def test_classification_loss_is_the_mean_cross_entropy():
    logits = tf.math.log([[0.25, 0.75], [0.5, 0.5]])
    loss = losses.classification_loss(logits, tf.constant([1, 0], tf.int64))
    expected = -(np.log(0.75) + np.log(0.5)) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("q", [1.0, 0.7, 1e-3])
def test_classification_loss_is_bounded_on_request(q):
    p = np.array([0.75, 0.5])
    logits = tf.math.log([[0.25, 0.75], [0.5, 0.5]])
    labels = tf.constant([1, 0], tf.int64)
    loss = losses.classification_loss(logits, labels, q)
    expected = np.mean((1 - p**q) / q)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_beyond_hope_a_bounded_loss_has_no_gradient():
    logits, labels = tf.constant([[0.0, 200.0]]), tf.constant([0], tf.int64)
    found = []
    for q in (0.0, 0.7):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses.classification_loss(logits, labels, q)
        found.append(tape.gradient(loss, logits).numpy()[0].tolist())
    assert found == [[-1.0, 1.0], [0.0, 0.0]]
    assert float(loss) == pytest.approx(1 / 0.7)


def test_consistency_loss_is_the_mean_divergence_from_the_clean_answer():
    wanted = np.array([[0.25, 0.75], [0.5, 0.5]])
    found = np.array([[0.5, 0.5], [0.1, 0.9]])
    loss = losses.consistency_loss(
        # A constant added to all logits says nothing.
        tf.constant(np.log(found) + 3.0, tf.float32),
        tf.constant(np.log(wanted) - 7.0, tf.float32),
    )
    expected = np.mean(np.sum(wanted * np.log(wanted / found), -1))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_no_gradient_goes_through_the_clean_answer():
    clean = tf.constant([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(clean)
        loss = losses.consistency_loss(2.0 * clean, clean)
    # As if the clean answer were a constant: 2 * (q - p).
    expected = 2 * (tf.nn.softmax(2.0 * clean) - tf.nn.softmax(clean))
    np.testing.assert_allclose(tape.gradient(loss, clean), expected, rtol=1e-5)
