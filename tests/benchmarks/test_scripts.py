"""The two scripts, as far as it takes seconds; they run for minutes."""

import importlib
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture
def train_step(benchmarks):
    pytest.importorskip("torch")
    return importlib.import_module("train_step")


def test_without_pytorch_it_says_what_to_install(benchmarks, monkeypatch):
    monkeypatch.delitem(sys.modules, "train_step", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="pip install .*benchmark"):
        importlib.import_module("train_step")


def test_the_flagfile_says_what_is_measured(train_step):
    config, xla = train_step._shipped("mnist.flags")
    assert (config.generator, config.batch_size) == ("ape_gan_m", 64)
    assert xla is True


def test_the_set_on_disk_is_the_perturbed_images(train_step, tmp_path):
    pairs = train_step.write_set(tmp_path / "set", 8, seed=0)
    batch = next(iter(pairs.batches(8)))
    change = np.abs(batch["adversarial"] - batch["images"])
    assert change.max() == pytest.approx(0.3, abs=1e-6)
    assert batch["images"].shape == (8, 28, 28, 1)


def test_requirements_are_judged_by_the_mode_that_ships(train_step):
    def timed(seconds):
        return [train_step.Timing(seconds, 0.0)]

    steps = {
        "ours, XLA": timed(1.0),
        "ours, no XLA": timed(10.0),
        "PyTorch, default layout": timed(1.7),
        "PyTorch, channels_last": timed(1.1),
    }
    feeding = {
        "one batch again and again": timed(1.0),
        "an adversarial set on disk": timed(1.04),
    }
    rows = train_step._required(steps, feeding, shipped_xla=True)
    assert [row["reached"] for row in rows] == [True, False, True]
    assert rows[2]["found"].median == pytest.approx(4.0)
    rows = train_step._required(steps, feeding, shipped_xla=False)
    assert [row["reached"] for row in rows] == [False, False, True]


def run_craft_memory(folder, *arguments):
    return subprocess.run(
        [sys.executable, folder / "craft_memory.py", *arguments],
        capture_output=True,
        text=True,
    )


def test_counts_must_grow(benchmarks):
    done = run_craft_memory(benchmarks, "--small=9", "--large=9")
    assert done.returncode == 1
    assert "below --large, got 9 and 9" in done.stderr


def test_the_process_that_compares_memory_needs_little_itself(benchmarks):
    code = "import sys, craft_memory; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=benchmarks,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False\n"
