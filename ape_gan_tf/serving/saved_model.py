"""A purifier as a versioned SavedModel for TF Serving."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

import models
import models.saved_model
from ape_gan_tf.choices import WEIGHTS_DTYPES
from ape_gan_tf.serving import warmup
from ape_gan_tf.serving.endpoints import Function, endpoints
from ape_gan_tf.serving.half_weights import HalfWeights
from data.checks import check_one_of, check_positive_integer
from data.files import exclusive, written_whole

LABELS_FILE = "labels.txt"
MAX_VERSION = 2**63 - 1  # Of TF Serving.


class _Stored(NamedTuple):
    """A network as it goes into the file, and what owns its weights."""

    function: Function
    trackables: tuple[Any, ...]


def export(
    purifier: models.Purifier,
    directory: Path,
    *,
    version: int | None = 1,
    classifier: models.Classifier | None = None,
    labels: Sequence[str] = (),
    weights_dtype: str = "float32",
    warmup_batch_sizes: Sequence[int] = (),
) -> Path:
    """Writes `directory/version/`, whole or not at all.

    Signatures: `serving_default` = `purify` (`images` -> `purified`, `valid`)
    and, with a classifier, `classify` (`images` -> those and `logits`,
    `probabilities`, `class`, `shift`: the L2 and Linf distance between the
    image and the purified one, and `label` if there are labels). Where images
    have 1 or 3 channels, `purify_encoded` and `classify_encoded` take PNG and
    JPEG files as `image_bytes`. The batch dimension is free. An image that
    cannot be answered gets `valid` = false and zeros.

    Args:
        purifier: What to export.
        directory: Named after the model, as TF Serving wants it.
        version: A server takes the highest. None: one more than the highest
            that is there.
        classifier: Exported behind the purifier; one that is behind a
            purifier already is refused.
        labels: The names of its classes, stored as the asset `labels.txt`.
        weights_dtype: "float16" halves the file; everything is computed in
            float32 all the same. It needs Keras models.
        warmup_batch_sizes: For each, and each signature, a request that the
            server answers to itself before others; needs the extra `serving`.

    Returns:
        The path of the version.

    Raises:
        ValueError: The version is there already, something does not fit, or
            the purifier is a plain function.
        ImportError: Warm-up requests are wanted without the extra.
        RuntimeError: Another process is exporting to the same directory.
    """
    _check_version(version)
    check_one_of(weights_dtype, WEIGHTS_DTYPES, "weights_dtype")
    _check_batch_sizes(warmup_batch_sizes)
    identity = _identity(purifier)
    _check_classifier(purifier, classifier)
    _check_labels(labels, classifier)
    if directory.exists() and not directory.is_dir():
        raise ValueError(
            f"the output must be a folder, got a file: {directory}"
        )
    with exclusive(directory / ".lock"):
        path = directory / str(version or _next_version(directory))
        if path.exists():
            raise ValueError(
                f"version {version} exists at {path}: choose another "
                "--version, a server may be reading this one"
            )
        return _write(
            path,
            purifier,
            identity,
            classifier,
            labels,
            weights_dtype,
            warmup_batch_sizes,
        )


def _write(
    path: Path,
    purifier: models.Purifier,
    identity: str,
    classifier: models.Classifier | None,
    labels: Sequence[str],
    weights_dtype: str,
    warmup_batch_sizes: Sequence[int],
) -> Path:
    stored = _stored(purifier, weights_dtype)
    behind = classifier and _stored(classifier, weights_dtype)
    with contextlib.ExitStack() as stack:
        table = stack.enter_context(_label_table(labels)) if labels else None
        offered = endpoints(
            purifier.image_shape,
            stored.function,
            behind.function if behind else None,
            table.lookup if table else None,
        )
        temporary = stack.enter_context(written_whole(path, overwrite=False))
        models.saved_model.save(
            temporary,
            offered,
            identity=identity,
            name=purifier.name,
            trackables=(
                *stored.trackables,
                *(behind.trackables if behind else ()),
                *((table,) if table else ()),
            ),
        )
        if warmup_batch_sizes:
            warmup.write(
                temporary,
                path.parent.name,
                offered,
                purifier.image_shape,
                warmup_batch_sizes,
            )
    return path


def _next_version(directory: Path) -> int:
    """One more than the highest version in `directory`, or 1."""
    names = [path.name for path in directory.iterdir()]
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


def _check_version(version: int | None) -> None:
    if version is None:
        return
    check_positive_integer(version, "version")
    if version > MAX_VERSION:
        raise ValueError(
            f"version must be at most {MAX_VERSION}, the highest that TF "
            f"Serving reads, got {version}"
        )


def _check_batch_sizes(sizes: Sequence[int]) -> None:
    if not isinstance(sizes, Sequence):
        raise TypeError(
            f"warmup_batch_sizes must be a sequence of integers, got {sizes!r}"
        )
    for size in sizes:
        check_positive_integer(size, "warmup_batch_sizes")


def _identity(purifier: models.Purifier) -> str:
    if purifier.identity is None:
        raise ValueError(
            f"purifier {purifier.name} is a function: only one from a Keras "
            "model or a SavedModel can be exported"
        )
    return purifier.identity


def _check_classifier(
    purifier: models.Purifier, classifier: models.Classifier | None
) -> None:
    if classifier and classifier.base is not None:
        raise ValueError(
            f"classifier {classifier.name} is behind a purifier already, and "
            "would be given images purified twice: pass the classifier alone"
        )
    if classifier and classifier.image_shape != purifier.image_shape:
        raise ValueError(
            f"classifier takes images of {classifier.image_shape}, the "
            f"purifier makes {purifier.image_shape}"
        )


def _check_labels(
    labels: Sequence[str], classifier: models.Classifier | None
) -> None:
    if isinstance(labels, str):
        raise TypeError(
            f"labels must be a sequence of names, got one text: {labels!r}"
        )
    if not labels:
        return
    if classifier is None:
        raise ValueError("labels need a classifier: they name its classes")
    if len(labels) != classifier.num_classes:
        raise ValueError(
            f"labels must be {classifier.num_classes}, one for each class of "
            f"{classifier.name}, got {len(labels)}"
        )
    for number, label in enumerate(labels):
        if not label or label != label.strip() or "\n" in label:
            raise ValueError(
                f"labels must be lines of text, got {label!r} for class "
                f"{number}"
            )


def _stored(
    network: models.Purifier | models.Classifier, weights_dtype: str
) -> _Stored:
    if weights_dtype == "float32":
        return _Stored(network, network.trackables)
    half = HalfWeights(network)
    return _Stored(half, (half,))


@contextlib.contextmanager
def _label_table(labels: Sequence[str]) -> Iterator[tf.lookup.StaticHashTable]:
    """From a class to its label; the file has to last until it is copied."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / LABELS_FILE
        file.write_text("".join(f"{x}\n" for x in labels), encoding="utf-8")
        lines = tf.lookup.TextFileInitializer(
            str(file),
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
        )
        yield tf.lookup.StaticHashTable(lines, "")
