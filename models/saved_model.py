"""SavedModel directories: ours and a stranger's, read and written."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from models import fingerprint, network

# TF Serving leaves what lies in assets.extra/ alone.
DETAILS_FILE = os.path.join("assets.extra", "ape_gan_tf.json")


class Endpoint(NamedTuple):
    """A signature to be.

    Attributes:
        function: Of one batch, which has the spec.
        spec: Its shape, with a free batch size, its dtype and its name.
    """

    function: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    spec: tf.TensorSpec


def images_spec(image_shape: Sequence[int]) -> tf.TensorSpec:
    """Of a batch of images: float32, called `images`."""
    return tf.TensorSpec((None, *image_shape), tf.float32, name="images")


def load(
    path: str,
    *,
    endpoints: Sequence[str],
    output: str,
    endpoint: str | None = None,
    image_shape: Sequence[int] | None = None,
) -> network.Network:
    """Loads one endpoint of a SavedModel as a network.

    Args:
        path: The directory.
        endpoints: Signatures to look for, the preferred one first.
        output: Which output to take of a signature that has several.
        endpoint: The signature to take instead of one of `endpoints`.
        image_shape: Height, width and channels, where the signature leaves
            them open.

    Returns:
        The network, which keeps the loaded object alive.

    Raises:
        ValueError: If the directory cannot be read, or has no signature
            from one batch of float images to one output.
    """
    try:
        loaded = tf.saved_model.load(path)
    # TensorFlow reports a damaged SavedModel in many ways.
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        tf.errors.OpError,
    ) as error:
        raise ValueError(f"{path} is not a readable SavedModel: {error}") from (
            error
        )
    signature = _choose_signature(path, loaded.signatures, endpoints, endpoint)
    input_name, spec = _choose_input(path, loaded.signatures, signature)
    output_name = _choose_output(path, loaded.signatures, signature, output)
    function = loaded.signatures[signature]

    def call(images):
        return function(**{input_name: tf.cast(images, spec.dtype)})[
            output_name
        ]

    details = _read_details(path)
    if details is None:
        graph = fingerprint.of_file(os.path.join(path, "saved_model.pb"))
        details = {
            "identity": fingerprint.combine(graph, signature, output_name),
            "name": _name(path),
        }
    return network.Network(
        function=call,
        image_shape=network.resolve_image_shape(
            path, spec.shape[1:] if spec.shape.rank else None, image_shape
        ),
        name=details["name"],
        identity=details["identity"],
        weights=lambda: [variable.numpy() for variable in function.variables],
        trackables=(loaded,),
    )


def save(
    directory: str | os.PathLike[str],
    endpoints: Mapping[str, Endpoint],
    *,
    identity: str,
    name: str,
    trackables: Sequence[Any],
) -> None:
    """Writes a SavedModel, not atomically.

    Args:
        directory: Where to write; `data.files.written_whole` gives one.
        endpoints: By name. The first one is the signature
            "serving_default" too.
        identity: The network's `identity`, so that the SavedModel has the
            fingerprint of the network that it was made from.
        name: The network's name.
        trackables: Whatever owns the variables and tables that the endpoints
            use: Keras models, loaded SavedModels, modules.
    """
    archive = keras.export.ExportArchive()
    for trackable in trackables:
        # The archive finds a Keras model's variables by itself, and would
        # write those that it is told of once more.
        if not isinstance(trackable, keras.layers.Layer):
            archive.track(trackable)
    for endpoint, (function, spec) in endpoints.items():
        archive.add_endpoint(endpoint, function, input_signature=[spec])
    archive.write_out(os.fspath(directory), verbose=False)
    write_details(directory, identity=identity, name=name)


def write_details(
    directory: str | os.PathLike[str], *, identity: str, name: str
) -> None:
    """Writes into a SavedModel which network it was made from.

    Args:
        directory: A SavedModel.
        identity: The network's `identity`: `load` then finds the same
            fingerprint, as long as the weights are the same.
        name: The network's name.
    """
    path = os.path.join(directory, DETAILS_FILE)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"version": 1, "identity": identity, "name": name}, file)


def _choose_signature(path, signatures, endpoints, endpoint):
    wanted = endpoints if endpoint is None else (endpoint,)
    for name in wanted:
        if name in signatures:
            return name
    raise ValueError(
        f"{path} has no signature {' or '.join(wanted)}; "
        f"{_describe(signatures)}"
    )


def _choose_input(path, signatures, signature):
    specs = signatures[signature].structured_input_signature[1]
    if len(specs) != 1:
        raise ValueError(
            f"{path}: signature {signature} must have one input, a batch of "
            f"images, got {len(specs)}; {_describe(signatures)}"
        )
    [(name, spec)] = specs.items()
    if not spec.dtype.is_floating:
        raise ValueError(
            f"{path}: signature {signature} must take floating point images, "
            f"got {spec.dtype.name}: a cast to integers has no gradient; save "
            "the model with a float input"
        )
    if spec.shape.rank not in (None, 4):
        raise ValueError(
            f"{path}: signature {signature} must take images of shape "
            f"[B, H, W, C], got {spec.shape}"
        )
    if spec.shape.rank and spec.shape[0] is not None:
        raise ValueError(
            f"{path}: signature {signature} must have a free batch "
            f"dimension, got {spec.shape}"
        )
    return name, spec


def _choose_output(path, signatures, signature, preferred):
    outputs = signatures[signature].structured_outputs
    if len(outputs) == 1:
        return next(iter(outputs))
    if preferred in outputs:
        return preferred
    raise ValueError(
        f"{path}: signature {signature} must have one output or one called "
        f"{preferred}, got {sorted(outputs)}; {_describe(signatures)}"
    )


def _describe(signatures):
    if not signatures:
        return "it has no signatures"
    lines = []
    for name, function in signatures.items():
        inputs = _describe_specs(function.structured_input_signature[1])
        outputs = _describe_specs(function.structured_outputs)
        lines.append(f"{name}({inputs}) -> {outputs}")
    return f"its signatures: {'; '.join(lines)}"


def _describe_specs(specs):
    return ", ".join(
        f"{name}: {spec.dtype.name}{spec.shape}"
        for name, spec in sorted(specs.items())
    )


def _read_details(path):
    """Returns what our own save wrote, None for a stranger's SavedModel."""
    file = os.path.join(path, DETAILS_FILE)
    if not os.path.exists(file):
        return None
    try:
        with open(file, encoding="utf-8") as opened:
            details = json.load(opened)
        return {key: str(details[key]) for key in ("identity", "name")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error!r}") from error


def _name(path):
    parent, name = os.path.split(os.path.abspath(path))
    return os.path.basename(parent) if name.isdigit() else name
