"""PNG and JPEG files decoded inside a graph, beside Pillow and data/."""

import io
import resource
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ape_gan_tf.serving import encoded_images
from data.image_folder import read_image

GREY, COLOUR = (28, 28, 1), (32, 32, 3)


@pytest.fixture(scope="module")
def decode():
    """From files and a shape to arrays; traced once a shape."""
    traced = {}

    def run(files, shape=GREY):
        if shape not in traced:
            traced[shape] = tf.function(
                lambda files: encoded_images.decode(files, shape),
                input_signature=[tf.TensorSpec([None], tf.string)],
            )
        images, valid = traced[shape](tf.constant(files, tf.string))
        return images.numpy(), valid.numpy()

    return run


def pixels(height=28, width=28, channels=None, dtype=np.uint8, seed=0):
    shape = (height, width) if channels is None else (height, width, channels)
    highest = np.iinfo(dtype).max
    draws = np.random.default_rng(seed).integers(0, highest + 1, shape)
    return draws.astype(dtype)


def encoded(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, content):
    checksum = zlib.crc32(name + content)
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", checksum)
    )


def black_png(width, height, *first):
    """A whole PNG of 1-bit pixels, the chunks `first` before its header."""
    rows = bytes(1 + (width + 7) // 8) * height
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            *first,
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(rows, 9)),
            chunk(b"IEND", b""),
        ]
    )


def test_a_png_is_its_pixels(decode):
    images, valid = decode([encoded(pixels(seed=n)) for n in range(3)])
    assert valid.all() and images.dtype == np.float32
    for number in range(3):
        expected = pixels(seed=number)[..., np.newaxis] / np.float32(255.0)
        np.testing.assert_allclose(images[number], expected, atol=1e-7)


def test_16_bits_are_kept(decode):
    array = pixels(dtype=np.uint16)
    images, valid = decode([encoded(array)])
    assert valid.all()
    np.testing.assert_allclose(images[0, ..., 0], array / 65535.0, atol=1e-7)


def test_a_jpeg_is_what_pillow_makes_of_it(decode):
    smooth = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 4
    file = encoded(np.stack([smooth] * 3, axis=-1), "JPEG", quality=95)
    images, valid = decode([file], COLOUR)
    expected = np.asarray(Image.open(io.BytesIO(file))) / 255.0
    assert valid.all()
    np.testing.assert_allclose(images[0], expected, atol=1e-6)


def test_channels_become_those_of_the_model(decode):
    grey = pixels(32, 32)
    images, valid = decode([encoded(grey)], COLOUR)
    assert valid.all()
    for channel in range(3):
        np.testing.assert_allclose(
            images[0, ..., channel], grey / 255.0, atol=1e-7
        )
    white = np.full((28, 28, 4), 255, np.uint8)
    white[..., 3] = 7  # Transparency.
    images, valid = decode([encoded(white), encoded(white[..., :3])])
    np.testing.assert_allclose(images, 1.0, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (70, 101), (100, 32), (20, 25)])
def test_sizes_become_those_of_the_image_folder(decode, tmp_path, size):
    ramp = np.add.outer(np.arange(size[0]), 1.3 * np.arange(size[1]))
    array = np.stack([ramp, ramp[::-1], 0.5 * ramp], axis=-1).astype(np.uint8)
    images, valid = decode([encoded(array)], COLOUR)
    (tmp_path / "x.png").write_bytes(encoded(array))
    expected = read_image(str(tmp_path / "x.png"), 32) / 255.0
    assert valid.all()
    # Pillow rounds to 8 bits after each of the two directions.
    np.testing.assert_allclose(images[0], expected, atol=1.6 / 255.0)


def test_a_bad_file_leaves_its_neighbours_alone(decode):
    good = encoded(pixels())
    damaged = bytearray(good)
    damaged[60:90] = b"x" * 30
    jpeg = encoded(pixels(channels=3), "JPEG")
    files = {
        "good": good,
        "empty": b"",
        "text": b"no image at all",
        "half": good[: len(good) // 2],
        "damaged": bytes(damaged),
        "signature": good[:8],
        "gif": encoded(pixels(), "GIF"),
        "half_jpeg": jpeg[: len(jpeg) // 2],
        "start_of_jpeg": b"\xff\xd8\xff",
        "last": encoded(pixels(seed=9)),
    }
    images, valid = decode(list(files.values()))
    expected = np.array([name in ("good", "last") for name in files])
    np.testing.assert_array_equal(valid, expected)
    assert not images[~expected].any()
    alone, _ = decode([files["good"], files["last"]])
    np.testing.assert_array_equal(images[expected], alone)


@pytest.mark.parametrize("size", [(4097, 1), (1, 4097), (6000, 6000)])
def test_what_is_too_large_is_not_decoded(decode, size):
    file = black_png(*size)
    assert tf.io.decode_png(file).shape == (size[1], size[0], 1)
    _, valid = decode([file, encoded(pixels())])
    np.testing.assert_array_equal(valid, [False, True])


def test_the_size_is_the_headers_wherever_it_is(decode):
    """A chunk in front of it that nobody knows has a size of its own."""
    unknown = chunk(b"abCd", struct.pack(">II", 1, 1) + b"12345")
    file = black_png(6000, 6000, unknown)
    assert tf.io.decode_png(file).shape == (6000, 6000, 1)
    _, valid = decode([file, black_png(28, 28)])
    np.testing.assert_array_equal(valid, [False, True])


@pytest.mark.parametrize("size", [(4096, 1), (1, 4096), (4096, 3)])
def test_a_long_thin_file_takes_no_more_memory_than_others(size):
    """Scaled until it covers the image, it would have 3 GB."""
    decode = tf.function(encoded_images.decode, reduce_retracing=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images, valid = decode(tf.constant([black_png(*size)]), (256, 256, 3))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert valid.numpy().all() and not images.numpy().any()
    assert (after - before) / 2**10 < 500


def test_a_long_thin_file_is_cut_like_the_others(decode, tmp_path):
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    array = np.stack([ramp, ramp, ramp])
    images, valid = decode([encoded(array)])
    (tmp_path / "x.png").write_bytes(encoded(array))
    expected = read_image(str(tmp_path / "x.png"), 28)[..., :1] / 255.0
    assert valid.all()
    np.testing.assert_allclose(images[0], expected, atol=1.6 / 255.0)


def test_a_jpeg_that_says_that_it_is_too_large_is_not_decoded(decode):
    file = bytearray(encoded(pixels(16, 16, 3), "JPEG"))
    frame = file.index(b"\xff\xc0")
    assert file[frame + 5 : frame + 9] == b"\x00\x10\x00\x10"
    file[frame + 5 : frame + 7] = (4097).to_bytes(2, "big")
    _, valid = decode([bytes(file)])
    np.testing.assert_array_equal(valid, [False])


def test_the_largest_that_is_allowed_is_decoded(decode):
    white = np.full((1, 4096), 255, np.uint8)
    images, valid = decode([encoded(white)])
    assert valid.all()
    np.testing.assert_allclose(images, 1.0, atol=1e-5)


def test_no_files_are_no_images(decode):
    images, valid = decode([])
    assert images.shape == (0, *GREY) and valid.shape == (0,)
