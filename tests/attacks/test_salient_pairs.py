"""The search for the best pair, against the whole matrix of pairs."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import models
from attacks import salient_pairs
from attacks.jsma import JSMA
from tests.attacks.plain_jsma import matrix_pair, plain_pair

COUNT = 30


def normal(generator, size):
    return generator.normal(size=(2, COUNT, size))


def opposed(generator, size):
    """What rises most falls least: everything is in the skyband."""
    rise = generator.normal(size=(COUNT, size))
    return rise, 0.5 - rise


def alike(generator, size):
    rise = generator.normal(size=(COUNT, size))
    return rise, rise


def equal(generator, size):
    return np.ones((2, COUNT, size))


def flat_and_sorted(generator, size):
    """Ties in one coordinate, met in the worst order."""
    fall = np.sort(generator.normal(size=(COUNT, size)))
    return np.ones((COUNT, size)), fall


def of_all_magnitudes(generator, size):
    """Sums that rounding makes equal to others."""
    values = generator.normal(size=(2, COUNT, size))
    return values * 10.0 ** generator.integers(-9, 4, size=values.shape)


def never_valid(generator, size):
    return -generator.random((2, COUNT, size))


CASES = [
    normal,
    opposed,
    alike,
    equal,
    flat_and_sorted,
    of_all_magnitudes,
    never_valid,
]


def compiled(size, xla=False):
    values = tf.TensorSpec([None, size], tf.float32)
    return tf.function(
        # A new partial each time: TensorFlow warns of traces of one function.
        functools.partial(salient_pairs.most_salient_pair),
        input_signature=[values, values, tf.TensorSpec([None, size], tf.bool)],
        jit_compile=xla or None,
    )


compiled_once = functools.cache(compiled)


def search(rise, fall, is_allowed, function=None):
    function = function or compiled(rise.shape[1])
    first, second, is_found = function(rise, fall, is_allowed)
    pairs = zip(first.numpy(), second.numpy(), is_found.numpy(), strict=True)
    return [(p, q) if found else None for p, q, found in pairs]


def plain_search(rise, fall, is_allowed):
    rows = zip(rise, fall, is_allowed, strict=True)
    return [plain_pair(a, -b, allowed) for a, b, allowed in rows]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [2, 3, 8, 33])
@pytest.mark.parametrize("levels", [None, 1, 3], ids="levels={}".format)
def test_the_pair_is_that_of_the_whole_matrix(case, size, levels):
    generator = np.random.default_rng(size)
    rise, fall = case(generator, size)
    if levels is not None:  # Of few values, many pairs are equally good.
        rise, fall = (np.round(x * levels) / levels for x in (rise, fall))
    rise, fall = np.float32(rise), np.float32(fall)
    is_allowed = generator.random(rise.shape) < 0.8
    is_allowed[: COUNT // 2] = True
    found = search(rise, fall, is_allowed, compiled_once(size))
    assert found == plain_search(rise, fall, is_allowed)
    if case is not never_valid:
        assert any(found)


@pytest.mark.parametrize("case", [normal, opposed, of_all_magnitudes])
def test_xla_finds_the_same_pairs(case):
    rise, fall = np.float32(case(np.random.default_rng(1), 33))
    is_allowed = np.ones(rise.shape, bool)
    found = search(rise, fall, is_allowed, compiled_once(33, xla=True))
    assert found == plain_search(rise, fall, is_allowed)


@pytest.mark.parametrize("theta", [1.0, -0.5])
def test_the_plain_searches_agree(theta):
    generator = np.random.default_rng(9)
    alphas, betas = np.float32(generator.integers(-3, 4, (2, COUNT, 15)) / 4)
    is_allowed = generator.random((COUNT, 15)) < 0.8
    for row in zip(alphas, betas, is_allowed, strict=True):
        assert plain_pair(*row, theta) == matrix_pair(*row, theta)


def test_nothing_allowed_is_no_pair():
    ones = np.ones((2, 5), np.float32)
    is_allowed = np.zeros((2, 5), bool)
    is_allowed[1, 3] = True
    assert search(ones, ones, is_allowed) == [None, None]


def test_one_value_is_no_pair():
    one = np.ones((3, 1), np.float32)
    assert search(one, one, one > 0) == [None] * 3


def test_large_images_are_searched_as_far_as_the_limit_says(monkeypatch):
    """Within the limit the result is exact above `EXACT_SIZE` too."""
    monkeypatch.setattr(salient_pairs, "EXACT_SIZE", 30)
    monkeypatch.setattr(salient_pairs, "PRUNED_MEMBERS", 20)
    rise, fall = np.float32(normal(np.random.default_rng(2), 33))
    is_allowed = np.ones(rise.shape, bool)
    assert search(rise, fall, is_allowed) == plain_search(
        rise, fall, is_allowed
    )


def test_a_pruned_search_begins_with_the_value_that_rises_most(monkeypatch):
    monkeypatch.setattr(salient_pairs, "EXACT_SIZE", 3)
    monkeypatch.setattr(salient_pairs, "PRUNED_MEMBERS", 1)
    rise = np.float32([[4.0, 2.0, 2.1, 1.0]])
    fall = np.float32([[-2.0, 2.5, 2.4, 2.3]])
    is_allowed = np.ones(rise.shape, bool)
    assert plain_search(rise, fall, is_allowed) == [(1, 2)]
    # With value 0, value 1 makes the best pair; with value 1, value 2 does.
    assert search(rise, fall, is_allowed) == [(1, 2)]
    # Value 3 is the best partner of value 0, and value 1 of value 3.
    fall = np.float32([[-2.0, 2.1, 2.2, 2.8]])
    rise = np.float32([[4.0, 2.3, 2.2, 1.4]])
    assert plain_search(rise, fall, is_allowed) == [(1, 2)]
    assert search(rise, fall, is_allowed) == [(1, 3)]


# Memory, at the batch of CIFAR-10, where all pairs would be 9 GiB


def search_large_images():
    rise, fall = np.float32(opposed(np.random.default_rng(3), 3072))
    rise, fall = np.tile(rise, [9, 1]), np.tile(fall, [9, 1])
    fall[:, 40:] -= 9.0  # Only the first are worth a visit.
    is_allowed = np.ones(rise.shape, bool)
    before = peak_memory()
    search(rise, fall, is_allowed)
    print(peak_memory() - before)


def attack_large_images():
    generator = np.random.default_rng(4)
    weights = generator.normal(size=(3072, 10)).astype(np.float32)
    images = generator.random((256, 32, 32, 3), np.float32)
    classifier = models.Classifier.from_callable(
        lambda images: tf.reshape(images, (-1, 3072)) @ weights,
        image_shape=(32, 32, 3),
        num_classes=10,
        fingerprint="large",
    )
    attack = JSMA(gamma=0.004, batch_size=256)  # At most six pairs.
    before = peak_memory()
    result = attack(classifier, images, np.arange(256) % 10)
    print(peak_memory() - before)
    assert np.max(result.l0) == 12


def peak_memory():
    """Bytes; what getrusage has is inherited from the process that began."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's /proc"
)
@pytest.mark.parametrize(
    ("task", "gibibytes"),
    [(search_large_images, 0.5), (attack_large_images, 2.0)],
)
def test_memory_is_that_of_a_few_images_not_of_all_pairs(task, gibibytes):
    name = task.__name__
    done = subprocess.run(
        # A process of its own: other tests may have needed more before.
        [
            sys.executable,
            "-c",
            f"from tests.attacks.test_salient_pairs import {name}; {name}()",
        ],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    assert int(done.stdout) < gibibytes * 2**30
