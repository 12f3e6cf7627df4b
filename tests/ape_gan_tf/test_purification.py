"""Purifying files: sets, arrays and pictures."""

import keras
import numpy as np
import pytest
from PIL import Image

import data
import models
from ape_gan_tf.purification import open_images, purify_to_npy

SHAPE = (6, 5, 1)


@pytest.fixture(scope="module")
def make_purifier(tmp_path_factory):
    """Saves a purifier that makes 1 - x of x."""

    def make(shape):
        inputs = keras.Input(shape)
        outputs = keras.layers.Rescaling(-1.0, 1.0)(inputs)
        path = tmp_path_factory.mktemp("purifier") / "purifier.keras"
        keras.Model(inputs, outputs, name="negative").save(path)
        return path

    return make


@pytest.fixture(scope="module")
def grey(make_purifier):
    return make_purifier(SHAPE)


@pytest.fixture
def purify(command, grey, tmp_path):
    """The command, from an input to `purified.npy`."""

    def run(source, *words, purifier=grey):
        return command(
            "purify",
            f"--purifier={purifier}",
            f"--input={source}",
            f"--output={tmp_path / 'purified.npy'}",
            *words,
        )

    return run


def images(count=7, shape=SHAPE):
    generator = np.random.default_rng(8)
    return generator.random((count, *shape), dtype=np.float32)


def result(folder):
    return np.load(folder / "purified.npy", allow_pickle=False)


@pytest.mark.parametrize("batch_size", [3, 100])
def test_an_array_is_purified(purify, tmp_path, capsys, batch_size):
    np.save(tmp_path / "x.npy", images())
    assert purify(tmp_path / "x.npy", f"--batch_size={batch_size}") == 0
    purified = result(tmp_path)
    assert purified.dtype == np.float32
    np.testing.assert_allclose(purified, 1.0 - images(), atol=1e-6)
    assert capsys.readouterr().out.endswith("purified.npy: 7 images\n")
    assert not (tmp_path / "purified.txt").exists()


def test_a_set_is_purified_where_it_is_adversarial(
    purify, tmp_path, make_pairs
):
    pairs = make_pairs(tmp_path / "set", count=9, shape=SHAPE)
    assert purify(tmp_path / "set.h5") == 0
    adversarial = next(iter(pairs.batches(9)))["adversarial"].numpy()
    np.testing.assert_allclose(result(tmp_path), 1.0 - adversarial, atol=1e-6)


def write_pictures(folder, channels=1):
    """Pictures whose every pixel is a tenth of their number."""
    folder.mkdir()
    mode = {1: "L", 3: "RGB"}[channels]
    for number, name in enumerate(["b.png", "a.bmp", "c.PNG"]):
        pixels = np.full((6, 5, channels), number * 10, np.uint8)
        Image.fromarray(pixels.squeeze(), mode=None).convert(mode).save(
            folder / name
        )
    (folder / "notes.md").write_text("no picture")
    return folder


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_pictures_is_purified_in_the_order_of_names(
    purify, make_purifier, tmp_path, channels
):
    folder = write_pictures(tmp_path / "pictures", channels)
    purifier = make_purifier((6, 5, channels))
    assert purify(folder, purifier=purifier) == 0
    names = (tmp_path / "purified.txt").read_text().splitlines()
    assert names == ["a.bmp", "b.png", "c.PNG"]
    expected = 1.0 - np.array([10, 0, 20]) / 255.0
    purified = result(tmp_path)
    assert purified.shape == (3, 6, 5, channels)
    np.testing.assert_allclose(purified.mean((1, 2, 3)), expected, atol=1e-6)


def test_one_picture_is_purified(purify, tmp_path):
    folder = write_pictures(tmp_path / "pictures")
    assert purify(folder / "c.PNG") == 0
    assert result(tmp_path).shape == (1, *SHAPE)
    assert (tmp_path / "purified.txt").read_text() == "c.PNG\n"


def test_a_saved_model_purifies_too(purify, tiny_run, tmp_path):
    batch = next(iter(data.load("digits").batches("test", 3)))
    np.save(tmp_path / "x.npy", batch["images"].numpy())
    exported = tiny_run.workdir / "purifier"
    assert purify(tmp_path / "x.npy", purifier=exported) == 0
    keras_file = models.Purifier.load(tiny_run.workdir / "purifier.keras")
    np.testing.assert_allclose(
        result(tmp_path), keras_file.predict(batch["images"]), atol=1e-6
    )


# What does not fit


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (images().astype(np.float64), r"x\.npy must hold float32 .*float64 \["),
        (np.zeros((2, *SHAPE), np.uint8), "must hold float32 .* got uint8"),
        (images()[0], r"must hold float32 .* got float32 \[6, 5, 1\]"),
        (
            images(shape=(5, 5, 1)),
            r"x\.npy has images of \(5, 5, 1\) .* takes \(6, 5, 1\)",
        ),
        (images(shape=(6, 5, 3)), r"has images of \(6, 5, 3\)"),
        (images() + 1.0, r"images must be float32 in \[0, 1\], got values"),
        (images() * np.nan, "NaN"),
        (np.array([{"a": 1}]), "is no .npy file: .*Python objects"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(
    purify, tmp_path, capsys, array, message
):
    np.save(tmp_path / "x.npy", array)
    assert purify(tmp_path / "x.npy") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(capsys.readouterr().err)
    assert not (tmp_path / "purified.npy").exists()


@pytest.mark.parametrize("keep", [0, 60, 200])
def test_a_broken_array_is_named(purify, tmp_path, capsys, keep):
    np.save(tmp_path / "x.npy", images())
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:keep])
    assert purify(tmp_path / "x.npy") == 1
    assert "x.npy is no .npy file" in capsys.readouterr().err


def test_a_picture_of_another_size_is_named(purify, tmp_path, capsys):
    folder = write_pictures(tmp_path / "pictures")
    Image.new("L", (9, 9)).save(folder / "d.png")
    assert purify(folder) == 1
    message = "d.png has images of (9, 9, 1) (height, width, channels)"
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("purified.*"))
    # The same command again, once the picture is gone.
    (folder / "d.png").unlink()
    assert purify(folder) == 0


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_file_that_is_no_picture_is_named(purify, tmp_path, capsys, content):
    folder = write_pictures(tmp_path / "pictures")
    (folder / "d.png").write_bytes(content)
    assert purify(folder) == 1
    assert "d.png is not an image" in capsys.readouterr().err


def test_half_a_picture_is_named(purify, tmp_path, capsys):
    folder = write_pictures(tmp_path / "pictures")
    noise = np.random.default_rng(9).integers(0, 256, (6, 5), np.uint8)
    Image.fromarray(noise).save(folder / "d.png")
    whole = (folder / "d.png").read_bytes()
    (folder / "d.png").write_bytes(whole[: len(whole) // 2])
    assert purify(folder) == 1
    assert "d.png is not an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.npy", "No such file or directory"),
        ("nowhere.png", "No such file or directory"),
        ("nowhere", "an adversarial set was looked for in"),
        ("empty", "has neither images (.bmp, .jpeg, .jpg, .png) nor"),
    ],
)
def test_an_input_that_is_not_there_is_named(
    purify, tmp_path, capsys, name, message
):
    (tmp_path / "empty").mkdir()
    assert purify(tmp_path / name) == 1
    assert message in capsys.readouterr().err


def test_an_existing_output_is_kept(purify, tmp_path, capsys):
    np.save(tmp_path / "x.npy", images())
    (tmp_path / "purified.npy").write_text("precious")
    assert purify(tmp_path / "x.npy") == 2
    assert "purified.npy exists: name another" in capsys.readouterr().err
    assert (tmp_path / "purified.npy").read_text() == "precious"
    assert purify(tmp_path / "x.npy", "--overwrite") == 0
    assert len(result(tmp_path)) == 7


def test_an_output_of_another_kind_is_refused(command, grey, tmp_path, capsys):
    words = [f"--purifier={grey}", "--input=x.npy", "--output=x.h5"]
    assert command("purify", *words) == 2
    assert "--output must end in .npy, got x.h5" in capsys.readouterr().err


def test_no_images_give_an_empty_array(purify, tmp_path):
    np.save(tmp_path / "x.npy", images(0))
    assert purify(tmp_path / "x.npy") == 0
    assert result(tmp_path).shape == (0, *SHAPE)


def test_channels_that_no_picture_has(tmp_path):
    folder = write_pictures(tmp_path / "pictures")
    purifier = models.Purifier.from_callable(
        lambda x: x, image_shape=(6, 5, 2), fingerprint="two"
    )
    found = open_images(folder, purifier.image_shape)
    with pytest.raises(ValueError, match="1 or 3 channels, .* takes 2"):
        purify_to_npy(purifier, found, tmp_path / "x.npy", 4)
