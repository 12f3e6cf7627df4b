"""Runs a purifier over image files, arrays, a pipe or an adversarial set.

    python -m ape_gan_tf.purify --purifier=DIR/purifier.keras \
        --input=IMAGES --output=purified.npy

IMAGES is a folder of images or one image file; an .npy file, or an .npz file's
one array (of several: --array=NAME), of float32 `[N, H, W, C]` in [0, 1]; an
HDF5 adversarial set, whose adversarial images are purified; or -, an .npy
stream on standard input. Image files of another size are refused, unless
--resize scales and crops them as training on image_folder does.

OUTPUT is an .npy file of float32 in the same order, beside which
`OUTPUT.npy.txt` names the image files line by line; or -, the same on standard
output; or, with --eight_bit, a folder of PNG files. Memory does not grow with
the images.

The exit code is 0: done; 1: the images, the purifier or a file do not fit;
2: wrong flags; 130: Ctrl-C; 141: whoever read standard output has gone. Files
and folders appear whole or not at all; a stream is whole if the code is 0.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import BinaryIO, TextIO

from absl import flags

from ape_gan_tf import command_line, flag_groups
from ape_gan_tf.binary_stdout import binary_stdout

STREAM = "-"
INTERRUPTED_MESSAGE = (
    "interrupted: nothing was written, or half a stream; the same command "
    "starts again from the first image"
)
_NAMES_SHOWN = 5
_FILE_SUFFIXES = (".bmp", ".h5", ".jpeg", ".jpg", ".npy", ".npz", ".png")
EIGHT_BIT_WARNING = (
    "warning: rounding to 8 bits changes each value by up to 1/510, which "
    "removes or alters adversarial perturbations of that size; error rates "
    "measured from these files are not those of the purifier: measure on "
    "float32 (without --eight_bit)"
)


def define_flags(values: flags.FlagValues) -> None:
    flag_groups.define_purifier_flag(values)
    flags.DEFINE_string(
        "input", None, "What to purify; - is stdin.", flag_values=values
    )
    flags.DEFINE_string(
        "array",
        None,
        "Which array of an .npz file that has several.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "resize",
        False,
        "Scale image files to the purifier's size (short side, bilinear) and "
        "cut out the centre, as training on image_folder does.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output",
        None,
        "An .npy file; - is stdout; with --eight_bit a folder.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "eight_bit",
        False,
        "Write 8-bit PNG files: to look at, not to measure.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        128,
        "Images at a time.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "overwrite",
        False,
        "Replace OUTPUT if it exists, and OUTPUT.npy.txt; a folder only if it "
        "holds PNG files and nothing else.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    command_line.require(values, "purifier", "input", "output")
    _check_input(values)
    _check_output(values)
    with _opened_output(values) as output:
        count = _purify(values, output)
        # On standard error where the images are on standard output.
        name = "stdout" if values.output == STREAM else output
        print(f"{name}: {count:,} images")


def _purify(values: flags.FlagValues, output: BinaryIO | Path) -> int:
    """Returns how many images there were."""
    from ape_gan_tf import purification
    from ape_gan_tf.image_sources import open_images

    purifier = flag_groups.load_purifier(values)
    with open_images(
        values.input,
        purifier.image_shape,
        array=values.array,
        resize=values.resize,
    ) as images:
        if values.resize and not images.names:
            raise command_line.UsageError(
                f"--resize is for image files, got --input={values.input}"
            )
        if images.left_out:
            print(f"purify: {_left_out(images.left_out)}", file=sys.stderr)
        if not isinstance(output, Path):
            purification.write_npy(purifier, images, output, values.batch_size)
        elif values.eight_bit:
            print(f"purify: {EIGHT_BIT_WARNING}", file=sys.stderr)
            purification.save_eight_bit(
                purifier, images, output, values.batch_size
            )
        else:
            purification.save_npy(purifier, images, output, values.batch_size)
    return images.count


def _left_out(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return f"left out what is no image: {shown}{more}"


def _opened_output(
    values: flags.FlagValues,
) -> contextlib.AbstractContextManager[BinaryIO | Path]:
    if values.output == STREAM:
        return binary_stdout()
    return contextlib.nullcontext(Path(values.output))


def _check_input(values: flags.FlagValues) -> None:
    if values.input == STREAM:
        _refuse_terminal(sys.stdin, "--input=- reads it from stdin")
    if values.array and Path(values.input).suffix.lower() != ".npz":
        raise command_line.UsageError(
            f"--array is for .npz files, got --input={values.input}"
        )


def _check_output(values: flags.FlagValues) -> None:
    output = Path(values.output)
    if values.eight_bit:
        _check_folder(values, output)
    elif values.output == STREAM:
        _refuse_terminal(sys.stdout, "--output=- writes it to stdout")
    elif output.suffix != ".npy":
        raise command_line.UsageError(
            "--output must end in .npy, or be - for stdout, or with "
            f"--eight_bit a folder, got {output}"
        )
    else:
        _check_array(values, output)


def _refuse_terminal(stream: TextIO | None, what: str) -> None:
    if stream is None or stream.isatty():
        raise command_line.UsageError(
            f"an .npy stream is no text, and {what}: use a pipe or a file"
        )


def _check_array(values: flags.FlagValues, output: Path) -> None:
    from ape_gan_tf.purification import names_file

    for path in (output, names_file(output)):
        if path.exists() and not values.overwrite:
            raise _exists(path)
    if output.resolve() == Path(values.input).resolve():
        raise _would_replace_input(output)


def _check_folder(values: flags.FlagValues, output: Path) -> None:
    """Nothing but an earlier result may be replaced, never the input."""
    if values.output == STREAM or output.suffix.lower() in _FILE_SUFFIXES:
        raise command_line.UsageError(
            f"--eight_bit writes a folder of PNG files, got --output={output}"
        )
    if not output.exists():
        return
    if not values.overwrite:
        raise _exists(output)
    source = Path(values.input).resolve()
    if output.resolve() in (source, *source.parents):
        raise _would_replace_input(output)
    if not output.is_dir() or any(
        path.suffix != ".png" or path.is_dir() for path in output.iterdir()
    ):
        raise command_line.UsageError(
            f"{output} is not a folder of PNG files alone, so --overwrite "
            "leaves it: name another --output"
        )


def _would_replace_input(output: Path) -> command_line.UsageError:
    return command_line.UsageError(
        f"--output={output} would replace the --input: name another"
    )


def _exists(path: Path) -> command_line.UsageError:
    return command_line.UsageError(
        f"{path} exists: name another --output, or add --overwrite"
    )


if __name__ == "__main__":
    sys.exit(
        command_line.run(
            define_flags, main, __doc__, interrupted=INTERRUPTED_MESSAGE
        )
    )
