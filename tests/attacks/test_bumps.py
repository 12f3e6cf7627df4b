"""The patches of the L2 Square attack, against plain loops."""

import numpy as np
import pytest
import tensorflow as tf

from attacks import bumps


def plain_bump(height, width):
    """Sec. 3.4 of the paper: centred rectangles, one added to another."""
    bump = np.zeros((height, width))
    for layer in range(max(height // 2 + 1, width // 2 + 1)):
        for i in range(height):
            for j in range(width):
                inside = abs(i - height // 2) <= layer
                if inside and abs(j - width // 2) <= layer:
                    bump[i, j] += 1.0 / (layer + 1) ** 2
    return bump / np.sqrt((bump**2).sum())


def plain_patch(side):
    patch = np.zeros((side, side))
    if side > 1:
        patch[: side // 2] = plain_bump(side // 2, side)
    patch[side // 2 :] = -plain_bump(side - side // 2, side)
    return patch / np.sqrt((patch**2).sum())


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 11])
def test_a_patch_has_the_published_form(side):
    np.testing.assert_allclose(
        bumps.eta(side), plain_patch(side), rtol=0, atol=1e-12
    )


def test_a_patch_of_side_3_is_known():
    # The upper bump is a row; the lower one is centred in the last row.
    near, far = 1.0 + 1.0 / 4.0, 1.0 / 4.0
    upper = np.array([[far, near, far]])
    lower = np.array([[far, far, far], [far, near, far]])
    upper /= np.sqrt(2 * far**2 + near**2)
    lower /= np.sqrt(5 * far**2 + near**2)
    expected = np.concatenate([upper, -lower]) / np.sqrt(2.0)
    np.testing.assert_allclose(bumps.eta(3), expected, atol=1e-12)


def test_patches_of_all_sizes_are_placed_in_one_batch():
    sides = [5, 3, 3, 1]
    chosen = np.array([0, 1, 2, 3, 0])
    tops, lefts = np.array([2, 0, 4, 6, 1]), np.array([3, 5, 0, 7, 2])
    is_turned = np.array([False, True, False, True, True])
    placed = bumps.place(
        sides,
        tf.constant(chosen, tf.int32),
        tf.constant(np.arange(7) - tops[:, None], tf.int32),
        tf.constant(np.arange(8) - lefts[:, None], tf.int32),
        tf.constant(is_turned),
    )
    expected = np.zeros((5, 7, 8, 1))
    for image in range(5):
        side = sides[chosen[image]]
        patch = plain_patch(side)
        patch = patch.T if is_turned[image] else patch
        for i in range(side):
            for j in range(side):
                row, column = tops[image] + i, lefts[image] + j
                expected[image, row, column, 0] = patch[i, j]
    np.testing.assert_allclose(placed, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((28, 28, 1), (5, 5, 5)),
        ((32, 32, 3), (6, 5, 5)),
        ((224, 224, 3), (44, 5, 5)),
        ((10, 23, 2), (2, 5, 11)),
        ((3, 2, 1), (1, 3, 2)),
    ],
)
def test_a_grid_is_of_five_patches_along_the_shorter_side(shape, size):
    # Of images of less than five, or not square, as many as fit.
    assert bumps.grid_size(shape) == size


def test_a_grid_is_patches_side_by_side():
    shape = (16, 21, 2)
    generator = np.random.default_rng(0)
    signs = generator.choice([-1.0, 1.0], (4, 5, 7, 2))
    is_turned = generator.random((4, 5, 7)) < 0.5
    grid = bumps.grid(shape, tf.constant(signs, tf.float32), is_turned)
    expected = np.zeros((4, *shape))
    for image, row, column in np.ndindex(4, 5, 7):
        patch = plain_patch(3)
        patch = patch.T if is_turned[image, row, column] else patch
        for channel in range(2):
            # One row is left over, which is the last.
            expected[
                image,
                3 * row : 3 * row + 3,
                3 * column : 3 * column + 3,
                channel,
            ] = signs[image, row, column, channel] * patch
    np.testing.assert_allclose(grid, expected, atol=1e-6)


def plain_mix(change, first, second, patch, epsilon):
    """Algorithm 3, lines 4 to 11, of one image, in float64."""
    unused = max(epsilon**2 - (change**2).sum(), 0.0)
    channels = change.shape[-1]
    new = change.copy()
    for channel in range(channels):
        old = change[..., channel]
        norm = np.sqrt((old[first] ** 2).sum())
        mixed = patch[..., channel][first]
        if norm > 0.0:
            mixed = mixed + old[first] / norm
        energy = (old[first | second] ** 2).sum() + unused / channels
        new[..., channel][second] = 0.0
        new[..., channel][first] = (
            mixed / np.sqrt((mixed**2).sum()) * np.sqrt(energy)
        )
    return new


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("epsilon", [0.5, 9.0])
def test_a_mixture_is_that_of_the_algorithm(channels, epsilon):
    generator = np.random.default_rng(1)
    change = generator.normal(size=(3, 8, 9, channels)) / 10
    # Nothing is in the first square of the last image yet.
    change[2, :4, :4] = 0.0
    first, second = np.zeros((2, 3, 8, 9), bool)
    first[0, 1:4, 2:5], second[0, 5:8, 6:9] = True, True
    first[1, 2:5, 3:6], second[1, 3:6, 4:7] = True, True
    first[2, 0:3, 1:4], second[2, 4:7, 0:3] = True, True
    patch = np.zeros_like(change)
    for image in range(3):
        signs = generator.choice([-1.0, 1.0], channels)
        patch[image][first[image]] = plain_patch(3).reshape(-1, 1) * signs
    expected = [
        plain_mix(*arguments, epsilon)
        for arguments in zip(change, first, second, patch, strict=True)
    ]
    mixed = bumps.mix(
        tf.constant(change, tf.float32),
        tf.constant(first[..., None], tf.float32),
        tf.constant(second[..., None], tf.float32),
        tf.constant(patch, tf.float32),
        epsilon,
    )
    np.testing.assert_allclose(mixed, expected, atol=1e-5)
    if epsilon == 9.0:
        # Longer than all that was there: now all of it is used.
        lengths = np.sqrt((mixed.numpy() ** 2).sum((1, 2, 3)))
        np.testing.assert_allclose(lengths, epsilon, rtol=1e-5)
