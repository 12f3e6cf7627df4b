"""Images from .npy streams: batches, what does not fit, what is broken."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from ape_gan_tf.npy_stream import NpyStream

SHAPE = (6, 5, 1)


def images(count=7):
    return np.random.default_rng(8).random((count, *SHAPE), dtype=np.float32)


def written(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def read(content, batch_size=3):
    stream = NpyStream.open(io.BytesIO(content), "x")
    return list(stream.batches(batch_size))


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_images_come_in_batches(version):
    batches = read(written(images(), version))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(batches), images())


def test_the_header_tells_what_comes():
    stream = NpyStream.open(io.BytesIO(written(images())), "x")
    assert (stream.count, stream.image_shape) == (7, SHAPE)


@pytest.mark.parametrize("order", ["<f4", ">f4"])
def test_either_byte_order_becomes_the_machines(order):
    (batch,) = read(written(images().astype(order)), 100)
    assert batch.dtype == np.float32 and batch.dtype.isnative
    np.testing.assert_array_equal(batch, images())


def test_no_images_give_no_batches():
    assert read(written(images(0))) == []


class Endless(io.RawIOBase):
    """A header that promises `count` images, and zeros."""

    def __init__(self, count):
        self.header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            self.header,
            {"descr": "<f4", "fortran_order": False, "shape": (count, *SHAPE)},
        )
        self.header.seek(0)
        self.left = count * np.prod(SHAPE) * 4

    def read(self, size):
        head = self.header.read(size)
        zeros = bytes(min(size - len(head), self.left))
        self.left -= len(zeros)
        return head + zeros


def test_memory_is_that_of_a_batch_however_many_images_come():
    stream = NpyStream.open(Endless(200_000), "x")  # 24 MB
    batches = stream.batches(1000)
    next(batches)
    tracemalloc.start()
    try:
        rest = sum(len(batch) for batch in batches)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rest == 199_000
    assert peak < 10 * 1000 * np.prod(SHAPE) * 4


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (images().astype(np.float64), r"hold float32 .*float64 \[7, 6, 5, 1\]"),
        (images().astype(np.float16), "must hold float32 .* got float16"),
        (np.zeros((2, *SHAPE), np.uint8), "must hold float32 .* got uint8"),
        (images()[0], r"got float32 \[6, 5, 1\]"),
        (np.float32(0.5), r"got float32 \[\]"),
        (np.zeros(2, [("a", np.float32)]), "must hold float32"),
        (np.zeros((2, *SHAPE), "c8"), "must hold float32 .* got complex64"),
        (np.asfortranarray(images()), "x must be in C order, .* Fortran order"),
        (images() + 1.0, r"x from image 0 on must be float32 in \[0, 1\]"),
        (images() * np.nan, "input x from image 0 on .* NaN"),
    ],
)
def test_what_does_not_fit_is_named(array, message):
    with pytest.raises(ValueError, match=message):
        read(written(array))


def test_what_is_pickled_is_refused_unread():
    content = io.BytesIO()
    np.save(content, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"float32 .* got object \[1\]"):
        read(content.getvalue())


def test_the_image_that_does_not_fit_is_counted():
    array = images()
    array[5, 2, 2] = -0.5
    with pytest.raises(ValueError, match="input x from image 3 on .* -0.5"):
        read(written(array))


def test_a_negative_count_is_refused():
    content = written(images()).replace(b"(7, 6", b"(-7,6")
    with pytest.raises(ValueError, match=r"got float32 \[-7, 6, 5, 1\]"):
        read(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        written(images())[:60],
        b"no array, but quite a few bytes",
        b"\x93NUMPY\x03\x00" + written(images())[8:],
        written(images()).replace(b"{", b"[", 1),
        written(images()).replace(b"'<f4'", b"'<zz'"),
    ],
)
def test_what_is_no_npy_file_is_named(content):
    with pytest.raises(ValueError, match="input x is no .npy file: .+"):
        read(content)


@pytest.mark.parametrize("images_left", [0, 2.5, 3, 6.99])
def test_a_stream_that_ends_early_says_where(images_left):
    size = 128 + int(images_left * 6 * 5) * 4
    message = f"must hold 7 images, .* ends after {int(images_left)}$"
    with pytest.raises(ValueError, match=message):
        read(written(images())[:size])


def test_a_stream_that_goes_on_is_refused():
    with pytest.raises(ValueError, match="end after 7 images, .* it goes on"):
        read(written(images()) + written(images()))


def test_damage_in_an_npz_member_is_named(tmp_path):
    noise = np.random.default_rng(0).random((500, *SHAPE), np.float32)
    np.savez_compressed(tmp_path / "x.npz", noise)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "x.npz").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        with archive.open("arr_0.npy") as member:
            # Or values that are none, where it can be inflated all the same.
            with pytest.raises(ValueError, match="input x .*(read|must)"):
                list(NpyStream.open(member, "x").batches(100))
