"""Adversarial attacks: (classifier, images, labels) -> adversarial images.

Every attack is a frozen dataclass of hyper-parameters with one checked entry
point; `get` finds it by name.
"""

from attacks.all_targets import AllTargets, attack_all_targets
from attacks.base import Attack, AttackResult, default_batch_size
from attacks.fgsm import FGSM
from attacks.iterative_gradient_sign import IterativeGradientSign
from attacks.registry import ATTACKS, get, has_param, parse_params
from attacks.search import SearchAttack
from attacks.targets import TargetedAttack, wants_all_targets

__all__ = [
    "ATTACKS",
    "AllTargets",
    "Attack",
    "AttackResult",
    "FGSM",
    "IterativeGradientSign",
    "SearchAttack",
    "TargetedAttack",
    "attack_all_targets",
    "default_batch_size",
    "get",
    "has_param",
    "parse_params",
    "wants_all_targets",
]
