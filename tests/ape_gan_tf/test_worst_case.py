"""The worst case: each image under each attack that its attacker has."""

import numpy as np
import pytest

from ape_gan_tf.metrics import MetricsFile
from ape_gan_tf.worst_case import ball, measure_worst_cases
from tests.ape_gan_tf.robustness_rows import in_ball, make_row

COUNT = 1000


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
    assert row.purified_error == 0.4  # 1, 2, 3, 4.
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
    assert row.purified_error == 0.2


def test_a_larger_ball_has_all_that_a_smaller_one_has(metrics):
    rows = [
        add(metrics, in_ball("pgd", 2.0, epsilon=0.1), wrong(1, 2)),
        add(metrics, in_ball("pgd", 1.0, epsilon=0.2), wrong(3)),
    ]
    small, large = measure_worst_cases(rows, metrics)
    assert (small.params["epsilon"], small.purified_error) == (0.1, 0.2)
    assert (large.params["epsilon"], large.purified_error) == (0.2, 0.3)


def test_who_knows_the_purifier_can_do_what_others_do(metrics):
    rows = [
        add(metrics, in_ball("fgsm", 1.0, "oblivious"), wrong(1), wrong(5, 6)),
        add(metrics, in_ball("fgsm", 1.0, "transfer"), wrong(2), wrong(6, 7)),
        add(metrics, in_ball("pgd", 1.0), wrong(3)),
    ]
    found = by_ball(measure_worst_cases(rows, metrics))
    assert found["oblivious", "linf", 0.3].purified_error == 0.1
    assert found["transfer", "linf", 0.3].purified_error == 0.1
    assert found["white_box", "linf", 0.3].purified_error == 0.3
    # The classifier alone, under everything that was made for one.
    assert found["oblivious", "linf", 0.3].target_error == 0.2
    assert found["white_box", "linf", 0.3].target_error == 0.3


def test_balls_of_another_norm_are_kept_apart(metrics):
    l2 = in_ball("pgd", 1.0, epsilon=2.0, params={"norm": "l2"})
    rows = [
        add(metrics, l2, wrong(1)),
        add(metrics, in_ball("pgd", 1.0, epsilon=2.0), wrong(2)),
    ]
    found = by_ball(measure_worst_cases(rows, metrics))
    assert found["white_box", "l2", 2.0].purified_error == 0.1
    assert found["white_box", "linf", 2.0].purified_error == 0.1


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
    assert found["oblivious", "linf", 0.3].purified_error == 0.1


def test_square_alone_does_not_stand_for_an_attacker_who_knows_all(metrics):
    remarked = in_ball("pgd", None, remark="not attacked adaptively")
    rows = [
        add(metrics, remarked, wrong()),
        add(metrics, in_ball("square", 1.0), wrong(4)),
    ]
    (row,) = measure_worst_cases(rows, metrics)
    assert (row.purified_error, row.remark) == (None, remarked.remark)


def test_one_attack_that_follows_the_gradient_is_a_figure(metrics):
    stopped = in_ball("apgd_ce", None, remark="not attacked: it stops")
    rows = [
        add(metrics, stopped, wrong()),
        add(metrics, in_ball("pgd", 1.0, gradient="eot 10"), wrong(4)),
    ]
    (row,) = measure_worst_cases(rows, metrics)
    assert (row.purified_error, row.remark) == (0.1, None)


def test_what_an_unbound_attack_made_counts_where_it_lies_in_the_ball(metrics):
    pgd = add(metrics, in_ball("pgd", 0.1), wrong(1))
    cw = make_row("cw_linf", purified_error=100.0)
    sizes = np.full(COUNT, 0.5, np.float32)
    sizes[[2, 3]] = 0.3, 0.30001
    metrics.add(cw, {"purified": np.ones(COUNT, bool), "linf": sizes})
    (row,) = measure_worst_cases([pgd, cw], metrics)
    np.testing.assert_array_equal(
        metrics.outcomes(row)["purified"], wrong(1, 2)
    )


def test_where_answers_change_chance_does_not_add_up(metrics):
    rows = [
        add(metrics, in_ball("fgsm", 0.2), wrong(1, 2)),
        add(metrics, in_ball("pgd", 0.3), wrong(3, 4, 5)),
    ]
    (row,) = measure_worst_cases(rows, metrics, has_fixed_answers=False)
    assert row.purified_error == 0.3


def test_attacks_of_earlier_runs_count_too(metrics):
    add(metrics, in_ball("pgd", 0.2), wrong(1, 2))
    other = in_ball("pgd", 0.1, seed=2)
    add(metrics, other, wrong(9))
    fgsm = add(metrics, in_ball("fgsm", 0.1), wrong(3))
    (row,) = measure_worst_cases([fgsm], metrics)
    np.testing.assert_array_equal(
        metrics.outcomes(row)["purified"], wrong(1, 2, 3)
    )


def test_measured_again_it_takes_its_own_place(metrics, tmp_path):
    rows = [add(metrics, in_ball("fgsm", 1.0), wrong(1))]
    measure_worst_cases(rows, metrics)
    rows.append(add(metrics, in_ball("pgd", 1.0), wrong(2)))
    (row,) = measure_worst_cases(rows, metrics)
    kept = MetricsFile(tmp_path / "metrics.json").rows
    assert [each for each in kept if each.input == "worst_case"] == [row]
