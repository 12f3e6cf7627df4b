"""Writes a purifier as a versioned SavedModel for TF Serving.

    python -m ape_gan_tf.export --purifier=DIR/purifier.keras \
        --classifier=DIR/classifier --output=SERVING/purifier --version=1

leaves `OUTPUT/VERSION/`, whole or not at all. docs/serving.md says what it
answers, and how a server is started on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from ape_gan_tf import command_line, flag_groups
from ape_gan_tf.choices import WEIGHTS_DTYPES


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
    flags.DEFINE_string(
        "labels",
        None,
        "Text file with the name of one class a line; with --classifier.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "weights_dtype",
        "float32",
        WEIGHTS_DTYPES,
        "What the weights are stored in; everything is computed in float32.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "warmup_batch_sizes",
        None,
        "Batch sizes of the requests that the server answers to itself first; "
        "empty: none. Default: 1, if tensorflow-serving-api is installed.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    command_line.require(values, "purifier", "output")
    from ape_gan_tf.serving import saved_model

    output = Path(values.output)
    version = _version(values.version)
    labels = _labels(values.labels)
    batch_sizes = _warmup_batch_sizes(values.warmup_batch_sizes)
    purifier = flag_groups.load_purifier(values)
    classifier = None
    if values.classifier:
        classifier = flag_groups.load_classifier(values, purifier.image_shape)
    path = saved_model.export(
        purifier,
        output,
        version=version,
        classifier=classifier,
        labels=labels,
        weights_dtype=values.weights_dtype,
        warmup_batch_sizes=batch_sizes,
    )
    print(path)


def _version(text: str) -> int | None:
    """The number, or None for the next."""
    if text == "next":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise command_line.UsageError(
            f"--version must be a whole number above 0, or next; got {text!r}"
        )
    return int(text)


def _labels(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        # Editors on Windows put a mark in front.
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"--labels={path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"--labels={path} is no UTF-8 text: {error}"
        ) from error
    if not text:
        raise ValueError(f"--labels={path} is empty")
    return text.removesuffix("\n").split("\n")


def _warmup_batch_sizes(texts: list[str] | None) -> list[int]:
    if texts is None:
        from ape_gan_tf.serving import warmup

        if warmup.is_available():
            return [1]
        print(
            "No warm-up requests are written: they need "
            "pip install 'ape-gan-tf[serving]'",
            file=sys.stderr,
        )
        return []
    for text in texts:
        if not text.isdecimal() or int(text) == 0:
            raise command_line.UsageError(
                "--warmup_batch_sizes must be whole numbers above 0, got "
                f"{text!r}"
            )
    return [int(text) for text in texts]


if __name__ == "__main__":
    sys.exit(command_line.run(define_flags, main, __doc__))
