"""The Square attack: random search for squares that help; no gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from attacks import bumps
from attacks.answers import fooled, has_nan, logits_of
from attacks.balls import RUN_STRIDE, BallAttack, l2_norms
from attacks.base import NO_TARGET, Inputs
from attacks.margin import exceeds_rounding, margin
from attacks.search import SearchAttack, State, choose_rows, spoil
from data.checks import check_in_range, check_positive_integer
from data.randomness import per_image_uniform

# After so many queries of 10,000 the share that a square covers is halved.
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCHEDULE_LENGTH = 10_000
# Random numbers are drawn for so many queries at once, since a draw of few
# costs as much as one of many. Another number would draw others.
_QUERIES_PER_DRAW = 50


class Window(NamedTuple):
    """One square in each image.

    Attributes:
        rows: int32 `[B, H]`, the images' rows as the square counts them.
        columns: int32 `[B, W]`, likewise.
        mask: bool `[B, H, W, 1]`: inside.
    """

    rows: tf.Tensor
    columns: tf.Tensor
    mask: tf.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(BallAttack, SearchAttack):
    """Random search in a ball, from the logits alone.

    Andriushchenko et al. 2020, Algorithms 1 to 3, with the values of the
    standard AutoAttack (Croce and Hein 2020, and their code): 5,000 queries, p
    0.8, one run. A query proposes a change within one square, which is kept if
    the label's lead over the other logits is less (Sec. 3.1). The square
    covers a share p of the image at first, which is halved after 10, 50, 200,
    500, 1000, 2000, 4000, 6000 and 8000 queries of 10,000 (Sec. 3.2), scaled
    to `queries`. With targets, their cross-entropy is to fall (Sec. 3.1).

    Linf (Algorithm 2): the start is vertical stripes of +-epsilon, by channel;
    within the square, each channel becomes the image's plus or minus epsilon.
    L2 (Algorithm 3): the start is a grid of 5 x 5 patches, see `bumps.eta`;
    one more is mixed into a square, which takes the norm of a second square
    and what the ball has left. Both are clipped to [0, 1].

    An image is done when it is fooled, at once and unchanged if it is wrong
    already. One that is not fooled comes back as the best of its last run.
    Random choices depend on (seed, index, number of the query) alone. Given
    `starts` take the place of the first.

    No gradients are taken, so `gradient_evaluations` is 0. What `queries`
    bounds is forward passes: one for the clean image, and in each run one for
    the start and `queries` more.

    Deviations from the published code:

    - Each image has squares, signs and patches of its own, as in the paper;
      AutoAttack draws one for all images.
    - A square lies anywhere in the image, as in the paper; the code never
      reaches the last row and column.
    - In L2, a channel has the norm that is its own in the two squares, as in
      the paper and its authors' code; AutoAttack takes that of all channels.
    - Squares fit into images of any shape; the code fails for some.
    - A lead that rounding can make is no success: the search goes on.

    Attributes:
        queries: Squares that one run tries, at most.
        p_init: Share of the image that the first squares cover, in [0, 1].
        restarts: Runs from different starts, at most.
    """

    name: ClassVar[str] = "square"
    steps_per_round: ClassVar[int] = _QUERIES_PER_DRAW

    queries: int = 5000
    p_init: float = 0.8
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_integer(self.queries, "queries")
        check_in_range(self.p_init, 0.0, 1.0, "p_init")
        check_positive_integer(self.restarts, "restarts")

    def _check(
        self, classifier, images, labels, targets, starts, indices
    ) -> Inputs:
        inputs = super()._check(
            classifier, images, labels, targets, starts, indices
        )
        if starts is None:
            first = tf.zeros_like(inputs.indices)
            return inputs._replace(starts=self._random_starts(inputs, first))
        return inputs

    def begin(self, classifier: Any, inputs: Inputs) -> State:
        """Looks at the clean images, which may be wrong already.

        Besides the fixed names a state has:

        - `query`, int64 `[B]`: those made, the starts among them;
        - `gain`, float32 `[B]`: what is to grow, of `adversarial`;
        - `draws`, float32 `[B, Q, N]`: N random numbers for each of Q queries;
        - in Linf `low` and `high`, float32 `[B, H, W, C]`: the ball in the box.
        """
        logits = logits_of(classifier, inputs.images)
        is_broken = has_nan(logits)
        zeros = tf.zeros_like(inputs.labels)
        return {
            **self._edges(inputs),
            "adversarial": spoil(is_broken, inputs.images),
            "query": zeros,
            "gain": tf.fill(tf.shape(zeros), np.float32(-np.inf)),
            "draws": tf.zeros(
                [tf.shape(zeros)[0], *self._draw_shape(inputs.images)]
            ),
            "evaluations": zeros,
            "done": fooled(logits, inputs.labels, inputs.targets) | is_broken,
        }

    def _edges(self, inputs: Inputs) -> State:
        if self.norm == "l2":
            return {}
        images, indices = inputs.images, inputs.indices
        return {
            "low": self.constrain(images - 1.0, images, indices),
            "high": self.constrain(images + 1.0, images, indices),
        }

    def advance(self, classifier: Any, inputs: Inputs, state: State) -> State:
        """Makes one query: of a run's start, or of one more square."""
        query, best = state["query"], state["adversarial"]
        # Rows that are done stand still, some of them at a start.
        is_start = ~state["done"] & (query % (self.queries + 1) == 0)
        draws = self._draws(inputs, state)
        proposal = self._move(inputs, state, draws)
        proposal = tf.cond(
            tf.reduce_any(is_start),
            lambda: choose_rows(is_start, self._start(inputs, query), proposal),
            lambda: proposal,
        )
        logits = logits_of(classifier, proposal)
        gain = _gain(logits, inputs)
        lead = margin(logits, inputs.labels, inputs.targets)
        is_fooled = exceeds_rounding(lead, logits)
        is_better = is_start | is_fooled | (gain > state["gain"])
        is_broken = has_nan(logits)
        is_last = query + 1 == self.restarts * (self.queries + 1)
        better = choose_rows(is_better, proposal, best)
        return {
            **state,
            "adversarial": tf.cond(
                tf.reduce_any(is_broken),
                lambda: spoil(is_broken, better),
                lambda: better,
            ),
            "query": query + 1,
            "gain": tf.where(is_better, gain, state["gain"]),
            "draws": draws,
            "done": is_fooled | is_last | is_broken,
        }

    def _draw_shape(self, images: tf.Tensor) -> tuple[int, int]:
        """For a query: the squares' places, a patch's turn, and signs."""
        numbers = (2 if self.norm == "linf" else 5) + images.shape[-1]
        return _QUERIES_PER_DRAW, numbers

    def _draws(self, inputs: Inputs, state: State) -> tf.Tensor:
        """float32 `[B, Q, N]`: new ones where the last are used up."""
        query = state["query"]
        is_due = ~state["done"] & (query % _QUERIES_PER_DRAW == 0)
        return tf.cond(
            tf.reduce_any(is_due),
            # Those that are still in use come out the same.
            lambda: per_image_uniform(
                self.seed,
                inputs.indices + query // _QUERIES_PER_DRAW * RUN_STRIDE,
                shape=self._draw_shape(inputs.images),
                stream="square_query",
            ),
            lambda: state["draws"],
        )

    def _start(self, inputs: Inputs, query: tf.Tensor) -> tf.Tensor:
        """float32 `[B, H, W, C]`: where the run of a query begins."""
        first = self.constrain(inputs.starts, inputs.images, inputs.indices)
        if self.restarts == 1:
            return first
        run = query // (self.queries + 1)
        return choose_rows(run == 0, first, self._random_starts(inputs, run))

    def _random_starts(self, inputs: Inputs, run: tf.Tensor) -> tf.Tensor:
        draws = inputs.indices + run * RUN_STRIDE
        shape = inputs.images.shape[1:]
        if self.norm == "l2":
            return self._stretched(inputs, _patchwork(self.seed, draws, shape))
        # Steps of 1 end at the ball's edge, or the box's, from anywhere.
        moved = inputs.images + _stripes(self.seed, draws, shape)
        return self.constrain(moved, inputs.images, inputs.indices)

    def _stretched(self, inputs: Inputs, change: tf.Tensor) -> tf.Tensor:
        """Images at the L2 ball's surface, that way, then clipped."""
        # Beyond it: the projection knows how near it may come.
        length = tf.math.divide_no_nan(2.0 * self.epsilon, l2_norms(change))
        moved = inputs.images + length * change
        return self.constrain(moved, inputs.images, inputs.indices)

    def _move(
        self, inputs: Inputs, state: State, draws: tf.Tensor
    ) -> tf.Tensor:
        """float32 `[B, H, W, C]`: the best images with another square."""
        query, shape = state["query"], inputs.images.shape[1:]
        now = tf.gather(draws, query % _QUERIES_PER_DRAW, batch_dims=1)
        # Of a start it is -1, but that is proposed by other means.
        done = query % (self.queries + 1) - 1
        sides = _sides(self.p_init, shape, self.norm)
        stage = _stage(done, self.queries)
        if self.norm == "linf":
            return _move_linf(state, sides, stage, now)
        return self._move_l2(inputs, state["adversarial"], sides, stage, now)

    def _move_l2(
        self,
        inputs: Inputs,
        best: tf.Tensor,
        sides: Sequence[int],
        stage: tf.Tensor,
        draws: tf.Tensor,
    ) -> tf.Tensor:
        side, shape = tf.gather(sides, stage), best.shape[1:]
        first = _window(draws[:, :2], side, shape)
        second = _window(draws[:, 2:4], side, shape)
        mask, other = (tf.cast(x.mask, tf.float32) for x in (first, second))
        patch = bumps.place(
            sides, stage, first.rows, first.columns, _is_heads(draws[:, 4])
        )
        patch *= _signs(draws[:, tf.newaxis, tf.newaxis, 5:])
        change = bumps.mix(
            best - inputs.images, mask, other, patch, self.epsilon
        )
        return self._stretched(inputs, change)


def _move_linf(
    state: State, sides: Sequence[int], stage: tf.Tensor, draws: tf.Tensor
) -> tf.Tensor:
    best = state["adversarial"]
    square = _window(draws[:, :2], tf.gather(sides, stage), best.shape[1:])
    is_up = _is_heads(draws[:, tf.newaxis, tf.newaxis, 2:])
    return _select(
        square.mask, _select(is_up, state["high"], state["low"]), best
    )


def _select(condition: tf.Tensor, yes: tf.Tensor, no: tf.Tensor) -> tf.Tensor:
    """`tf.where`, whose own broadcasting is several times slower."""
    return tf.where(tf.broadcast_to(condition, tf.shape(yes)), yes, no)


def _stage(done: tf.Tensor, queries: int) -> tf.Tensor:
    """int32 `[B]`: how often p has been halved, after so many squares."""
    progress = done * _SCHEDULE_LENGTH // queries
    is_later = progress[:, tf.newaxis] > np.array(_HALVED_AFTER)
    return tf.reduce_sum(tf.cast(is_later, tf.int32), axis=-1)


def _sides(p_init: float, shape: Sequence[int], norm: str) -> list[int]:
    """The sides of the squares, in pixels, stage by stage."""
    height, width, _ = shape
    pixels = height * width
    sides = [
        round((p_init * pixels / 2**stage) ** 0.5)
        for stage in range(len(_HALVED_AFTER) + 1)
    ]
    largest = min(height, width)
    if norm == "linf":
        return [min(max(side, 1), largest) for side in sides]
    # The published code makes them odd.
    largest -= 1 - largest % 2
    return [min(max(side, 3) // 2 * 2 + 1, largest) for side in sides]


def _window(draws: tf.Tensor, side: tf.Tensor, shape: Sequence[int]) -> Window:
    """A square anywhere in each image: `[B, 2]` uniform numbers, `[B]`."""
    height, width, _ = shape
    places = tf.constant([height, width]) - side[:, tf.newaxis] + 1
    corner = tf.cast(draws * tf.cast(places, tf.float32), tf.int32)
    rows = tf.range(height) - corner[:, :1]
    columns = tf.range(width) - corner[:, 1:]
    down, across = (
        (x >= 0) & (x < side[:, tf.newaxis]) for x in (rows, columns)
    )
    mask = down[:, :, tf.newaxis] & across[:, tf.newaxis]
    return Window(rows, columns, mask[..., tf.newaxis])


def _stripes(seed: int, draws: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """float32 `[B, 1, W, C]`: +-1."""
    _, width, channels = shape
    return _signs(
        per_image_uniform(
            seed, draws, shape=(1, width, channels), stream="square_start"
        )
    )


def _patchwork(seed: int, draws: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """float32 `[B, H, W, C]`: patches side by side, each at random."""
    _, down, across = bumps.grid_size(shape)
    numbers = per_image_uniform(
        seed,
        draws,
        shape=(down, across, 1 + shape[-1]),
        stream="square_start",
    )
    return bumps.grid(
        shape, _signs(numbers[..., 1:]), _is_heads(numbers[..., 0])
    )


def _is_heads(draws: tf.Tensor) -> tf.Tensor:
    return draws < 0.5


def _signs(draws: tf.Tensor) -> tf.Tensor:
    return tf.where(_is_heads(draws), np.float32(1.0), np.float32(-1.0))


def _gain(logits: tf.Tensor, inputs: Inputs) -> tf.Tensor:
    """float32 `[B]`, to climb: the margin, or less the target's loss."""
    is_targeted = inputs.targets != NO_TARGET
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.where(is_targeted, inputs.targets, inputs.labels), logits
    )
    lead = margin(logits, inputs.labels, inputs.targets)
    return tf.where(is_targeted, -loss, lead)
