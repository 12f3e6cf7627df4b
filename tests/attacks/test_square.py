"""The Square attack: each of its queries, and its promises."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

import models
from attacks import bumps
from attacks.square import Square

NORMS = ["linf", "l2"]
GREY = (4, 5, 1)
CLASSES = 3


def norm_of(change, norm):
    flat = np.reshape(np.asarray(change, np.float64), (len(change), -1))
    order = 2 if norm == "l2" else np.inf
    return np.linalg.norm(flat, order, axis=1)


def flat_logits(images):
    """Every class is as likely as any other, whatever the image."""
    return np.zeros((len(images), CLASSES), np.float32)


@dataclasses.dataclass
class Witness:
    """A classifier that remembers each batch that it is asked about."""

    shape: tuple = GREY
    logits: object = flat_logits

    def __post_init__(self):
        self.queries = []
        self.classifier = models.Classifier.from_callable(
            lambda x: tf.ensure_shape(
                tf.numpy_function(self._answer, [x], tf.float32),
                [None, CLASSES],
            ),
            image_shape=self.shape,
            num_classes=CLASSES,
            fingerprint="witness",
        )

    def _answer(self, images):
        self.queries.append(images.copy())
        return np.asarray(self.logits(images), np.float32)

    def watch(self, attack, images, labels=None, **arguments):
        """The start, and the squares, that an attack has asked about."""
        self.queries.clear()
        labels = np.zeros(len(images), int) if labels is None else labels
        attack(self.classifier, images, labels, **arguments)
        # Without the clean images, and those that are judged.
        return np.stack(self.queries[1:-1])


def grey(shape, count=1):
    return np.full((count, *shape), 0.5, np.float32)


def bounds(change):
    """The square outside of which an image is unchanged: top, left, side."""
    rows, columns, _ = np.nonzero(np.abs(change) > 1e-7)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height == width
    return rows.min(), columns.min(), height


# The schedule


def plain_share(p_init, number, queries):
    """The published table: p after `number` squares."""
    number = int(number / queries * 10_000)
    share = p_init
    for after in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000):
        if number > after:
            share /= 2
    return share


@pytest.mark.parametrize(
    ("numbers", "parts"),
    [
        # Each break point of the published table, a tenth of it.
        ([0, 1], 1),
        ([2, 5], 2),
        ([6, 20], 4),
        ([21, 50], 8),
        ([51, 100], 16),
        ([101, 200], 32),
        ([201, 400], 64),
        ([401, 600], 128),
        ([601, 800], 256),
        ([801, 999], 512),
    ],
)
def test_squares_shrink_as_published(linf_squares, numbers, parts):
    side = max(round(np.sqrt(0.8 / parts * 40 * 40)), 1)
    for number in numbers:
        assert plain_share(0.8, number, 1000) == 0.8 / parts
        assert bounds(linf_squares[number])[2] == side


@pytest.fixture(scope="module")
def linf_squares():
    """What 1,000 queries change in an image, each beginning at it."""
    image = grey((40, 40, 1))
    attack = Square(epsilon=0.25, queries=1000)
    queries = Witness((40, 40, 1)).watch(attack, image, starts=image)
    assert len(queries) == 1001
    np.testing.assert_array_equal(queries[0], image)
    return (queries[1:] - image)[:, 0]


def test_the_schedule_is_scaled_to_the_queries():
    image = grey((12, 12, 1))
    for queries in (9, 130):
        attack = Square(queries=queries, p_init=0.5)
        found = Witness((12, 12, 1)).watch(attack, image, starts=image)
        sides = [bounds(x[0] - 0.5)[2] for x in found[1:]]
        expected = [
            max(round(np.sqrt(plain_share(0.5, i, queries) * 144)), 1)
            for i in range(queries)
        ]
        assert sides == expected


# Linf


def test_linf_begins_with_vertical_stripes(make_batch):
    shape = (6, 40, 3)
    images, _ = make_batch(shape)
    attack = Square(epsilon=0.3, queries=1)
    start = Witness(shape).watch(attack, images)[0]
    up = np.clip(images + np.float32(0.3), 0.0, 1.0)
    down = np.clip(images - np.float32(0.3), 0.0, 1.0)
    is_up = np.abs(start - up) < 1e-6
    np.testing.assert_array_equal(is_up, np.abs(start - down) > 1e-6)
    # The whole column, in a channel, goes one way.
    np.testing.assert_array_equal(is_up, np.repeat(is_up[:, :1], 6, axis=1))
    assert 0.4 < is_up.mean() < 0.6
    # Neither all channels nor all images go the same way.
    assert 0.1 < (is_up.all(-1) | (~is_up).all(-1)).mean() < 0.4
    assert not (is_up == is_up[:1]).all((1, 2, 3))[1:].any()


def test_linf_squares_are_at_the_edge_of_the_ball(linf_squares):
    for change in linf_squares:
        top, left, side = bounds(change)
        square = change[top : top + side, left : left + side]
        np.testing.assert_allclose(np.abs(square), 0.25, atol=1e-6)
        assert len(np.unique(square)) == 1
    signs = np.sign(linf_squares.sum((1, 2, 3)))
    assert abs(signs.mean()) < 0.1


def test_linf_squares_have_a_sign_for_each_channel():
    shape = (6, 6, 3)
    image = grey(shape)
    found = Witness(shape).watch(Square(queries=120), image, starts=image)
    changes = (found[1:] - image)[:, 0]
    signs = np.sign(changes.sum((1, 2)))
    for change, sign in zip(changes, signs, strict=True):
        top, left, side = bounds(change)
        square = change[top : top + side, left : left + side]
        np.testing.assert_allclose(
            square, np.broadcast_to(0.3 * sign, square.shape), atol=1e-6
        )
    # All eight ways occur.
    assert len(np.unique(signs, axis=0)) == 8


def test_squares_are_clipped_to_the_box(make_batch):
    images, _ = make_batch(GREY)
    attack = Square(epsilon=0.4, queries=30)
    found = Witness().watch(attack, images, starts=images)
    edges = [
        np.clip(images + np.float32(step), 0.0, 1.0) for step in (-0.4, 0, 0.4)
    ]
    nearest = np.abs(found - np.stack(edges)[:, None]).min(0)
    assert nearest.max() < 1e-6
    assert found.min() == 0.0 and found.max() == 1.0


def test_squares_lie_anywhere():
    image = grey(GREY)
    # Each is one pixel.
    attack = Square(queries=1000, p_init=0.0)
    found = Witness().watch(attack, image, starts=image)
    counts = (np.abs(found[1:] - image) > 0).sum((0, 1, 4))
    assert counts.sum() == 1000
    # 50 are expected in each place, with a standard deviation of 7.
    assert counts.min() > 20 and counts.max() < 85


# L2


def test_l2_begins_with_a_grid_of_patches():
    shape = (16, 16, 2)
    images = grey(shape, 8)
    start = Witness(shape).watch(
        Square(norm="l2", epsilon=2.0, queries=1), images
    )[0]
    change = start - images
    np.testing.assert_allclose(norm_of(change, "l2"), 2.0, rtol=1e-5)
    # 25 patches of side 3 in two channels, of equal norms; a row is left over.
    patch = bumps.eta(3) * 2.0 / np.sqrt(50)
    assert not change[:, 15:].any() and not change[:, :, 15:].any()
    kinds = []
    for image, row, column in np.ndindex(8, 5, 5):
        tile = change[image, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        kinds.append(kind_of(tile, patch))
    # Both ways round, both signs of each channel: eight kinds.
    _, counts = np.unique(kinds, axis=0, return_counts=True)
    assert len(counts) == 8 and counts.min() > 8


def kind_of(tile, patch):
    """How a patch is turned, and its sign in each channel."""
    for turn, signs in itertools.product(
        (0, 1), itertools.product((-1, 1), repeat=tile.shape[-1])
    ):
        form = (patch.T if turn else patch)[..., None] * np.array(signs)
        if np.abs(tile - form).max() < 1e-5:
            return turn, *signs
    raise AssertionError("not a patch")


@pytest.mark.parametrize("channels", [1, 3])
def test_l2_squares_are_patches_of_odd_sides(channels):
    shape = (14, 14, channels)
    image = grey(shape)
    attack = Square(norm="l2", epsilon=0.7, queries=100, p_init=0.5)
    found = Witness(shape).watch(attack, image, starts=image)
    kinds = []
    for number, query in enumerate(found[1:]):
        change = query[0] - image[0]
        side = max(round(np.sqrt(plain_share(0.5, number, 100) * 196)), 3)
        side += 1 - side % 2
        top, left, extent = bounds(change)
        assert extent == side
        square = change[top : top + side, left : left + side]
        patch = bumps.eta(side) * 0.7 / np.sqrt(channels)
        kinds.append(kind_of(square, patch))
    assert len(set(kinds)) == 2 * 2**channels


def test_an_l2_query_moves_what_two_squares_hold(make_batch):
    shape = (12, 12, 1)
    images = grey(shape, 6)
    # So small that the box does not matter.
    attack = Square(norm="l2", epsilon=0.3, queries=200, p_init=0.1)
    queries = Witness(shape).watch(attack, images)
    changes = queries - images
    start = changes[0]
    for number, change in enumerate(changes[1:]):
        np.testing.assert_allclose(norm_of(change, "l2"), 0.3, rtol=1e-4)
        side = max(round(np.sqrt(plain_share(0.1, number, 200) * 144)), 3)
        side += 1 - side % 2
        differs = np.abs(change - start) > 1e-5
        # Two squares at most.
        assert (differs.sum((1, 2, 3)) <= 2 * side**2).all()
        np.testing.assert_allclose(change[~differs], start[~differs], atol=1e-5)


# The search


@pytest.mark.parametrize("norm", NORMS)
def test_it_reaches_its_targets(linear, classifier, batch, norm):
    images, _ = batch
    labels = linear.logits(images).argmax(-1)
    targets = (labels + 1) % 3
    epsilon = 1.0 if norm == "linf" else 4.0
    attack = Square(norm=norm, epsilon=epsilon, queries=300)
    result = attack(classifier, images, labels, targets=targets)
    predicted = linear.logits(result.adversarial).argmax(-1)
    np.testing.assert_array_equal(predicted, targets)
    np.testing.assert_array_equal(result.targets, targets)


def steps_of(attack, classifier, images, labels, count, targets=None):
    """The states of a search, step by step, and what it is given."""
    inputs = attack._check(classifier, images, labels, targets, None, None)
    state = attack.begin(classifier, inputs)
    states = []
    for _ in range(count):
        state = attack.advance(classifier, inputs, state)
        states.append({name: x.numpy() for name, x in state.items()})
    return states


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("is_targeted", [False, True])
def test_the_best_never_gets_worse(network, make_batch, norm, is_targeted):
    images, _ = make_batch(network.image_shape)
    labels = network.predict(images).argmax(-1)
    targets = (labels + 1) % 3 if is_targeted else None
    attack = Square(norm=norm, epsilon=0.02, queries=40)
    states = steps_of(attack, network, images, labels, 41, targets)
    gains = np.stack([state["gain"] for state in states])
    is_done = np.stack([state["done"] for state in states])
    # Nothing freezes those that are done here.
    still = ~np.logical_or.accumulate(is_done)[:-1]
    rises = np.diff(gains, axis=0)
    assert (rises[still] >= 0.0).all() and (rises[still] > 0.0).sum() > 9
    for state, gain in zip(states, gains, strict=True):
        found = network.predict(state["adversarial"]).astype(np.float64)
        np.testing.assert_allclose(
            gain, plain_gain(found, labels, targets), atol=1e-5
        )
    np.testing.assert_array_equal(states[-1]["query"], 41)
    assert states[-1]["done"].all() and not states[-2]["done"].all()


def plain_gain(logits, labels, targets):
    rows = np.arange(len(logits))
    if targets is not None:
        return logits[rows, targets] - np.log(np.exp(logits).sum(-1))
    others = logits.copy()
    others[rows, labels] = -np.inf
    return others.max(-1) - logits[rows, labels]


def test_an_image_that_is_fooled_is_done():
    # Only the clean image itself is of class 0.
    image = grey(GREY)
    witness = Witness(
        logits=lambda x: np.eye(3)[(x != 0.5).any((1, 2, 3)).astype(int)]
    )
    found = witness.watch(Square(), image)
    assert len(found) == 1
    # From the image, the first square does it.
    assert len(witness.watch(Square(), image, starts=image)) == 2


def test_queries_bound_the_forward_passes():
    witness = Witness()
    for attack, count in (
        (Square(queries=70), 71),
        (Square(queries=70, restarts=2), 142),
        (Square(queries=70, norm="l2"), 71),
    ):
        assert len(witness.watch(attack, grey(GREY))) == count


def test_a_lead_that_rounding_can_make_does_not_end_the_search():
    def leading_by(lead):
        logits = np.array([100.0, 100.0 + lead, 0.0])
        return lambda x: np.where(
            (x != 0.5).any((1, 2, 3))[:, None], logits, [1.0, 0.0, 0.0]
        )

    attack = Square(queries=20)
    image = grey(GREY)
    assert len(Witness(logits=leading_by(1e-4)).watch(attack, image)) == 21
    assert len(Witness(logits=leading_by(1e-2)).watch(attack, image)) == 1


@pytest.mark.parametrize("norm", NORMS)
def test_images_that_are_wrong_already_come_back_unchanged(
    linear, classifier, batch, norm
):
    images, _ = batch
    labels = linear.logits(images).argmax(-1)
    labels[::2] = (labels[::2] + 1) % 3
    result = Square(norm=norm, queries=20)(classifier, images, labels)
    np.testing.assert_array_equal(result.adversarial[::2], images[::2])
    assert result.success.numpy()[::2].all()
    assert (norm_of(result.adversarial - images, norm)[1::2] > 0.0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_constant_classifier_gives_an_image_in_the_ball(batch, norm):
    images, labels = batch
    attack = Square(norm=norm, epsilon=0.2, queries=60)
    result = attack(Witness().classifier, images, labels)
    np.testing.assert_array_equal(result.success, labels != 0)
    assert np.isfinite(result.adversarial).all()
    sizes = norm_of(result.adversarial - images, norm)
    assert (sizes <= 0.2 + 1e-6).all() and (sizes[labels == 0] > 0.0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_it_begins_at_its_starts(norm, batch):
    images, _ = batch
    # Some are outside the ball, and are brought into it first.
    starts = np.clip(images + 0.2, 0.0, 1.0)
    attack = Square(norm=norm, epsilon=0.1, queries=5, restarts=2)
    found = Witness().watch(attack, images, starts=starts)
    change = starts - images
    if norm == "linf":
        change = np.clip(change, -0.1, 0.1)
    else:
        size = norm_of(change, "l2").reshape(-1, 1, 1, 1)
        change = change * 0.1 / np.maximum(size, 0.1)
    np.testing.assert_allclose(found[0], images + change, atol=1e-6)
    # The second run has a start of its own.
    fresh = Witness().watch(attack, images)
    assert np.abs(fresh[6] - fresh[0]).max() > 0.01
    np.testing.assert_array_equal(found[6], fresh[6])


# The ball and the box


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [0.0, 0.03, 1.0])
def test_no_result_leaves_the_ball_or_the_box(
    network, make_batch, norm, epsilon
):
    images, _ = make_batch(network.image_shape, 24)
    labels = network.predict(images).argmax(-1)
    attack = Square(norm=norm, epsilon=epsilon, queries=80)
    result = attack(network, images, labels)
    adversarial = result.adversarial.numpy()
    assert adversarial.dtype == np.float32
    assert adversarial.min() >= 0.0 and adversarial.max() <= 1.0
    sizes = norm_of(adversarial.astype(np.float64) - images, norm)
    assert (sizes <= epsilon * (1.0 + 1e-6)).all()
    found = result.linf if norm == "linf" else result.l2
    np.testing.assert_allclose(found, sizes, atol=1e-6)


def test_no_query_leaves_the_ball_of_large_images():
    shape = (64, 64, 3)
    images = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    for epsilon in (0.5, 3.0):
        attack = Square(norm="l2", epsilon=epsilon, queries=40)
        for query in Witness(shape).watch(attack, images):
            sizes = norm_of(query.astype(np.float64) - images, "l2")
            assert (sizes <= epsilon * (1.0 + 1e-6)).all()
            assert query.min() >= 0.0 and query.max() <= 1.0


@pytest.mark.parametrize("norm", NORMS)
def test_parameters_are_reported(norm):
    attack = Square(norm=norm, epsilon=0.4)
    np.testing.assert_allclose(attack.epsilons(tf.range(3)), [0.4] * 3)
    assert attack.distance == norm
    assert attack.params == {
        "epsilon": 0.4,
        "norm": norm,
        "queries": 5000,
        "p_init": 0.8,
        "restarts": 1,
    }


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 3), (3, 11, 1)])
def test_images_of_any_shape_are_taken(norm, shape):
    image = grey(shape)
    attack = Square(norm=norm, epsilon=0.2, queries=40, p_init=1.0)
    found = Witness(shape).watch(attack, image)
    sizes = norm_of(found - image, norm)
    assert (sizes <= 0.2 * (1.0 + 1e-6)).all()
    np.testing.assert_allclose(sizes[0], 0.2, rtol=1e-5)
    # In one pixel there is nothing but the start and its opposite.
    assert shape == (1, 1, 1) or (sizes > 0.199).all()


# How it is computed


@pytest.mark.parametrize("norm", NORMS)
def test_choices_depend_on_seed_and_index_alone(norm):
    images = grey(GREY, 5)
    attack = Square(norm=norm, epsilon=0.2, queries=60, seed=4)
    whole = Witness().watch(attack, images, indices=np.arange(3, 8))
    one = Witness().watch(attack, images[:1], indices=[6])
    np.testing.assert_array_equal(one[:, 0], whole[:, 3])
    again = Witness().watch(attack, images[:2], indices=[7, 3])
    np.testing.assert_array_equal(again, whole[:, [4, 0]])
    # Another image, or another seed, is another search.
    assert not (whole[:, 0] == whole[:, 1]).all((1, 2, 3)).all()
    other = dataclasses.replace(attack, seed=5)
    other = Witness().watch(other, images, indices=np.arange(3, 8))
    is_same = (other == whole).all((2, 3, 4))
    assert is_same.mean() < 0.5


@pytest.mark.parametrize("norm", NORMS)
def test_results_do_not_depend_on_the_batch(network, make_batch, norm):
    images, _ = make_batch(network.image_shape, 12)
    labels = network.predict(images).argmax(-1)
    epsilon = 0.03 if norm == "linf" else 0.15
    options = {"norm": norm, "epsilon": epsilon, "queries": 70, "restarts": 2}
    whole = Square(**options)(network, images, labels)
    assert 0 < whole.success.numpy().sum() < 12
    # Two at a time: one is in its first query when the other is further on.
    for batch_size in (1, 2):
        parts = Square(**options, batch_size=batch_size)(
            network, images, labels
        )
        np.testing.assert_allclose(
            parts.adversarial, whole.adversarial, atol=1e-5
        )
    order = np.arange(12)[::-1]
    turned = Square(**options)(
        network, images[order], labels[order], indices=order
    )
    np.testing.assert_allclose(
        turned.adversarial.numpy()[order], whole.adversarial, atol=1e-5
    )


@pytest.mark.parametrize(("norm", "restarts"), [("linf", 2), ("l2", 1)])
def test_xla_agrees(network, make_batch, norm, restarts):
    images, _ = make_batch(network.image_shape)
    labels = network.predict(images).argmax(-1)
    options = {"norm": norm, "epsilon": 0.05, "queries": 20}
    options["restarts"] = restarts
    plain = Square(**options)(network, images, labels)
    compiled = Square(**options, xla=True)(network, images, labels)
    np.testing.assert_allclose(
        compiled.adversarial, plain.adversarial, atol=1e-5
    )
    np.testing.assert_array_equal(compiled.success, plain.success)


def test_a_model_may_not_tell_its_number_of_classes(linear, classifier, batch):
    images, labels = batch
    silent = models.Classifier.from_callable(
        lambda x: tf.raw_ops.PlaceholderWithDefault(
            input=linear.function(x), shape=[None, None]
        ),
        image_shape=GREY,
        num_classes=3,
        fingerprint="silent",
    )
    attack = Square(epsilon=0.05, queries=30)
    np.testing.assert_array_equal(
        attack(silent, images, labels).adversarial,
        attack(classifier, images, labels).adversarial,
    )


@pytest.mark.parametrize("norm", NORMS)
def test_no_images_are_no_work(classifier, norm):
    empty = np.zeros((0, *GREY), np.float32)
    result = Square(norm=norm)(classifier, empty, [])
    assert result.adversarial.shape == (0, *GREY)


# What does not fit


def test_nan_logits_are_an_error(nan_where_bright, batch):
    images, labels = batch
    # Only the second image, which is white, is that bright.
    with pytest.raises(ValueError, match="not finite for 1 .* index 11"):
        Square(queries=5)(
            nan_where_bright, images, labels, indices=np.arange(10, 19)
        )


def test_nan_logits_of_a_query_are_an_error():
    def nan_where_changed(images):
        is_changed = (images != 0.5).any((1, 2, 3))
        return np.where(is_changed[:, None], np.nan, [1.0, 0.0, 0.0])

    with pytest.raises(ValueError, match="not finite for 2 .* index 0"):
        Square(queries=5)(
            Witness(logits=nan_where_changed).classifier, grey(GREY, 2), [0, 0]
        )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"norm": "l1"}, "norm must be one of l2, linf, got 'l1'"),
        ({"epsilon": 1.5}, r"epsilon must be .*\[0.0, 1.0\], got 1.5"),
        ({"epsilon": -0.1, "norm": "l2"}, r"epsilon must be .* got -0.1"),
        ({"queries": 0}, "queries must be a positive integer, got 0"),
        ({"queries": 0.5}, "queries must be a positive integer, got 0.5"),
        ({"p_init": 1.1}, r"p_init must be .*\[0.0, 1.0\], got 1.1"),
        ({"restarts": 0}, "restarts must be a positive integer, got 0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        Square(**params)
