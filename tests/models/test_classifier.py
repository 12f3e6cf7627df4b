"""Tests of the wrapper around any classifier."""

import os
import warnings
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from models import classifier as classifier_module
from models import saved_model
from tests.models.strangers import (
    SHAPE,
    Linear,
    flat,
    gradient,
)

# The hot path


def test_logits_are_those_of_the_model(make_model, images):
    model = make_model()
    classifier = models.Classifier.from_keras(model)
    expected = model(images, training=False).numpy()
    logits = classifier(tf.constant(images))
    assert logits.dtype == tf.float32
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_allclose(
        tf.function(classifier)(tf.constant(images)), expected, atol=1e-6
    )
    assert classifier.image_shape == SHAPE
    assert classifier.num_classes == 4
    assert classifier.name == "small"
    assert classifier.keras_model is model
    assert classifier.base is None and classifier.purifier is None
    assert repr(classifier) == "Classifier('small', image_shape=(8, 6, 3))"


def test_hot_path_does_not_check_values(make_model):
    classifier = models.Classifier.from_keras(make_model())
    assert np.isnan(classifier(tf.fill((2, *SHAPE), np.nan))).all()
    assert np.isfinite(classifier(tf.fill((2, *SHAPE), 7.0))).all()


def test_gradient_is_that_of_the_model(make_model, images):
    model = make_model()
    classifier = models.Classifier.from_keras(model)
    expected = gradient(lambda x: model(x, training=False), images)
    np.testing.assert_allclose(gradient(classifier, images), expected, 1e-5)
    assert np.abs(expected).max() > 0


def test_half_precision_output_becomes_float32(images):
    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Flatten(dtype="float16")(inputs)
    outputs = keras.layers.Dense(3, dtype="float16")(outputs)
    classifier = models.Classifier.from_keras(keras.Model(inputs, outputs))
    assert classifier(tf.constant(images)).dtype == tf.float32


# predict


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_predict_is_the_same_in_any_batches(make_model, images, batch_size):
    classifier = models.Classifier.from_keras(make_model())
    logits = classifier.predict(images, batch_size=batch_size)
    assert isinstance(logits, np.ndarray) and logits.dtype == np.float32
    np.testing.assert_allclose(logits, classifier(images), atol=1e-6)


def test_predict_of_no_images_has_no_rows(make_model):
    classifier = models.Classifier.from_keras(make_model())
    assert classifier.predict(np.zeros((0, *SHAPE), np.float32)).shape == (0, 4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((2, *SHAPE)), "images must be float32 .* got dtype float64"),
        (np.zeros((2, *SHAPE), np.uint8), "got dtype uint8"),
        (np.full((2, *SHAPE), 1.5, np.float32), "images .* got values from"),
        (np.full((2, *SHAPE), np.nan, np.float32), "images .* NaN"),
        (np.zeros(SHAPE, np.float32), "images must have rank 4"),
        (np.zeros((2, 8, 8, 3), np.float32), "images must have .*8, 6, 3"),
    ],
)
def test_predict_checks_its_images(make_model, bad, message):
    classifier = models.Classifier.from_keras(make_model())
    with pytest.raises(ValueError, match=message):
        classifier.predict(bad)


def test_predict_checks_its_batch_size(make_model, images):
    classifier = models.Classifier.from_keras(make_model())
    with pytest.raises(ValueError, match="batch_size must be a positive"):
        classifier.predict(images, batch_size=0)


# Saving and loading


@pytest.fixture
def saved(make_model, tmp_path):
    classifier = models.Classifier.from_keras(make_model("softmax"))
    classifier.save(tmp_path / "classifier")
    return classifier, tmp_path / "classifier"


def test_save_writes_both_forms_with_two_endpoints(saved, images):
    _, path = saved
    assert os.listdir(path.parent) == ["classifier"]
    assert {"classifier.keras", "saved_model.pb"} <= set(os.listdir(path))
    loaded = tf.saved_model.load(str(path))
    assert set(loaded.signatures) == {"logits", "serving_default"}
    for count in (1, 7):
        for endpoint in loaded.signatures.values():
            outputs = endpoint(images=tf.constant(images[:count]))
            assert list(outputs) == ["logits"]
            assert outputs["logits"].shape == (count, 4)


@pytest.mark.parametrize("form", ["directory", "keras", "saved_model"])
def test_what_is_saved_loads_as_the_same(saved, images, form):
    classifier, path = saved
    again = {
        "directory": lambda: models.Classifier.load(path),
        "keras": lambda: models.Classifier.load(path / "classifier.keras"),
        "saved_model": lambda: models.Classifier.load(path, endpoint="logits"),
    }[form]()
    for count in (7, 2):
        np.testing.assert_allclose(
            again.predict(images[:count]),
            classifier.predict(images[:count]),
            atol=1e-6,
        )
    assert again.fingerprint == classifier.fingerprint
    assert again.name == "small"
    assert (again.keras_model is None) == (form == "saved_model")
    np.testing.assert_allclose(
        gradient(again, images), gradient(classifier, images), atol=1e-6
    )


def test_a_loaded_saved_model_can_be_saved_again(saved, tmp_path, images):
    classifier, path = saved
    first = models.Classifier.load(path, endpoint="serving_default")
    first.save(tmp_path / "second")
    second = models.Classifier.load(tmp_path / "second")
    assert second.keras_model is None
    assert second.fingerprint == classifier.fingerprint
    np.testing.assert_allclose(
        second.predict(images), classifier.predict(images), atol=1e-6
    )


def test_adapters_are_saved_with_a_keras_model(make_model, tmp_path, images):
    classifier = models.Classifier.from_keras(
        make_model(shape=(5, 5, 3)),
        value_range=(0, 255),
        image_shape=SHAPE,
        resize=True,
    )
    classifier.save(tmp_path / "c")
    for endpoint in (None, "logits"):
        again = models.Classifier.load(tmp_path / "c", endpoint=endpoint)
        assert again.image_shape == SHAPE
        assert again.fingerprint == classifier.fingerprint
        np.testing.assert_allclose(
            again.predict(images), classifier.predict(images), rtol=1e-4
        )


def test_adapters_are_saved_with_a_saved_model(tmp_path, images):
    tf.saved_model.save(Linear(), str(tmp_path / "stranger"))
    first = models.Classifier.load(
        tmp_path / "stranger",
        value_range=(-1, 1),
        image_shape=(4, 4, 3),
        resize=True,
    )
    first.save(tmp_path / "ours")
    second = models.Classifier.load(tmp_path / "ours")
    assert second.fingerprint == first.fingerprint
    small = images[:, :4, :4]
    np.testing.assert_allclose(
        second.predict(small), first.predict(small), atol=1e-5
    )


def test_save_refuses_to_overwrite_unless_told(saved, make_model, images):
    _, path = saved
    other = models.Classifier.from_keras(make_model(seed=9))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        other.save(path)
    assert models.Classifier.load(path).fingerprint != other.fingerprint
    other.save(path, overwrite=True)
    assert models.Classifier.load(path).fingerprint == other.fingerprint
    assert os.listdir(path.parent) == ["classifier"]


def test_a_failed_save_leaves_nothing(make_model, tmp_path, monkeypatch):
    classifier = models.Classifier.from_keras(make_model())

    def fail(*arguments, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr(keras.Model, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        classifier.save(tmp_path / "c")
    assert os.listdir(tmp_path) == []


def test_what_a_killed_save_left_does_not_disturb(make_model, tmp_path):
    (tmp_path / ".partial-c").mkdir()
    (tmp_path / ".partial-c" / "saved_model.pb").write_bytes(b"half")
    models.Classifier.from_keras(make_model()).save(tmp_path / "c")
    assert os.listdir(tmp_path) == ["c"]


def test_a_function_cannot_be_saved(make_model, tmp_path):
    bare = models.Classifier.from_keras(make_model())
    for classifier in (
        bare.behind(lambda images: images),
        models.Classifier.from_callable(
            flat, image_shape=SHAPE, num_classes=4, fingerprint="f"
        ),
    ):
        with pytest.raises(ValueError, match="is a function: only one from"):
            classifier.save(tmp_path / "c")
    assert os.listdir(tmp_path) == []


def test_the_newest_version_is_loaded(make_model, tmp_path):
    newest = models.Classifier.from_keras(make_model(seed=10))
    for version in ("2", "9"):
        models.Classifier.from_keras(make_model(seed=1)).save(
            tmp_path / "versions" / version
        )
    newest.save(tmp_path / "versions" / "10")
    (tmp_path / "versions" / "11").mkdir()
    loaded = models.Classifier.load(tmp_path / "versions")
    assert loaded.fingerprint == newest.fingerprint


# Fingerprints


def test_fingerprint_follows_weights_and_architecture(make_model):
    def of(model, **options):
        return models.Classifier.from_keras(model, **options).fingerprint

    assert of(make_model()) == of(make_model())
    different = {
        of(make_model()),
        of(make_model(seed=1)),
        of(make_model("relu")),
        of(make_model(), value_range=(0, 255)),
        of(make_model(), value_range=(-1, 1)),
        of(make_model(), image_shape=(9, 9, 3), resize=True),
    }
    assert len(different) == 6


def test_fingerprint_is_that_of_the_weights_now(make_model):
    model = make_model()
    classifier = models.Classifier.from_keras(model)
    before = classifier.fingerprint
    model.get_layer("norm").moving_mean.assign(np.ones(5))
    assert classifier.fingerprint != before


def test_training_does_not_count_but_for_the_weights(make_model, images):
    model = make_model()
    classifier = models.Classifier.from_keras(model)
    before = classifier.fingerprint
    model.get_layer("dropout")(images, training=True)
    model.compile("sgd", "mse")
    assert models.Classifier.from_keras(model).fingerprint == before


def test_fingerprint_of_a_strangers_saved_model(tmp_path):
    tf.saved_model.save(Linear(), str(tmp_path / "a"))
    load = models.Classifier.load
    one = load(tmp_path / "a")
    assert one.fingerprint == load(tmp_path / "a").fingerprint
    ranged = load(tmp_path / "a", value_range=(0, 255))
    assert ranged.fingerprint != one.fingerprint
    other = Linear()
    other.weights.assign(other.weights + 1)
    tf.saved_model.save(other, str(tmp_path / "b"))
    assert load(tmp_path / "b").fingerprint != one.fingerprint


# Range and size


@pytest.mark.parametrize("value_range", [(0, 255), (-1, 1), (0.0, 1.0)])
def test_images_are_scaled_to_the_models_range(make_model, images, value_range):
    low, high = value_range
    model = make_model()
    classifier = models.Classifier.from_keras(model, value_range=value_range)
    expected = model(images * (high - low) + low, training=False)
    np.testing.assert_allclose(classifier(images), expected, 1e-4, 1e-5)


def test_a_saved_models_images_are_scaled_too(tmp_path, images):
    module = Linear()
    tf.saved_model.save(module, str(tmp_path / "m"))
    classifier = models.Classifier.load(tmp_path / "m", value_range=(-1, 1))
    np.testing.assert_allclose(
        classifier(images), module(images * 2 - 1), atol=1e-4
    )


def test_a_single_pixel_is_resized_to_a_plain_image(make_model):
    model = make_model()
    classifier = models.Classifier.from_keras(
        model, image_shape=(1, 1, 3), resize=True
    )
    assert classifier.image_shape == (1, 1, 3)
    pixel = np.array([0.2, 0.5, 0.9], np.float32)
    expected = model(np.broadcast_to(pixel, (1, *SHAPE)), training=False)
    np.testing.assert_allclose(
        classifier(pixel.reshape(1, 1, 1, 3)), expected, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_resizing_is_bilinear_and_differentiable(make_model, tmp_path, kind):
    model = make_model()
    options = {"image_shape": (16, 12, 3), "resize": True}
    if kind == "keras":
        classifier = models.Classifier.from_keras(model, **options)
    else:
        model.export(tmp_path / "m", verbose=False)
        classifier = models.Classifier.load(tmp_path / "m", **options)
    generator = np.random.default_rng(3)
    images = generator.random((2, 16, 12, 3), dtype=np.float32)
    # Halving with half-pixel centres is the mean of 2 by 2 pixels.
    halved = images.reshape(2, 8, 2, 6, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(
        classifier(images), model(halved, training=False), atol=1e-5
    )
    assert np.all(np.abs(gradient(classifier, images)).sum(axis=(1, 2)) > 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (16, 12, 3)}, r"\(8, 6, 3\).*pass resize=True"),
        (
            {"image_shape": (8, 6, 1), "resize": True},
            "the 3 channels of model small",
        ),
        ({"image_shape": (8, 6)}, "image_shape must be .height, width"),
        ({"value_range": (1, 0)}, "value_range must be .lowest, highest"),
        ({"value_range": (0, np.inf)}, "value_range must be .lowest, highest"),
        ({"value_range": 255}, "value_range must be .lowest, highest.*255"),
        ({"value_range": "01x"}, "value_range must be .lowest, highest"),
    ],
)
def test_bad_options_are_named(make_model, options, message):
    with pytest.raises(ValueError, match=message):
        models.Classifier.from_keras(make_model(), **options)


def test_a_model_of_any_size_needs_an_image_shape(make_model, tmp_path):
    model = make_model(shape=(None, None, 3))
    with pytest.raises(ValueError, match="image shape open.*pass image_shape"):
        models.Classifier.from_keras(model)
    classifier = models.Classifier.from_keras(model, image_shape=(9, 7, 3))
    assert classifier.image_shape == (9, 7, 3)
    classifier.save(tmp_path / "c")
    assert models.Classifier.load(tmp_path / "c").image_shape == (9, 7, 3)

    model.export(tmp_path / "m", verbose=False)
    with pytest.raises(ValueError, match="image shape open.*pass image_shape"):
        models.Classifier.load(tmp_path / "m")
    stranger = models.Classifier.load(tmp_path / "m", image_shape=(9, 7, 3))
    images = np.full((2, 9, 7, 3), 0.25, np.float32)
    np.testing.assert_allclose(
        stranger.predict(images), classifier.predict(images), atol=1e-6
    )


def test_a_subclassed_model_needs_an_image_shape(images):
    class Subclass(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, inputs):
            return self.dense(keras.ops.reshape(inputs, (-1, 144)))

    model = Subclass()
    with pytest.raises(ValueError, match="pass image_shape"):
        models.Classifier.from_keras(model)
    classifier = models.Classifier.from_keras(model, image_shape=SHAPE)
    np.testing.assert_allclose(
        classifier.predict(images), model(images), atol=1e-6
    )
    assert len(classifier.fingerprint) == 64


# What a classifier must return


def keras_function(function):
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, function(inputs), name="odd")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, r"classifier odd must return one tensor \[B, K\]"),
        (lambda x: x[:, :1, 0, 0], "at least 2 classes, got .4, 1."),
        (lambda x: keras.ops.log(x[:, :, 0, 0] - 2), "must return finite"),
        (
            lambda x: keras.ops.reshape(x, (-1, 12)),
            r"at least 2 classes, got \(48, 12\) for 4 images",
        ),
        (lambda x: [x[:, :, 0, 0]] * 2, "one input and one output, got 1 and"),
    ],
)
def test_what_is_no_classifier_is_refused(function, message):
    with warnings.catch_warnings():
        # Keras says that its reshape changes the batch.
        warnings.simplefilter("ignore")
        model = keras_function(function)
    with pytest.raises(ValueError, match=message):
        models.Classifier.from_keras(model)


def test_other_keras_models_are_refused():
    left, right = keras.Input(SHAPE), keras.Input(SHAPE)
    two = keras.Model([left, right], keras.layers.Add()([left, right]))
    with pytest.raises(ValueError, match="one input and one output, got 2"):
        models.Classifier.from_keras(two)
    vector = keras.Input((7,))
    with pytest.raises(ValueError, match=r"images .* shape \(None, 7\)"):
        models.Classifier.from_keras(
            keras.Model(vector, keras.layers.Dense(3)(vector))
        )
    integers = keras.Input(SHAPE, dtype="uint8")
    with pytest.raises(ValueError, match="got uint8: a cast to integers"):
        models.Classifier.from_keras(
            keras.Model(integers, keras.layers.Rescaling(1.0)(integers))
        )
    with pytest.raises(ValueError, match="must be a keras.Model, got str"):
        models.Classifier.from_keras("model.keras")


# Paths


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model at .*nowhere"):
        models.Classifier.load(tmp_path / "nowhere")


def test_a_directory_without_a_model_is_named(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(FileNotFoundError, match="looked for classifier.keras"):
        models.Classifier.load(tmp_path)


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(b"something")
    with pytest.raises(ValueError, match="model.h5 must be a .keras file or"):
        models.Classifier.load(path)


@pytest.mark.parametrize("contents", [b"", b"not a zip file", None])
def test_a_damaged_keras_file_is_named(make_model, tmp_path, contents):
    path = tmp_path / "damaged.keras"
    make_model().save(path)
    path.write_bytes(path.read_bytes()[:3000] if contents is None else contents)
    with pytest.raises(ValueError, match="damaged.keras is not a readable Ker"):
        models.Classifier.load(path)


def test_a_keras_file_with_other_contents_is_named(tmp_path):
    path = tmp_path / "foreign.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(ValueError, match="foreign.keras is not a readable"):
        models.Classifier.load(path)


def test_code_in_a_keras_file_is_not_run(tmp_path):
    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Lambda(lambda x: x[:, :, 0, 0])(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "unsafe.keras")
    with pytest.raises(ValueError, match="unsafe.keras is not.*[Ll]ambda"):
        models.Classifier.load(tmp_path / "unsafe.keras")


@pytest.mark.parametrize("damage", ["graph", "variables", "details"])
def test_a_damaged_saved_model_is_named(saved, damage):
    _, path = saved
    os.remove(path / "classifier.keras")
    if damage == "graph":
        (path / "saved_model.pb").write_bytes(b"something else")
    elif damage == "variables":
        [file] = path.glob("variables/*.data*")
        file.write_bytes(b"")
    else:
        (path / saved_model.DETAILS_FILE).write_text("[]")
    with pytest.raises(ValueError, match="classifier.* (readable|damaged)"):
        models.Classifier.load(path)


# Callables


def test_a_callable_is_a_classifier(images):
    classifier = models.Classifier.from_callable(
        flat, image_shape=SHAPE, num_classes=4, fingerprint="flat-1"
    )
    assert classifier.fingerprint == "flat-1"
    assert classifier.name == "flat"
    assert classifier.keras_model is None
    np.testing.assert_array_equal(classifier.predict(images), flat(images))


def test_predict_checks_what_a_callable_returns(images):
    classifier = models.Classifier.from_callable(
        flat, image_shape=SHAPE, num_classes=5, fingerprint="flat-1"
    )
    with pytest.raises(ValueError, match=r"flat must return shape \(7, 5\)"):
        classifier.predict(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"function": 3}, "function must be callable, got 3"),
        ({"fingerprint": ""}, "fingerprint must be a string"),
        ({"num_classes": 0}, "num_classes must be a positive integer"),
        ({"image_shape": (8, 6)}, "image_shape must be .height, width"),
    ],
)
def test_bad_arguments_of_a_callable_are_named(options, message):
    good = {
        "function": flat,
        "image_shape": SHAPE,
        "num_classes": 4,
        "fingerprint": "f",
    }
    with pytest.raises(ValueError, match=message):
        models.Classifier.from_callable(**(good | options))


# Behind a purifier


def test_behind_is_the_classifier_of_purified_images():
    bare = models.Classifier.from_keras(
        models.target("B", (16, 16, 1), 10, seed=0)
    )
    generator = models.generator("ape_gan_m", (16, 16, 1), seed=1)
    images = np.random.default_rng(0).random((3, 16, 16, 1), np.float32)
    purified = generator(images, training=False)
    expected = bare(purified)
    for purifier in (models.Purifier.from_keras(generator), generator):
        defended = bare.behind(purifier)
        np.testing.assert_allclose(
            defended.predict(images), expected, atol=1e-6
        )
    assert defended.base is bare
    assert isinstance(defended.purifier, models.Purifier)
    assert defended.num_classes == 10
    assert defended.name == "target_b_behind_ape_gan_m"
    assert defended.keras_model is None
    assert len(defended.trackables) == 2


def test_behind_is_differentiable_end_to_end(make_model, images):
    bare = models.Classifier.from_keras(make_model())
    defended = bare.behind(lambda x: 0.5 * x)
    np.testing.assert_allclose(
        gradient(defended, images), 0.5 * gradient(bare, 0.5 * images), 1e-5
    )


def test_fingerprint_behind_names_both(make_model):
    def purifier(fingerprint):
        return models.Purifier.from_callable(
            tf.identity, image_shape=SHAPE, fingerprint=fingerprint
        )

    def behind(seed, fingerprint):
        bare = models.Classifier.from_keras(make_model(seed=seed))
        return bare.behind(purifier(fingerprint)).fingerprint

    assert behind(0, "a") == behind(0, "a")
    assert len({behind(0, "a"), behind(0, "b"), behind(1, "a")}) == 3


def test_an_unknown_purifier_is_like_no_other(make_model):
    bare = models.Classifier.from_keras(make_model())
    one, two = (bare.behind(tf.identity) for _ in "ab")
    assert one.fingerprint == one.fingerprint
    assert len({bare.fingerprint, one.fingerprint, two.fingerprint}) == 3


def test_a_purifier_of_another_shape_is_refused(make_model):
    bare = models.Classifier.from_keras(make_model())
    purifier = models.Purifier.from_callable(
        tf.identity, image_shape=(8, 8, 3), fingerprint="i"
    )
    with pytest.raises(ValueError, match=r"\(8, 6, 3\), .*got \(8, 8, 3\)"):
        bare.behind(purifier)
    with pytest.raises(ValueError, match="purifier must be callable"):
        bare.behind(None)


def test_the_known_endpoints_and_outputs_stay():
    assert classifier_module.ENDPOINTS == (
        "logits",
        "serving_default",
        "serve",
    )
