"""Bytes on standard output, as the process at the other end sees them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from ape_gan_tf import command_line
from ape_gan_tf.binary_stdout import binary_stdout

def main(values):
    with binary_stdout() as stdout:
        for _ in range({times}):
            print("told")
            stdout.write(b"x" * 1000)

sys.exit(command_line.run(lambda values: None, main, "", ["program"]))
"""


@pytest.fixture
def start():
    processes = []

    def start(times, **streams):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(times=times)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            **streams,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_nothing_but_bytes_is_on_standard_output(start):
    process = start(3, stdout=subprocess.PIPE)
    assert process.communicate() == (b"x" * 3000, b"told\n" * 3)
    assert process.returncode == 0


def test_a_reader_that_leaves_ends_it_quietly(start):
    process = start(100_000, stdout=subprocess.PIPE)
    assert process.stdout.read(10) == b"x" * 10
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() == 141
    assert set(said.splitlines()) == {b"told"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("times", [1, 1000])
def test_a_full_disk_is_an_error_told_once(start, times):
    with open("/dev/full", "wb") as full:
        process = start(times, stdout=full)
        said = process.stderr.read().decode()
        assert process.wait() == 1
    assert said.count("No space left on device") == 1
    assert "Traceback" not in said and "ignored" not in said
