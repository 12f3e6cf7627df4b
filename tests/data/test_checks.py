"""What crosses a public boundary is refused with a message that helps."""

import numpy as np
import pytest
import tensorflow as tf

from data import checks


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


@pytest.mark.parametrize("convert", [np.asarray, tf.constant, tf.Variable])
def test_good_images_come_back_as_a_float32_tensor(convert):
    images = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4, 1)
    result = checks.check_images(convert(images), image_shape=(3, 4, 1))
    assert tf.is_tensor(result) and result.dtype == tf.float32
    np.testing.assert_array_equal(result, images)


def test_an_empty_batch_of_images_is_allowed():
    assert checks.check_images(ones(0, 3, 3, 1)).shape == (0, 3, 3, 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (ones(3, 3, 1), r"starts must have rank 4 .*got rank 3, shape \(3, 3"),
        (ones(1, 3, 3, 1, dtype=np.float64), "got dtype float64"),
        (ones(1, 3, 3, 1, dtype=np.uint8), "got dtype uint8"),
        (ones(1, 3, 3, 1, dtype=np.float16), "got dtype float16"),
        (ones(1, 3, 3, 3), r"\(3, 3, 1\), got \(3, 3, 3\)"),
        (ones(1, 4, 3, 1), r"\(3, 3, 1\), got \(4, 3, 1\)"),
        (ones(1, 3, 3, 1) * 1.5, "in .0, 1., got values from 1.5 to 1.5"),
        (ones(1, 3, 3, 1) * -0.5, "got values from -0.5 to -0.5"),
        (ones(2, 3, 3, 1) * np.nan, "got 18 NaN values"),
        (ones(1, 3, 3, 1) * np.inf, "got values from inf to inf"),
        ("a path", "got dtype string"),
        (None, "got NoneType"),
        ([[1.0], [1.0, 2.0]], "got list"),
    ],
)
def test_bad_images_are_refused_by_name(images, message):
    with pytest.raises(ValueError, match=message) as error:
        checks.check_images(images, "starts", (3, 3, 1))
    assert str(error.value).startswith("starts must be") or (
        str(error.value).startswith("starts must have")
    )


def test_symbolic_images_get_the_static_checks():
    @tf.function(autograph=False)
    def traced(images):
        return checks.check_images(images, image_shape=(3, 3, 1))

    # The values are not known while tracing.
    assert traced(tf.constant(2 * ones(1, 3, 3, 1))).shape == (1, 3, 3, 1)
    with pytest.raises(ValueError, match=r"got \(2, 3, 1\)"):
        traced(tf.constant(ones(1, 2, 3, 1)))
    with pytest.raises(ValueError, match="got dtype int32"):
        traced(tf.constant(ones(1, 3, 3, 1, dtype=np.int32)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_labels_of_any_integer_width_become_int64(dtype):
    labels = checks.check_labels(np.array([0, 9], dtype), 10, count=2)
    assert labels.dtype == tf.int64
    assert labels.numpy().tolist() == [0, 9]


def test_no_labels_are_allowed():
    assert checks.check_labels([], 10, count=0).shape == (0,)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 10], r"targets must be in \[0, 10\), got values from 0 to 10"),
        ([-1, 3], "got values from -1 to 3"),
        ([0.0, 1.0], "targets must be integers, got dtype float64"),
        ([True, False], "targets must be integers, got dtype bool"),
        ([[0, 1]], r"targets must have shape \[B\].* got shape \(1, 2\)"),
        ([0, 1, 2], "one entry per image, expected 2, got 3"),
    ],
)
def test_bad_labels_are_refused_by_name(labels, message):
    with pytest.raises(ValueError, match=message):
        checks.check_labels(labels, 10, count=2, argument="targets")


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    known = {"pgd": 1, "fgsm": 2}
    assert checks.check_one_of("pgd", known, "attack") == "pgd"
    message = r"attack must be one of fgsm, pgd, got 'fsgm'; did you .*'fgsm'"
    with pytest.raises(ValueError, match=message):
        checks.check_one_of("fsgm", known, "attack")
    with pytest.raises(ValueError, match="got 'zzz'$"):
        checks.check_one_of("zzz", known, "attack")


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None])
def test_what_is_no_positive_integer_is_refused(value):
    with pytest.raises(ValueError, match="count must be a positive integer"):
        checks.check_positive_integer(value, "count")
    assert checks.check_positive_integer(np.int32(3), "count") == 3


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5", None, True])
def test_what_is_no_number_in_range_is_refused(value):
    with pytest.raises(ValueError, match=r"epsilon must be a number in \[0, 1"):
        checks.check_in_range(value, 0, 1, "epsilon")
    assert checks.check_in_range(np.float32(1), 0, 1, "epsilon") == 1.0
