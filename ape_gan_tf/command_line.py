"""What the commands share: parsing, flagfiles, errors, exit codes.

Each command has flags of its own in a `FlagValues` of its own, hands a
configuration object to the library and imports it late, so that a typo is
answered at once.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags

from ape_gan_tf import interrupts

ERROR, USAGE_ERROR, INTERRUPTED = 1, 2, 130
INTERRUPTED_MESSAGE = (
    "interrupted; run the same command again to continue: "
    "what is finished is kept"
)
FLAGFILE = "--flagfile="
# Not part of an experiment, so not in flags.txt.
_NOT_RECORDED = (
    "debug",
    "flagfile",
    "help",
    "max_minutes",
    "undefok",
    "workdir",
)


class UsageError(Exception):
    """The command line does not fit; the message says why."""


def run(
    define_flags: Callable[[flags.FlagValues], None],
    main: Callable[[flags.FlagValues], None],
    description: str | None,
    argv: Sequence[str] | None = None,
    interrupted: str = INTERRUPTED_MESSAGE,
) -> int:
    """Parses the command line, runs `main`, returns the exit code.

    Args:
        define_flags: Adds the command's flags.
        main: The command; gets the parsed flags.
        description: Its help text.
        argv: The command line; None is this process's.
        interrupted: What Ctrl-C is answered with.

    Returns:
        0; 1 for an error, 2 for a wrong command line, 130 for Ctrl-C.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    argv = list(sys.argv if argv is None else argv)
    name = Path(argv[0]).stem
    values = flags.FlagValues()
    define_flags(values)
    _define_common_flags(values)
    with interrupts.remembered():
        try:
            parse(values, argv)
            if values.help:
                print(f"{description}\n{values.get_help()}")
                return 0
            main(values)
        except UsageError as error:
            return _fail(name, error, USAGE_ERROR)
        except KeyboardInterrupt:
            return _fail(name, interrupted, INTERRUPTED)
        except Exception as error:
            # TensorFlow may have made another error of Ctrl-C.
            if interrupts.is_pending():
                return _fail(name, interrupted, INTERRUPTED)
            if not _is_expected(error):
                raise
            if values["debug"].value:
                traceback.print_exc()
            return _fail(name, _describe(error), ERROR)
    return 0


def parse(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Parses `argv` (with the program's name first) into `values`.

    A flagfile that is not found as given is looked for among those that ship
    with the package, and the command line wins over it.

    Raises:
        UsageError: A flag is unknown (the valid ones are listed), its value
            does not fit, or there are words that are no flags.
    """
    program, *words = argv
    words = _join_flagfile(words)
    flagfiles = [
        FLAGFILE + str(find_flagfile(word.removeprefix(FLAGFILE)))
        for word in words
        if word.startswith(FLAGFILE)
    ]
    others = [word for word in words if not word.startswith(FLAGFILE)]
    try:
        rest = values([program, *flagfiles, *others])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UsageError(_describe_unknown(values, error.flagname)) from error
    except flags.Error as error:
        raise UsageError(str(error)) from error
    if rest:
        raise UsageError(f"expected flags (--name=value), got {rest[0]!r}")


def find_flagfile(name: str) -> Path:
    """Finds a flagfile: as given, else among the shipped ones.

    Raises:
        UsageError: There is none; the message lists those that ship.
    """
    path = Path(name)
    if path.is_file():
        return path
    for folder in _shipped_folders():
        if (folder / path.name).is_file() and path.parent.name in ("", "flags"):
            return folder / path.name
    shipped = sorted(
        file.name
        for folder in _shipped_folders()
        for file in folder.iterdir()
        if file.suffix == ".flags"
    )
    raise UsageError(
        f"flagfile {name} does not exist; those that come with the package "
        f"are {', '.join(shipped)}"
    )


def effective_flags(values: flags.FlagValues) -> str:
    """The flags as parsed, as a flagfile that repeats the run elsewhere."""
    lines = [
        values[name].serialize()
        for name in sorted(values)
        if name not in _NOT_RECORDED and values[name].value is not None
    ]
    return "\n".join(line for line in lines if line) + "\n"


@contextlib.contextmanager
def recorded_flags(values: flags.FlagValues, workdir: Path) -> Iterator[None]:
    """Writes `WORKDIR/flags.txt`: --flagfile=flags.txt repeats the run.

    Meanwhile no other run can write to the work directory.

    Flags that are there already stay until the block has ended well: they are
    those of the results, which the block may refuse to continue.
    """
    from data.files import exclusive, write_text  # They import TensorFlow.

    path = workdir / "flags.txt"
    with exclusive(workdir / ".lock"):
        if not path.exists():
            write_text(path, effective_flags(values))
        yield
        write_text(path, effective_flags(values))


def require(values: flags.FlagValues, *names: str) -> None:
    """Refuses to go on without these flags.

    Raises:
        UsageError: One has no value.
    """
    missing = [f"--{name}" for name in names if not values[name].value]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given")


def _define_common_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean("help", False, "Show this help.", flag_values=values)
    flags.DEFINE_boolean(
        "debug",
        False,
        "Show where in the code an error came from.",
        flag_values=values,
    )


def _join_flagfile(words: Sequence[str]) -> list[str]:
    """`--flagfile X` and `-flagfile=X` are `--flagfile=X` too."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--flagfile", "-flagfile"):
            joined[-1] = FLAGFILE + word
        elif word.startswith("-flagfile="):
            joined.append("-" + word)
        else:
            joined.append(word)
    return joined


def _shipped_folders() -> list[Path]:
    """In an installed package, and beside it in a checkout."""
    package = Path(__file__).resolve().parent
    folders = [package / "flags", package.parent / "flags"]
    return [folder for folder in folders if folder.is_dir()]


def _describe_unknown(values: flags.FlagValues, name: str) -> str:
    known = sorted(values)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean --{close[0]}?" if close else ""
    listed = ", ".join(f"--{each}" for each in known)
    return f"unknown flag --{name}{hint}\nvalid flags: {listed}"


def _is_expected(error: Exception) -> bool:
    """Whether it may come from bad input or a full disk, not from a bug."""
    if isinstance(error, (ValueError, OSError, RuntimeError)):
        return True
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(
        error, tensorflow.errors.OpError
    )


def _describe(error: Exception) -> str:
    """The message; of an error inside a data pipeline, the line that counts.

    TensorFlow wraps those into a page of C++ and Python call stacks.
    """
    text = str(error)
    for line in text.splitlines():
        kind, colon, message = line.partition(": ")
        if colon and kind in ("ValueError", "OSError", "FileNotFoundError"):
            return message
    return text


def _fail(name: str, error: object, code: int) -> int:
    print(f"{name}: {error}", file=sys.stderr)
    return code
