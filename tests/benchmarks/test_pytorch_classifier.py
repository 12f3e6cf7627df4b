"""The PyTorch twin must be the same classifier, or nothing is compared."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import models

torch = pytest.importorskip("torch")

# The smallest that the targets take, of two widths, and MNIST's.
SHAPES = {
    "A": (7, 6, 1),
    "B": (16, 17, 3),
    "C": (28, 28, 1),
    "D": (18, 16, 3),
}


@pytest.fixture
def twins(benchmarks):
    # Beside other tests, PyTorch's threads wait for each other for seconds.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module("pytorch_classifier")
    torch.set_num_threads(threads)


def random_images(shape, count=3):
    return np.random.default_rng(0).random((count, *shape), np.float32)


def classifier_of(model):
    """With biases that are not zero, or they could be left out."""
    keras.utils.set_random_seed(1)
    for weight in model.weights:
        if weight.name == "bias":
            weight.assign(keras.random.normal(weight.shape))
    return models.Classifier.from_keras(model)


def chain(*layers, shape=(5, 6, 2)):
    return keras.Sequential(
        [
            keras.Input(shape),
            *layers,
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def logits_of(twins, twin, images):
    return twin(twins.to_pytorch(images)).numpy()


@pytest.mark.parametrize("name", list(SHAPES))
def test_the_papers_targets_have_the_same_logits(twins, name):
    shape = SHAPES[name]
    classifier = classifier_of(models.target(name, shape, 10, seed=0))
    images = random_images(shape)
    twin = twins.twin_of(classifier)
    expected = classifier.predict(images)
    found = logits_of(twins, twin, images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.1
    assert twins.check_same_logits(twin, classifier, images) < 1e-5


@pytest.mark.parametrize("name", list(SHAPES))
def test_mirrored_images_have_the_same_logits(twins, name):
    shape = SHAPES[name]
    classifier = classifier_of(models.target(name, shape, 10, seed=0))
    images = random_images(shape)
    found = logits_of(
        twins, twins.twin_of(classifier, mirrored=True), images[:, ::-1, ::-1]
    )
    np.testing.assert_allclose(found, classifier.predict(images), atol=1e-5)


def test_gradients_are_the_same(twins):
    classifier = classifier_of(models.target("C", (28, 28, 1), 10, seed=0))
    images = random_images((28, 28, 1), 2)
    with tf.GradientTape() as tape:
        batch = tf.constant(images)
        tape.watch(batch)
        lead = tf.reduce_sum(classifier(batch)[:, 3])
    expected = tape.gradient(lead, batch).numpy()
    batch = twins.to_pytorch(images).requires_grad_()
    twins.twin_of(classifier)(batch)[:, 3].sum().backward()
    found = twins.to_numpy(batch.grad)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(5, 6), (7, 4)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("window", [2, (3, 4)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_what_padding_adds_or_leaves_is_on_the_far_side(
    twins, size, stride, window, padding
):
    model = chain(
        keras.layers.Conv2D(4, window, stride, padding, activation="tanh"),
        keras.layers.MaxPooling2D(window, stride, "same"),
        shape=(*size, 2),
    )
    classifier = classifier_of(model)
    # Of negative features, a maximum with zeros around would show.
    images = random_images((*size, 2))
    twins.check_same_logits(twins.twin_of(classifier), classifier, images)
    turned = twins.twin_of(classifier, mirrored=True)
    found = logits_of(twins, turned, images[:, ::-1, ::-1])
    np.testing.assert_allclose(found, classifier.predict(images), atol=1e-5)


def test_activations_of_their_own_are_known(twins):
    model = chain(
        keras.layers.Conv2D(4, 2, use_bias=False),
        keras.layers.Activation("sigmoid"),
        keras.layers.Conv2D(4, 2),
        keras.layers.ReLU(),
        keras.layers.Dropout(0.5),
    )
    classifier = classifier_of(model)
    images = random_images((5, 6, 2))
    twins.check_same_logits(twins.twin_of(classifier), classifier, images)


def test_images_go_there_and_back(twins):
    images = random_images((5, 6, 2))
    there = twins.to_pytorch(images)
    assert tuple(there.shape) == (3, 2, 5, 6)
    assert there.is_contiguous()
    np.testing.assert_array_equal(twins.to_numpy(there), images)


def test_other_logits_are_refused(twins):
    classifier = classifier_of(chain())
    twin = twins.twin_of(classifier)
    images = random_images((5, 6, 2))
    with torch.no_grad():
        twin[-1].bias += 2e-4
    with pytest.raises(ValueError, match="to 0.0001, got a difference of 0.00"):
        twins.check_same_logits(twin, classifier, images)
    with torch.no_grad():
        twin[-1].bias[0] = float("nan")
    with pytest.raises(ValueError, match="difference of nan"):
        twins.check_same_logits(twin, classifier, images)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (keras.layers.BatchNormalization(name="norm"), "got norm, a Batch"),
        (
            keras.layers.Conv2D(2, 2, activation="elu", name="conv"),
            "activation of conv must be one of linear, relu.*got 'elu'",
        ),
        (
            keras.layers.Conv2D(2, 2, dilation_rate=2, name="conv"),
            r"dilation_rate of conv must be \(1, 1\).*got \(2, 2\)",
        ),
        (
            keras.layers.ReLU(max_value=6.0, name="relu6"),
            "max_value of relu6 must be None.*got 6.0",
        ),
    ],
)
def test_what_the_twin_does_not_have_is_refused(twins, layer, message):
    with pytest.raises(ValueError, match=message):
        twins.twin_of(classifier_of(chain(layer)))


def test_a_function_has_no_twin(twins):
    function = models.Classifier.from_callable(
        lambda images: images[:, 0, 0],
        image_shape=(4, 4, 3),
        num_classes=3,
        fingerprint="corner",
    )
    with pytest.raises(ValueError, match="must be a Keras model, got"):
        twins.twin_of(function)
