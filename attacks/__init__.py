"""Adversarial attacks: (classifier, images, labels) -> adversarial images.

Every attack is a frozen dataclass of hyper-parameters with one checked entry
point; `get` finds it by name.
"""

from attacks.all_targets import AllTargets, attack_all_targets
from attacks.apgd import APGDCE, APGDT
from attacks.auto_attack import AutoAttack
from attacks.base import (
    Attack,
    AttackResult,
    BatchAttack,
    NonFiniteError,
    default_batch_size,
)
from attacks.cw_l0 import CWL0, pixels_changed
from attacks.cw_l2 import CWL2
from attacks.cw_linf import CWLinf
from attacks.deepfool import DeepFool
from attacks.fab import FABT
from attacks.fgsm import FGSM
from attacks.iterative_gradient_sign import IterativeGradientSign
from attacks.jsma import JSMA
from attacks.lbfgs import LBFGS
from attacks.pgd import PGD
from attacks.registry import ATTACKS, get, has_param, parse_params
from attacks.search import SearchAttack
from attacks.square import Square
from attacks.targets import TargetedAttack, wants_all_targets

__all__ = [
    "APGDCE",
    "APGDT",
    "ATTACKS",
    "AllTargets",
    "Attack",
    "AttackResult",
    "BatchAttack",
    "AutoAttack",
    "CWL0",
    "CWL2",
    "CWLinf",
    "DeepFool",
    "FABT",
    "FGSM",
    "IterativeGradientSign",
    "JSMA",
    "LBFGS",
    "NonFiniteError",
    "PGD",
    "SearchAttack",
    "Square",
    "TargetedAttack",
    "attack_all_targets",
    "default_batch_size",
    "get",
    "has_param",
    "parse_params",
    "pixels_changed",
    "wants_all_targets",
]
