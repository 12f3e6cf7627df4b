"""Trains a target classifier of the paper, plain or adversarially.

    python -m ape_gan_tf.train_classifier --classifier=C --dataset=mnist \
        --data_dir=DIR --workdir=DIR

leaves `WORKDIR/classifier/` (a SavedModel with classifier.keras in it) and
`metrics.json`. The same command again continues, or does nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from ape_gan_tf import attack_flags, command_line, flag_groups
from ape_gan_tf.choices import TARGETS

if TYPE_CHECKING:
    import data


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_enum(
        "classifier",
        "C",
        TARGETS,
        "Which of the paper's; A to D are in Table 5.",
        flag_values=values,
    )
    flag_groups.define_run_flags(values)
    flag_groups.define_dataset_flags(values)
    flag_groups.define_limit_flag(values)
    flag_groups.define_classifier_training_flags(values)
    flags.DEFINE_string(
        "initial_classifier",
        None,
        "Path or pretrained name of a classifier of the same network, whose "
        "weights training begins with.",
        flag_values=values,
    )
    flag_groups.define_computation_flags(values)
    attack_flags.define_evaluation_flags(values)
    flags.DEFINE_enum(
        "eval_split",
        "test",
        ["validation", "test"],
        "Images to measure the errors on.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    command_line.require(values, "workdir")
    from ape_gan_tf.classifier_training import train_classifier
    from ape_gan_tf.measurement import measure

    workdir = Path(values.workdir)
    config = flag_groups.classifier_config(values, values.classifier)
    measurement = attack_flags.measurement(values, split=values.eval_split)
    dataset = flag_groups.load_dataset(values)
    settings = flag_groups.loop_settings(
        values, "training the classifier", values.xla
    )
    initial = flag_groups.initial_classifier(values)
    with command_line.recorded_flags(values, workdir):
        classifier = train_classifier(
            config,
            dataset,
            workdir / "classifier",
            settings,
            initial=initial,
            limit=values.limit,
        )
        measure(
            workdir,
            measurement.subject(dataset, classifier),
            measurement,
            title=f"Classifier {classifier.name}, {dataset.name}",
            losses=workdir / "classifier_checkpoints" / "losses.csv",
            notes={
                "trained on": f"{_used(dataset, values.limit):,} images of "
                f"{dataset.name}"
            },
        )


def _used(dataset: data.Dataset, limit: int | None) -> int:
    count = dataset.count("train")
    return min(limit or count, count)


if __name__ == "__main__":
    sys.exit(command_line.run(define_flags, main, __doc__))
