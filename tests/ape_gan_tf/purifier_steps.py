"""What the tests of a purifier's training step have in common."""

import numpy as np
import tensorflow as tf

SHAPE = (8, 8, 1)


def make_batch():
    """Sixteen random images, and the same with noise."""
    generator = np.random.default_rng(0)
    clean = generator.random((16, *SHAPE), dtype=np.float32)
    noise = generator.uniform(-0.3, 0.3, clean.shape).astype(np.float32)
    return {
        "images": tf.constant(clean),
        "adversarial": tf.constant(np.clip(clean + noise, 0.0, 1.0)),
    }


def weights_of(model):
    return [np.array(variable) for variable in model.trainable_variables]


def has_changed(before, after):
    return [
        bool((old != new).any()) for old, new in zip(before, after, strict=True)
    ]


def named_losses(trainer, batch):
    found = trainer.train_step(batch)
    return dict(zip(trainer.loss_names, map(float, found), strict=True))
