"""Flags that several commands share, and what they build from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from ape_gan_tf.choices import (
    ADVERSARIAL_STARTS,
    PRECISIONS,
    SCHEDULES,
    TARGETS,
)
from ape_gan_tf.command_line import UsageError

if TYPE_CHECKING:  # They import TensorFlow, which takes seconds.
    import data
    import models
    from ape_gan_tf.classifier_training import ClassifierConfig
    from ape_gan_tf.training_loop import LoopSettings


def define_run_flags(values: flags.FlagValues) -> None:
    """`--workdir` and `--seed`."""
    flags.DEFINE_string(
        "workdir", None, "Folder that holds all of the run.", flag_values=values
    )
    define_seed_flag(values)


def define_seed_flag(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "seed",
        0,
        "Where every random choice comes from.",
        lower_bound=0,
        upper_bound=2**31 - 1,
        flag_values=values,
    )


def define_dataset_flags(
    values: flags.FlagValues, split: str | None = None
) -> None:
    """`--dataset` and what goes with it; `--split` where it has a default."""
    flags.DEFINE_string(
        "dataset",
        "digits",
        "cifar10, digits (comes with the package), image_folder or mnist.",
        flag_values=values,
    )
    define_data_dir_flags(values)
    flags.DEFINE_integer(
        "image_size",
        256,
        "Height and width that image_folder resizes and crops to.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "image_channels",
        "3",
        ["1", "3"],
        "What image_folder makes of its files: 1 grey, 3 colour.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "validation_count",
        None,
        "Training images held out for validation; 0 trains on all of them, "
        "as the paper does. Default: see docs/data.md.",
        lower_bound=0,
        flag_values=values,
    )
    if split is not None:
        flags.DEFINE_enum(
            "split",
            split,
            ["train", "validation", "test"],
            "Which images.",
            flag_values=values,
        )
        define_limit_flag(values)


def define_data_dir_flags(values: flags.FlagValues) -> None:
    """`--data_dir` and `--image_dir`: where the datasets are."""
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder of the datasets; else the environment's APE_GAN_TF_DATA, "
        "else Keras's cache.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "image_dir",
        None,
        "Folder of image_folder, with {train,val}/<class>/*.JPEG; default "
        "DATA_DIR/imagenet.",
        flag_values=values,
    )


def define_limit_flag(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "limit",
        None,
        "Only the first so many images of the split; written into every "
        "result.",
        lower_bound=1,
        flag_values=values,
    )


def load_dataset(values: flags.FlagValues) -> data.Dataset:
    """The dataset of these flags."""
    import data

    return data.load(
        values.dataset,
        data_dir=values.data_dir,
        image_dir=values.image_dir,
        image_size=values.image_size,
        image_channels=int(values.image_channels),
        validation_count=values.validation_count,
    )


def define_classifier_flags(
    values: flags.FlagValues, default: str | None = None, zoo: bool = False
) -> None:
    """`--classifier` and how to read a stranger's."""
    flags.DEFINE_string(
        "classifier",
        default,
        "A .keras file, a SavedModel directory or a pretrained name"
        + (
            ", or one of " + ", ".join(TARGETS) + ", which is trained first."
            if zoo
            else "."
        ),
        flag_values=values,
    )
    flags.DEFINE_enum(
        "classifier_output",
        None,
        ["logits", "probabilities"],
        "What the classifier returns, where it cannot be seen. A Keras "
        "model's final softmax is stripped.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "classifier_range",
        ["0", "1"],
        "Lowest and highest pixel value that the classifier expects: 0,1 or "
        "0,255 or -1,1.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "classifier_resize",
        False,
        "Resize (bilinear, inside the classifier) where its image size is "
        "not the dataset's.",
        flag_values=values,
    )


def load_classifier(
    values: flags.FlagValues,
    image_shape: tuple[int, int, int] | None,
    zoo: Sequence[str] = (),
    flag: str = "classifier",
) -> models.Classifier:
    """The classifier of `--classifier`, read as these flags say.

    `zoo` is what else the flag may be, for the message. Another `flag` may
    name the classifier.
    """
    return _read_classifier(
        values,
        flag,
        zoo,
        output=values.classifier_output,
        value_range=_value_range(values.classifier_range),
        image_shape=image_shape,
        resize=values.classifier_resize,
    )


def initial_classifier(values: flags.FlagValues) -> models.Classifier | None:
    """The classifier of `--initial_classifier`, if there is one."""
    if values.initial_classifier is None:
        return None
    return _read_classifier(values, "initial_classifier")


def _read_classifier(
    values: flags.FlagValues,
    flag: str,
    zoo: Sequence[str] = (),
    **settings: Any,
) -> models.Classifier:
    import models
    from ape_gan_tf.pretrained_models import load_network

    name: str = getattr(values, flag)
    if not _is_pretrained("classifier", name, zoo, flag):
        return models.Classifier.load(name, **settings)
    # Read like a stranger's, so that it too can be resized.
    _, model = load_network(name)
    return models.Classifier.from_keras(model, **settings)


def _is_pretrained(
    kind: str, name: str, zoo: Sequence[str] = (), flag: str | None = None
) -> bool:
    """Whether a flag is a pretrained name; a path that exists comes first.

    Raises:
        UsageError: It is neither; the message lists the names.
    """
    from ape_gan_tf import pretrained_models

    try:
        return pretrained_models.is_name(kind, name, f"--{flag or kind}", zoo)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error


def _value_range(words: list[str]) -> tuple[float, float]:
    try:
        low, high = (float(word) for word in words)
    except ValueError as error:
        raise UsageError(
            "--classifier_range must be two numbers, like 0,255; "
            f"got {','.join(words)!r}"
        ) from error
    if low >= high:
        raise UsageError(
            "--classifier_range must go from low to high, "
            f"got {','.join(words)!r}"
        )
    return low, high


def define_purifier_flag(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "purifier",
        None,
        "A .keras file, a SavedModel directory or a pretrained name.",
        flag_values=values,
    )


def load_purifier(
    values: flags.FlagValues, flag: str = "purifier"
) -> models.Purifier:
    """The purifier of `--purifier`, or of another flag."""
    from ape_gan_tf.purifier import Purifier

    name: str = getattr(values, flag)
    # Or else there is a path.
    _is_pretrained("purifier", name, flag=flag)
    return Purifier.load(name)


def define_computation_flags(values: flags.FlagValues) -> None:
    """`--precision`, `--xla` and `--checkpoint_every`, for training."""
    flags.DEFINE_enum(
        "precision",
        "float32",
        PRECISIONS,
        "Computation in training; the result is saved in float32.",
        flag_values=values,
    )
    define_xla_flag(values)
    flags.DEFINE_integer(
        "checkpoint_every",
        500,
        "Steps between checkpoints.",
        lower_bound=1,
        flag_values=values,
    )


def define_xla_flag(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean(
        "xla",
        False,
        "Compile with XLA: faster for purifiers, slower on CPUs for "
        "classifiers with large kernels.",
        flag_values=values,
    )


def loop_settings(
    values: flags.FlagValues, description: str, xla: bool
) -> LoopSettings:
    """How a training loop runs, by these flags."""
    from ape_gan_tf.training_loop import LoopSettings

    return LoopSettings(
        checkpoint_every=values.checkpoint_every,
        xla=xla,
        description=description,
    )


def define_classifier_training_flags(
    values: flags.FlagValues, prefix: str = ""
) -> None:
    """How a target is trained; `prefix` keeps them apart from a purifier's."""
    flags.DEFINE_integer(
        f"{prefix}epochs",
        6,
        "Passes over the training split.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        f"{prefix}batch_size",
        128,
        "Images a training step.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        f"{prefix}learning_rate", 1e-3, "Of AdamW.", flag_values=values
    )
    flags.DEFINE_float(
        f"{prefix}weight_decay", 1e-4, "Of AdamW.", flag_values=values
    )
    flags.DEFINE_enum(
        f"{prefix}schedule",
        "cosine",
        SCHEDULES,
        "Of the learning rate.",
        flag_values=values,
    )
    flags.DEFINE_float(
        f"{prefix}label_smoothing",
        0.0,
        "The share of the target that is spread over all classes.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        f"{prefix}shift",
        2,
        "Random translation by up to so many pixels.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        f"{prefix}flip", False, "Random mirroring.", flag_values=values
    )
    flags.DEFINE_boolean(
        "adversarial_training",
        False,
        "Train the classifier half on adversarial images crafted anew in each "
        "step: FGSM, if no flag says otherwise.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "adversarial_epsilon",
        0.3,
        "Epsilon of adversarial training.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    flags.DEFINE_float(
        "adversarial_epsilon_min",
        None,
        "Each image's epsilon is drawn from this to --adversarial_epsilon.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "adversarial_steps",
        1,
        "Steps, and so gradients, of the classifier's adversarial training.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "adversarial_step_size",
        None,
        "Of one such step, at --adversarial_epsilon. Default: 2.5 times "
        "epsilon over the steps, at most 1.25 times epsilon.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "adversarial_start",
        "clean",
        ADVERSARIAL_STARTS,
        "Where those steps begin: at the image, or at random in the ball.",
        flag_values=values,
    )


def classifier_config(
    values: flags.FlagValues, name: str, prefix: str = ""
) -> ClassifierConfig:
    """What to train, by these flags."""
    from ape_gan_tf.classifier_training import ClassifierConfig

    def of_training(name: str) -> Any:
        return values[prefix + name].value

    return ClassifierConfig(
        classifier=name,
        epochs=of_training("epochs"),
        batch_size=of_training("batch_size"),
        learning_rate=of_training("learning_rate"),
        weight_decay=of_training("weight_decay"),
        schedule=of_training("schedule"),
        label_smoothing=of_training("label_smoothing"),
        shift=of_training("shift"),
        flip=of_training("flip"),
        adversarial_training=values.adversarial_training,
        adversarial_epsilon=values.adversarial_epsilon,
        adversarial_epsilon_min=values.adversarial_epsilon_min,
        adversarial_steps=values.adversarial_steps,
        adversarial_step_size=values.adversarial_step_size,
        adversarial_start=values.adversarial_start,
        precision=values.precision,
        seed=values.seed,
    )
