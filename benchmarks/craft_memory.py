"""Does crafting more images take more memory? It must not.

    python benchmarks/craft_memory.py

crafts FGSM images on target C, MNIST's shape, through `ape_gan_tf.crafting`,
6,000 and 60,000 of them, each in a process of its own, and compares the peaks
of resident memory. Fails (exit code 1) if the larger peak is more than 10 %
above the smaller one. Then it reads each set once in training order and
reports these peaks too. The images are MNIST's where the environment's
APE_GAN_TF_DATA says where they lie, else random ones in a file like MNIST's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rounds import listed, machine, markdown_table, write_json

# The parent imports no TensorFlow: on Linux a child's peak begins with what
# its parent holds.

MOST = 1.10
BATCH_SIZE = 64
SEED = 0


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.task:
        _run_task(arguments)
        return 0
    if not 0 < arguments.small < arguments.large:
        sys.exit(
            "craft_memory: --small must be above 0 and below --large, got "
            f"{arguments.small} and {arguments.large}"
        )
    counts = [arguments.small, arguments.large]
    with tempfile.TemporaryDirectory() as name:
        report = _measure(counts, Path(name))
    print(_text(report))
    if arguments.json:
        write_json(arguments.json, report)
    return 0 if report["craft_ratio"] <= MOST else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--small", type=int, default=6_000, metavar="IMAGES")
    parser.add_argument("--large", type=int, default=60_000, metavar="IMAGES")
    parser.add_argument("--json", type=Path, metavar="PATH")
    # For the children.
    parser.add_argument(
        "--task", choices=sorted(_TASKS), help=argparse.SUPPRESS
    )
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--data_dir", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--set", type=Path, help=argparse.SUPPRESS)
    return parser


def _measure(counts: list[int], folder: Path) -> dict[str, Any]:
    data_dir = os.environ.get("APE_GAN_TF_DATA")
    if not data_dir:
        data_dir = str(folder)
        _child("synthesize", counts[-1], data_dir, folder)
    peaks = {
        task: {
            count: _child(task, count, data_dir, folder / f"set_{count}")
            for count in counts
        }
        for task in ("craft", "read")
    }
    return {
        "machine": machine(),
        "images": "random" if data_dir == str(folder) else "MNIST",
        "seed": SEED,
        "counts": counts,
        **{f"{task}_megabytes": list(x.values()) for task, x in peaks.items()},
        **{
            f"{task}_ratio": x[counts[1]] / x[counts[0]]
            for task, x in peaks.items()
        },
        "most": MOST,
    }


def _child(
    task: str, count: int, data_dir: str, adversarial_set: Path
) -> float:
    """Runs a task in a process of its own; its peak memory in megabytes."""
    command = [sys.executable, __file__]
    command += [f"--task={task}", f"--count={count}"]
    command += [f"--data_dir={data_dir}", f"--set={adversarial_set}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["peak_megabytes"]


def _run_task(arguments: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _TASKS[arguments.task](arguments.count, arguments.data_dir, arguments.set)
    # Kilobytes, save on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({"peak_megabytes": peak / 1e6}))


def _synthesize(count: int, data_dir: Path, adversarial_set: Path) -> None:
    """Writes a file like MNIST's: `count` images to train, 1 to test."""
    import numpy as np

    del adversarial_set
    generator = np.random.default_rng(SEED)
    arrays: dict[str, Any] = {}
    for part, images in (("train", count), ("test", 1)):
        pixels = generator.integers(0, 256, (images, 28, 28), np.uint8)
        arrays[f"x_{part}"] = pixels
        arrays[f"y_{part}"] = generator.integers(0, 10, images, np.uint8)
    np.savez(data_dir / "mnist.npz", **arrays)


def _craft(count: int, data_dir: Path, adversarial_set: Path) -> None:
    import attacks
    import data
    import models
    from ape_gan_tf.crafting import craft

    dataset = data.load("mnist", data_dir=data_dir, validation_count=0)
    if dataset.count("train") < count:
        sys.exit(
            f"craft_memory: --large must be at most {dataset.count('train')}, "
            f"the images that there are, got {count}"
        )
    network = models.target(
        "C", dataset.image_shape, dataset.num_classes, seed=SEED
    )
    craft(
        attacks.get("fgsm", epsilon=0.3, seed=SEED),
        models.Classifier.from_keras(network),
        dataset,
        "train",
        adversarial_set,
        limit=count,
    )


def _read(count: int, data_dir: Path, adversarial_set: Path) -> None:
    import data

    del data_dir
    opened = data.AdversarialSet.open(adversarial_set)
    steps = data.steps_per_epoch(count, BATCH_SIZE)
    for _ in opened.training_batches(BATCH_SIZE, seed=SEED, total_steps=steps):
        pass


_TASKS = {"craft": _craft, "read": _read, "synthesize": _synthesize}


def _text(report: dict[str, Any]) -> str:
    small, large = (f"{count:,} images" for count in report["counts"])
    rows = [
        [
            label,
            *(f"{peak:,.0f} MB" for peak in report[f"{task}_megabytes"]),
            f"{report[f'{task}_ratio']:.3f}",
            limit,
        ]
        for task, label, limit in (
            ("craft", "craft, FGSM on target C", f"{report['most']:.2f}"),
            ("read", "read once, in training order", ""),
        )
    ]
    header = ["peak resident memory", small, large, "ratio", "at most"]
    return "\n".join(
        [
            listed(report["machine"]),
            f"{report['images']} images of 28x28x1, seed {report['seed']}",
            "",
            markdown_table(header, rows),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
