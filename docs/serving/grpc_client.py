"""Sends images to an exported purifier on TF Serving, over gRPC.

    python grpc_client.py digit.png photo.jpg --signature=classify_encoded
    python grpc_client.py images.npy --signature=purify --output=purified.npy

PNG and JPEG files go to the signatures called `_encoded`, and an .npy file of
images, float32 [N, H, W, C] in [0, 1], to the others. It needs
tensorflow-serving-api.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="image files, or one .npy")
    parser.add_argument("--address", default="127.0.0.1:8500")
    parser.add_argument("--model", default="purifier")
    parser.add_argument("--signature", default="purify_encoded")
    parser.add_argument("--output", help="where to write the purified images")
    parser.add_argument("--timeout", type=float, default=10, help="in seconds")
    options = parser.parse_args(arguments)
    try:
        request = read(options)
    except (OSError, ValueError) as error:
        sys.exit(f"grpc_client: {error}")
    answers = predict(options, request)
    purified = answers.pop("purified")
    for number in range(len(purified)):
        rows = {name: row(x[number]) for name, x in sorted(answers.items())}
        print(f"image {number}: {json.dumps(rows)}")
    if options.output:
        np.save(options.output, purified)


def read(options: argparse.Namespace) -> predict_pb2.PredictRequest:
    """The request: file contents as `image_bytes`, or an array as `images`."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = options.model
    request.model_spec.signature_name = options.signature
    if options.signature.endswith("_encoded"):
        name, batch = (
            "image_bytes",
            [Path(x).read_bytes() for x in options.files],
        )
    elif len(options.files) == 1:
        name, batch = "images", read_array(options.files[0])
    else:
        raise ValueError(f"{options.signature} takes one .npy file")
    # A server that merges requests does not answer an empty one.
    if not len(batch):
        raise ValueError(f"{options.files[0]} has no images")
    request.inputs[name].CopyFrom(tf.make_tensor_proto(batch))
    return request


def read_array(file: str) -> np.ndarray:
    """Images; the server does not name the input whose dtype is another."""
    images = np.load(file)
    if not isinstance(images, np.ndarray) or images.ndim != 4:
        raise ValueError(f"{file} must be an .npy file of [N, H, W, C]")
    if images.dtype != np.float32:
        raise ValueError(f"images must be float32, got {images.dtype}: {file}")
    return images


def predict(
    options: argparse.Namespace, request: predict_pb2.PredictRequest
) -> dict[str, np.ndarray]:
    """Each output, an array with one row an image."""
    # The default refuses answers above 4 MiB.
    settings = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(options.address, settings) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            outputs = stub.Predict(request, timeout=options.timeout).outputs
        except grpc.RpcError as error:
            sys.exit(f"grpc_client: {error.code().name}: {error.details()}")
    return {name: tf.make_ndarray(value) for name, value in outputs.items()}


def row(value: np.generic | np.ndarray | bytes) -> object:
    """A value as JSON has it."""
    return value.decode() if isinstance(value, bytes) else value.tolist()


if __name__ == "__main__":
    main()
