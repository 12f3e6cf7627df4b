"""How fast is our training step, beside eager PyTorch's?

    python benchmarks/train_step.py

measures, in alternating rounds of one run, images per second of

* our step as the training loop runs it, with XLA and without; the mode that
  the flagfile ships is the one that counts,
* the same networks, losses, optimizers and schedule in eager PyTorch, in its
  default layout and in channels_last (`pytorch_step.py`),

and then what it costs to feed our step from an adversarial set on disk instead
of with one batch again and again. Fails (exit code 1) if ours is not at least
1.6 times PyTorch's default and 1.2 times its channels_last, or if the
pipeline costs more than 5 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

# A script beside this one has the name of a package of ours, which must be
# found first.
sys.path.pop(0)
import data
from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.purifier_training import PurifierTrainer

sys.path.append(str(Path(__file__).resolve().parent))
import contestants
from contestants import OURS, PYTORCH, OurStep, of_ours, of_pytorch
from pytorch_step import PyTorchStep
from rounds import Spread, alternate

IMAGE_SHAPE = (28, 28, 1)
EPSILON = 0.3
LEAST_SPEEDUP = {False: 1.6, True: 1.2}
CONSTANT, PIPELINE = "one batch again and again", "an adversarial set on disk"
MOST_PIPELINE_PERCENT = 5.0


def main() -> int:
    arguments = _parser().parse_args()
    config, shipped_xla = contestants.shipped(arguments.flagfile)
    config = dataclasses.replace(
        config, batch_size=arguments.batch_size, seed=arguments.seed
    )
    with tempfile.TemporaryDirectory() as name:
        report = _measure(arguments, config, shipped_xla, Path(name))
    return contestants.conclude(report, _text(report), arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    contestants.add_options(
        parser,
        [
            ("rounds", 7, "rounds that count"),
            ("steps", 40, "steps of each contestant in a round"),
            ("batch_size", 64, "images a step"),
            ("images", 8_192, "images of the set on disk, all used in a round"),
            ("seed", 0, "of the images and of the weights"),
        ],
        flagfile="mnist.flags",
    )
    return parser


def _measure(
    arguments: argparse.Namespace,
    config: PurifierConfig,
    shipped_xla: bool,
    folder: Path,
) -> dict[str, Any]:
    steps, size = arguments.steps, arguments.batch_size
    epoch = data.steps_per_epoch(arguments.images, size)
    # More than are run: to the pipeline, the end never comes.
    total_steps = (arguments.rounds + 3) * max(steps, epoch)
    pairs = write_set(folder / "set", arguments.images, arguments.seed)
    batches = pairs.training_batches(
        size, seed=arguments.seed, total_steps=total_steps
    )
    batch = next(iter(batches))
    ours = {
        xla: OurStep(
            PurifierTrainer(config, IMAGE_SHAPE, total_steps, xla=xla),
            xla,
            folder / f"xla_{xla}",
        )
        for xla in OURS
    }
    constant = iter(tf.data.Dataset.from_tensors(batch).repeat())
    runs = {
        OURS[xla]: of_ours(step, constant, steps) for xla, step in ours.items()
    }
    for channels_last, name in PYTORCH.items():
        step = PyTorchStep(config, total_steps, channels_last=channels_last)
        pair = [step.batch(batch[x].numpy()) for x in ("images", "adversarial")]
        runs[name] = of_pytorch(step, pair, steps)
    step_timings = alternate(runs, arguments.rounds)

    shipped = ours[shipped_xla]
    feeding_timings = alternate(
        {
            CONSTANT: of_ours(shipped, constant, epoch),
            PIPELINE: of_ours(shipped, iter(batches), epoch),
        },
        arguments.rounds,
    )
    return {
        **contestants.environment(),
        "setup": {
            name: getattr(arguments, name)
            for name in ("batch_size", "flagfile", "images", "rounds", "seed")
        }
        | {"steps": steps, "steps_fed": epoch, "shipped_xla": shipped_xla},
        "steps": contestants.speeds(step_timings, steps, size),
        "feeding": contestants.speeds(feeding_timings, epoch, size),
        "speedups": contestants.speedups(step_timings),
        "required": _required(step_timings, feeding_timings, shipped_xla),
    }


def write_set(path: Path, count: int, seed: int) -> data.AdversarialSet:
    """Writes random images, and the same with a random sign's step added."""
    generator = np.random.default_rng(seed)
    writer = data.AdversarialSetWriter(
        path,
        data.Provenance(
            attack="random_sign",
            params={"epsilon": EPSILON},
            threat_model="oblivious",
            seed=seed,
            dataset="random",
            split="train",
            classifier_fingerprint="",
        ),
        count=count,
        image_shape=IMAGE_SHAPE,
    )
    for shard in writer.missing():
        with writer.shard(shard) as sink:
            sink.append(**_rows(generator, shard))
    return data.AdversarialSet.open(path)


def _rows(
    generator: np.random.Generator, shard: data.Shard
) -> dict[str, np.ndarray]:
    index = np.arange(shard.start, shard.stop)
    count = len(index)
    images = generator.random((count, *IMAGE_SHAPE), np.float32)
    signs = generator.integers(0, 2, images.shape) * 2 - 1
    adversarial = np.clip(images + np.float32(EPSILON) * signs, 0, 1)
    distances = np.zeros(count, np.float32)
    return {
        "images": images,
        "adversarial": adversarial.astype(np.float32),
        "labels": index % 10,
        "index": index,
        "target": np.full(count, -1),
        "epsilon": np.full(count, EPSILON, np.float32),
        "success": np.zeros(count, np.bool_),
        "l0": distances,
        "l2": distances,
        "linf": distances,
        "gradient_evaluations": np.ones(count, np.int64),
    }


def _required(
    step_timings: contestants.Timings,
    feeding_timings: contestants.Timings,
    shipped_xla: bool,
) -> list[dict[str, Any]]:
    rows = contestants.required_speedups(
        step_timings, shipped_xla, LEAST_SPEEDUP
    )
    cost = Spread.of(
        [
            100 * (fed.wall / constant.wall - 1)
            for fed, constant in zip(
                feeding_timings[PIPELINE],
                feeding_timings[CONSTANT],
                strict=True,
            )
        ]
    )
    rows.append(
        {
            "what": "cost of the pipeline, percent",
            "found": cost,
            "required": f"at most {MOST_PIPELINE_PERCENT}",
            "reached": cost.median <= MOST_PIPELINE_PERCENT,
        }
    )
    return rows


def _text(report: dict[str, Any]) -> str:
    setup = report["setup"]
    return contestants.text(
        report,
        f"{setup['flagfile']} ({OURS[setup['shipped_xla']]} ships), batch "
        f"{setup['batch_size']}, {IMAGE_SHAPE}, seed {setup['seed']}, "
        f"{setup['rounds']} rounds of {setup['steps']} steps "
        f"({setup['steps_fed']} for the pipeline)",
        report["steps"] | report["feeding"],
    )


if __name__ == "__main__":
    sys.exit(main())
