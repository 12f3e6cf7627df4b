"""How fast do CIFAR-10's targets train, and what makes it faster?

    python benchmarks/classifier_step.py --classifiers=densenet40,resnet18

measures, in alternating rounds of one run, images per second of the compiled
training step of `train_classifier` on 32x32x3 images, in float32 and in
bfloat16, with batch normalisation as one operation, as it is trained, and as
Keras computes it. (D has none.) Ratios are to float32 with Keras's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

# A script beside this one has the name of a package of ours, which must be
# found first.
sys.path.pop(0)
from ape_gan_tf.choices import TARGETS
from ape_gan_tf.classifier_training import ClassifierConfig, ClassifierTrainer

sys.path.append(str(Path(__file__).resolve().parent))
from processes import names_among
from rounds import (
    Spread,
    alternate,
    listed,
    machine,
    markdown_table,
    speedup,
    write_json,
)

IMAGE_SHAPE, CLASSES = (32, 32, 3), 10
# (precision, whether batch normalisation is one operation): the reference
# first.
WAYS = {
    "float32, Keras's batch norm": ("float32", False),
    "float32": ("float32", True),
    "bfloat16, Keras's batch norm": ("mixed_bfloat16", False),
    "bfloat16": ("mixed_bfloat16", True),
}


def main() -> int:
    arguments = _parser().parse_args()
    report = {
        "machine": machine(),
        "setup": {
            "batch_size": arguments.batch_size,
            "rounds": arguments.rounds,
            "steps": arguments.steps,
        },
        "classifiers": {
            name: _measure(name, arguments) for name in arguments.classifiers
        },
    }
    print(_text(report))
    if arguments.json:
        write_json(arguments.json, report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--classifiers",
        type=names_among(TARGETS),
        default=["D", "densenet40", "resnet18"],
    )
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--steps", type=int, default=2, help="of each way in a round"
    )
    parser.add_argument("--json", type=Path, metavar="PATH")
    return parser


def _measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    timings = alternate(
        {
            way: _run(
                trainer(name, arguments.batch_size, *how),
                arguments.batch_size,
                arguments.steps,
            )
            for way, how in WAYS.items()
        },
        arguments.rounds,
    )
    images = arguments.steps * arguments.batch_size
    (reference, *_) = timings.values()
    return {
        way: {
            "images_a_second": Spread.of([images / x.wall for x in found]),
            "cpu_ms_an_image": Spread.of([1e3 * x.cpu / images for x in found]),
            "speedup": speedup(found, reference),
        }
        for way, found in timings.items()
    }


def trainer(
    name: str, batch_size: int, precision: str, is_fused: bool
) -> ClassifierTrainer:
    """Trains as `train_classifier` does, or with Keras's own layers."""
    made = ClassifierTrainer(
        ClassifierConfig(
            classifier=name, batch_size=batch_size, precision=precision
        ),
        IMAGE_SHAPE,
        CLASSES,
        total_steps=1000,
    )
    if not is_fused:
        made.training_model = made.model
    return made


def _run(
    made: ClassifierTrainer, batch_size: int, steps: int
) -> Callable[[], None]:
    step = tf.function(made.train_step)
    shape = (batch_size, *IMAGE_SHAPE)
    batch = {
        "images": tf.random.stateless_uniform(shape, (0, 0)),
        "labels": tf.range(shape[0], dtype=tf.int64) % CLASSES,
    }

    def run() -> None:
        for _ in range(steps):
            loss, _ = step(batch)
        loss.numpy()

    return run


def _text(report: dict[str, Any]) -> str:
    header = ["step", "images a second", "CPU ms an image", "times as fast"]
    parts = [listed(report["machine"]), listed(report["setup"])]
    for name, ways in report["classifiers"].items():
        rows = [
            [
                way,
                found["images_a_second"].text(".0f"),
                found["cpu_ms_an_image"].text(".1f"),
                found["speedup"].text(".2f"),
            ]
            for way, found in ways.items()
        ]
        parts.append(f"{name}\n\n{markdown_table(header, rows)}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
