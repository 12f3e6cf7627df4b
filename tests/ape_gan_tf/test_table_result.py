"""Measured tables as files: read as written, refused when they are not."""

import json
import math

import numpy as np
import pytest

from ape_gan_tf import paper, table_result
from ape_gan_tf.metrics import MetricsFile, Row
from ape_gan_tf.table_result import Cell
from tests.ape_gan_tf.table_results import (
    PROVENANCE,
    all_missing,
    make_result,
)

ROW = Row(
    dataset="mnist",
    split="test",
    count=200,
    classifier={"name": "C", "fingerprint": "c"},
    purifier=None,
    input="deepfool",
    params={"overshoot": 0.02},
    threat_model="oblivious",
    crafted_on="c",
    seed=3,
    target_error=97.5,
    distance="l2",
    target_median_distance=math.inf,
)


def random_result(table):
    """Any figures of ours, some of them missing."""
    generator = np.random.default_rng(7)
    shape = (len(table.inputs), len(table.columns))
    ours = generator.integers(0, 10001, shape) / 100
    lines = [
        [value if value > 20 else None for value in line]
        for line in ours.tolist()
    ]
    return make_result(
        table.dataset,
        table.name,
        lines,
        stand_ins={"C": "a_stranger"},
        provenance=PROVENANCE,
        rows=(ROW,),
    )


@pytest.mark.parametrize(
    "table",
    [x for name in paper.SETTINGS for x in paper.tables(name)],
    ids=lambda table: f"{table.dataset}-{table.name}",
)
def test_what_was_written_is_read(tmp_path, table):
    path = tmp_path / "deep" / "table.json"
    for result in (
        random_result(table),
        all_missing(table.dataset, table.name),
    ):
        table_result.write(path, result)
        assert table_result.read(path) == result


def test_the_file_says_in_words_whose_figure_is_which(tmp_path):
    path = tmp_path / "table.json"
    cell = Cell(ours=1.5, paper=1.2, count=200)
    lines = [[None, cell], [0.0, 100.0]]
    table_result.write(path, make_result("mnist", "2", lines))
    content = json.loads(path.read_text())
    assert (content["dataset"], content["table"]) == ("mnist", "2")
    clean, noise = content["lines"]
    assert clean["input"] == "clean"
    assert clean["cells"]["APE-GAN_m"] == {
        "ours": 1.5,
        "paper": 1.2,
        "count": 200,
        "missing": None,
    }
    assert clean["cells"]["target"]["missing"] == "no time was left"
    assert noise["cells"]["target"]["ours"] == 0.0


def test_a_figure_that_is_no_number_is_not_written(tmp_path):
    result = make_result("mnist", "2", [[math.nan, 1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match="Out of range float"):
        table_result.write(tmp_path / "table.json", result)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ('{"version": 1, "lines": [', "not valid JSON"),
        ("[1, 2]", "must be a table of version 1, got None"),
        ('{"version": 2, "lines": []}', "must be a table of version 1, got 2"),
        ('{"version": 1}', "must be a table of version 1"),
        ('{"version": 1, "lines": []}', "not a table of the paper: 'dataset'"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        table_result.read(path)
    assert str(path) in str(raised.value)


def test_a_metrics_file_is_no_table(tmp_path):
    path = tmp_path / "metrics.json"
    MetricsFile(path).add(ROW)
    with pytest.raises(ValueError, match="metrics.json must be a table"):
        table_result.read(path)


def without_a_column(content):
    del content["lines"][0]["cells"]["APE-GAN_m"]


def without_a_line(content):
    del content["lines"][1]


def with_another_field(content):
    content["lines"][0]["cells"]["target"]["guess"] = 3.0


def with_a_damaged_row(content):
    del content["rows"][0]["seed"]


def of_another_table(content):
    content["table"] = "6"


def of_another_dataset(content):
    content["dataset"] = "digits"


def without_rows(content):
    del content["rows"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_a_column, "APE-GAN_m"),
        (without_a_line, "Gaussian noise"),
        (with_another_field, "guess"),
        (with_a_damaged_row, "seed"),
        (of_another_table, "6"),
        (of_another_dataset, "digits"),
        (without_rows, "rows"),
    ],
)
def test_a_damaged_table_is_refused_by_name(tmp_path, damage, message):
    path = tmp_path / "damaged.json"
    table_result.write(path, random_result(paper.find("mnist", "2")))
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=f"damaged.json is not a table .*{message}"
    ):
        table_result.read(path)
