"""Measures a classifier and a purifier under attack, and says what it found.

    python -m ape_gan_tf.evaluate --classifier=DIR/classifier \
        --purifier=DIR/purifier.keras --dataset=mnist --epsilons=0.1,0.3 \
        --attacks=fgsm,pgd,auto_attack --attack_params=pgd.steps=100 \
        --baselines=all --workdir=DIR/measured

measures clean images, noise, and each attack at each epsilon: by an attacker
who knows the classifier alone, and by one who knows the purifier too. Or a
stored set, with `--adversarial_set=PATH`. Leaves report.html, report.md,
metrics.json and figures/ in WORKDIR; what is measured already is not measured
again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from ape_gan_tf import attack_flags, command_line, flag_groups
from ape_gan_tf.choices import DEFAULT_BASELINES, GRADIENTS

if TYPE_CHECKING:
    import attacks
    import data
    import models
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
        "Parameters of the attacks beside epsilon: name=value for all of "
        "them, pgd.steps=100 for one.",
        flag_values=values,
    )
    attack_flags.define_evaluation_flags(
        values,
        attacks=("fgsm", "pgd"),
        threat_models=("oblivious", "white_box"),
    )
    _define_defence_flags(values)


def _define_defence_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "transfer_classifier",
        None,
        "Of threat model transfer: whom the images are made for. Read like "
        "--classifier.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "baselines",
        [],
        "Cheap defences to measure beside the purifier: all, or some of "
        "identity, gaussian_blur:sigma=1, median_filter:size=3, "
        "bit_depth:bits=4, jpeg:quality=75, random_noise:stddev=0.1.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "purifier_gradient",
        "auto",
        GRADIENTS,
        "How white-box attacks differentiate the purifier: plain, as the "
        "identity (bpda), by the mean of many answers (eot), or what it needs; "
        "guess attacks the guess that it makes of its own.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "eot_samples",
        10,
        "Answers that eot takes the mean of.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "curve",
        True,
        "Go on to larger epsilons until every image is fooled.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    command_line.require(values, "workdir", "classifier")
    workdir = Path(values.workdir)
    _refuse_training_run(workdir)
    asked = attack_flags.asked_attacks(
        values, values.batch_size, values.attack_params
    )
    dataset = flag_groups.load_dataset(values)
    classifier = flag_groups.load_classifier(values, dataset.image_shape)
    purifier = flag_groups.load_purifier(values) if values.purifier else None
    subject = _subject(values, dataset, classifier, purifier)
    with command_line.recorded_flags(values, workdir):
        if values.adversarial_set:
            _evaluate_set(subject, Path(values.adversarial_set), workdir)
        else:
            _evaluate(subject, values, asked, workdir)


def _subject(
    values: flags.FlagValues,
    dataset: data.Dataset,
    classifier: models.Classifier,
    purifier: models.Purifier | None,
) -> Subject:
    from ape_gan_tf.evaluation import Subject

    return Subject(
        dataset=dataset,
        split=values.split,
        classifier=classifier,
        purifier=purifier,
        limit=values.limit,
        batch_size=values.batch_size,
        seed=values.seed,
    )


def _evaluate(
    subject: Subject,
    values: flags.FlagValues,
    asked: tuple[attacks.Attack, ...],
    workdir: Path,
) -> None:
    """Fresh attacks, by all who are asked for."""
    from ape_gan_tf import training_record
    from ape_gan_tf.assessment import assess
    from ape_gan_tf.robustness import Plan

    shape = subject.dataset.image_shape
    origin = training_record.read(values.purifier) if values.purifier else None
    plan = Plan(
        attacks=asked,
        threat_models=_threat_models(values),
        noise_variance=values.noise_variance,
        transfer_classifier=_transfer_classifier(values, shape),
        gradient=values.purifier_gradient,
        eot_samples=values.eot_samples,
        curve=values.curve,
    )
    assess(
        workdir,
        subject,
        plan,
        baselines=_baselines(values, shape),
        title=_title(subject),
        command="python -m ape_gan_tf.evaluate "
        f"--flagfile={workdir / 'flags.txt'} --workdir=AGAIN",
        notes=training_record.notes(origin, subject.classifier),
    )


def _threat_models(values: flags.FlagValues) -> tuple[str, ...]:
    """Without a purifier, one who knows the classifier knows all."""
    if values.purifier is None and not values["threat_models"].present:
        return ("oblivious",)
    return tuple(values.threat_models)


def _transfer_classifier(
    values: flags.FlagValues, image_shape: tuple[int, int, int]
) -> models.Classifier | None:
    wants = "transfer" in values.threat_models
    if wants != (values.transfer_classifier is not None):
        raise command_line.UsageError(
            "--threat_models=transfer and --transfer_classifier need each "
            "other: name the classifier that the images are made for"
        )
    if values.transfer_classifier is None:
        return None
    return flag_groups.load_classifier(
        values, image_shape, flag="transfer_classifier"
    )


def _baselines(
    values: flags.FlagValues, image_shape: tuple[int, int, int]
) -> list[models.Purifier]:
    import models

    names = [
        name
        for word in values.baselines
        for name in (DEFAULT_BASELINES if word == "all" else (word,))
    ]
    parsed = [models.parse_baseline(name) for name in names]
    return [
        models.baseline(name, image_shape, **params) for name, params in parsed
    ]


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
    from ape_gan_tf import html_report, report
    from ape_gan_tf.evaluation import evaluate_set
    from ape_gan_tf.gallery import draw_set
    from ape_gan_tf.metrics import MetricsFile
    from ape_gan_tf.page import Page, Picture

    adversarial_set = data.AdversarialSet.open(
        path, expected={"image_shape": subject.dataset.image_shape}
    )
    metrics = MetricsFile(workdir / "metrics.json")
    row = evaluate_set(subject, adversarial_set, metrics)
    rows = [each for each in metrics.rows if each.is_beside(row)]
    grid = workdir / "figures" / f"{adversarial_set.path.stem}.png"
    draw_set(grid, subject, adversarial_set)
    pictures = sorted((workdir / "figures").glob("*.png"))
    page = Page(
        title=_title(subject),
        rows=rows,
        pictures=[Picture(path.stem, path) for path in pictures],
    )
    report.write(workdir / "report.md", page)
    html_report.write(workdir / "report.html", page)
    print(report.table([row]))
    print(f"picture: {grid}")


def _title(subject: Subject) -> str:
    purifier = subject.purifier
    before = f"{purifier.name} before " if purifier else ""
    return f"{before}{subject.classifier.name}, {subject.dataset.name}"


if __name__ == "__main__":
    sys.exit(command_line.run(define_flags, main, __doc__))
