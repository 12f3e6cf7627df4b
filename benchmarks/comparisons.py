"""What `attacks.py` compares, with every parameter pinned, and what it asks."""

from __future__ import annotations

import dataclasses
from typing import Any

UNTARGETED, TARGETED = None, "random"
CW = {"kappa": 0.0, "learning_rate": 0.01}
JSMA = {"theta": 1.0, "gamma": 0.1}
LBFGS = {
    "iterations": 150,
    "search_steps": 10,
    "initial_constant": 0.01,
    "memory": 10,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row of the table.

    Attributes:
        attack: Ours, by name.
        params: Ours.
        rival: Function of `rival_attacks`.
        rival_params: Its parameters.
        label: What the rival is called.
        images: How many.
        speedup: Required, at least; None is reported only.
        distance: Which one is compared.
        distance_ratio: Ours over the rival's, at most; None: reported only.
        success: Required of ours: `equal`, at least, to the rival's, `all`,
            or None.
        identical: The images themselves must be the same.
        warm_up: Whether the rival runs once before it is timed. Not worth it
            where it takes minutes.
        may_not_finish: The rival is stopped at the time limit.
        gradients_per_forward: If not None, the classifier's own passes are
            timed too: so many backward for each forward one.
    """

    attack: str
    params: dict[str, Any]
    rival: str
    rival_params: dict[str, Any]
    label: str
    images: int
    speedup: float | None
    distance: str
    distance_ratio: float | None = None
    success: str | None = None
    identical: bool = False
    warm_up: bool = True
    may_not_finish: bool = False
    gradients_per_forward: int | None = None


COMPARISONS = {
    "deepfool": Comparison(
        attack="deepfool",
        params={"steps": 50, "overshoot": 0.02, "candidates": 10},
        rival="foolbox_deepfool",
        rival_params={
            "steps": 50,
            "overshoot": 0.02,
            "candidates": 10,
            "batch_size": 100,
        },
        label="Foolbox DeepFool L2",
        images=1000,
        speedup=5.0,
        distance="l2",
        distance_ratio=1.02,
        success="equal",
    ),
    "cw_l2": Comparison(
        attack="cw_l2",
        params={
            "target": UNTARGETED,
            "binary_search_steps": 9,
            "max_iterations": 1000,
            "initial_const": 1e-3,
            "abort_early": True,
            "checks_per_run": 40,
            **CW,
        },
        rival="foolbox_cw_l2",
        rival_params={
            "binary_search_steps": 9,
            "steps": 1000,
            "stepsize": 0.01,
            "confidence": 0.0,
            "initial_const": 1e-3,
            "abort_early": True,
            "batch_size": 100,
        },
        label="Foolbox CW-L2",
        images=100,
        speedup=4.0,
        distance="l2",
        distance_ratio=1.02,
        success="equal",
        warm_up=False,
        gradients_per_forward=1,
    ),
    "jsma": Comparison(
        attack="jsma",
        params={"target": TARGETED, **JSMA},
        rival="art_jsma",
        rival_params={**JSMA, "batch_size": 100},
        label="ART JSMA (another, simpler algorithm)",
        images=200,
        speedup=10.0,
        distance="l0",
        gradients_per_forward=2,
    ),
    "plain_jsma": Comparison(
        attack="jsma",
        params={"target": TARGETED, **JSMA},
        rival="plain_jsma",
        rival_params=JSMA,
        label="the plain JSMA of the tests",
        images=20,
        speedup=100.0,
        distance="l0",
        identical=True,
        gradients_per_forward=2,
    ),
    "cw_linf": Comparison(
        attack="cw_linf",
        params={
            # ART keeps what is not of the class it is given, so it cannot be
            # targeted.
            "target": UNTARGETED,
            "kappa": 0.0,
            "max_iterations": 1000,
            "learning_rate": 5e-3,
            "decrease_factor": 0.9,
            "initial_const": 1e-5,
            "largest_const": 20.0,
            "const_factor": 2.0,
            "reduce_const": False,
            "abort_early": False,
        },
        rival="art_cw_linf",
        rival_params={
            "confidence": 0.0,
            "learning_rate": 5e-3,
            "max_iter": 1000,
            "decrease_factor": 0.9,
            "initial_const": 1e-5,
            "largest_const": 20.0,
            "const_factor": 2.0,
            "batch_size": 5,
        },
        label="ART CW-Linf",
        images=5,
        speedup=20.0,
        distance="linf",
        distance_ratio=1.05,
        success="all",
        warm_up=False,
        may_not_finish=True,
    ),
    "cw_l0": Comparison(
        attack="cw_l0",
        params={
            "target": TARGETED,
            "kappa": 0.0,
            "max_iterations": 1000,
            "learning_rate": 0.01,
            "initial_const": 1e-3,
            "largest_const": 2e6,
            "const_factor": 2.0,
            "reduce_const": False,
            "abort_early": True,
            "checks_per_run": 40,
        },
        rival="art_cw_l0",
        rival_params={
            "confidence": 0.0,
            "learning_rate": 0.01,
            "max_iter": 1000,
            "binary_search_steps": 10,
            "initial_const": 0.01,
            # With more it breaks once one image of a batch is done.
            "batch_size": 1,
        },
        label="ART CW-L0 (freezes one value a round)",
        images=5,
        speedup=20.0,
        distance="l0",
        distance_ratio=1.05,
        success="all",
        warm_up=False,
        may_not_finish=True,
    ),
    "lbfgs": Comparison(
        attack="lbfgs",
        params={"target": TARGETED, **LBFGS},
        rival="scipy_lbfgs",
        # Ours ends where float32 hardly tells a gain from nothing, 1e-5.
        rival_params={**LBFGS, "tolerance": 1e-5},
        label="SciPy's L-BFGS-B, one image at a time",
        images=50,
        speedup=4.0,
        distance="l2",
        distance_ratio=1.05,
        success="equal",
    ),
}
