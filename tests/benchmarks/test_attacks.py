"""The comparison of attacks: what is judged how, and one real comparison."""

import argparse
import importlib.util
import json
import subprocess
import sys

import keras
import pytest

import models


@pytest.fixture
def script(benchmarks):
    """The script as a module, by a name that does not hide our package."""
    spec = importlib.util.spec_from_file_location(
        "benchmark_of_attacks", benchmarks / "attacks.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Where dataclasses look themselves up.
    yield module, spec.loader.exec_module(module)
    del sys.modules[spec.name]


@pytest.fixture
def comparisons(script):
    return script[0].COMPARISONS


def judged(fooled, distances=None, seconds=1.0):
    return {
        "images": len(fooled),
        "seconds": seconds,
        "gradient_seconds": [],
        "fooled": fooled,
        "distances": distances or [1.0] * len(fooled),
    }


def row_of(ours, rival, **changes):
    return {
        "ours": ours,
        "rival": rival,
        "speedup": rival["seconds"] / ours["seconds"],
        "distance_ratio": 1.0,
        "identical": False,
        **changes,
    }


def test_what_the_issue_asks_for_is_what_is_required(comparisons):
    found = {
        name: (each.images, each.speedup, each.distance_ratio)
        for name, each in comparisons.items()
    }
    assert found == {
        "deepfool": (1000, 5.0, 1.02),
        "cw_l2": (100, 4.0, 1.02),
        "jsma": (200, 10.0, None),
        "plain_jsma": (20, 100.0, None),
        "cw_linf": (5, 20.0, 1.05),
        "cw_l0": (5, 20.0, 1.05),
        "lbfgs": (50, 4.0, 1.05),
    }


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("deepfool", {"speedup": 5.0}, True),
        ("deepfool", {"speedup": 4.9}, False),
        ("deepfool", {"speedup": 5.0, "distance_ratio": 1.021}, False),
        ("deepfool", {"speedup": 5.0, "distance_ratio": None}, False),
        ("cw_linf", {"speedup": 20.0}, False),  # One was not fooled.
        ("jsma", {"speedup": 10.0, "distance_ratio": 2.0}, True),
        ("plain_jsma", {"speedup": 100.0}, False),
        ("plain_jsma", {"speedup": 100.0, "identical": True}, True),
    ],
)
def test_a_row_is_judged_by_all_that_is_required(
    script, comparisons, name, changes, expected
):
    row = row_of(judged([True, False]), judged([True, False]), **changes)
    assert script[0]._is_reached(comparisons[name], row) is expected


def test_fewer_successes_than_the_rivals_are_not_enough(script, comparisons):
    row = row_of(judged([True, False]), judged([True, True]), speedup=9.0)
    assert not script[0]._is_reached(comparisons["deepfool"], row)


def test_distances_are_compared_where_both_succeeded(script):
    ours = judged([True, True, False], [1.0, 2.0, 9.0])
    rival = judged([True, False, True], [4.0, 9.0, 9.0])
    assert script[0]._mean_distances(ours, rival) == [1.0, 4.0]
    none = judged([False, False, False])
    assert script[0]._mean_distances(ours, none) == [None, None]


def compared(script, monkeypatch, name, ours, rival):
    """The row of two processes that made this."""
    arrays = {"ours": ours, "rival": rival}
    module = script[0]
    monkeypatch.setattr(
        module, "_start", lambda _, child, *rest: arrays[child.split("/")[0]]
    )
    monkeypatch.setattr(module.models.Classifier, "load", lambda path: None)
    monkeypatch.setattr(module, "_judge", lambda _, made, name: made)
    arguments = argparse.Namespace(classifier=None, time_limit=1.0)
    return module._compare(arguments, name, None)


@pytest.mark.parametrize("fooled", [True, False])
def test_a_rival_that_is_stopped_leaves_us_to_succeed(
    script, monkeypatch, fooled
):
    stopped = script[0].Absent("did not finish in 600 s", False, 600.0)
    ours = judged([True, fooled], [1.0, 2.0], seconds=25.0)
    row = compared(script, monkeypatch, "cw_linf", ours, stopped)
    assert row["reached"] is fooled
    assert row["mean_distance"] == (1.5 if fooled else 1.0)
    line = script[0]._line(row)
    assert "did not finish in 600 s" in line[2]
    assert line[3] == "at least 24.0"
    assert line[4:6] == ["100.0" if fooled else "50.0"] + [
        "linf 1.5" if fooled else "linf 1"
    ]


def test_nothing_is_said_of_the_speed_of_a_rival_that_is_missing(
    script, monkeypatch
):
    missing = script[0].Absent("is not installed", False)
    row = compared(script, monkeypatch, "jsma", judged([True]), missing)
    assert script[0]._line(row)[2:4] == ["1 / is not installed", ""]


def test_a_rival_that_breaks_is_no_success(script, monkeypatch):
    broken = script[0].Absent("exit code 1: TypeError: ...", True)
    ours = judged([True, True])
    row = compared(script, monkeypatch, "jsma", ours, broken)
    assert row["reached"] is False
    assert "TypeError" in script[0]._line(row)[2]


def test_ours_that_breaks_is_no_success(script, monkeypatch):
    broken = script[0].Absent("exit code -9: no message", True)
    row = compared(script, monkeypatch, "jsma", broken, judged([True]))
    assert row["reached"] is False
    assert script[0]._line(row)[-1] == "BROKEN"


def test_an_unknown_comparison_lists_the_known_ones(
    script, monkeypatch, capsys
):
    words = ["attacks.py", "--classifier=none", "--only=deepfol"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as raised:
        script[0].main()
    assert raised.value.code == 2
    shown = capsys.readouterr().err
    assert "'deepfol' is not one of deepfool, cw_l2, jsma" in shown


@pytest.mark.real_data
def test_two_images_are_compared_pixel_for_pixel(
    benchmarks, real_data_dir, tmp_path
):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    classifier = models.Classifier.from_keras(model)
    classifier.save(tmp_path / "classifier")
    output = tmp_path / "attacks.json"
    done = subprocess.run(
        [
            sys.executable,
            benchmarks / "attacks.py",
            f"--classifier={tmp_path / 'classifier'}",
            f"--data_dir={real_data_dir}",
            "--only=plain_jsma",
            "--growth=",
            "--images=2",
            f"--json={output}",
            f"--workdir={tmp_path / 'kept'}",
        ],
        capture_output=True,
        text=True,
    )
    report = json.loads(output.read_text())
    (row,) = report["comparisons"]
    assert row["identical"] is True
    assert row["ours"]["fooled"] == row["rival"]["fooled"]
    assert row["reached"] is (row["speedup"] >= 100.0)
    assert done.returncode == (0 if row["reached"] else 1), done.stderr
    assert f"{row['speedup']:.1f}" in done.stdout
    assert "the classifier's own passes take" in done.stdout
    assert "theta 1.0, gamma 0.1" in done.stdout
    kept = sorted(path.name for path in (tmp_path / "kept").glob("*.npz"))
    assert kept == ["ours_plain_jsma.npz", "rival_plain_jsma.npz"]
