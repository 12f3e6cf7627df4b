"""How long a purifier takes."""

from __future__ import annotations

import statistics
import time

import tensorflow as tf

import models

BATCH = 64
ROUNDS = 9


def milliseconds_an_image(
    purifier: models.Purifier, images: tf.Tensor
) -> float:
    """The median over some rounds, of one image in a batch of `BATCH`.

    Args:
        purifier: Compiled here, before the clock runs.
        images: float32 `[N, H, W, C]`, repeated to fill the batch.
    """
    whole = tf.gather(images, tf.range(BATCH) % tf.shape(images)[0])
    function = tf.function(purifier, autograph=False)
    function(whole)
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function(whole).numpy()
        rounds.append(time.perf_counter() - start)
    return 1000.0 * statistics.median(rounds) / BATCH
