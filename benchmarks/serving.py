"""What does it cost to serve the purifier?

    python benchmarks/serving.py

measures, in one run and on the processor alone,

* `saved_model`: one answer of the exported SavedModel's `purify`, loaded into
  this process, beside the bare `tf.function` of the generator,
* `encoded`: `purify_encoded`, given PNG files, beside `purify`,
* `onnx`: the same beside the generator in ONNX Runtime, and, where that is more
  than 1.3 times as fast, how long either takes for each layer,
* `cold_start`: loading and the first answer in a process of its own, with and
  without the warm-up requests that TF Serving replays,
* `overhead`: a classifier alone and behind the purifier. The weights of these
  classifiers are random: they do not change how long anything takes.

An answer is from a NumPy array to a NumPy array. Contestants take turns; a
round's figure is its median call. Fails (exit code 1) if `purify` takes more
than 1.2 times as long as the bare function for one image, or makes less than
0.95 times as many images a second, 64 at a time.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

# A script beside this one has the name of a package of ours, which must be
# found first.
sys.path.pop(0)
import ape_gan_tf
import models
from ape_gan_tf.serving import saved_model, warmup

sys.path.append(str(Path(__file__).resolve().parent))
import onnx_generator
import op_profile
import processes
from calls import milliseconds, time_calls
from rounds import (
    Spread,
    Timing,
    listed,
    machine,
    markdown_table,
    speedup,
    write_json,
)
from usable_cores import usable_cores, use_cores

LATENCY, THROUGHPUT = "latency", "throughput"
SERVED_BATCHES = {1: LATENCY, 64: THROUGHPUT}
CLASSIFIED_BATCHES = (1, 16)
MOST_LATENCY = 1.2
LEAST_THROUGHPUT = 0.95
MOST_BEHIND_ONNX = 1.3
# Else it is not the same generator.
MOST_DIFFERENCE = 1e-4
MOST_PROFILED_CALLS = 50
WARM_UP_SIZES = (1, 64)
BARE, SERVED, ONNX = "tf.function", "SavedModel", "ONNX Runtime"
FILES = "SavedModel, from PNG files"
ALONE, BEHIND = "alone", "behind the purifier"
NO_MESSAGES = (
    "not installed: tensorflow-serving-api (pip install 'ape-gan-tf[serving]')"
)
_LIBRARIES = ("tensorflow", "keras", "numpy", *onnx_generator.LIBRARIES)


class Generator(NamedTuple):
    """A purifier, and what was exported of it.

    Attributes:
        purifier: Wraps the generator's Keras model.
        path: The version of its SavedModel.
        loaded: The SavedModel.
    """

    purifier: models.Purifier
    path: Path
    loaded: Any


def main() -> int:
    arguments = _parser().parse_args()
    use_cores(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        generators = _generators(Path(name))
        report = {
            "machine": machine(),
            "versions": _versions(),
            "settings": {
                name: getattr(arguments, name)
                for name in ("threads", "rounds", "seconds", "starts", "seed")
            },
            **{
                row: measure(arguments, generators)
                for row, measure in _ROWS.items()
                if row in arguments.only
            },
        }
    print(_text(report))
    if arguments.json:
        write_json(arguments.json, report)
    return 1 if _failures(report) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, kind, default, meaning in (
        ("--rounds", int, 5, "rounds that count"),
        ("--seconds", float, 1.0, "of each contestant in a round"),
        ("--starts", int, 3, "fresh processes, with and without warm-up each"),
        ("--threads", int, usable_cores(), "of TensorFlow and of ONNX Runtime"),
        ("--seed", int, 0, "of the images and of random weights"),
    ):
        parser.add_argument(
            name,
            type=kind,
            default=default,
            help=f"{meaning} (default {default:g})",
        )
    parser.add_argument(
        "--only",
        type=processes.names_among(_ROWS),
        default=list(_ROWS),
        help=f"some of {','.join(_ROWS)}",
    )
    parser.add_argument("--json", type=Path, metavar="PATH")
    return parser


def _generators(folder: Path) -> dict[str, Generator]:
    """The two of small images, exported to `folder`."""
    purifiers = [
        ape_gan_tf.load_pretrained("ape_gan_m"),
        models.Purifier.from_keras(
            models.generator("ape_gan_c", (32, 32, 3), seed=0)
        ),
    ]
    sizes = WARM_UP_SIZES if warmup.is_available() else ()
    found = {}
    for purifier in purifiers:
        path = saved_model.export(
            purifier, folder / purifier.name, warmup_batch_sizes=sizes
        )
        found[purifier.name] = Generator(
            purifier, path, tf.saved_model.load(str(path))
        )
    return found


def _images(
    arguments: argparse.Namespace, count: int, shape: tuple[int, int, int]
) -> np.ndarray:
    generator = np.random.default_rng(arguments.seed)
    return generator.random((count, *shape), np.float32)


Answer = Callable[[np.ndarray], np.ndarray]


def _compiled(function: Callable[[Any], Any], shape: Any) -> Answer:
    spec = tf.TensorSpec((None, *shape), tf.float32, name="images")
    compiled = tf.function(function, input_signature=[spec])
    return lambda images: compiled(tf.constant(images)).numpy()


def _bare(generator: Generator) -> Answer:
    model = generator.purifier.keras_model
    return _compiled(
        lambda images: model(images, training=False),
        generator.purifier.image_shape,
    )


def _served(generator: Generator) -> Answer:
    purify = generator.loaded.signatures["purify"]
    return lambda images: purify(images=tf.constant(images))["purified"].numpy()


def _served_files(generator: Generator) -> Answer:
    purify = generator.loaded.signatures["purify_encoded"]
    return lambda files: purify(image_bytes=tf.constant(files))[
        "purified"
    ].numpy()


def _time(
    arguments: argparse.Namespace,
    answers: dict[str, Answer],
    images: np.ndarray,
    *,
    in_blocks: bool = False,
) -> tuple[int, dict[str, list[Timing]]]:
    return time_calls(
        {
            name: functools.partial(answer, images)
            for name, answer in answers.items()
        },
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        in_blocks=in_blocks,
    )


# saved_model: the exported one beside the function


def _measure_saved_model(
    arguments: argparse.Namespace, generators: dict[str, Generator]
) -> list[dict[str, Any]]:
    rows = []
    for name, generator in generators.items():
        answers = {BARE: _bare(generator), SERVED: _served(generator)}
        for batch, what in SERVED_BATCHES.items():
            images = _images(arguments, batch, generator.purifier.image_shape)
            calls, timings = _time(arguments, answers, images)
            rows.append(
                {
                    "generator": name,
                    "batch": batch,
                    "calls": calls,
                    "times": milliseconds(timings),
                    **_against_the_bare(timings, what),
                }
            )
    return rows


def _against_the_bare(
    timings: dict[str, list[Timing]], what: str
) -> dict[str, Any]:
    """How much longer one takes, or how many more are made in a second."""
    if what == LATENCY:
        found = speedup(timings[BARE], timings[SERVED])
        required = f"at most {MOST_LATENCY}"
        reached = found.median <= MOST_LATENCY
    else:
        found = speedup(timings[SERVED], timings[BARE])
        required = f"at least {LEAST_THROUGHPUT}"
        reached = found.median >= LEAST_THROUGHPUT
    return {
        "what": what,
        "found": found,
        "required": required,
        "reached": reached,
    }


# encoded: what decoding costs


def _measure_encoded(
    arguments: argparse.Namespace, generators: dict[str, Generator]
) -> list[dict[str, Any]]:
    rows = []
    for name, generator in generators.items():
        for batch in SERVED_BATCHES:
            images = _images(arguments, batch, generator.purifier.image_shape)
            pixels = np.round(255 * images).astype(np.uint8)
            files = [tf.io.encode_png(each).numpy() for each in pixels]
            calls, timings = time_calls(
                {
                    SERVED: functools.partial(_served(generator), images),
                    FILES: functools.partial(_served_files(generator), files),
                },
                rounds=arguments.rounds,
                seconds=arguments.seconds,
            )
            rows.append(
                {
                    "generator": name,
                    "batch": batch,
                    "calls": calls,
                    "times": milliseconds(timings),
                    # How many times as fast arrays are: as long files take.
                    "found": speedup(timings[SERVED], timings[FILES]),
                }
            )
    return rows


# onnx: the exported one beside ONNX Runtime


def _measure_onnx(
    arguments: argparse.Namespace, generators: dict[str, Generator]
) -> list[dict[str, Any]] | str:
    absent = onnx_generator.missing()
    if absent:
        return absent
    rows = []
    for name, generator in generators.items():
        path = generator.path.parent.with_suffix(".onnx")
        onnx_generator.convert(generator.purifier.keras_model, path)
        session = onnx_generator.session(path, arguments.threads)

        def answer(images: np.ndarray, session: Any = session) -> np.ndarray:
            return session.run(None, {"images": images})[0]

        answers = {SERVED: _served(generator), ONNX: answer}
        for batch, what in SERVED_BATCHES.items():
            images = _images(arguments, batch, generator.purifier.image_shape)
            difference = _difference(name, answers, images)
            # ONNX Runtime's threads spin for a while after a call.
            calls, timings = _time(arguments, answers, images, in_blocks=True)
            row = {
                "generator": name,
                "batch": batch,
                "calls": calls,
                "times": milliseconds(timings),
                "what": what,
                "difference": difference,
                **_against_onnx(timings),
            }
            if not row["reached"]:
                row["profile"] = _profile(
                    arguments, generator, path, images, calls
                )
            rows.append(row)
    return rows


def _difference(
    name: str, answers: dict[str, Answer], images: np.ndarray
) -> float:
    ours, theirs = (answer(images) for answer in answers.values())
    difference = float(np.abs(ours - theirs).max())
    if not difference <= MOST_DIFFERENCE:
        raise ValueError(
            f"{name} in ONNX Runtime must answer what TensorFlow does to "
            f"{MOST_DIFFERENCE}, got a difference of {difference:.2g}"
        )
    return difference


def _against_onnx(timings: dict[str, list[Timing]]) -> dict[str, Any]:
    found = speedup(timings[ONNX], timings[SERVED])
    return {
        "found": found,
        "required": f"at most {MOST_BEHIND_ONNX}",
        "reached": found.median <= MOST_BEHIND_ONNX,
    }


def _profile(
    arguments: argparse.Namespace,
    generator: Generator,
    path: Path,
    images: np.ndarray,
    calls: int,
) -> dict[str, dict[str, float]]:
    """Milliseconds by part of a call, of either."""
    calls = min(calls, MOST_PROFILED_CALLS)
    answer = functools.partial(_served(generator), images)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            SERVED: op_profile.of_tensorflow(answer, calls, folder),
            ONNX: op_profile.of_onnx_runtime(
                path, arguments.threads, images, calls, folder
            ),
        }


# cold_start: a process of its own


def _measure_cold_start(
    arguments: argparse.Namespace, generators: dict[str, Generator]
) -> list[dict[str, Any]]:
    script = str(Path(__file__).resolve().with_name("cold_start.py"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, generator in generators.items():
            options = {
                "saved_model": generator.path,
                "threads": arguments.threads,
            }
            rows += _starts(arguments, script, name, options, Path(folder))
    return rows


def _starts(
    arguments: argparse.Namespace,
    script: str,
    name: str,
    options: dict[str, Any],
    folder: Path,
) -> list[dict[str, Any]]:
    """A row without warm-up and one with it; their processes take turns."""
    kinds = ("cold", "warm") if warmup.is_available() else ("cold",)
    made: dict[str, list[Any]] = {kind: [] for kind in kinds}
    for start in range(arguments.starts):
        for kind in kinds:
            child = f"{name}/{kind}/{start}"
            made[kind].append(processes.start(script, options, child, folder))
    return [_of_starts(name, kind, made.get(kind)) for kind in ("cold", "warm")]


def _of_starts(name: str, kind: str, made: list[Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"generator": name, "warm_up": kind == "warm"}
    if made is None:
        return {**row, "absent": NO_MESSAGES}
    for each in made:
        if isinstance(each, processes.Absent):
            return {**row, "absent": each.reason, "reached": False}
    return {
        **row,
        "starts": len(made),
        **{
            f"{part}_ms": Spread.of([1e3 * float(each[part]) for each in made])
            for part in ("load", "warm_up", "first", "later")
        },
    }


# overhead: a classifier alone and behind the purifier


def _measure_overhead(
    arguments: argparse.Namespace, generators: dict[str, Generator]
) -> list[dict[str, Any]]:
    rows = []
    for label, make in _CLASSIFIERS.items():
        purifier, classifier = make(generators)
        rows += _overhead_rows(arguments, label, classifier, purifier)
    return rows


Pair = tuple[models.Purifier, models.Classifier]


def _densenet40(generators: dict[str, Generator]) -> Pair:
    purifier = generators["ape_gan_c"].purifier
    network = models.target("densenet40", purifier.image_shape, 10, seed=0)
    return purifier, models.Classifier.from_keras(network)


def _resnet50(generators: dict[str, Generator]) -> Pair:
    """Images of 256x256, as in the paper, which become 224x224 inside."""
    del generators
    shape = (256, 256, 3)
    network = models.generator("ape_gan_i", shape, seed=0)
    classifier = models.Classifier.from_keras(
        keras.applications.ResNet50(weights=None, classifier_activation=None),
        output="logits",
        value_range=(0.0, 255.0),
        image_shape=shape,
        resize=True,
    )
    return models.Purifier.from_keras(network), classifier


_CLASSIFIERS = {"DenseNet40": _densenet40, "ResNet50": _resnet50}


def _overhead_rows(
    arguments: argparse.Namespace,
    label: str,
    classifier: models.Classifier,
    purifier: models.Purifier,
) -> list[dict[str, Any]]:
    answers = {
        name: _compiled(functools.partial(network), network.image_shape)
        for name, network in (
            (ALONE, classifier),
            (BEHIND, classifier.behind(purifier)),
        )
    }
    rows = []
    for batch in CLASSIFIED_BATCHES:
        images = _images(arguments, batch, purifier.image_shape)
        calls, timings = _time(arguments, answers, images)
        rows.append(
            {
                "classifier": label,
                "purifier": purifier.name,
                "image_shape": purifier.image_shape,
                "batch": batch,
                "calls": calls,
                "times": milliseconds(timings),
                **_more(timings),
            }
        )
    return rows


def _more(timings: dict[str, list[Timing]]) -> dict[str, Spread]:
    """What the purifier adds, round by round."""
    pairs = list(zip(timings[BEHIND], timings[ALONE], strict=True))
    return {
        "more_ms": Spread.of([1e3 * (b.wall - a.wall) for b, a in pairs]),
        "more_percent": Spread.of(
            [100 * (b.wall / a.wall - 1) for b, a in pairs]
        ),
        "more_cpu_percent": Spread.of(
            [100 * (b.cpu / a.cpu - 1) for b, a in pairs]
        ),
    }


_ROWS: dict[str, Callable[..., Any]] = {
    "saved_model": _measure_saved_model,
    "encoded": _measure_encoded,
    "onnx": _measure_onnx,
    "cold_start": _measure_cold_start,
    "overhead": _measure_overhead,
}


def _failures(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked for and not found; a profile answers for ONNX."""
    rows = [*report.get("saved_model", ()), *report.get("cold_start", ())]
    return [row for row in rows if not row.get("reached", True)]


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        is_there = importlib.util.find_spec(name) is not None
        found[name] = metadata.version(name) if is_there else "not installed"
    return found


# What people read


def _text(report: dict[str, Any]) -> str:
    parts = [
        listed(report["machine"]),
        listed(report["versions"]),
        f"{listed(report['settings'])}, TF_ENABLE_ONEDNN_OPTS "
        f"{os.environ.get('TF_ENABLE_ONEDNN_OPTS', 'not set')}; a round's "
        "median call, over the rounds median (least .. greatest)",
    ]
    for row, text in _TEXTS.items():
        if row in report:
            parts += [f"### {row}", *text(report[row])]
    return "\n\n".join(parts)


def _answers_text(rows: list[dict[str, Any]]) -> list[str]:
    """A table of two contestants, the same for `saved_model` and `onnx`."""
    first, second = rows[0]["times"]
    header = [
        "generator",
        "images",
        "calls a round",
        f"{first}, ms",
        f"{second}, ms",
        "CPU ms",
        "images a second",
        "ratio of",
        "found",
        "required",
        "",
    ]
    return [markdown_table(header, [_answers_line(row) for row in rows])]


def _answers_line(row: dict[str, Any]) -> list[str]:
    both = list(row["times"].values())
    return [
        row["generator"],
        str(row["batch"]),
        f"{row['calls']:,}",
        *(each["ms"].text(",.2f") for each in both),
        " / ".join(f"{each['cpu_ms'].median:,.2f}" for each in both),
        " / ".join(
            f"{1e3 * row['batch'] / each['ms'].median:,.0f}" for each in both
        ),
        row["what"],
        row["found"].text(".2f"),
        row["required"],
        _verdict(row),
    ]


def _encoded_text(rows: list[dict[str, Any]]) -> list[str]:
    header = [
        "generator",
        "images",
        "calls a round",
        "purify, ms",
        "purify_encoded, ms",
        "CPU ms",
        "times as long",
    ]
    lines = []
    for row in rows:
        both = list(row["times"].values())
        lines.append(
            [
                row["generator"],
                str(row["batch"]),
                f"{row['calls']:,}",
                *(each["ms"].text(",.2f") for each in both),
                " / ".join(f"{each['cpu_ms'].median:,.2f}" for each in both),
                row["found"].text(".2f"),
            ]
        )
    return [markdown_table(header, lines)]


def _verdict(row: dict[str, Any]) -> str:
    if row["reached"]:
        return "reached"
    return "NOT REACHED" + ("; profile below" if "profile" in row else "")


def _onnx_text(rows: list[dict[str, Any]] | str) -> list[str]:
    if isinstance(rows, str):
        return [rows]
    difference = max(row["difference"] for row in rows)
    return [
        *_answers_text(rows),
        f"{SERVED}'s milliseconds divided by {ONNX}'s. The answers differ by "
        f"at most {difference:.2g}. Converted by {onnx_generator.CONVERTER}.",
        *(_profile_text(row) for row in rows if "profile" in row),
    ]


def _profile_text(row: dict[str, Any]) -> str:
    profile = row["profile"]
    parts = op_profile.in_order(part for x in profile.values() for part in x)
    lines = [
        [part, *(f"{found.get(part, 0.0):,.3f}" for found in profile.values())]
        for part in parts
    ]
    head = f"{row['generator']}, images: {row['batch']}"
    return markdown_table([head, *(f"{name}, ms" for name in profile)], lines)


def _cold_start_text(rows: list[dict[str, Any]]) -> list[str]:
    header = [
        "generator",
        "starts",
        "load, ms",
        "warm-up, ms",
        "first answer, ms",
        "later answers, ms",
    ]
    lines = []
    for row in rows:
        if "absent" in row:
            lines.append([row["generator"], row["absent"], "", "", "", ""])
            continue
        warm_up = row["warm_up_ms"].text(",.0f") if row["warm_up"] else "none"
        lines.append(
            [
                row["generator"],
                str(row["starts"]),
                row["load_ms"].text(",.0f"),
                warm_up,
                row["first_ms"].text(",.1f"),
                row["later_ms"].text(",.1f"),
            ]
        )
    return [markdown_table(header, lines)]


def _overhead_text(rows: list[dict[str, Any]]) -> list[str]:
    header = [
        "classifier (random weights)",
        "purifier",
        "images",
        "calls a round",
        f"{ALONE}, ms",
        f"{BEHIND}, ms",
        "CPU ms",
        "more, ms",
        "more, %",
        "more CPU, %",
    ]
    return [markdown_table(header, [_overhead_line(row) for row in rows])]


def _overhead_line(row: dict[str, Any]) -> list[str]:
    both = list(row["times"].values())
    shape = "x".join(str(side) for side in row["image_shape"])
    return [
        row["classifier"],
        f"{row['purifier']}, {shape}",
        str(row["batch"]),
        f"{row['calls']:,}",
        *(each["ms"].text(",.1f") for each in both),
        " / ".join(f"{each['cpu_ms'].median:,.1f}" for each in both),
        row["more_ms"].text(",.1f"),
        row["more_percent"].text(",.0f"),
        row["more_cpu_percent"].text(",.0f"),
    ]


_TEXTS: dict[str, Callable[[Any], list[str]]] = {
    "saved_model": _answers_text,
    "encoded": _encoded_text,
    "onnx": _onnx_text,
    "cold_start": _cold_start_text,
    "overhead": _overhead_text,
}


if __name__ == "__main__":
    sys.exit(main())
