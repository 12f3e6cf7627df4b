"""Tests of the networks of keras.applications."""

import keras
import numpy as np
import pytest

import data
import models
from models import applications

LIBRARY = {
    "inception_v3": keras.applications.inception_v3,
    "mobilenet_v2": keras.applications.mobilenet_v2,
    "resnet50": keras.applications.resnet50,
}


def random_images(size, count=2):
    generator = np.random.default_rng(0)
    return generator.random((count, size, size, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def library_network():
    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV2(
        weights=None, classifier_activation=None
    )


@pytest.fixture(scope="module")
def weights_file(library_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.weights.h5"
    library_network.save_weights(path)
    return path


@pytest.fixture(scope="module")
def network(weights_file):
    return models.application("mobilenet_v2", weights=weights_file)


@pytest.mark.parametrize(
    ("name", "size"),
    [("inception_v3", 299), ("mobilenet_v2", 224), ("resnet50", 224)],
)
def test_preprocessing_is_the_library_s(name, size):
    built = applications._build(name, None)
    assert built.input_shape == (None, size, size, 3)
    assert built.output_shape == (None, 1000)
    preprocessed = built.get_layer("preprocessing").output
    # It is what the network's own first layer gets.
    assert built.layers[2].input is preprocessed
    images = random_images(size)
    expected = LIBRARY[name].preprocess_input(images.astype(np.float64) * 255)
    np.testing.assert_allclose(
        keras.Model(built.input, preprocessed)(images), expected, atol=2e-5
    )


def test_logits_are_the_library_s_on_preprocessed_images(
    library_network, network
):
    images = random_images(224)
    preprocessed = LIBRARY["mobilenet_v2"].preprocess_input(images * 255)
    expected = library_network(preprocessed, training=False).numpy()
    logits = network(images, training=False).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)
    assert expected.std() > 0
    assert network.name == "mobilenet_v2"
    assert [each.name for each in network.inputs] == ["images"]


def test_a_classifier_of_it_survives_a_keras_file(network, tmp_path):
    classifier = models.Classifier.from_keras(
        network, image_shape=(256, 256, 3), resize=True
    )
    assert classifier.num_classes == 1000
    classifier.keras_model.save(tmp_path / "classifier.keras")
    loaded = models.Classifier.load(tmp_path)
    assert loaded.fingerprint == classifier.fingerprint
    images = random_images(256, 1)
    np.testing.assert_array_equal(loaded(images), classifier(images))


def test_caffe_preprocessing_survives_a_keras_file(tmp_path):
    images = keras.Input((4, 5, 3), name="images")
    model = keras.Model(images, applications._preprocess_caffe(images))
    model.save(tmp_path / "caffe.keras")
    loaded = keras.models.load_model(tmp_path / "caffe.keras", safe_mode=True)
    pixels = np.zeros((1, 4, 5, 3), np.float32)
    pixels[..., 0] = 1.0
    # Pure red: blue and green are less their means, red comes last.
    np.testing.assert_allclose(
        loaded(pixels)[0, 0, 0], [-103.939, -116.779, 255 - 123.68], rtol=1e-6
    )


def test_names_do_not_count_earlier_models(network):
    # The library's network of the fixture was an earlier one.
    names = [layer.name for layer in network.layers]
    assert names[:3] == ["images", "preprocessing", "Conv1"]
    assert names[-2:] == ["globalaveragepooling2d_1", "predictions"]


def small_network():
    images = keras.Input((4, 5, 3), name="images")
    features = applications._preprocess_caffe(images)
    features = keras.layers.Conv2D(2, 3)(features)
    features = keras.layers.Flatten()(features)
    features = keras.layers.Dense(3, name="fc_1")(features)
    return keras.Model(images, keras.layers.Dense(3)(features), name="small")


def test_only_names_are_made_stable():
    first, second = small_network(), small_network()
    assert first.layers[2].name != second.layers[2].name
    renamed = [applications._with_stable_names(x) for x in (first, second)]
    for model in renamed:
        assert [each.name for each in model.operations] == [
            "images",
            "flip_1",
            "preprocessing",
            "conv2d_1",
            "flatten_1",
            "fc_1",
            "dense_1",
        ]
    images = np.random.default_rng(0).random((2, 4, 5, 3), np.float32)
    np.testing.assert_array_equal(renamed[1](images), second(images))


def test_half_precision_keeps_pixels_and_logits():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = applications._with_stable_names(small_network())
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.name: layer.compute_dtype for layer in network.layers} == {
        "images": "bfloat16",
        "preprocessing": "float32",
        "conv2d_1": "bfloat16",
        "flatten_1": "bfloat16",
        "fc_1": "bfloat16",
        "dense_1": "float32",
    }


def test_a_file_of_another_network_is_refused(tmp_path):
    stranger = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    path = tmp_path / "stranger.weights.h5"
    stranger.save_weights(path)
    with pytest.raises(
        ValueError,
        match=r"stranger.weights.h5 does not hold the weights of mobilenet_v2",
    ):
        models.application("mobilenet_v2", weights=path)


@pytest.mark.parametrize("name", ["damaged.h5", "damaged.weights.h5"])
def test_a_damaged_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=f"{name} does not hold the weights"):
        applications._load_weights(small_network(), str(tmp_path / name))


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (None, ValueError, "weights must be 'imagenet' .* got None.*untrained"),
        (7, ValueError, "weights must be 'imagenet' or the path .* got 7"),
        ("gone.h5", FileNotFoundError, "there is no weights file gone.h5"),
        (__file__, ValueError, "a .weights.h5 or an .h5 file, got .*py"),
    ],
)
def test_bad_weights_are_named(weights, error, message):
    with pytest.raises(error, match=message):
        models.application("resnet50", weights=weights)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ValueError,
        match="name must be one of inception_v3, mobilenet_v2, resnet50, got "
        "'resnet18'; did you mean 'resnet50'",
    ):
        models.application("resnet18")


def test_a_failed_download_says_how_to_pass_a_file(tmp_path, monkeypatch):
    # Nobody listens there; Keras's cache is elsewhere.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(
        keras.src.utils.file_utils.config, "keras_home", lambda: str(tmp_path)
    )
    with pytest.raises(
        FileNotFoundError,
        match="ImageNet weights of mobilenet_v2 cannot be downloaded.*"
        "URL fetch failure.*pass weights=PATH",
    ):
        models.application("mobilenet_v2")


@pytest.mark.real_data
def test_the_real_mobilenet_knows_most_photographs(real_data_dir):
    path = real_data_dir / "mobilenet_v2.weights.h5"
    if not path.exists() or not (real_data_dir / "imagenet").exists():
        pytest.skip("real data: no mobilenet_v2.weights.h5 or no photographs")
    classifier = models.Classifier.from_keras(
        models.application("mobilenet_v2", weights=path),
        image_shape=(256, 256, 3),
        resize=True,
    )
    photographs = data.load(
        "image_folder", data_dir=real_data_dir, image_size=256
    )
    right = [
        classifier.predict(batch["images"]).argmax(-1) == batch["labels"]
        for batch in photographs.batches("test", 32)
    ]
    assert np.concatenate(right).mean() > 0.6
