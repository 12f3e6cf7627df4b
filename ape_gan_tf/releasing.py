"""Makes a pretrained network of a trained one: measured, rounded, described."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import attacks
import models
from ape_gan_tf import loading, pretrained_models, report, weights_file
from ape_gan_tf.evaluation import BenignInput, Clean, Subject, evaluate
from ape_gan_tf.metrics import MetricsFile, Row
from ape_gan_tf.model_card import card
from ape_gan_tf.pretrained_models import Record
from data.files import remove, write_json, write_text
from data.provenance import package_versions

MAX_BYTES = 8_000_000
MAX_ROUNDING_COST = 0.05  # Percentage points of error.
_COMPARED_IMAGES = 256
# Initial values, and what precision it was trained in: not what it is.
_NOT_COMPARED = ("dtype", "kernel_initializer", "seed", "trainable")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """What to release, and what its card says beside the measurements.

    Attributes:
        name: What `load_pretrained` shall know it by.
        network: Name of the network for `models.target` or
            `models.generator`.
        network_params: Its other arguments, where they are not the default.
        description: What it is.
        training_data: What it was trained on.
        training_seed: The seed of its training.
        recipe: The commands that trained it.
        epsilons: FGSM is measured at each.
        trained_with: Of `training_record.read`.
        white_box_limit: PGD at the last epsilon on the released network
            itself is measured on the first so many images.
    """

    name: str
    network: str
    network_params: Mapping[str, Any]
    description: str
    training_data: str
    training_seed: int
    recipe: tuple[str, ...]
    epsilons: tuple[float, ...] = (0.3,)
    white_box_limit: int = 500
    trained_with: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(
                "name must be of letters, digits and underscores, "
                f"got {self.name!r}"
            )


def files_of(name: str, folder: Path) -> list[Path]:
    """The files of a pretrained network, the one that announces it first."""
    return [folder / f"{name}{suffix}" for suffix in (".json", ".npz", ".md")]


def release(what: Release, subject: Subject, folder: Path) -> Record:
    """Measures a network in float32 and float16, writes the better choice.

    float16 is taken where it raises no error by `MAX_ROUNDING_COST` points:
    a classifier's clean one; behind a purifier that under FGSM too. What was
    measured is printed.

    Args:
        what: What to release.
        subject: The images, and the classifier; the purifier before it is
            what is released, where there is one.
        folder: Where NAME.npz, NAME.md and NAME.json go; what is there is
            replaced.

    Returns:
        What NAME.json says.

    Raises:
        ValueError: The network is not what `what` says, or too large.
    """
    kind = "classifier" if subject.purifier is None else "purifier"
    network = _network(what, kind, subject)
    rounded = {
        dtype: _rounded(subject, kind, what.name, network, dtype)
        for dtype in _possible_dtypes(_keras_model(subject))
    }
    _check_same_outputs(subject, rounded["float32"])
    rows = {dtype: _measure(each, what) for dtype, each in rounded.items()}
    for dtype, measured in rows.items():
        print(f"weights in {dtype}:\n{report.table(measured)}")
    dtype, cost = _choose(rows)
    print(f"{what.name}: {dtype}, which costs {cost:.2f} points")
    chosen = rounded[dtype]
    _check_size(_keras_model(chosen), dtype)
    attacked = _measure_attacks(chosen, what)
    print(report.table(attacked))
    record = Record(
        kind=kind,
        network=network,
        weights_dtype=dtype,
        sha256="",
        fingerprint=_released(chosen).fingerprint,
        description=what.description,
        training_data=what.training_data,
        training_seed=what.training_seed,
        recipe=list(what.recipe),
        rows=[row.to_json() for row in (*rows[dtype], *attacked)],
        rounding_cost=cost,
        package_versions=package_versions(),
        trained_with=dict(what.trained_with) if what.trained_with else None,
    )
    return _write(what.name, folder, _keras_model(chosen), record)


def _write(
    name: str, folder: Path, model: keras.Model, record: Record
) -> Record:
    announcement, weights, text = files_of(name, folder)
    # Nobody may see the old record beside the new weights.
    remove(announcement)
    sha256 = weights_file.save(weights, model, record.weights_dtype)
    record = dataclasses.replace(record, sha256=sha256)
    write_text(text, card(name, record))
    write_json(announcement, record.to_json())
    return record


def _released(subject: Subject) -> models.Classifier | models.Purifier:
    return subject.classifier if subject.purifier is None else subject.purifier


def _network(what: Release, kind: str, subject: Subject) -> dict[str, Any]:
    given = {
        "name": what.network,
        "image_shape": list(subject.dataset.image_shape),
        **what.network_params,
    }
    if kind == "classifier":
        given["num_classes"] = subject.classifier.num_classes
    return pretrained_models.network_arguments(kind, given)


def _keras_model(subject: Subject) -> keras.Model:
    released = _released(subject)
    if released.keras_model is None:
        raise ValueError(
            f"{released.name} must be a Keras model to be released: the "
            "layers of a SavedModel are not known"
        )
    return released.keras_model


def _possible_dtypes(model: keras.Model) -> list[str]:
    largest = max(np.abs(weight).max() for weight in model.get_weights())
    fits = largest <= np.finfo(np.float16).max
    return ["float32", "float16"] if fits else ["float32"]


def _rounded(
    subject: Subject,
    kind: str,
    name: str,
    network: dict[str, Any],
    dtype: str,
) -> Subject:
    """The subject with a copy of what is released, its weights rounded."""
    trained = _keras_model(subject)
    model = pretrained_models.build(kind, network, name)
    _check_same_layers(model, trained)
    rounded = [weight.astype(dtype) for weight in trained.get_weights()]
    model.set_weights([weight.astype("float32") for weight in rounded])
    copy: Any = loading.wrap(kind, model)
    if kind == "classifier":
        return dataclasses.replace(subject, classifier=copy)
    return dataclasses.replace(subject, purifier=copy)


def _check_same_layers(built: keras.Model, trained: keras.Model) -> None:
    ours, theirs = ([_config(x) for x in m.layers] for m in (built, trained))
    if len(ours) != len(theirs):
        raise ValueError(
            f"network must be that of {trained.name}, which has "
            f"{len(theirs)} layers, but it has {len(ours)}"
        )
    for mine, other in zip(ours, theirs, strict=True):
        for key in sorted({*mine, *other}):
            if mine.get(key) != other.get(key):
                raise ValueError(
                    f"network and network_params must be those of "
                    f"{trained.name}: its layer {other['name']} has {key} "
                    f"{other.get(key)}, but they give {mine.get(key)}"
                )


def _config(layer: keras.Layer) -> dict[str, Any]:
    """What a layer computes; lists and tuples are the same."""
    config = {"class": type(layer).__name__, **layer.get_config()}
    kept = {k: v for k, v in config.items() if k not in _NOT_COMPARED}
    return json.loads(json.dumps(kept, default=str))


def _check_same_outputs(subject: Subject, copied: Subject) -> None:
    batch = next(iter(subject.dataset.batches(subject.split, _COMPARED_IMAGES)))
    trained = _released(subject)
    expected = trained.predict(batch["images"])
    outputs = _released(copied).predict(batch["images"])
    if not np.allclose(outputs, expected, rtol=1e-4, atol=1e-4):
        difference = float(np.abs(outputs - expected).max())
        raise ValueError(
            f"network must compute what {trained.name} does, but the outputs "
            f"for images of {subject.dataset.name} differ by {difference:.4g}"
        )


def _measure(subject: Subject, what: Release) -> list[Row]:
    """What decides on the precision: what the network is good for.

    For a purifier that is FGSM on the classifier too, the same images for
    each precision. FGSM on a classifier is another attack for each.
    """
    is_purifier = subject.purifier is not None
    fgsm = _fgsm(what) if is_purifier else []
    return _evaluate(subject, [Clean()], fgsm, "oblivious")


def _measure_attacks(subject: Subject, what: Release) -> list[Row]:
    """Attacks on what is released itself, a purifier with its classifier."""
    is_purifier = subject.purifier is not None
    pgd = [attacks.PGD(epsilon=what.epsilons[-1])]
    count = min(what.white_box_limit, subject.count)
    few = dataclasses.replace(subject, limit=count)
    if is_purifier:
        return _evaluate(few, [], pgd, "white_box")
    return [
        *_evaluate(subject, [], _fgsm(what), "oblivious"),
        *_evaluate(few, [], pgd, "oblivious"),
    ]


def _fgsm(what: Release) -> list[attacks.Attack]:
    return [attacks.FGSM(epsilon=epsilon) for epsilon in what.epsilons]


def _evaluate(
    subject: Subject,
    benign: list[BenignInput],
    attack_list: Sequence[attacks.Attack],
    threat: str,
) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        metrics = MetricsFile(Path(folder) / "metrics.json")
        return evaluate(subject, benign, attack_list, [threat], metrics)


def _choose(rows: Mapping[str, Sequence[Row]]) -> tuple[str, float]:
    """The dtype, and the points by which it raises an error at most."""
    if "float16" in rows:
        pairs = zip(rows["float16"], rows["float32"], strict=True)
        cost = max(_error(half) - _error(full) for half, full in pairs)
        # 93.15 - 93.10 is below 0.05.
        cost = round(cost, 6)
        if cost < MAX_ROUNDING_COST:
            return "float16", cost
    return "float32", 0.0


def _error(row: Row) -> float:
    error = row.target_error if row.purifier is None else row.purified_error
    return float("inf") if error is None else error


def _check_size(model: keras.Model, dtype: str) -> None:
    size = model.count_params() * np.dtype(dtype).itemsize
    if size > MAX_BYTES:
        raise ValueError(
            f"{model.name} must have at most {MAX_BYTES:,} bytes of weights, "
            f"got {size:,} in {dtype}"
        )
