"""The model card of a pretrained network: its record, for people."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ape_gan_tf.cells import describe_input
from ape_gan_tf.metrics import Row
from ape_gan_tf.pretrained_models import Record

_ATTACKERS = """\
An oblivious attacker sees the classifier alone. A white-box attacker knows the
purifier and attacks through both; the figure without the purifier is that of
the same attack on the classifier alone."""


def card(name: str, record: Record) -> str:
    """The card in Markdown; each figure and fact is from the record."""
    rows = [Row.from_json(row) for row in record.rows]
    return "\n\n".join(
        [
            f"# {name}",
            record.description,
            _facts(record),
            f"## How to load it\n\n{_usage(name, record)}",
            f"## Training\n\n{_training(record)}",
            f"## Error rates\n\n{_errors(record, rows)}",
            f"## Limits\n\n{_limits(record, rows)}\n",
        ]
    )


def _facts(record: Record) -> str:
    # What another network has, and this one does not, is None.
    network = ", ".join(
        f"{k} {v}" for k, v in record.network.items() if v is not None
    )
    versions = ", ".join(f"{k} {v}" for k, v in record.package_versions.items())
    facts = {
        record.kind: network,
        "weights": f"{record.weights_dtype}, computed with in float32",
        "SHA-256 of the weights": f"`{record.sha256}`",
        "fingerprint": f"`{record.fingerprint}`",
        "made with": versions,
        "licence": "MIT, as the package",
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _usage(name: str, record: Record) -> str:
    shape = ", ".join(map(str, record.network["image_shape"]))
    result = "logits" if record.kind == "classifier" else "purified"
    return (
        "```python\n"
        "import ape_gan_tf\n\n"
        f'{record.kind} = ape_gan_tf.load_pretrained("{name}")\n'
        f"# float32 [N, {shape}] in [0, 1]\n"
        f"{result} = {record.kind}.predict(images)\n"
        "```\n\n"
        f"The commands take it as `--{record.kind}={name}`."
    )


def _training(record: Record) -> str:
    commands = "\n".join(f"    {line}" for line in record.recipe)
    facts = [
        f"- data: {record.training_data}",
        f"- seed: {record.training_seed}",
    ]
    if record.trained_with is not None:
        facts.append(
            f"- before {record.trained_with['name']}, which stayed as it is: "
            f"`{record.trained_with['fingerprint']}`"
        )
    return "\n".join(facts) + f"\n\n{commands}"


def _errors(record: Record, rows: Sequence[Row]) -> str:
    first = rows[0]
    title = (
        f"In percent of all images, the first so many of the {first.split} "
        f"split of {first.dataset}."
    )
    header = ["images", "number", f"{first.classifier['name']}, %"]
    if first.purifier is not None:
        header[1:1] = ["attacker"]
        header += [f"behind {first.purifier['name']}, %"]
    lines = [header, [":---" if x == "images" else "---:" for x in header]]
    lines += [_cells(row) for row in rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    parts = [title, table, _rounding(record)]
    if first.purifier is not None:
        parts.insert(2, _ATTACKERS)
    return "\n\n".join(parts)


def _cells(row: Row) -> list[str]:
    cells = [describe_input(row), f"{row.count:,}", _percent(row.target_error)]
    if row.purifier is not None:
        threat = row.threat_model.replace("_", "-")
        cells[1:1] = ["-" if threat == "benign" else threat]
        cells.append(_percent(row.purified_error))
    return cells


def _rounding(record: Record) -> str:
    if record.weights_dtype == "float32":
        return "The weights are not rounded."
    which = "clean" if record.kind == "classifier" else "clean and oblivious"
    return textwrap.fill(
        f"Rounding the weights from float32 to {record.weights_dtype} raised "
        f"the {which} error by at most {max(record.rounding_cost, 0.0):.2f} "
        "points."
    )


def _limits(record: Record, rows: Sequence[Row]) -> str:
    first, strongest = rows[0], rows[-1]
    error = strongest.purified_error
    whom = f"through it and {strongest.classifier['name']}"
    if error is None:
        error, whom = strongest.target_error, "it"
    return textwrap.fill(
        f"Measured on {first.dataset} alone: other images, however alike, are "
        f"another matter. An attacker who knows this {record.kind} and "
        f"attacks {whom} reaches an error of {_percent(error)} % on "
        f"{strongest.count:,} images with one attack, "
        f"{describe_input(strongest)}; stronger attacks reach no less. That "
        "figure, not those of weaker attackers, says what it is worth as "
        "security."
    )


def _percent(error: float | None) -> str:
    return "-" if error is None else f"{error:.2f}"
