"""What the benchmarks of training steps share: who runs, and what is said.

Ours with XLA and without, and PyTorch's in both of its layouts, on one batch
again and again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    listed,
    machine,
    markdown_table,
    speedup,
    write_json,
)

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
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    sys.exit(
        f"{Path(sys.argv[0]).stem}: PyTorch is not installed, which ours is "
        "compared with; pip install 'ape-gan-tf[benchmark]', or, without CUDA, "
        "pip install torch --index-url https://download.pytorch.org/whl/cpu"
    )

OURS = {True: "ours, XLA", False: "ours, no XLA"}
PYTORCH = {False: "PyTorch, default layout", True: "PyTorch, channels_last"}

Timings = Mapping[str, list[Timing]]


class OurStep:
    """Our step, run as the training loop runs it.

    Args:
        trainer: Whose step it is.
        xla: Compile with XLA.
        directory: The loop's, for checkpoints; none is written.
    """

    def __init__(
        self, trainer: PurifierTrainer, xla: bool, directory: Path
    ) -> None:
        loop = TrainingLoop(trainer, directory, LoopSettings(xla=xla))
        # What `TrainingLoop.run` calls between its checkpoints.
        self._run_steps = loop._run_steps

    def run(self, batches: Iterator[Any], steps: int) -> None:
        for start in range(0, steps, STEPS_PER_CALL):
            count = min(STEPS_PER_CALL, steps - start)
            losses = self._run_steps(batches, tf.constant(count))
        losses.numpy()  # Waits until it is done.


def of_ours(
    step: OurStep, batches: Iterator[Any], steps: int
) -> Callable[[], None]:
    """One round of ours."""
    return lambda: step.run(batches, steps)


def of_pytorch(
    step: Callable[..., Any], batch: Sequence[torch.Tensor], steps: int
) -> Callable[[], None]:
    """One round of PyTorch's."""

    def run() -> None:
        for _ in range(steps):
            losses = step(*batch)
        losses[0].item()  # Waits until it is done, on any device.

    return run


def add_options(
    parser: argparse.ArgumentParser,
    options: Sequence[tuple[str, int, str]],
    flagfile: str,
) -> None:
    """Adds options that are whole numbers, `--flagfile` and `--json`.

    Args:
        parser: To add them to.
        options: The name, the default and the meaning of each.
        flagfile: The default.
    """
    for name, default, meaning in options:
        parser.add_argument(
            f"--{name}",
            type=int,
            default=default,
            help=f"{meaning} (default {default})",
        )
    parser.add_argument(
        "--flagfile",
        default=flagfile,
        help=f"says what to train, and whether XLA ships (default {flagfile})",
    )
    parser.add_argument("--json", type=Path, metavar="PATH")


def conclude(report: dict[str, Any], text: str, path: Path | None) -> int:
    """Prints a report, writes it to `path` if there is one.

    Returns:
        The exit code: 1 where something that is required was not reached.
    """
    print(text)
    if path:
        write_json(path, report)
    return 0 if all(row["reached"] for row in report["required"]) else 1


def shipped(flagfile: str, *more: str) -> tuple[PurifierConfig, bool]:
    """What a flagfile of `train` trains, and its `--xla`.

    Args:
        flagfile: One that ships, or a path.
        more: Flags that win over it.
    """
    values = flags.FlagValues()
    train.define_flags(values)
    command_line.parse(values, ["train", f"--flagfile={flagfile}", *more])
    return train.purifier_config(values), values.xla


def environment() -> dict[str, Any]:
    """The first part of a report: the machine, versions and threads."""
    threading = tf.config.threading
    return {
        "machine": machine(),
        "versions": {
            module.__name__: module.__version__
            for module in (tf, keras, torch, np, h5py)
        },
        "threads": {
            "TensorFlow intra-op": threading.get_intra_op_parallelism_threads(),
            "TensorFlow inter-op": threading.get_inter_op_parallelism_threads(),
            "PyTorch intra-op": torch.get_num_threads(),
            "PyTorch inter-op": torch.get_num_interop_threads(),
        },
    }


def speeds(
    timings: Timings, steps: int, batch_size: int
) -> dict[str, dict[str, Spread]]:
    """Images a second, and milliseconds of all threads together a step."""
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


def speedups(timings: Timings) -> dict[str, dict[str, Spread]]:
    """How many times as fast each of ours is as each of PyTorch's."""
    return {
        ours: {
            theirs: speedup(timings[ours], timings[theirs])
            for theirs in PYTORCH.values()
        }
        for ours in OURS.values()
    }


def required_speedups(
    timings: Timings, shipped_xla: bool, least: Mapping[bool, float]
) -> list[dict[str, Any]]:
    """Judges the mode of ours that ships.

    Args:
        timings: Of all four.
        shipped_xla: Whether that mode is with XLA.
        least: What is asked of the speed-up, by whether PyTorch's layout is
            channels_last.
    """
    rows = []
    for channels_last, bound in least.items():
        ours, theirs = OURS[shipped_xla], PYTORCH[channels_last]
        found = speedup(timings[ours], timings[theirs])
        rows.append(
            {
                "what": f"{ours} / {theirs}",
                "found": found,
                "required": f"at least {bound}",
                "reached": found.median >= bound,
            }
        )
    return rows


def text(
    report: Mapping[str, Any],
    setting: str,
    shown: Mapping[str, Mapping[str, Spread]],
) -> str:
    """What is printed.

    Args:
        report: `environment`, with `speedups` and `required`.
        setting: What was run, in words.
        shown: Of `speeds`.
    """
    return "\n".join(
        [
            listed(report["machine"]),
            listed(report["versions"]),
            f"Threads: {listed(report['threads'])} (0: one a core)",
            f"{setting}; median (least .. greatest)",
            "",
            markdown_table(
                ["step", "images a second", "CPU ms a step"],
                [
                    [
                        name,
                        speed["images_per_second"].text(",.0f"),
                        speed["cpu_ms_per_step"].text(",.1f"),
                    ]
                    for name, speed in shown.items()
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
