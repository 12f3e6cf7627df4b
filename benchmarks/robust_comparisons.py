"""What `robustness.py` compares, with every parameter pinned, and asks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytorch_rivals
import rival_attacks

import models

NAMES = ("apgd_ce", "square", "apgd_t", "fab_t", "auto_attack")
# Of AutoAttack's standard version, in the paper and in its authors' code.
STEPS, QUERIES = 100, 5000
TARGET_CLASSES = 9
_BATCH_SIZE = 256  # What our attacks choose for MNIST.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What all contestants are given.

    Attributes:
        epsilon: Radius of the ball, in units of [0, 1].
        norm: `linf` or `l2`.
        steps: Of APGD-CE, APGD-T and FAB-T, in each run.
        queries: Of Square.
        seed: Of every random choice.
        classes: The classifier's.
    """

    epsilon: float
    norm: str
    steps: int
    queries: int
    seed: int
    classes: int

    @property
    def target_classes(self) -> int:
        """How many classes the targeted attacks try, the likeliest first."""
        return min(TARGET_CLASSES, self.classes - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row of the table.

    Attributes:
        params: Of our attack.
        rival: Makes the rival of a classifier and its parameters.
        rival_params: Its parameters.
        label: What the rival is called.
        least: The least that our error may be more than the rival's, in
            points; negative where it may be less.
        most: The most, likewise.
        speedup: Required, at least; None is reported only.
        is_pytorch: The rival attacks the classifier's twin.
    """

    params: dict[str, Any]
    rival: Callable[..., rival_attacks.Rival]
    rival_params: dict[str, Any]
    label: str
    least: float = -1.0
    most: float = 1.0
    speedup: float | None = None
    is_pytorch: bool = False


def comparisons(budget: Budget) -> dict[str, Comparison]:
    """Every row, by the name of our attack."""
    made = (
        _apgd_ce(budget),
        _square(budget),
        _apgd_t(budget),
        _fab_t(budget),
        _auto_attack(budget),
    )
    return dict(zip(NAMES, made, strict=True))


def make_rival(
    classifier: models.Classifier, comparison: Comparison
) -> rival_attacks.Rival:
    """The rival, ready to attack the classifier."""
    if not comparison.is_pytorch:
        classifier = rival_attacks.as_others_have_it(classifier)
    return comparison.rival(classifier, **comparison.rival_params)


def _apgd_ce(budget: Budget) -> Comparison:
    return Comparison(
        params={**_ours(budget), "steps": budget.steps, "restarts": 1},
        rival=rival_attacks.art_apgd,
        rival_params={
            **_art(budget),
            # As AutoAttack begins; ART's own default knows no epsilon.
            "eps_step": 2 * budget.epsilon,
            "max_iter": budget.steps,
            "nb_random_init": 1,
            "loss_type": "cross_entropy",
        },
        label="ART AutoProjectedGradientDescent",
        speedup=4.0,
    )


def _square(budget: Budget) -> Comparison:
    return Comparison(
        params={
            **_ours(budget),
            "queries": budget.queries,
            "p_init": 0.8,
            "restarts": 1,
        },
        rival=rival_attacks.art_square,
        rival_params={
            **_art(budget),
            "max_iter": budget.queries,
            "p_init": 0.8,
            "nb_restarts": 1,
        },
        label="ART SquareAttack",
        speedup=4.0,
    )


def _apgd_t(budget: Budget) -> Comparison:
    return Comparison(
        params={
            **_ours(budget),
            "steps": budget.steps,
            "restarts": 1,
            "target_classes": budget.target_classes,
        },
        rival=pytorch_rivals.apgd_t,
        rival_params={
            **_torchattacks(budget),
            **_apgd_t_of_torchattacks(budget, budget.steps),
        },
        label="torchattacks APGDT",
        is_pytorch=True,
    )


def _fab_t(budget: Budget) -> Comparison:
    ours = _ours(budget)
    return Comparison(
        params={
            "norm": ours["norm"],
            "stop_at": ours["epsilon"],
            "seed": ours["seed"],
            "batch_size": ours["batch_size"],
            "steps": budget.steps,
            "restarts": 1,
            "target_classes": budget.target_classes,
            "alpha_max": 0.1,
            "eta": 1.05,
            "beta": 0.9,
        },
        rival=pytorch_rivals.fab_t,
        rival_params={
            **_torchattacks(budget),
            **_fab_t_of_torchattacks(budget, budget.steps),
        },
        label="torchattacks FAB, multi_targeted",
        is_pytorch=True,
    )


def _auto_attack(budget: Budget) -> Comparison:
    return Comparison(
        params=_ours(budget),
        rival=pytorch_rivals.auto_attack,
        rival_params={
            **_torchattacks(budget),
            "attacks": {
                "APGD": {
                    "loss": "ce",
                    "steps": STEPS,
                    "n_restarts": 1,
                    "rho": 0.75,
                    "eot_iter": 1,
                },
                "APGDT": _apgd_t_of_torchattacks(budget, STEPS),
                "FAB": _fab_t_of_torchattacks(budget, STEPS),
                "Square": {
                    "n_queries": QUERIES,
                    "n_restarts": 1,
                    "p_init": 0.8,
                    "loss": "margin",
                    "resc_schedule": True,
                },
            },
        },
        label="torchattacks AutoAttack, standard, 100 steps",
        # Robust accuracy at most half a point above theirs.
        least=-0.5,
        most=math.inf,
        is_pytorch=True,
    )


def _ours(budget: Budget) -> dict[str, Any]:
    return {
        "epsilon": budget.epsilon,
        "norm": budget.norm,
        "seed": budget.seed,
        "batch_size": _BATCH_SIZE,
    }


def _art(budget: Budget) -> dict[str, Any]:
    return {
        "eps": budget.epsilon,
        "norm": {"linf": "inf", "l2": 2}[budget.norm],
        "seed": budget.seed,
        "batch_size": _BATCH_SIZE,
    }


def _torchattacks(budget: Budget) -> dict[str, Any]:
    return {
        "eps": budget.epsilon,
        "norm": {"linf": "Linf", "l2": "L2"}[budget.norm],
        "seed": budget.seed,
        "batch_size": _BATCH_SIZE,
    }


def _apgd_t_of_torchattacks(budget: Budget, steps: int) -> dict[str, Any]:
    return {
        "steps": steps,
        "n_restarts": 1,
        # It takes one less as the number of targets.
        "n_classes": budget.target_classes + 1,
        "rho": 0.75,
        "eot_iter": 1,
    }


def _fab_t_of_torchattacks(budget: Budget, steps: int) -> dict[str, Any]:
    return {
        "steps": steps,
        "n_restarts": 1,
        "n_classes": budget.target_classes + 1,
        "multi_targeted": True,
        "alpha_max": 0.1,
        "eta": 1.05,
        "beta": 0.9,
    }
