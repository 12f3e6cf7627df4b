"""The same sums as one output at a time."""

import numpy as np
import pytest
import tensorflow as tf

from models.polynomial_products import multiply, smallest_batch


def one_by_one(outputs, kernel):
    batch, height, width, _ = outputs.shape
    _, rows, columns, channels = kernel.shape
    total = np.zeros((batch, height + rows - 1, width + columns - 1, channels))
    for row in range(height):
        for column in range(width):
            total[:, row : row + rows, column : column + columns] += np.einsum(
                "bf,fpqs->bpqs", outputs[:, row, column], kernel
            )
    return total


def drawn(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


@pytest.mark.parametrize(
    ("size", "side"),
    [
        ((5, 5), (3, 3)),
        ((3, 3), (5, 5)),
        ((1, 4), (2, 1)),
        ((2, 6), (2, 2)),
        ((1, 1), (1, 1)),
        ((7, 1), (1, 7)),
    ],
)
def test_it_is_the_sum_of_what_each_output_gives(size, side):
    outputs, kernel = drawn(3, *size, 4), drawn(4, *side, 5)
    found = multiply(tf.constant(outputs), tf.constant(kernel))
    np.testing.assert_allclose(
        found, one_by_one(outputs, kernel), rtol=1e-10, atol=1e-10
    )


def test_float32_rounds_a_little_more():
    outputs, kernel = drawn(3, 5, 5, 64), drawn(64, 3, 3, 32)
    expected = one_by_one(outputs, kernel)
    found = multiply(
        tf.constant(outputs, tf.float32), tf.constant(kernel, tf.float32)
    )
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 1e-5


def test_nothing_gives_nothing():
    """An image without a gradient gets none by rounding."""
    outputs = np.concatenate([np.zeros((1, 5, 5, 4)), drawn(1, 5, 5, 4)])
    found = multiply(
        tf.constant(outputs, tf.float32),
        tf.constant(drawn(4, 3, 3, 2), tf.float32),
    )
    assert not found[0].numpy().any() and found[1].numpy().all()


def test_the_batch_may_be_unknown_and_empty():
    outputs, kernel = drawn(3, 5, 5, 2), tf.constant(drawn(2, 3, 3, 4))
    compiled = tf.function(
        lambda outputs: multiply(outputs, kernel),
        input_signature=[tf.TensorSpec((None, 5, 5, 2), tf.float64)],
    )
    expected = one_by_one(outputs, kernel.numpy())
    np.testing.assert_allclose(compiled(tf.constant(outputs)), expected)
    assert compiled(tf.zeros((0, 5, 5, 2), tf.float64)).shape == (0, 7, 7, 4)


def multiplications(batch, output, kernel):
    """Of the definition, and of products of polynomials, by counting."""
    height, width, filters = output
    _, rows, columns, channels = kernel
    points = (height + rows - 1) * (width + columns - 1)
    plain = batch * height * width * rows * columns * filters * channels
    at_points = points * batch * filters * channels
    before = (
        points * filters * (batch * height * width + rows * columns * channels)
    )
    behind = points * points * batch * channels
    return plain, at_points + before + behind


def test_it_pays_from_where_half_of_the_multiplications_are_saved():
    # Target C's second convolution.
    output, kernel = (5, 5, 128), (128, 3, 3, 256)
    smallest = smallest_batch(output, kernel)
    assert smallest == 12
    for batch in (1, smallest - 1, smallest, 64):
        plain, ours = multiplications(batch, output, kernel)
        assert (ours < plain / 2) is (batch >= smallest)


@pytest.mark.parametrize(
    ("output", "kernel"),
    [
        # Nine points along either axis.
        ((5, 5, 128), (128, 5, 5, 256)),
        # Few channels: what goes before and after is more than is saved.
        ((5, 5, 4), (4, 3, 3, 4)),
        # No two patches overlap.
        ((1, 1, 128), (128, 5, 5, 128)),
    ],
)
def test_it_never_pays_where_there_is_little_to_multiply(output, kernel):
    assert smallest_batch(output, kernel) is None
