"""What is crafted inside a training step: starts, balls, steps, mixtures."""

import numpy as np
import pytest
import tensorflow as tf

from ape_gan_tf.adversaries import BatchAdversary, Crafting

SHAPE = (4, 4, 1)
STEP = tf.constant(5, tf.int64)


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    clean = generator.random((12, *SHAPE), dtype=np.float32)
    stored = np.clip(clean + 0.5 * np.sign(clean - 0.5), 0.0, 1.0)
    return tf.constant(clean), tf.constant(stored.astype(np.float32))


def lengths(images, centres, norm):
    change = np.asarray(images - centres).reshape(len(images), -1)
    return np.linalg.norm(change, np.inf if norm == "linf" else 2, axis=1)


def first(crafting, images, radius=0.2, step=STEP):
    return crafting.first_images(*images, step, tf.constant(radius)).numpy()


def test_the_starts_are_those_of_the_mixture(images):
    clean, stored = (each.numpy() for each in images)
    crafting = Crafting(starts="clean:1,random:1,stored:2")
    starts = first(crafting, images)
    np.testing.assert_array_equal(starts[:3], clean[:3])
    assert (starts[3:6] != clean[3:6]).mean() > 0.9
    # The stored images are 0.5 away: the ball's edge, in the box.
    expected = np.clip(clean + 0.2 * np.sign(clean - 0.5), 0.0, 1.0)
    np.testing.assert_allclose(starts[6:], expected[6:], atol=1e-6)
    assert stored.shape == starts.shape


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball_and_stay_inside(norm):
    # In the middle of the box nothing is clipped.
    clean = tf.fill([500, *SHAPE], 0.5)
    crafting = Crafting(norm=norm, starts="random")
    starts = first(crafting, (clean, clean))
    found = np.sort(lengths(starts, clean.numpy(), norm))
    assert found[-1] <= 0.2 + 1e-6
    # Of the volume of a ball of 16 dimensions this share is nearer.
    expected = 0.2 * np.linspace(0, 1, 500) ** (1 / 16)
    np.testing.assert_allclose(found[50:], expected[50:], atol=0.01)


def test_starts_depend_on_seed_and_step_alone(images):
    crafting = Crafting(starts="random", seed=3)
    starts = first(crafting, images)
    np.testing.assert_array_equal(starts, first(crafting, images))
    later = first(crafting, images, step=STEP + 1)
    other = first(Crafting(starts="random", seed=4), images)
    assert (starts != later).mean() > 0.5 and (starts != other).mean() > 0.5


@pytest.mark.parametrize(
    ("warmup", "step", "radius"),
    [
        (0.0, 0, 0.3),
        (0.5, 0, 0.3 / 50),
        (0.5, 24, 0.15),
        (0.5, 49, 0.3),
        (0.5, 99, 0.3),
        (1.0, 99, 0.3),
    ],
)
def test_the_radius_grows_over_the_warm_up(warmup, step, radius):
    crafting = Crafting(warmup=warmup)
    found = crafting.radius(tf.constant(step, tf.int64), 100)
    np.testing.assert_allclose(found, radius, rtol=1e-6)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"steps": 1}, 1.25),
        ({"steps": 2}, 1.25),
        ({"steps": 10}, 0.25),
        ({"steps": 10, "step_size": 0.06, "epsilon": 0.3}, 0.2),
        ({"steps": 1, "step_size": 0.1, "epsilon": 0.0}, 0.0),
    ],
)
def test_a_step_is_measured_in_radii(params, expected):
    assert Crafting(**params).relative_step == pytest.approx(expected)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_loss_the_end_is_known(norm):
    slope = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    clean = tf.fill([3, *SHAPE], 0.5)
    crafting = Crafting(norm=norm, steps=8)
    found = crafting.craft(
        lambda images: tf.reduce_sum(slope * images, [1, 2, 3]),
        clean,
        clean,
        tf.constant(0.1),
    )
    direction = np.sign(slope) if norm == "linf" else slope
    length = np.abs(direction).max()
    if norm == "l2":
        length = np.linalg.norm(direction)
    expected = 0.5 + 0.1 * direction / length
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_each_image_may_have_a_radius_of_its_own():
    # In the middle of the box nothing is clipped.
    clean = tf.fill([4, *SHAPE], 0.5)
    radii = np.float32([0.0, 0.05, 0.1, 0.3])
    crafting = Crafting(starts="random", steps=2, step_size=0.2)
    starts = crafting.first_images(clean, clean, STEP, tf.constant(radii))
    found = lengths(starts, clean, "linf")
    assert (found <= radii + 1e-6).all() and (found >= 0.7 * radii).all()
    # On a linear loss: two steps of two thirds of each radius, and the edge.
    ends = crafting.craft(
        lambda images: tf.reduce_sum(images, [1, 2, 3]),
        clean,
        clean,
        tf.constant(radii),
    )
    np.testing.assert_allclose(lengths(ends, clean, "linf"), radii, atol=1e-6)
    once = crafting.move(clean, clean, clean, tf.constant(radii))
    np.testing.assert_allclose(
        lengths(once, clean, "linf"), 2 / 3 * radii, atol=1e-6
    )


def test_a_gradient_below_float16s_least_is_followed():
    clean = tf.fill([2, *SHAPE], 0.5)

    def loss(images):
        halves = tf.cast(tf.cast(images, tf.float16), tf.float32)
        return 1e-8 * tf.reduce_sum(halves, [1, 2, 3])

    found = Crafting(steps=2).craft(loss, clean, clean, tf.constant(0.1))
    np.testing.assert_allclose(found, clean + 0.1, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_where_the_gradient_is_not_finite_nothing_moves(norm, value):
    clean = tf.fill([2, *SHAPE], 0.5)
    gradient = np.ones((2, *SHAPE), np.float32)
    gradient[1] = value
    crafting = Crafting(norm=norm, steps=1)
    found = crafting.move(clean, tf.constant(gradient), clean, tf.constant(0.1))
    assert lengths(found, clean, norm)[0] == pytest.approx(0.1)
    np.testing.assert_array_equal(found[1], clean[1])


def test_images_never_leave_the_ball_or_the_box(images):
    clean, stored = images
    for norm in ("linf", "l2"):
        crafting = Crafting(norm=norm, steps=3)
        found = crafting.craft(
            lambda x: tf.reduce_sum(tf.sin(9.0 * x), [1, 2, 3]),
            clean,
            stored,
            tf.constant(0.25),
        ).numpy()
        assert lengths(found, clean.numpy(), norm).max() <= 0.25 + 1e-6
        assert found.min() >= 0.0 and found.max() <= 1.0


def halved(images):
    return 0.5 * images


def dark_or_light(images):
    """Two classes: the sum of the pixels decides."""
    total = tf.reduce_sum(images, [1, 2, 3])
    return tf.stack([-total, total], -1)


def light_or_dark(images):
    """A guess that is always the other one."""
    return -dark_or_light(images)


def batch_of(count):
    clean = tf.fill([count, *SHAPE], 0.5)
    return {"images": clean, "adversarial": clean + 0.05, "step": STEP}


def adversary(rows, classifier=dark_or_light, is_free=False, **params):
    crafting = Crafting(epsilon=0.1, starts="clean", steps=1, **params)
    return BatchAdversary(
        rows, crafting, 10, halved, classifier, light_or_dark, is_free
    )


def test_each_adversary_makes_its_own_rows():
    kinds = ("stored", "online", "white_box", "content", "guide")
    rows = {kind: slice(row, row + 1) for row, kind in enumerate(kinds)}
    labels = tf.constant([1, 1, 0, 0, 1], tf.int64)
    found = adversary(rows)(batch_of(5), labels).numpy()
    # Darker for a light image, lighter for a dark one; and where the purifier
    # halves, lighter images are nearer, so that the content adversary darkens.
    # To the guess a dark image is a light one.
    for row, value in enumerate([0.55, 0.4, 0.6, 0.4, 0.6]):
        np.testing.assert_allclose(found[row], value, atol=1e-6)


def test_the_ball_of_what_is_crafted_grows_over_the_warm_up():
    labels = tf.constant([0], tf.int64)
    for kind in ("online", "white_box", "content"):
        makes = adversary({kind: slice(0, 1)}, warmup=1.0)
        found = makes(batch_of(1), labels)
        # Of 10 steps this is the sixth.
        np.testing.assert_allclose(tf.abs(found - 0.5), 0.06, atol=1e-6)


def test_the_free_ones_begin_at_their_starts_and_are_moved_later():
    rows = {"stored": slice(0, 1), "white_box": slice(1, 2)}
    makes = adversary(rows, is_free=True)
    batch = batch_of(2)
    found = makes(batch, tf.constant([0, 0], tf.int64))
    np.testing.assert_allclose(found[0], 0.55, atol=1e-6)
    np.testing.assert_allclose(found[1], 0.5, atol=1e-6)
    moved = makes.move(batch, found, tf.ones_like(found)).numpy()
    np.testing.assert_allclose(moved[0], 0.55, atol=1e-6)
    np.testing.assert_allclose(moved[1], 0.6, atol=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"norm": "l1"}, "adversary_norm must be one of"),
        ({"epsilon": 1.5}, r"adversary_epsilon must be .* \[0.0, 1.0\]"),
        ({"steps": 0}, "adversary_steps must be a positive integer, got 0"),
        ({"step_size": -1.0}, "adversary_step_size must be a number in"),
        ({"warmup": 1.5}, "adversary_warmup must be a number in .* got 1.5"),
        ({"starts": "noise"}, "adversary_starts must be one of clean, random"),
    ],
)
def test_what_does_not_fit_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        Crafting(**params)
