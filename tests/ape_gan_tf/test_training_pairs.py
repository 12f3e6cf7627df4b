"""Training pairs are moved alike, and by the seed and the step alone."""

import numpy as np
import pytest
import tensorflow as tf

from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.training_pairs import augmented

COUNT, BATCH_SIZE = 32, 16
CONFIG = {"batch_size": BATCH_SIZE, "seed": 3}


@pytest.fixture(scope="module")
def clean():
    generator = np.random.default_rng(0)
    return generator.uniform(0.5, 1.0, (COUNT, 8, 6, 1)).astype(np.float32)


def changed(clean, *, start=0, **settings):
    """Both images of all pairs; the adversarial ones half as bright."""
    pairs = {"images": clean, "adversarial": clean / 2}
    rows = tf.data.Dataset.from_tensor_slices(pairs)
    batches = rows.batch(BATCH_SIZE, drop_remainder=True)
    found = list(
        augmented(
            PurifierConfig(**CONFIG, **settings), batches.skip(start), start
        )
    )
    return tuple(
        np.concatenate([batch[name] for batch in found])
        for name in ("images", "adversarial")
    )


def shifted(image, down, right):
    """An image moved in NumPy, black where nothing was."""
    height, width, _ = image.shape
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)])
    return padded[2 - down : 2 - down + height, 2 - right : 2 - right + width]


def test_without_augmentation_pairs_stay_as_they_are(clean):
    images, adversarial = changed(clean)
    np.testing.assert_array_equal(images, clean)
    np.testing.assert_array_equal(adversarial, clean / 2)


def test_pairs_are_shifted_alike(clean):
    images, adversarial = changed(clean, training_shift=2)
    np.testing.assert_array_equal(adversarial, images / 2)
    steps = range(-2, 3)
    moves = set()
    for before, after in zip(clean, images, strict=True):
        (move,) = [
            (down, right)
            for down in steps
            for right in steps
            if np.array_equal(shifted(before, down, right), after)
        ]
        moves.add(move)
    assert len(moves) > 10


def test_pairs_are_mirrored_alike(clean):
    images, adversarial = changed(clean, training_flip=True)
    np.testing.assert_array_equal(adversarial, images / 2)
    is_mirrored = [
        np.array_equal(before[:, ::-1], after)
        for before, after in zip(clean, images, strict=True)
    ]
    is_kept = [
        np.array_equal(before, after)
        for before, after in zip(clean, images, strict=True)
    ]
    np.testing.assert_array_equal(is_mirrored, np.logical_not(is_kept))
    assert 8 <= sum(is_mirrored) <= 24


def test_shifted_and_mirrored_pairs_are_cropped_alike(clean):
    images, adversarial = changed(
        clean, training_shift=1, training_flip=True, training_crop=4
    )
    assert images.shape == (COUNT, 4, 4, 1)
    np.testing.assert_array_equal(adversarial, images / 2)
    only_cropped, _ = changed(clean, training_crop=4)
    # A pixel of black is one that moved in; there is none else.
    assert (images == 0.0).any() and (only_cropped > 0.0).all()
    assert not np.array_equal(
        images[images.min((1, 2, 3)) > 0.0],
        only_cropped[images.min((1, 2, 3)) > 0.0],
    )


def test_each_step_moves_anew(clean):
    twice = np.concatenate([clean[:BATCH_SIZE]] * 2)
    images, _ = changed(twice, training_shift=2)
    first, second = np.split(images, 2)
    assert (first != second).any((1, 2, 3)).sum() > BATCH_SIZE // 2


def test_a_shift_out_of_the_image_is_refused():
    config = PurifierConfig(training_shift=6)
    assert config.training_shape((8, 7, 1)) == (8, 7, 1)
    with pytest.raises(
        ValueError, match="training_shift must be less than .* 8x6, got 6"
    ):
        config.training_shape((8, 6, 1))


def test_a_run_that_goes_on_sees_the_same_pairs(clean):
    settings = {"training_shift": 2, "training_flip": True}
    whole, _ = changed(clean, **settings)
    later, _ = changed(clean, start=1, **settings)
    np.testing.assert_array_equal(later, whole[BATCH_SIZE:])
