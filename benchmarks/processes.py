"""Contestants in processes of their own: what they made, or why nothing.

A script starts itself once for each contestant, with `--child` to say which
and `--output` to say where its arrays go. No contestant finds the memory,
the caches or the threads that another one left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ape_gan_tf.workdir import claim
from data.files import written_whole


class MissingLibraryError(RuntimeError):
    """A rival's library is not installed; the message says what to install."""


@dataclasses.dataclass(frozen=True)
class Absent:
    """There is no result: why, and whether that is one of ours to answer for.

    Attributes:
        reason: For people.
        is_failure: The attack broke; else it was stopped or is not installed.
        seconds: After which it was stopped, if it was.
    """

    reason: str
    is_failure: bool
    seconds: float | None = None


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all scripts of this kind have."""
    options = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--classifier", type=Path, required=True)
    options.add_argument("--data_dir", type=Path, default=None)
    options.add_argument("--json", type=Path, metavar="PATH")
    options.add_argument("--workdir", type=Path, help="keeps what is measured")
    options.add_argument("--child", help=argparse.SUPPRESS)
    options.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    return options


def names_among(known: Iterable[str]) -> Callable[[str], list[str]]:
    """The type of an option that lists some of these names."""

    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"{name!r} is not one of {', '.join(known)}"
                )
        return names

    return parse


@contextlib.contextmanager
def claimed_folder(
    workdir: Path | None, config: dict[str, Any]
) -> Iterator[Path]:
    """A folder for what the processes make: `workdir`, or one for now.

    Raises:
        ValueError: `workdir` holds what another configuration made.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = workdir or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        claim(folder / "config.json", config)
        yield folder


def start(
    script: str,
    options: Mapping[str, Any],
    child: str,
    folder: Path,
    time_limit: float | None = None,
) -> dict[str, np.ndarray] | Absent:
    """What a process made, now or in an earlier run, or why it made nothing.

    Args:
        script: The file to run.
        options: Its options; those that are None are left out.
        child: Which contestant, for `--child`.
        folder: Keeps what was made.
        time_limit: Seconds, after which it is stopped.
    """
    output = folder / f"{child.replace('/', '_')}.npz"
    if not output.exists():
        options = {**options, "child": child, "output": output}
        absent = _run(script, options, time_limit)
        if absent is not None:
            return absent
    with np.load(output, allow_pickle=False) as arrays:
        return dict(arrays)


def _run(
    script: str, options: Mapping[str, Any], time_limit: float | None
) -> Absent | None:
    command = [sys.executable, script]
    command += [
        f"--{name}={value}"
        for name, value in options.items()
        if value is not None
    ]
    print(f"{options['child']} ...", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            command,
            timeout=time_limit,
            check=False,
            stderr=subprocess.PIPE,
            text=True,
        )
    except subprocess.TimeoutExpired:
        reason = f"did not finish in {time_limit:.0f} s"
        return Absent(reason, False, time_limit)
    if done.returncode:
        last = [*done.stderr.splitlines(), "no message"][-2:][0]
        is_missing = MissingLibraryError.__name__ in last
        return Absent(f"exit code {done.returncode}: {last}", not is_missing)
    return None


def timed(run: Callable[..., Any], *arguments: Any) -> tuple[Any, list[float]]:
    """What a call returns, and its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = run(*arguments)
    seconds = [time.perf_counter() - wall, time.process_time() - cpu]
    return made, seconds


def keep(output: Path, **arrays: Any) -> None:
    """Writes a process's arrays; the file appears when it is whole."""
    with written_whole(output) as path, path.open("wb") as file:
        np.savez(file, **arrays)
