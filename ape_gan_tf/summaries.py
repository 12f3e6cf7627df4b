"""TensorBoard summaries of a purifier's training.

Written with `tf.summary.write`: `tf.summary.scalar` and `.image` need the
TensorBoard package, which TensorFlow no longer installs, and only a reader of
the events should have to.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import summary_pb2

import models
from ape_gan_tf.loss_history import last_step, read_losses


class TrainingSummaries:
    """Writes losses and a grid of images at each checkpoint.

    Args:
        directory: For the event files.
        losses_csv: What the training loop writes.
        clean: float32 `[N, H, W, C]`, the first row of the grid.
        adversarial: The same; the second row, and purified the third.
    """

    def __init__(
        self,
        directory: Path,
        losses_csv: Path,
        clean: np.ndarray,
        adversarial: np.ndarray,
    ) -> None:
        self._directory = str(directory)
        self._losses_csv = losses_csv
        self._clean, self._adversarial = clean, adversarial
        # What an earlier process wrote is not written again.
        self._written = last_step(losses_csv)

    def __call__(self, step: int, purifier: models.Purifier) -> None:
        """Writes what is new since the last call."""
        with self._writer.as_default():
            self._write_losses()
            _write_image(
                "clean_adversarial_purified", self._grid(purifier), step
            )
        self._writer.flush()

    @functools.cached_property
    def _writer(self) -> Any:
        """Made when there is something to write: it makes a file."""
        return tf.summary.create_file_writer(self._directory)

    def _write_losses(self) -> None:
        columns = read_losses(self._losses_csv)
        steps = columns.pop("step").astype(np.int64)
        for row in np.flatnonzero(steps > self._written):
            for name, values in columns.items():
                _write_scalar(name, values[row], steps[row])
        self._written = int(steps[-1])

    def _grid(self, purifier: models.Purifier) -> np.ndarray:
        rows = [
            self._clean,
            self._adversarial,
            purifier.predict(self._adversarial),
        ]
        return np.concatenate([np.hstack(list(row)) for row in rows])


def _write_scalar(name: str, value: float, step: int) -> None:
    metadata = _metadata("scalars", summary_pb2.DATA_CLASS_SCALAR)
    tf.summary.write(name, np.float32(value), step, metadata)


def _write_image(name: str, image: np.ndarray, step: int) -> None:
    """The images plugin wants [width, height, PNG] as strings."""
    height, width = image.shape[:2]
    pixels = tf.image.convert_image_dtype(image, tf.uint8, saturate=True)
    content = [str(width), str(height), tf.io.encode_png(pixels)]
    metadata = _metadata("images", summary_pb2.DATA_CLASS_BLOB_SEQUENCE)
    tf.summary.write(name, tf.stack(content), step, metadata)


def _metadata(plugin: str, data_class: int) -> summary_pb2.SummaryMetadata:
    return summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin),
        data_class=data_class,
    )
