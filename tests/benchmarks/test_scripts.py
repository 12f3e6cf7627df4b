"""The scripts, as far as it takes seconds; they run for minutes."""

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture
def train_step(benchmarks):
    pytest.importorskip("torch")
    return importlib.import_module("train_step")


@pytest.fixture
def contestants(benchmarks):
    pytest.importorskip("torch")
    return importlib.import_module("contestants")


@pytest.fixture
def white_box_step(benchmarks):
    pytest.importorskip("torch")
    return importlib.import_module("white_box_step")


@pytest.mark.parametrize("script", ["train_step", "white_box_step"])
def test_without_pytorch_it_says_what_to_install(
    benchmarks, monkeypatch, script
):
    # First, since SciPy, which Keras imports, does not bear a hidden torch.
    importlib.import_module("keras")
    for name in (script, "contestants"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="pip install .*benchmark"):
        importlib.import_module(script)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_step", "white_box_step"])
def test_it_starts_as_documented(benchmarks, script):
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}.py", "--help"],
        cwd=benchmarks.parent,
        env={**os.environ, "PYTHONPATH": str(benchmarks.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"python benchmarks/{script}.py" in done.stdout


def test_the_flagfile_says_what_is_measured(contestants):
    config, xla = contestants.shipped("mnist.flags")
    assert (config.generator, config.batch_size) == ("ape_gan_m", 64)
    assert xla is True


def test_flags_win_over_the_flagfile(contestants, white_box_step):
    config, xla = contestants.shipped(
        "mnist_white_box_3.flags", *white_box_step.PINNED, "--batch_size=8"
    )
    assert (config.adversary, config.adversary_steps) == ("white_box", 7)
    assert (config.adversary_step_size, config.batch_size) == (0.1, 8)
    assert xla is True


def test_a_flag_that_train_does_not_have_is_refused(
    white_box_step, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["white_box_step.py", "--adversray=x"])
    with pytest.raises(SystemExit) as stopped:
        white_box_step.main()
    assert stopped.value.code == 2
    assert "adversray" in capsys.readouterr().err


@pytest.mark.slow
def test_crafting_and_training_are_measured(
    white_box_step, monkeypatch, tmp_path, capsys
):
    # Beside other tests, PyTorch's threads wait for each other for seconds.
    torch = importlib.import_module("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    arguments = "--rounds=1 --steps=1 --batch_size=6 --adversary_steps=1"
    path = tmp_path / "report.json"
    monkeypatch.setattr(
        sys, "argv", ["x", *arguments.split(), f"--json={path}"]
    )
    code = white_box_step.main()
    torch.set_num_threads(threads)
    report = json.loads(path.read_text())
    assert list(report["steps"]) == [
        "ours, XLA",
        "ours, no XLA",
        "PyTorch, default layout",
        "PyTorch, channels_last",
    ]
    reached = [row["reached"] for row in report["required"]]
    assert code == (0 if all(reached) else 1)
    assert report["setup"]["dataset"] == "digits"
    assert report["setup"]["config"]["adversary_steps"] == 1
    assert "1 steps of 0.1 in Linf 0.3" in capsys.readouterr().out


def test_the_set_on_disk_is_the_perturbed_images(train_step, tmp_path):
    pairs = train_step.write_set(tmp_path / "set", 8, seed=0)
    batch = next(iter(pairs.batches(8)))
    change = np.abs(batch["adversarial"] - batch["images"])
    assert change.max() == pytest.approx(0.3, abs=1e-6)
    assert batch["images"].shape == (8, 28, 28, 1)


def test_requirements_are_judged_by_the_mode_that_ships(train_step):
    rounds = importlib.import_module("rounds")

    def timed(seconds):
        return [rounds.Timing(seconds, 0.0)]

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
