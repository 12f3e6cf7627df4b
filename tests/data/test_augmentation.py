"""Noise in the place of adversarial images."""

import numpy as np
import pytest
import tensorflow as tf

from data.augmentation import noise_some

CLEAN = tf.fill([400, 8, 8, 1], 0.5)
ADVERSARIAL = tf.zeros_like(CLEAN)


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
