"""Noise in the place of adversarial images, and sparse perturbations."""

import numpy as np
import pytest
import tensorflow as tf

from data.augmentation import crop_pairs, noise_some, sparsify_some

CLEAN = tf.fill([400, 8, 8, 1], 0.5)
ADVERSARIAL = tf.zeros_like(CLEAN)


def crops(side, seed=1, step=0):
    """Of images whose pixels say where they are, and of their twins."""
    places = tf.reshape(tf.range(7.0 * 9.0 * 2.0), [1, 7, 9, 2])
    images = tf.tile(places, [300, 1, 1, 1])
    return [
        found.numpy()
        for found in crop_pairs(images, -images, side, seed, tf.constant(step))
    ]


def test_a_crop_is_a_square_of_both_images():
    clean, adversarial = crops(3)
    assert clean.shape == (300, 3, 3, 2)
    np.testing.assert_array_equal(adversarial, -clean)
    first = clean[:, 0, 0, 0] / 2
    rows, columns = np.divmod(first, 9)
    expected = (
        18 * (rows[:, None] + np.arange(3))[:, :, None, None]
        + 2 * (columns[:, None] + np.arange(3))[:, None, :, None]
        + np.arange(2)
    )
    np.testing.assert_array_equal(clean, expected)
    # Everywhere, in one direction whatever the other.
    assert len(set(zip(rows, columns, strict=True))) == 5 * 7


def test_a_crop_may_have_one_side_of_the_images():
    clean, _ = crops(7)
    np.testing.assert_array_equal(clean[:, 0, 0, 0] // 18, 0)
    assert set(clean[:, 0, 0, 0] / 2) == {0, 1, 2}


def test_seed_and_step_determine_the_crops():
    np.testing.assert_array_equal(crops(3), crops(3))
    assert (crops(3)[0] != crops(3, step=1)[0]).any()
    assert (crops(3)[0] != crops(3, seed=2)[0]).any()


def noise(fraction, variance=0.01, seed=1, step=0):
    return noise_some(
        CLEAN, ADVERSARIAL, fraction, variance, seed, tf.constant(step)
    ).numpy()


def replaced(images):
    return (images != 0.0).any(axis=(1, 2, 3))


def test_a_fraction_of_the_images_is_replaced():
    assert not replaced(noise(0.0)).any()
    assert replaced(noise(1.0)).all()
    # Binomial: 400 draws have a standard deviation of 0.02.
    assert replaced(noise(0.25)).mean() == pytest.approx(0.25, abs=0.08)


def test_variances_are_spread_from_zero_to_the_largest():
    variances = noise(1.0, variance=0.01).var(axis=(1, 2, 3))
    # Of 64 values each: a relative error of 0.18.
    assert variances.mean() == pytest.approx(0.005, rel=0.1)
    assert variances.min() < 0.001
    assert 0.008 < variances.max() < 0.016
    assert np.ptp(noise(1.0, variance=0.0)) == 0.0


def test_noise_stays_in_the_box():
    images = noise(1.0, variance=1.0)
    assert (images.min(), images.max()) == (0.0, 1.0)


def test_seed_and_step_determine_the_noise():
    np.testing.assert_array_equal(noise(0.5), noise(0.5))
    assert (noise(0.5) != noise(0.5, step=1)).any()
    assert (noise(0.5) != noise(0.5, seed=2)).any()


# Changed up in the left half, down in the right one, and not in the middle.
DIRECTIONS = np.zeros((8, 8, 1), np.float32)
DIRECTIONS[:, :3], DIRECTIONS[:, 5:] = 0.1, -0.1


def sparse(fraction, density, seed=1, step=0):
    return sparsify_some(
        CLEAN, CLEAN + DIRECTIONS, fraction, density, seed, tf.constant(step)
    ).numpy()


def test_a_fraction_of_the_perturbations_is_made_sparse():
    def kept(images):
        return np.isclose(images, 0.5 + DIRECTIONS).all(axis=(1, 2, 3))

    assert kept(sparse(0.0, 0.1)).all()
    assert not kept(sparse(1.0, 0.1)).any()
    assert kept(sparse(0.25, 0.1)).mean() == pytest.approx(0.75, abs=0.08)


def test_a_sparse_perturbation_goes_far_in_its_own_direction():
    change = sparse(1.0, 1.0) - 0.5
    is_changed = change != 0.0
    np.testing.assert_array_equal(
        np.sign(change)[is_changed],
        np.broadcast_to(np.sign(DIRECTIONS), change.shape)[is_changed],
    )
    # From 0.5 any step of at least 0.5 ends at the box.
    np.testing.assert_array_equal(np.abs(change[is_changed]), 0.5)


def test_the_share_of_positions_is_spread_from_zero_to_the_density():
    shares = (sparse(1.0, 0.4) != 0.5).mean(axis=(1, 2, 3))
    # 6 of 8 columns have a direction; U(0, 0.4) has the mean 0.2.
    assert shares.mean() == pytest.approx(0.75 * 0.2, rel=0.1)
    assert shares.min() < 0.02
    assert 0.25 < shares.max() < 0.45
    assert np.ptp(sparse(1.0, 0.0)) == 0.0


def test_seed_and_step_determine_the_positions():
    np.testing.assert_array_equal(sparse(0.5, 0.3), sparse(0.5, 0.3))
    assert (sparse(0.5, 0.3) != sparse(0.5, 0.3, step=1)).any()
    assert (sparse(0.5, 0.3) != sparse(0.5, 0.3, seed=2)).any()
