"""Do our attacks break as many images as other libraries', and how fast?

    python benchmarks/robustness.py --classifier=runs/target_c/classifier

attacks the first images of MNIST's test split, those that are wrong already
included, with our attack and with a rival, each in a process of its own, in
the same ball and with the same budget: APGD-CE and Square beside ART's, APGD-T,
FAB-T and AutoAttack beside torchattacks', which attack the same weights in
PyTorch. Reports the error in percent of all images, by the TensorFlow
classifier in either case, seconds, and the gradients that ours took.

torchattacks runs with the 100 steps of the published AutoAttack; its own
default is 10. `--steps` and `--queries` are for a short trial: they change the
four attacks, but not AutoAttack, which has no such parameters.

Fails (exit code 1) if a requirement is not met, if an attack breaks, or if
one returns an image outside the box or the ball. A rival that is not installed
is left out, and said to be; one that takes longer than `--time_limit` "did not
finish". With `--workdir` what a process made is kept there, and not made again
by the next run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

# A script beside this one has the name of a package of ours, which must be
# found first.
sys.path.pop(0)
import attacks
import data
import models

sys.path.append(str(Path(__file__).resolve().parent))
import processes
from processes import Absent
from robust_comparisons import (
    NAMES,
    QUERIES,
    STEPS,
    Budget,
    Comparison,
    comparisons,
    make_rival,
)
from rounds import listed, machine, markdown_table, write_json

# How far outside the box and the ball rounding may lead.
TOLERANCE = 1e-5
_LIBRARIES = (
    "tensorflow",
    "keras",
    "adversarial-robustness-toolbox",
    "torch",
    "torchattacks",
)


def main() -> int:
    arguments = _parser().parse_args()
    classifier = models.Classifier.load(arguments.classifier)
    budget = _budget(arguments, classifier.num_classes)
    if arguments.child:
        _run_child(arguments, classifier, comparisons(budget))
        return 0
    config = {
        "classifier": classifier.fingerprint,
        **{name: getattr(arguments, name) for name in _SETTINGS},
    }
    with processes.claimed_folder(arguments.workdir, config) as folder:
        rows = [
            _compare(arguments, name, comparison, classifier, folder)
            for name, comparison in comparisons(budget).items()
            if name in arguments.only
        ]
    report = {
        "classifier": classifier.name,
        "settings": config,
        "machine": machine() | _versions(),
        "comparisons": rows,
    }
    print(_text(report))
    if arguments.json:
        write_json(arguments.json, report)
    return 0 if all(row["reached"] for row in rows) else 1


# What decides what a contestant makes, but for the classifier.
_SETTINGS = ("images", "epsilon", "norm", "steps", "queries", "seed")


def _parser() -> argparse.ArgumentParser:
    parser = processes.parser(__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument(
        "--epsilon", type=float, default=0.1, help="in units of [0, 1]"
    )
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="of APGD and FAB"
    )
    parser.add_argument(
        "--queries", type=int, default=QUERIES, help="of Square"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only",
        type=processes.names_among(NAMES),
        default=list(NAMES),
        help=f"some of {','.join(NAMES)}",
    )
    parser.add_argument(
        "--time_limit",
        type=float,
        default=None,
        help="seconds for each rival (default: none)",
    )
    return parser


def _budget(arguments: argparse.Namespace, classes: int) -> Budget:
    return Budget(
        epsilon=arguments.epsilon,
        norm=arguments.norm,
        steps=arguments.steps,
        queries=arguments.queries,
        seed=arguments.seed,
        classes=classes,
    )


# In a process of its own: one contestant


def _run_child(
    arguments: argparse.Namespace,
    classifier: models.Classifier,
    known: dict[str, Comparison],
) -> None:
    """Runs `ours/NAME` or `rival/NAME`."""
    role, name = arguments.child.split("/")
    comparison = known[name]
    images, labels = _images(arguments)
    arrays: dict[str, Any] = {}
    if role == "ours":
        run = _ours(classifier, name, comparison, arrays)
    else:
        run = _rival(classifier, comparison, images, arrays)
    if role == "ours" or not comparison.is_pytorch:
        run(images[:2], labels[:2])  # Compiles, and fills caches.
    adversarial, seconds = processes.timed(run, images, labels)
    processes.keep(
        arguments.output,
        adversarial=adversarial,
        seconds=np.array(seconds),
        **arrays,
    )


Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _ours(
    classifier: models.Classifier,
    name: str,
    comparison: Comparison,
    arrays: dict[str, Any],
) -> Run:
    attack = attacks.get(name, **comparison.params)

    def run(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        result = attack(classifier, images, labels)
        arrays["gradients"] = result.gradient_evaluations.numpy()
        adversarial = result.adversarial.numpy()
        if not attack.is_minimal_norm:
            return adversarial
        # It also returns what is nearest outside the ball, which is no
        # success here; the rival returns the image.
        radius = np.float32(comparison.params["stop_at"])
        length = getattr(result, attack.distance).numpy()
        is_inside = (length <= radius)[:, None, None, None]
        return np.where(is_inside, adversarial, images)

    return run


def _rival(
    classifier: models.Classifier,
    comparison: Comparison,
    images: np.ndarray,
    arrays: dict[str, Any],
) -> Run:
    rival = make_rival(classifier, comparison)
    if comparison.is_pytorch:
        import pytorch_classifier

        arrays["logits_difference"] = pytorch_classifier.check_same_logits(
            pytorch_classifier.twin_of(classifier), classifier, images
        )
    return lambda images, labels: rival(images, labels, labels)


def _images(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The first of MNIST's test split."""
    dataset = data.load("mnist", data_dir=arguments.data_dir)
    batch = next(iter(dataset.batches("test", arguments.images)))
    return batch["images"].numpy(), batch["labels"].numpy()


# In the parent: judging what the processes made


def _compare(
    arguments: argparse.Namespace,
    name: str,
    comparison: Comparison,
    classifier: models.Classifier,
    folder: Path,
) -> dict[str, Any]:
    options = {
        option: getattr(arguments, option)
        for option in ("classifier", "data_dir", *_SETTINGS)
    }
    made = [
        processes.start(__file__, options, f"ours/{name}", folder),
        processes.start(
            __file__, options, f"rival/{name}", folder, arguments.time_limit
        ),
    ]
    images, labels = _images(arguments)
    ours, rival = (
        each.reason
        if isinstance(each, Absent)
        else _judge(arguments, classifier, images, labels, each)
        for each in made
    )
    row = {
        "comparison": name,
        "against": comparison.label,
        "params": comparison.params,
        "rival_params": comparison.rival_params,
        "images": len(images),
        "ours": ours,
        "rival": rival,
        "required": _required(comparison),
    }
    if isinstance(ours, str) or isinstance(rival, str):
        is_broken = any(
            each.is_failure if isinstance(each, Absent) else _is_outside(judged)
            for each, judged in zip(made, (ours, rival), strict=True)
        )
        return {**row, "reached": not is_broken}
    row |= {
        "points": ours["error_percent"] - rival["error_percent"],
        "speedup": rival["seconds"] / ours["seconds"],
    }
    return {**row, "reached": _is_reached(comparison, row)}


def _judge(
    arguments: argparse.Namespace,
    classifier: models.Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    made: dict[str, np.ndarray],
) -> dict[str, Any]:
    adversarial = made["adversarial"].astype(np.float32)
    wrong = classifier.predict(adversarial).argmax(-1) != labels
    judged = {
        "error_percent": 100.0 * float(wrong.mean()),
        "outside": _outside(
            adversarial, images, arguments.epsilon, arguments.norm
        ),
        "seconds": float(made["seconds"][0]),
        "cpu_seconds": float(made["seconds"][1]),
    }
    if "gradients" in made:
        judged["gradients"] = float(made["gradients"].mean())
    if "logits_difference" in made:
        judged["logits_difference"] = float(made["logits_difference"])
    return judged


def _outside(
    adversarial: np.ndarray, images: np.ndarray, epsilon: float, norm: str
) -> float:
    """How far the worst image is outside the box or the ball, if a number."""
    values = adversarial.astype(np.float64)
    change = np.abs(values - images).reshape(len(images), -1)
    length = {
        "linf": change.max(-1),
        "l2": np.sqrt((change**2).sum(-1)),
    }[norm]
    return float(
        np.max([0.0, -values.min(), values.max() - 1, length.max() - epsilon])
    )


def _is_outside(judged: dict[str, Any]) -> bool:
    return not judged["outside"] <= TOLERANCE


def _is_reached(comparison: Comparison, row: dict[str, Any]) -> bool:
    # Shares of a whole number of images: what is exactly as far may round.
    points = round(row["points"], 6)
    return (
        comparison.least <= points <= comparison.most
        and (comparison.speedup is None or row["speedup"] >= comparison.speedup)
        and not _is_outside(row["ours"])
        and not _is_outside(row["rival"])
    )


def _required(comparison: Comparison) -> list[str]:
    """Of the error, and of the speed."""
    least, most = comparison.least, comparison.most
    points = (
        f"at least {least:+g}" if most == np.inf else f"{least:+g} to {most:+g}"
    )
    speedup = comparison.speedup
    return [points, "" if speedup is None else f"at least {speedup:g}"]


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


# What people read


def _text(report: dict[str, Any]) -> str:
    header = [
        "attack",
        "rival",
        "images",
        "error ours / rival, %",
        "difference, points",
        "required",
        "seconds ours / rival",
        "CPU seconds",
        "times as fast",
        "required",
        "our gradients an image",
        "",
    ]
    rows = report["comparisons"]
    params = [
        [row["comparison"], listed(row["params"]), listed(row["rival_params"])]
        for row in rows
    ]
    return "\n\n".join(
        [
            f"{report['classifier']}: {listed(report['settings'])}",
            markdown_table(header, [_line(row) for row in rows]),
            *_twins(rows),
            "Parameters, ours and the rival's:",
            markdown_table(["", "ours", "the rival's"], params),
            listed(report["machine"]),
        ]
    )


def _line(row: dict[str, Any]) -> list[str]:
    both = row["ours"], row["rival"]
    points, speedup = row["required"]
    return [
        row["comparison"],
        row["against"],
        str(row["images"]),
        _pair(both, "error_percent", ".1f"),
        f"{row['points']:+.1f}" if "points" in row else "",
        points,
        _pair(both, "seconds", ",.1f"),
        _pair(both, "cpu_seconds", ",.1f"),
        f"{row['speedup']:.1f}" if "speedup" in row else "",
        speedup,
        "" if isinstance(both[0], str) else f"{both[0]['gradients']:,.1f}",
        _verdict(row),
    ]


def _pair(both: tuple[Any, Any], name: str, form: str) -> str:
    return " / ".join(
        "-" if isinstance(each, str) else format(each[name], form)
        for each in both
    )


def _verdict(row: dict[str, Any]) -> str:
    said = []
    for who in ("ours", "rival"):
        judged = row[who]
        if isinstance(judged, str):
            said.append(f"{who}: {judged}")
        elif _is_outside(judged):
            said.append(f"{who}: outside by {judged['outside']:.2g}")
    if not row["reached"]:
        said.insert(0, "NOT REACHED")
    elif not said:
        said.append("reached")
    return "; ".join(said)


def _twins(rows: list[dict[str, Any]]) -> list[str]:
    """How near the logits in PyTorch are."""
    differences = [
        rival["logits_difference"]
        for rival in (row["rival"] for row in rows)
        if not isinstance(rival, str) and "logits_difference" in rival
    ]
    if not differences:
        return []
    return [
        "On these images the logits in PyTorch differ from TensorFlow's by at "
        f"most {max(differences):.2g}."
    ]


if __name__ == "__main__":
    sys.exit(main())
