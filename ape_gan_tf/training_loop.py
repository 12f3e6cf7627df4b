"""A resumable, compiled training loop, for the GAN and for classifiers.

Many steps run in one call of a compiled function, which draws its batches
from the data pipeline itself and keeps its losses on the device: Python looks
at them at checkpoints only. The state is the trainer's variables and the step;
data and random choices depend on (seed, step), so a run that is killed and
started again goes on as if nothing had happened.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from ape_gan_tf.loss_history import LossHistory
from ape_gan_tf.progress import Progress

STEPS_PER_CALL = 20
NEVER = -1


class Trainer(Protocol):
    """What the loop needs to know of what it trains."""

    loss_names: tuple[str, ...]

    def trackables(self) -> dict[str, Any]:
        """All that a checkpoint must hold, by name."""

    def train_step(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """One iteration, in a graph without AutoGraph; returns the losses."""


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite; says at which step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How to run, not what is trained.

    Attributes:
        checkpoint_every: Steps between checkpoints.
        xla: Compile the step with XLA, which rounds differently, and draws
            other random numbers inside a step: of those, the random starts
            of what is crafted in it.
        description: Stands before the progress.
    """

    checkpoint_every: int = 500
    xla: bool = False
    description: str = "training"


class TrainingLoop:
    """Trains to `total_steps`, from the last checkpoint in `directory`.

    Args:
        trainer: What is trained.
        directory: For checkpoints and `losses.csv`.
        settings: How to run.
    """

    def __init__(
        self, trainer: Trainer, directory: Path, settings: LoopSettings
    ) -> None:
        self._trainer = trainer
        self._settings = settings
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._bad_step = tf.Variable(NEVER, dtype=tf.int64, trainable=False)
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(step=self._step, **trainer.trackables()),
            str(directory),
            max_to_keep=2,
            step_counter=self._step,
        )
        self._history = LossHistory(
            directory / "losses.csv", trainer.loss_names
        )
        self._compiled_step = tf.function(
            trainer.train_step,
            autograph=False,
            jit_compile=True if settings.xla else None,
        )
        self._run_steps = tf.function(self._run_steps_in_graph, autograph=False)

    def run(
        self,
        make_batches: Callable[[int], tf.data.Dataset],
        total_steps: int,
        on_checkpoint: Callable[[int], None] | None = None,
    ) -> None:
        """Trains until `total_steps`.

        Args:
            make_batches: Gives the batches from a step on, in an order that
                depends on the step alone.
            total_steps: Where to stop.
            on_checkpoint: Called with the step after each checkpoint.

        Raises:
            NonFiniteLossError: The last checkpoint is from before it.
        """
        step = self._restore()
        if step >= total_steps:
            return
        iterator = iter(make_batches(step))
        calls = []
        with Progress(
            self._settings.description, total_steps, "steps", step
        ) as progress:
            while step < total_steps:
                count = self._steps_in_call(step, total_steps)
                means = self._run_steps(iterator, tf.constant(count))
                step += count
                calls.append((step, means))
                progress.update(count)
                if self._is_checkpoint_due(step, total_steps):
                    self._checkpoint(calls)
                    calls = []
                    if on_checkpoint is not None:
                        on_checkpoint(step)

    def _restore(self) -> int:
        self._manager.restore_or_initialize()
        step = int(self._step)
        self._history.truncate(step)
        return step

    def _steps_in_call(self, step: int, total_steps: int) -> int:
        every = self._settings.checkpoint_every
        to_checkpoint = every - step % every
        return min(STEPS_PER_CALL, to_checkpoint, total_steps - step)

    def _is_checkpoint_due(self, step: int, total_steps: int) -> bool:
        return (
            step % self._settings.checkpoint_every == 0 or step == total_steps
        )

    def _checkpoint(self, calls: list[tuple[int, tf.Tensor]]) -> None:
        bad = int(self._bad_step)
        if bad == NEVER and not self._is_state_finite():
            bad = int(self._step)
        if bad != NEVER:
            last = self._manager.latest_checkpoint
            raise NonFiniteLossError(
                f"{self._settings.description} stopped: a loss or a weight is "
                f"not finite at step {bad}; the last good checkpoint is "
                f"{last or 'none, it came too early'}. A smaller "
                "learning rate or --precision=float32 may help"
            )
        self._history.append(
            [(step, *np.asarray(means).tolist()) for step, means in calls]
        )
        self._manager.save(int(self._step))

    def _is_state_finite(self) -> bool:
        """The last step's loss may be finite and its update not."""
        states = tf.nest.flatten(
            [
                getattr(each, "variables", each)
                for each in self._trainer.trackables().values()
            ]
        )
        return all(
            bool(tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(state))))
            for state in states
            if tf.as_dtype(state.dtype).is_floating
        )

    def _run_steps_in_graph(self, iterator: Any, count: tf.Tensor) -> tf.Tensor:
        _, sums = tf.while_loop(
            lambda done, _: done < count,
            lambda done, sums: (done + 1, sums + self._one_step(iterator)),
            (0, tf.zeros([len(self._trainer.loss_names)])),
            parallel_iterations=1,
        )
        return sums / tf.cast(count, tf.float32)

    def _one_step(self, iterator: Any) -> tf.Tensor:
        losses = tf.stack(self._compiled_step(next(iterator)))
        is_first_bad = tf.logical_and(
            tf.reduce_any(~tf.math.is_finite(losses)),
            self._bad_step == NEVER,
        )
        self._step.assign_add(1)
        self._bad_step.assign(
            tf.where(is_first_bad, self._step, self._bad_step)
        )
        return losses
