"""Random numbers of an image depend on the seed and its position alone."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data import randomness


def draws(name, indices, seed=1, **options):
    if name == "uniform":
        return randomness.per_image_uniform(
            seed, indices, shape=(3,), **options
        )
    if name == "normal":
        return randomness.per_image_normal(seed, indices, (3,), 2.0, **options)
    return randomness.per_image_integers(
        seed, indices, -2, 5, shape=(3,), **options
    )


KINDS = ("uniform", "normal", "integers")


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_gets_the_same_numbers_in_any_batch(kind):
    together = draws(kind, tf.range(10)).numpy()
    reverse = draws(kind, tf.range(9, -1, -1)).numpy()
    alone = draws(kind, np.array([7])).numpy()
    np.testing.assert_array_equal(reverse[::-1], together)
    np.testing.assert_array_equal(alone[0], together[7])


@pytest.mark.parametrize("kind", KINDS)
def test_seed_stream_and_image_change_the_numbers(kind):
    numbers = draws(kind, tf.range(50)).numpy()
    other_seed = draws(kind, tf.range(50), seed=2).numpy()
    other_stream = draws(kind, tf.range(50), stream="starts").numpy()
    assert np.mean(numbers == other_seed) < 0.3
    assert np.mean(numbers == other_stream) < 0.3
    assert len(np.unique(numbers, axis=0)) > 40


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", ["uniform", "integers"])
def test_graph_and_xla_draw_the_same_numbers(kind, compiled):
    @tf.function(jit_compile=compiled)
    def traced(indices):
        return draws(kind, indices)

    np.testing.assert_array_equal(
        traced(tf.range(10)), draws(kind, tf.range(10))
    )


def test_normal_numbers_agree_under_xla():
    @tf.function(jit_compile=True)
    def traced(indices):
        return draws("normal", indices)

    np.testing.assert_allclose(
        traced(tf.range(10)),
        draws("normal", tf.range(10)),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_gets_no_numbers(kind):
    assert draws(kind, tf.zeros([0], tf.int64)).shape == (0, 3)


def test_many_shapes_are_no_retracing_to_warn_of(caplog):
    # TensorFlow warns twice of one piece of code, then never again. The same
    # source further down counts as another.
    source = Path(randomness.__file__).read_text(encoding="utf-8")
    fresh = {"__name__": "fresh"}
    exec(compile("\n" * 1000 + source, "fresh", "exec"), fresh)
    logger = tf.get_logger()
    logger.addHandler(caplog.handler)
    try:
        for side in range(20, 32):
            fresh["per_image_uniform"](0, [0, 1], shape=(side,))
    finally:
        logger.removeHandler(caplog.handler)
    assert not [each for each in caplog.messages if "retracing" in each]


def test_numbers_follow_their_distribution():
    uniform = randomness.per_image_uniform(
        3, tf.range(20), low=-1.0, high=3.0, shape=(1000,)
    ).numpy()
    assert -1.0 <= uniform.min() and uniform.max() < 3.0
    # The mean of 20,000 draws of deviation 4/sqrt(12) is good to 0.0082.
    assert uniform.mean() == pytest.approx(1.0, abs=0.04)
    assert uniform.std() == pytest.approx(4 / np.sqrt(12), abs=0.03)
    normal = randomness.per_image_normal(3, tf.range(20), (1000,), 2.0).numpy()
    assert normal.dtype == np.float32
    assert normal.mean() == pytest.approx(0.0, abs=0.07)
    assert normal.std() == pytest.approx(2.0, abs=0.05)
    # 4.55 % of a normal distribution lie outside two deviations.
    assert np.mean(np.abs(normal) > 4.0) == pytest.approx(0.0455, abs=0.008)
    integers = randomness.per_image_integers(
        3, tf.range(20), -2, 5, shape=(1000,)
    ).numpy()
    assert integers.dtype == np.int64
    shares = np.bincount(integers.ravel() + 2, minlength=7) / integers.size
    np.testing.assert_allclose(shares, 1 / 7, atol=0.012)


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match=r"high must be in \(3, .*got 3"):
        randomness.per_image_integers(1, tf.range(2), 3, 3)


@pytest.mark.parametrize("seed", [1.5, "1", None, True])
def test_a_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be an integer"):
        randomness.per_image_uniform(seed, tf.range(2))


def test_a_permutation_is_one_and_depends_on_seed_and_epoch():
    order = randomness.permutation(1, "order", 0, 100)
    np.testing.assert_array_equal(np.sort(order), np.arange(100))
    np.testing.assert_array_equal(
        order, randomness.permutation(1, "order", 0, 100)
    )
    for seed, stream, epoch in ((2, "order", 0), (1, "x", 0), (1, "order", 1)):
        other = randomness.permutation(seed, stream, epoch, 100)
        assert np.mean(order == other) < 0.1
