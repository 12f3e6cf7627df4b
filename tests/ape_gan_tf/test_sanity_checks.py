"""Each check speaks when it must, and only then."""

import dataclasses

import pytest

import models
from ape_gan_tf.sanity_checks import check, unchecked
from tests.ape_gan_tf.robustness_rows import in_ball, make_row

GOOD_PROBE = models.GradientProbe(0.0, 0.0, 0.0, False, 0.0)


def sound_rows():
    """Stronger attackers find more, and all is lost in a large ball."""
    return [
        make_row("clean", "benign", purified_error=1.0),
        in_ball("sign_noise", 2.0, "benign"),
        in_ball("fgsm", 3.0, "oblivious"),
        in_ball("fgsm", 5.0, "transfer"),
        in_ball("fgsm", 40.0),
        in_ball("square", 60.0),
        in_ball("pgd", 90.0),
        in_ball("pgd", 91.0, start="oblivious fgsm"),
        in_ball("apgd_ce", 92.0),
        in_ball("worst_case", 93.0, params={"norm": "linf"}),
        in_ball("apgd_ce", 100.0, epsilon=0.6),
    ]


def names(rows, probe=GOOD_PROBE):
    return [warning.name for warning in check(rows, probe)]


def replaced(name, error, threat="white_box", **fields):
    """Sound rows, one of them with another error."""
    new = in_ball(name, error, threat, **fields)
    return [
        new
        if (row.input, row.threat_model, row.start, row.params)
        == (new.input, new.threat_model, new.start, new.params)
        else row
        for row in sound_rows()
    ]


def test_a_sound_evaluation_passes_in_silence():
    assert check(sound_rows(), GOOD_PROBE) == []


def test_nothing_is_left_unchecked_where_all_was_measured():
    assert unchecked(sound_rows(), GOOD_PROBE) == []


@pytest.mark.parametrize(
    ("kept", "missing"),
    [
        (
            lambda row: row.input != "fgsm" or row.threat_model == "oblivious",
            [
                "single_step_beats_iterative",
                "transfer_beats_white_box",
                "noise_beats_single_step",
            ],
        ),
        (lambda row: row.input != "square", ["black_box_beats_white_box"]),
        (
            lambda row: row.threat_model != "oblivious",
            ["oblivious_beats_white_box"],
        ),
        (lambda row: row.start is None, ["one_start_beats_the_others"]),
        (
            lambda row: row.params.get("epsilon", 0.0) < 0.5,
            ["robust_at_large_epsilon"],
        ),
    ],
)
def test_a_check_without_figures_is_named(kept, missing):
    rows = [row for row in sound_rows() if kept(row)]
    assert check(rows, GOOD_PROBE) == []
    assert unchecked(rows, GOOD_PROBE) == missing


def test_without_a_probe_the_gradient_is_unchecked():
    assert unchecked(sound_rows()) == [
        "zero_gradients",
        "saturated_loss",
        "non_finite_gradients",
        "answers_change",
    ]
    bare = [
        dataclasses.replace(row, purifier=None)
        for row in sound_rows()
        if row.input == "fgsm" and row.threat_model == "oblivious"
    ]
    assert unchecked(bare, GOOD_PROBE) == [
        "single_step_beats_iterative",
        "black_box_beats_white_box",
        "transfer_beats_white_box",
        "noise_beats_single_step",
        "robust_at_large_epsilon",
    ]


def test_rows_without_figures_leave_all_unchecked():
    failed = [
        dataclasses.replace(row, purified_error=None) for row in sound_rows()
    ]
    assert len(unchecked(failed)) == 4 + 7


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (replaced("fgsm", 95.0), "single_step_beats_iterative"),
        (replaced("square", 95.0), "black_box_beats_white_box"),
        (replaced("fgsm", 95.0, "transfer"), "transfer_beats_white_box"),
        (replaced("fgsm", 95.0, "oblivious"), "oblivious_beats_white_box"),
        (
            replaced("pgd", 99.0, start="oblivious fgsm"),
            "one_start_beats_the_others",
        ),
        (replaced("sign_noise", 45.0, "benign"), "noise_beats_single_step"),
        (replaced("apgd_ce", 85.0, epsilon=0.6), "robust_at_large_epsilon"),
    ],
)
def test_what_cannot_be_is_said(rows, name):
    (warning,) = check(rows, GOOD_PROBE)
    assert warning.name == name
    assert "%" in warning.seen and "epsilon" in warning.seen
    assert len(warning.meaning) > 40


@pytest.mark.parametrize(
    "rows",
    [
        replaced("fgsm", 92.9),
        replaced("square", 92.9),
        replaced("pgd", 96.0, start="oblivious fgsm"),
        replaced("apgd_ce", 91.0, epsilon=0.6),
    ],
)
def test_what_may_be_chance_is_not_said(rows):
    assert check(rows, GOOD_PROBE) == []


def test_that_the_whole_box_is_lost_does_not_excuse_a_smaller_large_ball():
    rows = [
        in_ball("pgd", 20.0, epsilon=0.6),
        in_ball("pgd", 100.0, epsilon=1.0),
    ]
    assert names(rows) == ["robust_at_large_epsilon"]


def test_of_few_images_one_or_two_are_chance():
    rows = [in_ball("fgsm", 95.0, count=50), in_ball("pgd", 90.0, count=50)]
    assert check(rows, GOOD_PROBE) == []
    rows[0] = in_ball("fgsm", 98.0, count=50)
    assert names(rows) == ["single_step_beats_iterative"]


def test_attacks_are_compared_in_the_same_ball_alone():
    rows = [
        in_ball("fgsm", 50.0, epsilon=0.3),
        in_ball("pgd", 10.0, epsilon=0.1),
    ]
    assert check(rows, GOOD_PROBE) == []
    l2 = in_ball("pgd", 10.0, epsilon=0.3, params={"norm": "l2"})
    assert check([rows[0], l2], GOOD_PROBE) == []


def test_a_row_without_a_figure_says_nothing():
    rows = [in_ball("fgsm", 50.0), in_ball("pgd", None, remark="not attacked")]
    assert check(rows, GOOD_PROBE) == []


def test_of_a_bare_classifier_the_oblivious_attacker_knows_all():
    rows = [
        dataclasses.replace(
            in_ball(name, None, "oblivious"), purifier=None, target_error=error
        )
        for name, error in (("fgsm", 50.0), ("pgd", 20.0))
    ]
    (warning,) = check(rows, GOOD_PROBE)
    assert warning.name == "single_step_beats_iterative"


@pytest.mark.parametrize(
    ("probe", "name", "seen"),
    [
        ({"zero_share": 1.0}, "zero_gradients", "100 %"),
        ({"saturated_share": 0.5}, "saturated_loss", "50 %"),
        ({"non_finite_share": 0.1}, "non_finite_gradients", "10 %"),
        (
            {"answers_change": True, "largest_answer_change": 0.25},
            "answers_change",
            "0.25",
        ),
    ],
)
def test_the_gradient_itself_is_judged(probe, name, seen):
    (warning,) = check(sound_rows(), GOOD_PROBE._replace(**probe))
    assert warning.name == name
    assert seen in warning.seen


def test_a_few_dead_units_are_no_alarm():
    assert names(sound_rows(), GOOD_PROBE._replace(zero_share=0.03)) == []
