"""Purifying files: sets, arrays and pictures, and the command that does it."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import data
import models
from ape_gan_tf.image_sources import open_images
from ape_gan_tf.purification import save_eight_bit, save_npy, to_eight_bit

ROOT = Path(__file__).resolve().parents[2]
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
    assert not (tmp_path / "purified.npy.txt").exists()


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
    names = (tmp_path / "purified.npy.txt").read_text().splitlines()
    assert names == ["a.bmp", "b.png", "c.PNG"]
    expected = 1.0 - np.array([10, 0, 20]) / 255.0
    purified = result(tmp_path)
    assert purified.shape == (3, 6, 5, channels)
    np.testing.assert_allclose(purified.mean((1, 2, 3)), expected, atol=1e-6)


def test_one_picture_is_purified(purify, tmp_path):
    folder = write_pictures(tmp_path / "pictures")
    assert purify(folder / "c.PNG") == 0
    assert result(tmp_path).shape == (1, *SHAPE)
    assert (tmp_path / "purified.npy.txt").read_text() == "c.PNG\n"


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
        (images() + 1.0, r"x\.npy from image 0 on must be float32 in \[0, 1\]"),
        (np.array([{"a": 1}]), r"must hold float32 .* got object \[1\]"),
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


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (0, "x.npy is no .npy file"),
        (60, "x.npy is no .npy file"),
        (500, "x.npy must hold 7 images, as its header says, but it ends"),
    ],
)
def test_a_broken_array_is_named(purify, tmp_path, capsys, keep, message):
    np.save(tmp_path / "x.npy", images())
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:keep])
    assert purify(tmp_path / "x.npy") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "purified.npy").exists()


def test_a_picture_of_another_size_is_named(purify, tmp_path, capsys):
    folder = write_pictures(tmp_path / "pictures")
    Image.new("L", (9, 9)).save(folder / "d.png")
    assert purify(folder) == 1
    stderr = capsys.readouterr().err
    assert "d.png is (9, 9, 1) (height, width, channels)" in stderr
    assert "resize it, or pass --resize" in stderr
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
        ("nowhere.npy", "nowhere.npy, where there is nothing"),
        ("nowhere.png", "input must be a folder of images, an image (.bmp, "),
        ("nowhere", "nowhere, where there is nothing"),
        ("photo.webp", "an adversarial set (.h5) or -, got "),
        ("empty", "has neither images (.bmp, .jpeg, .jpg, .png) nor"),
        ("empty", "folders inside it are not searched"),
    ],
)
def test_an_input_that_is_not_there_is_named(
    purify, tmp_path, capsys, name, message
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.webp").write_bytes(b"RIFF")
    assert purify(tmp_path / name) == 1
    assert message in capsys.readouterr().err


def test_what_is_left_out_of_a_folder_is_said(purify, tmp_path, capsys):
    folder = write_pictures(tmp_path / "pictures")
    (folder / "inside.png").mkdir()
    assert purify(folder) == 0
    assert (
        "purify: left out what is no image: inside.png, notes.md\n"
        in capsys.readouterr().err
    )
    assert result(tmp_path).shape == (3, *SHAPE)


def test_an_input_array_is_never_replaced(purify, tmp_path, capsys):
    before = images()
    np.save(tmp_path / "purified.npy", before)
    assert purify(tmp_path / "purified.npy", "--overwrite") == 2
    assert "would replace the --input" in capsys.readouterr().err
    np.testing.assert_array_equal(result(tmp_path), before)


def test_names_go_with_the_images_that_had_them(purify, tmp_path):
    assert purify(write_pictures(tmp_path / "pictures")) == 0
    np.save(tmp_path / "x.npy", images())
    assert purify(tmp_path / "x.npy", "--overwrite") == 0
    assert len(result(tmp_path)) == 7
    assert not (tmp_path / "purified.npy.txt").exists()


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
    assert "--output must end in .npy, or be - " in capsys.readouterr().err


def test_no_images_give_an_empty_array(purify, tmp_path):
    np.save(tmp_path / "x.npy", images(0))
    assert purify(tmp_path / "x.npy") == 0
    assert result(tmp_path).shape == (0, *SHAPE)


def test_channels_that_no_picture_has(tmp_path):
    folder = write_pictures(tmp_path / "pictures")
    purifier = models.Purifier.from_callable(
        lambda x: x, image_shape=(6, 5, 2), fingerprint="two"
    )
    with pytest.raises(ValueError, match="1 or 3 channels, .* takes 2"):
        with open_images(folder, purifier.image_shape) as found:
            save_npy(purifier, found, tmp_path / "x.npy", 4)
    np.save(tmp_path / "x.npy", images(shape=(6, 5, 2)))
    with open_images(tmp_path / "x.npy", purifier.image_shape) as found:
        with pytest.raises(ValueError, match="1 or 3 channels, .* has 2"):
            save_eight_bit(purifier, found, tmp_path / "x", 4)


# Several arrays in one file


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_one_array_of_an_npz_file_is_purified(purify, tmp_path, save):
    save(tmp_path / "x.npz", images=images())
    assert purify(tmp_path / "x.npz", "--batch_size=3") == 0
    np.testing.assert_allclose(result(tmp_path), 1.0 - images(), atol=1e-6)


def test_of_several_arrays_one_is_named(purify, tmp_path, capsys):
    labels = np.arange(7)
    np.savez(tmp_path / "x.npz", images=images(), labels=labels)
    assert purify(tmp_path / "x.npz") == 1
    message = "name one with --array: images, labels"
    assert message in capsys.readouterr().err
    assert purify(tmp_path / "x.npz", "--array=image") == 1
    message = "must have the array image, it has images, labels"
    assert message in capsys.readouterr().err
    assert purify(tmp_path / "x.npz", "--array=labels") == 1
    message = "x.npz (labels) must hold float32"
    assert message in capsys.readouterr().err
    assert purify(tmp_path / "x.npz", "--array=images") == 0
    np.testing.assert_allclose(result(tmp_path), 1.0 - images(), atol=1e-6)


def test_an_npz_file_without_arrays_is_refused(purify, tmp_path, capsys):
    np.savez(tmp_path / "x.npz")
    assert purify(tmp_path / "x.npz") == 1
    assert (
        "must have the array of images, it has none" in capsys.readouterr().err
    )


@pytest.mark.parametrize("keep", [0, 300, 900])
def test_a_broken_npz_file_is_named(purify, tmp_path, capsys, keep):
    np.savez(tmp_path / "x.npz", images())
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[:keep])
    assert purify(tmp_path / "x.npz") == 1
    assert "x.npz is no .npz file" in capsys.readouterr().err


def test_an_array_is_named_in_npz_files_alone(purify, tmp_path, capsys):
    assert purify(tmp_path / "x.npy", "--array=images") == 2
    assert "--array is for .npz files" in capsys.readouterr().err


# Pictures that are resized


def test_pictures_are_resized_as_for_training(purify, make_purifier, tmp_path):
    noise = np.random.default_rng(4).integers(0, 256, (2, 13, 20, 3), np.uint8)
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        for number, pixels in enumerate(noise):
            path = tmp_path / part / "a" / f"{number}.png"
            Image.fromarray(pixels).save(path)
    dataset = data.load(
        "image_folder", image_dir=tmp_path, image_size=8, validation_count=0
    )
    expected = next(iter(dataset.batches("test", 2)))["images"].numpy()
    purifier = make_purifier((8, 8, 3))
    assert purify(tmp_path / "val/a", purifier=purifier) == 1
    assert purify(tmp_path / "val/a", "--resize", purifier=purifier) == 0
    np.testing.assert_allclose(result(tmp_path), 1.0 - expected, atol=1e-6)


def test_pictures_are_resized_for_a_grey_purifier(
    purify, make_purifier, tmp_path, capsys
):
    folder = write_pictures(tmp_path / "pictures", channels=3)
    purifier = make_purifier((4, 4, 1))
    assert purify(folder, purifier=purifier) == 1
    assert "resize it, or pass --resize" in capsys.readouterr().err
    assert purify(folder, "--resize", purifier=purifier) == 0
    expected = 1.0 - np.array([10, 0, 20]) / 255.0
    assert result(tmp_path).shape == (3, 4, 4, 1)
    np.testing.assert_allclose(
        result(tmp_path).mean((1, 2, 3)), expected, atol=1e-6
    )


def test_only_what_training_resizes_is_resized(purify, tmp_path, capsys):
    folder = write_pictures(tmp_path / "pictures")
    assert purify(folder, "--resize") == 1
    message = "resize makes square images, as training on image_folder"
    assert message in capsys.readouterr().err
    np.save(tmp_path / "x.npy", images())
    assert purify(tmp_path / "x.npy", "--resize") == 2
    assert "--resize is for image files" in capsys.readouterr().err


def test_a_picture_that_would_fill_the_memory_is_named(
    purify, make_purifier, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Of 178 million.
    folder = write_pictures(tmp_path / "pictures", channels=3)
    for words in ([], ["--resize"]):
        purifier = make_purifier((6, 6, 3))
        assert purify(folder, *words, purifier=purifier) == 1
        assert "a.bmp is too large: " in capsys.readouterr().err


# 8-bit files


@pytest.fixture
def purify_to_pictures(command, grey, tmp_path):
    """The command, from an input to `out`."""

    def run(source, *words, output=tmp_path / "out", purifier=grey):
        return command(
            "purify",
            f"--purifier={purifier}",
            f"--input={source}",
            f"--output={output}",
            "--eight_bit",
            *words,
        )

    return run


def pictures_in(folder):
    return {
        path.name: np.asarray(Image.open(path))
        for path in sorted(folder.iterdir())
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_become_pictures_of_the_same_name(
    purify_to_pictures, make_purifier, tmp_path, capsys, channels
):
    folder = write_pictures(tmp_path / "pictures", channels)
    purifier = make_purifier((6, 5, channels))
    assert purify_to_pictures(folder, purifier=purifier) == 0
    found = pictures_in(tmp_path / "out")
    assert list(found) == ["a.png", "b.png", "c.png"]
    for pixels, value in zip(found.values(), [245, 255, 235], strict=True):
        shape = (6, 5) if channels == 1 else (6, 5, 3)
        np.testing.assert_array_equal(pixels, np.full(shape, value, np.uint8))
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'out'}: 3 images\n"
    assert "changes each value by up to 1/510" in said.err
    assert "measure on float32" in said.err


def test_the_images_of_an_array_become_numbered_pictures(
    purify_to_pictures, tmp_path
):
    np.save(tmp_path / "x.npy", images(11))
    assert purify_to_pictures(tmp_path / "x.npy", "--batch_size=4") == 0
    found = pictures_in(tmp_path / "out")
    assert list(found) == [f"{number:06}.png" for number in range(11)]
    change = np.stack(list(found.values())) / 255.0 - (1.0 - images(11)[..., 0])
    # The warning's figure.
    assert 0.9 / 510 < np.abs(change).max() <= 1 / 510 + 1e-6


def test_rounding_stays_within_the_levels():
    values = np.float32([-1e-3, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 1.001])
    assert to_eight_bit(values).tolist() == [0, 0, 0, 1, 255, 255]


def test_pictures_that_would_share_a_name_are_refused(
    purify_to_pictures, tmp_path, capsys
):
    folder = write_pictures(tmp_path / "pictures")
    Image.new("L", (5, 6)).save(folder / "b.jpg")
    assert purify_to_pictures(folder) == 1
    message = "b.jpg and b.png would both become b.png"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_fault_leaves_no_pictures(purify_to_pictures, tmp_path):
    folder = write_pictures(tmp_path / "pictures")
    Image.new("L", (9, 9)).save(folder / "d.png")
    assert purify_to_pictures(folder, "--batch_size=1") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.parametrize("output", ["-", "x.npy", "x.png"])
def test_8_bits_need_a_folder(purify_to_pictures, tmp_path, capsys, output):
    assert purify_to_pictures(tmp_path / "x.npy", output=output) == 2
    message = f"writes a folder of PNG files, got --output={output}"
    assert message in capsys.readouterr().err


def test_only_pictures_are_ever_replaced(purify_to_pictures, tmp_path, capsys):
    folder = write_pictures(tmp_path / "pictures")
    assert purify_to_pictures(folder) == 0
    assert purify_to_pictures(folder) == 2
    assert "out exists: name another --output" in capsys.readouterr().err
    (tmp_path / "out" / "a.png").unlink()
    assert purify_to_pictures(folder, "--overwrite") == 0
    assert len(pictures_in(tmp_path / "out")) == 3
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    assert purify_to_pictures(folder, "--overwrite") == 2
    assert "out is not a folder of PNG files alone" in capsys.readouterr().err
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


def test_the_input_is_never_replaced(purify_to_pictures, tmp_path, capsys):
    folder = write_pictures(tmp_path / "pictures")
    (folder / "notes.md").unlink()
    (folder / "a.bmp").unlink()
    (folder / "c.PNG").unlink()
    for source in (folder, folder / "b.png"):
        assert purify_to_pictures(source, "--overwrite", output=folder) == 2
        assert "would replace the --input" in capsys.readouterr().err
    assert list(pictures_in(folder)) == ["b.png"]


# As a user at a shell sees it


class Terminal(io.StringIO):
    """What a person types into, and reads."""

    def isatty(self):
        return True


def test_arrays_are_not_typed_nor_read(purify, command, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Terminal())
        assert purify("-") == 2
    assert "reads it from stdin: use a pipe" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Terminal())
        words = ["--purifier=x", "--input=x.npy", "--output=-"]
        assert command("purify", *words) == 2
    assert "writes it to stdout: use a pipe" in capsys.readouterr().err


@pytest.fixture
def piped(grey):
    """`purify` from a pipe to a pipe, as a shell starts it in front."""
    # Where these tests run in the background, Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ape_gan_tf.purify",
            f"--purifier={grey}",
            "--input=-",
            "--output=-",
            "--batch_size=2",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    signal.signal(signal.SIGINT, before)
    yield process
    process.kill()
    process.communicate()


def as_npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_pipe_gives_an_array_for_an_array(piped):
    written, said = piped.communicate(as_npy(images()), timeout=300)
    assert piped.returncode == 0, said.decode()
    # All that is there is the array.
    purified = np.load(io.BytesIO(written))
    assert written == as_npy(purified)
    assert purified.dtype == np.float32
    np.testing.assert_allclose(purified, 1.0 - images(), atol=1e-6)
    assert b"purifying: 7 of 7 images" in said
    assert said.endswith(b"stdout: 7 images\n")


def test_ctrl_c_ends_a_pipe_with_130(piped):
    """After the first batch, which is handed on before the next one comes."""
    first = len(as_npy(images(0))) + 2 * images(1).nbytes
    piped.stdin.write(as_npy(images())[:first])
    piped.stdin.flush()
    assert len(piped.stdout.read(first)) == first
    piped.send_signal(signal.SIGINT)
    said = piped.stderr.read().decode()
    assert piped.wait(timeout=300) == 130
    assert "purify: interrupted: nothing was written, or half a" in said
    assert "Traceback" not in said


def test_a_reader_that_leaves_ends_a_pipe_quietly(piped):
    """As `| head` does; the header is all that it wants."""
    content = as_npy(images(400))
    piped.stdin.write(content[: len(content) // 2])
    piped.stdin.flush()
    assert piped.stdout.read(6) == b"\x93NUMPY"
    piped.stdout.close()
    said = piped.stderr.read().decode()
    assert piped.wait(timeout=300) == 141
    # The last that it said is how far it came; what TensorFlow says is before.
    assert said.splitlines()[-1].startswith("purifying: ")
    assert "Traceback" not in said and "purify: " not in said
