"""Trained networks that come with the package, by name.

Each has three files in `pretrained/`: NAME.npz, its weights; NAME.json, what
they are and where they come from; NAME.md, the same for people (model card).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

import models
from ape_gan_tf import weights_file
from ape_gan_tf.choices import WEIGHTS_DTYPES
from ape_gan_tf.optimizers import precision_scope
from data.checks import check_one_of
from data.files import read_json

FOLDER = Path(__file__).resolve().parent / "pretrained"
FORMAT_VERSION = 1
_BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "classifier": models.target,
    "purifier": models.generator,
}
KINDS = tuple(_BUILDERS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What a NAME.json says.

    Attributes:
        kind: One of `KINDS`.
        network: Arguments of `models.target` or `models.generator`.
        weights_dtype: Of the arrays in NAME.npz; it computes in float32.
        sha256: Of NAME.npz, in hexadecimal.
        fingerprint: Of the network as loaded, by this version of Keras.
        description: What it is.
        training_data: What it was trained on.
        training_seed: The seed of its training.
        recipe: The commands that trained it.
        rows: What was measured, as in `metrics.json`.
        rounding_cost: By how many points `weights_dtype` in place of float32
            raises the clean error, behind a purifier that under FGSM too.
        package_versions: Of the packages that made the release.
        trained_with: `name` and `fingerprint` of the frozen classifier that
            a purifier was trained with, and the `adversary`; None where it
            was trained on pairs alone.
    """

    kind: str
    network: dict[str, Any]
    weights_dtype: str
    sha256: str
    fingerprint: str
    description: str
    training_data: str
    training_seed: int
    recipe: list[str]
    rows: list[dict[str, Any]]
    rounding_cost: float
    package_versions: dict[str, str]
    trained_with: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As in the file."""
        return {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}


def read_record(path: Path) -> Record:
    """Reads a NAME.json.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a record of this format.
    """
    content = read_json(path)
    version = None
    if isinstance(content, dict):
        version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} must have format_version {FORMAT_VERSION}, got "
            f"{version!r}: another version of this package may read it"
        )
    try:
        record = Record(**content)
    except TypeError as error:
        raise ValueError(f"{path} does not fit: {error}") from error
    check_one_of(record.kind, KINDS, f"{path}: kind")
    check_one_of(record.weights_dtype, WEIGHTS_DTYPES, f"{path}: weights_dtype")
    return record


def names(kind: str | None = None, folder: Path = FOLDER) -> list[str]:
    """The names that `load_pretrained` knows, of one kind or of all."""
    paths = sorted(folder.glob("*.json"))
    return [
        path.stem
        for path in paths
        if kind is None or read_record(path).kind == kind
    ]


def is_pretrained(kind: str, name: str) -> bool:
    """Whether `name` is one of them; a path that exists comes first."""
    return not Path(name).exists() and name in names(kind)


def is_name(
    kind: str, given: str, argument: str, others: Sequence[str] = ()
) -> bool:
    """Whether `given` is a pretrained name rather than a path that exists.

    Args:
        kind: One of `KINDS`.
        given: The name or the path.
        argument: What it was given as, for the message.
        others: What else it may have been, for the message.

    Raises:
        FileNotFoundError: It is neither; the message lists the names.
    """
    if Path(given).exists():
        return False
    if is_pretrained(kind, given):
        return True
    choices = f"{', '.join(others)} or " if others else ""
    raise FileNotFoundError(
        f"{argument} must be {choices}the path of a model, or a pretrained "
        f"{kind} ({', '.join(names(kind))}), but there is nothing at {given}"
    )


def load_network(
    name: str, *, folder: Path = FOLDER
) -> tuple[str, keras.Model]:
    """The kind and the Keras model of what `load_pretrained` loads.

    Raises:
        ValueError: The name is unknown, or a file is damaged.
    """
    check_one_of(name, names(folder=folder), "name")
    path = folder / f"{name}.json"
    record = read_record(path)
    try:
        model = build(record.kind, record.network, name)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: network does not fit: {error}") from error
    weights_file.load_into(
        model,
        path.with_suffix(".npz"),
        dtype=record.weights_dtype,
        sha256=record.sha256,
    )
    return record.kind, model


def network_arguments(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """All arguments that shape a network, with the defaults written out.

    Raises:
        ValueError: One is unknown; the message lists those known.
    """
    signature = inspect.signature(_BUILDERS[kind])
    known = [name for name in signature.parameters if name != "seed"]
    for name in given:
        check_one_of(name, known, f"parameter of a {kind}'s network")
    bound = signature.bind(**given)
    bound.apply_defaults()
    return {name: bound.arguments[name] for name in known}


def build(kind: str, network: dict[str, Any], name: str) -> keras.Model:
    """Builds a network in float32, with weights of no meaning yet."""
    # JSON has lists for tuples.
    shape = tuple(network["image_shape"])
    with precision_scope("float32"):
        model = _BUILDERS[kind](**{**network, "image_shape": shape})
    return keras.Model(model.input, model.output, name=name)
