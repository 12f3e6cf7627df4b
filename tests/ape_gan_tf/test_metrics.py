"""metrics.json: written, read again, and refused when it is not one."""

import dataclasses
import json

import numpy as np
import pytest

from ape_gan_tf.metrics import MetricsFile, Row


def make_row(**changes):
    return Row(
        **{
            "dataset": "digits",
            "split": "test",
            "count": 400,
            "classifier": {"name": "target_c", "fingerprint": "c"},
            "purifier": {"name": "ape_gan_m", "fingerprint": "p"},
            "input": "fgsm",
            "params": {"epsilon": 0.3, "epsilon_min": None},
            "threat_model": "oblivious",
            "crafted_on": "c",
            "seed": 1,
            "target_error": 96.25,
            "purified_error": 2.5,
            **changes,
        }
    )


def test_rows_come_back_as_they_were(tmp_path):
    path = tmp_path / "deep" / "metrics.json"
    rows = [
        make_row(),
        make_row(purifier=None, purified_error=None),
        make_row(seed=2, target_top5_error=1.0, purified_top5_error=0.5),
    ]
    metrics = MetricsFile(path)
    assert metrics.rows == []
    for row in rows:
        metrics.add(row)
    assert MetricsFile(path).rows == rows


def test_the_file_has_the_published_form(tmp_path):
    path = tmp_path / "metrics.json"
    MetricsFile(path).add(make_row())
    assert json.loads(path.read_text()) == {
        "version": 1,
        "rows": [
            {
                "dataset": "digits",
                "split": "test",
                "count": 400,
                "classifier": {"name": "target_c", "fingerprint": "c"},
                "purifier": {"name": "ape_gan_m", "fingerprint": "p"},
                "input": "fgsm",
                "params": {"epsilon": 0.3, "epsilon_min": None},
                "threat_model": "oblivious",
                "crafted_on": "c",
                "seed": 1,
                "target_error": 96.25,
                "purified_error": 2.5,
            }
        ],
    }


def test_each_row_is_on_the_disk_once_it_is_added(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.json")
    metrics.add(make_row(seed=1))
    assert len(MetricsFile(tmp_path / "metrics.json").rows) == 1
    metrics.add(make_row(seed=2))
    assert len(MetricsFile(tmp_path / "metrics.json").rows) == 2


def test_a_row_is_found_whatever_its_errors(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.json")
    row = make_row()
    metrics.add(row)
    wanted = dataclasses.replace(row, target_error=None, purified_error=None)
    assert metrics.find(wanted) == row


@pytest.mark.parametrize(
    "change",
    [
        {"split": "validation"},
        {"count": 100},
        {"purifier": None},
        {"params": {"epsilon": 0.2, "epsilon_min": None}},
        {"threat_model": "white_box"},
        {"classifier": {"name": "target_c", "fingerprint": "other"}},
        {"seed": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_measurement_is_not_found(tmp_path, change):
    metrics = MetricsFile(tmp_path / "metrics.json")
    metrics.add(make_row())
    assert metrics.find(make_row(**change)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 2, "rows": []}', "version 1, got version 2"),
        ('{"rows": []}', "version 1, got version None"),
        ("[]", "version 1, got version None"),
        ('{"version": 1}', "holds a row that does not fit: 'rows'"),
        ('{"version": 1, "rows": [{"dataset": "x"}]}', "does not fit"),
        ('{"version": 1, "rows": [{"surprise": 1}]}', "surprise"),
        ('{"version": 1, "ro', "metrics.json is not valid JSON"),
    ],
)
def test_a_file_that_is_no_metrics_file_is_refused(tmp_path, text, message):
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        MetricsFile(path)
    assert str(path) in str(error.value)
    assert path.read_text() == text


def test_a_measurement_made_again_takes_the_place_of_the_old_one(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.json")
    metrics.add(make_row(target_error=50.0))
    metrics.add(make_row(target_error=60.0))
    (row,) = MetricsFile(tmp_path / "metrics.json").rows
    assert row.target_error == 60.0


def test_outcomes_of_each_image_are_kept_beside_the_rows(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.json", tmp_path / "outcomes")
    wrong = np.array([True, False, True])
    metrics.add(make_row(), {"target": wrong})
    again = MetricsFile(tmp_path / "metrics.json", tmp_path / "outcomes")
    np.testing.assert_array_equal(again.outcomes(make_row())["target"], wrong)


def test_where_outcomes_are_wanted_a_row_without_them_is_not_measured(tmp_path):
    path = tmp_path / "metrics.json"
    MetricsFile(path).add(make_row())
    assert MetricsFile(path).find(make_row()) == make_row()
    assert MetricsFile(path, tmp_path / "outcomes").find(make_row()) is None
