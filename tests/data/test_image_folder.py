"""Image files in class folders: listed, decoded as they are used."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import data
from data.image_folder import read_image


def save(path, mode="RGB", size=(20, 12), colour=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Classes a (val only has it), b (empty in both) and c."""
    for number in range(20):
        colour = (10 * number, 0, 255)
        save(tmp_path / "train" / "a" / f"{number:02}.JPEG", colour=colour)
        save(tmp_path / "train" / "c" / f"{number:02}.png", colour=colour)
    save(tmp_path / "val" / "a" / "one.jpg", colour=(255, 0, 0))
    save(tmp_path / "val" / "c" / "two.PNG", colour=(0, 255, 0))
    for split in ("train", "val"):
        (tmp_path / split / "b").mkdir()
        (tmp_path / split / "notes.txt").write_text("not a class")
        (tmp_path / split / "a" / "notes.txt").write_text("not an image")
    return tmp_path


def load(folder, **options):
    return data.load("image_folder", image_dir=folder, image_size=8, **options)


def test_classes_are_the_sorted_folders_empty_ones_counted(folder):
    images = load(folder)
    assert images.class_names == ("a", "b", "c")
    assert images.num_classes == 3 and images.image_shape == (8, 8, 3)
    batch = next(iter(images.batches("test", 4)))
    assert batch["labels"].numpy().tolist() == [0, 2]
    assert batch["images"].shape == (2, 8, 8, 3)
    np.testing.assert_allclose(batch["images"][1, 3, 3], [0, 1, 0])
    # A JPEG is only nearly the colour that it was given.
    np.testing.assert_allclose(batch["images"][0, 3, 3], [1, 0, 0], atol=0.02)


def test_a_tenth_of_the_training_images_is_held_out_always_the_same(folder):
    images = load(folder)
    counts = [images.count(s) for s in ("train", "validation", "test")]
    assert counts == [36, 4, 2]
    splits = [
        np.concatenate(
            [b["images"].numpy() for b in load(folder).batches(split, 16)]
        )
        for split in ("train", "validation", "validation")
    ]
    np.testing.assert_array_equal(splits[1], splits[2])
    assert load(folder, validation_count=0).count("train") == 40


def test_training_batches_are_full_and_resume(folder):
    images = load(folder)
    options = {"seed": 1, "total_steps": 6, "shift": 1}
    whole = list(images.training_batches("train", 16, **options))
    rest = list(images.training_batches("train", 16, start_step=3, **options))
    assert whole[0]["images"].shape == (16, 8, 8, 3)
    assert len(rest) == 3
    for expected, found in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(found["images"], expected["images"])
        np.testing.assert_array_equal(found["index"], expected["index"])


def test_the_short_side_is_scaled_and_the_centre_cut_out(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :20], pixels[:, 60:] = 255, 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(read_image(tmp_path / "wide.png", 40), 0)
    small = read_image(tmp_path / "wide.png", 10)
    assert small.shape == (10, 10, 3) and small.dtype == np.uint8
    # At a quarter of the size the white begins at the crop's very edge.
    assert small[:, 1:-1].max() == 0


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", 9), pixels)


def test_grey_palette_cmyk_and_transparent_images_become_rgb(tmp_path):
    save(tmp_path / "grey.png", "L", colour=51)
    save(tmp_path / "cmyk.jpg", "CMYK", colour=(0, 255, 255, 0))
    save(tmp_path / "palette.png", "P")
    save(tmp_path / "alpha.png", "RGBA", colour=(1, 2, 3, 4))
    assert (read_image(tmp_path / "grey.png", 4) == 51).all()
    red = read_image(tmp_path / "cmyk.jpg", 4)[0, 0]
    np.testing.assert_allclose(red, [255, 0, 0], atol=3)
    assert (read_image(tmp_path / "palette.png", 4) == 0).all()
    assert (read_image(tmp_path / "alpha.png", 4) == [1, 2, 3]).all()


def test_coloured_images_become_grey_by_their_luminance(folder):
    images = load(folder, image_channels=1)
    assert images.image_shape == (8, 8, 1)
    assert images.name != load(folder).name
    batch = next(iter(images.batches("test", 4)))
    assert batch["images"].shape == (2, 8, 8, 1)
    # ITU-R 601: 0.299 of red, which is a JPEG's, and 0.587 of green.
    np.testing.assert_allclose(batch["images"][0, 3, 3], [0.299], atol=0.01)
    np.testing.assert_allclose(batch["images"][1, 3, 3], [0.587], atol=0.01)


def test_images_are_grey_or_coloured(folder):
    with pytest.raises(
        ValueError, match="image_channels must be 1 or 3, got 4"
    ):
        load(folder, image_channels=4)


def test_the_name_of_a_coloured_folder_is_what_it_was(folder):
    """Results are kept under it."""
    assert load(folder).name == "image_folder-8ff8a443"


def test_an_undecodable_file_is_named(folder):
    broken = folder / "val" / "c" / "two.PNG"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(tf.errors.OpError, match=f"{broken} must be a JPEG"):
        list(load(folder).batches("test", 4))
    jpeg = folder / "val" / "a" / "one.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:-200])
    with pytest.raises(ValueError, match="one.jpg must be a JPEG .*decoded"):
        read_image(jpeg, 8)
    save(folder / "deep.png", "I;16")
    with pytest.raises(ValueError, match="deep.png .*more than 8 bits"):
        read_image(folder / "deep.png", 8)


def test_folders_that_do_not_match_are_refused(folder):
    (folder / "val" / "d").mkdir()
    with pytest.raises(ValueError, match="same class folders.* d$"):
        load(folder)


def test_a_folder_without_images_is_named(folder):
    (folder / "val" / "a" / "one.jpg").unlink()
    (folder / "val" / "c" / "two.PNG").unlink()
    with pytest.raises(FileNotFoundError, match=f"{folder / 'val'} must hold"):
        load(folder)


def test_without_any_folder_the_arguments_are_named(monkeypatch):
    monkeypatch.delenv("APE_GAN_TF_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="image_dir.*APE_GAN_TF_DATA"):
        data.load("image_folder")


@pytest.mark.real_data
def test_the_real_photographs(real_data_dir):
    if not (real_data_dir / "imagenet").exists():
        pytest.skip("real data: there is no imagenet folder")
    images = data.load("image_folder", data_dir=real_data_dir, image_size=224)
    assert images.num_classes == 1000
    assert images.class_names[0] == "n01440764"
    assert images.count("train") + images.count("validation") == 799
    assert images.count("test") == 101
    batch = next(iter(images.batches("test", 8)))
    assert batch["images"].shape == (8, 224, 224, 3)
    assert 0.2 < float(tf.reduce_mean(batch["images"])) < 0.7
