"""A process that loads an exported purifier and answers its first request.

`serving.py` starts it. What it imports is imported before the clock runs, as
on a server, which has no Python.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

# A script beside this one has the name of a package of ours, which must be
# found first.
sys.path.pop(0)
from ape_gan_tf.serving import warmup

sys.path.append(str(Path(__file__).resolve().parent))
from processes import keep, timed
from usable_cores import use_cores

LATER_ANSWERS = 50


def main() -> None:
    arguments = _parser().parse_args()
    use_cores(arguments.threads)
    is_warmed_up = arguments.child.split("/")[1] == "warm"
    loaded, (load, _) = timed(tf.saved_model.load, str(arguments.saved_model))
    warm_up = _warm_up(loaded, arguments.saved_model) if is_warmed_up else 0.0
    purify = loaded.signatures["purify"]
    shape = purify.structured_input_signature[1]["images"].shape[1:]
    images = np.random.default_rng(0).random((1, *shape), np.float32)

    def answer() -> np.ndarray:
        return purify(images=tf.constant(images))["purified"].numpy()

    first, *later = (timed(answer)[1][0] for _ in range(1 + LATER_ANSWERS))
    keep(
        arguments.output,
        load=load,
        warm_up=warm_up,
        first=first,
        later=statistics.median(later),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saved_model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--child", required=True, help="NAME/cold or /warm/...")
    parser.add_argument("--output", type=Path, required=True)
    return parser


def _warm_up(loaded: Any, saved_model: Path) -> float:
    """Seconds that the answers to the warm-up requests take.

    A server replays them while it loads. They are read before the clock runs.
    """
    requests = read_requests(saved_model / warmup.FILE)

    def replay() -> None:
        for signature, tensors in requests:
            loaded.signatures[signature](**tensors)

    return timed(replay)[1][0]


def read_requests(file: Path) -> list[tuple[str, dict[str, tf.Tensor]]]:
    """The signature and the tensors of each request, in order."""
    from tensorflow_serving.apis import prediction_log_pb2

    requests = []
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        tensors = {
            name: tf.constant(tf.make_ndarray(tensor))
            for name, tensor in request.inputs.items()
        }
        requests.append((request.model_spec.signature_name, tensors))
    return requests


if __name__ == "__main__":
    main()
