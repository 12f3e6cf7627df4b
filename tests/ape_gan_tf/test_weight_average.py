"""The moving average of weights, against its closed form."""

import numpy as np
import tensorflow as tf

from ape_gan_tf.weight_average import WeightAverage


def test_it_is_the_weighted_sum_of_all_weights_so_far():
    weight = tf.Variable([1.0, -2.0])
    average = WeightAverage([weight], decay=0.5)
    history = [np.array([1.0, -2.0])]
    expected = history[0]
    for count in range(1, 12):
        history.append(history[0] * (1 + count) ** 2)
        weight.assign(history[-1].astype(np.float32))
        average.update()
        decay = min(0.5, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * history[-1]
    np.testing.assert_allclose(average.values()[0], expected, rtol=1e-6)
    # From the eighth update on, (1 + n) / (10 + n) is above one half.
    assert decay == 0.5
    assert int(average.updates) == 11


def test_weights_that_stay_are_their_own_average():
    weight = tf.Variable([0.1, 3.0])
    average = WeightAverage([weight], decay=0.999)
    for _ in range(5):
        average.update()
    np.testing.assert_array_equal(average.values()[0], weight.numpy())


def test_half_precision_is_averaged_in_float32():
    weight = tf.Variable(tf.constant([1.0], tf.bfloat16))
    average = WeightAverage([weight], decay=0.999)
    weight.assign(tf.constant([2.0], tf.bfloat16))
    average.update()
    assert average.values()[0].dtype == np.float32
    np.testing.assert_allclose(average.values()[0], [1 + 9 / 11], rtol=1e-6)
