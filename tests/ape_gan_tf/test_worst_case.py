"""The worst case: each image under each attack that its attacker has."""

import numpy as np
import pytest

from ape_gan_tf.metrics import MetricsFile
from ape_gan_tf.worst_case import ball, measure_worst_cases
from tests.ape_gan_tf.robustness_rows import in_ball, make_row

COUNT = 100


@pytest.fixture
def metrics(tmp_path):
    return MetricsFile(tmp_path / "metrics.json", tmp_path / "outcomes")


def wrong(*positions):
    outcome = np.zeros(COUNT, bool)
    outcome[list(positions)] = True
    return outcome


def add(metrics, row, purified, target=None):
    outcomes = {"purified": purified}
    if target is not None:
        outcomes["target"] = target
    metrics.add(row, outcomes)
    return row


def by_ball(rows):
    return {
        (row.threat_model, row.params["norm"], row.params["epsilon"]): row
        for row in rows
    }


def test_an_image_counts_once_however_many_attacks_fool_it(metrics):
    rows = [
        add(metrics, in_ball("fgsm", 2.0), wrong(1, 2)),
        add(metrics, in_ball("pgd", 3.0), wrong(2, 3, 4)),
    ]
    (row,) = measure_worst_cases(rows, metrics)
    assert (row.input, row.threat_model) == ("worst_case", "white_box")
    assert row.params == {"epsilon": 0.3, "norm": "linf"}
    assert row.purified_error == 4.0  # 1, 2, 3, 4.
    np.testing.assert_array_equal(
        metrics.outcomes(row)["purified"], wrong(1, 2, 3, 4)
    )


def test_what_was_wrong_before_is_wrong_in_every_ball(metrics):
    clean = make_row("clean", "benign", purified_error=1.0)
    rows = [
        add(metrics, clean, wrong(7)),
        add(metrics, in_ball("pgd", 1.0), wrong(8)),
    ]
    (row,) = measure_worst_cases(rows, metrics)
    assert row.purified_error == 2.0


def test_a_larger_ball_has_all_that_a_smaller_one_has(metrics):
    rows = [
        add(metrics, in_ball("pgd", 2.0, epsilon=0.1), wrong(1, 2)),
        add(metrics, in_ball("pgd", 1.0, epsilon=0.2), wrong(3)),
    ]
    small, large = measure_worst_cases(rows, metrics)
    assert (small.params["epsilon"], small.purified_error) == (0.1, 2.0)
    assert (large.params["epsilon"], large.purified_error) == (0.2, 3.0)


def test_who_knows_the_purifier_can_do_what_others_do(metrics):
    rows = [
        add(metrics, in_ball("fgsm", 1.0, "oblivious"), wrong(1), wrong(5, 6)),
        add(metrics, in_ball("fgsm", 1.0, "transfer"), wrong(2), wrong(6, 7)),
        add(metrics, in_ball("pgd", 1.0), wrong(3)),
    ]
    found = by_ball(measure_worst_cases(rows, metrics))
    assert found["oblivious", "linf", 0.3].purified_error == 1.0
    assert found["transfer", "linf", 0.3].purified_error == 1.0
    assert found["white_box", "linf", 0.3].purified_error == 3.0
    # The classifier alone, under everything that was made for one.
    assert found["oblivious", "linf", 0.3].target_error == 2.0
    assert found["white_box", "linf", 0.3].target_error == 3.0


def test_balls_of_another_norm_are_kept_apart(metrics):
    l2 = in_ball("pgd", 1.0, epsilon=2.0, params={"norm": "l2"})
    rows = [
        add(metrics, l2, wrong(1)),
        add(metrics, in_ball("pgd", 1.0, epsilon=2.0), wrong(2)),
    ]
    found = by_ball(measure_worst_cases(rows, metrics))
    assert found["white_box", "l2", 2.0].purified_error == 1.0
    assert found["white_box", "linf", 2.0].purified_error == 1.0


def test_an_attack_that_goes_as_far_as_it_must_is_in_no_ball(metrics):
    row = add(metrics, make_row("cw_l2", purified_error=100.0), wrong(1))
    assert ball(row) is None
    assert measure_worst_cases([row], metrics) == []


def test_without_an_adaptive_attack_there_is_no_white_box_figure(metrics):
    oblivious = in_ball("pgd", 1.0, "oblivious")
    remarked = in_ball("pgd", None, remark="not attacked adaptively")
    rows = [
        add(metrics, oblivious, wrong(1), wrong(2)),
        add(metrics, remarked, wrong()),
    ]
    found = by_ball(measure_worst_cases(rows, metrics))
    row = found["white_box", "linf", 0.3]
    assert row.purified_error is None
    assert row.remark == "not attacked adaptively"
    assert found["oblivious", "linf", 0.3].purified_error == 1.0


def test_one_true_white_box_attack_is_a_figure(metrics):
    remarked = in_ball("pgd", None, remark="not attacked adaptively")
    rows = [
        add(metrics, remarked, wrong()),
        add(metrics, in_ball("square", 1.0), wrong(4)),
    ]
    (row,) = measure_worst_cases(rows, metrics)
    assert (row.purified_error, row.remark) == (1.0, None)


def test_measured_again_it_takes_its_own_place(metrics, tmp_path):
    rows = [add(metrics, in_ball("fgsm", 1.0), wrong(1))]
    measure_worst_cases(rows, metrics)
    rows.append(add(metrics, in_ball("pgd", 1.0), wrong(2)))
    (row,) = measure_worst_cases(rows, metrics)
    kept = MetricsFile(tmp_path / "metrics.json").rows
    assert [each for each in kept if each.input == "worst_case"] == [row]
