"""The comparison of robustness: what is judged how, and two real ones."""

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import attacks
import data
import models


@pytest.fixture
def script(benchmarks):
    """The script as a module, which is not one of a package."""
    spec = importlib.util.spec_from_file_location(
        "benchmark_of_robustness", benchmarks / "robustness.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rows(script):
    """Every comparison, of MNIST in the default budget."""
    return script.comparisons(
        script.Budget(
            epsilon=0.1,
            norm="linf",
            steps=100,
            queries=5000,
            seed=3,
            classes=10,
        )
    )


def judged(error, seconds=1.0, outside=0.0):
    return {
        "error_percent": error,
        "outside": outside,
        "seconds": seconds,
        "cpu_seconds": seconds,
        "gradients": 1.0,
    }


def row_of(ours, rival):
    return {
        "ours": ours,
        "rival": rival,
        "points": ours["error_percent"] - rival["error_percent"],
        "speedup": rival["seconds"] / ours["seconds"],
    }


def test_what_the_issue_asks_for_is_what_is_required(rows):
    found = {
        name: (row.least, row.most, row.speedup) for name, row in rows.items()
    }
    assert found == {
        "apgd_ce": (-1.0, 1.0, 4.0),
        "square": (-1.0, 1.0, 4.0),
        "apgd_t": (-1.0, 1.0, None),
        "fab_t": (-1.0, 1.0, None),
        "auto_attack": (-0.5, math.inf, None),
    }


@pytest.mark.parametrize(
    "name", ["apgd_ce", "square", "apgd_t", "fab_t", "auto_attack"]
)
def test_all_parameters_of_ours_are_pinned(rows, name):
    attack = attacks.get(name, **rows[name].params)
    pinned = set(rows[name].params)
    assert set(attack.params) <= pinned
    assert pinned - set(attack.params) == {"seed", "batch_size"}


def test_torchattacks_gets_the_budget_of_the_literature(rows):
    parts = rows["auto_attack"].rival_params["attacks"]
    assert list(parts) == ["APGD", "APGDT", "FAB", "Square"]
    steps = {name: part.get("steps") for name, part in parts.items()}
    assert steps == {"APGD": 100, "APGDT": 100, "FAB": 100, "Square": None}
    assert parts["Square"]["n_queries"] == 5000
    assert parts["FAB"]["multi_targeted"] is True
    for name in ("apgd_t", "fab_t"):
        assert rows[name].rival_params["steps"] == 100


def test_fewer_classes_are_fewer_targets(script):
    budget = script.Budget(
        epsilon=2.0, norm="l2", steps=7, queries=9, seed=0, classes=5
    )
    rows = script.comparisons(budget)
    assert rows["apgd_t"].params["target_classes"] == 4
    assert rows["apgd_t"].rival_params["n_classes"] == 5
    assert rows["fab_t"].rival_params["norm"] == "L2"
    assert rows["apgd_ce"].rival_params["norm"] == 2
    assert rows["apgd_ce"].rival_params["max_iter"] == 7
    assert rows["square"].rival_params["max_iter"] == 9


@pytest.mark.parametrize(
    ("name", "ours", "rival", "expected"),
    [
        ("apgd_ce", judged(49.0), judged(50.0, 4.0), True),
        ("apgd_ce", judged(51.0), judged(50.0, 4.0), True),
        ("apgd_ce", judged(48.8), judged(50.0, 9.0), False),
        ("apgd_ce", judged(51.2), judged(50.0, 9.0), False),
        ("apgd_ce", judged(50.0), judged(50.0, 3.9), False),
        ("fab_t", judged(50.0, 9.0), judged(50.0), True),  # Only reported.
        ("auto_attack", judged(49.5), judged(50.0), True),
        ("auto_attack", judged(49.4), judged(50.0), False),
        ("auto_attack", judged(99.0), judged(50.0), True),
        ("fab_t", judged(50.0, outside=1e-6), judged(50.0), True),
        ("fab_t", judged(50.0, outside=2e-5), judged(50.0), False),
        ("fab_t", judged(50.0), judged(50.0, outside=2e-5), False),
        ("fab_t", judged(50.0, outside=math.nan), judged(50.0), False),
    ],
)
def test_a_row_is_judged_by_all_that_is_required(
    script, rows, name, ours, rival, expected
):
    row = row_of(ours, rival)
    assert script._is_reached(rows[name], row) is expected


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_worst_image_says_how_far_outside(script, norm):
    images = np.full((2, 2, 2, 1), 0.5, np.float32)
    adversarial = images.copy()
    adversarial[0] += 0.25  # Length 0.25 in Linf, 0.5 in L2.
    length = {"linf": 0.25, "l2": 0.5}[norm]
    for epsilon in (length, length + 0.1):
        assert script._outside(adversarial, images, epsilon, norm) == 0.0
    found = script._outside(adversarial, images, length - 0.125, norm)
    assert found == pytest.approx(0.125)
    adversarial[1, 0, 0] = -0.25
    assert script._outside(adversarial, images, 9.0, norm) == 0.25
    adversarial[1, 0, 0] = np.nan
    assert math.isnan(script._outside(adversarial, images, 9.0, norm))


def compared(script, rows, monkeypatch, ours, rival):
    """The row of two processes that made this."""
    arrays = {"ours": ours, "rival": rival}
    monkeypatch.setattr(
        script.processes,
        "start",
        lambda script, options, child, *rest: arrays[child.split("/")[0]],
    )
    monkeypatch.setattr(
        script, "_images", lambda _: (np.zeros((2, 4, 4, 1)), np.zeros(2))
    )
    monkeypatch.setattr(script, "_judge", lambda *arguments: arguments[-1])
    names = ("classifier", "data_dir", "time_limit", *script._SETTINGS)
    arguments = argparse.Namespace(**dict.fromkeys(names))
    return script._compare(arguments, "fab_t", rows["fab_t"], None, None)


@pytest.mark.parametrize(
    ("reason", "is_failure"),
    [
        ("did not finish in 600 s", False),
        ("exit code 1: processes.MissingLibraryError: no torch", False),
        ("exit code 1: ValueError: logits of c in PyTorch must be", True),
    ],
)
def test_a_rival_that_breaks_is_no_success(
    script, rows, monkeypatch, reason, is_failure
):
    absent = script.Absent(reason, is_failure)
    row = compared(script, rows, monkeypatch, judged(50.0), absent)
    assert row["reached"] is not is_failure
    line = script._line(row)
    assert reason in line[-1]
    assert line[3] == "50.0 / -"
    assert ("NOT REACHED" in line[-1]) is is_failure


def test_ours_outside_the_ball_is_no_success_without_a_rival(
    script, rows, monkeypatch
):
    absent = script.Absent("did not finish in 600 s", False)
    ours = judged(50.0, outside=0.01)
    row = compared(script, rows, monkeypatch, ours, absent)
    assert row["reached"] is False
    assert "ours: outside by 0.01" in script._line(row)[-1]


def test_an_unknown_attack_lists_the_known_ones(script, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["robustness.py", "--classifier=none", "--only=apgd"]
    )
    with pytest.raises(SystemExit):
        script.main()
    known = "'apgd' is not one of apgd_ce, square, apgd_t, fab_t, auto_attack"
    assert known in capsys.readouterr().err


@pytest.fixture(scope="module")
def linear(real_data_dir, tmp_path_factory):
    """A linear classifier of MNIST, by least squares."""
    dataset = data.load("mnist", data_dir=real_data_dir)
    batch = next(iter(dataset.batches("train", 2000)))
    images = batch["images"].numpy().reshape(2000, -1)
    wanted = np.eye(10, dtype=np.float32)[batch["labels"].numpy()]
    kernel = np.linalg.solve(
        images.T @ images + 20.0 * np.eye(784, dtype=np.float32),
        images.T @ wanted,
    )
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, use_bias=False),
        ]
    )
    model.set_weights([kernel])
    path = tmp_path_factory.mktemp("linear") / "classifier"
    models.Classifier.from_keras(model).save(path)
    return path


def run(benchmarks, linear, real_data_dir, tmp_path, *options):
    return subprocess.run(
        [
            sys.executable,
            benchmarks / "robustness.py",
            f"--classifier={linear}",
            f"--data_dir={real_data_dir}",
            f"--json={tmp_path / 'report.json'}",
            f"--workdir={tmp_path / 'kept'}",
            *options,
        ],
        capture_output=True,
        text=True,
        # Beside other tests, PyTorch's threads wait for each other.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["apgd_ce", "fab_t"])
def test_a_few_images_are_attacked_by_both(
    benchmarks, linear, real_data_dir, tmp_path, name
):
    library = {
        "apgd_ce": "adversarial-robustness-toolbox",
        "fab_t": "torchattacks",
    }[name]
    try:
        importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{library} is not installed")
    done = run(
        benchmarks,
        linear,
        real_data_dir,
        tmp_path,
        f"--only={name}",
        "--images=40",
        "--epsilon=0.03",
        "--steps=3",
    )
    report = json.loads((tmp_path / "report.json").read_text())
    (row,) = report["comparisons"]
    assert row["images"] == 40
    assert abs(row["points"]) <= 2.5, done.stderr
    assert 30.0 <= row["ours"]["error_percent"] <= 80.0
    assert row["ours"]["outside"] <= 1e-5
    assert row["rival"]["outside"] <= 1e-5
    assert row["reached"] is (name == "fab_t" or row["speedup"] >= 4.0)
    assert done.returncode == (0 if row["reached"] else 1), done.stderr
    assert ("logits in PyTorch differ" in done.stdout) is (name == "fab_t")
    assert "epsilon 0.03, norm linf, steps 3" in done.stdout
    kept = sorted(path.name for path in (tmp_path / "kept").glob("*.npz"))
    assert kept == [f"ours_{name}.npz", f"rival_{name}.npz"]
