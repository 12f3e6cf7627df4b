"""Measures the paper's tables: what is to be made, and in which order."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import attacks
import data
from ape_gan_tf.crafting import craft, provenance
from ape_gan_tf.evaluation import (
    TOP_5_CLASSES,
    BenignInput,
    Clean,
    GaussianNoise,
    Subject,
    benign_row,
    evaluate,
    evaluate_set,
    set_row,
)
from ape_gan_tf.metrics import MetricsFile, Row
from ape_gan_tf.networks import Networks
from ape_gan_tf.paper import Column, Input, Table, hardened
from ape_gan_tf.stages import Stage, Stages
from ape_gan_tf.table_result import Cell, TableResult

SPLIT = "test"
# From cheap to dear, by gradients an image: who has little time gets the
# cells that take little.
ORDER = (
    "clean",
    "gaussian_noise",
    "fgsm",
    "iterative_gradient_sign",
    "jsma",
    "deepfool",
    "lbfgs",
    "cw_l2",
    "cw_l0",
    "cw_linf",
)
# How many images where all would take days; None is all.
COUNTS: Mapping[str, int | None] = {
    "jsma": 1000,
    "lbfgs": 1000,
    "cw_l2": 1000,
    "cw_l0": 200,
    "cw_linf": 200,
}
# A killed run begins its shard again, so that of a slow attack is small.
SHARD_SIZES = {
    "jsma": 100,
    "deepfool": 100,
    "lbfgs": 100,
    "cw_l2": 100,
    "cw_l0": 50,
    "cw_linf": 50,
}


@dataclasses.dataclass(frozen=True, order=True)
class Measurement:
    """One row of `metrics.json`: it has two cells, alone and purified.

    Attributes:
        input: `clean`, `gaussian_noise` or an attack.
        params: Of the noise or the attack.
        crafted_on: The paper's name of the attacked classifier, or of the
            only one where nobody attacks.
        classifier: The paper's name of the one that is measured.
    """

    input: str
    params: tuple[tuple[str, Any], ...]
    crafted_on: str
    classifier: str


class Reproduction:
    """Measures tables in a work directory.

    Args:
        workdir: Holds everything.
        dataset: Its test split is measured.
        networks: Of the same work directory.
        seed: Of noise, targets and starts.
        counts: Images for an attack, or for an attack on one classifier
            (`cw_l2@C`), in place of `COUNTS`.
        limit: The first so many images at most; None has no limit.
    """

    def __init__(
        self,
        workdir: Path,
        dataset: data.Dataset,
        networks: Networks,
        *,
        seed: int,
        counts: Mapping[str, int] | None = None,
        limit: int | None = None,
    ) -> None:
        self._workdir = workdir
        self._dataset = dataset
        self._networks = networks
        self._seed = seed
        self._counts = {**COUNTS, **(counts or {})}
        self._limit = limit
        self._metrics = MetricsFile(workdir / "metrics.json")
        self._stage = functools.cache(self._new_stage)
        self._subject = functools.cache(self._new_subject)
        self._crafted: set[str] = set()

    def stages(self, tables: Sequence[Table]) -> list[Stage]:
        """What the tables need measured, the cheap before the dear."""
        wanted = {
            measurement_of(table, line, column)
            for table in tables
            for line in table.inputs
            for column in table.columns
        } | {_clean(line) for table in tables for line in table.inputs}
        is_hardened = {hardened(table.dataset) for table in tables}
        by_cost = sorted(
            wanted,
            key=lambda each: (
                ORDER.index(each.input),
                each.crafted_on in is_hardened,
                each,
            ),
        )
        return [self._stage(each) for each in by_cost]

    def result(
        self, table: Table, stages: Stages, provenance: Mapping[str, Any]
    ) -> TableResult:
        """A table as measured, after its stages were run."""
        grid = [
            [measurement_of(table, line, column) for column in table.columns]
            for line in table.inputs
        ]
        wanted = list(dict.fromkeys(what for line in grid for what in line))
        rows = {what: self._find(what) for what in wanted}
        names = set().union(*(_names(self._stage(what)) for what in wanted))
        actual = {
            name: self._networks.actual(name)
            for what in wanted
            for name in (what.crafted_on, what.classifier)
        }
        return TableResult(
            table=table,
            cells=tuple(
                tuple(
                    self._cell(what, rows[what], column, figure, stages)
                    for what, column, figure in zip(
                        line, table.columns, figures, strict=True
                    )
                )
                for line, figures in zip(grid, table.figures, strict=True)
            ),
            stand_ins={
                name: Path(other).name
                for name, other in actual.items()
                if other not in (name, f"target_{name.lower()}")
            },
            provenance={**provenance, **_made_by(stages, names)},
            rows=tuple(row for row in rows.values() if row is not None),
            clean={
                line.target: _errors(row)
                for line in table.inputs
                if (row := self._find(_clean(line))) is not None
            },
        )

    def _cell(
        self,
        what: Measurement,
        row: Row | None,
        column: Column,
        figure: float | None,
        stages: Stages,
    ) -> Cell:
        if row is None:
            why = stages.missing[self._stage(what).name]
            return Cell(paper=figure, missing=why)
        error = _error(row, column)
        if error is None:
            why = f"measured only where there are {TOP_5_CLASSES:,} classes"
            return Cell(paper=figure, missing=why)
        return Cell(ours=error, paper=figure, count=row.count)

    def _new_stage(self, what: Measurement) -> Stage:
        networks = self._networks
        needs = [
            networks.purifier_stage,
            networks.classifier_stage(what.classifier),
        ]
        if what.input in attacks.ATTACKS:
            needs.append(self._set_stage(what))
        return Stage(
            self._name(what, f" before {what.classifier}"),
            lambda: self._find(what) is not None,
            lambda: self._measure(what),
            tuple(needs),
        )

    def _name(self, what: Measurement, suffix: str = "") -> str:
        params = ", ".join(f"{k} {_text(v)}" for k, v in what.params)
        name = f"{what.input} {params}".strip()
        count = self._count(what)
        first = "" if count is None else f", first {count}"
        if what.input in attacks.ATTACKS:
            return f"{name} on {what.crafted_on}{first}{suffix}"
        return f"{name}{first}{suffix}"

    def _count(self, what: Measurement) -> int | None:
        whole = self._dataset.count(SPLIT)
        asked = self._counts.get(
            f"{what.input}@{what.crafted_on}", self._counts.get(what.input)
        )
        count = min(asked or whole, self._limit or whole)
        return count if count < whole else None

    def _set_stage(self, what: Measurement) -> Stage:
        target = self._networks.classifier_stage(what.crafted_on)
        name = self._name(what)

        # It finds out what is there and checks it, once in a run.
        def make() -> None:
            self._craft(what)
            self._crafted.add(name)

        return Stage(name, lambda: name in self._crafted, make, (target,))

    def _set_path(self, what: Measurement) -> Path:
        count = self._count(what)
        path = self._whole_set_path(what)
        return path if count is None else _first(path, count)

    def _whole_set_path(self, what: Measurement) -> Path:
        words = [what.input, *(f"{k}_{_text(v)}" for k, v in what.params)]
        folder = self._networks.folder_name(what.crafted_on)
        return self._workdir / "adversarial" / folder / "_".join(words)

    def _earlier(self, what: Measurement) -> data.AdversarialSet | None:
        """The largest set that was crafted with another count."""
        own, whole = self._set_path(what), self._whole_set_path(what)
        found = []
        for path in [whole, *whole.parent.glob(f"{whole.name}_first_*")]:
            name = path.with_name(path.name.removesuffix(".h5"))
            if name != own:
                # Not there, or not whole yet.
                with contextlib.suppress(FileNotFoundError, ValueError):
                    found.append(data.AdversarialSet.open(name))
        return max(found, key=lambda each: each.count, default=None)

    def _attack(self, what: Measurement) -> attacks.Attack:
        return attacks.get(what.input, seed=self._seed, **dict(what.params))

    def _craft(self, what: Measurement) -> data.AdversarialSet:
        return craft(
            self._attack(what),
            self._networks.classifier(what.crafted_on),
            self._dataset,
            SPLIT,
            self._set_path(what),
            limit=self._count(what),
            shard_size=self._shard_size(what),
            earlier=self._earlier(what),
        )

    def _shard_size(self, what: Measurement) -> int | None:
        at_most = SHARD_SIZES.get(what.input)
        if at_most is None:
            return None
        return data.default_shard_size(self._dataset.image_shape, at_most)

    def _new_subject(self, classifier: str, count: int | None) -> Subject:
        return Subject(
            dataset=self._dataset,
            split=SPLIT,
            classifier=self._networks.classifier(classifier),
            purifier=self._networks.purifier,
            limit=count,
            seed=self._seed,
        )

    def _find(self, what: Measurement) -> Row | None:
        """The row, where it is measured."""
        networks = self._networks
        needed = {
            networks.purifier_stage,
            networks.classifier_stage(what.classifier),
            networks.classifier_stage(what.crafted_on),
        }
        if not all(stage.is_done() for stage in needed):
            return None
        return self._metrics.find(self._row(what))

    def _row(self, what: Measurement) -> Row:
        """The row to be measured, but for its errors."""
        subject = self._subject(what.classifier, self._count(what))
        if what.input not in attacks.ATTACKS:
            return benign_row(subject, self._benign(what))
        made = provenance(
            self._attack(what),
            self._networks.classifier(what.crafted_on),
            self._dataset,
            SPLIT,
        )
        return set_row(subject, made, subject.count)

    def _benign(self, what: Measurement) -> BenignInput:
        kinds: dict[str, BenignInput] = {
            "clean": Clean(),
            "gaussian_noise": GaussianNoise(
                seed=self._seed, **dict(what.params)
            ),
        }
        return kinds[what.input]

    def _measure(self, what: Measurement) -> None:
        subject = self._subject(what.classifier, self._count(what))
        if what.input in attacks.ATTACKS:
            made = data.AdversarialSet.open(self._set_path(what))
            evaluate_set(subject, made, self._metrics)
        else:
            evaluate(subject, [self._benign(what)], [], [], self._metrics)


def measurement_of(table: Table, line: Input, column: Column) -> Measurement:
    """What a cell is a figure of."""
    adversarial = hardened(table.dataset)
    classifier = adversarial if column.is_hardened else line.target
    crafted_on = {"target": line.target, "hardened": adversarial}
    return Measurement(
        line.name, line.params, crafted_on[column.crafted_on], classifier
    )


def _clean(line: Input) -> Measurement:
    """The clean images before a line's target."""
    return Measurement("clean", (), line.target, line.target)


def _errors(row: Row) -> dict[str, float]:
    """The target's own errors, those that there are."""
    errors = {"error": row.target_error, "top5_error": row.target_top5_error}
    return {name: each for name, each in errors.items() if each is not None}


def _made_by(stages: Stages, names: Collection[str]) -> dict[str, Any]:
    """Who made these stages, and the seconds that each took."""
    records = {k: v for k, v in stages.records.items() if k in names}
    made: dict[str, Any] = {
        key: ", ".join(dict.fromkeys(each[key] for each in records.values()))
        for key in ("commit", "date")
        if records
    }
    made["seconds"] = {k: each["seconds"] for k, each in records.items()}
    return made


def _first(path: Path, count: int) -> Path:
    """Where the set of the first so many images is."""
    return path.with_name(f"{path.name}_first_{count}")


def _names(stage: Stage) -> set[str]:
    """A stage's name, and those of all that it stands on."""
    return {stage.name}.union(*(_names(need) for need in stage.needs))


def _error(row: Row, column: Column) -> float | None:
    who = "purified" if column.is_purified else "target"
    return getattr(row, f"{who}_{'top5_error' if column.is_top5 else 'error'}")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
