"""Networks that are not ours, and what tests do with them."""

import numpy as np
import tensorflow as tf

SHAPE = (8, 6, 3)


class Linear(tf.Module):
    """A stranger's network: TensorFlow, not Keras."""

    def __init__(self, classes=4):
        super().__init__()
        weights = np.random.default_rng(2).normal(size=(8 * 6 * 3, classes))
        self.weights = tf.Variable(weights.astype(np.float32))

    @tf.function(
        input_signature=[tf.TensorSpec((None, *SHAPE), tf.float32, name="x")]
    )
    def __call__(self, x):
        return tf.reshape(x, (-1, 8 * 6 * 3)) @ self.weights


def gradient(classifier, images):
    images = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(classifier(images)[:, 1])
    return tape.gradient(loss, images).numpy()


def save_function(path, function, *specs, names=("serving_default",)):
    """Writes a SavedModel of a function with the given signatures."""
    module = tf.Module()
    module.function = tf.function(function, input_signature=specs)
    tf.saved_model.save(
        module, str(path), signatures=dict.fromkeys(names, module.function)
    )
    return path


def image_spec(dtype=tf.float32, shape=(None, *SHAPE)):
    return tf.TensorSpec(shape, dtype, name="x")


def flat(x, classes=4):
    return tf.reshape(x, (tf.shape(x)[0], -1))[:, :classes] - 0.5
