"""Sends images to an exported purifier on TF Serving, over REST.

    python rest_client.py digit.png photo.jpg --signature=classify_encoded
    python rest_client.py images.npy --signature=purify --output=purified.npy

PNG and JPEG files go, in base64, to the signatures called `_encoded`, and an
.npy file of images, float32 [N, H, W, C] in [0, 1], to the others. It needs
NumPy alone.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="image files, or one .npy")
    parser.add_argument("--url", default="http://127.0.0.1:8501", type=url)
    parser.add_argument("--model", default="purifier")
    parser.add_argument("--signature", default="purify_encoded")
    parser.add_argument("--output", help="where to write the purified images")
    parser.add_argument("--timeout", type=float, default=10, help="in seconds")
    options = parser.parse_args(arguments)
    try:
        instances = read(options.files, options.signature)
    except (OSError, ValueError) as error:
        sys.exit(f"rest_client: {error}")
    answers = predict(options, instances)
    purified = [answer.pop("purified") for answer in answers]
    for number, answer in enumerate(answers):
        print(f"image {number}: {json.dumps(answer)}")
    if options.output:
        np.save(options.output, np.array(purified, np.float32))


def url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(
            f"must begin with http:// or https://, got {text!r}"
        )
    return text.rstrip("/")


def read(files: Sequence[str], signature: str) -> list[Any]:
    """The images as JSON has them: base64 of a file, or nested lists."""
    if signature.endswith("_encoded"):
        contents = (Path(file).read_bytes() for file in files)
        return [{"b64": base64.b64encode(x).decode()} for x in contents]
    if len(files) != 1:
        raise ValueError(f"{signature} takes one .npy file, got {len(files)}")
    images = np.load(files[0])
    if not isinstance(images, np.ndarray) or images.ndim != 4:
        raise ValueError(f"{files[0]} must be an .npy file of [N, H, W, C]")
    if not len(images):
        raise ValueError(f"{files[0]} has no images")
    return images.tolist()


def predict(options: argparse.Namespace, instances: list[Any]) -> list[dict]:
    """One dictionary of outputs an image."""
    url = f"{options.url}/v1/models/{options.model}:predict"
    body = {"signature_name": options.signature, "instances": instances}
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=options.timeout) as answer:
            return json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        sys.exit(f"rest_client: {error.code} {error.reason}: {text}")
    except OSError as error:
        sys.exit(f"rest_client: no answer from {url}: {error}")


if __name__ == "__main__":
    main()
