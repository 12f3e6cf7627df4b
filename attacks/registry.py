"""Attacks by name, with parameters as a command line writes them."""

from __future__ import annotations

import dataclasses
from typing import Any

from attacks.apgd import APGDCE, APGDT
from attacks.auto_attack import AutoAttack
from attacks.base import Attack
from attacks.cw_l0 import CWL0
from attacks.cw_l2 import CWL2
from attacks.cw_linf import CWLinf
from attacks.deepfool import DeepFool
from attacks.fab import FABT
from attacks.fgsm import FGSM
from attacks.iterative_gradient_sign import IterativeGradientSign
from attacks.jsma import JSMA
from attacks.lbfgs import LBFGS
from attacks.pgd import PGD
from attacks.square import Square
from data.checks import check_one_of
from data.params import parse_params as parse_text

_CLASSES: tuple[type[Attack], ...] = (
    FGSM,
    IterativeGradientSign,
    PGD,
    APGDCE,
    APGDT,
    Square,
    AutoAttack,
    DeepFool,
    FABT,
    LBFGS,
    JSMA,
    CWL0,
    CWL2,
    CWLinf,
)
ATTACKS = {attack.name: attack for attack in _CLASSES}


def get(name: str, /, **params: Any) -> Attack:
    """Finds an attack by name: `get("fgsm", epsilon=0.3)`.

    Raises:
        ValueError: The name or a parameter is unknown (the message lists those
            that are known), or a value does not fit.
    """
    known = _param_names(name)
    for param in params:
        check_one_of(param, known, f"parameter of {name}")
    return ATTACKS[name](**params)


def has_param(name: str, param: str) -> bool:
    """Whether an attack has a parameter of that name.

    Raises:
        ValueError: The attack is unknown; the message lists those known.
    """
    return param in _param_names(name)


def _param_names(name: str) -> list[str]:
    attack = ATTACKS[check_one_of(name, ATTACKS, "attack")]
    return [field.name for field in dataclasses.fields(attack)]


def parse_params(text: str, argument: str = "attack_params") -> dict[str, Any]:
    """Parses `k=v,k=v`: numbers, true, false, none, else strings.

    `argument` is the name of the caller's argument, for error messages.

    Raises:
        ValueError: A part is not of the form `name=value`, or comes twice.
    """
    return parse_text(text, argument)
