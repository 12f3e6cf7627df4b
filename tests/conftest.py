"""What all tests share: a quiet TensorFlow on the CPU, and the real data."""

import importlib.util
import os
import subprocess
import sys

# TensorFlow reads these when it is first imported, so they come before any
# test module. The CPU is what the expected numbers were worked out for.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# A test draws its figures into files; no test may need a display.
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Lets ART write its configuration, before there are several processes.

    Imported for the first time on a machine, it does not find the file, and
    fails if it is there a moment later, because another process wrote it.
    """
    is_worker = hasattr(config, "workerinput")
    written = Path.home() / ".art" / "config.json"
    if is_worker or written.exists() or not importlib.util.find_spec("art"):
        return
    words = [sys.executable, "-c", "import art.config"]
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder of real MNIST, CIFAR-10 and ImageNet files, or a skip."""
    value = os.environ.get("APE_GAN_TF_DATA")
    if not value:
        pytest.skip("real data: APE_GAN_TF_DATA is not set")
    path = Path(value)
    if not path.is_dir():
        pytest.fail(f"APE_GAN_TF_DATA is not a folder: {value!r}")
    return path
