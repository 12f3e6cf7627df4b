"""Writes one adversarial set.

    python -m ape_gan_tf.craft --classifier=DIR/classifier --attack=fgsm \
        --attack_params=epsilon=0.3 --dataset=mnist --split=test \
        --output=DIR/adversarial/test

leaves `OUTPUT.h5`, or the directory `OUTPUT/` of shards where there are many
images. The same command again continues at the first missing shard.
`--attack_params=target=all` attacks each image once for each wrong class and
leaves three sets: `OUTPUT_best`, `OUTPUT_average` and `OUTPUT_worst`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from ape_gan_tf import attack_flags, command_line, flag_groups

if TYPE_CHECKING:
    import data


def define_flags(values: flags.FlagValues) -> None:
    flag_groups.define_classifier_flags(values)
    flag_groups.define_purifier_flag(values)
    flags.DEFINE_string("attack", "fgsm", "Which attack.", flag_values=values)
    flags.DEFINE_string(
        "attack_params",
        "",
        "Its parameters: name=value,name=value.",
        flag_values=values,
    )
    flag_groups.define_dataset_flags(values, split="test")
    flag_groups.define_seed_flag(values)
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images crafted at a time; default by the images' size.",
        lower_bound=1,
        flag_values=values,
    )
    flag_groups.define_xla_flag(values)
    flags.DEFINE_integer(
        "shard_size",
        None,
        "Images a file; a killed run continues at a file's start.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "output",
        None,
        "The set's path, without a suffix.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    command_line.require(values, "classifier", "output")
    import attacks
    from ape_gan_tf.crafting import craft, craft_all_targets
    from data.files import exclusive

    attack = attack_flags.attack(
        values.attack,
        values.attack_params,
        seed=values.seed,
        batch_size=values.batch_size,
        xla=values.xla,
    )
    dataset = flag_groups.load_dataset(values)
    classifier = flag_groups.load_classifier(values, dataset.image_shape)
    if values.purifier:
        classifier = classifier.behind(flag_groups.load_purifier(values))
    output = Path(values.output)
    what = (classifier, dataset, values.split, output)
    how_many = {"limit": values.limit, "shard_size": values.shard_size}
    with exclusive(output.with_name(f".{output.name}.lock")):
        if attacks.wants_all_targets(attack):
            made = [*craft_all_targets(attack, *what, **how_many).values()]
        else:
            made = [craft(attack, *what, **how_many)]
    for adversarial_set in made:
        _print(adversarial_set)


def _print(adversarial_set: data.AdversarialSet) -> None:
    figures = adversarial_set.statistics()
    if adversarial_set.provenance.attack == "cw_l0":
        figures["mean_pixels"] = _mean_pixels(adversarial_set)
    print(f"{adversarial_set.path}:")
    for name, value in figures.items():
        shown = "-" if value is None else f"{value:.6g}"
        print(f"  {name.replace('_', ' ')}: {shown}")


def _mean_pixels(adversarial_set: data.AdversarialSet) -> float | None:
    """Positions that changed, over the images that are in `mean_l0`.

    CW-L0 makes these few; l0 counts each channel of a position by itself.
    """
    import attacks

    counts: list[float] = []
    for batch in adversarial_set.batches(256):
        changed = attacks.pixels_changed(batch["adversarial"], batch["images"])
        is_counted = (batch["success"] & (batch["linf"] > 0.0)).numpy()
        counts.extend(changed.numpy()[is_counted])
    return sum(counts) / len(counts) if counts else None


if __name__ == "__main__":
    sys.exit(command_line.run(define_flags, main, __doc__))
