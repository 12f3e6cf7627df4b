"""How fast and how good are our attacks, beside other libraries'?

    python benchmarks/attacks.py --classifier=runs/target_c/classifier

attacks the same images of MNIST's test split, all classified correctly, with
our attack and with a rival, each in a process of its own, and reports images a
second, the share of images that were fooled and the mean distance over the
images that both fooled. Then, for each of our attacks, images a second by the
number of images at a time. ART's CW attacks, if they take longer than
`--time_limit`, "did not finish"; a rival that is not installed is left out, and
said to be. Fails (exit code 1) if a requirement is not met, or if an attack
breaks. With `--workdir` what a process made is kept there, and not made again
by the next run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

# This file has the name of a package of ours, which must be found first.
sys.path.pop(0)
import attacks
import data
import models

sys.path.append(str(Path(__file__).resolve().parent))
import processes
import rival_attacks
from comparisons import COMPARISONS, Comparison
from processes import Absent
from rounds import listed, machine, markdown_table, write_json

# Images at a time, and the attacks that are timed at each.
BATCH_SIZES = (1, 16, 128)
GROWTH: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "iterative_gradient_sign": {},
    "pgd": {},
    "deepfool": {},
    "lbfgs": {},
    "jsma": {},
    "cw_l2": {"binary_search_steps": 3, "max_iterations": 100},
    "cw_linf": {"max_iterations": 10},
    "cw_l0": {"max_iterations": 20},
}


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.child:
        _run_child(arguments)
        return 0
    config = {
        "classifier": models.Classifier.load(arguments.classifier).fingerprint,
        "seed": arguments.seed,
        "images": arguments.images,
    }
    with processes.claimed_folder(arguments.workdir, config) as folder:
        rows = [_compare(arguments, each, folder) for each in arguments.only]
        growth = [
            _measure_growth(arguments, each, folder)
            for each in arguments.growth
        ]
    report = {"machine": machine(), "comparisons": rows, "growth": growth}
    print(_text(report))
    if arguments.json:
        write_json(arguments.json, report)
    return 0 if all(row["reached"] for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = processes.parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the targets")
    parser.add_argument(
        "--only",
        type=processes.names_among(COMPARISONS),
        default=list(COMPARISONS),
        help=f"some of {','.join(COMPARISONS)}",
    )
    parser.add_argument(
        "--growth",
        type=processes.names_among(GROWTH),
        default=list(GROWTH),
        help="attacks to time at several batch sizes",
    )
    parser.add_argument(
        "--images", type=int, help="instead of each comparison's own number"
    )
    parser.add_argument(
        "--time_limit",
        type=float,
        default=600.0,
        help="seconds for each of ART's CW attacks (default 600)",
    )
    return parser


# In a process of its own: one attack on some images


def _run_child(arguments: argparse.Namespace) -> None:
    """Runs `ours/NAME`, `rival/NAME` or `growth/NAME/BATCH_SIZE`."""
    role, name, *rest = arguments.child.split("/")
    classifier = models.Classifier.load(arguments.classifier)
    if role == "growth":
        size = int(rest[0])
        count, warm_up = max(16, size), True
        run = _ours(classifier, name, {**GROWTH[name], "batch_size": size})
    else:
        comparison = COMPARISONS[name]
        count = arguments.images or comparison.images
        warm_up = role == "ours" or comparison.warm_up
        run = (
            _ours(classifier, comparison.attack, comparison.params)
            if role == "ours"
            else getattr(rival_attacks, comparison.rival)(
                rival_attacks.as_others_have_it(classifier),
                **comparison.rival_params,
            )
        )
    images, labels = _images(classifier, arguments.data_dir, count)
    targets = _targets(classifier, arguments.seed, labels)
    if warm_up:  # Compiles, and fills caches.
        run(images[:2], labels[:2], targets[:2])
    made, seconds = processes.timed(run, images, labels, targets)
    if role == "ours" and comparison.gradients_per_forward:
        seconds.append(
            _seconds_of_gradients(
                classifier,
                images,
                int(tf.reduce_sum(made.gradient_evaluations)),
                comparison.gradients_per_forward,
            )
        )
    processes.keep(
        arguments.output,
        adversarial=made if role == "rival" else made.adversarial.numpy(),
        images=images,
        labels=labels,
        targets=targets,
        seconds=np.array(seconds),
    )


def _seconds_of_gradients(
    classifier: models.Classifier,
    images: np.ndarray,
    evaluations: int,
    per_forward: int,
) -> float:
    """What the classifier alone takes for so many gradients."""

    @tf.function
    def take(batch: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(batch)
            columns = tf.unstack(classifier(batch), axis=-1)[:per_forward]
        return [tape.gradient(column, batch) for column in columns]

    batch = tf.constant(images)
    take(batch)
    start = time.perf_counter()
    for _ in range(math.ceil(evaluations / per_forward / len(images))):
        take(batch)
    return time.perf_counter() - start


def _ours(
    classifier: models.Classifier, name: str, params: dict[str, Any]
) -> Callable[..., attacks.AttackResult]:
    attack = attacks.get(name, **params)
    is_targeted = getattr(attack, "target", None) is not None

    def run(
        images: np.ndarray, labels: np.ndarray, targets: np.ndarray
    ) -> attacks.AttackResult:
        return attack(
            classifier, images, labels, targets=targets if is_targeted else None
        )

    return run


def _images(
    classifier: models.Classifier, data_dir: Path | None, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first test images that the classifier gets right."""
    dataset = data.load("mnist", data_dir=data_dir)
    images, labels = [], []
    left = count
    for batch in dataset.batches("test", 256):
        predicted = classifier.predict(batch["images"].numpy()).argmax(-1)
        right = np.flatnonzero(predicted == batch["labels"].numpy())[:left]
        images.append(batch["images"].numpy()[right])
        labels.append(batch["labels"].numpy()[right])
        left -= len(right)
        if not left:
            break
    return np.concatenate(images), np.concatenate(labels)


def _targets(
    classifier: models.Classifier, seed: int, labels: np.ndarray
) -> np.ndarray:
    offsets = np.random.default_rng(seed).integers(
        1, classifier.num_classes, len(labels)
    )
    return (labels + offsets) % classifier.num_classes


# In the parent: judging what the processes made


def _start(
    arguments: argparse.Namespace,
    child: str,
    folder: Path,
    time_limit: float | None = None,
) -> dict[str, np.ndarray] | Absent:
    options = {
        name: getattr(arguments, name)
        for name in ("classifier", "seed", "data_dir", "images")
    }
    return processes.start(__file__, options, child, folder, time_limit)


def _compare(
    arguments: argparse.Namespace, name: str, folder: Path
) -> dict[str, Any]:
    comparison = COMPARISONS[name]
    limit = arguments.time_limit if comparison.may_not_finish else None
    made = {
        "ours": _start(arguments, f"ours/{name}", folder),
        "rival": _start(arguments, f"rival/{name}", folder, limit),
    }
    classifier = models.Classifier.load(arguments.classifier)
    ours, rival = (
        each.reason
        if isinstance(each, Absent)
        else _judge(classifier, each, name)
        for each in made.values()
    )
    row = {
        "comparison": name,
        "against": comparison.label,
        "params": comparison.params,
        "rival_params": comparison.rival_params,
        "ours": ours,
        "rival": rival,
    }
    if isinstance(ours, str):
        return {**row, "reached": False}
    if isinstance(rival, str):
        is_failure = made["rival"].is_failure
        stopped_after = made["rival"].seconds
        return {
            **row,
            "least_speedup": stopped_after and stopped_after / ours["seconds"],
            "mean_distance": _mean(ours),
            "reached": not is_failure
            and (comparison.success != "all" or all(ours["fooled"])),
        }
    means = _mean_distances(ours, rival)
    row |= {
        "speedup": rival["seconds"] / ours["seconds"],
        "mean_distances": means,
        "distance_ratio": (
            means[0] / means[1] if means[0] and means[1] else None
        ),
        "identical": bool(
            np.array_equal(
                made["ours"]["adversarial"], made["rival"]["adversarial"]
            )
        ),
    }
    return {**row, "reached": _is_reached(comparison, row)}


def _mean(judged: dict[str, Any]) -> float | None:
    """The mean distance over the images that were fooled."""
    fooled = np.array(judged["fooled"])
    if not fooled.any():
        return None
    return float(np.array(judged["distances"])[fooled].mean())


def _mean_distances(
    ours: dict[str, Any], rival: dict[str, Any]
) -> list[float | None]:
    """Of ours and of the rival, over the images that both fooled."""
    fooled = np.logical_and(ours["fooled"], rival["fooled"])
    if not fooled.any():
        return [None, None]
    return [
        float(np.asarray(each["distances"])[fooled].mean())
        for each in (ours, rival)
    ]


def _judge(
    classifier: models.Classifier, made: dict[str, np.ndarray], name: str
) -> dict[str, Any]:
    comparison = COMPARISONS[name]
    adversarial = np.clip(made["adversarial"], 0.0, 1.0)
    predicted = classifier.predict(adversarial.astype(np.float32)).argmax(-1)
    is_targeted = comparison.params.get("target") is not None
    change = (adversarial - made["images"]).reshape(len(predicted), -1)
    size = np.abs(change.astype(np.float64))
    distances = {
        "l0": (size > 1e-6).sum(-1).astype(float),
        "l2": np.sqrt((size**2).sum(-1)),
        "linf": size.max(-1),
    }
    return {
        "images": len(predicted),
        "seconds": float(made["seconds"][0]),
        "cpu_seconds": float(made["seconds"][1]),
        "gradient_seconds": made["seconds"][2:].tolist(),
        "fooled": (
            predicted == made["targets"]
            if is_targeted
            else predicted != made["labels"]
        ).tolist(),
        "distances": distances[comparison.distance].tolist(),
    }


def _is_reached(comparison: Comparison, row: dict[str, Any]) -> bool:
    ours, rival = row["ours"]["fooled"], row["rival"]["fooled"]
    ratio, at_most = row["distance_ratio"], comparison.distance_ratio
    return (
        (comparison.speedup is None or row["speedup"] >= comparison.speedup)
        and (at_most is None or (ratio is not None and ratio <= at_most))
        and (comparison.success != "equal" or sum(ours) >= sum(rival))
        and (comparison.success != "all" or all(ours))
        and (not comparison.identical or row["identical"])
    )


def _measure_growth(
    arguments: argparse.Namespace, name: str, folder: Path
) -> dict[str, Any]:
    speeds: dict[str, float | str] = {}
    for size in BATCH_SIZES:
        made = _start(arguments, f"growth/{name}/{size}", folder)
        speeds[str(size)] = (
            made.reason
            if isinstance(made, Absent)
            else len(made["images"]) / float(made["seconds"][0])
        )
    return {"attack": name, "params": GROWTH[name], "speeds": speeds}


# What people read


def _text(report: dict[str, Any]) -> str:
    header = [
        "ours against",
        "images",
        "images a second",
        "times as fast",
        "fooled, %",
        "mean distance",
        "ratio",
        "required",
        "",
    ]
    rows = [_line(row) for row in report["comparisons"]]
    params = [
        [row["comparison"], listed(row["params"]), listed(row["rival_params"])]
        for row in report["comparisons"]
    ]
    growth = [
        [row["attack"], json.dumps(row["params"]) if row["params"] else ""]
        + [
            speed if isinstance(speed, str) else f"{speed:,.2f}"
            for speed in row["speeds"].values()
        ]
        for row in report["growth"]
    ]
    sizes = [f"{size} at a time" for size in BATCH_SIZES]
    return "\n\n".join(
        [
            markdown_table(header, rows),
            *_shares(report["comparisons"]),
            "Parameters, ours and the rival's:",
            markdown_table(["", "ours", "the rival's"], params),
            listed(report["machine"]),
            "Images a second by the number of images at a time:",
            markdown_table(["attack", "parameters", *sizes], growth),
        ]
    )


def _shares(rows: list[dict[str, Any]]) -> list[str]:
    """How much of our time the classifier's own passes take."""
    lines = []
    for row in rows:
        ours, rival = row["ours"], row["rival"]
        if isinstance(ours, str) or isinstance(rival, str):
            continue
        for seconds in ours["gradient_seconds"]:
            lines.append(
                f"{row['comparison']}: of our {ours['seconds']:.2f} s, the "
                f"classifier's own passes take {seconds:.2f} s by themselves, "
                "in full batches. Without anything else it would be "
                f"{rival['seconds'] / seconds:.1f} times as fast as "
                f"{row['against']}."
            )
    return lines


def _line(row: dict[str, Any]) -> list[str]:
    comparison = COMPARISONS[row["comparison"]]
    ours, rival = row["ours"], row["rival"]
    label = f"{comparison.attack} / {comparison.label}"
    if isinstance(ours, str):
        return [label, str(comparison.images), ours] + [""] * 5 + ["BROKEN"]
    if isinstance(rival, str):
        mean, least = row["mean_distance"], row["least_speedup"]
        return [
            label,
            str(ours["images"]),
            f"{_speed(ours)} / {rival}",
            "" if least is None else f"at least {least:.1f}",
            _share(ours),
            "-" if mean is None else f"{comparison.distance} {mean:.4g}",
            "",
            _required(comparison),
            "" if row["reached"] else "NOT REACHED",
        ]
    means = " / ".join(
        "-" if mean is None else f"{mean:.4g}" for mean in row["mean_distances"]
    )
    ratio = row["distance_ratio"]
    return [
        label,
        str(ours["images"]),
        f"{_speed(ours)} / {_speed(rival)}",
        f"{row['speedup']:.1f}",
        f"{_share(ours)} / {_share(rival)}",
        f"{comparison.distance} {means}",
        "-" if ratio is None else f"{ratio:.3f}",
        _required(comparison),
        "reached" if row["reached"] else "NOT REACHED",
    ]


def _speed(judged: dict[str, Any]) -> str:
    return f"{judged['images'] / judged['seconds']:.3g}"


def _share(judged: dict[str, Any]) -> str:
    return f"{100 * np.mean(judged['fooled']):.1f}"


def _required(comparison: Comparison) -> str:
    parts = [f"{comparison.speedup:g} x"] if comparison.speedup else []
    if comparison.success:
        parts.append(f"fooled {comparison.success}")
    if comparison.distance_ratio:
        parts.append(f"ratio <= {comparison.distance_ratio:g}")
    if comparison.identical:
        parts.append("pixel for pixel")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
