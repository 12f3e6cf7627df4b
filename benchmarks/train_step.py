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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import h5py
import keras
import numpy as np
import tensorflow as tf
from absl import flags
from rounds import (
    Spread,
    Timing,
    alternate,
    listed,
    machine,
    markdown_table,
    speedup,
    write_json,
)

import data
from ape_gan_tf import command_line, train
from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.purifier_training import PurifierTrainer
from ape_gan_tf.training_loop import (
    STEPS_PER_CALL,
    LoopSettings,
    TrainingLoop,
)

try:
    import torch
    from pytorch_step import PyTorchStep
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    sys.exit(
        "train_step: PyTorch is not installed, which ours is compared with; "
        "pip install 'ape-gan-tf[benchmark]', or, without CUDA, "
        "pip install torch --index-url https://download.pytorch.org/whl/cpu"
    )

IMAGE_SHAPE = (28, 28, 1)
EPSILON = 0.3
OURS = {True: "ours, XLA", False: "ours, no XLA"}
PYTORCH = {False: "PyTorch, default layout", True: "PyTorch, channels_last"}
LEAST_SPEEDUP = {False: 1.6, True: 1.2}
CONSTANT, PIPELINE = "one batch again and again", "an adversarial set on disk"
MOST_PIPELINE_PERCENT = 5.0


class OurStep:
    """Our step, run as the training loop runs it.

    Args:
        config: What to train.
        total_steps: Of the learning rate's schedule.
        xla: Compile with XLA.
        directory: The loop's, for checkpoints; none is written.
    """

    def __init__(
        self,
        config: PurifierConfig,
        total_steps: int,
        xla: bool,
        directory: Path,
    ) -> None:
        trainer = PurifierTrainer(config, IMAGE_SHAPE, total_steps)
        loop = TrainingLoop(trainer, directory, LoopSettings(xla=xla))
        # What `TrainingLoop.run` calls between its checkpoints.
        self._run_steps = loop._run_steps

    def run(self, batches: Iterator[Any], steps: int) -> None:
        for start in range(0, steps, STEPS_PER_CALL):
            count = min(STEPS_PER_CALL, steps - start)
            losses = self._run_steps(batches, tf.constant(count))
        losses.numpy()  # Waits until it is done.


def main() -> int:
    arguments = _parser().parse_args()
    config, shipped_xla = _shipped(arguments.flagfile)
    config = dataclasses.replace(
        config, batch_size=arguments.batch_size, seed=arguments.seed
    )
    with tempfile.TemporaryDirectory() as name:
        report = _measure(arguments, config, shipped_xla, Path(name))
    print(_text(report))
    if arguments.json:
        write_json(arguments.json, report)
    return 0 if all(row["reached"] for row in report["required"]) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default, meaning in (
        ("rounds", 7, "rounds that count"),
        ("steps", 40, "steps of each contestant in a round"),
        ("batch_size", 64, "images a step"),
        ("images", 8_192, "images of the set on disk, all used in a round"),
        ("seed", 0, "of the images and of the weights"),
    ):
        parser.add_argument(
            f"--{name}",
            type=int,
            default=default,
            help=f"{meaning} (default {default})",
        )
    parser.add_argument(
        "--flagfile",
        default="mnist.flags",
        help="says what to train, and whether XLA ships (default mnist.flags)",
    )
    parser.add_argument("--json", type=Path, metavar="PATH")
    return parser


def _shipped(flagfile: str) -> tuple[PurifierConfig, bool]:
    """What a flagfile of `train` trains, and its `--xla`."""
    values = flags.FlagValues()
    train.define_flags(values)
    command_line.parse(values, ["train", f"--flagfile={flagfile}"])
    return train.purifier_config(values), values.xla


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
        xla: OurStep(config, total_steps, xla, folder / f"xla_{xla}")
        for xla in (True, False)
    }
    constant = iter(tf.data.Dataset.from_tensors(batch).repeat())
    contestants = {
        OURS[xla]: _of_ours(step, constant, steps) for xla, step in ours.items()
    }
    for channels_last, name in PYTORCH.items():
        step = PyTorchStep(config, total_steps, channels_last=channels_last)
        contestants[name] = _of_pytorch(step, batch, steps)
    step_timings = alternate(contestants, arguments.rounds)

    shipped = ours[shipped_xla]
    feeding_timings = alternate(
        {
            CONSTANT: _of_ours(shipped, constant, epoch),
            PIPELINE: _of_ours(shipped, iter(batches), epoch),
        },
        arguments.rounds,
    )
    return {
        "machine": machine(),
        "versions": _versions(),
        "threads": _threads(),
        "setup": {
            name: getattr(arguments, name)
            for name in ("batch_size", "flagfile", "images", "rounds", "seed")
        }
        | {"steps": steps, "steps_fed": epoch, "shipped_xla": shipped_xla},
        "steps": _speeds(step_timings, steps, size),
        "feeding": _speeds(feeding_timings, epoch, size),
        "speedups": _speedups(step_timings),
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


def _of_ours(
    step: OurStep, batches: Iterator[Any], steps: int
) -> Callable[[], None]:
    return lambda: step.run(batches, steps)


def _of_pytorch(
    step: PyTorchStep, batch: dict[str, tf.Tensor], steps: int
) -> Callable[[], None]:
    clean = step.batch(batch["images"].numpy())
    adversarial = step.batch(batch["adversarial"].numpy())

    def run() -> None:
        for _ in range(steps):
            losses = step(clean, adversarial)
        losses[0].item()  # Waits until it is done, on any device.

    return run


def _speeds(
    timings: dict[str, list[Timing]], steps: int, batch_size: int
) -> dict[str, dict[str, Spread]]:
    return {
        name: {
            "images_per_second": Spread.of(
                [steps * batch_size / each.wall for each in rounds]
            ),
            "cpu_ms_per_step": Spread.of(
                [1e3 * each.cpu / steps for each in rounds]
            ),
        }
        for name, rounds in timings.items()
    }


def _speedups(timings: dict[str, list[Timing]]) -> dict[str, dict[str, Spread]]:
    return {
        ours: {
            theirs: speedup(timings[ours], timings[theirs])
            for theirs in PYTORCH.values()
        }
        for ours in OURS.values()
    }


def _required(
    step_timings: dict[str, list[Timing]],
    feeding_timings: dict[str, list[Timing]],
    shipped_xla: bool,
) -> list[dict[str, Any]]:
    ours = step_timings[OURS[shipped_xla]]
    rows = []
    for channels_last, least in LEAST_SPEEDUP.items():
        found = speedup(ours, step_timings[PYTORCH[channels_last]])
        rows.append(
            {
                "what": f"{OURS[shipped_xla]} / {PYTORCH[channels_last]}",
                "found": found,
                "required": f"at least {least}",
                "reached": found.median >= least,
            }
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


def _versions() -> dict[str, str]:
    return {
        module.__name__: module.__version__
        for module in (tf, keras, torch, np, h5py)
    }


def _threads() -> dict[str, int]:
    threading = tf.config.threading
    return {
        "TensorFlow intra-op": threading.get_intra_op_parallelism_threads(),
        "TensorFlow inter-op": threading.get_inter_op_parallelism_threads(),
        "PyTorch intra-op": torch.get_num_threads(),
        "PyTorch inter-op": torch.get_num_interop_threads(),
    }


def _text(report: dict[str, Any]) -> str:
    setup = report["setup"]
    shipped = OURS[setup["shipped_xla"]]
    speeds = report["steps"] | report["feeding"]
    return "\n".join(
        [
            listed(report["machine"]),
            listed(report["versions"]),
            f"Threads: {listed(report['threads'])} (0: one a core)",
            f"{setup['flagfile']} ({shipped} ships), batch "
            f"{setup['batch_size']}, {IMAGE_SHAPE}, seed {setup['seed']}, "
            f"{setup['rounds']} rounds of {setup['steps']} steps "
            f"({setup['steps_fed']} for the pipeline); median (least .. "
            "greatest)",
            "",
            markdown_table(
                ["step", "images a second", "CPU ms a step"],
                [
                    [
                        name,
                        speed["images_per_second"].text(",.0f"),
                        speed["cpu_ms_per_step"].text(",.1f"),
                    ]
                    for name, speed in speeds.items()
                ],
            ),
            "",
            markdown_table(
                ["times as fast as", *PYTORCH.values()],
                [
                    [ours, *(found.text(".2f") for found in row.values())]
                    for ours, row in report["speedups"].items()
                ],
            ),
            "",
            markdown_table(
                ["required", "found", "", ""],
                [
                    [
                        row["what"],
                        row["found"].text(".2f"),
                        row["required"],
                        "reached" if row["reached"] else "NOT REACHED",
                    ]
                    for row in report["required"]
                ],
            ),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
