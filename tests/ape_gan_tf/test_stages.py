"""Stages: made once, in order, as far as time and data reach."""

import json

import pytest

from ape_gan_tf.stages import MissingDataError, Stage, Stages

MAKER = {"commit": "abc"}


class Workshop:
    """Stages that note when they are made."""

    def __init__(self):
        self.made = []

    def stage(self, name, needs=(), error=None):
        def make():
            if error is not None:
                raise error
            self.made.append(name)

        return Stage(name, lambda: name in self.made, make, tuple(needs))


@pytest.fixture
def workshop():
    return Workshop()


@pytest.fixture
def times(tmp_path):
    return tmp_path / "stages.json"


def test_what_a_stage_needs_is_made_first_and_once(workshop, times):
    base = workshop.stage("base")
    left, right = (
        workshop.stage("left", [base]),
        workshop.stage("right", [base]),
    )
    stages = Stages(times, MAKER)
    stages.run([left, right])
    assert workshop.made == ["base", "left", "right"]
    assert stages.missing == {}


def test_what_is_done_needs_nothing(workshop, times):
    workshop.made.append("report")
    lost = workshop.stage("lost", error=MissingDataError("gone"))
    stages = Stages(times, MAKER)
    stages.run([workshop.stage("report", [lost])])
    assert workshop.made == ["report"]
    assert stages.missing == {}


def test_a_stage_without_data_is_missing_and_so_is_what_stands_on_it(
    workshop, times
):
    lost = workshop.stage("weights", error=MissingDataError("no weights.h5"))
    stages = Stages(times, MAKER)
    stages.run([workshop.stage("row", [lost]), workshop.stage("other"), lost])
    assert workshop.made == ["other"]
    assert stages.missing == {
        "weights": "no weights.h5",
        "row": "no weights.h5",
    }


def test_another_error_stops_the_run(workshop, times):
    broken = workshop.stage("broken", error=ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        Stages(times, MAKER).run([broken, workshop.stage("after")])
    assert workshop.made == []


def test_without_time_only_what_is_done_is_there(workshop, times):
    workshop.made.append("old")
    stages = Stages(times, MAKER, max_minutes=0)
    stages.run([workshop.stage("old"), workshop.stage("new")])
    assert workshop.made == ["old"]
    assert stages.missing == {"new": "no time was left"}


def test_no_stage_begins_after_the_deadline(workshop, times, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ape_gan_tf.stages.time.monotonic", lambda: now[0])

    def make_slowly():
        now[0] += 61.0
        workshop.made.append("slow")

    slow = Stage("slow", lambda: "slow" in workshop.made, make_slowly)
    stages = Stages(times, MAKER, max_minutes=1)
    stages.run([workshop.stage("on slow", [slow]), workshop.stage("late")])
    assert workshop.made == ["slow"]
    assert set(stages.missing) == {"on slow", "late"}


def test_seconds_add_up_over_runs_and_interruptions(
    workshop, times, monkeypatch
):
    now = [0.0]
    monkeypatch.setattr("ape_gan_tf.stages.time.monotonic", lambda: now[0])

    def interrupted():
        now[0] += 5.0
        raise KeyboardInterrupt

    def finished():
        now[0] += 2.5
        workshop.made.append("craft")

    with pytest.raises(KeyboardInterrupt):
        Stages(times, MAKER).run([Stage("craft", lambda: False, interrupted)])
    stages = Stages(times, {"commit": "def"})
    stages.run([Stage("craft", lambda: "craft" in workshop.made, finished)])
    expected = {"craft": {"commit": "def", "seconds": 7.5}}
    assert stages.records == expected
    assert json.loads(times.read_text()) == expected


def test_a_record_is_of_the_run_that_made_the_stage(workshop, times):
    stage = workshop.stage("row")
    Stages(times, {"commit": "first"}).run([stage])
    later = Stages(times, {"commit": "later"})
    later.run([stage])
    assert later.records["row"]["commit"] == "first"


def test_a_stage_that_leaves_no_result_is_a_bug(times):
    empty = Stage("empty", lambda: False, lambda: None)
    with pytest.raises(RuntimeError, match="stage empty ran, but has no res"):
        Stages(times, MAKER).run([empty])
