"""Adversarial attacks: (classifier, images, labels) -> adversarial images.

Every attack is a frozen dataclass of hyper-parameters with one checked entry
point; `get` finds it by name.
"""

from attacks.base import Attack, AttackResult, default_batch_size
from attacks.fgsm import FGSM
from attacks.iterative_gradient_sign import IterativeGradientSign
from attacks.registry import ATTACKS, get, parse_params

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackResult",
    "FGSM",
    "IterativeGradientSign",
    "default_batch_size",
    "get",
    "parse_params",
]
