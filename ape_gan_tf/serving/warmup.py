"""Requests that TF Serving answers to itself before it takes others.

The first request to a signature pays for what TensorFlow puts off until then.
The server replays `assets.extra/tf_serving_warmup_requests`, a TFRecord file
of PredictionLog messages, when it loads a version.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from models.saved_model import Endpoint

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_REQUESTS = 1000  # More, and the server refuses the model.
_PACKAGE = "tensorflow_serving"


def is_available() -> bool:
    """Whether the messages' definitions are installed."""
    return importlib.util.find_spec(_PACKAGE) is not None


def write(
    directory: Path,
    name: str,
    endpoints: Mapping[str, Endpoint],
    image_shape: tuple[int, int, int],
    batch_sizes: Sequence[int],
) -> None:
    """Writes requests for each signature and batch size into a SavedModel.

    One of black images or, where files are taken, one of PNG and one of JPEG
    files, larger than the images: decoding and scaling warm up too.

    Args:
        directory: The SavedModel's.
        name: The model's, which the server does not look at.
        endpoints: By signature.
        image_shape: Height, width and channels of the images.
        batch_sizes: Those that the server will see; with batching, the
            allowed ones.

    Raises:
        ImportError: tensorflow-serving-api is not installed.
        ValueError: There are more requests than a server replays.
    """
    shown = {
        signature: _files(image_shape)
        if endpoint.spec.dtype == tf.string
        else [np.zeros(image_shape, np.float32)]
        for signature, endpoint in endpoints.items()
    }
    most = MAX_REQUESTS // sum(len(each) for each in shown.values())
    if len(batch_sizes) > most:
        raise ValueError(
            f"warmup_batch_sizes must be at most {most} here, since a server "
            f"replays {MAX_REQUESTS} requests; got {len(batch_sizes)}"
        )
    path = directory / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, endpoint in endpoints.items():
            for size in batch_sizes:
                for image in shown[signature]:
                    batch = tf.make_tensor_proto(
                        np.array([image] * size), endpoint.spec.dtype
                    )
                    writer.write(
                        _request(name, signature, endpoint.spec.name, batch)
                    )


def _files(image_shape: tuple[int, int, int]) -> list[bytes]:
    height, width, channels = image_shape
    black = np.zeros((2 * height, 2 * width, channels), np.uint8)
    return [
        encode(black).numpy()
        for encode in (tf.io.encode_png, tf.io.encode_jpeg)
    ]


def _request(name: str, signature: str, input_name: str, batch: Any) -> bytes:
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "warm-up requests need tensorflow-serving-api: "
            "pip install 'ape-gan-tf[serving]'"
        ) from error

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    request.inputs[input_name].CopyFrom(batch)
    return prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request)
    ).SerializeToString()
