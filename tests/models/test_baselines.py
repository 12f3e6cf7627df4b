"""The cheap defences against SciPy's filters, Pillow's JPEG and arithmetic."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage

import models

SHAPES = [(12, 9, 1), (12, 9, 3)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_name = pytest.mark.parametrize("name", models.BASELINES)


def images_of(shape, count=5):
    """Noise, between a black image and a white one."""
    images = np.random.default_rng(0).random((count, *shape), np.float32)
    images[0], images[-1] = 0.0, 1.0
    return images


def gradient(purifier, images, upstream):
    """Returns the product of `upstream` with the purifier's derivative."""
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        purified = purifier(images)
    return tape.gradient(
        purified,
        images,
        output_gradients=tf.constant(upstream),
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    ).numpy()


@each_shape
@each_name
def test_results_are_images_of_any_batch(name, shape):
    purifier = models.baseline(name, shape)
    images = images_of(shape)
    for count in (0, 1, 5):
        for purified in (
            purifier.predict(images[:count]),
            purifier(tf.constant(images[:count])).numpy(),
        ):
            assert purified.shape == (count, *shape)
            assert purified.dtype == np.float32
            assert ((purified >= 0.0) & (purified <= 1.0)).all()


@each_shape
@pytest.mark.parametrize(
    "name", [name for name in models.BASELINES if name != "random_noise"]
)
def test_an_image_does_not_depend_on_its_batch(name, shape):
    purifier = models.baseline(name, shape)
    images = images_of(shape)
    together = purifier.predict(images)
    alone = purifier.predict(images, batch_size=1)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    eager = purifier(tf.constant(images))
    np.testing.assert_allclose(together, eager, rtol=0, atol=1e-6)


@each_name
def test_an_empty_batch_has_an_empty_gradient(name):
    empty = images_of((12, 9, 3))[:0]
    purifier = models.baseline(name, empty.shape[1:])
    assert gradient(purifier, empty, empty).shape == empty.shape


def test_identity_changes_nothing():
    images = images_of((12, 9, 3))
    purifier = models.baseline("identity", (12, 9, 3))
    np.testing.assert_array_equal(purifier.predict(images), images)


def scipy_blur(images, sigma):
    return ndimage.gaussian_filter(
        images.astype(np.float64),
        (0, sigma, sigma, 0),
        mode="reflect",
        truncate=3.0,
    )


@each_shape
@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.0, 3.0])
def test_gaussian_blur_is_that_of_scipy(shape, sigma):
    images = images_of(shape)
    blurred = models.baseline("gaussian_blur", shape, sigma=sigma)
    np.testing.assert_allclose(
        blurred.predict(images), scipy_blur(images, sigma), rtol=0, atol=1e-6
    )


@each_shape
def test_gradient_of_blur_is_the_transposed_filter(shape):
    # The white image too, where rounding leaves the range.
    images = images_of(shape)
    upstream = np.random.default_rng(1).normal(size=images.shape)
    upstream = upstream.astype(np.float32)
    units = np.eye(np.prod(shape)).reshape(-1, *shape)
    matrix = scipy_blur(units, 1.0).reshape(len(units), -1)
    expected = upstream.reshape(len(images), -1) @ matrix.T
    found = gradient(models.baseline("gaussian_blur", shape), images, upstream)
    np.testing.assert_allclose(
        found.reshape(len(images), -1), expected, rtol=0, atol=1e-5
    )


@each_shape
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_median_filter_is_that_of_scipy(shape, size):
    images = images_of(shape)
    median = models.baseline("median_filter", shape, size=size)
    expected = ndimage.median_filter(
        images, size=(1, size, size, 1), mode="reflect"
    )
    np.testing.assert_array_equal(median.predict(images), expected)


def test_gradient_of_a_median_goes_to_the_pixel_that_it_is():
    images = images_of((3, 3, 1))[1:2]
    upstream = np.zeros_like(images)
    upstream[0, 1, 1] = 2.0
    purifier = models.baseline("median_filter", (3, 3, 1))
    expected = np.where(images == np.median(images), 2.0, 0.0)
    np.testing.assert_array_equal(
        gradient(purifier, images, upstream), expected
    )


@each_shape
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bit_depth_rounds_to_the_nearest_level(shape, bits):
    images = images_of(shape)
    levels = np.arange(2**bits) / (2**bits - 1)
    nearest = np.abs(images[..., None] - levels).argmin(-1)
    squeezed = models.baseline("bit_depth", shape, bits=bits)
    np.testing.assert_allclose(
        squeezed.predict(images), levels[nearest], rtol=0, atol=1e-7
    )


def test_bit_depth_leaves_grey_one_bit_and_colour_four():
    grey = models.baseline("bit_depth", (12, 9, 1))
    colour = models.baseline("bit_depth", (12, 9, 3), bits=None)
    assert set(np.unique(grey.predict(images_of((12, 9, 1))))) == {0.0, 1.0}
    assert len(np.unique(colour.predict(images_of((12, 9, 3))))) == 16


def pillow_jpeg(image, quality):
    file = io.BytesIO()
    pixels = np.rint(image.astype(np.float64) * 255).astype(np.uint8)
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return np.asarray(decoded).reshape(image.shape) / 255.0


@each_shape
@pytest.mark.parametrize("quality", [1, 50, 90])
def test_jpeg_is_that_of_pillow(shape, quality):
    images = images_of(shape)
    expected = [pillow_jpeg(image, quality) for image in images]
    found = models.baseline("jpeg", shape, quality=quality).predict(images)
    # Decoders may differ by a level of 8 bits or two.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2.1 / 255)
    assert np.abs(images - expected).max() > 2.1 / 255


@pytest.mark.parametrize("name", ["bit_depth", "jpeg"])
def test_what_rounds_has_no_gradient(name):
    images = images_of((12, 9, 3))
    purifier = models.baseline(name, (12, 9, 3))
    assert not gradient(purifier, images, np.ones_like(images)).any()


def test_random_noise_is_normal_and_new_in_each_call():
    tf.random.set_seed(0)
    grey = np.full((50, 12, 9, 3), 0.5, np.float32)
    purifier = models.baseline("random_noise", (12, 9, 3), stddev=0.05)
    compiled = [purifier.predict(grey) for _ in range(2)]
    eager = [purifier(tf.constant(grey)).numpy() for _ in range(2)]
    noises = [answer - 0.5 for answer in compiled + eager]
    for first, noise in enumerate(noises):
        # 16,200 draws: the deviation of the estimates is below 0.6 %.
        assert abs(noise.mean()) < 0.05 * 0.04
        assert abs(noise.std() / 0.05 - 1.0) < 0.03
        for other in noises[first + 1 :]:
            correlation = np.corrcoef(noise.ravel(), other.ravel())[0, 1]
            assert abs(correlation) < 0.04
    # Each image has its own.
    assert len({image.tobytes() for image in noises[0]}) == 50


def test_random_noise_is_clipped_to_the_range():
    tf.random.set_seed(0)
    images = images_of((12, 9, 3))
    noisy = models.baseline("random_noise", (12, 9, 3)).predict(images)
    for image, bound in ((noisy[0], 0.0), (noisy[-1], 1.0)):
        assert 0.3 < (image == bound).mean() < 0.7


def test_fingerprint_and_name_follow_the_parameters():
    shape = (12, 9, 3)
    purifiers = [models.baseline(name, shape) for name in models.BASELINES]
    purifiers.append(models.baseline("jpeg", shape, quality=50))
    purifiers.append(models.baseline("gaussian_blur", shape, sigma=2))
    assert len({each.fingerprint for each in purifiers}) == len(purifiers)
    for each in purifiers:
        name, params = models.parse_baseline(each.name)
        again = models.baseline(name, shape, **params)
        assert again.name == each.name
        assert again.fingerprint == each.fingerprint
    default = models.baseline("bit_depth", shape)
    explicit = models.baseline("bit_depth", shape, bits=4)
    assert explicit.fingerprint == default.fingerprint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gaussian_blur", ("gaussian_blur", {})),
        ("jpeg:quality=50", ("jpeg", {"quality": 50})),
        (" median_filter : size = 5 ", ("median_filter", {"size": 5})),
        ("gaussian_blur:sigma=1/2", ("gaussian_blur", {"sigma": 0.5})),
    ],
)
def test_a_baseline_is_read_from_text(text, expected):
    assert models.parse_baseline(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jpg:quality=5", "baseline must be .*identity, jpeg.*mean 'jpeg'"),
        ("", "baseline must be one of bit_depth, .* got ''"),
        ("jpeg:50", "the parameters of jpeg must look like name=.* got '50'"),
        ("jpeg:quality=1,quality=2", "of jpeg has 'quality' more than once"),
    ],
)
def test_text_that_names_no_baseline_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        models.parse_baseline(text)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("blur", {}, "baseline must be one of bit_depth, gaussian_blur"),
        ("jpeg", {"qualty": 5}, "parameter of jpeg must .*mean 'quality'"),
        ("identity", {"x": 1}, "identity has no parameters, got 'x'"),
        ("jpeg", {"quality": 101}, r"quality must be .*\[1, 100\], got 101"),
        ("jpeg", {"quality": 7.5}, "quality must be a positive integer"),
        ("bit_depth", {"bits": 9}, r"bits must be .*\[1, 8\], got 9"),
        ("bit_depth", {"bits": 0}, "bits must be a positive integer, got 0"),
        ("median_filter", {"size": 10}, r"size must be .*\[1, 9\], got 10"),
        ("gaussian_blur", {"sigma": 0}, r"sigma must be .*\[0.1, 3.0\], got"),
        ("gaussian_blur", {"sigma": 3.1}, "sigma must be .* got 3.1"),
        ("random_noise", {"stddev": -0.1}, "stddev must be .* got -0.1"),
        ("random_noise", {"stddev": "big"}, "stddev must be .* got 'big'"),
    ],
)
def test_what_does_not_fit_is_refused(name, params, message):
    with pytest.raises(ValueError, match=message):
        models.baseline(name, (12, 9, 3), **params)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 or 3 channels for jpeg, got"):
        models.baseline("jpeg", (12, 9, 2))
    with pytest.raises(ValueError, match="image_shape must be"):
        models.baseline("identity", (12, 9))
