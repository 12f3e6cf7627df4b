"""How many threads, on which processor."""

from __future__ import annotations

import os

import tensorflow as tf


def usable_cores() -> int:
    """The cores that this process may use, which may be fewer than are."""
    if hasattr(os, "sched_getaffinity"):  # Not on macOS.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_cores(threads: int) -> None:
    """Gives TensorFlow so many threads, and no GPU.

    It must be called before TensorFlow computes anything.
    """
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
