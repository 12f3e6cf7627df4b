"""Attacks that search until each image is done, however long that takes.

Each image has a state of its own (its constants, its bounds, its optimizer's
moments), so one may be in its third line search while its neighbour begins.
Rounds of a few compiled steps alternate with compaction: images that are done
leave the batch and others that wait take their places, so the cost follows
the work that is left. Between two rounds Python sees nothing but which images
are done; there progress is reported and Ctrl-C is noticed.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from attacks.base import Attack, Inputs, default_batch_size

State = dict[str, tf.Tensor]
BATCHES_AT_A_TIME = 4  # So that few batches run half empty.
_POSITION = "position"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchAttack(Attack):
    """Base of the attacks whose length differs from image to image.

    A subclass writes `begin` and `advance`. A state is a dict of tensors with
    one row for each image, of any names; three are fixed:

    - `adversarial`, float32 `[B, H, W, C]`: what to return, so far;
    - `evaluations`, int64 `[B]`: gradient evaluations so far;
    - `done`, bool `[B]`.

    Rows that are done are frozen. A row of NaN in `adversarial` says that
    logits or gradients were not finite; the caller makes an error of it.

    Attributes:
        steps_per_round: Steps between two compactions.
    """

    steps_per_round: ClassVar[int] = 20

    @abc.abstractmethod
    def begin(self, classifier: Any, inputs: Inputs) -> State:
        """The state of images before the first step, inside a graph."""

    @abc.abstractmethod
    def advance(self, classifier: Any, inputs: Inputs, state: State) -> State:
        """One step of all images, inside a graph: the same names and types."""

    def images_at_a_time(self, image_shape: Sequence[int]) -> int:
        return BATCHES_AT_A_TIME * self._room(image_shape)

    def _room(self, image_shape: Sequence[int]) -> int:
        """The batch: images that are searched for at the same time."""
        return self.batch_size or default_batch_size(image_shape)

    def _craft(
        self, classifier: Any, inputs: Inputs, progress: Callable[[int], None]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        room = self._room(classifier.image_shape)
        queue = _Queue(inputs)
        done = _Finished(inputs)
        rows: State = self._begin(classifier, queue.take(room))
        while _count(rows):
            rows = self._run_round(classifier, rows)
            is_done = rows["done"].numpy()
            done.put(rows, is_done)
            progress(int(is_done.sum()))
            rows = _take(rows, np.flatnonzero(~is_done))
            # Few at a time would cost as much as many.
            if queue.left and room - _count(rows) >= max(1, room // 4):
                fresh = queue.take(room - _count(rows))
                rows = _join(rows, self._begin(classifier, fresh))
        return tf.constant(done.adversarial), tf.constant(done.evaluations)

    def _begin(self, classifier: Any, rows: State) -> State:
        return self._run(classifier, self._begin_rows, rows)

    def _begin_rows(self, classifier: Any, rows: State) -> State:
        return {**rows, **self.begin(classifier, _inputs(rows))}

    def _run_round(self, classifier: Any, rows: State) -> State:
        return self._run(classifier, self._round, rows)

    def _run(
        self, classifier: Any, method: Callable[..., State], rows: State
    ) -> State:
        run = self._compiled(classifier, method, [_specs(rows)])
        if not self.xla:
            return run(rows)
        # It compiles anew for each number of rows.
        count = _count(rows)
        return _take(run(_take(rows, _padded(count))), np.arange(count))

    def _round(self, classifier: Any, rows: State) -> State:
        inputs = _inputs(rows)
        given = {name: rows[name] for name in (*Inputs._fields, _POSITION)}
        state = {name: rows[name] for name in rows if name not in given}

        def step(number: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
            new = self.advance(classifier, inputs, state)
            kept = {
                # What no step changes is not copied in each.
                name: old
                if new[name] is old
                else choose_rows(state["done"], old, new[name])
                for name, old in state.items()
            }
            return number + 1, kept

        _, state = tf.while_loop(
            lambda number, state: ~tf.reduce_all(state["done"]),
            step,
            (0, state),
            maximum_iterations=self.steps_per_round,
        )
        return {**given, **state}


class _Queue:
    """Images that wait for a place in the batch."""

    def __init__(self, inputs: Inputs) -> None:
        self._rows: State = inputs._asdict()
        self._count = int(inputs.images.shape[0])
        self._next = 0

    @property
    def left(self) -> int:
        return self._count - self._next

    def take(self, count: int) -> State:
        start, stop = self._next, min(self._next + count, self._count)
        self._next = stop
        rows = {name: x[start:stop] for name, x in self._rows.items()}
        return {**rows, _POSITION: tf.range(start, stop)}


class _Finished:
    """What the images have become, in the order in which they came."""

    def __init__(self, inputs: Inputs) -> None:
        self.adversarial = np.array(inputs.images)
        self.evaluations = np.zeros(len(self.adversarial), np.int64)

    def put(self, rows: State, is_done: np.ndarray) -> None:
        places = rows[_POSITION].numpy()[is_done]
        finished = np.flatnonzero(is_done)
        for name in ("adversarial", "evaluations"):
            values = tf.gather(rows[name], finished).numpy()
            getattr(self, name)[places] = values


def _inputs(rows: State) -> Inputs:
    return Inputs(**{name: rows[name] for name in Inputs._fields})


def _count(rows: State) -> int:
    return int(rows[_POSITION].shape[0])


def _take(rows: State, order: np.ndarray) -> State:
    if np.array_equal(order, np.arange(_count(rows))):
        return rows
    return {name: tf.gather(row, order) for name, row in rows.items()}


def _join(first: State, second: State) -> State:
    return {name: tf.concat([first[name], second[name]], 0) for name in first}


def _padded(count: int) -> np.ndarray:
    """Positions of `count` rows, the first of them again up to a power of 2."""
    whole = 1 << (count - 1).bit_length() if count else 0
    return np.concatenate([np.arange(count), np.zeros(whole - count, int)])


def _specs(rows: State) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec([None, *row.shape[1:]], row.dtype)
        for name, row in rows.items()
    }


def choose_rows(
    condition: tf.Tensor, yes: tf.Tensor, no: tf.Tensor
) -> tf.Tensor:
    """Whole rows of one tensor or the other: `[B]` bool, two `[B, ...]`.

    `tf.where` would broadcast the condition, which is several times slower.
    """
    return tf.raw_ops.Select(condition=condition, x=yes, y=no)


def spoil(is_broken: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Makes rows of NaN where something was not finite."""
    nothing = tf.fill(tf.shape(images), np.float32(np.nan))
    return choose_rows(is_broken, nothing, images)
