"""Trains, measures and exports a purifier: the main job, end to end.

    python -m ape_gan_tf.train --flagfile=flags/mnist.flags \
        --data_dir=DIR --workdir=DIR

trains the target classifier where `--classifier` names one of the paper's,
crafts the adversarial training set, trains APE-GAN on it, measures the error
rates, and leaves in WORKDIR: flags.txt, classifier/, adversarial/,
checkpoints/, purifier.keras, purifier/1/ (for TF Serving), metrics.json,
report.html, report.md, figures/ and summaries/ (TensorBoard). The same command
again continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ape_gan_tf import attack_flags, command_line, flag_groups
from ape_gan_tf.choices import (
    ADVERSARY_METHODS,
    CONSISTENCIES,
    GENERATORS,
    NORMS,
    SCHEDULES,
    TARGETS,
)

if TYPE_CHECKING:
    import data
    import models
    from ape_gan_tf.classifier_training import ClassifierConfig
    from ape_gan_tf.purifier_config import PurifierConfig
    from ape_gan_tf.run import Run


def define_flags(values: flags.FlagValues) -> None:
    flag_groups.define_run_flags(values)
    flag_groups.define_dataset_flags(values)
    flag_groups.define_limit_flag(values)
    flag_groups.define_classifier_flags(values, default="C", zoo=True)
    flag_groups.define_classifier_training_flags(values, prefix="classifier_")
    flags.DEFINE_boolean(
        "classifier_xla",
        False,
        "Compile the classifier's training with XLA.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "adversarial_set",
        None,
        "Path of the training pairs; else they are crafted.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "attack", "fgsm", "Crafts the training pairs.", flag_values=values
    )
    flags.DEFINE_string(
        "attack_params",
        "epsilon=0.3",
        "Its parameters: name=value,name=value.",
        flag_values=values,
    )
    _define_purifier_training_flags(values)
    flag_groups.define_computation_flags(values)
    attack_flags.define_evaluation_flags(values)
    flags.DEFINE_enum(
        "eval_split",
        "test",
        ["validation", "test"],
        "Images to measure on: choose on validation, report on test.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "eval_limit",
        None,
        "Measure on the first so many images only.",
        lower_bound=1,
        flag_values=values,
    )


def _define_purifier_training_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_enum(
        "generator",
        "ape_gan_m",
        GENERATORS,
        "Networks of Table 6, or a residual one of any capacity.",
        flag_values=values,
    )
    for name, what in (
        ("width", "Channels of purifier_resnet, in its first level."),
        ("depth", "Residual blocks of purifier_resnet, in each level."),
        ("stride", "Its blocks are at the resolution divided by this."),
        ("levels", "Each at half the resolution of the one before."),
        (
            "classes",
            "It guesses among so many, and paints by the guess; needs "
            "--generator_skip.",
        ),
    ):
        flags.DEFINE_integer(
            f"generator_{name}",
            None,
            what,
            1,
            flag_values=values,
        )
    flags.DEFINE_boolean(
        "generator_skip",
        False,
        "purifier_resnet adds what it computes to the image.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "epochs", 2, "Passes over the pairs.", 1, flag_values=values
    )
    flags.DEFINE_integer(
        "batch_size", 64, "Pairs a step.", 1, flag_values=values
    )
    flags.DEFINE_float(
        "learning_rate", 2e-4, "Of both Adams.", flag_values=values
    )
    flags.DEFINE_float("adam_beta1", 0.9, "Of both Adams.", flag_values=values)
    flags.DEFINE_enum(
        "schedule",
        "constant",
        SCHEDULES,
        "Of the learning rate.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "content_loss",
        "mse",
        ["mse", "root_mse"],
        "mse is the paper's, root_mse the released code's.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "content_weight", 0.7, "xi_1 of Eq. 12.", flag_values=values
    )
    flags.DEFINE_float(
        "adversarial_weight", 0.3, "xi_2 of Eq. 12.", flag_values=values
    )
    flags.DEFINE_integer(
        "generator_steps",
        2,
        "Generator steps for each of the discriminator.",
        1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "kernel_size", 3, "Of all convolutions.", 1, flag_values=values
    )
    flags.DEFINE_enum(
        "decoder_activation",
        "leaky_relu",
        ["leaky_relu", "relu"],
        "Of the generator's second half.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "output",
        "sigmoid",
        ["sigmoid", "tanh"],
        "Of the generator; tanh works on [-1, 1] inside.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "batch_norm_momentum",
        0.99,
        "Of the moving averages used outside training.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "training_noise_fraction",
        0.0,
        "Share of the stored pairs that are noisy in place of adversarial.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "training_noise_variance",
        0.05,
        "Each noisy image's variance is drawn from 0 to this.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "training_crop",
        None,
        "Train on a random square of this side of each pair; default: whole "
        "images.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "training_shift",
        0,
        "Move each pair by up to so many pixels, both images alike.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "training_flip",
        False,
        "Mirror half of the pairs, both images alike.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "training_sparse_fraction",
        0.0,
        "Share of the stored pairs whose perturbation is kept at few random "
        "positions and made strong there.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "training_sparse_density",
        0.1,
        "Each sparse image's share of positions is drawn from 0 to this.",
        flag_values=values,
    )

    _define_adversary_flags(values)


def _define_adversary_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "initial_purifier",
        None,
        "Path or pretrained name of a purifier of the same network, whose "
        "weights training begins with; --consistency=guide needs one.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "adversary",
        "stored",
        "Who makes a step's adversarial images: stored (the training pairs), "
        "online (an attack on the classifier in each step), white_box (one "
        "through purifier and classifier), content (one on the purifier "
        "alone), guide (one on its guess), or a mixture with weights: "
        "white_box:3,stored:1.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "adversary_method",
        "pgd",
        ADVERSARY_METHODS,
        "pgd, or free: the gradient of each generator step but the last moves "
        "the white-box images once, by --adversary_step_size (Shafahi et al. "
        "2019).",
        flag_values=values,
    )
    flags.DEFINE_float(
        "adversary_epsilon",
        0.3,
        "Radius of the ball of what is crafted in training.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "adversary_norm", "linf", NORMS, "Of that ball.", flag_values=values
    )
    flags.DEFINE_integer(
        "adversary_steps",
        7,
        "Steps, and so gradients, of what is crafted in training.",
        1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "adversary_step_size",
        None,
        "Of one such step. Default: 2.5 times the radius over the steps, at "
        "most 1.25 times the radius.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "adversary_warmup",
        0.0,
        "Share of the training over which the radius, and a step with it, "
        "grows from zero.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "adversary_starts",
        "clean,random,stored",
        "Where crafting starts, a mixture as in --adversary: clean (the "
        "image), random (in the ball), stored (the training pair's "
        "adversarial image).",
        flag_values=values,
    )
    flags.DEFINE_float(
        "classification_weight",
        0.0,
        "Of the frozen classifier's loss on purified images.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "classification_q",
        0.0,
        "Makes that loss a bounded one, (1 - p^q) / q of the label's "
        "probability p; 0 is the cross-entropy (Zhang and Sabuncu 2018).",
        flag_values=values,
    )
    flags.DEFINE_float(
        "guide_weight",
        0.0,
        "Of the cross-entropy of the guess of --generator_classes.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "clean_fraction",
        None,
        "So large a share of the clean images is purified too, in the content "
        "and the classifier's loss and that of the guess. Default: all with "
        "--classification_weight or --guide_weight, else none.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "consistency",
        "labels",
        CONSISTENCIES,
        "The classifier's loss: cross-entropy of the labels, its divergence "
        "from its own answer for the clean image (kl), or cross-entropy of "
        "what the purifier guesses, whose guess then stays as it is (guide).",
        flag_values=values,
    )
    flags.DEFINE_float(
        "ema_decay",
        0.0,
        "Of the moving average of the generator's weights, which is then "
        "the purifier; 0 for none.",
        flag_values=values,
    )


def purifier_config(values: flags.FlagValues) -> PurifierConfig:
    """What to train, by the flags of the same names."""
    from ape_gan_tf.purifier_config import PurifierConfig

    fields = dataclasses.fields(PurifierConfig)
    named: dict[str, Any] = {f.name: values[f.name].value for f in fields}
    return PurifierConfig(**named)


def build_run(values: flags.FlagValues) -> Run:
    """The run that these flags describe; a wrong value is found here."""
    from ape_gan_tf.run import Run

    purifier = purifier_config(values)
    attack = attack_flags.attack(
        values.attack, values.attack_params, seed=values.seed
    )
    measurement = attack_flags.measurement(
        values, split=values.eval_split, limit=values.eval_limit
    )
    dataset = flag_groups.load_dataset(values)
    return Run(
        workdir=Path(values.workdir),
        dataset=dataset,
        classifier=_classifier(values, dataset),
        adversarial_set=_path(values.adversarial_set),
        attack=attack,
        purifier=purifier,
        measurement=measurement,
        initial=_initial(values),
        initial_trained_with=_initial_trained_with(values),
        limit=values.limit,
        settings=flag_groups.loop_settings(
            values, "training the purifier", values.xla
        ),
        classifier_settings=flag_groups.loop_settings(
            values, "training the classifier", values.classifier_xla
        ),
    )


def _classifier(
    values: flags.FlagValues, dataset: data.Dataset
) -> models.Classifier | ClassifierConfig:
    if values.classifier in TARGETS:
        return flag_groups.classifier_config(
            values, values.classifier, prefix="classifier_"
        )
    return flag_groups.load_classifier(values, dataset.image_shape, zoo=TARGETS)


def _initial(values: flags.FlagValues) -> models.Purifier | None:
    if values.initial_purifier is None:
        return None
    return flag_groups.load_purifier(values, "initial_purifier")


def _initial_trained_with(values: flags.FlagValues) -> dict[str, Any] | None:
    from ape_gan_tf import training_record

    if values.initial_purifier is None:
        return None
    return training_record.read(values.initial_purifier)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def main(values: flags.FlagValues) -> None:
    command_line.require(values, "workdir", "classifier")
    run = build_run(values)
    with command_line.recorded_flags(values, run.workdir):
        run.execute()


if __name__ == "__main__":
    sys.exit(command_line.run(define_flags, main, __doc__))
