"""Writes a purifier as a versioned SavedModel for TF Serving.

    python -m ape_gan_tf.export --purifier=DIR/purifier.keras \
        --classifier=DIR/classifier --output=SERVING/purifier --version=1

leaves `OUTPUT/VERSION/`, whole or not at all.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from ape_gan_tf import command_line, flag_groups


def define_flags(values: flags.FlagValues) -> None:
    flag_groups.define_purifier_flag(values)
    flag_groups.define_classifier_flags(values)
    flags.DEFINE_string(
        "output",
        None,
        "Folder of the versions, named as the server shall call the model.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "version",
        "1",
        "A number, or `next`: one more than the highest that is there.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    command_line.require(values, "purifier", "output")
    from ape_gan_tf import saved_model

    output = Path(values.output)
    version = _version(values.version, output)
    purifier = flag_groups.load_purifier(values)
    classifier = None
    if values.classifier:
        classifier = flag_groups.load_classifier(values, purifier.image_shape)
    path = saved_model.export(
        purifier, output, version=version, classifier=classifier
    )
    print(path)


def _version(text: str, output: Path) -> int:
    if text == "next":
        from ape_gan_tf.saved_model import next_version

        return next_version(output)
    if not text.isdecimal() or int(text) == 0:
        raise command_line.UsageError(
            f"--version must be a whole number above 0, or next; got {text!r}"
        )
    return int(text)


if __name__ == "__main__":
    sys.exit(command_line.run(define_flags, main, __doc__))
