"""Tests of DenseNet40's layers."""

import keras
import numpy as np
import pytest

import models

# Feature maps that each dense layer is given: 16, and 12 more each time.
GIVEN = [16 + 12 * layer for layer in range(36)]


@pytest.fixture(scope="module")
def network():
    return models.target("densenet40", (32, 32, 3), 10, seed=0)


def test_it_has_a_million_weights(network):
    trainable = (
        9 * 3 * 16
        + sum(2 * given + 9 * given * 12 for given in GIVEN)
        # Transitions after 12 and 24 layers.
        + sum(2 * given + given * given for given in (160, 304))
        + 2 * 448
        + (448 + 1) * 10
    )
    assert trainable == 1_019_722
    averages = 2 * (sum(GIVEN) + 160 + 304 + 448)
    assert network.count_params() == trainable + averages


def test_depth_is_40(network):
    convolutions = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    assert len(convolutions) + 1 == 40
    assert [x.filters for x in convolutions].count(12) == 36
    assert not any(layer.use_bias for layer in convolutions)
    batch_norms = {
        (layer.momentum, layer.epsilon)
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert batch_norms == {(0.9, 1e-5)}


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("stem", (32, 32, 16)),
        ("block_1_layer_12_concat", (32, 32, 160)),
        ("transition_1_pool", (16, 16, 160)),
        ("block_2_layer_12_concat", (16, 16, 304)),
        ("transition_2_pool", (8, 8, 304)),
        ("block_3_layer_12_concat", (8, 8, 448)),
        ("final_relu", (8, 8, 448)),
        ("pool", (448,)),
    ],
)
def test_feature_maps_have_the_sizes_of_the_paper(network, layer, shape):
    assert network.get_layer(layer).output.shape == (None, *shape)


def test_dense_layers_pass_on_all_that_they_were_given():
    network = models.target("densenet40", (4, 4, 1), 3, seed=0)
    names = ["stem"] + [f"block_1_layer_{n}_conv" for n in range(1, 13)]
    names.append("block_1_layer_12_concat")
    outputs = [network.get_layer(name).output for name in names]
    images = np.random.default_rng(0).random((2, 4, 4, 1), np.float32)
    *parts, block = keras.Model(network.input, outputs)(images)
    np.testing.assert_array_equal(np.concatenate(parts, -1), block)


def test_transition_is_the_mean_of_four_projected_pixels():
    network = models.target("densenet40", (4, 4, 1), 3, seed=0)
    names = [f"transition_1_{part}" for part in ("relu", "pool")]
    outputs = [network.get_layer(name).output for name in names]
    images = np.random.default_rng(0).random((2, 4, 4, 1), np.float32)
    features, pooled = keras.Model(network.input, outputs)(images)
    kernel = network.get_layer("transition_1_conv").kernel.numpy()[0, 0]
    projected = features.numpy().astype(np.float64) @ kernel
    expected = projected.reshape(2, 2, 2, 2, 2, 160).mean((2, 4))
    np.testing.assert_allclose(pooled, expected, atol=1e-5)
