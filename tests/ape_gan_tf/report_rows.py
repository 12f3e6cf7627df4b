"""Rows as an evaluation leaves them, made up, for the tests of reports."""

import dataclasses
import math

import models
from ape_gan_tf.metrics import Row

CLASSIFIER = {"name": "target_c", "fingerprint": "c" * 64}
EPSILONS = (0.1, 0.2, 0.3)
ALONE = {"fgsm": (30.0, 80.0, 98.0), "worst_case": (78.0, 100.0, 100.0)}
OBLIVIOUS = (0.6, 1.2, 2.8)
WHITE_BOX = (84.2, 99.6, 100.0)


def purifier(name="ape_gan_m"):
    return {"name": name, "fingerprint": f"of {name}"}


def make_row(name="fgsm", threat="oblivious", **changes):
    """One row; benign ones, and worst cases, were crafted on nothing."""
    who = changes.get("purifier", purifier())
    crafted_on = CLASSIFIER["fingerprint"]
    if threat == "white_box" and who:
        crafted_on = models.defended_fingerprint(crafted_on, who["fingerprint"])
    return Row(
        **{
            "dataset": "digits",
            "split": "test",
            "count": 500,
            "classifier": CLASSIFIER,
            "purifier": who,
            "input": name,
            "params": {},
            "threat_model": threat,
            "crafted_on": None
            if threat == "benign" or name == "worst_case"
            else crafted_on,
            "seed": 1,
            **changes,
        }
    )


def clean(error=0.6, **changes):
    return make_row(
        "clean", "benign", target_error=0.2, purified_error=error, **changes
    )


def in_balls(name, threat, purified, alone=None, **changes):
    """A row for each epsilon."""
    norm = {"norm": "linf"} if name == "worst_case" else {"epsilon_min": None}
    return [
        make_row(
            name,
            threat,
            params={"epsilon": epsilon, **norm},
            target_error=None if alone is None else alone[place],
            purified_error=None if purified is None else purified[place],
            **changes,
        )
        for place, epsilon in enumerate(EPSILONS)
    ]


def single_attacks():
    """What an evaluation of a purifier measures, but for worst cases."""
    return [
        clean(milliseconds=1.25),
        make_row(
            "sign_noise",
            "benign",
            params={"epsilon": 0.3},
            target_error=9.2,
            purified_error=0.8,
        ),
        *in_balls("fgsm", "oblivious", OBLIVIOUS, ALONE["fgsm"]),
        *in_balls("fgsm", "transfer", (0.6, 0.8, 2.2), (9.0, 40.0, 70.0)),
        *in_balls("fgsm", "white_box", (50.0, 60.0, 61.0), ALONE["fgsm"]),
        *in_balls("pgd", "white_box", WHITE_BOX, start="oblivious fgsm"),
        make_row(
            "cw_l2",
            "white_box",
            target_error=100.0,
            purified_error=98.0,
            distance="l2",
            target_median_distance=1.5,
            purified_median_distance=math.inf,
        ),
    ]


def worst_cases(white_box=WHITE_BOX, **changes):
    alone = ALONE["worst_case"]
    return [
        *in_balls("worst_case", "oblivious", OBLIVIOUS, alone),
        *in_balls("worst_case", "transfer", (0.6, 0.8, 2.2), (9.0, 40.0, 70.0)),
        *in_balls("worst_case", "white_box", white_box, alone, **changes),
    ]


def all_rows():
    return [*single_attacks(), *worst_cases()]


def baselines():
    """One attacked through a stand-in, and one that was not attacked so."""
    bits, jpeg = {"purifier": purifier("bits")}, {"purifier": purifier("jpeg")}
    remark = {"remark": "not attacked adaptively"}
    return [
        clean(0.4, milliseconds=0.004, **bits),
        *in_balls(
            "fgsm", "white_box", (70.0, 90.0, 97.0), gradient="bpda", **bits
        ),
        *in_balls("worst_case", "oblivious", (4.0, 10.0, 40.0), **bits),
        *in_balls(
            "worst_case",
            "white_box",
            (74.0, 98.0, 100.0),
            gradient="bpda",
            **bits,
        ),
        clean(0.2, milliseconds=0.31, **jpeg),
        *in_balls("fgsm", "white_box", None, **remark, **jpeg),
        *in_balls("worst_case", "oblivious", (60.0, 98.0, 100.0), **jpeg),
        *in_balls("worst_case", "white_box", None, **remark, **jpeg),
    ]


def without_purifier(rows):
    return [
        dataclasses.replace(row, purifier=None, purified_error=None)
        for row in rows
        if row.threat_model in ("benign", "oblivious")
    ]
