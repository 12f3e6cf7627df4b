"""Networks that were trained on ImageNet, from `keras.applications`."""

import collections
import os
import re
import warnings
from typing import Any, NamedTuple

import keras

from data import checks


class _Application(NamedTuple):
    builder: Any
    size: int
    is_caffe: bool


_APPLICATIONS = {
    "inception_v3": _Application(keras.applications.InceptionV3, 299, False),
    "mobilenet_v2": _Application(keras.applications.MobileNetV2, 224, False),
    "resnet50": _Application(keras.applications.ResNet50, 224, True),
}
APPLICATIONS = tuple(_APPLICATIONS)

# What Caffe's networks have subtracted from blue, green and red in [0, 255].
_CAFFE_MEANS = (103.939, 116.779, 123.68)
_SUFFIX = ".h5"


def application(
    name: str, *, weights: str | os.PathLike[str] = "imagenet"
) -> keras.Model:
    """Builds a network that was trained on ImageNet, without its softmax.

    ResNet50 (He et al. 2016) and InceptionV3 (Szegedy et al. 2016) are the
    paper's targets on ImageNet; MobileNetV2 (Sandler et al. 2018) is a small
    one beside them, not the paper's. Layers and weights are those of
    `keras.applications`; the paper does not say whose it had.

    The network's own preprocessing is inside. ResNet50 has Caffe's: blue,
    green, red in [0, 255] less (103.939, 116.779, 123.68). The two others
    have [-1, 1]. For images of another size, hand the model to
    `Classifier.from_keras` with `image_shape` and `resize=True`.

    Args:
        name: One of `APPLICATIONS`.
        weights: "imagenet" downloads them, or takes them from Keras's
            cache; else the path of a `.weights.h5` or `.h5` file of the
            same network, as Keras writes it. An untrained network is no
            target, so None is not offered.

    Returns:
        A functional model named `name`, from float32 RGB images
        `[B, S, S, 3]` in [0, 1], the input "images", to float32 logits
        `[B, 1000]`. S is 299 for `inception_v3`, else 224. Layers are named
        alike each time, so that fingerprints are comparable. A `.keras` file
        of it needs no custom objects.

    Raises:
        ValueError: If `name` is unknown, or the file is not of this network.
        FileNotFoundError: If there is no such file, or no download.
    """
    checks.check_one_of(name, APPLICATIONS, "name")
    if weights == "imagenet":
        return _with_stable_names(_download(name))
    path = _check_weights_file(weights)
    model = _build(name, None)
    _load_weights(model, path)
    return _with_stable_names(model)


def _build(name, weights):
    builder, size, is_caffe = _APPLICATIONS[name]
    images = keras.Input((size, size, 3), name="images")
    preprocess = _preprocess_caffe if is_caffe else _preprocess_symmetric
    network = builder(
        input_tensor=preprocess(images),
        weights=weights,
        classifier_activation=None,
    )
    # The builder's model wants a list of one batch.
    return keras.Model(images, network.output, name=name)


def _preprocess_caffe(images):
    offsets = [-mean for mean in _CAFFE_MEANS]
    return _rescaling(255.0, offsets)(keras.ops.flip(images, axis=-1))


def _preprocess_symmetric(images):
    return _rescaling(2.0, -1.0)(images)


def _rescaling(scale, offset):
    # float32 whatever the precision policy: half of it rounds pixels away.
    return keras.layers.Rescaling(
        scale, offset, dtype="float32", name="preprocessing"
    )


def _download(name):
    try:
        return _build(name, "imagenet")
    # Keras's downloader raises a plain Exception where the server cannot be
    # reached; a broken connection, a full disk and a wrong hash have others.
    except Exception as error:
        raise FileNotFoundError(
            f"the ImageNet weights of {name} cannot be downloaded, nor read "
            f"from Keras's cache ({error}): pass weights=PATH, a .weights.h5 "
            "or .h5 file of this network as Keras writes it"
        ) from error


def _check_weights_file(weights):
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(
            "weights must be 'imagenet' or the path of a weights file, got "
            f"{weights!r}: an untrained network is no target"
        )
    path = os.fspath(weights)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no weights file {path}")
    if not path.endswith(_SUFFIX):
        raise ValueError(
            f"weights must be 'imagenet', a .weights.h5 or an .h5 file, "
            f"got {path}"
        )
    return path


def _load_weights(model, path):
    try:
        with warnings.catch_warnings():
            # Keras warns of groups of layers that it misses, then raises.
            warnings.simplefilter("ignore", UserWarning)
            model.load_weights(path)
    # Keras and h5py report a file that does not fit in many ways.
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Keras lists all layers below the first line.
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} does not hold the weights of {model.name}: {reason}"
        ) from error


def _with_stable_names(model):
    """Copies a model, with names that do not depend on earlier models.

    Keras numbers the layers without a name through the whole process: the
    second model would have another fingerprint than the first.
    """
    counts: collections.Counter[str] = collections.Counter()

    def renamed(operation):
        kind = type(operation).__name__.lower()
        config = operation.get_config()
        if re.fullmatch(rf"{kind}\d*", operation.name.replace("_", "")):
            counts[kind] += 1
            config["name"] = f"{kind}_{counts[kind]}"
        if operation is model.layers[-1]:
            # Whatever the precision policy: attacks need its resolution.
            config["dtype"] = "float32"
        return type(operation).from_config(config)

    copy = keras.models.clone_model(model, clone_function=renamed)
    copy.set_weights(model.get_weights())
    return copy
