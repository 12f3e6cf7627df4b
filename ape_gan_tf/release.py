"""Makes a pretrained network of a trained one: measures it, writes its files.

    python -m ape_gan_tf.release --name=target_c --network=C \
        --classifier=DIR/classifier --dataset=mnist --training_seed=1 \
        --training_data='MNIST, 55,000 training images' \
        --description='Target C of Table 5.' \
        --recipe='python -m ape_gan_tf.train_classifier ...' \
        --output=ape_gan_tf/pretrained

leaves NAME.npz, NAME.json and NAME.md in OUTPUT; those in the package's folder
`pretrained` are found by `ape_gan_tf.load_pretrained`. With `--purifier` that
is what is released, and `--classifier` is what it is measured before.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from ape_gan_tf import attack_flags, command_line, flag_groups


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "name", None, "What it shall be known by.", flag_values=values
    )
    flag_groups.define_classifier_flags(values)
    flag_groups.define_purifier_flag(values)
    flags.DEFINE_string(
        "network",
        None,
        "Its network: a target, such as C, or a generator, such as ape_gan_m.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "network_params",
        "",
        "The network's parameters that are not the default: "
        "name=value,name=value.",
        flag_values=values,
    )
    flag_groups.define_dataset_flags(values, split="test")
    _define_card_flags(values)
    flags.DEFINE_list(
        "epsilons",
        ["0.3"],
        "FGSM is measured at each, PGD at the last.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "white_box_limit",
        500,
        "PGD on the network itself is measured on the first so many images.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "output", None, "Folder of the three files.", flag_values=values
    )
    flags.DEFINE_boolean(
        "overwrite",
        False,
        "Replace a release of that name.",
        flag_values=values,
    )


def _define_card_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "description", None, "What it is, for its card.", flag_values=values
    )
    flags.DEFINE_string(
        "training_data", None, "What it was trained on.", flag_values=values
    )
    flags.DEFINE_integer(
        "training_seed",
        None,
        "The seed of its training.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "recipe",
        [],
        "A command that trained it; give the flag once for each.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    command_line.require(
        values,
        "name",
        "classifier",
        "network",
        "description",
        "training_data",
        "recipe",
        "output",
    )
    if values.training_seed is None:
        raise command_line.UsageError("--training_seed must be given")
    import attacks
    from ape_gan_tf import training_record
    from ape_gan_tf.evaluation import Subject
    from ape_gan_tf.releasing import Release, files_of, release

    what = Release(
        name=values.name,
        network=values.network,
        network_params=attacks.parse_params(
            values.network_params, "network_params"
        ),
        description=values.description,
        training_data=values.training_data,
        training_seed=values.training_seed,
        recipe=tuple(values.recipe),
        epsilons=tuple(attack_flags.parse_epsilons(values.epsilons)),
        white_box_limit=values.white_box_limit,
        trained_with=(
            training_record.read(values.purifier) if values.purifier else None
        ),
    )
    output = Path(values.output)
    files = files_of(values.name, output)
    for path in files:
        if path.exists() and not values.overwrite:
            raise command_line.UsageError(
                f"{path} exists: choose another --name, or add --overwrite"
            )
    dataset = flag_groups.load_dataset(values)
    subject = Subject(
        dataset=dataset,
        split=values.split,
        classifier=flag_groups.load_classifier(values, dataset.image_shape),
        purifier=(
            flag_groups.load_purifier(values) if values.purifier else None
        ),
        limit=values.limit,
    )
    release(what, subject, output)
    for path in files:
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(command_line.run(define_flags, main, __doc__))
