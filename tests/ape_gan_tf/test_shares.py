"""Weighted mixtures: what they say, and which rows they give."""

import pytest

from ape_gan_tf.shares import parse_shares, split_rows

KNOWN = ("online", "stored", "white_box")


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("stored", {"stored": 1.0}),
        ("stored:7", {"stored": 1.0}),
        ("white_box:3,stored:1", {"white_box": 0.75, "stored": 0.25}),
        ("white_box:0.5, online", {"white_box": 1 / 3, "online": 2 / 3}),
    ],
)
def test_weights_become_shares_in_the_order_given(text, shares):
    found = parse_shares(text, KNOWN, "adversary")
    assert list(found) == list(shares)
    assert found == pytest.approx(shares)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pgd", "adversary must be one of online, stored, white_box, got 'pgd"),
        ("", "adversary must be one of online, stored, white_box, got ''"),
        ("stored,stored:2", "adversary must name stored once, got 'stored,st"),
        ("stored:x", "adversary must have positive numbers as weights"),
        ("stored:", "adversary must have positive numbers as weights"),
        ("stored:0", "positive numbers as weights.*got 'stored:0'"),
        ("stored:-1", "positive numbers as weights"),
        ("stored:inf", "positive numbers as weights"),
        ("stored:nan", "positive numbers as weights"),
    ],
)
def test_what_is_no_mixture_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_shares(text, KNOWN, "adversary")


@pytest.mark.parametrize(
    ("count", "shares", "counts"),
    [
        (64, {"white_box": 0.75, "stored": 0.25}, [48, 16]),
        (16, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, [6, 5, 5]),
        # 2.5, 1.75 and 0.75: the largest remainders are rounded up.
        (5, {"a": 0.5, "b": 0.35, "c": 0.15}, [2, 2, 1]),
        (1, {"a": 1.0}, [1]),
    ],
)
def test_rows_are_divided_by_the_largest_remainders(count, shares, counts):
    rows = split_rows(count, shares, "adversary")
    assert list(rows) == list(shares)
    assert [part.stop - part.start for part in rows.values()] == counts
    covered = [row for part in rows.values() for row in range(count)[part]]
    assert covered == list(range(count))


def test_a_part_without_a_row_is_refused():
    with pytest.raises(
        ValueError,
        match="adversary must leave each part at least one of 4 images, but "
        "stored has 0.01 of them",
    ):
        split_rows(4, {"white_box": 0.99, "stored": 0.01}, "adversary")
