"""Learning rates, and precision that ends where it should."""

import keras
import numpy as np
import pytest

import models
from ape_gan_tf import choices, optimizers


def test_a_cosine_schedule_falls_to_zero():
    schedule = optimizers.learning_rate_schedule("cosine", 0.02, 100)
    rates = [float(schedule(step)) for step in (0, 25, 50, 100, 120)]
    angles = np.minimum([0, 25, 50, 100, 120], 100) * np.pi / 100
    expected = 0.02 * (1 + np.cos(angles)) / 2
    np.testing.assert_allclose(rates, expected, atol=1e-8)


def test_one_cycle_rises_in_a_line_and_falls_to_zero():
    schedule = optimizers.learning_rate_schedule("one_cycle", 0.02, 100)
    rates = [float(schedule(step)) for step in (0, 15, 30, 65, 100, 120)]
    expected = np.array([0.04, 0.52, 1.0, 0.5, 0.0, 0.0]) * 0.02
    np.testing.assert_allclose(rates, expected, atol=1e-8)


@pytest.mark.parametrize("total_steps", [0, 1, 2])
def test_one_cycle_of_few_steps_has_a_rate(total_steps):
    schedule = optimizers.learning_rate_schedule("one_cycle", 0.02, total_steps)
    rates = [float(schedule(step)) for step in range(max(total_steps, 1))]
    assert max(rates) == pytest.approx(0.02)


def test_a_constant_schedule_is_the_rate():
    assert optimizers.learning_rate_schedule("constant", 0.02, 100) == 0.02


def test_an_unknown_schedule_lists_the_known_ones():
    with pytest.raises(ValueError, match="schedule must be one of constant, c"):
        optimizers.learning_rate_schedule("linear", 0.02, 100)


def test_precision_is_given_back():
    before = keras.config.dtype_policy().name
    with optimizers.precision_scope("mixed_bfloat16"):
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == before
    with pytest.raises(KeyError), optimizers.precision_scope("mixed_float16"):
        raise KeyError
    assert keras.config.dtype_policy().name == before


def test_float16_scales_the_loss():
    variable = keras.Variable([1.0])
    for precision in choices.PRECISIONS:
        optimizer = optimizers.prepare(
            keras.optimizers.Adam(), [variable], precision
        )
        assert optimizer.built
        is_scaled = float(optimizer.scale_loss(1.0)) > 1.0
        assert is_scaled == (precision == "mixed_float16")


def test_flags_offer_what_there_is():
    assert choices.TARGETS == models.TARGETS
    assert set(choices.GENERATORS) == set(models.GENERATORS)
    for schedule in choices.SCHEDULES:
        optimizers.learning_rate_schedule(schedule, 0.1, 10)
    for precision in choices.PRECISIONS:
        with optimizers.precision_scope(precision):
            pass
