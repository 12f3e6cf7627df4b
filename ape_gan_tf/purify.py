"""Runs a purifier over an adversarial set, an .npy file or image files.

    python -m ape_gan_tf.purify --purifier=DIR/purifier.keras \
        --input=IMAGES --output=purified.npy

IMAGES is an HDF5 adversarial set (its adversarial images are purified), an
.npy file of float32 `[N, H, W, C]` in [0, 1], an image file, or a folder of
them. OUTPUT is an .npy file of float32 in the same order; for image files
`OUTPUT.txt` beside it names them, line by line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from ape_gan_tf import command_line, flag_groups


def define_flags(values: flags.FlagValues) -> None:
    flag_groups.define_purifier_flag(values)
    flags.DEFINE_string("input", None, "What to purify.", flag_values=values)
    flags.DEFINE_string("output", None, "An .npy file.", flag_values=values)
    flags.DEFINE_integer(
        "batch_size",
        128,
        "Images at a time.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "overwrite", False, "Replace OUTPUT if it exists.", flag_values=values
    )


def main(values: flags.FlagValues) -> None:
    command_line.require(values, "purifier", "input", "output")
    output = Path(values.output)
    if output.suffix != ".npy":
        raise command_line.UsageError(
            f"--output must end in .npy, got {output}"
        )
    from ape_gan_tf.purification import names_file, open_images, purify_to_npy

    for path in (output, names_file(output)):
        if path.exists() and not values.overwrite:
            raise command_line.UsageError(
                f"{path} exists: name another --output, or add --overwrite"
            )
    purifier = flag_groups.load_purifier(values)
    images = open_images(Path(values.input), purifier.image_shape)
    purify_to_npy(purifier, images, output, values.batch_size)
    print(f"{output}: {images.count:,} images")


if __name__ == "__main__":
    sys.exit(command_line.run(define_flags, main, __doc__))
