"""Reproduces the paper's tables, our figures beside the paper's.

    python -m ape_gan_tf.reproduce --table=1 --dataset=mnist --data_dir=DIR \
        --workdir=DIR

trains what is missing (targets and purifier, by the flagfiles that ship),
crafts what is missing, measures, and prints the table; `--table=all` does all.
Leaves in WORKDIR: classifiers/, purifier/, adversarial/, metrics.json,
stages.json (the seconds that each stage took) and tables/ (Markdown, CSV, JSON
and a picture of each). The same command again continues where it stopped, and
computes nothing twice. `--max_minutes=0` prints what is there already.
"""

from __future__ import annotations

import datetime
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ape_gan_tf import command_line, flag_groups
from ape_gan_tf.choices import APPLICATIONS, TABLES

if TYPE_CHECKING:
    from ape_gan_tf.networks import Networks
    from ape_gan_tf.paper import Table
    from ape_gan_tf.recipes import Recipes
    from ape_gan_tf.reproduction import Reproduction
    from ape_gan_tf.stages import Stages

# Of this machine, or of how long it ran, not of the result.
_NOT_IN_COMMAND = (
    "data_dir",
    "debug",
    "flagfile",
    "image_dir",
    "max_minutes",
    "workdir",
)


def define_flags(values: flags.FlagValues) -> None:
    flag_groups.define_run_flags(values)
    _define_what(values)
    _define_who(values)
    _define_training(values)


def _define_what(values: flags.FlagValues) -> None:
    flags.DEFINE_list(
        "table",
        ["all"],
        f"Which: all, or some of {', '.join(TABLES)} (targets: the errors of "
        "Sec. 4.1.2).",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "dataset",
        "mnist",
        ["cifar10", "image_folder", "mnist"],
        "Tables 1, 2, 3, 7, 8 and 9 are about MNIST and CIFAR-10; 1, 2 and 4 "
        "about ImageNet, any folder of it.",
        flag_values=values,
    )
    flag_groups.define_data_dir_flags(values)
    flags.DEFINE_list(
        "counts",
        [],
        "Images for an attack, or for an attack on one classifier: "
        "cw_l2=100,cw_l0@C_adversarial=20. Default: 1000 for jsma, lbfgs and "
        "cw_l2, 200 for cw_l0 and cw_linf, all for the others.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "max_minutes",
        None,
        "Begin nothing new after so many minutes; what was not done is "
        "printed as missing. 0 only prints.",
        lower_bound=0.0,
        flag_values=values,
    )


def _define_who(values: flags.FlagValues) -> None:
    flags.DEFINE_list(
        "classifiers",
        [],
        "Classifiers in the place of the paper's: NAME=OTHER, where OTHER is "
        "a path or can be trained or downloaded, as in "
        "inception_v3=mobilenet_v2.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "application_weights",
        [],
        f"Local weights of {', '.join(APPLICATIONS)}: NAME=FILE.",
        flag_values=values,
    )
    flag_groups.define_purifier_flag(values)


def _define_training(values: flags.FlagValues) -> None:
    flag_groups.define_limit_flag(values)
    flags.DEFINE_string(
        "recipe",
        None,
        "Flagfile of the purifier's training, as for the command train; "
        "default mnist_sparse.flags, cifar10.flags or imagenet.flags.",
        flag_values=values,
    )
    for name, what in (
        ("train_limit", "Train on the first so many images only."),
        ("epochs", "Of the purifier, in place of the recipe's."),
        ("classifier_epochs", "Of each target, in place of its recipe's."),
    ):
        flags.DEFINE_integer(
            name, None, what, lower_bound=1, flag_values=values
        )


def main(values: flags.FlagValues) -> None:
    command_line.require(values, "workdir")
    _check_tables(values)
    from ape_gan_tf import paper
    from ape_gan_tf.recipes import PURIFIERS, Recipes
    from ape_gan_tf.reproduction import Reproduction
    from ape_gan_tf.stages import Stages
    from ape_gan_tf.workdir import claim

    workdir = Path(values.workdir)
    tables = _tables(values)
    recipes = Recipes(
        dataset=values.dataset,
        seed=values.seed,
        data_flags=_given(values, "data_dir", "image_dir"),
        purifier=values.recipe or PURIFIERS[values.dataset],
        train_limit=values.train_limit,
        epochs=values.epochs,
        classifier_epochs=values.classifier_epochs,
    )
    counts = _counts(values)
    dataset = recipes.test_dataset()
    networks = _networks(values, workdir, recipes, dataset.image_shape)
    config = {
        "dataset": dataset.name,
        **networks.describe(paper.classifiers(values.dataset)),
    }
    with command_line.recorded_flags(values, workdir):
        # A work directory belongs to one way of making its networks.
        claim(workdir / "config.json", config)
        stages = Stages(
            workdir / "stages.json",
            {"commit": _commit(), "date": datetime.date.today().isoformat()},
            values.max_minutes,
        )
        reproduction = Reproduction(
            workdir,
            dataset,
            networks,
            seed=values.seed,
            counts=counts,
            limit=values.limit,
        )
        stages.run(reproduction.stages(tables))
        _report(values, workdir, tables, reproduction, stages)


def _check_tables(values: flags.FlagValues) -> None:
    for name in values.table or [""]:
        if name not in ("all", *TABLES):
            raise command_line.UsageError(
                f"--table must be all, or some of {', '.join(TABLES)}, "
                f"got {name!r}"
            )


def _tables(values: flags.FlagValues) -> list[Table]:
    from ape_gan_tf import paper

    tables = {table.name: table for table in paper.tables(values.dataset)}
    if "all" in values.table:
        return list(tables.values())
    absent = [name for name in values.table if name not in tables]
    if absent:
        raise command_line.UsageError(
            f"--table must be among {', '.join(tables)} for {values.dataset}, "
            f"got {', '.join(absent)}: the paper has no such table about it"
        )
    return [tables[name] for name in dict.fromkeys(values.table)]


def _given(values: flags.FlagValues, *names: str) -> dict[str, str]:
    return {
        name: str(values[name].value) for name in names if values[name].value
    }


def _pairs(values: flags.FlagValues, flag: str) -> dict[str, str]:
    """`["a=b"]` -> `{"a": "b"}`."""
    words: list[str] = values[flag].value or []
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value) or name in pairs:
            raise command_line.UsageError(
                f"--{flag} must look like NAME=VALUE,NAME=VALUE, each name "
                f"once, got {word!r}"
            )
        pairs[name] = value
    return pairs


def _counts(values: flags.FlagValues) -> dict[str, int]:
    from ape_gan_tf import paper

    tables = paper.tables(values.dataset)
    attacks = sorted({line.name for table in tables for line in table.inputs})
    counts = {}
    for word, text in _pairs(values, "counts").items():
        name, at, classifier = word.partition("@")
        _check_names("counts", [name], attacks)
        if at:
            known = paper.classifiers(values.dataset)
            _check_names("counts", [classifier], known)
        if not text.isdecimal() or int(text) == 0:
            raise command_line.UsageError(
                f"--counts must give a number of images for {word}, "
                f"got {text!r}"
            )
        counts[word] = int(text)
    return counts


def _networks(
    values: flags.FlagValues,
    workdir: Path,
    recipes: Recipes,
    image_shape: tuple[int, int, int],
) -> Networks:
    import models
    from ape_gan_tf import paper
    from ape_gan_tf.networks import Networks, can_be_made
    from ape_gan_tf.pretrained_models import is_pretrained

    known = paper.classifiers(values.dataset)
    stand_ins = _pairs(values, "classifiers")
    _check_names("classifiers", stand_ins, known)
    for other in stand_ins.values():
        if not can_be_made(other) and not is_pretrained("classifier", other):
            _check_exists("classifiers", other)
    weights = _pairs(values, "application_weights")
    _check_names("application_weights", weights, models.APPLICATIONS)
    purifier = values.purifier
    if purifier and not is_pretrained("purifier", purifier):
        _check_exists("purifier", purifier)
    return Networks(
        workdir,
        recipes,
        image_shape,
        stand_ins=stand_ins,
        weights=weights,
        purifier=purifier or None,
    )


def _check_exists(flag: str, path: str) -> None:
    if not Path(path).exists():
        raise command_line.UsageError(
            f"--{flag} must name what is trained, pretrained, downloaded or "
            f"lies at a path, but there is nothing at {path}"
        )


def _check_names(flag: str, given: Iterable[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise command_line.UsageError(
                f"--{flag} must be for some of {', '.join(known)}, got {name!r}"
            )


def _report(
    values: flags.FlagValues,
    workdir: Path,
    tables: Sequence[Table],
    reproduction: Reproduction,
    stages: Stages,
) -> None:
    from ape_gan_tf import table_report

    provenance = _provenance(values)
    for table in tables:
        result = reproduction.result(table, stages, provenance)
        table_report.write_all(workdir / "tables", result)
        print(table_report.text(result))
    total = sum(each["seconds"] for each in stages.records.values())
    print(f"tables: {workdir / 'tables'} ({total:,.0f} s of work in all)")


def _provenance(values: flags.FlagValues) -> dict[str, Any]:
    import data

    return {
        "command": _command(values),
        "seed": values.seed,
        "versions": data.package_versions(),
    }


def _command(values: flags.FlagValues) -> str:
    words = [
        values[name].serialize()
        for name in values
        if values[name].present and name not in _NOT_IN_COMMAND
    ]
    places = ["--data_dir=DIR", "--workdir=DIR"]
    command = ["python", "-m", "ape_gan_tf.reproduce", *words, *places]
    return shlex.join(command)


def _commit() -> str:
    """Of the checkout that this runs from, or that there is none."""
    try:
        # Fails where this file is installed in somebody else's checkout.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    found = subprocess.run(
        ["git", *words],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


if __name__ == "__main__":
    sys.exit(command_line.run(define_flags, main, __doc__))
