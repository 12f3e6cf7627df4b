import importlib
import json
import time

import pytest


@pytest.fixture
def rounds(benchmarks):
    return importlib.import_module("rounds")


def test_contestants_take_turns_after_one_round_that_does_not_count(rounds):
    calls = []
    timings = rounds.alternate(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2
    )
    assert calls == ["a", "b"] * 3
    assert [len(timings[name]) for name in ("a", "b")] == [2, 2]


def test_waiting_takes_time_but_no_processor(rounds):
    (timing,) = rounds.alternate({"sleep": lambda: time.sleep(0.05)}, 1)[
        "sleep"
    ]
    assert timing.wall >= 0.05
    assert timing.cpu < 0.04


def test_the_speedup_is_of_paired_rounds(rounds):
    # By round: 3, 2 and 1.5 times; the ratio of the medians would be 1.
    ours = [rounds.Timing(wall, 0.0) for wall in (1.0, 2.0, 8.0)]
    reference = [rounds.Timing(wall, 0.0) for wall in (3.0, 4.0, 12.0)]
    spread = rounds.speedup(ours, reference)
    assert spread == rounds.Spread(2.0, 1.5, 3.0)
    assert spread.text(".1f") == "2.0 (1.5 .. 3.0)"


def test_the_table_is_markdown(rounds):
    table = rounds.markdown_table(["a", "b"], [["1", "2"]])
    assert table == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_report_may_hold_spreads(rounds, tmp_path):
    path = tmp_path / "report.json"
    rounds.write_json(path, {"speed": rounds.Spread.of([3.0, 1.0])})
    expected = {"speed": {"median": 2.0, "low": 1.0, "high": 3.0}}
    assert json.loads(path.read_text()) == expected


def test_the_machine_is_named(rounds):
    assert set(rounds.machine()) == {"processor", "cores", "system", "Python"}
