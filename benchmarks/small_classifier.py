"""Trains a small classifier of MNIST that withstands a little.

    python benchmarks/small_classifier.py --data_dir=DIR --output=small.keras

The paper's targets cost other libraries minutes an image; with this one, 500
images can be compared in one sitting (`robustness.py`). Adversarially trained
by single steps from random points (Wong et al. 2020, 'Fast is better than
free'), so that attacks of different strength find different errors.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

# This folder has files of the names of packages of ours.
sys.path.pop(0)
import data

EPSILON, ALPHA = 0.2, 0.25
BATCH_SIZE = 128
LEARNING_RATE = 3e-3


def main() -> int:
    arguments = _parser().parse_args()
    keras.utils.set_random_seed(arguments.seed)
    dataset = data.load("mnist", data_dir=arguments.data_dir)
    model = small_classifier(dataset.image_shape, dataset.num_classes)
    train(model, dataset, arguments.epochs)
    model.save(arguments.output)
    print(f"classifier: {arguments.output}")
    return 0


def small_classifier(
    image_shape: tuple[int, int, int], num_classes: int
) -> keras.Model:
    """Two strided convolutions and two dense layers, to logits."""
    return keras.Sequential(
        [
            keras.Input(image_shape, name="images"),
            keras.layers.Conv2D(16, 5, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 5, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(num_classes),
        ],
        name="small_classifier",
    )


def train(model: keras.Model, dataset: data.Dataset, epochs: int) -> None:
    """Trains on images moved by one step from a random point each."""
    steps = epochs * (dataset.count("train") // BATCH_SIZE)
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    )
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> None:
        moved = _moved(model, images, labels)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(_losses(model, moved, labels))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    batches = dataset.batches("train", BATCH_SIZE).unbatch().shuffle(10_000)
    for _ in range(epochs):
        for batch in batches.batch(BATCH_SIZE, drop_remainder=True):
            step(batch["images"], batch["labels"])


def _moved(
    model: keras.Model, images: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    change = tf.random.uniform(tf.shape(images), -EPSILON, EPSILON)
    with tf.GradientTape() as tape:
        tape.watch(change)
        losses = _losses(model, images + change, labels)
    change += ALPHA * tf.sign(tape.gradient(losses, change))
    change = tf.clip_by_value(change, -EPSILON, EPSILON)
    return tf.clip_by_value(images + change, 0.0, 1.0)


def _losses(
    model: keras.Model, images: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels, model(images, training=True)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data_dir", type=Path, default=None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
