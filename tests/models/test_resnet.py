"""Tests of ResNet18's layers."""

import keras
import numpy as np
import pytest

import models


@pytest.fixture(scope="module")
def network():
    return models.target("resnet18", (32, 32, 3), 10, seed=0)


@pytest.fixture(scope="module")
def evaluate():
    """Evaluates layers of a small network on random images."""
    small = models.target("resnet18", (8, 8, 3), 10, seed=0)
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    # Batch norm with other averages than 0 and 1.
    small(images, training=True)

    def outputs(*names):
        layers = [small.get_layer(name).output for name in names]
        return [x.numpy() for x in keras.Model(small.input, layers)(images)]

    outputs.network = small
    return outputs


def test_it_has_11_million_weights(network):
    def stage(given, width):
        first = 9 * given * width + 9 * width * width + 4 * width
        second = 2 * 9 * width * width + 4 * width
        shortcut = given * width + 2 * width if given != width else 0
        return first + second + shortcut

    trainable = (
        9 * 3 * 64
        + 2 * 64
        + stage(64, 64)
        + stage(64, 128)
        + stage(128, 256)
        + stage(256, 512)
        + (512 + 1) * 10
    )
    assert trainable == 11_173_962
    # Of the stem, four convolutions a stage and three shortcuts.
    averaged = 64 + 4 * (64 + 128 + 256 + 512) + 128 + 256 + 512
    assert network.count_params() == trainable + 2 * averaged


def test_depth_is_18(network):
    convolutions = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    shortcuts = [x for x in convolutions if x.kernel_size == (1, 1)]
    assert [x.name for x in shortcuts] == [
        f"stage_{stage}_block_1_shortcut_conv" for stage in (2, 3, 4)
    ]
    assert len(convolutions) - len(shortcuts) + 1 == 18
    assert not any(layer.use_bias for layer in convolutions)
    batch_norms = [
        (layer.momentum, layer.epsilon)
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert batch_norms == [(0.9, 1e-5)] * len(convolutions)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("stem_relu", (32, 32, 64)),
        ("stage_1_block_2_relu", (32, 32, 64)),
        ("stage_2_block_2_relu", (16, 16, 128)),
        ("stage_3_block_2_relu", (8, 8, 256)),
        ("stage_4_block_2_relu", (4, 4, 512)),
        ("pool", (512,)),
    ],
)
def test_feature_maps_have_the_usual_sizes(network, layer, shape):
    assert network.get_layer(layer).output.shape == (None, *shape)


def test_initial_weights_are_he_normal(network):
    kernel = network.get_layer("stage_4_block_2_2_conv").kernel.numpy()
    assert kernel.shape == (3, 3, 512, 512)
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 512)) ** 0.5, rtol=0.01)
    np.testing.assert_allclose(kernel.mean(), 0.0, atol=1e-4)


def test_a_block_adds_its_input(evaluate):
    before, change, after = evaluate(
        "stem_relu", "stage_1_block_1_2_batch_norm", "stage_1_block_1_relu"
    )
    np.testing.assert_allclose(
        after, np.maximum(before + change, 0.0), rtol=1e-6
    )


def test_a_shortcut_projects_every_second_pixel(evaluate):
    before, shortcut, change, after = evaluate(
        "stage_1_block_2_relu",
        "stage_2_block_1_shortcut_conv",
        "stage_2_block_1_2_batch_norm",
        "stage_2_block_1_relu",
    )
    layer = evaluate.network.get_layer("stage_2_block_1_shortcut_conv")
    projected = before[:, ::2, ::2].astype(np.float64) @ layer.kernel.numpy()[0]
    np.testing.assert_allclose(shortcut, projected, rtol=1e-3, atol=1e-5)
    norm = evaluate.network.get_layer("stage_2_block_1_shortcut_batch_norm")
    gamma, beta, mean, variance = (x.numpy() for x in norm.weights)
    normalised = gamma * (projected - mean) / np.sqrt(variance + 1e-5) + beta
    np.testing.assert_allclose(
        after, np.maximum(normalised + change, 0.0), rtol=1e-3, atol=1e-4
    )
