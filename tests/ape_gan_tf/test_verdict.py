"""The one sentence, from rows of every kind."""

import dataclasses

import pytest

from ape_gan_tf.sanity_warning import SanityWarning
from ape_gan_tf.verdict import verdict
from tests.ape_gan_tf.report_rows import (
    EPSILONS,
    all_rows,
    baselines,
    clean,
    in_balls,
    make_row,
    single_attacks,
    without_purifier,
    worst_cases,
)

WARNING = SanityWarning("zero_gradients", "they are 0", "masked")


def only(rows, *threats):
    return [row for row in rows if row.threat_model in ("benign", *threats)]


def test_it_leads_with_the_attacker_who_knows_the_purifier():
    assert verdict(all_rows()) == (
        "Behind ape_gan_m, an attacker who knows it fools target_c on 100.0 % "
        "of 500 images at epsilon 0.3 (Linf), on 84.2 % at 0.1; one who does "
        "not, on 2.8 % at 0.3; unattacked, 0.6 % are wrong."
    )


def test_one_epsilon_is_told_once():
    rows = [row for row in worst_cases() if row.params["epsilon"] == 0.3]
    assert verdict([clean(), *rows]) == (
        "Behind ape_gan_m, an attacker who knows it fools target_c on 100.0 % "
        "of 500 images at epsilon 0.3 (Linf); one who does not, on 2.8 %; "
        "unattacked, 0.6 % are wrong."
    )


@pytest.mark.parametrize(
    ("white_box", "expected"),
    [
        (
            (100.0, 100.0, 100.0),
            "100.0 % of 500 images at epsilon 0.1 (Linf) and above;",
        ),
        (
            (5.0, 100.0, 100.0),
            "at epsilon 0.2 (Linf) and above, on 5.0 % at 0.1;",
        ),
        ((5.0, 60.0, 99.96), "on 99.96 % of 500 images at epsilon 0.3 (Linf),"),
    ],
)
def test_the_epsilon_is_the_smallest_that_does_the_most(white_box, expected):
    assert expected in verdict([clean(), *worst_cases(white_box)])


def test_little_is_not_rounded_to_nothing():
    rows = in_balls("worst_case", "white_box", (0.0, 0.0, 0.04))
    assert "on 0.04 % of 500 images at epsilon 0.3 (Linf), on 0.0 %" in verdict(
        rows
    )


def test_the_knowing_attacker_can_do_what_the_others_can():
    sentence = verdict([clean(), *worst_cases((0.0, 0.1, 0.2))])
    assert "knows it fools target_c on 2.8 % of 500 images" in sentence


def test_a_ball_that_the_knowing_one_was_not_measured_in_does_not_count():
    rows = worst_cases()
    rows = rows[:-3] + rows[-3:-2]  # White-box at epsilon 0.1 alone.
    assert verdict(rows) == (
        "Behind ape_gan_m, an attacker who knows it fools target_c on 84.2 % "
        "of 500 images at epsilon 0.1 (Linf); one who does not, on 2.8 % at "
        "0.3."
    )


def test_the_norm_in_which_most_is_broken_is_told():
    rows = [
        dataclasses.replace(
            row, params={**row.params, "norm": "l2"}, purified_error=error
        )
        for row, error in zip(worst_cases()[-3:], (1.0, 2.0, 3.0), strict=True)
    ]
    assert "at epsilon 0.3 (L2)" in verdict(rows)
    assert "at epsilon 0.3 (Linf)" in verdict([*rows, *worst_cases()])


def test_balls_that_nobody_asked_for_do_not_count():
    sentence = verdict(all_rows(), epsilons=(0.1, 0.2))
    assert sentence == (
        "Behind ape_gan_m, an attacker who knows it fools target_c on 99.6 % "
        "of 500 images at epsilon 0.2 (Linf), on 84.2 % at 0.1; one who does "
        "not, on 1.2 % at 0.2; unattacked, 0.6 % are wrong."
    )
    assert verdict(all_rows(), epsilons=EPSILONS) == verdict(all_rows())
    single = verdict(single_attacks(), epsilons=(0.2,))
    assert "on 99.6 % of 500 images with one attack (pgd, epsilon 0.2" in single


def test_without_white_box_rows_it_says_so_first():
    assert verdict(only(all_rows(), "oblivious")) == (
        "Behind ape_gan_m, an attacker who knows it was NOT measured, so no "
        "figure here is security: one who does not know it fools target_c on "
        "2.8 % of 500 images at epsilon 0.3 (Linf), on 0.6 % at 0.1; "
        "unattacked, 0.6 % are wrong."
    )


def test_a_remark_in_place_of_the_figure_is_the_reason():
    rows = [row for row in baselines() if row.purifier["name"] == "jpeg"]
    assert verdict(rows).startswith(
        "Behind jpeg, an attacker who knows it was NOT measured (not attacked "
        "adaptively), so no figure here is security: one who does not know it "
        "fools target_c on 100.0 %"
    )


def test_without_worst_cases_the_strongest_attack_is_named():
    assert verdict(single_attacks()) == (
        "Behind ape_gan_m, an attacker who knows it fools target_c on 100.0 % "
        "of 500 images with one attack (pgd, epsilon 0.3, from oblivious "
        "fgsm); one who does not, on 2.8 % with one attack (fgsm, epsilon "
        "0.3); unattacked, 0.6 % are wrong."
    )


def test_of_equally_strong_attacks_the_one_of_least_freedom_is_named():
    rows = [
        make_row("cw_l2", "white_box", purified_error=100.0),
        *in_balls("fgsm", "white_box", (20.0, 100.0, 100.0)),
    ]
    assert "(fgsm, epsilon 0.2)" in verdict(rows)


def test_an_oblivious_attack_that_does_more_is_the_knowing_ones_too():
    rows = [
        make_row(params={"epsilon": 0.3}, purified_error=37.0),
        make_row(
            "pgd", "white_box", params={"epsilon": 0.3}, purified_error=25.0
        ),
    ]
    assert "knows it fools target_c on 37.0 % of 500 images" in verdict(rows)


def test_other_numbers_of_images_are_told():
    rows = [
        make_row(
            "pgd", "white_box", params={"epsilon": 0.3}, purified_error=9.0
        ),
        make_row(params={"epsilon": 0.3}, purified_error=2.0, count=10000),
    ]
    assert "one who does not, on 2.0 % of 10,000 images with" in verdict(rows)


def test_a_bare_classifier_has_its_own_sentence():
    assert verdict(without_purifier(all_rows())) == (
        "Without a purifier, an attacker who knows target_c fools it on 100.0 "
        "% of 500 images at epsilon 0.2 (Linf) and above, on 78.0 % at 0.1; "
        "unattacked, 0.2 % are wrong."
    )


def test_images_from_elsewhere_alone_do_not_measure_a_bare_classifier():
    row = make_row(threat="transfer", purifier=None, target_error=70.0)
    assert verdict([row]) == (
        "Without a purifier, an attacker who knows target_c was NOT measured, "
        "so no figure here is security: one who does not know target_c fools "
        "it on 70.0 % of 500 images with one attack (fgsm)."
    )


def test_nobody_attacking_is_no_security():
    assert verdict([clean()]) == (
        "Behind ape_gan_m, no attacker of target_c was measured: no figure "
        "here is security; unattacked, 0.6 % are wrong."
    )
    assert verdict([]) == "Nothing was measured."


def test_warnings_are_to_be_read_first():
    start = "first: behind ape_gan_m, an attacker who knows it fools"
    one = verdict(all_rows(), [WARNING])
    assert one.startswith(f"Read the warning {start}")
    two = verdict(all_rows(), [WARNING, WARNING])
    assert two.startswith(f"Read the 2 warnings {start}")
    assert verdict(all_rows(), []) == verdict(all_rows())
