"""Measures error rates with and without a purifier.

    python -m ape_gan_tf.evaluate --classifier=DIR/classifier \
        --purifier=DIR/purifier.keras --dataset=mnist --epsilons=0.1,0.3 \
        --threat_models=oblivious,white_box --workdir=DIR/measured

measures clean images, Gaussian noise, and each attack at each epsilon, or a
stored set with `--adversarial_set=PATH`. Leaves metrics.json, report.md and
figures/ in WORKDIR; what is measured already is not measured again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from ape_gan_tf import command_line, flag_groups

if TYPE_CHECKING:
    from ape_gan_tf.evaluation import Subject


def define_flags(values: flags.FlagValues) -> None:
    flag_groups.define_run_flags(values)
    flag_groups.define_classifier_flags(values)
    flag_groups.define_purifier_flag(values)
    flag_groups.define_dataset_flags(values, split="test")
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images at a time; default by their size.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "adversarial_set",
        None,
        "Path of a stored set to measure in place of fresh attacks.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "attack_params",
        "",
        "Parameters of the attacks beside epsilon: name=value,name=value.",
        flag_values=values,
    )
    flag_groups.define_evaluation_flags(values)


def main(values: flags.FlagValues) -> None:
    command_line.require(values, "workdir", "classifier")
    from ape_gan_tf.measurement import measure

    workdir = Path(values.workdir)
    _refuse_training_run(workdir)
    measurement = flag_groups.measurement(
        values,
        split=values.split,
        limit=values.limit,
        batch_size=values.batch_size,
        attack_params=values.attack_params,
    )
    dataset = flag_groups.load_dataset(values)
    classifier = flag_groups.load_classifier(values, dataset.image_shape)
    purifier = flag_groups.load_purifier(values) if values.purifier else None
    subject = measurement.subject(dataset, classifier, purifier)
    with command_line.recorded_flags(values, workdir):
        if values.adversarial_set:
            _evaluate_set(subject, Path(values.adversarial_set), workdir)
        else:
            measure(workdir, subject, measurement, title=_title(subject))


def _refuse_training_run(workdir: Path) -> None:
    """Its report, figures and flags would be written over."""
    for name in ("checkpoints", "classifier_checkpoints"):
        if (workdir / name).exists():
            raise command_line.UsageError(
                f"--workdir {workdir} is that of a training run; name one of "
                f"its own, such as {workdir / 'measured'}"
            )


def _evaluate_set(subject: Subject, path: Path, workdir: Path) -> None:
    import data
    from ape_gan_tf import report
    from ape_gan_tf.evaluation import evaluate_set
    from ape_gan_tf.measurement import draw_set
    from ape_gan_tf.metrics import MetricsFile

    adversarial_set = data.AdversarialSet.open(
        path, expected={"image_shape": subject.dataset.image_shape}
    )
    metrics = MetricsFile(workdir / "metrics.json")
    row = evaluate_set(subject, adversarial_set, metrics)
    rows = [
        each
        for each in metrics.rows
        if (each.classifier, each.purifier) == (row.classifier, row.purifier)
    ]
    grid = workdir / "figures" / f"{adversarial_set.path.stem}.png"
    draw_set(grid, subject, adversarial_set)
    pictures = sorted((workdir / "figures").glob("*.png"))
    report.write_report(
        workdir / "report.md",
        rows,
        title=_title(subject),
        figures=[(picture.stem, picture) for picture in pictures],
    )
    print(report.table([row]))
    print(f"picture: {grid}")


def _title(subject: Subject) -> str:
    purifier = subject.purifier
    before = f"{purifier.name} before " if purifier else ""
    return f"{before}{subject.classifier.name}, {subject.dataset.name}"


if __name__ == "__main__":
    sys.exit(command_line.run(define_flags, main, __doc__))
