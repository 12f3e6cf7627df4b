"""What all tests share: a quiet TensorFlow on the CPU, and the real data."""

import importlib.util
import os
import subprocess
import sys

# TensorFlow reads these when it is first imported, so they come before any
# test module. The CPU is what the expected numbers were worked out for.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# Two processes run the tests: on two cores, threads of each would wait for the
# other's.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
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


# Minutes each, of few tests: begun last, one of them would keep one process
# busy while the other has nothing left to do.
LONG = (
    "docs/test_commands.py",
    "ape_gan_tf/test_pretrained_models.py",
    "ape_gan_tf/test_kill_and_resume.py",
    "ape_gan_tf/test_reproduce.py",
    "ape_gan_tf/test_robustness.py",
    "docs/test_notebooks.py",
    "docs/test_integrations.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the long files first."""
    folder = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(folder).as_posix()
        return LONG.index(name) if name in LONG else len(LONG)

    items.sort(key=place)


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
