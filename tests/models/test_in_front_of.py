"""A purifier and a Keras classifier as one Keras model."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import models

SHAPE = (4, 6, 3)
LOSS = "sparse_categorical_crossentropy"


def purifying_model(shape=SHAPE, name="cleaner"):
    """Convolutions around a batch normalisation that does something."""
    keras.utils.set_random_seed(1)
    images = keras.Input(shape, name="images")
    features = keras.layers.Conv2D(4, 3, padding="same")(images)
    features = keras.layers.BatchNormalization(name="norm")(features)
    purified = keras.layers.Conv2D(
        shape[2], 3, padding="same", activation="sigmoid"
    )(features)
    model = keras.Model(images, purified, name=name)
    scale, offset, *_ = model.get_layer("norm").get_weights()
    mean = np.float32([0.2, 0.3, -0.1, 0.4])
    variance = np.float32([0.5, 2.0, 0.1, 0.3])
    model.get_layer("norm").set_weights([scale, offset, mean, variance])
    return model


def classifying_model(shape=SHAPE, name="target", activation=None, **options):
    keras.utils.set_random_seed(2)
    images = keras.Input(shape, name="pixels", **options)
    features = keras.layers.Conv2D(5, 2, activation="tanh")(images)
    features = keras.layers.GlobalAveragePooling2D()(features)
    outputs = keras.layers.Dense(3, activation=activation, name="dense")
    return keras.Model(images, outputs(features), name=name)


def some_images(shape=SHAPE, count=5):
    random = np.random.default_rng(0)
    return random.random((count, *shape), dtype=np.float32)


@pytest.fixture
def purifier():
    return models.Purifier.from_keras(purifying_model())


@pytest.fixture
def classifier():
    return classifying_model()


@pytest.fixture
def images():
    return some_images()


def resized(images, height, width):
    """Bilinear, between the centres of pixels, in float64."""

    def positions(size, new):
        centres = (np.arange(new) + 0.5) * size / new - 0.5
        centres = np.clip(centres, 0, size - 1)
        low = np.minimum(centres.astype(int), max(size - 2, 0))
        return low, np.minimum(low + 1, size - 1), centres - low

    top, bottom, share = positions(images.shape[1], height)
    images = images.astype(np.float64)
    share = share[:, None, None]
    images = images[:, top] * (1 - share) + images[:, bottom] * share
    left, right, share = positions(images.shape[2], width)
    share = share[:, None]
    return images[:, :, left] * (1 - share) + images[:, :, right] * share


def by_hand(purifier, classifier, images, value_range=(0, 1), sizes=None):
    """The chain, step by step; sizes of the purifier and the classifier."""
    low, high = value_range
    pixels = (images.astype(np.float64) - low) / (high - low)
    first, second = sizes or (None, None)
    if first:
        pixels = resized(pixels, *first)
    # Not `predict`, so that the mode is what is said here.
    purified = purifier.keras_model(pixels.astype(np.float32), training=False)
    pixels = purified.numpy()
    if second:
        pixels = resized(pixels, *second)
    return classifier(pixels * (high - low) + low, training=False).numpy()


def layer_names(model):
    return [layer.name for layer in model.layers]


# What it computes


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_images_go_through_the_purifier_and_then_the_classifier(
    purifier, images, activation
):
    classifier = classifying_model(activation=activation)
    model = purifier.in_front_of(classifier)
    expected = by_hand(purifier, classifier, images)
    for batch_size in (2, 5):
        found = model.predict(images, batch_size=batch_size, verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected - classifier(images)).max() > 1e-3
    assert model.name == "target_behind_cleaner"
    assert purifier.in_front_of(classifier, name="both").name == "both"
    # Layers that would do nothing are not there.
    assert layer_names(model) == ["images", "cleaner", "target"]
    assert model.get_layer("target") is classifier


@pytest.mark.parametrize("value_range", [(0, 255), (-1, 1), (-3.0, 5.5)])
def test_another_range_is_taken_and_handed_on(
    purifier, classifier, images, value_range
):
    low, high = value_range
    images = images * np.float32(high - low) + np.float32(low)
    model = purifier.in_front_of(classifier, value_range=value_range)
    found = model.predict(images, verbose=0)
    expected = by_hand(purifier, classifier, images, value_range)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_bytes_are_taken(purifier, classifier):
    images = (some_images() * 255).astype(np.uint8)
    model = purifier.in_front_of(
        classifier, value_range=(0, 255), dtype="uint8"
    )
    assert model.input.dtype == "uint8"
    expected = by_hand(purifier, classifier, images, (0, 255))
    found = model.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_classifier_that_rescales_inside_gets_its_own_range(purifier):
    pixels = keras.Input(SHAPE, name="pixels")
    unit = keras.layers.Rescaling(1 / 255)(pixels)
    inner = classifying_model(name="inner")
    classifier = keras.Model(pixels, inner(unit), name="target")
    images = (some_images() * 255).astype(np.uint8)
    model = purifier.in_front_of(
        classifier, value_range=(0, 255), dtype="uint8"
    )
    expected = by_hand(purifier, inner, images / np.float32(255))
    found = model.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("image_size", "classifier_size", "sizes"),
    [
        ((4, 6), (8, 9), (None, (8, 9))),
        ((8, 9), (8, 9), ((4, 6), (8, 9))),
        ((3, 11), (7, 5), ((4, 6), (7, 5))),
        ((9, 7), (4, 6), ((4, 6), None)),
        # What takes any size gets that of the images.
        ((9, 7), (None, None), ((4, 6), (9, 7))),
        ((4, 6), (None, None), (None, None)),
    ],
)
def test_sizes_are_fitted_where_they_differ(
    purifier, image_size, classifier_size, sizes
):
    images = some_images((*image_size, 3))
    classifier = classifying_model((*classifier_size, 3))
    model = purifier.in_front_of(
        classifier, image_shape=(*image_size, 3), resize=True
    )
    expected = by_hand(purifier, classifier, images, sizes=sizes)
    found = model.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    resizings = [size for size in sizes if size]
    assert len(model.layers) == 3 + len(resizings)


def test_by_default_sizes_are_the_classifiers(purifier):
    assert purifier.image_shape == (4, 6, 3)
    model = purifier.in_front_of(classifying_model((8, 8, 3)), resize=True)
    assert model.input_shape == (None, 8, 8, 3)


def test_grey_images_work(images):
    shape = (4, 6, 1)
    purifier = models.Purifier.from_keras(purifying_model(shape))
    classifier = classifying_model(shape)
    found = purifier.in_front_of(classifier).predict(images[..., :1], verbose=0)
    expected = by_hand(purifier, classifier, images[..., :1])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def nested():
    return models.Purifier.from_keras(
        purifying_model((None, None, 3)), image_shape=SHAPE
    )


def stacked():
    layers = [keras.Input(SHAPE), purifying_model()]
    return models.Purifier.from_keras(keras.Sequential(layers, name="stack"))


def frozen():
    model = purifying_model()
    model.get_layer("norm").trainable = False
    return models.Purifier.from_keras(model)


@pytest.mark.parametrize("make", [nested, stacked, frozen])
def test_purifiers_of_every_kind_are_copied(classifier, images, make):
    purifier = make()
    model = purifier.in_front_of(classifier)
    np.testing.assert_allclose(
        model(images, training=True),
        by_hand(purifier, classifier, images),
        atol=1e-6,
    )
    assert len(model.trainable_weights) == len(classifier.weights)


def test_the_purifier_stays_in_inference_mode(purifier, classifier, images):
    model = purifier.in_front_of(classifier)
    expected = by_hand(purifier, classifier, images)
    # Batch statistics would show.
    np.testing.assert_allclose(
        model(images, training=True), expected, atol=1e-6
    )


def test_fit_trains_the_classifier_alone(purifier, images):
    classifier = classifying_model(activation="softmax")
    classifier.compile(keras.optimizers.SGD(1.0), loss=LOSS)
    model = purifier.in_front_of(classifier)
    labels = np.array([0, 1, 2, 1, 0])
    kernel, bias = classifier.get_layer("dense").get_weights()
    weights = purifier.keras_model.get_weights()
    probabilities = by_hand(purifier, classifier, images)
    model.fit(images, labels, verbose=0)
    # The gradient of the bias under a softmax, in closed form.
    step = (probabilities - np.eye(3)[labels]).mean(axis=0)
    found = classifier.get_layer("dense").get_weights()
    np.testing.assert_allclose(found[1], bias - step, atol=1e-5)
    assert np.abs(found[0] - kernel).max() > 0
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        by_hand(purifier, classifier, images),
        atol=1e-6,
    )
    # The purifier is not touched, and may be trained further.
    assert all(layer.trainable for layer in purifier.keras_model.layers)
    for old, new in zip(
        weights, purifier.keras_model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(old, new)


def test_gradients_are_those_of_the_two_models(purifier, classifier, images):
    value_range = (0.0, 255.0)
    model = purifier.in_front_of(classifier, value_range=value_range)
    # Of 255 times what the purifier is given.
    pixels = tf.constant(images)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(pixels)
        together = tf.reduce_sum(model(pixels * 255)[:, 1])
        purified = purifier.keras_model(pixels, training=False)
        chained = tf.reduce_sum(classifier(purified * 255)[:, 1])
    expected = tape.gradient(chained, pixels).numpy()
    found = tape.gradient(together, pixels).numpy()
    assert np.abs(expected).max() > 1e-3
    # Two compilations round differently, oneDNN's by this much.
    np.testing.assert_allclose(
        found, expected, atol=1e-4 * np.abs(expected).max()
    )


def test_gradients_go_through_resizing(purifier, images):
    model = purifier.in_front_of(
        classifying_model((8, 8, 3)), image_shape=(4, 5, 3), resize=True
    )
    pixels = tf.constant(some_images((4, 5, 3)))
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        loss = tf.reduce_sum(model(pixels)[:, 0])
    assert np.abs(tape.gradient(loss, pixels)).min() > 0


def test_half_precision_elsewhere_is_left_alone(purifier, classifier, images):
    expected = by_hand(purifier, classifier, images * 255, (0, 255))
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = purifier.in_front_of(classifier, value_range=(0, 255))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    found = model.predict(images * 255, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert model.input.dtype == "float32"


# The classifier


def test_the_classifier_is_left_as_it_is(purifier, images):
    classifier = classifying_model(activation="softmax")
    classifier.compile("adam", loss=LOSS)
    optimizer = classifier.optimizer
    config = classifier.get_config()
    weights = classifier.get_weights()
    outputs = classifier.predict(images, verbose=0)
    purifier.in_front_of(classifier)
    assert classifier.get_config() == config
    assert classifier.optimizer is optimizer
    np.testing.assert_array_equal(
        classifier.predict(images, verbose=0), outputs
    )
    for old, new in zip(weights, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def sequential(with_input):
    layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
    if with_input:
        layers.insert(0, keras.Input(SHAPE))
    return keras.Sequential(layers, name="in_a_row")


@pytest.mark.parametrize("with_input", [True, False])
@pytest.mark.parametrize("is_called", [True, False])
def test_a_sequential_classifier_works(purifier, images, with_input, is_called):
    classifier = sequential(with_input)
    if is_called:
        classifier(images[:2])  # The size of this batch must not stay.
    model = purifier.in_front_of(classifier)
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        by_hand(purifier, classifier, images),
        atol=1e-6,
    )


@pytest.mark.parametrize("structure", [list, dict])
def test_the_one_input_may_be_in_a_list_or_a_dictionary(
    purifier, images, structure
):
    inner = classifying_model()
    pixels = keras.Input(SHAPE, name="pixels")
    inputs = [pixels] if structure is list else {"pixels": pixels}
    classifier = keras.Model(inputs, inner(pixels), name="target")
    model = purifier.in_front_of(classifier)
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        by_hand(purifier, inner, images),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "name", ["cleaner", "images", "to_unit_range", "resize_to_purifier"]
)
def test_names_do_not_collide(purifier, images, tmp_path, name):
    classifier = classifying_model((9, 9, 3), name=name)
    model = purifier.in_front_of(
        classifier, value_range=(-1, 1), image_shape=(5, 5, 3), resize=True
    )
    assert len(set(layer_names(model))) == len(model.layers) == 7
    images = some_images((5, 5, 3)) * 2 - 1
    expected = by_hand(
        purifier, classifier, images, (-1, 1), sizes=((4, 6), (9, 9))
    )
    np.testing.assert_allclose(
        model.predict(images, verbose=0), expected, atol=1e-5
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again.predict(images, verbose=0), expected, atol=1e-5
    )
    # Either model is still called what it was called.
    assert (purifier.name, classifier.name) == ("cleaner", name)


# Compiled


def evaluated(model, images, labels):
    return model.evaluate(images, labels, verbose=0, return_dict=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": LOSS, "metrics": ["accuracy"]},
        {"loss": {"dense": LOSS}, "metrics": {"dense": ["accuracy"]}},
        {
            "loss": {"dense": keras.losses.SparseCategoricalCrossentropy()},
            "loss_weights": {"dense": 0.5},
            "weighted_metrics": ["accuracy"],
        },
    ],
    ids=["plain", "by name", "weighted"],
)
def test_what_is_compiled_is_compiled_again(purifier, images, settings):
    classifier = classifying_model(activation="softmax")
    classifier.compile(keras.optimizers.SGD(0.25), **settings)
    labels = np.array([0, 1, 2, 1, 0])
    model = purifier.in_front_of(classifier)
    found = evaluated(model, images, labels)
    purified = purifier.predict(images)
    assert found == pytest.approx(evaluated(classifier, purified, labels))
    # And by hand.
    probabilities = by_hand(purifier, classifier, images)
    correct = probabilities.argmax(axis=1) == labels
    assert found["accuracy"] == pytest.approx(correct.mean())
    loss = -np.log(probabilities[np.arange(5), labels]).mean()
    weight = 0.5 if "loss_weights" in settings else 1.0
    assert found["loss"] == pytest.approx(weight * loss, rel=1e-4)
    assert model.optimizer is not classifier.optimizer
    assert float(model.optimizer.learning_rate) == 0.25


def test_an_output_in_a_dictionary_keeps_its_loss(purifier, images):
    pixels = keras.Input(SHAPE)
    outputs = {"label": classifying_model(activation="softmax")(pixels)}
    classifier = keras.Model(pixels, outputs, name="outer")
    classifier.compile("sgd", loss={"label": LOSS})
    labels = {"label": np.array([0, 1, 2, 1, 0])}
    found = evaluated(purifier.in_front_of(classifier), images, labels)
    purified = purifier.predict(images)
    assert found == pytest.approx(evaluated(classifier, purified, labels))


def test_what_is_not_compiled_stays_so(purifier, classifier):
    assert not purifier.in_front_of(classifier).compiled


def mean_square(labels, outputs):
    return keras.ops.mean(outputs**2, axis=-1)


@pytest.mark.parametrize(
    "loss", [mean_square, lambda y, x: keras.ops.mean(x**2, axis=-1)]
)
def test_what_keras_cannot_copy_is_warned_of(
    purifier, classifier, images, loss
):
    classifier.compile("sgd", loss=loss)
    with pytest.warns(UserWarning) as caught:
        model = purifier.in_front_of(classifier)
    (warning,) = caught
    assert "target_behind_cleaner is not compiled, since Keras cannot" in str(
        warning.message
    )
    assert warning.filename == __file__
    assert not model.compiled
    model.compile("sgd", loss=loss)
    found = model.evaluate(images, np.zeros(5), verbose=0)
    expected = np.mean(by_hand(purifier, classifier, images) ** 2)
    assert found == pytest.approx(expected, rel=1e-4)


# Saved


LOADS = """
import sys
import numpy as np
import keras
path, images, outputs = sys.argv[1:]
model = keras.models.load_model(path)
np.save(outputs, model.predict(np.load(images), verbose=0))
assert model.compiled and model.loss == "sparse_categorical_crossentropy"
ours = {"ape_gan_tf", "models", "attacks", "data"} & set(sys.modules)
assert not ours, ours
"""


def everything(purifier):
    """A model with every adapter in it, its images and their answers."""
    classifier = classifying_model((9, 7, 3), activation="softmax")
    classifier.compile("sgd", loss=LOSS, metrics=["accuracy"])
    model = purifier.in_front_of(
        classifier,
        value_range=(0, 255),
        dtype="uint8",
        image_shape=(5, 8, 3),
        resize=True,
    )
    images = (some_images((5, 8, 3)) * 255).astype(np.uint8)
    expected = by_hand(
        purifier, classifier, images, (0, 255), sizes=((4, 6), (9, 7))
    )
    return model, images, expected


def test_a_saved_model_loads_where_this_package_is_not(purifier, tmp_path):
    model, images, expected = everything(purifier)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    names = ("model.keras", "images.npy", "outputs.npy")
    paths = [str(tmp_path / name) for name in names]
    # -I: neither this folder nor PYTHONPATH is searched.
    subprocess.run(
        [sys.executable, "-I", "-c", LOADS, *paths], check=True, timeout=120
    )
    found = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(
        found, model.predict(images, verbose=0), atol=1e-6
    )


def test_a_loaded_model_still_keeps_the_purifier_in_inference_mode(
    purifier, tmp_path
):
    model, images, expected = everything(purifier)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again(images, training=True), expected, atol=1e-4
    )


def test_an_exported_model_answers_the_same(purifier, tmp_path):
    model, images, expected = everything(purifier)
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(loaded.serve(images), expected, atol=1e-4)
    np.testing.assert_allclose(
        loaded.serve(images[:2]), expected[:2], atol=1e-4
    )
    signature = loaded.signatures["serving_default"]
    found = signature(images=tf.constant(images))["output_0"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


# What does not fit


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float16"}, "dtype must be one of float32, uint8, got 'fl"),
        (
            {"dtype": "uint8"},
            r"value_range must be \(0, 255\) where dtype is uint8, got \(0.0, ",
        ),
        (
            {"dtype": "uint8", "value_range": (-1, 1)},
            r"value_range must be \(0, 255\) .*, got \(-1, 1\)",
        ),
        ({"value_range": (1, 0)}, r"be \(lowest, highest\), got \(1, 0\)"),
        ({"value_range": (0, 0)}, r"be \(lowest, highest\), got \(0, 0\)"),
        ({"value_range": (0, np.inf)}, r"value_range must be \(lowest"),
        ({"value_range": (np.nan, 1)}, r"value_range must be \(lowest"),
        ({"value_range": 255}, "value_range must be .*, got 255"),
        ({"value_range": "01x"}, "value_range must be .*, got '01x'"),
        ({"value_range": "01"}, "value_range must be .*, got '01'"),
        (
            {"image_shape": (4, 6, 1), "resize": True},
            r"image_shape must have the 3 channels of purifier cleaner, got \(",
        ),
        (
            {"image_shape": (8, 6, 3)},
            r"image_shape must be \(4, 6, 3\), the shape of purifier cleaner, "
            r"got \(8, 6, 3\); pass resize=True",
        ),
        ({"image_shape": (4, 6)}, r"image_shape must be \(height, width, ch"),
        ({"image_shape": (4, 0, 3)}, "the width in image_shape must be a pos"),
    ],
    ids=str,
)
def test_an_argument_that_does_not_fit_is_named(
    purifier, classifier, settings, message
):
    with pytest.raises(ValueError, match=message):
        purifier.in_front_of(classifier, **settings)


def vector_classifier():
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(3)(inputs)
    return keras.Model(inputs, outputs, name="target")


def two_inputs():
    pair = [keras.Input(SHAPE), keras.Input(SHAPE)]
    outputs = keras.layers.Flatten()(pair[0] + pair[1])
    return keras.Model(pair, outputs, name="target")


def two_outputs():
    inner = classifying_model()
    return keras.Model(inner.input, [inner.output] * 2, name="target")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "resnet", "classifier must be a keras.Model, got str"),
        (
            lambda: keras.layers.Dense(3),
            "classifier must be a keras.Model, got Dense",
        ),
        (
            lambda: models.Classifier.from_keras(classifying_model()),
            "classifier must be a keras.Model, got Classifier",
        ),
        (two_inputs, "target must have one input and one output, got 2 and 1"),
        (two_outputs, "target must have one input and one output, got 1 and 2"),
        (
            lambda: classifying_model((None, None, 1)),
            "the input of classifier target must have the 3 channels of "
            r"purifier cleaner, got \(4, 6, 1\)",
        ),
        (
            lambda: classifying_model((4, 7, 3)),
            r"the input of classifier target must be \(4, 6, 3\), the shape "
            r"of purifier cleaner, got \(4, 7, 3\); pass resize=True",
        ),
        (vector_classifier, r"target must take images \[B, H, W, C\], got an"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused(purifier, make, message):
    with pytest.raises(ValueError, match=message):
        purifier.in_front_of(make())


def test_a_classifier_of_integers_is_refused(purifier):
    pixels = keras.Input(SHAPE, dtype="uint8", name="pixels")
    unit = keras.layers.Rescaling(1 / 255)(pixels)
    outputs = classifying_model(name="inner")(unit)
    classifier = keras.Model(pixels, outputs, name="target")
    with pytest.raises(
        ValueError,
        match="target must take floating point images, got uint8: purified "
        "images rounded to integers have no gradient",
    ):
        purifier.in_front_of(classifier, value_range=(0, 255), dtype="uint8")


def test_a_purifier_that_is_no_keras_model_is_refused(classifier):
    purifier = models.Purifier.from_callable(
        lambda x: 1 - x, image_shape=SHAPE, fingerprint="negative"
    )
    with pytest.raises(
        ValueError, match="must be a Keras model, .* got a SavedModel or a fun"
    ):
        purifier.in_front_of(classifier)


class Uncopied(keras.Model):
    """A subclass that Keras cannot make again."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, images):
        return self.function(images)


def test_a_purifier_that_keras_cannot_copy_is_refused(classifier):
    purifier = models.Purifier.from_keras(
        Uncopied(lambda x: 1 - x), image_shape=SHAPE
    )
    with pytest.raises(ValueError, match="must be a model that Keras can copy"):
        purifier.in_front_of(classifier)
