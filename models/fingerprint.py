"""Digests that say whether two networks compute the same thing."""

import hashlib
import json
from collections.abc import Iterable

import keras
import numpy as np


def combine(*parts: str) -> str:
    """Returns the sha256, in hexadecimal, of a sequence of strings."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def defended(classifier: str, purifier: str) -> str:
    """Returns the fingerprint of a classifier behind a purifier.

    Args:
        classifier: The fingerprint of the classifier alone.
        purifier: That of the purifier.
    """
    return combine("behind", classifier, purifier)


def of_weights(weights: Iterable[np.ndarray]) -> str:
    """Returns a digest of arrays that does not depend on their order.

    A SavedModel lists a network's variables in another order than Keras
    does, so the digests of the single arrays are sorted.
    """
    return combine(*sorted(_of_array(array) for array in weights))


def of_keras_architecture(model: keras.Model) -> str:
    """Returns a digest of a Keras model's configuration.

    Whether it is compiled, which of its weights are trainable, and for which
    shapes its layers were built, does not count. A model without a
    configuration (a subclass that does not give one) counts by the name of
    its class.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
    except (RuntimeError, TypeError):  # Keras, of a subclass without one.
        config = f"{type(model).__module__}.{type(model).__qualname__}"
    return combine(json.dumps(_essentials(config), sort_keys=True))


def of_file(path: str) -> str:
    """Returns the sha256, in hexadecimal, of a file."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _of_array(array):
    # ascontiguousarray would turn a scalar into a vector of one.
    array = np.asarray(array, order="C")
    return combine(
        array.dtype.name,
        str(array.shape),
        hashlib.sha256(array.tobytes()).hexdigest(),
    )


def _essentials(config):
    if isinstance(config, dict):
        return {
            key: _essentials(value)
            for key, value in config.items()
            if key not in ("build_config", "compile_config", "trainable")
        }
    if isinstance(config, (list, tuple)):
        return [_essentials(value) for value in config]
    return config
