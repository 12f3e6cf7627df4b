"""Adversarial attacks: (classifier, images, labels) -> adversarial images.

Every attack is a frozen dataclass of hyper-parameters with one checked entry
point; `get` finds it by name.
"""

from attacks.base import Attack, AttackResult
from attacks.fgsm import FGSM
from attacks.iterative_gradient_sign import IterativeGradientSign
from attacks.registry import ATTACKS, get, parse_params

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackResult",
    "FGSM",
    "IterativeGradientSign",
    "get",
    "parse_params",
]
